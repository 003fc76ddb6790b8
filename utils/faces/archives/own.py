"""Checks of the labels of users' own sets: their number, their units, marks that are no places, the size of the pictures."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from utils.faces.archives.records import Record

FEWEST_PX = 5       # longest side of a face box; a smaller face is an error of units
SHARE = (-0.5, 1.5)  # a face whose coordinates all lie here is given in shares of its picture
# coordinates of what is no place, x and y alike
MARKS = (0, -1, -2, -99, -100, -999, -1000, -9999, -32768, 9999, 32767, 65535, 99999)
APART = 0.25        # distance of what is no place from the box of the other landmarks / diagonal of the box
FAR = 1.0           # the same for a single 0 0 or 9999 9999, which may be a place
OUTSIDE = 0.3       # distance of a negated place beyond both edges of the picture / that diagonal
UNKNOWN = "a landmark that is not annotated is 'nan nan' in .pts, two empty cells in CSV, v = 0 in COCO"


class Stated(NamedTuple):
    """The size of a picture in px according to its annotation, and where that says it."""

    width: float
    height: float
    where: str


def header(file: Path) -> tuple[tuple[int, int], int] | None:
    """Return width and height of a picture before it is turned, and its EXIF orientation, 1 to 8; None if it cannot be read."""
    if not file.is_file():  # a pipe would wait for ever
        return None
    try:
        with Image.open(file) as image:
            tag = image.getexif().get(0x0112, 1)
            return image.size, tag if tag in range(1, 9) else 1
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # the preparation says so


def upright_size(file: Path) -> tuple[int, int] | None:
    """Return width and height of a picture, turned upright by its EXIF tag, from its header; None if it cannot be read."""
    size, tag = header(file) or (None, 1)
    return size[::-1] if size and tag > 4 else size


def wrong_counts(records: list[Record], count: int | None) -> list[str]:
    """Return a line for each face with another number of points than most, or, if it is given, than `count`."""
    usual = Counter(len(record.landmarks) for record in records).most_common(1)[0][0]
    wanted = f"the others have {usual}" if count in (None, usual) else f"{count} are expected; choose the layout of that number"
    return [f"{record.where}: {len(record.landmarks)} points where {wanted}" for record in records
            if len(record.landmarks) != (count or usual)]


def shares(records: list[Record], origin: float) -> list[str]:
    """Return a line for each face whose coordinates are shares of its picture."""
    found = []
    for record in records:
        raw = _annotated(record, origin)
        if SHARE[0] <= np.nanmin(raw) and np.nanmax(raw) <= SHARE[1]:
            found.append(f"{record.where}: all coordinates lie between 0 and 1, so they are shares of the picture; multiply x by "
                         "its width and y by its height")
    return found


def tiny(records: Iterable[Record]) -> list[str]:
    """Return a line for each face of a few px."""
    sides = ((record, (record.box[2:] - record.box[:2]).max()) for record in records)
    return [f"{record.where}: its face is {side:.2g} px large; coordinates are px of the picture, and such a face shows nothing"
            for record, side in sides if side < FEWEST_PX]


def _annotated(record: Record, origin: float) -> np.ndarray:
    """Return the landmarks (N, 2) as they were annotated, without the rounding of the way to continuous px and back."""
    return (record.landmarks + (origin - 0.5)).round(6) + 0.0


def marks(records: list[Record], origin: float) -> list[str]:
    """Return a line for each face with landmarks that mark something instead of being a place: -1 -1, 0 0, -x -y."""
    raw, found = np.stack([_annotated(record, origin) for record in records]), []
    for value in np.unique(raw[np.isin(raw, MARKS)]):
        there = (raw == value).all(-1)
        others = np.where(there[..., None], np.nan, raw)
        if value == 0:  # a tool may have kept a face's landmarks inside the picture
            there &= ~(others == 0).any((1, 2))[:, None]
        faces = np.flatnonzero(there.any(1)).tolist()
        distance = {i: _distance(np.full(2, value), others[i]) for i in faces}
        apart = [i for i in faces if there[i].sum() > 1 or distance[i] > APART]
        far = [i for i in apart if distance[i] > FAR]
        marked = faces if apart and there.sum() > 1 else apart if value < 0 else far
        share = f"in {len(faces)} of {len(records)} faces"
        found += [f"{records[i].where}: {value:g} {value:g} is a mark and no place, {share}; {UNKNOWN}" for i in marked]
    places = [] if found else [(record, _negated(points)) for record, points in zip(records, raw, strict=True)]
    return found + [f"{record.where}: {place[0]:g} {place[1]:g} is a place with its signs turned, by which MERL-RAV marks a "
                    f"hidden landmark; write {-place[0]:g} {-place[1]:g}, or: {UNKNOWN}"
                    for record, place in places if place is not None]


def _distance(point: np.ndarray, others: np.ndarray) -> float:
    """Return the distance of a point from the box of the others (N, 2) / the diagonal of that box; 0 without a box."""
    others = others[np.isfinite(others).all(1)]
    size = np.hypot(*np.ptp(others, axis=0)) if len(others) else 0
    return float(np.hypot(*(point - point.clip(others.min(0), others.max(0)))) / size) if size else 0.0


def _negated(points: np.ndarray) -> np.ndarray | None:
    """Return the first of a face's landmarks (N, 2) with both signs turned, or None.

    Without the signs they lie among the others, with them far away. A face that the picture's corner cuts off is no such face: it
    has landmarks beyond one edge only, too.
    """
    below = (points < 0).all(1)
    others, turned = points[~below], points[below]
    if not len(turned) or (others < 0).any():
        return None
    among = [max(APART, 2 * _distance(-point, others)) < _distance(point, others) for point in turned]
    size = np.hypot(*(np.nanmax(others, 0) - np.nanmin(others, 0))) if all(among) else np.inf
    far = (np.abs(turned).min(1) > OUTSIDE * size).any()
    return turned[0] if all(among) and (len(turned) > 1 or far) else None


# ------------------------------------------------------------------------------------------------------ size of the pictures
def factors(stated: dict[Path, Stated]) -> tuple[dict[Path, np.ndarray], list[str], list[str]]:
    """Compare the stated sizes with the pictures. Return {picture: (2,) factor of its labels}, faults and lines for the log."""
    found, faults, sizes = {}, [], []
    for file, (width, height, where) in stated.items():
        size = upright_size(file)
        if size is None or size == (width, height):
            continue
        what = f"{file.name} has {size[0]} x {size[1]} px, its labels are for {width:g} x {height:g}"
        if size != (height, width) and _one_factor(width, height, size):
            found[file] = np.array(size) / (width, height)
            sizes.append(what)
        elif _one_factor(height, width, size):
            faults.append(f"{where}: {what}: width and height are exchanged, so they belong to the picture before its EXIF tag, "
                          "or a tool, turned it; turn the labels too, or label the upright picture")
        else:
            faults.append(f"{where}: {what}: the two sides differ by different factors; use the pictures that were labelled")
    notes = [f"the labels of {len(sizes)} pictures are scaled to the size of the picture, such as: {sizes[0]}"] if sizes else []
    return found, faults, notes


def _one_factor(width: float, height: float, size: tuple[int, int]) -> bool:
    """Return whether a picture of width x height that is scaled by one factor, to whole px, may get this size."""
    return max((size[0] - 1) / width, (size[1] - 1) / height) < min((size[0] + 1) / width, (size[1] + 1) / height)


def scaled(record: Record, factor: np.ndarray | None) -> Record:
    """Return a face whose picture was scaled by `factor` (2,) after it was labelled."""
    if factor is None:
        return record
    return record._replace(landmarks=record.landmarks * factor, box=record.box * np.tile(factor, 2))
