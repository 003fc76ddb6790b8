"""Exports of labelling tools as they come: CVAT's XML of images, Label Studio's JSON and JSON-MIN.
Each point has a name.

Their coordinates are continuous px. A point that a face lacks is not annotated.
"""

import re
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np

from extras.datasets.archive import Archive
from extras.datasets.naming import split_of
from extras.datasets.own_layout import own_order
from extras.datasets.tables import ANEW, find_image, foreign, split_files
from pipnet.errors import UserError, one_line
from pipnet.files import parse_json, read_bytes
from pipnet.images import SUFFIXES
from utils.data.lists import floats
from utils.data.pts import OTHER_LAYOUT
from utils.data.table import complain
from utils.settings.layouts import normalised

SHAPES = ("points", "skeleton")  # of CVAT, that are read
FOREIGN_XML = {"dataset": "dlib's imglab", "annotation": "Pascal VOC"}  # {root: format}
ALIKE = 0.7  # of two labels, by difflib
UPLOADED = re.compile(r"^[0-9a-f]{6,8}-")  # Label Studio puts this before the name of a file that is uploaded


class Named(NamedTuple):
    """A face: split that its list says, image, place in the export, {name: (x, y in continuous px, 1 if visible else 0)}."""

    split: str | None
    image: Path
    where: str
    points: dict[str, tuple[float, float, float]]


def _add(archive: Archive, faces: list[Named], names: list[str]) -> None:
    """Add faces whose points are put into the order of `names`, or of the layout that has just these names."""
    if not faces:
        complain(archive.faults)
    if odd := _misspelt(
        faces, names, len(names) in [archive.count or row.get("count") for row in archive.layouts.rows.values()]
    ):
        raise UserError(odd)
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


def _misspelt(faces: list[Named], names: list[str], fits: bool) -> str | None:
    """Return a message for a label that stands in the place of a similar one; None without such a label.

    They differ in case or separators, or, unless a layout `fits` the number of labels, in spelling.
    """

    def likeness(one: str, other: str) -> float:
        return SequenceMatcher(None, normalised(one), normalised(other)).ratio()

    places = {name: [face.where for face in faces if name in face.points] for name in names}
    for odd in sorted(names, key=lambda name: len(places[name])):
        for usual in sorted(names, key=lambda name: -likeness(odd, name)):
            alike = normalised(odd) == normalised(usual) or (not fits and likeness(odd, usual) > ALIKE)
            if (
                alike
                and usual != odd
                and len(places[odd]) <= len(places[usual])
                and not {*places[odd]} & {*places[usual]}
            ):
                return (
                    f"{places[odd][0]}: a point is labelled {odd!r}; other faces have {usual!r} in its place "
                    f"({len(places[usual])} of {len(faces)}); is it misspelt?"
                )
    return None


def _named(points: list[tuple[str, tuple[float, float, float]]], where: str) -> dict[str, tuple[float, float, float]]:
    """Return the points of one face by name. UserError for a name that is there twice."""
    found = dict(points)
    if len(found) < len(points):
        twice = next(name for name in found if sum(name == other for other, _ in points) > 1)
        every = f", as are all {len(points)}; give each landmark a label of its own, or" if len(found) == 1 else ";"
        raise UserError(
            f"{where}: two points are named {twice!r}{every} group the points of each face: by a skeleton or a group "
            "in CVAT, by a rectangle as their parent in Label Studio"
        )
    return found


# ---------------------------------------------------------------------------------------------------------------- CVAT
class Shape(NamedTuple):
    """A shape of CVAT: its label, group ("" without one) and points (x, y, visible); the names of a skeleton's points."""

    label: str
    group: str
    points: list[tuple[float, float, float]]
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
            named.append(Named(split, path, where, _named(points, where)))
    places = {label: place for place, label in reversed([*enumerate(order)])}
    _add(archive, named, sorted(labels, key=lambda name: places.get(labels[name], len(order))))


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


