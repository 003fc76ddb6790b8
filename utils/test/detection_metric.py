"""Average precision and recall of detections against boxes: IoU of at least one half, as WIDER FACE and PASCAL VOC count."""
from typing import NamedTuple

import numpy as np

from pipnet.geometry import iou
from utils.data.wider import Picture

LEAST = 16.0  # px of the image, both sides: smaller faces, and detections of them, count neither way
OVERLAP = 0.5


class Scores(NamedTuple):
    """ap: area under precision over recall, every point of it, in pictures in which every face has a box; recall: share of the
    faces that are found at all; covered and plain: recall of faces that are masked or otherwise covered, and of the others. NaN
    where there are no such faces."""

    ap: float
    recall: float
    covered: float
    plain: float
    faces: int


def small(boxes: np.ndarray) -> np.ndarray:
    """(M,): faces of less than LEAST px."""
    return ((boxes[:, 2:] - boxes[:, :2]) < LEAST).any(1)


def matched(boxes: np.ndarray, picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """boxes (M, 4) best first -> (of each the face it finds, -1 for none, -2 where it counts neither way; faces that count).

    A face is found once, by the best box that overlaps no other free face more.
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


def score(found: list[tuple[np.ndarray, np.ndarray]], pictures: list[Picture]) -> Scores:
    """found: (boxes (M, 4) best first, scores (M,)) of each picture."""
    hits, scores, whole, tally = [np.zeros(0, bool)], [np.zeros(0)], 0, np.zeros((2, 2))  # plain and covered: hits, faces
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
    shares = [float(part / of) if of else float("nan") for part, of in (tally.sum(0), tally[1], tally[0])]
    return Scores(ap, *shares, int(tally[:, 1].sum()))
