"""Weights of labels that other nets dispute: the formula, and the file that carries them from an audit into a training."""
import csv
from pathlib import Path

import numpy as np

from pipnet.errors import UserError
from pipnet.layout import Layout

LIMIT = 3.0     # typical errors of a landmark, and deviations of a face, up to which labels are trusted: 1 of 500 lies beyond
SPREAD = 0.1    # least standard deviation of the logarithm of the faces' errors: 68 landmarks of equal noise have this
DISPUTED = 0.5  # weight below which a label counts as disputed
KEYS = ["set", "layout", "file"]


def weigh(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Disagreements (M, N), NaN where there is no label -> (relative (M, N), weight (M, N) in [0, 1]).

    relative r: in units of the landmark's typical error, its median over all faces. weight: trust in the landmark times trust in
    the face, so that a single wrong landmark leaves the others alone. Landmark: 1 up to LIMIT, then (LIMIT / r)^2, which falls
    as Cauchy's weights do, for errors of a landmark have a long tail. Face: the median of its r has none, its logarithm is
    about normal; z robust standard deviations above the usual it weighs exp((LIMIT^2 - z^2) / 2), and 1 up to LIMIT, so that a
    label that is wrong as a whole weighs next to nothing. 1 where nothing is known.
    """
    relative = errors / np.maximum(_medians(errors.T), 1e-6)
    face = np.log(np.maximum(_medians(relative), 1e-6))
    middle = np.nanmedian(face) if np.isfinite(face).any() else 0.0
    away = np.abs(face - middle)[np.isfinite(face)]
    spread = max(1.4826 * np.median(away), SPREAD) if len(away) else SPREAD  # 1.4826: as of a normal distribution
    beyond = np.maximum(np.nan_to_num((face - middle) / spread), LIMIT)
    landmark = np.minimum(1.0, (LIMIT / np.maximum(np.nan_to_num(relative), LIMIT)) ** 2)
    weight = landmark * np.exp((LIMIT**2 - beyond**2) / 2)[:, None]
    return relative, np.where(np.isfinite(relative), weight, 1.0)


def _medians(values: np.ndarray) -> np.ndarray:
    """Of each row, without what is not finite; NaN where nothing is."""
    return np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in values])


def read(file: Path, sets: list[str], names: list[str], layout: Layout) -> np.ndarray:
    """(M, N) float32 for faces `names` of the sets with the checksums `sets` (one a face); 1 for sets that were not audited.

    UserError where the file is none, is of another layout, knows none of these sets, or lacks a face or a landmark.
    """
    try:
        with open(file, encoding="utf-8", newline="") as handle:
            header, *rows = csv.reader(handle)
        columns = [header.index(str(index), len(KEYS)) for index in layout.selected]
        found = {(row[0], row[2]): np.array([row[column] for column in columns], np.float32) for row in rows}
        others = {row[1] for row in rows} - {layout.stored}
    except OSError as error:
        raise UserError(f"label_weights: cannot read {file} ({error.strerror}); `python main.py --audit` writes one") from None
    except (ValueError, IndexError, UnicodeDecodeError, csv.Error):
        raise UserError(f"label_weights: {file} is not the weights.csv of an audit of the landmarks of layout {layout.name}; "
                        "audit the set with this --layout") from None
    if header[:len(KEYS)] != KEYS or not all(((row >= 0) & (row <= 1)).all() for row in found.values()):
        raise UserError(f"label_weights: {file} does not hold weights from 0 to 1 by set and file")
    if others:
        raise UserError(f"label_weights: {file} is of layout {', '.join(sorted(others))}, not {layout.stored}; audit the set "
                        "with this --layout")
    known = {mark for mark, _ in found}
    if not known & set(sets):
        raise UserError(f"label_weights: {file} is of other faces, or of labels that have changed since; audit this set again")
    weight = np.ones((len(names), layout.count), np.float32)
    for index, key in enumerate(zip(sets, names, strict=True)):
        if key[0] in known:
            if key not in found:
                raise UserError(f"label_weights: {file} has no row for {key[1]}; audit again with this --val and --seed")
            weight[index] = found[key]
    return weight
