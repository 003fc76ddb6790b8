"""--predict: landmarks for pictures without labels, to be corrected by hand or used as they are; most uncertain faces
first.
"""

import json
import os
import time
from argparse import Namespace
from collections.abc import Collection, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from loguru import logger

from pipnet.detector import Detector, shipped_weights
from pipnet.errors import UserError, one_line, printable
from pipnet.face import Face
from pipnet.files import OPEN, SHIPPED, names_folder, set_aside, shipped, write_atomic, write_csv, write_text
from pipnet.geometry import Protocol, box_of, box_of_crop
from pipnet.images import is_picture, picture_files, read_image
from pipnet.landmark_net import LandmarkNet
from pipnet.landmarker import Landmarker
from pipnet.layout import Layout
from pipnet.session import shipped_onnx
from utils.data.lists import is_listable
from utils.data.pts import FIRST_PIXEL, ORIGIN, read_counted_pts, write_pts
from utils.data.table import complain
from utils.evaluate.evaluate import mean_of
from utils.export.files import from_arrays
from utils.settings.config import Settings, load_protocol, read_defaults
from utils.settings.progress import progress
from utils.settings.start import when_stopped
from utils.task.inference import open_landmark_net
from utils.train.run_folder import Run

TABLE = "uncertain.csv"  # beside .pts files
UNFINISHED = ".unfinished"  # in the name of a table until all pictures are done
HEADER = ["file", "points", "uncertainty", "box_x1", "box_y1", "box_x2", "box_y2"]
SELDOM = 20  # after a write, the next one waits for so many times as long as that took
FORMATS = {"pts": "", "csv": ".csv", "coco": ".json"}  # suffix of --out


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


def predict(
    source: Path,
    net: Landmarker,
    detects: bool,
    always: bool,
    origin: float = ORIGIN,
    images: list[Path] | None = None,
) -> Generator[PredictedFace]:
    """Yield the faces of a picture, or of all pictures below a folder, as they are found. UserError if there is none.

    The box is that of the .pts file beside a picture. Where there is none, or with `always`, the detector finds the
    boxes; if `detects` is false, the whole picture is the crop of one face instead. A picture that causes an error is
    left out.
    origin: coordinate of the first pixel's centre in the .pts files that state none. images: None: `chosen_pictures`.
    """
    images = chosen_pictures(source) if images is None else images
    root, without, damaged, whole, count = source if source.is_dir() else source.parent, [], [], 0, 0
    try:
        for file in progress(images, desc="pictures", unit="picture"):
            name, points = file.relative_to(root).as_posix(), file.with_suffix(".pts")
            try:
                image = read_image(file)
                if points.is_file() and not always:
                    landmarks, first = read_counted_pts(points)
                    box = box_of(landmarks) - float(origin if first is None else first) + 0.5
                    faces = net.landmarks_of(image, box[None])
                elif detects:
                    faces = net(image)
                else:
                    faces = net.landmarks_of(image, whole_box(*image.shape[1::-1], net.net.protocol)[None])
                    whole += 1
            except Exception as error:  # an error of any type in one picture must not stop the others
                own = isinstance(error, UserError)
                damaged.append(str(error) if own else f"{file}: {type(error).__name__}: {one_line(error)}")
                continue
            count += len(faces)
            without += [] if faces else [name]
            for number, face in enumerate(faces, 1):
                yield PredictedFace(name, number, image.shape[1::-1], face, uncertainty(face))
    finally:
        if damaged:
            for line in (f"{len(damaged)} of {len(images)} pictures are left out:", *damaged):
                logger.warning(line)
        if without:
            logger.warning(f"no face is found in {len(without)} of {len(images)} pictures: {', '.join(without[:5])}")
        if whole:
            logger.info(
                f"{whole} pictures have no box and are used as crops of one face (--detector-weights FILE finds faces)"
            )
    if not count:
        raise UserError(f"--predict: no face in the {len(images)} pictures of {source}")


def chosen_pictures(source: Path, kind: str = "pts") -> list[Path]:
    """Return [picture], or all pictures below a folder. kind: of FORMATS, in which their landmarks are written.

    UserError if there is none, and if two names differ in their suffix only, which .pts files do not say.
    """
    if not source.exists():
        raise UserError(f"--predict: no picture or folder {source}")
    images = picture_files(source) if source.is_dir() else [source] if is_picture(source) else []
    if not images:
        raise UserError(f"--predict: {source} is no picture and holds none")
    root = source if source.is_dir() else source.parent
    complain(
        [
            f"{file}: a name with a tab or line break cannot stand in a list; rename it"
            for file in images
            if not is_listable(file.relative_to(root).as_posix())
        ]
    )
    if kind == "pts":
        first = {file.with_suffix(""): file for file in reversed(images)}
        twins = [(file, other) for file in images if (other := first[file.with_suffix("")]) != file]
        remedy = "rename one, or write a table: --out FILE.csv"
        complain([f"{file}: shares its name with {other.name}; {remedy}" for file, other in twins])
    return images


