"""Pictures that a detector's training crops are made of: faces to paste, portraits and rendered backgrounds."""

from functools import partial
from pathlib import Path

import cv2
import numpy as np

from extras.detector.wider import Picture
from extras.shared.backgrounds import background
from pipnet.cores import cores
from pipnet.errors import UserError
from pipnet.geometry import compose, grow, opencv_matrix, to_crop, turn_about
from pipnet.layout import Layout
from utils.data.faces import GIB, Faces, chunks, evenly
from utils.data.paths import set_name
from utils.data.prepared_set import Split
from utils.data.threads import Threads

FEWEST = 256  # face pictures in memory, 28 MB
STORED = 192  # side of the face pictures in memory, px
MARGIN = 1.25  # largest margin around the nominal crop that they keep
BACKGROUNDS = 200  # rendered backgrounds if there are no photographs
PORTRAITS = 1000  # pictures of landmark sets that serve as photographs
RAISE = 0.25  # share of the landmarks' height by which the box of a face reaches above the brows


def face_boxes(landmarks: np.ndarray, layout: Layout, angle: float = 0.0) -> np.ndarray:
    """Return the boxes (M, 4) of landmarks (M, N, 2): tight, raised above the brows.
    Raise UserError without brows or jaw.

    angle: degrees by which the faces are turned clockwise. The side of a box that is nearest to the forehead is raised.
    """
    if not any("brow" in part for part in layout.groups) or "jaw" not in layout.groups:
        raise UserError(f"layout {layout.name} has no jaw and brows, so its faces have no box; leave the set out")
    low, high = np.nanmin(landmarks, 1), np.nanmax(landmarks, 1)
    boxes = np.concatenate([low, high], 1)
    side, axis = [(1, 1), (2, 0), (3, 1), (0, 0)][round(angle / 90) % 4]
    boxes[:, side] += np.sign(side - 1.5) * RAISE * (high - low)[:, axis]
    return boxes


def _whole_faces(faces: Faces, most: int) -> np.ndarray:
    """Return up to `most` indices of faces whose landmarks are all known, evenly spread over the set."""
    known = [faces.only(rows)["known"].all(1) for rows in chunks(len(faces))]
    whole = np.flatnonzero(np.concatenate(known))
    return whole[evenly(len(whole), most)]


class Cutouts:
    """Faces of prepared landmark sets to paste: `images` (M, STORED, STORED, 3), `landmarks` (M, N, 2) in their px,
    `layouts`.

    As many faces as fit into `cache` GiB are taken, but at least FEWEST, evenly spread over each set.
    """

    def __init__(self, splits: list[Split], cache: float = 4.0):
        self.images, self.landmarks, self.layouts = [], [], []
        most = max(int(cache * GIB / (3 * STORED**2)), FEWEST) // max(len(splits), 1)
        for split in splits:
            faces, layout, stored = split.set.read(split.name), split.set.layout, split.set.meta["margin"]
            face_boxes(faces.only(slice(1))["landmarks"], layout)  # raises for an unsuitable layout
            rows, margin = _whole_faces(faces, most), min(stored, MARGIN)
            with Threads(cores()) as pool:
                self.images += pool.map(partial(_middle, faces, share=margin / stored), rows)
            chosen = faces.only(rows)
            self.landmarks += list(to_crop(chosen["landmarks"], grow(chosen["crop"], margin)) * STORED)
            self.layouts += [layout] * len(rows)

    def __len__(self) -> int:
        return len(self.images)


def _middle(faces: Faces, row: int, share: float) -> np.ndarray:
    """Return the middle of a crop as a square of STORED px. Its side is `share` of the crop's."""
    image = faces.crop(row)
    return resized(image, np.full(2, (1 - share) / 2 * len(image)), share * len(image), STORED)


def portraits(splits: list[Split], most: int = PORTRAITS, whole: bool = False) -> list[Picture]:
    """Return up to `most` crops of landmark sets as photographs, each with the box of its face and its whole margin.

    whole: whether that face is the only one in its crop.
    """
    made, no = [], np.zeros(1, bool)
    for split in splits:
        faces, meta, name = split.set.read(split.name), split.set.meta, set_name(split.set.folder)
        rows = _whole_faces(faces, most // len(splits))
        side = round(meta["target_size"] * meta["margin"])
        chosen = faces.only(rows)
        landmarks = to_crop(chosen["landmarks"], grow(chosen["crop"], meta["margin"])) * side
        boxes = face_boxes(landmarks, split.set.layout).clip(0, side)
        files = [Path(meta["source"], file) for file in chosen["file"]]
        made += [
            Picture(file, name, box[None], no, no, whole, crop=partial(faces.crop, row))
            for file, row, box in zip(files, rows, boxes, strict=True)
        ]
    return made


def backgrounds(size: int, seed: int, count: int = BACKGROUNDS) -> list[Picture]:
    """Return rendered pictures of `size` px without faces, for training without photographs."""
    none, no, pictures = np.zeros((0, 4)), np.zeros(0, bool), []
    for index in range(count):
        drawn = (np.sqrt(np.minimum(background(np.random.default_rng((seed, index)), size), 1)) * 255).astype(np.uint8)
        pictures.append(Picture(Path(f"background {index}"), "drawn", none, no, no, image=drawn))
    return pictures


def decoded(pictures: list[Picture], cache: float) -> list[Picture]:
    """Return the pictures; the first ones hold their images, `cache` GiB in all.
    Raise UserError for an unreadable image.
    """
    left, result = cache * GIB, list(pictures)
    with Threads(cores()) as pool:
        for index, image in enumerate(pool.map(Picture.read, pictures)):
            left -= image.nbytes
            if left < 0:
                break
            result[index] = pictures[index]._replace(image=image)
    return result


def resized(image: np.ndarray, corner: np.ndarray, window: float, side: int, angle: float = 0.0) -> np.ndarray:
    """Return the square of `window` px at `corner` of the image as (side, side, 3), black outside, without aliasing.

    The picture is turned clockwise by `angle` degrees about the middle of the square.
    """
    zoom = side / window
    if zoom < 0.75:
        image, before = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA), image
        exact = np.array(image.shape[1::-1]) / before.shape[1::-1]
        corner, zoom = corner * exact, zoom / exact[0]
    matrix = np.array([[zoom, 0, -corner[0] * zoom], [0, zoom, -corner[1] * zoom]])
    turn = turn_about(np.full(2, side / 2), np.radians(angle))
    return cv2.warpAffine(image, opencv_matrix(compose(matrix, turn)), (side, side), flags=cv2.INTER_LINEAR)
