"""Test faces in other boxes than the set's own: perturbed boxes, or those of a detector."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from pipnet import images
from pipnet.errors import UserError
from pipnet.geometry import crop_box, crop_matrix, cut, grow, invert, iou, shared, transform, upright_boxes
from utils.data.faces import Faces, Part, evenly
from utils.data.prepared_set import name_hash, read_source_image, source_picture

JITTER = 0.2  # share of its side by which a perturbed box is moved and resized at most
OVERLAP = 0.3  # a found box matches a face from this IoU
BACKGROUNDS, EACH = 256, 8  # most crops of background, of all pictures and of one
FEWEST = 32  # crops of background that tell something
TRIES = 40  # boxes that are drawn for each crop of background, at most
MISFIT, LEAST_SIDE = 0.15, 12  # largest IoU of a box of `beside` with a labelled face; its least side, px
INSIDE = 0.25  # most share of a box of background that lies in the face's box


def reboxed(faces: Faces, boxes: np.ndarray, cache: float, whole: bool = False) -> Faces:
    """Return the faces with crops of other boxes (M, 4), in px of the source image. Norms still use the set's boxes.

    If the source image is gone, the crop is cut from the prepared crop, and is black beyond its margin. cache: GiB in
    memory. whole: with the whole border of the prepared crops, not only what the net sees.
    """
    protocol, old = faces.facts["protocol"], faces.geometry
    row = faces.read(*faces.names)
    crop = np.empty((len(faces), 4))
    for index, (box, size, file) in enumerate(zip(boxes, row["size"], row["file"], strict=True)):
        try:
            crop[index] = crop_box(box, protocol, *size)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
    geometry = old if whole else old._replace(border=old.seen)
    part = Part({**row, "crop": crop}, partial(_cut, faces, crop, geometry.border), faces.encoded)
    return Faces.of(part, geometry, faces.facts).cached(cache)


def _cut(faces: Faces, crop: np.ndarray, border: int, index: int) -> np.ndarray:
    """Return the picture of a face in one of the crops (M, 4), with a border in px."""
    image, matrix = picture(faces, index)
    inside, margin = transform(crop[index].reshape(2, 2), matrix).ravel(), 1 + 2 * border / faces.geometry.size
    return cut(image, inside, faces.geometry.size, margin, faces.facts["protocol"].border)


def source_file(row: dict[str, Any]) -> Path | None:
    """Return the picture that a face was cut from, or None if it is gone. row: of the face."""
    return source_picture(row["source"], row["file"])


def picture(faces: Faces, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (the source image of a face, or if it is gone the prepared crop, uint8 BGR; (2, 3) map from source px to
    it).
    """
    row = faces.row(index)
    if file := source_file(row):
        image = read_source_image(file)
        if image.shape[1::-1] == tuple(row["size"]):
            return image, np.eye(2, 3)
    stored = images.read_image(Path(row["file"]), data=faces.encoded(index))
    return stored, crop_matrix(grow(row["crop"], len(stored) / row["target"]), len(stored))


def keyed_by(name: str) -> np.random.Generator:
    """Return random numbers that depend on a name alone."""
    return np.random.default_rng(int.from_bytes(name_hash(name)[:8]))


def perturbed(box: np.ndarray, names: Iterable[str], most: float) -> np.ndarray:
    """Return boxes (M, 4) moved and resized by up to the share `most` of their sides, keyed by the face's name."""

    drawn = np.array([keyed_by(name).uniform(-most, most, 3) for name in names])
    sides = box[:, 2:] - box[:, :2]
    centre = (box[:, :2] + box[:, 2:]) / 2 + drawn[:, :2] * sides
    half = sides * (1 + drawn[:, 2:]) / 2
    return np.concatenate([centre - half, centre + half], 1)