def whole_box(width: int, height: int, protocol: Protocol) -> np.ndarray:
    """Return the box (4,) whose crop is the whole picture; if the protocol's crops are square, the square around it."""
    size = np.array([width, height], np.float64)
    return box_of_crop(size / 2, size if protocol.square == "no" else np.full(2, size.max()), protocol)


def uncertainty(face: Face) -> float:
    """Return the uncertainty of a face, see `PredictedFace`."""
    if face.sigma is None:
        return float(100 * (1 - face.scores.mean()))
    return float(100 * face.sigma.mean() / np.sqrt(np.prod(face.box[2:] - face.box[:2])))


def check_out(given: str | None, kind: str | None, place: Path, overwrite: bool) -> tuple[Path, str]:
    """Return (path to write to, format).
    given: --out, default `place`; kind: the format, default: by the suffix of --out.

    UserError if they contradict each other, or if the path exists, since it could hold labels made by hand; with
    `overwrite` only if what is there is no earlier prediction.
    """
    out = Path(given) if given else None
    named = next((name for name, end in FORMATS.items() if end and out and out.suffix.lower() == end), "pts")
    if kind is None:
        kind = named
    elif kind not in FORMATS:
        raise UserError(f"--predict-format must be one of {', '.join(FORMATS)}, not '{kind}'")
    elif given and kind != named:
        raise UserError(
            f"--predict-format {kind} is written to {f'a file *{FORMATS[kind]}' if FORMATS[kind] else 'a folder'}, "
            f"not to {given}"
        )
    if given and named == "pts" and not names_folder(given):
        raise UserError(
            f"--out {given}: landmarks go into a folder (.pts) or a file that ends in .csv or .json (COCO); give one "
            f"of these, or {given}{os.sep}"
        )
    out = out or place.with_name(place.name + FORMATS[kind])
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
    return [file for file in tables_of(out, kind) if os.path.lexists(file)]


class Results:
    """Faces as .pts in a folder, as a CSV or as COCO keypoints; --dataset reads each of these.

    With `overwrite`, an earlier prediction that is there is moved aside as soon as a face is found. A .pts file is
    written when its face is added. A table lists the most uncertain faces first, so it is written anew from time to
    time; that takes at most 1 / SELDOM of the time. Until `finish` it has a name that tells that it is not whole.
    stems: names of the pictures, without suffix. origin: coordinate of the first pixel's centre in the files.
    """

    def __init__(
        self,
        out: Path,
        kind: str,
        layout: Layout,
        stems: Collection[str] = (),
        overwrite: bool = False,
        origin: float = ORIGIN,
    ):
        self.out, self.kind, self.layout, self.origin = out, kind, layout, origin
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
            {"pts": self._write_list, "csv": self._write_csv, "coco": self._write_coco}[self.kind]()
        self._due = time.monotonic() + SELDOM * (time.monotonic() - start)

    def finish(self) -> None:
        """Write the table of all faces, and give it its name."""
        self.close()
        if self.found:
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

    def _write_list(self) -> None:
        """Write uncertain.csv, which lists the .pts files in the order in which to check them."""
        rows = (
            [one.file, one.points, f"{one.uncertainty:.3f}", *(f"{edge:.2f}" for edge in one.face.box)]
            for one in self.found
        )
        write_csv(self.part, HEADER, rows)

    def _write_csv(self) -> None:
        header = ["file", *(f"{axis}{i}" for i in range(self.layout.count) for axis in "xy"), FIRST_PIXEL]
        write_csv(
            self.part,
            header,
            (
                [
                    one.file,
                    *(f"{value:.4f}" for value in (one.face.landmarks - 0.5 + self.origin).ravel()),
                    f"{self.origin:g}",
                ]
                for one in self.found
            ),
        )

    def _write_coco(self) -> None:
        """Write COCO annotations in order of their uncertainty, which is a key of its own."""
        ids: dict[str, int] = {}
        images, faces = [], []
        for number, one in enumerate(self.found, 1):
            if one.file not in ids:
                ids[one.file] = len(ids) + 1
                images.append({"id": ids[one.file], "file_name": one.file, "width": one.size[0], "height": one.size[1]})
            points, (low, high) = one.face.landmarks - 0.5 + self.origin, one.face.box.reshape(2, 2)
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
            "keypoints": self.layout.point_names(),
            "skeleton": [[a + 1, b + 1] for a, b in self.layout.edges()],
        }
        content = {"info": {FIRST_PIXEL: self.origin}, "images": images, "annotations": faces, "categories": [category]}
        write_text(self.part, json.dumps(content))


