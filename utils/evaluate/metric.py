"""Landmark errors: NME, failure rate, area under the cumulative error curve."""

from typing import NamedTuple

import numpy as np
from numpy import ndarray

STEP = 0.01  # % NME between two points of the cumulative error distribution
NORMS = ("interocular", "interpupil", "box", "diagonal", "size")
KEPT = 0.999  # share of true faces that a net shall keep, at which false ones are counted
PRECISION = 0.8  # of hidden landmarks, at which their recall is published (RCPR: Burgos-Artizzu et al., ICCV 2013)


class Scores(NamedTuple):
    """Figures of a set of faces."""

    nme: float  # %
    fr: tuple[float, ...]  # % per threshold
    auc: tuple[float, ...]  # in [0, 1], per threshold
    faces: int
    left_out: int  # faces with a zero or unknown norm


def point_errors(prediction: ndarray, truth: ndarray) -> ndarray:
    """Return distances (M, N) of landmarks (M, N, 2) in their unit; NaN where the truth is unknown."""
    return np.linalg.norm(prediction - truth, axis=-1)


def norms(truth: ndarray, layout, kind: str = "interocular", box: ndarray | None = None) -> ndarray:
    """Return the norm (M,) of faces (M, N, 2), by which errors are divided, in the landmarks' unit; NaN if zero or
    unknown.

    interocular: distance of the eyes' outer corners; interpupil: distance of the eyes' means; box: root of the area of
    `box` (M, 4), by default the landmarks' box; diagonal: of that box; size: mean of its width and height. Raise
    ValueError for a layout without the landmarks of the norm.
    """
    pair = layout.interocular if kind == "interocular" else layout.pupils
    if kind in ("interocular", "interpupil"):
        if pair is None:
            raise ValueError(f"layout {layout.name} has no {kind} norm; choose box or diagonal")
        left, right = (truth[:, np.atleast_1d(np.asarray(part))].mean(1) for part in pair)
        value = np.linalg.norm(left - right, axis=-1)
    else:
        if box is None:
            box = np.concatenate([np.nanmin(truth, 1), np.nanmax(truth, 1)], 1)
        sides = box[:, 2:] - box[:, :2]
        value = {"box": np.sqrt(sides.prod(1)), "diagonal": np.linalg.norm(sides, axis=1), "size": sides.mean(1)}[kind]
    value = value.astype(np.float64)
    value[~(value > 1e-9)] = np.nan
    return value


def nme(errors: ndarray, norm: ndarray) -> ndarray:
    """Return the NME (M,) in % of errors (M, N), NaN where unknown, with norms (M,); NaN without norm or known
    landmark.
    """
    known = np.isfinite(errors)
    mean = np.where(known, errors, 0).sum(1) / np.maximum(known.sum(1), 1)
    return np.where(known.any(1), 100 * mean / norm, np.nan)


def flicker(errors: ndarray, norm: ndarray, previous: ndarray) -> ndarray:
    """Return the mean change (M,) of a landmark's error from frame to frame in % of the norm; NaN for a first frame.

    errors (M, N, 2) are signed, in the unit of norm (M,); previous (M,) is the index of the frame before, -1 for none.
    Correctly predicted motion gives no flicker.
    """
    change = np.linalg.norm(errors - errors[previous], axis=-1)
    return np.where(previous >= 0, nme(change, norm), np.nan)


class Hidden(NamedTuple):
    """How well hidden landmarks are told from seen ones, as shares. NaN if no landmark is hidden, or all are."""

    prevalence: float  # of hidden landmarks among those that are known
    average_precision: float
    recall: float  # at PRECISION


def hidden(seen: ndarray, truth: ndarray) -> Hidden:
    """Return the figures of predicted probabilities `seen` for `truth`, 1 where seen, 0 where hidden, NaN where unknown."""
    known = np.isfinite(truth)
    hits = (truth[known] == 0)[np.argsort(seen[known], kind="stable")]
    if not hits.any() or hits.all():
        return Hidden(float(hits.mean()) if len(hits) else float("nan"), float("nan"), float("nan"))
    found = np.cumsum(hits)
    precision, recall = found / np.arange(1, len(hits) + 1), found / found[-1]
    best = recall[precision >= PRECISION].max(initial=0)
    return Hidden(float(hits.mean()), float(precision[hits].mean()), float(best))


def false_faces(true: ndarray, false: ndarray) -> float:
    """Return in % how many crops without a face have a probability that KEPT of the crops with a face reach.

    true, false: probabilities of crops with and without a face. NaN without one of both.
    """
    if not len(true) or not len(false):
        return float("nan")
    return float(100 * np.mean(false >= np.quantile(true, 1 - KEPT, method="lower")))


def reliability(predicted: ndarray, truth: ndarray, groups: int = 10) -> list[tuple[float, float, int]]:
    """Return (mean predicted probability, share that is true, number) of the predictions in each tenth of [0, 1].

    predicted, truth (M,). Groups without a prediction are left out.
    """
    place = np.minimum((predicted * groups).astype(int), groups - 1)
    masks = [place == group for group in range(groups)]
    return [(float(predicted[m].mean()), float(truth[m].mean()), int(m.sum())) for m in masks if m.any()]


def cumulative(values: ndarray, threshold: float) -> tuple[ndarray, ndarray]:
    """Return the cumulative error distribution: NME from 0 to `threshold` in steps of 0.01 %, share of faces up to
    each.
    """
    grid = np.arange(round(threshold / STEP) + 1) * STEP
    return grid, np.searchsorted(np.sort(values), grid, side="right") / max(len(values), 1)


def auc(values: ndarray, threshold: float) -> float:
    """Return the area under the cumulative error distribution up to `threshold`, divided by it (Simpson's rule)."""
    grid, share = cumulative(values, threshold)
    pairs = share[: len(share) - 1 + len(share) % 2]  # an even number of steps
    area = (pairs[:-1:2] + 4 * pairs[1::2] + pairs[2::2]).sum() / 3
    area += share[-2:].mean() if len(pairs) < len(share) else 0  # a step that is left: the trapezoidal rule
    return float(area * STEP / threshold) if len(values) else float("nan")


def summary(values: ndarray, thresholds) -> Scores:
    """Return the figures of faces with NME `values` (M,) in %; NaN values are counted and left out.

    The failure rate is the share of faces with an NME above a threshold.
    """
    kept = values[np.isfinite(values)]
    mean, fr = float("nan"), tuple(float("nan") for _ in thresholds)
    if len(kept):
        mean, fr = float(kept.mean()), tuple(float(100 * np.mean(kept > threshold)) for threshold in thresholds)
    return Scores(
        mean, fr, tuple(auc(kept, threshold) for threshold in thresholds), len(values), len(values) - len(kept)
    )
