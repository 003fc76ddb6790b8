"""Makers of faces: the room `datasets` parses archives and own labels, and the room `synthetic` renders.

Each has DATASETS, {name: row}, and `read_set`, which returns the faces of a raw folder as tables.
"""

from pathlib import Path
from typing import Any

from utils.data.table import SYNTHETIC, RawSet
from utils.settings import rooms

ORIGIN_IS_KNOWN = "--first-pixel is for .pts, CSV and COCO files of your own; other sets say how they count"


def dataset_rows() -> dict[str, Any]:
    """Return {name: row} of the datasets that this checkout can read or render."""
    return {name: row for room in (rooms.datasets, rooms.synthetic) if room for name, row in room.DATASETS.items()}


def infer(folder: Path) -> str:
    """Return the name of the dataset that a raw folder looks like."""
    if rooms.synthetic and rooms.synthetic.is_rendered(folder):
        return SYNTHETIC
    return rooms.datasets.infer(folder)


def read_set(dataset: str, folder: Path, **how: Any) -> RawSet:
    """Return the faces of a raw folder. UserError for a fault in its annotation. how: see `read_set` of the rooms."""
    return (rooms.synthetic if dataset == SYNTHETIC else rooms.datasets).read_set(dataset, folder, **how)
