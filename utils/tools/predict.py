"""--predict: landmarks for pictures without labels, to be corrected by hand or used as they are; most uncertain faces first."""
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from loguru import logger

from pipnet.detector import Detector
from pipnet.errors import UserError
from pipnet.files import shipped, write_atomic, write_csv, write_text
from pipnet.geometry import Protocol, box_of
from pipnet.images import is_picture, pictures, read_image
from pipnet.landmarker import Face, Landmarker, LandmarkNet
from pipnet.layout import Layout
from utils.data.parsers import DATASETS, complain, read_pts, write_pts
from utils.progress import progress
from utils.test.evaluate import mean_of
from utils.test.export import from_arrays

FORMATS = {"pts": "", "csv": ".csv", "coco": ".json"}  # suffix of --out
ORIGIN = DATASETS["points"].origin  # coordinate of the first pixel's centre in files that are read and written


class Found(NamedTuple):
    """A predicted face. file: its picture, relative to the folder; number: from 1 in that picture; size: width and height of the
    picture in px; uncertainty: predicted error in % of the box, or 100 - mean score in % for a net without predicted errors."""
    file: str
    number: int
    size: tuple[int, int]
    face: Face
    uncertainty: float


def predict(source: Path, net: Landmarker, detects: bool, always: bool) -> list[Found]:
    """Return the faces of a picture, or of all pictures below a folder, most uncertain first. UserError if there is none.

    The box comes from the .pts beside a picture, unless `always`; else from the detector; without one (`detects` is false) the
    whole picture is taken as the crop of one face.
    """
    if not source.exists():
        raise UserError(f"--predict: no picture or folder {source}")
    root = source if source.is_dir() else source.parent
    images = pictures(source) if source.is_dir() else [source] if is_picture(source) else []
    if not images:
        raise UserError(f"--predict: {source} is no picture and holds none")
    first = {file.with_suffix(""): file for file in reversed(images)}
    twins = [(file, other) for file in images if (other := first[file.with_suffix("")]) != file]
    complain([f"{file}: shares its name with {other.name}; rename one" for file, other in twins])
    found, without, damaged, whole = [], [], [], 0
    for file in progress(images, desc="pictures", unit="picture"):
        try:
            image = read_image(file)
        except UserError as error:
            damaged.append(str(error))
            continue
        if (points := file.with_suffix(".pts")).is_file() and not always:
            faces = net.landmarks_of(image, box_of(read_pts(points))[None] - ORIGIN + 0.5)
        elif detects:
            faces = net(image)
        else:
            whole += 1
            faces = net.landmarks_of(image, whole_box(*image.shape[1::-1], net.net.protocol)[None])
        name, size = file.relative_to(root).as_posix(), image.shape[1::-1]
        found += [Found(name, number, size, face, uncertainty(face)) for number, face in enumerate(faces, 1)]
        without += [] if faces else [name]
    if damaged:
        logger.warning("\n  ".join([f"{len(damaged)} of {len(images)} pictures are left out:", *damaged]))
    if without:
        logger.warning(f"no face is found in {len(without)} of {len(images)} pictures: {', '.join(without[:5])}")
    if whole:
        logger.info(f"{whole} pictures have no box and are taken for crops of one face (--detector-weights FILE finds faces)")
    if not found:
        raise UserError(f"--predict: no face in the {len(images)} pictures of {source}")
    return sorted(found, key=lambda one: -one.uncertainty)


def whole_box(width: int, height: int, protocol: Protocol) -> np.ndarray:
    """Return the box (4,) whose crop is the whole picture, or the square round it if the protocol's crops are square."""
    sides = np.array([width, height], np.float64)
    if protocol.square != "no":
        sides = np.full(2, sides.max())
    box = sides / (protocol.scale_x, protocol.scale_y)
    centre = np.array([width / 2, height / 2 - protocol.shift_y * box[1]])
    return np.concatenate([centre - box / 2, centre + box / 2])


def uncertainty(face: Face) -> float:
    """Return the uncertainty of a face, see `Found`."""
    if face.sigma is None:
        return float(100 * (1 - face.scores.mean()))
    return float(100 * face.sigma.mean() / np.sqrt(np.prod(face.box[2:] - face.box[:2])))


def check_out(out: Path | None, kind: str | None, place: Path, overwrite: bool) -> tuple[Path, str]:
    """Return (where to write, in which format). Without a format the name of `out` decides; without `out` it is `place`.

    UserError if they contradict each other, or if the target exists: it could be labels made by hand.
    """
    named = next((name for name, end in FORMATS.items() if end and out and out.suffix.lower() == end), "pts")
    if kind is None:
        kind = named
    elif kind not in FORMATS:
        raise UserError(f"--predict-format must be one of {', '.join(FORMATS)}, not '{kind}'")
    elif out and kind != named:
        raise UserError(f"--predict-format {kind} is written to {f'a file *{FORMATS[kind]}' if FORMATS[kind] else 'a folder'}, "
                        f"not to {out}")
    out = out or place.with_name(place.name + FORMATS[kind])
    if not overwrite and (out.is_dir() and any(out.iterdir()) or out.is_file()):
        raise UserError(f"{out} is there already; give another --out, or --overwrite")
    if out.exists() and out.is_dir() != (kind == "pts"):
        raise UserError(f"{out} is {'a folder' if out.is_dir() else 'a file'}, where {kind} needs the other; give another --out")
    return out, kind


