"""Landmark boxes in pictures: what a detector and a finder give to the net that reads the landmarks."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from pipnet.errors import UserError, one_line


class Boxes(NamedTuple):
    """M landmark boxes, each in a picture.

    images (M,): the picture of each, uint8 BGR (H, W, 3)
    boxes (M, 5): x1 y1 x2 y2 in px of the picture and the roll in degrees, by which the box and its crop are turned
    clockwise, so that the crop shows the face upright
    scores (M,): the detector's; NaN for boxes from elsewhere
    """

    images: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray | None = None) -> Self:
        """Return boxes (M, 5) of one picture."""
        images = np.fromiter((image for _ in boxes), object, len(boxes))
        return cls(images, boxes, np.full(len(boxes), np.nan) if scores is None else scores)

    def rows(self, rows: np.ndarray | slice) -> Self:
        """Return some of the boxes, which numbers or booleans choose."""
        return type(self)(self.images[rows], self.boxes[rows], self.scores[rows])


def joined(several: Sequence[Boxes]) -> Boxes:
    """Return all boxes of several lists, in their order."""
    return Boxes(*map(np.concatenate, zip(*several, strict=True)))


def with_roll(boxes: np.ndarray) -> np.ndarray:
    """Return a copy of boxes (M, 4) or (M, 5), or of one box, as (M, 5) float64. A missing roll is 0.

    UserError for other shapes.
    """
    try:
        rows = np.atleast_2d(np.asarray(boxes, np.float64))
        rows = rows if rows.size else np.zeros((0, 4))
        if rows.ndim != 2 or rows.shape[1] not in (4, 5):
            raise ValueError(f"an array {np.shape(boxes)}")
    except (TypeError, ValueError) as error:
        raise UserError(
            f"give boxes as numbers (M, 4) x1 y1 x2 y2, or (M, 5) with a roll, not {one_line(error)}"
        ) from None
    return np.column_stack([rows, np.zeros((len(rows), 5 - rows.shape[1]))])


def largest_first(boxes: np.ndarray) -> np.ndarray:
    """Return the indices (M,) of boxes (M, 4) or (M, 5), those of the largest ones first."""
    return np.argsort(-np.prod(boxes[:, 2:4] - boxes[:, :2], 1), kind="stable")
