"""The measure of labels, of --show-data and --audit: how far each lies from where a landmark net sees it, in face sizes.

A label is compared with the landmark of the net beside which it lies most steadily in the whole set, and with its usual
place there. So the net may have any layout, and habits that all labels share are no faults. The score is the distance
as a multiple of a limit: of LEAST, and of TIMES the usual distance of that landmark.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from pipnet.chain import is_sure
from pipnet.errors import UserError
from pipnet.geometry import invert, similarity, to_crop, transform
from pipnet.landmarker import Landmarker
from pipnet.layout import Layout
from utils.data.faces import Faces, evenly
from utils.evaluate.boxes import picture
from utils.settings.config import Defaults, Settings
from utils.settings.progress import progress
from utils.settings.rules import NO_NET
from utils.task.inference import open_landmark_net

LEAST, TIMES = 0.1, 4.0  # face sizes; multiple of the median distance
FEWEST, LEARNT = 8, 500  # faces that tell the usual places, and of how many these are learnt at most
# of the box of eyes, nose and mouth: side of the face's box; distance by which it lies lower
WHOLE, LOWER = 5 / 3, 0.13
NEAR = 0.75  # face sizes: distance from the middle of the labels to that of their face
SURE = float("inf")  # score of a label that is wrong by itself, whatever a net sees


class Finding(NamedTuple):
    """A suspicion about a face."""

    face: int  # its index
    score: float  # from 1 on it is an alarm
    reason: str
    landmarks: tuple[int, ...]  # the suspicious ones


def open_judge(settings: Settings, defaults: Defaults) -> Landmarker:
    """Return a landmarker with the landmark net of --weights; without one, with the net that comes with the project."""
    net = None
    if settings.net.weights not in NO_NET:
        with suppress(UserError):  # it has a backbone alone, for example
            net = open_landmark_net(Path(settings.net.weights), defaults)
    return Landmarker(net)


def see(faces: Faces, landmarker: Landmarker) -> tuple[ndarray, ndarray]:
    """Return the labels (M, N, 2), NaN where unknown, and the landmarks that the net sees (M, K, 2), px of the crops.

    The net looks at the box of the labels, and at that of a whole face with its eyes, nose and mouth there. Then it looks
    at the face that it has seen in the better of the two. Where it is not sure of a face, such as in crops of a mouth, the
    face around the labels is looked for in the source image.
    """
    size, border, net = faces.geometry.size, faces.geometry.border, landmarker.net
    columns = faces.read("nominal", "known", "frame")
    labels = np.where(columns["known"][..., None], columns["nominal"], np.nan) * size + border
    boxes = (columns["frame"][:, 0] * size + border).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + sides * (0.5, 0.5 + LOWER)
    half = WHOLE / 2 * sides.max(1, keepdims=True)
    pairs = np.stack([boxes, np.hstack([centre - half, centre + half])], 1)
    found = []
    for i, pair in enumerate(progress(pairs, desc="labels", unit="face")):
        crop = faces.crop(i)
        looks = landmarker.landmarks_of(crop, pair)
        face = max(looks, key=lambda face: face.score if net.face else face.scores.mean())
        again = net.box_of(face.landmarks)
        if net.shows(again, *crop.shape[1::-1]):
            (face,) = landmarker.landmarks_of(crop, again[None])
        found.append(face.landmarks)
        if net.face and not is_sure(face):
            image, matrix = picture(faces, i)
            row, back = faces.row(i), invert(matrix)
            for other in landmarker(image):
                points = to_crop(transform(other.landmarks, back), row["crop"]) * size + border
                reach = np.linalg.norm(points.mean(0) - boxes[i].reshape(2, 2).mean(0))
                if other.score > face.score and reach < NEAR * np.sqrt(np.prod(np.ptp(points, axis=0))):
                    face, found[-1] = other, points
    return labels, np.array(found)


def examine(labels: ndarray, found: ndarray, layout: Layout, names: Sequence[str] | ndarray) -> list[Finding]:
    """Return the suspicions about labels (M, N, 2), worst first, at least one for each face.

    found (M, K, 2): where a net sees its landmarks. names: of the M pictures.
    """
    findings = _plain_faults(labels, layout, names)
    judged = np.flatnonzero(np.isfinite(labels).all(-1).any(1))
    if len(judged) >= FEWEST:
        distance, limits = _measure(labels[judged], found[judged])
        scores = distance(np.arange(layout.count))
        exchanged = _exchanges(distance, scores, layout)
        for row, face in enumerate(judged.tolist()):
            findings.append(exchanged.get(row) or _misfit(scores[row], limits, layout.point_names()))
            findings[-1] = findings[-1]._replace(face=face)
    return sorted(findings, key=lambda finding: (-finding.score, finding.face))


def _plain_faults(labels: ndarray, layout: Layout, names: Sequence[str] | ndarray) -> list[Finding]:
    """Return the faults that need no net: too few landmarks, and the labels of an earlier face, to 1/100 px."""
    findings, first = [], {}
    for face, points in enumerate(labels):
        known = np.flatnonzero(np.isfinite(points).all(-1))
        other = first.setdefault(points.round(2).tobytes(), face)
        if len(known) < min(3, layout.count):
            findings.append(Finding(face, SURE, f"{len(known)} landmarks are labelled", tuple(known.tolist())))
        elif other != face:
            findings.append(Finding(face, SURE, f"the same labels as {names[other]}", ()))
    return findings


def _measure(labels: ndarray, found: ndarray) -> tuple[Callable[[ndarray], ndarray], ndarray]:
    """Return (the function from an order (N,) of the labels to their distances (M, N) as multiples of the limits, the
    limits (N,) in face sizes). Distances of unknown labels are NaN.
    """
    some = evenly(len(labels), LEARNT)
    usual, spread = beside(labels[some], found[some])
    steadiest, every = spread.argmin(1), np.arange(len(spread))
    usual, limits = usual[every, steadiest], LEAST + TIMES * spread[every, steadiest]
    upright = _upright(found)

    def distance(order: ndarray) -> ndarray:
        apart = np.einsum("mab,mnb->mna", upright, labels[:, order] - found[:, steadiest])
        return np.linalg.norm(apart - usual, axis=-1) / limits

    return distance, limits


def beside(labels: ndarray, found: ndarray) -> tuple[ndarray, ndarray]:
    """Return where labels (M, N, 2) usually lie beside each landmark of a net (N, K, 2), and the median distance from that
    place (N, K), both in face sizes without the roll. Infinite distances for labels that no face has.

    found (M, K, 2): where the net sees its landmarks.
    """
    apart = np.einsum("mab,mnkb->mnka", _upright(found), labels[:, :, None] - found[:, None])
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # for a landmark that no face has
        usual = np.nanmedian(apart, 0)
        spread = np.nanmedian(np.linalg.norm(apart - usual, axis=-1), 0)
    return usual, np.nan_to_num(spread, nan=np.inf)


def _upright(found: ndarray) -> ndarray:
    """Return matrices (M, 2, 2) from px to face sizes, without the roll, of faces whose landmarks are `found` (M, K, 2)."""
    usual_face = np.median(found, 0)
    size = np.sqrt(np.prod(np.ptp(usual_face, axis=0)))
    return np.linalg.inv([similarity(usual_face, face)[:, :2] for face in found]) / size


def _misfit(scores: ndarray, limits: ndarray, names: list[str]) -> Finding:
    """Return the finding about a face with these scores (N,), which names its worst landmarks."""
    order = np.nan_to_num(scores, nan=-1).argsort()[::-1]
    worst, score = int(order[0]), float(scores[order[0]])
    marked = tuple(int(i) for i in order if scores[i] >= max(1, score / 2))
    if np.nanmedian(scores) >= 1:
        return Finding(-1, score, f"the whole face is {np.nanmedian(scores * limits):.2f} face sizes off", marked[:8])
    name = "" if names[worst] == str(worst) else f" ({names[worst]})"
    return Finding(-1, score, f"{worst}{name} is {score * limits[worst]:.2f} face sizes off", marked)


def _exchanges(distance: Callable, scores: ndarray, layout: Layout) -> dict[int, Finding]:
    """Return {row: finding} of faces that fit clearly better with left and right exchanged, as a whole or in a group."""
    flip, findings = np.array(layout.flip_index), {}
    groups = {tuple(range(layout.count)): "the whole face"}
    for name, ids in layout.groups.items():
        both = tuple(sorted({*ids, *flip[list(ids)].tolist()}))
        groups[both] = f"{groups[both]}, {name}" if both in groups else name
    for ids in groups:
        moved = [i for i in ids if flip[i] != i]
        order = np.arange(layout.count)
        order[moved] = flip[moved]
        before, after = (np.nan_to_num(values).max(1) for values in (scores, distance(order)))
        for row in np.flatnonzero((before >= 1) & (after < before / 2)).tolist():
            reason = f"left and right exchanged: {groups[ids]}"
            findings.setdefault(row, Finding(-1, float(before[row]), reason, tuple(moved)))
    return findings
