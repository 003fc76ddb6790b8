"""Exports of CVAT as XML of images. Their coordinates are continuous px."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from extras.datasets.archive import Archive
from extras.datasets.listed import ANEW, find_image, split_files
from extras.datasets.named import Named, Point, add_named, name_points
from extras.datasets.naming import split_of
from extras.shared.lists import floats
from pipnet.errors import UserError, one_line
from pipnet.files import read_bytes

SHAPES = ("points", "skeleton")  # that are read
FOREIGN_XML = {"dataset": "dlib's imglab", "annotation": "Pascal VOC"}  # {root: format}


class Shape(NamedTuple):
    """A shape of CVAT: its label, group ("" without one) and points (x, y, visible); the names of a skeleton's points."""

    label: str
    group: str
    points: list[Point]
    names: list[str]

    @property
    def several(self) -> bool:
        """Return whether it has several points without names of their own."""
        return len(self.points) > 1 and not self.names


def parse_cvat(archive: Archive) -> None:
    """Add the faces of "CVAT for images": shapes of one group are a face. Without a group, a skeleton or a shape of
    several points is a face, and all single points of a picture are one.

    The points come in the order of the task's labels; those of a shape in a group are named LABEL_1, LABEL_2, ... Those
    "outside" are not annotated, those "occluded" are not visible.
    """
    found: list[tuple[str | None, Path, str, list[Shape]]] = []
    order: list[str] = []
    for split, file in split_files(archive, ("*.xml",), "XML of CVAT"):
        tree = _xml(file)
        order += [label.findtext("name", "") for label in tree.iter("label")]
        for image in tree.iter("image"):
            name = image.get("name", "")
            where = f"{file}, image {name[:60]}"
            with archive.checked():
                faces = _by_group(image, where)
                subset = image.get("subset", "")
                said = split_of(subset, folder=True) or split
                if faces:
                    path = find_image(archive, [name, *([f"{subset}/{name}"] if subset else [])], file, where, said)
                    archive.state(path, image.get("width"), image.get("height"), where)
                    found += [(said, path, where, shapes) for shapes in faces]
                archive.left_out["images of the XML without points"] += not faces
                others = sum(shape.tag not in SHAPES for shape in image.findall("./*[@label]"))
                archive.left_out["shapes that are no points"] += others
    joined = any(len(shapes) > 1 and any(shape.several for shape in shapes) for *_, shapes in found)
    _check_shapes(found, joined)
    labels: dict[str, str] = {}  # {name of a point: label of its shape}
    named: list[Named] = []
    for split, path, where, shapes in found:
        points = []
        for shape in shapes:
            names = _names(shape, joined)
            labels |= {name: name if shape.names else shape.label for name in names}
            points += zip(names, shape.points, strict=True)
        with archive.checked():
            named.append(name_points(split, path, where, points))
    places = {label: place for place, label in reversed([*enumerate(order)])}
    add_named(archive, named, sorted(labels, key=lambda name: places.get(labels[name], len(order))))


def _by_group(image: ElementTree.Element, where: str) -> list[list[Shape]]:
    """Return the shapes of each face of an image.
    UserError where they may be faces of their own or parts of one face.
    """
    groups: dict[str, list[Shape]] = {}
    alone, loose = [], []
    for element in [*image.findall("skeleton"), *image.findall("points")]:
        shape = _shape(element, where)
        if not shape.points:
            continue
        if shape.group:
            groups.setdefault(shape.group, []).append(shape)
        else:
            (alone if shape.several or shape.names else loose).append([shape])
    labels = sorted({shapes[0].label for shapes in alone if shapes[0].several})
    if len(labels) > 1 or (alone and loose):
        first, second = labels[:2] if len(labels) > 1 else (alone[0][0].label, loose[0][0].label)
        raise UserError(
            f"{where}: shapes labelled {first!r} and {second!r} have no group; group the shapes of each face in CVAT, "
            "or give one label to shapes that are a face each"
        )
    return [*alone, *([sum(loose, [])] if loose else []), *groups.values()]


def _shape(element: ElementTree.Element, where: str) -> Shape:
    """Return a shape of CVAT."""
    group = element.get("group_id", "")
    label = element.get("label", "")
    if element.tag == "points":
        return Shape(label, group if group != "0" else "", _places(element, where), [])
    points = element.findall("points")
    names = [point.get("label", "") for point in points]
    return Shape(label, group if group != "0" else "", [_places(point, where)[0] for point in points], names)


def _names(shape: Shape, joined: bool) -> list[str]:
    """Return the names of a shape's points. joined: faces are several shapes, so that their labels tell them apart."""
    numbers = range(len(shape.points))
    if shape.several:
        return [f"{shape.label}_{number + 1}" if joined else str(number) for number in numbers]
    return shape.names or [shape.label]


def _check_shapes(found: list[tuple[str | None, Path, str, list[Shape]]], joined: bool) -> None:
    """Raise UserError for a shape of several points with another number of them than most shapes in its place have, and
    for one without a group where faces are several shapes.
    """
    counts: dict[str, Counter] = {}
    shapes = [(where, shape) for *_, where, shapes in found for shape in shapes if shape.several]
    for _, shape in shapes:
        counts.setdefault(shape.label if joined else "", Counter())[len(shape.points)] += 1
    for where, shape in shapes:
        if joined and not shape.group:
            raise UserError(
                f"{where}: the shape {shape.label!r} has no group, where other faces are several shapes of one group; "
                "group the shapes of each face in CVAT"
            )
        usual = counts[shape.label if joined else ""].most_common(1)[0][0]
        if len(shape.points) != usual:
            raise UserError(
                f"{where}: {len(shape.points)} points in the shape {shape.label!r} where the others have {usual}"
            )


def _xml(file: Path) -> ElementTree.Element:
    """Return the root of a CVAT file.
    UserError for another file; for entities too, by which a small one can fill the memory.
    """
    try:
        tree = ElementTree.fromstring(read_bytes(file), ElementTree.XMLParser(target=_Builder()))
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{file}: not an XML file that can be read ({one_line(error, 80)})") from None
    if tree.tag in FOREIGN_XML:
        raise UserError(f"{file} is of {FOREIGN_XML[tree.tag]}, which is not read{ANEW}")
    if tree.tag != "annotations" or tree.find("track") is not None:
        raise UserError(f"{file}: not an export of the kind 'CVAT for images 1.1'; choose that in CVAT")
    return tree


class _Builder(ElementTree.TreeBuilder):
    """Builds a tree without a DOCTYPE."""

    def doctype(self, *_: object) -> None:
        """Refuse the declaration."""
        raise ValueError("it declares a DOCTYPE, whose entities can fill the memory; remove that")


def _places(shape: ElementTree.Element, where: str) -> list[Point]:
    """Return (x, y, visible) of the points of a shape, NaN where it is outside."""
    visible = float(shape.get("occluded") != "1")
    try:
        pairs = [floats(pair.split(",")) for pair in shape.get("points", "").split(";")]
        places = [(float(x), float(y), visible) for x, y in pairs]
    except ValueError:
        raise UserError(f"{where}: '{shape.get('points', '')[:40]}' where x,y belongs") from None
    return [(np.nan, np.nan, 0.0)] * len(places) if shape.get("outside") == "1" else places
