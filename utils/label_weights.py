"""Weights of labels that other nets dispute: the formula, and the file that carries them from an audit into a training."""
import csv
from pathlib import Path

import numpy as np

from utils.errors import UserError

LIMIT = 3.0     # typical errors of a landmark up to which its label is trusted: of 500 well labelled ones about one lies beyond
DISPUTED = 0.5  # weight below which a label counts as disputed
KEYS = ["set", "file"]


def trust(relative: np.ndarray) -> np.ndarray:
    """1 up to LIMIT, then falling with the square, as Cauchy's weights do: 10 times the typical error weighs 0.09."""
    return np.minimum(1.0, (LIMIT / np.maximum(relative, LIMIT)) ** 2)


def weigh(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Disagreements (M, N), NaN where there is no label -> (relative (M, N), weight (M, N) in [0, 1]).

    relative: in units of the landmark's typical error, its median over all faces. weight: trust(relative) times the trust in the
    face, whose relative error is the median of its landmarks': a single wrong landmark leaves the others alone, a label that is
    wrong as a whole weighs next to nothing. 1 where nothing is known.
    """
    typical = np.array([np.median(column[np.isfinite(column)]) if np.isfinite(column).any() else np.nan for column in errors.T])
    relative = errors / np.maximum(typical, 1e-6)
    face = np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else 0.0 for row in relative])
    return relative, np.where(np.isfinite(relative), trust(np.nan_to_num(relative)) * trust(face)[:, None], 1.0)


def read(file: Path, sets: list[str], names: list[str], selected: tuple[int, ...]) -> np.ndarray:
    """(M, N) float32 for faces `names` of the sets with the checksums `sets` (one a face); 1 for sets that were not audited.

    UserError where the file is none, knows none of these sets, or lacks a face or a landmark.
    """
    try:
        with open(file, encoding="utf-8", newline="") as handle:
            header, *rows = csv.reader(handle)
        columns = [header.index(str(index), len(KEYS)) for index in selected]
        found = {(row[0], row[1]): np.array([row[column] for column in columns], np.float32) for row in rows}
    except OSError as error:
        raise UserError(f"label_weights: cannot read {file} ({error.strerror}); `python main.py --audit` writes one") from None
    except (ValueError, IndexError, UnicodeDecodeError, csv.Error):
        raise UserError(f"label_weights: {file} is not the weights.csv of an audit of {len(selected)} such landmarks; "
                        "audit the set with this --layout") from None
    if header[:len(KEYS)] != KEYS or not all(((row >= 0) & (row <= 1)).all() for row in found.values()):
        raise UserError(f"label_weights: {file} does not hold weights from 0 to 1 by set and file")
    known = {mark for mark, _ in found}
    if not known & set(sets):
        raise UserError(f"label_weights: {file} is of other faces, or of labels that have changed since; audit this set again")
    weight = np.ones((len(names), len(selected)), np.float32)
    for index, key in enumerate(zip(sets, names, strict=True)):
        if key[0] in known:
            if key not in found:
                raise UserError(f"label_weights: {file} has no row for {key[1]}; audit again with this --val and --seed")
            weight[index] = found[key]
    return weight
