"""Training crops of a detector: parts of photographs with boxes, and faces of landmark sets pasted into them.

A crop is a pure function of (seed, epoch, sample). It comes with the boxes of its faces and with regions of which nothing is
known: too small, cut or ignored faces, and what of a photograph may hold faces without a box.
"""
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.ops import box_iou

from nets.detectors.faceboxes import Targets, anchors, corners, encode
from pipnet.errors import UserError
from pipnet.geometry import grow, invert, opencv_matrix, to_crop, transform
from pipnet.layout import Layout
from utils.cores import cores
from utils.data.augment import generator, photometric
from utils.data.dataset import GIB
from utils.data.prepared_set import Split, Table, read_image
from utils.data.synthetic.scene import background
from utils.data.wider import Picture

STORED, MARGIN = 192, 1.25  # px, side of the crops of faces that are kept in memory; most that they are grown by
BACKGROUNDS = 200  # drawn ones, where there is no photograph
SMALLEST = 24.0  # px of the crop: smaller faces are matched as if they were so large
LEAST = 9.0  # px of the crop: faces with a shorter side are left out of the loss
ZOOM = (0.25, 5.0)  # of a photograph
PART = 128  # px, side of the smallest part of a crop made of several
AWAY = 0.2  # share of the parts that are any place of a photograph, so that background is seen in all sizes
PORTRAITS = 1000  # pictures of landmark sets that serve as photographs
RAISE = 0.25  # share of the landmarks' height by which the box of a face reaches above the brows
KNOWN = 0.6, 0.1  # share of a cut face from which it counts, and from which it hides what it covers


class Scene(NamedTuple):
    """image (S, S, 3) uint8 BGR; boxes (M, 4) and unknown (K, 4) in its px."""

    image: np.ndarray
    boxes: np.ndarray
    unknown: np.ndarray


class Batch(NamedTuple):
    """images (B, S, S, 3) uint8 BGR; labels: what each anchor should say; index (B,) of the samples."""

    images: Tensor
    labels: Targets
    index: Tensor


def face_boxes(landmarks: np.ndarray, layout: Layout) -> np.ndarray:
    """(M, N, 2) -> (M, 4): tight boxes raised above the brows. UserError for a layout without brows and jaw."""
    if not any("brow" in part for part in layout.groups) or "jaw" not in layout.groups:
        raise UserError(f"layout {layout.name} has no jaw and brows, which the box of a face is made of; leave the set out")
    low, high = np.nanmin(landmarks, 1), np.nanmax(landmarks, 1)
    low[:, 1] -= RAISE * (high - low)[:, 1]
    return np.concatenate([low, high], 1)


class Cutouts:
    """Faces of prepared landmark sets, ready to paste: `images` (M, STORED, STORED, 3), `landmarks` (M, N, 2) in their px.

    Faces of which every landmark is known, each set's first to last evenly, as many as `cache` GiB hold.
    """

    def __init__(self, splits: list[Split], cache: float = 4.0):
        self.images, self.landmarks, self.layouts = [], [], []
        most = int(cache * GIB / (3 * STORED ** 2)) // max(len(splits), 1)
        for split in splits:
            table, layout, margin = split.set.read(split.name), split.set.layout, split.set.meta["margin"]
            face_boxes(table.landmarks[:1], layout)
            rows = _evenly(table, most)
            kept = min(margin, MARGIN)
            with ThreadPoolExecutor(cores()) as pool:
                self.images += pool.map(lambda row, table=table, share=kept / margin: _stored(table.images[row], share), rows)
            self.landmarks += list(to_crop(table.landmarks[rows], grow(table.crop[rows], kept)) * STORED)
            self.layouts += [layout] * len(rows)

    def __len__(self) -> int:
        return len(self.images)


def _stored(file: Path, share: float) -> np.ndarray:
    """The middle of a picture, `share` of its side."""
    image = read_image(file)
    return _resized(image, np.full(2, (1 - share) / 2 * len(image)), share * len(image), STORED)


def _evenly(table: Table, most: int) -> np.ndarray:
    """Return up to `most` rows of a table, evenly from first to last, of faces whose landmarks are all known."""
    whole = np.flatnonzero(np.isfinite(table.landmarks).all((1, 2)))
    return whole[np.linspace(0, len(whole) - 1, min(len(whole), most)).astype(int)]