def tables_of(out: Path, kind: str) -> tuple[Path, Path]:
    """Return the table of a prediction into `out`, and the one that it has until it is whole."""
    table = out / TABLE if kind == "pts" else out
    return table, table.with_name(f"{table.stem}{UNFINISHED}{table.suffix}")


def averaged(net: LandmarkNet) -> LandmarkNet:
    """Return a net whose results are the means of those for a crop and for its mirror image. It takes twice the time.

    An offset of the labels to one side cancels in these means.
    """
    find = from_arrays(net.predict)

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        crops = torch.from_numpy(images)
        mean = mean_of(find(crops), find(crops.flip(2)).flip(net.layout))
        return {name: value.numpy() for name, value in mean._asdict().items() if value is not None}

    return replace(net, predict=predict)


def check_flags(mode: Namespace, settings: Settings, folder: Path) -> None:
    """Raise UserError if the flags of a prediction do not fit together, or name a place that is in use.

    folder: of the run.
    """
    if settings.test.detector == "none" and (mode.threshold, mode.detector_scale) != (None, None):
        raise UserError(
            "--threshold and --detector-scale are for a detector; leave out these, or leave out --detector none"
        )
    target_of(mode, folder)


def target_of(mode: Namespace, folder: Path) -> tuple[Path, str]:
    """Return (path that --predict writes to, format), see `check_out`. folder: of the run."""
    source, own = Path(mode.predict).resolve(), folder / "predicted"
    if own.is_symlink():
        raise UserError(f"{own} is a link, and nothing is written through it; remove it")
    out, kind = check_out(mode.out, mode.predict_format, own / source.stem, mode.overwrite)
    if taken(out, kind) and source.is_relative_to(out.resolve()):
        raise UserError(f"{out} holds the pictures of --predict and cannot be moved aside; give another --out")
    return out, kind


def run_prediction(
    exp: str | None, run: Run, mode: Namespace, settings, origin: float = ORIGIN
) -> tuple[str, list[dict]]:
    """Predict and write the landmarks of --predict. Return (text to print, [{file, face, uncertainty}] of all faces).

    exp: the text that names the run. mode: the flags that are not settings. origin: --first-pixel.
    """
    source, (out, kind), test = Path(mode.predict), target_of(mode, run.folder), settings.test
    weights, int8 = run._replace(view=settings.view).fastest, bool(mode.int8)  # 32 bits by default, unlike in the demo
    given = test.detector_weights is not None or "detector" in test.box or test.detector not in ("faceboxes", "none")
    detects = given or (test.detector == "faceboxes" and shipped("detector.onnx").is_file())
    if exp in SHIPPED and weights in run.given:
        weights = shipped_onnx(exp, int8)
    threads, finder = settings.train.threads, lambda image: None
    if detects:
        file = test.detector_weights or shipped_weights(test.detector, int8, OPEN.get(exp or ""))
        finder = Detector(test.detector, file, None, None, mode.detector_scale, threads)
    protocol = load_protocol(settings.protocols, settings.data.protocol or "square")
    opened = replace(open_landmark_net(Path(weights), read_defaults(), threads), protocol=protocol)
    net = Landmarker(
        averaged(opened) if test.flip_test else opened,
        finder,
        mode.max_faces,
        threads,
        not mode.upright,
        finder="none" if exp in OPEN else shipped_onnx("finder", int8),
        layout=settings.view,
        threshold=mode.threshold,
    )
    root = source if source.is_dir() else source.parent
    images = chosen_pictures(source, kind)
    stems = [file.relative_to(root).with_suffix("").as_posix() for file in images]
    results = Results(out, kind, net.layout, stems, mode.overwrite, origin)
    when_stopped(f"stopped; the faces found so far are in {printable(str(results.part))}")
    with (
        closing(results),
        closing(predict(source, net, detects, given, origin, images)) as faces,
    ):  # a stop leaves what has been found
        for one in faces:
            results.add(one)
        results.finish()
    found = results.found
    what = "predicted error, % of the box" if found[0].face.sigma is not None else "100 - mean score, %"
    lines = [
        f"{len(found)} faces in {len({one.file for one in found})} pictures -> {out}",
        f"most uncertain first ({what}):",
    ]
    for one in found[:5]:
        lines.append(f"{one.uncertainty:8.2f}  {one.file}" + (f" (face {one.number})" if one.number > 1 else ""))
    return "\n".join(map(printable, lines)), [
        {"file": one.file, "face": one.number, "uncertainty": one.uncertainty} for one in found
    ]
