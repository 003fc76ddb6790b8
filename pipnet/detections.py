"""What a detector finds in a picture, and the map from its boxes to those of the landmarks."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pipnet.card import DetectorCard
from pipnet.distinct import WITHIN
from pipnet.face import by_identity
from pipnet.geometry import carry, greedy_nms, iou, shared, turn_about


@by_identity
class Detections(NamedTuple):
    """Detected faces, best first: boxes (M, 4) x1 y1 x2 y2 and points (M, 5, 2) in continuous image px, scores (M,) in
    [0, 1].

    Boxes may reach beyond the image. Points are the eyes, the nose and the corners of the mouth, the one on the image's
    left first; None if the detector has none.
    """

    boxes: np.ndarray
    scores: np.ndarray
    points: np.ndarray | None = None


class FaceBox(NamedTuple):
    """Map from a detector's box to the tight box of the face's 68 landmarks, from the brows to the chin.

    down: how far the centre moves down, as a share of the box's height. wide, high: factors of the width and the
    height.
    """

    down: float
    wide: float
    high: float

    def __call__(self, boxes: np.ndarray) -> np.ndarray:
        """Return landmark boxes (M, 4) of detector boxes (M, 4), image px."""
        low, high = boxes[..., :2], boxes[..., 2:]
        centre, half = (low + high) / 2, (high - low) / 2
        centre = centre + 2 * half * (0, self.down)
        return np.concatenate([centre - half * (self.wide, self.high), centre + half * (self.wide, self.high)], -1)

    def turned(self, boxes: np.ndarray, degrees: int) -> np.ndarray:
        """Return landmark boxes (M, 5), px, for faces that lean clockwise by `degrees`, a multiple of 90.

        boxes (M, 4): those that `__call__` made, from the same detector boxes, for upright faces. The last value is the
        roll, see `Landmarker.landmarks_of`.
        """
        half = (boxes[:, 2:] - boxes[:, :2]) / 2 / (self.wide, self.high)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 - 2 * half * (0, self.down)
        if degrees % 180:
            half = half[:, ::-1]
        upright = self(np.concatenate([centre - half, centre + half], -1))
        moved = [
            carry(box, turn_about(middle, np.radians(degrees))) for box, middle in zip(upright, centre, strict=True)
        ]
        return np.column_stack([np.reshape(moved, (-1, 4)), np.full(len(boxes), degrees)])


Find = Callable[[np.ndarray, float, float], Detections]  # image (H, W, 3), threshold, overlap -> boxes in its px
Size = Callable[[int, int], tuple[int, int]]  # height and width of an image -> those to which it is resized, px


class Loaded(NamedTuple):
    """An opened detector.

    card: that of a detector of this project; None: that of its row. size: what its authors' code resizes an image to;
    None: see `detection_scale`.
    """

    find: Find
    card: DetectorCard | None = None
    size: Size | None = None


def joined(large: Detections, found: Detections, overlap: float) -> Detections:
    """Return both, best first, except those of `found` that show a large face again, or a part of one that is as
    certain.
    """
    again = iou(found.boxes, large.boxes) > overlap
    part = (shared(found.boxes, large.boxes) >= WITHIN) & (found.scores[:, None] <= large.scores)
    kept = ~(again | part).any(1)
    boxes, scores = (np.concatenate([one, other[kept]]) for one, other in zip(large[:2], found[:2], strict=True))
    order = np.argsort(-scores, kind="stable")
    return Detections(boxes[order], scores[order])


def suppress(boxes: np.ndarray, overlap: float) -> list[int]:
    """Return the indices of the boxes (M, 4), best first, whose IoU with every better box that is kept is at most
    `overlap`.
    """
    return greedy_nms(iou(boxes, boxes).astype(np.float64) > overlap)