def _places(shape: ElementTree.Element, where: str) -> list[tuple[float, float, float]]:
    """Return (x, y, visible) of the points of a shape, NaN where it is outside."""
    visible = float(shape.get("occluded") != "1")
    try:
        pairs = [floats(pair.split(",")) for pair in shape.get("points", "").split(";")]
        places = [(float(x), float(y), visible) for x, y in pairs]
    except ValueError:
        raise UserError(f"{where}: '{shape.get('points', '')[:40]}' where x,y belongs") from None
    return [(np.nan, np.nan, 0.0)] * len(places) if shape.get("outside") == "1" else places


# -------------------------------------------------------------------------------------------------------- Label Studio
def parse_label_studio(archive: Archive) -> None:
    """Add the faces of Label Studio's JSON or JSON-MIN: the key points of a picture, or those below each parent region.

    The points come in the natural order of their labels. Of several annotations of a picture the first one with points
    counts, of those that are a ground truth, if any. Predictions do not count.
    """
    faces: list[Named] = []
    for split, file in split_files(archive, ("*.json",), "JSON"):
        try:
            tasks = parse_json(read_bytes(file))
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: not a JSON file that can be read ({one_line(error, 80)})") from None
        if name := foreign(tasks):
            raise UserError(f"{file} is {name}")
        for number, task in enumerate(tasks if isinstance(tasks, list) else [tasks], 1):
            where = f"{file}, task {number}"
            with archive.checked():
                try:
                    groups, size, others = _key_points(task, where)
                    names = _file_names(task) if groups else []
                except (AttributeError, KeyError, TypeError, ValueError, IndexError):
                    raise UserError(
                        f"{where}: not a task of Label Studio with key points; export JSON or JSON-MIN"
                    ) from None
                predicted = not groups and bool(task.get("predictions"))
                archive.left_out["tasks with predictions only, which nobody has submitted as annotations"] += predicted
                archive.left_out["tasks without key points"] += not groups and not predicted
                archive.left_out["further annotations of a task"] += others
                if groups:
                    path = find_image(archive, names, file, where, split, uploaded=True)
                    archive.state(path, *size, where)
                    faces += [Named(split, path, where, _named(points, where)) for points in groups]
    labels = {name for face in faces for name in face.points}
    _add(
        archive,
        faces,
        sorted(
            labels,
            key=lambda name: [
                (not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)
            ],
        ),
    )


def _key_points(
    task: dict[str, Any], where: str
) -> tuple[list[list[tuple[str, tuple[float, float, float]]]], tuple, int]:
    """Return the (name, point) of each face of a task, the size of its picture, and how many other annotations have
    points.

    UserError for a picture that was rotated in the tool: it is not told of which picture the coordinates are then.
    """
    made = sorted(task.get("annotations", ()), key=lambda one: not one.get("ground_truth"))
    whole = [one["result"] for one in made if not one.get("was_cancelled")]
    listed = [
        row for rows in task.values() if isinstance(rows, list) for row in rows if isinstance(row, dict)
    ]  # JSON-MIN
    labelled = [rows for rows in whole or [listed] if any(row.get("value", row).get("keypointlabels") for row in rows)]
    groups: dict[str, list] = {}
    size: tuple = (None, None)
    for row in labelled[0] if labelled else ():
        value = row.get("value", row)
        if labels := value.get("keypointlabels"):
            if row.get("image_rotation"):
                raise UserError(
                    f"{where}: its picture was rotated in Label Studio; turn the file itself, and label it again"
                )
            size = (row["original_width"], row["original_height"])
            x, y = value["x"] / 100 * size[0], value["y"] / 100 * size[1]  # stored in %
            groups.setdefault(str(row.get("parentID") or ""), []).append((str(labels[0]), (x, y, 1.0)))
    return list(groups.values()), size, max(len(labelled) - 1, 0)


def _file_names(task: dict[str, Any]) -> list[str]:
    """Return the names that the picture of a task may have: with its path, alone, and as it was before the upload. An
    address may have a query after the name, such as a signature.
    """
    given = [text.split("?d=")[-1] for text in task.get("data", task).values() if isinstance(text, str)]
    texts = [unquote(text) for whole in given for text in (re.split("[?#&]", whole)[0], whole)]
    text = [text for text in texts if Path(text).suffix.lower() in SUFFIXES][0]
    name = text.split("/")[-1]
    return [text.lstrip("/"), name, UPLOADED.sub("", name)]