def write(found: list[Found], out: Path, kind: str, layout: Layout) -> None:
    """Write the faces as .pts in a folder, as a CSV or as COCO keypoints; --dataset reads each of these."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        {"pts": _write_pts, "csv": _write_csv, "coco": _write_coco}[kind](found, out, layout)
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror}; give another --out") from None


def _write_pts(found: list[Found], out: Path, layout: Layout) -> None:
    """Write a .pts per face, with _2 in the name for a picture's second face, and uncertain.csv with the order to check."""
    rows = []
    for one in found:
        stem = Path(one.file).with_suffix("")
        file = stem.with_name(stem.name + (f"_{one.number}" if one.number > 1 else "")).with_suffix(".pts")
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out / file, lambda path, one=one: write_pts(path, one.face.landmarks - 0.5 + ORIGIN))
        rows.append([one.file, file.as_posix(), f"{one.uncertainty:.3f}", *(f"{edge:.2f}" for edge in one.face.box)])
    write_csv(out / "uncertain.csv", ["file", "points", "uncertainty", "box_x1", "box_y1", "box_x2", "box_y2"], rows)


def _write_csv(found: list[Found], out: Path, layout: Layout) -> None:
    header = ["file", *(f"{axis}{i}" for i in range(layout.count) for axis in "xy")]
    write_csv(out, header, ([one.file, *(f"{value:.4f}" for value in (one.face.landmarks - 0.5 + ORIGIN).ravel())]
                            for one in found))


def _write_coco(found: list[Found], out: Path, layout: Layout) -> None:
    """Write annotations in order of their uncertainty, which is an additional key."""
    ids: dict[str, int] = {}
    images, faces = [], []
    for number, one in enumerate(found, 1):
        if one.file not in ids:
            ids[one.file] = len(ids) + 1
            images.append({"id": ids[one.file], "file_name": one.file, "width": one.size[0], "height": one.size[1]})
        points, (low, high) = one.face.landmarks - 0.5 + ORIGIN, one.face.box.reshape(2, 2)
        keypoints = np.column_stack([points.round(4), np.full(len(points), 2)]).ravel().tolist()
        sides = high - low
        faces.append({"id": number, "image_id": ids[one.file], "category_id": 1, "keypoints": keypoints, "iscrowd": 0,
                      "num_keypoints": len(points), "bbox": np.concatenate([low, sides]).round(4).tolist(),
                      "area": round(float(sides.prod()), 4), "uncertainty": round(one.uncertainty, 4)})
    category = {"id": 1, "name": "face", "supercategory": "person", "keypoints": layout.point_names(),
                "skeleton": [[a + 1, b + 1] for a, b in layout.edges()]}
    write_text(out, json.dumps({"images": images, "annotations": faces, "categories": [category]}))


def landmarker(weights: Path, detector: str, file: str | None, coarse: str | None = None) -> Landmarker:
    """Return a Landmarker with the net of a run and a detector by name. file: its weights. UserError if they are missing."""
    return Landmarker(weights, Detector(detector, file), coarse=coarse)


def averaged(net: LandmarkNet) -> LandmarkNet:
    """Return the net with the mean of its results for a crop and for its mirror image, which takes twice the time.

    The mean has no habit of labels that lie to one side of what they mark.
    """
    find = from_arrays(net.predict)

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        crops = torch.from_numpy(images)
        mean = mean_of(find(crops), find(crops.flip(2)).flip(net.layout))
        return {name: value.numpy() for name, value in mean._asdict().items() if value is not None}

    return net._replace(predict=predict)


def run_prediction(weights: Path, source: Path, out: Path, kind: str, test, coarse: str | None) -> str:
    """Predict and write the landmarks of `source`. Return what to print. test: section of the settings.

    coarse: the net that makes the crops of faces that the detector finds, see `Landmarker`.
    """
    given = test.detector_weights is not None or "detector" in test.box or test.detector not in ("faceboxes", "none")
    detects = given or test.detector == "faceboxes" and shipped("detector.onnx").is_file()
    if detects:
        net = landmarker(weights, test.detector, test.detector_weights, coarse)
    else:
        net = Landmarker(weights, lambda image: None)
    if test.flip_test:
        net.net = averaged(net.net)
    found = predict(source, net, detects, given)
    write(found, out, kind, net.layout)
    what = "predicted error, % of the box" if found[0].face.sigma is not None else "100 - mean score, %"
    lines = [f"{len(found)} faces in {len({one.file for one in found})} pictures -> {out}", f"most uncertain first ({what}):"]
    for one in found[:5]:
        lines.append(f"{one.uncertainty:8.2f}  {one.file}" + (f" (face {one.number})" if one.number > 1 else ""))
    return "\n".join(lines)
