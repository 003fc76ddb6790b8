"""--predict: landmarks for pictures without labels, to be corrected by hand or used as they are; most uncertain faces
first.
"""

import re
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from loguru import logger

from extras.shared.lists import is_listable
from extras.shared.pts import ORIGIN, read_counted_pts
from extras.tools.results import FORMATS, PredictedFace, Results, check_out, setup_of, taken
from pipnet.detector import Detector
from pipnet.errors import UserError, one_line, printable
from pipnet.face import Face
from pipnet.geometry import Protocol, box_of, box_of_crop
from pipnet.images import is_picture, picture_files, read_image
from pipnet.landmark_net import LandmarkNet
from pipnet.landmarker import Landmarker
from pipnet.shipped import OPEN, SHIPPED, shipped, shipped_onnx
from utils.data.table import complain
from utils.evaluate.evaluate import mean_of
from utils.export.files import from_arrays
from utils.settings.command import Command
from utils.settings.config import load_protocol, read_defaults
from utils.settings.progress import progress
from utils.settings.start import when_stopped
from utils.task.inference import open_landmark_net
from utils.task.job import Figures, Job

NO_XML = re.compile("[\x01-\x1f\ud800-\udfff\ufffe\uffff]")  # characters that XML cannot hold


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
    """Return [picture], or all pictures below a folder. kind: the format in which their landmarks are written.

    UserError if there is none, and if two names differ in their suffix only, which .pts files do not say.
    """
    if not source.exists():
        raise UserError(f"--predict: no picture or folder {source}")
    images = picture_files(source) if source.is_dir() else [source] if is_picture(source) else []
    if not images:
        raise UserError(f"--predict: {source} is no picture and holds none")
    root = source if source.is_dir() else source.parent
    names = {file: file.relative_to(root).as_posix() for file in images}
    odd = [file for file, name in names.items() if not is_listable(name) or (kind == "cvat" and NO_XML.search(name))]
    complain([f"{file}: a name with a tab or line break cannot stand in a list; rename it" for file in odd])
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


def target_of(command: Command, folder: Path) -> tuple[Path, str]:
    """Return (path that --predict writes to, format), see `check_out`. folder: of the run."""
    source, own = Path(command.mode("predict")).resolve(), folder / "predicted"
    if own.is_symlink():
        raise UserError(f"{own} is a link, and nothing is written through it; remove it")
    out, kind = check_out(
        command.mode("out"), command.mode("predict_format"), own / source.stem, command.has("overwrite")
    )
    if taken(out, kind) and source.is_relative_to(out.resolve()):
        raise UserError(f"{out} holds the pictures of --predict and cannot be moved aside; give another --out")
    return out, kind


def run_prediction(job: Job) -> Figures:
    """Write the landmarks of --predict, and print the most uncertain faces."""
    command, settings, exp = job.command, job.settings, job.runs.exp
    run = job.viewed
    if not (run and job.ranks.first):
        return {}
    origin = command.given.get("first_pixel") or 0
    source, (out, kind), test = Path(command.mode("predict")), target_of(command, run.folder), settings.test
    weights, int8 = run.fastest, command.mode("int8", False)  # 32 bits by default, unlike in the demo
    given = test.detector_weights is not None or "detector" in test.box or test.detector not in ("faceboxes", "none")
    detects = given or (test.detector == "faceboxes" and shipped("detector.onnx").is_file())
    if exp in SHIPPED and weights in run.given:
        weights = shipped_onnx(exp, int8)
    threads, finder = settings.train.threads, lambda image: None
    if detects:
        file, scale = test.detector_weights or OPEN.get(exp or ""), command.mode("detector_scale")
        finder = Detector(test.detector, file, scale=scale, threads=threads, int8=int8)
    protocol = load_protocol(settings.protocols, settings.data.protocol or "square")
    opened = replace(open_landmark_net(Path(weights), read_defaults(), threads, settings.view), protocol=protocol)
    net = Landmarker(
        averaged(opened) if test.flip_test else opened,
        finder,
        command.mode("max_faces"),
        threads,
        not command.has("upright"),
        finder="none" if exp in OPEN else None,
        layout=settings.view,
        threshold=command.mode("threshold"),
        int8=int8,
    )
    root = source if source.is_dir() else source.parent
    images = chosen_pictures(source, kind)
    stems = [file.relative_to(root).with_suffix("").as_posix() for file in images]
    results = Results(out, kind, net.layout, stems, command.has("overwrite"), origin, root.resolve().name)
    when_stopped(f"stopped; the faces found so far are in {printable(str(results.part))}")
    # a stop leaves what has been found
    with closing(results), closing(predict(source, net, detects, given, origin, images)) as faces:
        for one in faces:
            results.add(one)
        results.finish()
    found = results.found
    what = "predicted error, % of the box" if found[0].face.sigma is not None else "100 - mean score, %"
    said = [
        f"{len(found)} faces in {len({one.file for one in found})} pictures -> {out}",
        f"most uncertain first ({what}):",
    ]
    if FORMATS[kind].setup:
        said.insert(1, f"labels that the tool needs first: {setup_of(out)}")
    for one in found[:5]:
        said.append(f"{one.uncertainty:8.2f}  {one.file}" + (f" (face {one.number})" if one.number > 1 else ""))
    print("\n".join(map(printable, said)))
    return {"predict": [{"file": one.file, "face": one.number, "uncertainty": one.uncertainty} for one in found]}
