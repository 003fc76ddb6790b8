"""Test faces in other boxes than the set's own: perturbed ones, and those of a detector."""
from collections.abc import Callable
from pathlib import Path

import numpy as np
from loguru import logger

from pipnet.errors import UserError
from pipnet.geometry import crop_box, crop_matrix, cut, grow, invert, iou, to_crop, transform
from utils.faces.dataset import Faces
from utils.faces.prepared_set import name_hash, read_image, source_picture

OVERLAP = 0.3  # a found box matches a face from this IoU


class Reboxed(Faces):
    """The faces cut by their protocol from other boxes (M, 4) in px of the source image; their own boxes stay for the norms.

    If the source image is gone, the crop is cut from the prepared crop and black beyond its margin.
    """

    def __init__(self, faces: Faces, boxes: np.ndarray, cache: float):
        vars(self).update(vars(faces))
        self.crop = np.array([self._nominal(index, box) for index, box in enumerate(boxes)])
        self.nominal = to_crop(self.landmarks, self.crop).astype(np.float32)
        self.border, self.prepared = self.input_border, faces
        self._load(cache)

    def only(self, rows: np.ndarray) -> "Reboxed":
        """Return some of the faces."""
        view = super().only(rows)
        view.prepared = self.prepared.only(rows)
        return view

    def _nominal(self, index: int, box: np.ndarray) -> np.ndarray:
        try:
            return crop_box(box, self.protocol, *self.sizes[index])
        except UserError as error:
            raise UserError(f"{self.names[index]}: {error}") from None

    def _decode(self, index: int) -> np.ndarray:
        image, matrix = picture(self.prepared, index)
        crop, margin = transform(self.crop[index].reshape(2, 2), matrix).ravel(), 1 + 2 * self.border / self.size
        return cut(image, crop, self.size, margin, self.protocol.border)


def source_file(faces: Faces, index: int) -> Path | None:
    """Return the picture that a face was cut from, or None if it is gone."""
    return source_picture(faces.sources[index], faces.names[index])


def picture(faces: Faces, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (picture uint8 BGR, (2, 3) map from px of the source image to it): the source image, else the prepared crop."""
    if file := source_file(faces, index):
        image = read_image(file)
        if image.shape[1::-1] == tuple(faces.sizes[index]):
            return image, np.eye(2, 3)
    stored = read_image(faces.images[index])
    return stored, crop_matrix(grow(faces.crop[index], len(stored) / faces.target[index]), len(stored))


def perturbed(box: np.ndarray, names: list[str], most: float) -> np.ndarray:
    """Return boxes (M, 4) moved and resized by up to the share `most` of their sides, keyed by the face's name."""
    def draw(name: str) -> np.ndarray:
        return np.random.default_rng(int.from_bytes(name_hash(name)[:8])).uniform(-most, most, 3)

    drawn, sides = np.array([draw(name) for name in names]), box[:, 2:] - box[:, :2]
    centre = (box[:, :2] + box[:, 2:]) / 2 + drawn[:, :2] * sides
    half = sides * (1 + drawn[:, 2:]) / 2
    return np.concatenate([centre - half, centre + half], 1)


def detected(faces: Faces, find: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return for each face the found box (4,) that overlaps its own most, NaN if none overlaps enough.

    find: picture -> boxes (K, 4) in its px.
    """
    boxes, found, last = np.full((len(faces), 4), np.nan), np.empty((0, 4)), None
    for index in range(len(faces)):
        file = source_file(faces, index)
        if file is None or file != last:
            image, matrix = picture(faces, index)
            found = transform(np.asarray(find(image), np.float64).reshape(-1, 2, 2), invert(matrix)).reshape(-1, 4)
            last = file if (matrix == np.eye(2, 3)).all() else None  # a prepared crop shows one face
        if len(found) and (shares := iou(faces.box[index][None], found)[0]).max() >= OVERLAP:
            boxes[index] = found[shares.argmax()]
    return boxes


def rebox(faces: Faces, kind: str, jitter: float, cache: float, detect: Callable | None) -> tuple[Faces, int]:
    """Return (the faces in boxes of that kind, how many the detector missed; a missed face keeps its own box).

    kind: true, perturbed (by up to `jitter` of its sides) or detector. cache: GiB of crops in memory. detect: picture -> (boxes
    (K, 4) that fit the landmarks, ...).
    """
    if kind == "true":
        return faces, 0
    if without := sum(source_file(faces, index) is None for index in range(len(faces))):
        logger.warning(f"{without} of {len(faces)} source pictures are missing (such as {faces.sources[0] / faces.names[0]}): "
                       f"their {kind} boxes are cut from the prepared crops, black beyond the margin")
    if kind == "perturbed":
        return Reboxed(faces, perturbed(faces.box, faces.names, jitter), cache), 0
    boxes = detected(faces, lambda image: detect(image)[0])
    missed = np.isnan(boxes[:, 0])
    return Reboxed(faces, np.where(missed[:, None], faces.box, boxes), cache), int(missed.sum())
