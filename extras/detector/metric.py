"""Average precision and recall of detections, with IoU of at least one half, as in WIDER FACE and PASCAL VOC."""

from typing import NamedTuple

import numpy as np

from extras.detector.wider import Picture
from pipnet.geometry import iou

LEAST = 16.0  # px of the image: faces with a shorter side, and detections of them, are ignored
OVERLAP = 0.5


class DetectionScores(NamedTuple):
    """Figures of a detector; NaN without such faces."""

    ap: float  # area under the precision-recall curve, over pictures in which every face has a box
    recall: float  # share of the faces that are found
    covered: float  # recall of faces that a mask or something else covers
    plain: float  # recall of the other faces
    faces: int


def small(boxes: np.ndarray) -> np.ndarray:
    """Return (M,) bool: whether each face has a side below LEAST px."""
    return ((boxes[:, 2:] - boxes[:, :2]) < LEAST).any(1)


def matched(boxes: np.ndarray, picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Return (index of the face that each box (M, 4) finds, bool for each face: whether it counts).
    Boxes are best first.

    The index is -1 for no face and -2 for an ignored one. A box takes the face that it overlaps most among those that
    no earlier box took.
    """
    aside = picture.ignored | small(picture.boxes)
    found, overlap, free = np.full(len(boxes), -1), iou(boxes, picture.boxes), ~aside
    for row in range(len(boxes)):
        candidates = np.where(free, overlap[row], 0)
        if len(candidates) and candidates.max() >= OVERLAP:
            found[row] = candidates.argmax()
            free[found[row]] = False
        elif (overlap[row][aside] >= OVERLAP).any():
            found[row] = -2
    return found, ~aside


def score(found: list[tuple[np.ndarray, np.ndarray]], pictures: list[Picture]) -> DetectionScores:
    """Return the figures of `found`: (boxes (M, 4) best first, scores (M,)) of each picture."""
    hits, scores, whole = [np.zeros(0, bool)], [np.zeros(0)], 0
    tally = np.zeros((2, 2))  # of plain and covered faces: hits, faces
    for (boxes, values), picture in zip(found, pictures, strict=True):
        match, counted = matched(boxes, picture)
        for kind, faces in enumerate((match[match >= 0], np.flatnonzero(counted))):
            tally[:, kind] += np.bincount(picture.covered[faces].astype(int), minlength=2)
        if picture.whole:
            hits.append(match[match != -2] >= 0)
            scores.append(values[match != -2])
            whole += counted.sum()
    hit = np.concatenate(hits)[np.argsort(-np.concatenate(scores), kind="stable")]
    recall = np.cumsum(hit) / max(whole, 1)
    precision = np.maximum.accumulate((np.cumsum(hit) / np.arange(1, len(hit) + 1))[::-1])[::-1]
    ap = float(np.sum(precision * np.diff(recall, prepend=0))) if whole else float("nan")
    recalls = [float(part / of) if of else float("nan") for part, of in (tally.sum(0), tally[1], tally[0])]
    return DetectionScores(ap, recalls[0], recalls[1], recalls[2], int(tally[:, 1].sum()))
