"""Exports of labelling tools, in which each point has a name. A point that a face lacks is not annotated."""

from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

import numpy as np

from extras.datasets.archive import Archive
from extras.datasets.own_layout import own_order
from extras.shared.pts import OTHER_LAYOUT
from pipnet.errors import UserError, one_line
from utils.data.table import complain
from utils.settings.layouts import normalised

ALIKE = 0.7  # of two labels, by difflib
Point = tuple[float, float, float]  # x, y in continuous px, 1 if visible else 0


class Named(NamedTuple):
    """A face: split that its list says, image, place in the export, {name: point}."""

    split: str | None
    image: Path
    where: str
    points: dict[str, Point]


def add_named(archive: Archive, faces: list[Named], names: list[str]) -> None:
    """Add faces whose points are put into the order of `names`, or of the layout that has just these names."""
    if not faces:
        complain(archive.faults)
    counts = [archive.count or row.get("count") for row in archive.layouts.rows.values()]
    _check_spelling(faces, names, len(names) in counts)
    order = own_order(archive, names)
    if archive.count not in (None, len(order)):
        raise UserError(
            f"{archive.root}: the export names {len(order)} points ({one_line(', '.join(order), 80)}) where "
            f"{archive.count} are expected; {OTHER_LAYOUT}"
        )
    for split, image, where, points in faces:
        with archive.checked():
            values = np.array([points.get(name, (np.nan, np.nan, 0)) for name in order], dtype=np.float64)
            if (np.abs(values) >= 1e9).any():
                raise UserError(f"{where}: not a coordinate where one belongs")
            archive.add_own(split, image, values[:, :2], where, visible=values[:, 2] == 1)


def _check_spelling(faces: list[Named], names: list[str], fits: bool) -> None:
    """Raise UserError for a label that stands in the place of a similar one.

    They differ in case or separators, or, unless a layout `fits` the number of labels, in spelling.
    """

    def likeness(one: str, other: str) -> float:
        return SequenceMatcher(None, normalised(one), normalised(other)).ratio()

    places = {name: [face.where for face in faces if name in face.points] for name in names}
    for odd in sorted(names, key=lambda name: len(places[name])):
        for usual in sorted(names, key=lambda name: -likeness(odd, name)):
            alike = normalised(odd) == normalised(usual) or (not fits and likeness(odd, usual) > ALIKE)
            rarer = usual != odd and len(places[odd]) <= len(places[usual])
            if alike and rarer and not {*places[odd]} & {*places[usual]}:
                raise UserError(
                    f"{places[odd][0]}: a point is labelled {odd!r}; other faces have {usual!r} in its place "
                    f"({len(places[usual])} of {len(faces)}); is it misspelt?"
                )


def name_points(split: str | None, image: Path, where: str, points: list[tuple[str, Point]]) -> Named:
    """Return a face with its points by name. UserError for a name that is there twice."""
    found = dict(points)
    if len(found) < len(points):
        twice = next(name for name in found if sum(name == other for other, _ in points) > 1)
        every = f", as are all {len(points)}; give each landmark a label of its own, or" if len(found) == 1 else ";"
        raise UserError(
            f"{where}: two points are named {twice!r}{every} group the points of each face: by a skeleton or a group "
            "in CVAT, by a rectangle as their parent in Label Studio"
        )
    return Named(split, image, where, found)
