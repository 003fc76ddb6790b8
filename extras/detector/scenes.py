"""Training crops of a detector: parts of photographs with boxes, and faces of landmark sets pasted into them.

A crop is a pure function of (seed, pass, index). Its labels are the boxes of its faces and unknown regions. The loss
ignores unknown regions: small, cut or ignored faces, and photographs that may show faces without a box.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.ops import box_iou

from extras.detector.faceboxes import BoxTargets, anchors, corners, encode
from extras.detector.scene_sources import RAISE, STORED, Cutouts, face_boxes, resized
from extras.detector.settings import DetectSettings
from extras.detector.wider import Picture
from pipnet.geometry import invert, opencv_matrix, transform, turn_about, turned_boxes
from utils.data.batches import Batch
from utils.data.changes import DRAWS, changes, shadows, uniforms
from utils.data.faces import CropGeometry
from utils.data.pixels import darken, pixels
from utils.settings.sections import AugmentSettings

SMALLEST = 24.0  # px of the crop: smaller faces are matched as if they had this side
LEAST = 9.0  # px of the crop: faces with a shorter side are left out of the loss
ZOOM = (0.25, 5.0)  # range of a photograph's zoom
PART = 128  # px, side of the smallest part of a mosaic
AWAY = 0.2  # share of the parts that are cut from a random place of a photograph: background at all scales
KNOWN = 0.6, 0.1  # visible shares of a cut face: from the first on it is a face, from the second on an unknown region
INSIDE = 2.0, 6.0  # range of face / window, in sides, where a window lies inside of a face
BACKGROUND = 0.25  # visible share of a face below which such a window is background
LARGEST = 1.1  # face / crop, in sides, of the largest faces
SHADED = 48.0  # px of the crop, least side of a face in shadow; smaller ones could not be seen
# of a face that touches another: ratio of their sizes; gap in widths of the narrower one
PAIR, GAP = (0.6, 1.4), (-0.2, 0.1)
OVAL = 1.05  # axes of the oval that is drawn of it, in sides of its box
ENLARGED = 1.5  # most enlargement of a cutout for it


class Scene(NamedTuple):
    """A crop with its labels."""

    image: np.ndarray  # (S, S, 3) uint8 BGR
    boxes: np.ndarray  # (M, 4) px
    unknown: np.ndarray  # (K, 4) px


class Material(NamedTuple):
    """Sources of training crops."""

    pictures: list[Picture]  # photographs
    cutouts: Cutouts  # faces to paste
    portraits: list[Picture]  # pictures of landmark sets


class Scenes(Dataset):
    """`count` crops of `size` px an epoch; `scenes[passes, indices]`, both (B,), is a `Batch` with the targets of all
    anchors.
    """

    def __init__(
        self, material: Material, detect: DetectSettings, augment: AugmentSettings, size: int, seed: int, count: int
    ):
        self.pictures, self.cutouts, self.portraits = material
        self.count, self.seed, self.size = count, seed, size
        self.sides, self.mosaic, self.parts = detect.face_sides, detect.mosaic, detect.parts
        self.pasted, self.touching = detect.pasted, detect.touching
        self.recipe = augment
        self.anchor = anchors(self.size, self.size)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """Return the name of a crop's first picture, for errors."""
        return self.pictures[index % len(self.pictures)].file.name

    def __getitem__(self, key: tuple[np.ndarray, np.ndarray]) -> Batch:
        scenes = [self.scene(*pair) for pair in zip(*(part.tolist() for part in key), strict=True)]
        labels = BoxTargets(torch.stack([targets(scene, self.anchor) for scene in scenes]))
        return Batch(torch.from_numpy(np.stack([scene.image for scene in scenes])), labels, torch.from_numpy(key[1]))

    def scene(self, number: int, index: int) -> Scene:
        """Return one crop of a pass with its labels."""
        rng, labels = np.random.default_rng((self.seed, number, index)), []
        canvas = np.zeros((self.size, self.size, 3), np.uint8)
        self._fill(canvas, np.zeros(2, int), index, labels, rng)
        boxes, unknown = (np.concatenate(part) for part in zip(*labels, strict=True))
        boxes = self._paste(canvas, boxes, unknown, rng)
        field = CropGeometry(self.size)
        change = changes(uniforms(self.seed, number, np.array([index]), DRAWS), self.recipe, field)
        matrix = np.eye(2, 3)
        if change.mirrored[0]:  # the only part of the drawn map that is used
            matrix = np.array([[-1.0, 0, self.size], [0, 1, 0]])
            boxes, unknown = (
                part[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (self.size, 0, self.size, 0) for part in (boxes, unknown)
            )
        change = change._replace(matrix=matrix[None], light=None)  # each photograph has shadows of its own
        return Scene(pixels([canvas], change)[0], boxes, unknown)

    def _fill(
        self, canvas: np.ndarray, corner: np.ndarray, number: int, labels: list, rng: np.random.Generator
    ) -> None:
        """Draw into the square `canvas` a part of a picture, or a mosaic of four canvases that are filled in the same
        way.

        number: of the photograph or portrait; in a mosaic, of its first part. corner: of the canvas in the crop. Append
        (boxes, unknown), in px of the crop, to `labels`.
        """
        half = len(canvas) // 2
        if half < min(PART, self.size // 2) or rng.random() >= self.mosaic:
            # portraits show large faces, so they are rarer in small canvases
            portrait = self.portraits and rng.random() < len(canvas) / (2 * self.size)
            pictures = self.portraits if portrait else self.pictures
            canvas[:], boxes, unknown = self._cell(pictures[number % len(pictures)], len(canvas), rng)
            labels.append((boxes + np.tile(corner, 2), unknown + np.tile(corner, 2)))
            return
        for place in np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * half:
            part = canvas[place[1] :, place[0] :][:half, :half]
            self._fill(part, corner + place, number, labels, rng)
            number = int(rng.integers(2**31))

    def _side(self, rng: np.random.Generator, least: float, most: float) -> float:
        """Return a log-uniform side of a face in px, within `face_sides` and within `least` to `most`."""
        low, high = np.log(np.clip(self.sides, min(least, most), most))
        return float(np.exp(rng.uniform(low, high)))

    def _roll(self, rng: np.random.Generator, angle: float) -> float:
        """Return a random angle in degrees with probability `roll_prob`, else `angle`. `rng` itself is not advanced."""
        own = rng.spawn(1)[0]
        return own.uniform(-180, 180) if own.random() < self.recipe.roll_prob else angle

    def _cell(self, picture: Picture, side: int, rng: np.random.Generator) -> Scene:
        """Return a part of a photograph as a square of `side` px. One of the photograph's faces gets a random size.

        With probability `parts` the part lies inside of that face: an eye, a lens, a mouth or a cheek is background.
        """
        image = picture.read()
        size = np.array(image.shape[1::-1])
        faces = picture.boxes[~picture.ignored]
        pick, place = rng.random(), rng.random(2)
        face = faces[int(pick * len(faces))] if len(faces) else np.zeros(4)
        low = max(ZOOM[0], side / (1.1 * size.min()))  # the window is at most 1.1 shorter sides of the photograph
        part = rng.spawn(1)[0] if self.parts and len(faces) else None  # `rng` itself is not advanced
        if part is not None and part.random() >= self.parts:
            part = None
        if part is not None:  # inside of the face
            window = (face[2:] - face[:2]).min() / part.uniform(*INSIDE)
            zoom, ends = side / window, np.stack([face[:2], face[2:] - window])
        elif len(faces) and rng.random() >= AWAY:
            own = np.sqrt((face[2:] - face[:2]).prod())
            # where one photograph fills the crop: no size below that of the smallest zoom, which would be clipped
            wanted = self._side(rng, *(low * own, LARGEST * side) if side == self.size else (0, 0.9 * side))
            zoom = np.clip(wanted / own, low, max(ZOOM[1], low))
            window = side / zoom
            # corners of the window for which the face is wholly inside, unless it is larger
            ends = np.sort([face[2:] - window, face[:2]], axis=0)
        else:
            zoom = low * (max(ZOOM[1], low) / low) ** pick
            window = side / zoom
            ends = np.sort([np.zeros(2), size - window], axis=0)
        inside = np.sort([np.zeros(2), size - window], axis=0)
        corner = np.clip(ends[0] + place * (ends[1] - ends[0]), *inside)
        angle = self._roll(rng, 0.0)
        cut = resized(image, corner, window, side, angle)
        boxes = (picture.boxes - np.tile(corner, 2)) * zoom
        if angle:
            boxes = turned_boxes(boxes, turn_about(np.full(2, side / 2), np.radians(angle)))
        clipped = boxes.clip(0, side)
        extent, seen = boxes[:, 2:] - boxes[:, :2], clipped[:, 2:] - clipped[:, :2]
        share = seen.prod(1) / np.maximum(extent.prod(1), 1e-6)
        counts = (share >= KNOWN[0]) & (seen >= LEAST).all(1) & ~picture.ignored
        hides = ~counts & (share > (KNOWN[1] if part is None else BACKGROUND))
        unknown = clipped[hides] if picture.whole else np.array([[0, 0, side, side]], float)
        large = counts & (seen.max(1) >= SHADED)
        if self.recipe.shadow and large.any():
            self._shade(cut, clipped[large], rng.spawn(1)[0])
        return Scene(cut, clipped[counts], unknown)

    def _shade(self, image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> None:
        """With probability `shadow`, lay a shadow over an image, in place. Its edge crosses one of the boxes (M, 4)."""
        if rng.random() < self.recipe.shadow:
            box = boxes[int(rng.integers(len(boxes)))]
            side = float((box[2:] - box[:2]).max())
            depth, light = shadows(rng.random((1, 8)), np.array([True]), side)[0]
            depth[2] -= depth[:2] @ ((box[:2] + box[2:]) - side) / 2  # from the square about the box to the image
            darken(image, depth, light)

    def _paste(
        self, canvas: np.ndarray, boxes: np.ndarray, unknown: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Paste faces into `canvas`, in place: in free places or, with probability `touching`, beside another face.

        Return the boxes of all faces in it.
        """
        if not len(self.cutouts):
            return boxes
        small = unknown[(np.ptp(unknown.reshape(-1, 2, 2), axis=1) < self.size / 2 - 1).any(1)]
        for _ in range(int(rng.integers(0, self.pasted + 1))):
            number = int(rng.integers(len(self.cutouts)))
            wanted, spot = self._side(rng, 0, STORED), rng.random((6, 2))
            angle = rng.uniform(-1, 1) * self.recipe.rotation
            soft, mirror = rng.uniform(0.02, 0.25), rng.random() < 0.5
            angle = self._roll(rng, angle)
            beside = rng.spawn(1)[0] if self.touching and len(boxes) else None  # `rng` itself is not advanced
            if beside is not None and beside.random() >= self.touching:
                beside = None
            other = 0 if beside is None else int(beside.integers(len(boxes)))
            if beside is not None:
                own = np.sqrt(np.prod(boxes[other, 2:] - boxes[other, :2]))
                wanted = min(own * np.exp(beside.uniform(*np.log(PAIR))), ENLARGED * STORED)
            landmarks, layout = self.cutouts.landmarks[number], self.cutouts.layouts[number]
            extent = np.ptp(landmarks, axis=0)
            scale = wanted / np.sqrt(extent[0] * extent[1] * (1 + RAISE))
            matrix = _turn(np.radians(angle), scale, mirror)
            box = face_boxes(transform(landmarks, matrix)[None], layout, angle)[0]
            extent = box[2:] - box[:2]
            if (extent >= self.size).any() or (extent < LEAST).any():
                continue
            if beside is not None:  # the face alone is drawn, and may cover a little of the other one
                places, reach = _beside(boxes[other], extent, beside, len(spot)), extent / 2
                taken = np.concatenate([np.delete(boxes, other, 0), small])
                oval = face_boxes(landmarks[None], layout)[0]
            else:
                places, reach = spot * (self.size - extent), np.full(2, np.ceil(STORED * scale) / 2)
                taken, oval = np.concatenate([boxes, small]), None
            for corner in places:
                middle, moved = corner + extent / 2, np.append(corner, corner + extent)
                inside = (moved >= 0).all() and (moved <= self.size).all()
                if inside and not _touch(np.append(middle - reach, middle + reach), taken).any():
                    matrix[:, 2] += corner - box[:2]
                    _blend(canvas, self.cutouts.images[number], matrix, scale, soft, oval)
                    boxes = np.concatenate([boxes, moved[None]])
                    break
        return boxes


def _beside(box: np.ndarray, extent: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Return the corners (count, 2) of boxes of size `extent` (2,) that touch the left or right side of a box (4,)."""
    side = box[2:] - box[:2]
    gap = rng.uniform(*GAP, count) * min(extent[0], side[0])
    x = np.where(rng.random(count) < 0.5, box[0] - extent[0] - gap, box[2] + gap)
    y = (box[1] + box[3] - extent[1]) / 2 + rng.uniform(-0.5, 0.5, count) * side[1]
    return np.stack([x, y], 1)


def _turn(angle: float, scale: float, mirror: bool) -> np.ndarray:
    """Return an affine (2, 3) that moves the middle of a cutout to the origin, then mirrors, rotates and scales."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = scale * turn * (-1 if mirror else 1, 1)
    return np.column_stack([turn, -turn @ (STORED / 2, STORED / 2)])


def _touch(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return which of the boxes (M, 4) overlap a box (4,)."""
    return np.all((box[:2] < boxes[:, 2:]) & (box[2:] > boxes[:, :2]), 1)


def _blend(
    canvas: np.ndarray,
    cutout: np.ndarray,
    matrix: np.ndarray,
    scale: float,
    soft: float,
    oval: np.ndarray | None = None,
) -> None:
    """Lay a cutout over the canvas, in place. Its border fades out over a share `soft` of its side.

    oval: a box (4,) in px of the cutout; only the ellipse in it, and a little around it, is laid over the canvas.
    """
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
    # in [-1, 1]
    from_middle = [(row[0] * x + row[1] * y + row[2]) / (len(cutout) / 2) - 1 for row in back.astype(np.float32)]
    if oval is None:
        edge = np.maximum(*map(np.abs, from_middle))
    else:
        sides = zip(from_middle, *np.split(oval.astype(np.float32) / (STORED / 2) - 1, 2), strict=True)
        edge = np.hypot(*((2 * place - a - b) / (b - a) for place, a, b in sides)) / OVAL - soft / 2
    alpha = ((1 - edge) / soft).clip(0, 1)[..., None]
    part = canvas[low[1] : high[1], low[0] : high[0]]
    part[:] = part + alpha * (drawn.astype(np.float32) - part)


def targets(scene: Scene, anchor: Tensor) -> Tensor:
    """Return the packed `BoxTargets` (A, 5) of the anchors.
    An anchor in an unknown region has label -1: it is not trained.
    """
    boxes = torch.from_numpy(scene.boxes.astype(np.float32))
    wanted = encode(boxes, anchor, SMALLEST)
    if len(scene.unknown):
        low, high = np.split(scene.unknown, 2, axis=1)
        # the smallest anchors are 8 px apart
        reach = torch.from_numpy(np.maximum((high - low) / 2, 8).astype(np.float32))
        away = (anchor[:, None, :2] - torch.from_numpy(((low + high) / 2).astype(np.float32))).abs()
        hidden = (away <= reach).all(-1).any(1)
        if len(boxes):  # an anchor that overlaps a known face a little is background
            hidden &= box_iou(corners(anchor), boxes).max(1).values < 0.1
        wanted[:, 4] -= (hidden & (wanted[:, 4] == 0)).float()
    return wanted
