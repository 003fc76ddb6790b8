"""A face with its box, landmarks and everything else that was found."""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pipnet.geometry import box_of

PER_LANDMARK = ("landmarks", "scores", "sigma", "visible")  # fields with a row for each landmark
COMPARISONS = ("__eq__", "__ne__", "__hash__", "__lt__", "__le__", "__gt__", "__ge__")
Kind = TypeVar("Kind", bound=type)


def by_identity(kind: Kind) -> Kind:
    """Let objects of a class equal only themselves, without an order. Tuples of arrays cannot be compared by value."""
    for name in COMPARISONS:
        setattr(kind, name, getattr(object, name))
    return kind


@by_identity
class Face(NamedTuple):
    """One face of one frame, in continuous image px. None stands for values that were not computed.

    A face equals itself only, so `in`, `index` and `remove` of a list find this very face.

    - `box` (4,): x1 y1 x2 y2, the tight landmark box (brows to chin) that the net's crop was made from. If the face
      leans, the upright box around that box.
    - `score`: the probability that the crop shows a face. A net without the output `face` gives the detector's score;
      NaN for a box from elsewhere.
    - `landmarks` (N, 2), and the `scores` (N,) of each landmark in [0, 1].
    - `sigma` (N,): expected error of each landmark, px.
    - `id`: the tracker's number of the face.
    - `pose` (3,): pitch, yaw, roll in degrees, with the signs of `head_pose`; if the net predicts them.
    - `states`: {name: probability}, such as left_eye_closed; if the net predicts them.
    - `visible` (N,): probability that each landmark is seen, and not hidden behind the head or something else, or outside
      the picture; if the net predicts it.
    - `drowsiness`: what `Drowsiness.update` returned, if the program has added it.
    """

    box: np.ndarray
    score: float
    landmarks: np.ndarray
    scores: np.ndarray
    sigma: np.ndarray | None = None
    id: int | None = None
    pose: np.ndarray | None = None
    states: dict[str, float] | None = None
    visible: np.ndarray | None = None
    drowsiness: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, lists and texts for json.dumps, under the names of --json. None: unknown or not finite.

        Without states, visible or drowsiness, their keys are missing.
        """
        return plain_values(self.named())

    def named(self) -> dict[str, Any]:
        """Return the values as they are, under the names of --json."""
        return {
            "id": self.id,
            "box": self.box,
            "score": self.score,
            "landmarks": self.landmarks,
            "landmark_scores": self.scores,
            "sigma": self.sigma,
            "pose": self.pose,
            **({"states": self.states} if self.states else {}),
            **({} if self.visible is None else {"visible": self.visible}),
            **(self.drowsiness or {}),
        }

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
