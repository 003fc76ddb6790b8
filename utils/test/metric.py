"""Errors of landmarks: NME, failure rate, area under the cumulative error curve."""
from typing import NamedTuple

import numpy as np
from numpy import ndarray

STEP = 0.01  # % NME between two points of the cumulative error distribution
NORMS = ("interocular", "interpupil", "box", "diagonal", "size")


class Scores(NamedTuple):
    """Figures of a set of faces. nme and failure rates in %, auc in [0, 1]; per threshold where tuples."""
    nme: float
    fr: tuple[float, ...]
    auc: tuple[float, ...]
    faces: int
    left_out: int  # faces whose norm is zero or unknown


def point_errors(prediction: ndarray, truth: ndarray) -> ndarray:
    """(M, N, 2), (M, N, 2) -> distances (M, N), in the unit of the landmarks; NaN where the truth is unknown."""
    return np.linalg.norm(prediction - truth, axis=-1)


def norms(truth: ndarray, layout, kind: str = "interocular", box: ndarray | None = None) -> ndarray:
    """(M, N, 2) -> (M,) what errors are divided by, in the unit of the landmarks; NaN where it is zero or unknown.

    interocular: distance of the outer corners of the eyes; interpupil: of the eyes' means; box: root of the area of `box`
    (M, 4), or of the landmarks' box; diagonal: of that box; size: mean of its width and height. Raises ValueError where the
    layout has no such landmarks.
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
        value = {"box": lambda: np.sqrt(sides.prod(1)), "diagonal": lambda: np.linalg.norm(sides, axis=1),
                 "size": lambda: sides.mean(1)}[kind]()
    value = value.astype(np.float64)
    value[~(value > 1e-9)] = np.nan
    return value


def nme(errors: ndarray, norm: ndarray) -> ndarray:
    """errors (M, N), NaN where the truth is unknown, norm (M,) -> NME of each face in % (M,); NaN without norm or landmark."""
    known = np.isfinite(errors)
    mean = np.where(known, errors, 0).sum(1) / np.maximum(known.sum(1), 1)
    return np.where(known.any(1), 100 * mean / norm, np.nan)


def flicker(errors: ndarray, norm: ndarray, previous: ndarray) -> ndarray:
    """Signed errors (M, N, 2) and norm (M,) in one unit, previous (M,): the frame before each, -1 where there is none -> (M,).

    Mean change of a landmark's error from frame to frame in % of the norm: motion that is predicted right does not count.
    """
    change = np.linalg.norm(errors - errors[previous], axis=-1)
    return np.where(previous >= 0, nme(change, norm), np.nan)


def failure_rate(values: ndarray, threshold: float) -> float:
    """Share in % of faces whose NME (in %) lies above `threshold` (in %)."""
    return float(100 * np.mean(values > threshold)) if len(values) else float("nan")


def cumulative(values: ndarray, threshold: float) -> tuple[ndarray, ndarray]:
    """Cumulative error distribution: NME from 0 to `threshold` in steps of 0.01 %, share of faces at or below each."""
    grid = np.arange(round(threshold / STEP) + 1) * STEP
    # a value that equals a grid point but for rounding counts as at it
    return grid, np.searchsorted(np.sort(values), grid, side="right") / max(len(values), 1)


def auc(values: ndarray, threshold: float) -> float:
    """Area under the cumulative error distribution up to `threshold`, divided by it (Simpson's rule)."""
    from scipy.integrate import simpson
    grid, share = cumulative(values, threshold)
    return float(simpson(share, x=grid) / threshold) if len(values) else float("nan")


def summary(values: ndarray, thresholds) -> Scores:
    """Figures of faces with NME `values` (M,) in %; NaN ones are counted and left out."""
    kept = values[np.isfinite(values)]
    mean = float(kept.mean()) if len(kept) else float("nan")
    return Scores(mean, tuple(failure_rate(kept, t) for t in thresholds), tuple(auc(kept, t) for t in thresholds),
                  len(values), len(values) - len(kept))
