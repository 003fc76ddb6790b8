"""Photographs in which something covers a part of the face: which landmarks does a net call hidden?"""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from photographs import LABELLED, Photograph, photographs, there, titled, without_detector

from pipnet.geometry import box_of
from pipnet.images import read_image
from pipnet.landmarker import Landmarker
from utils.evaluate import metric

# draws a mask (H, W) of the covered part, and its picture (H, W, 3), for landmarks (68, 2) and another photograph
Cover = Callable[[np.ndarray, np.ndarray, np.random.Generator, np.ndarray], tuple[np.ndarray, np.ndarray]]


def polygon(shape: tuple[int, ...], points: np.ndarray) -> np.ndarray:
    """Return the mask (H, W) bool of a polygon (N, 2)."""
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [points.round().astype(np.int32)], 1)
    return mask > 0


def cloth(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a picture of woven cloth in a random colour, with soft folds."""
    rows, columns = np.indices(image.shape[:2])
    weave = 12 * ((rows // 2 + columns // 2) % 2)
    folds = 25 * np.sin((rows + rng.uniform(-1, 1) * columns) / rng.uniform(8, 30) + rng.uniform(0, 6))
    return np.clip(rng.uniform(40, 235, 3) + (weave + folds)[..., None], 0, 255)


def face_mask(image, landmarks, rng, other):
    """A mask of cloth over nose and mouth."""
    top = landmarks[28] + rng.uniform(-0.2, 0.6) * (landmarks[29] - landmarks[28])
    return polygon(image.shape, np.concatenate([landmarks[1:16], top[None]])), cloth(image, rng)


def sunglasses(image, landmarks, rng, other):
    """Dark lenses of a colour that changes from top to bottom, and the bridge between them."""
    mask, wide = np.zeros(image.shape[:2], np.uint8), np.linalg.norm(landmarks[45] - landmarks[36])
    middles = [landmarks[36:42].mean(0), landmarks[42:48].mean(0)]
    angle = np.degrees(np.arctan2(*(middles[1] - middles[0])[::-1]))
    for middle in middles:
        size = (rng.uniform(0.42, 0.52) * wide, rng.uniform(0.3, 0.42) * wide)
        cv2.ellipse(mask, (middle.tolist(), size, float(angle)), 1, -1)
    ends = [middle.round().astype(int).tolist() for middle in middles]
    cv2.line(mask, *ends, 1, max(int(wide / 14), 1))
    shade = rng.uniform(5, 60, 3) * np.linspace(0.3, 1.6, image.shape[0])[:, None, None]
    return mask > 0, np.broadcast_to(shade, image.shape)


def piece(image, landmarks, rng, other):
    """A part of another photograph's edges, which seldom show a face, with a ragged outline."""
    x1, y1, x2, y2 = box_of(landmarks)
    middle = np.array([rng.uniform(x1, x2), rng.uniform(y1, y2)])
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    reach = rng.uniform(0.15, 0.45, 9)[:, None] * (x2 - x1)
    outline = middle + reach * np.stack([np.cos(angles), np.sin(angles)], 1)
    other = np.roll(cv2.resize(other, image.shape[1::-1]), (image.shape[0] // 2, image.shape[1] // 2), (0, 1))
    return polygon(image.shape, outline), other


def cup(image, landmarks, rng, other):
    """A striped cup in front of the mouth, with light from one side."""
    mouth, wide = landmarks[48:].mean(0), np.ptp(landmarks[:, 0])
    mouth = mouth + rng.uniform(-0.15, 0.15, 2) * wide
    half, high = rng.uniform(0.18, 0.32) * wide, rng.uniform(0.35, 0.6) * wide
    corners = mouth + [(-half, -0.1 * wide), (half, -0.1 * wide), (0.8 * half, high), (-0.8 * half, high)]
    rows, columns = np.indices(image.shape[:2])
    light = 0.35 + 0.65 * np.clip((columns - mouth[0] + half) / (2 * half), 0, 1)
    stripes = np.where((rows // max(int(wide / 12), 1) % 2 > 0)[..., None], *rng.uniform(20, 250, (2, 3)))
    return polygon(image.shape, corners), stripes * light[..., None]


def bars(image, landmarks, rng, other):
    """Three bars across the face, as of a fence."""
    (x, y), wide, angle = landmarks.mean(0), np.ptp(landmarks[:, 0]), rng.uniform(0, np.pi)
    rows, columns = np.indices(image.shape[:2])
    off = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle) + rng.uniform(0, 0.4) * wide
    return off % (0.4 * wide) < 0.12 * wide, np.broadcast_to(rng.uniform(0, 255, 3), image.shape)


COVERS: dict[str, Cover] = {
    "mask of cloth": face_mask,
    "sunglasses": sunglasses,
    "piece of a photograph": piece,
    "cup": cup,
    "bars": bars,
}


def visible(*nets: str, split: str = "test", faces: int = 224) -> Iterator[dict]:
    """Yield the share of hidden landmarks, the average precision with which each net finds them, and their recall at 80 %
    precision, in %, of labelled photographs of which something covers a part.

    The covers are of no kind that is drawn in training. The face is in the labels' box; of 300W, lfpw/testset is used.
    """
    for name in there(*LABELLED):
        records = photographs(name, split)
        records = [record for record in records if name != "300W" or split != "test" or "lfpw" in str(record.file)]
        records = records[:: max(len(records) // faces, 1)][:faces]
        for title, net in titled(nets).items():
            landmarker = without_detector(net, name, threads=1)
            for kind, cover in COVERS.items():
                hidden, precision, recall = metric.hidden(*of_kind(landmarker, records, cover))
                figure = f"{100 * precision:.1f} / {100 * recall:.1f}"
                yield {"photographs": f"{name}, {kind}", "hidden": f"{100 * hidden:.1f}", title: figure}


def of_kind(landmarker: Landmarker, records: list[Photograph], cover: Cover) -> tuple[np.ndarray, np.ndarray]:
    """Return what a net says of the landmarks of covered faces, (M, N) probabilities, and the truth, 0 if covered."""
    rng, seen, truth = np.random.default_rng(0), [], []
    for record, beside in zip(records, records[1:] + records[:1], strict=True):
        image = read_image(record.file)
        mask, paint = cover(image, record.landmarks, rng, read_image(beside.file))
        image = np.where(mask[..., None], paint, image).astype(np.uint8)
        (face,) = landmarker.landmarks_of(image, box_of(record.landmarks)[None])
        x, y = record.landmarks.astype(int).T
        inside = (x >= 0) & (y >= 0) & (x < image.shape[1]) & (y < image.shape[0])
        truth.append(~(mask[y.clip(0, len(mask) - 1), x.clip(0, mask.shape[1] - 1)] | ~inside))
        seen.append(face.visible)
    return np.array(seen), np.array(truth, float)
