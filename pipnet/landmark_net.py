"""A landmark net that is open for predictions, and how its crops are made."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.boxes import Boxes
from pipnet.card import LandmarkCard
from pipnet.errors import UserError
from pipnet.face import Face
from pipnet.geometry import (
    Protocol,
    border_px,
    box_of,
    box_of_crop,
    carry,
    crop_box,
    cut,
    similarity,
    to_image,
    transform,
    turn_about,
    upright_boxes,
)
from pipnet.layout import Layout
from pipnet.openers import open_with
from pipnet.pose import turn_pose
from pipnet.runtimes import Arrays, Opened, open_file

MOST_FACES = 64  # crops in one call of the net, which bounds the memory
FILLED = 0.08  # training boxes were tight if the crop of the mean face's box is [0, 1] up to this share of the side
# a roll up to this is not corrected, so crops of upright faces stay upright and do not jump in a video
LEVEL = math.radians(5)
# a face is not cropped again if the edges of its next crop move by less than NEAR, a share of the side, and the roll by
# NEAR_TURN
NEAR, NEAR_TURN = 0.08, math.radians(10)
SQUARE = Protocol(1.2, 1.2, 0.0, "max", "real", "float")
PER_LANDMARK = ("landmarks", "score", "sigma", "visible")  # outputs with a row for each landmark
DETECTS = (
    "is a face detector, which finds boxes and no landmarks; name it with --detector-weights, in Python with "
    "Detector(), and a landmark net here"
)


@dataclass(frozen=True, eq=False)
class LandmarkNet:
    """A landmark net and how its crops are made.

    - predict: uint8 BGR (B, S, S, 3) -> {landmarks (B, N, 2) in [0, 1] of the crop, score (B, N)}, and where the net has
      them sigma (B, N), pose (B, 3) pitch, yaw, roll in radians, states (B, K) probabilities, visible (B, N) probability
      that the landmark is seen, face (B,) probability that the crop shows a face in its place
    - size, margin: px of the nominal crop, and what the net sees as a multiple of it: S is `size` plus a border on each
      side
    - meanface (N, 2): mean landmarks of the training set in [0, 1] of the crop
    - face, pose: whether the net predicts them
    - face_limit: mean landmark score of a crop below which it shows no face, for nets without `face`; 0: not known
    - states (K,): names of the states, None for one that was not trained
    """

    predict: Callable[[np.ndarray], Arrays]
    layout: Layout
    protocol: Protocol
    size: int
    meanface: np.ndarray | None
    margin: float = 1.0
    face: bool = False
    face_limit: float = 0.0
    pose: bool = False
    states: tuple[str | None, ...] = ()

    @cached_property
    def tight(self) -> bool:
        """Return whether training crops were made from tight landmark boxes: the crop of the mean face's box is then
        [0, 1].
        """
        if self.meanface is None:
            return True
        inside = self.protocol._replace(border="real", rounding="float")
        return bool(np.abs(crop_box(box_of(self.meanface), inside, 1, 1) - (0, 0, 1, 1)).max() < FILLED)

    def roll_of(self, landmarks: np.ndarray) -> float:
        """Return the angle in radians by which the crop of a face with these landmarks (N, 2) is turned clockwise, see
        LEVEL.
        """
        if self.meanface is None:
            return 0.0
        x, y = (self.meanface - self.meanface.mean(0)).T @ landmarks  # sums of products of both coordinates
        angle = math.atan2(x[1] - y[0], x[0] + y[1])  # that of the least-squares similarity between both
        return angle - min(max(angle, -LEVEL), LEVEL)

    def box_of(self, landmarks: np.ndarray) -> np.ndarray:
        """Return the landmark box (5,) for the next crop of a face with these landmarks (N, 2), both in image px.

        The last value is the roll, see `Landmarker.landmarks_of`. If training crops were made from tight landmark boxes, the box
        is tight. Otherwise it is the box whose crop shows the landmarks where training crops show the mean face.
        """
        landmarks = self.layout.checked(landmarks)
        turn, centre = self.roll_of(landmarks), landmarks.mean(0)
        if not turn:
            return np.append(self._upright_box(landmarks), 0)
        box = self._upright_box(transform(landmarks, turn_about(centre, -turn)))
        return np.append(carry(box, turn_about(centre, turn)), np.degrees(turn))

    def _upright_box(self, landmarks: np.ndarray) -> np.ndarray:
        """Return the landmark box (4,) of an upright face, see `box_of`."""
        meanface = self.meanface
        if meanface is None or self.tight:
            return box_of(landmarks)
        if self.protocol.square == "no":
            side = landmarks.std(0) / meanface.std(0)  # px of the crop
            centre = (0.5 - meanface.mean(0)) * side + landmarks.mean(0)
        else:
            matrix = similarity(meanface, landmarks)
            side, centre = np.sqrt(np.linalg.det(matrix[:, :2])), transform(np.full((1, 2), 0.5), matrix)[0]
        return box_of_crop(centre, side, self.protocol)

    def _crops(self, boxes: Iterable[np.ndarray]) -> np.ndarray:
        """Return the crops (M, 4) of landmark boxes (M, 4) or (M, 5), which may leave the image."""
        protocol = self.protocol._replace(border="real")
        return np.reshape([crop_box(box[:4], protocol, 0, 0) for box in boxes], (-1, 4))

    def is_far(self, box: np.ndarray, other: np.ndarray) -> bool:
        """Return whether the crops of two landmark boxes (5,) of a face differ so much that it is cropped again."""
        one, two = self._crops([box, other])
        turn = math.cos(math.radians(other[4] - box[4]))
        return bool(turn < math.cos(NEAR_TURN) or np.abs(two - one).max() > NEAR * (one[2:] - one[:2]).max())

    def next(self, boxes: Boxes, faces: Iterable[Face]) -> Boxes:
        """Return the boxes for the next crops of the faces that were read in boxes.

        A box that would lie outside its image is replaced by the present one, upright.
        """
        rows = []
        for image, face in zip(boxes.images, faces, strict=True):
            box = self.box_of(face.landmarks)
            rows.append(box if self.shows(box, *image.shape[1::-1]) else (*face.box, 0))
        return boxes._replace(boxes=np.reshape(rows, (-1, 5)))

    def read(self, boxes: Boxes) -> np.ndarray:
        """Return the face (M,) in each box. Crops go through the net in batches.

        The upright box of a turned face may lie outside the image.
        """
        parts = (boxes.rows(slice(first, first + MOST_FACES)) for first in range(0, len(boxes.boxes), MOST_FACES))
        return np.fromiter((face for part in parts for face in self._read(part)), object)

    def _read(self, boxes: Boxes) -> Iterator[Face]:
        """Yield the faces of a few boxes."""
        angles, margin = np.radians(boxes.boxes[:, 4]), 1 + 2 * border_px(self.size, self.margin) / self.size
        crops, pictures = [], []
        for image, (*box, _), angle in zip(boxes.images, boxes.boxes, angles, strict=True):
            height, width = image.shape[:2]
            crops.append(crop_box(box, self.protocol, width, height, angle))
            pictures.append(cut(image, crops[-1], self.size, margin, self.protocol.border, angle, halve=True))
        found = checked(self.predict(np.stack(pictures)), len(crops), self.layout.count)
        for row, (crop, angle, box) in enumerate(zip(crops, angles, upright_boxes(boxes.boxes), strict=True)):
            values = {name: value[row] for name, value in found.items()}
            sigma = (
                values["sigma"].astype(np.float64) * np.sqrt(np.prod(crop[2:] - crop[:2]))
                if "sigma" in values
                else None
            )
            landmarks, pose = to_image(values["landmarks"].astype(np.float64), crop), values.get("pose")
            if angle:
                landmarks = transform(landmarks, turn_about((crop[:2] + crop[2:]) / 2, angle))
                pose = None if pose is None else turn_pose(pose, angle)
            yield Face(
                box,
                float(values["face"] if self.face else boxes.scores[row]),
                landmarks,
                np.clip(values["score"], 0, 1),
                sigma,
                pose=None if pose is None else np.degrees(pose),
                states=self.name_states(values["states"]) if any(self.states) else {},
                visible=values.get("visible"),
                layout=self.layout,
            )

    def check_box(self, box: np.ndarray, width: int, height: int) -> None:
        """Raise UserError unless a landmark box (4,) or (5,), its roll ignored, gives a crop and overlaps an image of
        width x height.
        """
        crop_box(box[:4], self.protocol, width, height)
        left, top, right, bottom = box[:4]
        if not (np.isfinite(box).all() and left < width and top < height and right > 0 and bottom > 0):
            raise UserError(
                f"box {box.round(2).tolist()} lies outside the image of {width} x {height} px; leave it out"
            )

    def shows(self, box: np.ndarray, width: int, height: int) -> bool:
        """Return whether a landmark box gives a crop and overlaps an image, see `check_box`."""
        try:
            self.check_box(box, width, height)
        except UserError:
            return False
        return True

    def boxes_round(self, boxes: np.ndarray) -> np.ndarray:
        """Return the landmark boxes (M, 5) for this net's crops, from tight boxes (M, 5) of 68 landmarks.

        An `inner` protocol gets boxes whose crop is the one that `square` makes of the whole face; other protocols get
        the boxes as they are.
        """
        if not self.protocol.inner:
            return boxes
        centre = (boxes[:, :2] + boxes[:, 2:4]) / 2
        side = (boxes[:, 2:4] - boxes[:, :2]).max(1, keepdims=True) * SQUARE.scale_x
        round_ = box_of_crop(centre, side, self.protocol)
        turned = [
            carry(box, turn_about(*pair)) for box, *pair in zip(round_, centre, np.radians(boxes[:, 4]), strict=True)
        ]
        return np.column_stack([np.reshape(turned, (-1, 4)), boxes[:, 4]])

    def whole_faces(self, boxes: np.ndarray) -> np.ndarray:
        """Return the square boxes (M, 5) of whole faces from upright boxes (M, 5): the inverse of `boxes_round`."""
        if not self.protocol.inner:
            return boxes
        crops = self._crops(boxes)
        side = (crops[:, 2:] - crops[:, :2]).max(1, keepdims=True)
        return np.column_stack([box_of_crop((crops[:, :2] + crops[:, 2:]) / 2, side, SQUARE), boxes[:, 4]])

    def name_states(self, values: np.ndarray) -> dict[str, float]:
        """Return {name: probability} of the trained states from a face's output `states` (K,)."""
        return {name: float(value) for name, value in zip(self.states, values, strict=True) if name}

    @classmethod
    def of(cls, predict: Any, card: LandmarkCard) -> "LandmarkNet":
        """Return the net of a card. predict: see above, for one picture or more; None for a net that is only described."""

        def for_any_number(images: np.ndarray) -> Arrays:
            if len(images):
                found: Arrays = predict(images)
                return found
            one = np.zeros((1, *images.shape[1:]), images.dtype)  # most runtimes fail for a batch without pictures
            return {name: values[:0] for name, values in predict(one).items()}

        return cls(
            for_any_number,
            card.layout,
            card.protocol,
            card.input_size,
            card.meanface,
            card.input_margin,
            "face" in card.outputs,
            0.0 if "face" in card.outputs else card.face_limit,
            "pose" in card.outputs,
            card.states,
        )

    @classmethod
    def of_export(cls, opened: Opened, file: Path | str) -> "LandmarkNet":
        """Return the net of a file that this project exported. UserError if its metadata are incomplete or wrong."""
        net = cls.of(lambda images: opened.run({"image": images}), LandmarkCard.read(opened.values, file))
        return replace(net, pose="pose" in opened.outputs, face="face" in opened.outputs)


def checked(found: Arrays, count: int, points: int) -> Arrays:
    """Return a net's outputs for `count` crops.
    UserError unless landmarks (count, points, 2), their scores and `face` (count,) are finite.
    """
    for name in [name for name in (*PER_LANDMARK, "face") if name in found]:
        shape = {"landmarks": (count, points, 2), "face": (count,)}.get(name, (count, points))
        if found[name].shape != shape or not np.isfinite(found[name]).all():
            raise UserError(
                f"the landmark net gives {name} {found[name].shape}, where finite numbers {shape} are needed; export "
                "it again, or name another net"
            )
    return found


def open_net(
    file: Path | str, threads: int = 0, remedy: str = "export a trained net with main.py --export"
) -> LandmarkNet:
    """Return the landmark net of an exported file, see `open_file`. UserError if it is missing or another kind of file."""
    opened = open_file(file, threads, remedy)
    if {*opened.outputs} == {"boxes", "scores"}:
        raise UserError(f"{file} {DETECTS}")
    if opened.inputs != ["image"] or not {"landmarks", "score"} <= set(opened.outputs):
        net: LandmarkNet = open_with("published graph", file, opened)
        return net
    return LandmarkNet.of_export(opened, file)