def backgrounds(faces: Faces) -> Faces | None:
    """Return crops of background: `faces` in boxes beside the face. None if there are fewer than FEWEST.

    The boxes lie in the source images of faces that are evenly spread over the set, and are keyed by their names.
    Faces without a readable source image are left out.
    """
    some = evenly(len(faces), BACKGROUNDS)
    each = -(-BACKGROUNDS // len(some))
    rows, boxes = _boxes_of(faces, some, lambda row: _beside(row["box"], row["size"], row["file"], each))
    if len(rows) < FEWEST:
        return None
    chosen = evenly(len(rows), BACKGROUNDS)
    return reboxed(faces.only(np.array(rows)[chosen]), np.array(boxes)[chosen], cache=1.0)


def beside(faces: Faces, most: int, cache: float) -> Faces | None:
    """Return up to `most` crops of the faces' source images in which no labelled face is in its place; None without one.

    Boxes lie beside a face, or show a part of it, or are far too large; see `_misfit`. They are keyed by names.
    """
    labelled: dict[str, list[np.ndarray]] = {}  # {image: boxes of all its faces}
    for file, box in zip(faces["file"], faces["box"], strict=True):
        labelled.setdefault(file.partition("#")[0], []).append(box)

    def draw(row: dict[str, Any]) -> list[np.ndarray]:
        name = row["file"]
        return _misfit(row["box"], row["size"], np.array(labelled[name.partition("#")[0]]), name)

    rows, boxes = _boxes_of(faces, evenly(len(faces), most), draw)
    return reboxed(faces.only(np.array(rows)), np.array(boxes), cache, whole=True) if rows else None


def _boxes_of(
    faces: Faces, indices: Iterable[int], draw: Callable[[dict[str, Any]], list[np.ndarray]]
) -> tuple[list[int], list[np.ndarray]]:
    """Return (index of a face, a box) for the boxes that draw(row) gives for faces whose picture can be read."""
    rows, boxes = [], []
    for index in indices:
        row = faces.row(index)
        if _is_readable(source_file(row)):
            found = draw(row)
            rows += [index] * len(found)
            boxes += found
    return rows, boxes


def _misfit(box: np.ndarray, size: np.ndarray, labelled: np.ndarray, name: str) -> list[np.ndarray]:
    """Return a box (4,) in an image of `size` (2,) px whose crop shows no face in its place, [] if none is found.

    box: of a face; labelled (K, 4): those of all labelled faces in the image. The box overlaps each of them by IoU 0.15
    at most, and its centre lies in the image.
    """
    side = (box[2:] - box[:2]).max()
    for drawn in keyed_by(f"beside {name}").uniform(0, 1, (TRIES, 4)):
        own = side * np.exp(drawn[0] * 2.6 - 1.4)  # a quarter of the face's side to more than three times it
        centre = drawn[1:3] * size if drawn[3] < 0.5 else (box[:2] + box[2:]) / 2 + (2 * drawn[1:3] - 1) * side
        free = np.concatenate([centre - own / 2, centre + own / 2])
        inside = (centre >= 0).all() and (centre <= size).all()
        if inside and own >= LEAST_SIDE and iou(labelled, free[None]).max() <= MISFIT:
            return [free]
    return []


def _is_readable(file: Path | None) -> bool:
    if file is None:
        return False
    try:
        read_source_image(file)
    except UserError:
        return False
    return True


def _beside(box: np.ndarray, size: np.ndarray, name: str, most: int) -> list[np.ndarray]:
    """Return up to `most` boxes (4,) in an image of `size` (2,) px, of about the size of the face's box or less, that
    lie beside it.
    """
    most = min(most, EACH)
    drawn = keyed_by(name).uniform(0, 1, (TRIES * most, 3))
    sides = (box[2:] - box[:2]).max() * np.exp(-1.6 + 1.8 * drawn[:, 2:])
    corners = drawn[:, :2] * (size - sides)
    boxes = np.concatenate([corners, corners + sides], 1)
    free = (corners.min(1) >= 0) & (shared(boxes, box[None])[:, 0] <= INSIDE)
    return list(boxes[free][:most])


def detected(faces: Faces, find: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return for each face the detected box (M, 4) that overlaps its own box most; NaN if none overlaps it by OVERLAP.

    find: picture -> boxes (K, 4) in its px.
    """
    boxes, found, last = np.full((len(faces), 4), np.nan), np.empty((0, 4)), None
    for index, own in enumerate(faces["box"]):
        file = source_file(faces.row(index))
        if file is None or file != last:
            image, matrix = picture(faces, index)
            found = transform(np.asarray(find(image), np.float64).reshape(-1, 2, 2), invert(matrix)).reshape(-1, 4)
            last = file if (matrix == np.eye(2, 3)).all() else None  # a prepared crop shows one face
        if len(found) and (shares := iou(own[None], found)[0]).max() >= OVERLAP:
            boxes[index] = found[shares.argmax()]
    return boxes


def rebox(faces: Faces, kind: str, cache: float, detect: Callable | None) -> tuple[Faces, int]:
    """Return (the faces in boxes of that kind, number of faces that the detector missed).
    A missed face keeps its own box.

    kind: true, perturbed (by up to JITTER of its sides) or detector. cache: GiB of crops in memory. detect: picture ->
    (boxes (K, 5) that fit the landmarks, see `Landmarker.detect`, ...).
    """
    if kind == "true":
        return faces, 0
    if without := sum(source_file(faces.row(index)) is None for index in range(len(faces))):
        logger.warning(
            f"{without} of {len(faces)} source pictures are missing (such as "
            f"{faces.row(0)['source'] / faces.row(0)['file']}): their {kind} boxes are cut from the prepared crops, black "
            "beyond the margin"
        )
    if kind == "perturbed":
        return reboxed(faces, perturbed(faces["box"], faces["file"], JITTER), cache), 0
    boxes = detected(faces, lambda image: upright_boxes(detect(image)[0]))
    missed = np.isnan(boxes[:, 0])
    return reboxed(faces, np.where(missed[:, None], faces["box"], boxes), cache), int(missed.sum())
