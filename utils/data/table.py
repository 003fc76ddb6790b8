"""Faces as a table that a parser fills and `prepare` writes: named columns of equal length, a row for each face."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipnet.errors import UserError

CONTINUOUS = 0.5  # coordinate of the first pixel's centre in annotations that are continuous px already
SYNTHETIC = "synthetic"  # the dataset that is rendered
BESIDE = "//"  # joins several subsets of one face; subset names are folder names, so they cannot contain it

Table = dict[str, Any]  # {name of a column: list of M texts, or array (M, ...)}, a row for each face
Splits = dict[str, Table]  # {train, val, test: table}


class RawSet(NamedTuple):
    """The faces of a raw folder. layout: name of the landmarks' layout; points: their names in a user's own files; row:
    that of the layout, if it is made from these names; identities: whether the user's files state those of faces.
    """

    splits: Splits
    layout: str
    points: list[str]
    row: dict[str, Any] | None = None
    identities: bool = False


def only(table: Table, rows: Sequence[int] | np.ndarray) -> Table:
    """Return some rows of a table, in that order."""
    return {
        name: column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]
        for name, column in table.items()
    }


def complain(faults: list[str]) -> None:
    """Raise UserError with the first fault and the number of the others; do nothing without faults."""
    if faults:
        raise UserError(faults[0] + (f" (and {len(faults) - 1} more such files)" if len(faults) > 1 else ""))


def tally(subsets: Iterable[str]) -> Counter:
    """Return the number of faces per subset; a face counts in each of its subsets."""
    return Counter(name for joined in subsets for name in joined.split(BESIDE))


def image_of(root: Path, file: str) -> Path:
    """Return the image of a face by its name in a table: a.jpg for a.jpg#2, the second face of it."""
    return path if (path := root / file).is_file() else root / re.sub(r"#\d+$", "", file)


def archive_and_labels(path: Path) -> tuple[Path, str | None]:
    """Return the folder of an archive and, if `path` is a file of labels, its name there; COCO's may be in annotations/."""
    if not path.is_file():
        return path, None
    folder = path.parent.parent if path.resolve().parent.name == "annotations" else path.parent
    return folder, path.relative_to(folder).as_posix()
