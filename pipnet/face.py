"""A face with its box, landmarks and everything else that was found."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar

import numpy as np

from pipnet.align import FIVE_NAMES, five_points
from pipnet.errors import UserError
from pipnet.geometry import box_of
from pipnet.layout import Layout

PER_LANDMARK = ("landmarks", "scores", "sigma", "visible")  # fields with a row for each landmark
# of values in the JSON; others 4
DIGITS = {"box": 2, "landmarks": 2, "landmark_scores": 3, "sigma": 3, "pose": 2, "states": 3, "visible": 3}
COMPARISONS = ("__eq__", "__ne__", "__hash__", "__lt__", "__le__", "__gt__", "__ge__")
Kind = TypeVar("Kind", bound=type)


def by_identity(kind: Kind) -> Kind:
    """Let objects of a class equal only themselves, without an order. Tuples of arrays cannot be compared by value."""
    for name in COMPARISONS:
        setattr(kind, name, getattr(object, name))
    return kind


@dataclass(frozen=True, eq=False, repr=False)
class Face:
    """One face of one frame, in continuous image px. None stands for values that were not computed.

    A face equals itself only, so `in`, `index` and `remove` of a list find this very face. `dataclasses.replace` makes
    a face with other values.

    - `box` (4,): x1 y1 x2 y2, the tight landmark box (brows to chin) that the net's crop was made from. If the face
      leans, the upright box around that box.
    - `score`: the probability that the crop shows a face. A net without the output `face` gives the detector's score;
      NaN for a box from elsewhere.
    - `landmarks` (N, 2), and the `scores` (N,) of each landmark in [0, 1].
    - `sigma` (N,): expected error of each landmark, px.
    - `id`: the tracker's number of the face.
    - `pose` (3,): pitch, yaw, roll in degrees, with the signs of `head_pose`; if the net predicts them, or with `pose`.
    - `states`: {name: probability}, such as left_eye_closed; empty if the net predicts none.
    - `visible` (N,): probability that each landmark is seen, and not hidden behind the head or something else, or outside
      the picture; if the net predicts it.
    - `drowsiness`: what `Drowsiness.update` returned, if the program has added it; else empty.
    - `layout`: the `Layout` of the landmarks: `layout.groups` has the indices of each group.
    """

    box: np.ndarray
    score: float
    landmarks: np.ndarray
    scores: np.ndarray
    sigma: np.ndarray | None = None
    id: int | None = None
    pose: np.ndarray | None = None
    states: dict[str, float] = field(default_factory=dict)
    visible: np.ndarray | None = None
    drowsiness: dict[str, Any] = field(default_factory=dict)
    layout: Layout | None = None

    def group(self, name: str) -> np.ndarray:
        """Return the landmarks (K, 2) of a group of the layout, such as eye_left, in image px.

        Left is the left of the image. UserError for a name that the layout lacks.
        """
        groups = self._known_layout().groups
        if name not in groups:
            raise self._unknown("group", name, list(groups))
        return self.landmarks[list(groups[name])]

    def point(self, name: str) -> np.ndarray:
        """Return one point (2,) in image px: a landmark, or one of the five points of `Landmarker.align`.

        name: eye_left, eye_right (middles of the eyes), nose_tip, mouth_left, mouth_right, or a landmark as the layout
        names it: the group and, of several, the number from 1, such as jaw_9. Left is the left of the image. UserError
        for a name that the layout lacks.
        """
        layout = self._known_layout()
        names = layout.point_names()
        if name in names:
            return np.asarray(self.landmarks[names.index(name)])
        if name in FIVE_NAMES:
            return np.asarray(five_points(self.landmarks, layout)[FIVE_NAMES.index(name)])
        raise self._unknown("point", name, [*FIVE_NAMES, *names])

    def _known_layout(self) -> Layout:
        if self.layout is None:
            raise UserError("this face has no layout, so its points have no names; give Face(...) a layout")
        return self.layout

    def _unknown(self, kind: str, name: str, names: list[str]) -> UserError:
        near = list(dict.fromkeys(get_close_matches(str(name), names) or names))
        return UserError(f"layout '{self._known_layout().name}' has no {kind} {name!r}; there is {', '.join(near)}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, lists and texts: the face in a line of --json. None: unknown or not finite.

        Numbers are rounded, coordinates to 0.01 px. Without states, visible or drowsiness, their keys are missing.
        """
        values = {
            "id": self.id,
            "box": self.box,
            "score": self.score,
            "landmarks": self.landmarks,
            "landmark_scores": self.scores,
            "sigma": self.sigma,
            "pose": self.pose,
            **({"states": self.states} if self.states else {}),
            **({} if self.visible is None else {"visible": self.visible}),
            **self.drowsiness,
        }
        return {key: plain_values(value, DIGITS.get(key, 4)) for key, value in values.items()}

    def __repr__(self) -> str:
        """Return the face on one short line."""
        of = f"id={self.id}, " if self.id is not None else ""
        box = ", ".join(f"{edge:.1f}" for edge in self.box)
        return f"Face({of}box=[{box}], score={self.score:.3f}, {len(self.landmarks)} landmarks, score {np.mean(self.scores):.3f})"


def boxes_of(faces: Iterable[Face]) -> np.ndarray:
    """Return the tight boxes (M, 4) of the faces' landmarks, px."""
    return np.array([box_of(face.landmarks) for face in faces]).reshape(-1, 4)


def plain_values(value: Any, digits: int | None = None) -> Any:
    """Return a number, array, list or dict as plain values, rounded to `digits` if given; None for what is not finite."""
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind == "f" and np.isfinite(value).all():  # all at once, which takes a tenth of the time
            numbers = value.astype(np.float64)
            return (numbers if digits is None else numbers.round(digits)).tolist()
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain_values(one, digits) for one in value]
    if isinstance(value, dict):
        return {key: plain_values(one, digits) for key, one in value.items()}
    if isinstance(value, float):
        return None if not np.isfinite(value) else value if digits is None else round(value, digits)
    return value