def portraits(splits: list[Split]) -> list[Picture]:
    """Return pictures of landmark sets, with their margin, as photographs that show other faces without a box."""
    made, no = [], np.zeros(1, bool)
    for split in splits:
        table, meta = split.set.read(split.name), split.set.meta
        rows = _evenly(table, PORTRAITS // len(splits))
        side = round(meta["target_size"] * meta["margin"])
        landmarks = to_crop(table.landmarks[rows], grow(table.crop[rows], meta["margin"])) * side
        boxes = face_boxes(landmarks, split.set.layout).clip(0, side)
        name = split.set.folder.name
        made += [Picture(table.images[row], name, box[None], no, no, False) for row, box in zip(rows, boxes, strict=True)]
    return made


def backgrounds(size: int, seed: int, count: int = BACKGROUNDS) -> list[Picture]:
    """Drawn pictures of `size` px without a face, for where there are no photographs."""
    none, pictures = np.zeros((0, 4)), []
    for index in range(count):
        drawn = (np.sqrt(np.minimum(background(np.random.default_rng((seed, index)), size), 1)) * 255).astype(np.uint8)
        pictures.append(Picture(Path(f"background {index}"), "drawn", none, np.zeros(0, bool), np.zeros(0, bool), image=drawn))
    return pictures


def decoded(pictures: list[Picture], cache: float) -> list[Picture]:
    """The same with their images in memory, as far as `cache` GiB go. UserError for an image that cannot be read."""
    left, kept = cache * GIB, list(pictures)
    with ThreadPoolExecutor(cores()) as pool:
        for index, image in enumerate(pool.map(Picture.read, pictures)):
            left -= image.nbytes
            if left < 0:
                break
            kept[index] = pictures[index]._replace(image=image)
    return kept


class Material(NamedTuple):
    """What training crops are made of: photographs, faces to paste into them, and pictures of landmark sets."""

    pictures: list[Picture]
    cutouts: Cutouts
    portraits: list[Picture]


class Scenes(Dataset):
    """`count` crops of `size` px per epoch; item (epoch, index) is the sample `index` as epoch `epoch` sees it.

    detect, augment: sections of the settings. names: of the samples.
    """

    def __init__(self, material: Material, detect, augment, size: int, seed: int, count: int):
        self.pictures, self.cutouts, self.portraits = material
        self.count, self.seed, self.size = count, seed, size
        self.sides, self.pasted, self.mosaic = detect.face_sides, detect.pasted, detect.mosaic
        self.rotation, self.recipe = augment.rotation, augment
        self.anchor = anchors(self.size, self.size)
        self.names = [self.pictures[index % len(self.pictures)].file.name for index in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, Tensor, Tensor, int]:
        epoch, index = key
        scene = self.scene(epoch, index)
        return scene.image, *targets(scene, self.anchor), index

    def scene(self, epoch: int, index: int) -> Scene:
        """One crop with its labels."""
        rng, parts = generator(self.seed, epoch, index), []
        canvas = np.zeros((self.size, self.size, 3), np.uint8)
        self._fill(canvas, np.zeros(2, int), index, parts, rng)
        boxes, unknown = (np.concatenate(part) for part in zip(*parts, strict=True))
        boxes = self._paste(canvas, boxes, unknown, rng)
        canvas = photometric(canvas, rng, self.recipe)
        if rng.random() < self.recipe.flip:
            canvas = np.ascontiguousarray(canvas[:, ::-1])
            boxes, unknown = (part[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (self.size, 0, self.size, 0) for part in (boxes, unknown))
        return Scene(canvas, boxes, unknown)

    def _fill(self, canvas: np.ndarray, corner: np.ndarray, number: int, parts: list, rng: np.random.Generator) -> None:
        """Draws a part of photograph `number` or of a portrait into the square `canvas`, or four of several, or four of four ...

        Adds their boxes and what is unknown, in px of the whole, in which the canvas lies at `corner`, to `parts`.
        """
        half = len(canvas) // 2
        if half < min(PART, self.size // 2) or rng.random() >= self.mosaic:
            alone = self.portraits and rng.random() < len(canvas) / (2 * self.size)  # whose faces are large
            several = self.portraits if alone else self.pictures
            canvas[:], boxes, unknown = self._cell(several[number % len(several)], len(canvas), rng)
            parts.append((boxes + np.tile(corner, 2), unknown + np.tile(corner, 2)))
            return
        for place in np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * half:
            part = canvas[place[1]:, place[0]:][:half, :half]
            self._fill(part, corner + place, number, parts, rng)
            number = int(rng.integers(2 ** 31))

    def _side(self, rng: np.random.Generator, least: float, most: float) -> float:
        """Of a face, px; every doubling between `least` and `most` is as likely as another."""
        low, high = np.log(np.clip(self.sides, min(least, most), most))
        return float(np.exp(rng.uniform(low, high)))

    def _cell(self, picture: Picture, side: int, rng: np.random.Generator) -> Scene:
        """Part of a photograph at `side` px, in which one of its faces, if it has any, is of a drawn size."""
        image = picture.read()
        height, width = image.shape[:2]
        faces = picture.boxes[~picture.ignored]
        pick, place = rng.random(), rng.random(2)
        low = max(ZOOM[0], side / (1.1 * min(height, width)))  # mostly photograph, a little of black
        if len(faces) and rng.random() >= AWAY:
            face = faces[int(pick * len(faces))]
            extent = face[2:] - face[:2]
            own = np.sqrt(extent.prod())
            # a photograph alone shows no face smaller than this: all its sizes are large ones
            wanted = self._side(rng, low * own if side == self.size else 0, 0.9 * side)
            zoom = np.clip(wanted / own, low, max(ZOOM[1], low))
            window = side / zoom
            # the face wholly inside, where it is not larger than the window
            ends = np.sort([face[2:] - window, face[:2]], axis=0)
        else:
            zoom = low * (max(ZOOM[1], low) / low) ** pick
            window = side / zoom
            ends = np.sort([np.zeros(2), (width - window, height - window)], axis=0)
        inside = np.sort([np.zeros(2), (width - window, height - window)], axis=0)
        corner = np.clip(ends[0] + place * (ends[1] - ends[0]), *inside)
        cut = _resized(image, corner, window, side)
        boxes, unknown = (picture.boxes - np.tile(corner, 2)) * zoom, []
        clipped = boxes.clip(0, side)
        extent, seen = boxes[:, 2:] - boxes[:, :2], clipped[:, 2:] - clipped[:, :2]
        share = seen.prod(1) / np.maximum(extent.prod(1), 1e-6)
        counts = (share >= KNOWN[0]) & (seen >= LEAST).all(1) & ~picture.ignored
        hides = ~counts & (share > KNOWN[1])
        unknown = clipped[hides] if picture.whole else np.array([[0, 0, side, side]], float)
        return Scene(cut, clipped[counts], unknown)

    def _paste(self, canvas: np.ndarray, boxes: np.ndarray, unknown: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Lays faces over free places of `canvas`; the boxes of all faces there."""
        for _ in range(int(rng.integers(0, self.pasted + 1)) if len(self.cutouts) else 0):
            number, wanted, spot = int(rng.integers(len(self.cutouts))), self._side(rng, 0, STORED), rng.random((6, 2))
            angle, soft, mirror = rng.uniform(-1, 1) * self.rotation, rng.uniform(0.02, 0.25), rng.random() < 0.5
            landmarks, layout = self.cutouts.landmarks[number], self.cutouts.layouts[number]
            extent = np.ptp(landmarks, axis=0)
            scale = wanted / np.sqrt(extent[0] * extent[1] * (1 + RAISE))
            matrix = _turn(np.radians(angle), scale, mirror)
            box = face_boxes(transform(landmarks, matrix)[None], layout)[0]
            patch = int(np.ceil(STORED * scale))
            extent = box[2:] - box[:2]
            if (extent >= self.size).any() or (extent < LEAST).any():
                continue
            corner = spot * (self.size - extent)
            moved = np.concatenate([corner, corner + extent], 1)
            # what the patch covers goes: no other face may lie there, known or not quite known
            middle, reach = (moved[:, :2] + moved[:, 2:]) / 2, patch * 0.5
            around = np.concatenate([middle - reach, middle + reach], 1)
            taken = np.concatenate([boxes, unknown[(np.ptp(unknown.reshape(-1, 2, 2), axis=1) < self.size / 2 - 1).any(1)]])
            free = [row for row in range(len(spot)) if not _touch(around[row], taken).any()]
            if free:
                matrix[:, 2] += corner[free[0]] - box[:2]
                _blend(canvas, self.cutouts.images[number], matrix, scale, soft)
                boxes = np.concatenate([boxes, moved[free[:1]]])
        return boxes


def _turn(angle: float, scale: float, mirror: bool) -> np.ndarray:
    """(2, 3) map of a cutout's px about its middle, which becomes the origin."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * (-1 if mirror else 1, 1)
    return np.column_stack([turn, -turn @ (STORED / 2, STORED / 2)])


def _touch(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    return ((box[:2] < boxes[:, 2:]) & (box[2:] > boxes[:, :2])).all(1)


def _resized(image: np.ndarray, corner: np.ndarray, window: float, side: int) -> np.ndarray:
    """(side, side, 3) of the square `window` px of the image; black outside. Where it shrinks, nothing aliases."""
    zoom = side / window
    if zoom < 0.75:
        image, before = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA), image
        exact = np.array(image.shape[1::-1]) / before.shape[1::-1]
        corner, zoom = corner * exact, zoom / exact[0]
    matrix = opencv_matrix(np.array([[zoom, 0, -corner[0] * zoom], [0, zoom, -corner[1] * zoom]]))
    return cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR)


def _blend(canvas: np.ndarray, cutout: np.ndarray, matrix: np.ndarray, scale: float, soft: float) -> None:
    """Lays a cutout over the canvas in place; its border fades over the share `soft` of its side."""
    shrink = max(int(1 / scale), 1)
    if shrink > 1:
        cutout = cv2.resize(cutout, (STORED // shrink, STORED // shrink), interpolation=cv2.INTER_AREA)
    matrix = np.column_stack([matrix[:, :2] * (STORED / len(cutout)), matrix[:, 2]])
    ends = transform(np.array([[0, 0], [1, 0], [0, 1], [1, 1]], float) * len(cutout), matrix)
    low = np.floor(ends.min(0)).astype(int).clip(0, len(canvas))
    high = np.ceil(ends.max(0)).astype(int).clip(0, len(canvas))
    width, height = (high - low).tolist()
    if width <= 0 or height <= 0:
        return
    matrix[:, 2] -= low
    drawn = cv2.warpAffine(cutout, opencv_matrix(matrix), (width, height), borderMode=cv2.BORDER_REPLICATE)
    back = invert(matrix)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5)
    edge = np.maximum(*(np.abs((row[0] * x + row[1] * y + row[2]) / (len(cutout) / 2) - 1) for row in back.astype(np.float32)))
    alpha = ((1 - edge) / soft).clip(0, 1)[..., None]
    part = canvas[low[1]:high[1], low[0]:high[0]]
    part[:] = part + alpha * (drawn.astype(np.float32) - part)


def targets(scene: Scene, anchor: Tensor) -> tuple[Tensor, Tensor]:
    """(offsets (A, 4), label (A,)) of the anchors; label -1, neither face nor background, where nothing is known."""
    boxes = torch.from_numpy(scene.boxes.astype(np.float32))
    offsets, label = (part[0] for part in encode([boxes], anchor, smallest=SMALLEST))
    if len(scene.unknown):
        middle, reach = (scene.unknown[:, :2] + scene.unknown[:, 2:]) / 2, np.ptp(scene.unknown.reshape(-1, 2, 2), axis=1) / 2
        reach = torch.from_numpy(np.maximum(reach, 8).astype(np.float32))  # the smallest anchors stand 8 px apart
        away = (anchor[:, None, :2] - torch.from_numpy(middle.astype(np.float32))).abs()
        hidden = (away <= reach).all(-1).any(1)
        if len(boxes):  # what overlaps a known face somewhat is background all the same
            hidden &= box_iou(corners(anchor), boxes).max(1).values < 0.1
        label = torch.where(hidden & (label == 0), -1, label)
    return offsets, label


def collate(samples: list[tuple]) -> Batch:
    """Samples -> Batch."""
    images, offsets, label, index = zip(*samples, strict=True)
    return Batch(torch.from_numpy(np.stack(images)), Targets(torch.stack(offsets), torch.stack(label)), torch.tensor(index))
