"""Files of predicted landmarks: where --predict writes them, and their formats, each of which --dataset reads."""

import json
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
from loguru import logger

from extras.shared.pts import FIRST_PIXEL, ORIGIN, write_pts
from pipnet.errors import UserError
from pipnet.face import Face
from pipnet.files import names_folder, set_aside, write_atomic, write_text
from pipnet.layout import Layout
from utils.settings.csv_files import write_csv

TABLE = "uncertain.csv"  # beside .pts files
UNFINISHED = ".unfinished"  # in the name of a table until all pictures are done
HEADER = ["file", "points", "uncertainty", "box_x1", "box_y1", "box_x2", "box_y2"]
SELDOM = 20  # after a write, the next one waits for so many times as long as that took


class PredictedFace(NamedTuple):
    """A predicted face.

    file: its picture, relative to the folder; number: of the face in that picture, from 1; size: width and height of
    the picture, px
    uncertainty: predicted error in % of the box; for a net without predicted errors 100 - mean score in %
    points: its .pts file, relative to the output folder
    """

    file: str
    number: int
    size: tuple[int, int]
    face: Face
    uncertainty: float
    points: str = ""


def check_out(given: str | None, kind: str | None, place: Path, overwrite: bool) -> tuple[Path, str]:
    """Return (path to write to, format).
    given: --out, default `place`; kind: the format, default: by the suffix of --out.

    UserError if they contradict each other, or if the path exists, since it could hold labels made by hand; with
    `overwrite` only if what is there is no earlier prediction.
    """
    out = Path(given) if given else None
    ending = out.suffix.lower() if out else ""
    by_ending = next((name for name, row in FORMATS.items() if row.ending and row.ending == ending), "pts")
    kind = kind or by_ending
    wanted = FORMATS[kind].ending
    if given and wanted != FORMATS[by_ending].ending:
        raise UserError(
            f"--predict-format {kind} is written to {f'a file *{wanted}' if wanted else 'a folder'}, not to {given}"
        )
    if given and kind == "pts" and not names_folder(given):
        raise UserError(
            f"--out {given}: landmarks go into a folder (.pts) or a file that ends in .csv, .json (COCO) or .xml (CVAT); "
            f"give one of these, or {given}{os.sep}"
        )
    out = out or place.with_name(place.name + wanted)
    if out.exists() and out.is_dir() != (kind == "pts"):
        raise UserError(
            f"{out} is {'a folder' if out.is_dir() else 'a file'}, where {kind} needs the other; give another --out"
        )
    there = taken(out, kind)
    if there and not overwrite:
        raise UserError(f"{there[0]} is there already; give another --out, or --overwrite, which moves it aside")
    if out.is_dir() and there and not any(table.is_file() for table in tables_of(out, kind)):
        raise UserError(f"{out} holds something other than predictions; give another --out")
    return out, kind


def taken(out: Path, kind: str) -> list[Path]:
    """Return what would be in the way of a new prediction: its folder unless that is empty, or its files."""
    if kind == "pts":
        return [out] if out.is_dir() and any(out.iterdir()) else []
    files = [*tables_of(out, kind), *([setup_of(out)] if FORMATS[kind].setup else [])]
    return [file for file in files if os.path.lexists(file)]


def tables_of(out: Path, kind: str) -> tuple[Path, Path]:
    """Return the table of a prediction into `out`, and the one that it has until it is whole."""
    table = out / TABLE if kind == "pts" else out
    return table, table.with_name(f"{table.stem}{UNFINISHED}{table.suffix}")


def setup_of(out: Path) -> Path:
    """Return the file beside `out` with the labels that a labelling tool needs before it takes the table."""
    return out.with_name(f"{out.stem}.labels.txt")


