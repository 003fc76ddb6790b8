"""Makers of faces: the room `datasets` parses archives and own labels, and the room `synthetic` renders.

Each has DATASETS, {name: row}, and `read_set`, which returns the faces of a raw folder as tables.
"""

from pathlib import Path
from typing import Any, NamedTuple

from utils.data.table import Splits
from utils.settings.extras import extra, has_extra

SYNTHETIC = "synthetic"
CONTINUOUS = 0.5  # coordinate of the first pixel's centre in annotations that are continuous px already
ORIGIN_IS_KNOWN = "--first-pixel is for .pts, CSV and COCO files of your own; other sets say how they count"


class RawSet(NamedTuple):
    """The faces of a raw folder. layout: name of the landmarks' layout; points: their names in a user's own files; row:
    that of the layout, if it is made from these names; identities: whether the user's files state those of faces.
    """

    splits: Splits
    layout: str
    points: list[str]
    row: dict[str, Any] | None = None
    identities: bool = False


def dataset_rows() -> dict[str, Any]:
    """Return {name: row} of the datasets that this checkout can read or render."""
    rooms = [room for room in ("datasets", "synthetic") if has_extra(room)]
    return {name: row for room in rooms for name, row in extra(room).DATASETS.items()}


def infer(folder: Path) -> str:
    """Return the name of the dataset that a raw folder looks like."""
    if has_extra("synthetic") and extra("synthetic").is_rendered(folder):
        return SYNTHETIC
    return extra("datasets").infer(folder)


def read_set(dataset: str, folder: Path, **how: Any) -> RawSet:
    """Return the faces of a raw folder. UserError for a fault in its annotation. how: see `read_set` of the rooms."""
    return extra("synthetic" if dataset == SYNTHETIC else "datasets").read_set(dataset, folder, **how)
