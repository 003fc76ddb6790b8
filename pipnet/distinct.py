"""Which of several results show the same face."""

import numpy as np

from pipnet.face import Face, boxes_of
from pipnet.geometry import greedy_nms, iou, shared

WITHIN = 0.7  # a box shows a part of a face if at least this share of it lies in the face's box
TWICE, PART = 0.5, 2.0  # least IoU of two results for one face; least ratio of the areas of a face and a part of it
OTHER = 0.3  # IoU of the boxes of two faces above which they are one, found in the image and in the enhanced image


def distinct(faces: list[Face]) -> list[Face]:
    """Return the faces, those with the highest scores first, except those that show another face again, or a part of a
    larger face that is not less certain.
    """
    return best_first(without_duplicates(faces))


def without_duplicates(faces: list[Face]) -> list[Face]:
    """Return the faces of `distinct` in the order in which they are given."""
    if len(faces) < 2:
        return faces
    boxes, scores = boxes_of(faces), np.array([face.scores.mean() for face in faces])
    area = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    rank = np.argsort(np.argsort(-scores, kind="stable"))  # from the best face on
    part = (shared(boxes, boxes) >= WITHIN) & (area[:, None] * PART < area) & (scores[:, None] <= scores)
    again = (iou(boxes, boxes) >= TWICE) & (rank < rank[:, None])
    return [face for face, drops in zip(faces, (part | again).any(1), strict=True) if not drops]


def largest(faces: list[Face], most: int | None) -> list[Face]:
    """Return the `most` largest faces, best first.
    Of faces that overlap or lie in another one, that with the highest landmark scores is kept.
    """
    faces = sorted(faces, key=lambda face: -face.scores.mean())
    boxes = boxes_of(faces)
    kept = greedy_nms((iou(boxes, boxes) > OTHER) | (shared(boxes, boxes).T >= WITHIN))
    faces = sorted((faces[row] for row in kept), key=lambda face: -np.ptp(face.landmarks, axis=0).prod())[:most]
    return best_first(faces)


def best_first(faces: list[Face]) -> list[Face]:
    """Return the faces, those with the highest scores first."""
    return sorted(faces, key=lambda face: -face.score)