class Results:
    """Faces as .pts in a folder, or as a table of one of FORMATS; --dataset reads each of these.

    With `overwrite`, an earlier prediction that is there is moved aside as soon as a face is found. A .pts file is
    written when its face is added. A table lists the most uncertain faces first, so it is written anew from time to
    time; that takes at most 1 / SELDOM of the time. Until `finish` it has a name that tells that it is not whole.
    stems: names of the pictures, without suffix. origin: coordinate of the first pixel's centre in the files, except in
    those of CVAT and Label Studio. folder: name of the pictures' folder.
    """

    def __init__(
        self,
        out: Path,
        kind: str,
        layout: Layout,
        stems: Collection[str] = (),
        overwrite: bool = False,
        origin: float = ORIGIN,
        folder: str = "",
    ):
        self.out, self.kind, self.layout, self.origin, self.folder = out, kind, layout, origin, folder
        self.found: list[PredictedFace] = []  # most uncertain first after `close`
        self._done = False
        self.table, self.part = tables_of(out, kind)
        self._due, self._names, self._overwrite = 0.0, set(stems), overwrite

    def add(self, one: PredictedFace) -> None:
        """Add a face, and write its file or, if that is due, the table."""
        try:
            if not self.found:
                self._begin()
            self.found.append(self._with_points(one) if self.kind == "pts" else one)
            if time.monotonic() >= self._due:
                self.close()
        except OSError as error:
            raise UserError(f"{error.filename or self.out}: {error.strerror}; give another --out") from None

    def _begin(self) -> None:
        """Move aside what is there, and make the table; of several processes only one can make it."""
        for path in taken(self.out, self.kind) if self._overwrite else ():
            logger.info(f"{path} of an earlier prediction is moved to {set_aside(path)}")
        self.table.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.part.touch(exist_ok=False)
        except FileExistsError:
            raise UserError(f"{self.out} is written to by another process; give another --out") from None

    def close(self) -> None:
        """Write the table of the faces so far."""
        start = time.monotonic()
        if self.found and not self._done:
            self.found.sort(key=lambda one: -one.uncertainty)
            FORMATS[self.kind].write(self, self.part)
        self._due = time.monotonic() + SELDOM * (time.monotonic() - start)

    def finish(self) -> None:
        """Write the table of all faces, and give it its name."""
        self.close()
        if self.found:
            if setup := FORMATS[self.kind].setup:
                write_text(setup_of(self.out), setup(self.layout.point_names()))
            os.replace(self.part, self.table)
            self._done = True

    def _with_points(self, one: PredictedFace) -> PredictedFace:
        """Write the .pts file of a face. Return the face with its name.

        The second face of a picture has _2 in the name; __2 if another picture has that name.
        """
        name = stem = Path(one.file).with_suffix("").as_posix()
        line = ""
        while (one.number > 1 and name in self._names) or os.path.lexists(self.out / f"{name}.pts"):
            line += "_"
            name = f"{stem}{line}{one.number}"
        self._names.add(name)
        file = self.out / f"{name}.pts"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, lambda path: write_pts(path, one.face.landmarks - 0.5 + self.origin, self.origin))
        return one._replace(points=f"{name}.pts")


# --------------------------------------------------------------------------------------------------------------- formats
class Format(NamedTuple):
    """A row of FORMATS: the ending of --out, "" for a folder; the function that writes the table of some results to a
    file; the function from names of points to what a labelling tool needs before it takes the table.
    """

    ending: str
    write: Callable[[Results, Path], None]
    setup: Callable[[list[str]], str] | None = None


def _write_list(results: Results, file: Path) -> None:
    """Write uncertain.csv, which lists the .pts files in the order in which to check them."""
    rows = (
        [one.file, one.points, f"{one.uncertainty:.3f}", *(f"{edge:.2f}" for edge in one.face.box)]
        for one in results.found
    )
    write_csv(file, HEADER, rows)


def _write_csv(results: Results, file: Path) -> None:
    """Write a row per face. The header has the names of the points, or their numbers if some have no name."""
    names, origin = results.layout.point_names(), results.origin
    columns = [f"{name}_{axis}" for name in names for axis in "xy"]
    if any(name.isdecimal() for name in names):
        columns = [f"{axis}{i}" for i in range(len(names)) for axis in "xy"]
    rows = (
        [one.file, *(f"{value:.4f}" for value in (one.face.landmarks - 0.5 + origin).ravel()), f"{origin:g}"]
        for one in results.found
    )
    write_csv(file, ["file", *columns, FIRST_PIXEL], rows)


def _write_coco(results: Results, file: Path) -> None:
    """Write COCO annotations in order of their uncertainty, which is a key of its own."""
    images, faces, layout, origin = [], [], results.layout, results.origin
    ids = {name: number for number, name in enumerate(_by_picture(results), 1)}
    for name, (one, *_) in _by_picture(results).items():
        images.append({"id": ids[name], "file_name": name, "width": one.size[0], "height": one.size[1]})
    for number, one in enumerate(results.found, 1):
        points, (low, high) = one.face.landmarks - 0.5 + origin, one.face.box.reshape(2, 2)
        keypoints = np.column_stack([points.round(4), np.full(len(points), 2)]).ravel().tolist()
        sides = high - low
        faces.append(
            {
                "id": number,
                "image_id": ids[one.file],
                "category_id": 1,
                "keypoints": keypoints,
                "iscrowd": 0,
                "num_keypoints": len(points),
                "bbox": np.concatenate([low, sides]).round(4).tolist(),
                "area": round(float(sides.prod()), 4),
                "uncertainty": round(one.uncertainty, 4),
            }
        )
    category = {
        "id": 1,
        "name": "face",
        "supercategory": "person",
        "keypoints": layout.point_names(),
        "skeleton": [[a + 1, b + 1] for a, b in layout.edges()],
    }
    content = {"info": {FIRST_PIXEL: origin}, "images": images, "annotations": faces, "categories": [category]}
    write_text(file, json.dumps(content))


def _by_picture(results: Results) -> dict[str, list[PredictedFace]]:
    """Return {file: its faces}, the picture with the most uncertain face first."""
    found: dict[str, list[PredictedFace]] = {}
    for one in results.found:
        found.setdefault(one.file, []).append(one)
    return found


def _write_cvat(results: Results, file: Path) -> None:
    """Write "CVAT for images 1.1": each landmark is a shape of one point, those of a face are a group."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    labels, names = ElementTree.SubElement(task, "labels"), results.layout.point_names()
    for name in names:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    for number, (picture, faces) in enumerate(_by_picture(results).items()):
        width, height = map(str, faces[0].size)
        image = ElementTree.SubElement(root, "image", id=str(number), name=picture, width=width, height=height)
        for one in faces:
            shape = {"group_id": str(one.number), "occluded": "0", "source": "auto", "z_order": "0"}
            for name, (x, y) in zip(names, one.face.landmarks, strict=True):
                ElementTree.SubElement(image, "points", shape, label=name, points=f"{x:.4f},{y:.4f}")
    write_text(file, ElementTree.tostring(root, encoding="unicode"))


def _labels_of_cvat(names: list[str]) -> str:
    """Return the labels of a task, as its constructor takes them under Raw."""
    return json.dumps([{"name": name, "type": "points", "attributes": []} for name in names])


def _write_label_studio(results: Results, file: Path) -> None:
    """Write tasks of Label Studio: a rectangle for each face, and its landmarks as key points below the rectangle."""
    tasks, names = [], results.layout.point_names()
    for picture, faces in _by_picture(results).items():
        width, height = faces[0].size
        percent = 100 / np.array([width, height])
        frame = {"original_width": width, "original_height": height, "image_rotation": 0, "to_name": "image"}
        rows: list[dict[str, Any]] = []
        for one in faces:
            low, high = (one.face.box.reshape(2, 2) * percent).round(6)
            edges = dict(zip(("x", "y", "width", "height"), [*low, *(high - low)], strict=True))
            face = {"id": f"face{one.number}", "from_name": "face", "type": "rectanglelabels"}
            rows.append({**frame, **face, "value": {**edges, "rotation": 0, "rectanglelabels": ["face"]}})
            for i, (x, y) in enumerate((one.face.landmarks * percent).round(6)):
                point = {"id": f"{face['id']}-{i}", "parentID": face["id"], "from_name": "points"}
                value = {"x": x, "y": y, "width": 0.5, "keypointlabels": [names[i]]}
                rows.append({**frame, **point, "type": "keypointlabels", "value": value})
        address = quote(f"{results.folder}/{picture}", errors="surrogateescape")
        tasks.append({"data": {"image": f"/data/local-files/?d={address}"}, "annotations": [{"result": rows}]})
    write_text(file, json.dumps(tasks))


def _labels_of_label_studio(names: list[str]) -> str:
    """Return the code of a labelling interface."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    for tag, own, labels in (("RectangleLabels", "face", ["face"]), ("KeyPointLabels", "points", names)):
        control = ElementTree.SubElement(view, tag, name=own, toName="image")
        for label in labels:
            ElementTree.SubElement(control, "Label", value=label)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode")


FORMATS = {
    "pts": Format("", _write_list),
    "csv": Format(".csv", _write_csv),
    "coco": Format(".json", _write_coco),
    "cvat": Format(".xml", _write_cvat, _labels_of_cvat),
    "label-studio": Format(".json", _write_label_studio, _labels_of_label_studio),
}
