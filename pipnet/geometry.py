"""Boxes, crops and affine maps: the only code that knows how image pixels and crop coordinates correspond.

Image pixels are continuous coordinates: pixel i covers [i, i + 1) and its centre is i + 0.5. The crop frame is [0, 1] x
[0, 1] over the nominal crop box. Matrices are (2, 3) and map continuous coordinates to continuous coordinates; only
`opencv_matrix` converts them to OpenCV's frame, where integers are pixel centres.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np

from pipnet.errors import UserError

FEW_BYTES = 2**20  # bytes; below it, a fourth channel takes less time than warping four instead of three saves
# px, longest side of a crop that is sampled at every px; for a larger one the picture is shrunk first
MOST_SAMPLES = 2**13
LARGEST = 1e7  # px; a box whose crop is larger is refused
Array = TypeVar("Array", bound=Any)  # of numpy or torch


class Protocol(NamedTuple):
    """How a crop is made from a face box: a row of `protocols` in args.yaml."""

    scale_x: float  # crop width / box width
    scale_y: float  # crop height / box height
    shift_y: float  # the crop's centre moves down by this fraction of the box height
    square: str  # no | max | min: both sides become the longer or the shorter one
    border: str  # clip: the crop ends where the image ends; zero: black outside the crop; real: image outside the crop
    rounding: str  # int: whole px, as in the published 300W preparation; floor: as in Peppa's Slim; demo: as in PIPNet's; float

    @property
    def inner(self) -> bool:
        """Return whether the protocol is for boxes of eyes, nose and mouth only: its crop is almost twice the box."""
        return min(self.scale_x, self.scale_y) >= 1.8


CHOICES = {
    "square": ("no", "max", "min"),
    "border": ("clip", "zero", "real"),
    "rounding": ("int", "floor", "demo", "float"),
}


BOX_REACH = 0.5  # share of its sides; a landmark that is further outside its box is an error of the label or the box


def box_of(landmarks: np.ndarray) -> np.ndarray:
    """Return the tight box (..., 4) x1, y1, x2, y2 of landmarks (..., N, 2), same frame.
    Landmarks that are NaN are ignored.

    UserError if all are NaN.
    """
    known = np.isfinite(landmarks)
    if not known.all() and not known.all(axis=-1).any(axis=-1).all():
        raise UserError("a face without any landmark has no box; give it a box or leave it out")
    return np.concatenate([np.fmin.reduce(landmarks, axis=-2), np.fmax.reduce(landmarks, axis=-2)], axis=-1)


def far_outside(landmarks: np.ndarray, box: np.ndarray, reach: float) -> np.ndarray:
    """Return whether each landmark (..., N, 2) lies outside its box (..., 4) by more than `reach` times the box's side,
    same frame. NaN does not.
    """
    box = box[..., None, :]
    margin = (box[..., 2:] - box[..., :2]) * reach
    far: np.ndarray = np.any((landmarks < box[..., :2] - margin) | (landmarks > box[..., 2:] + margin), -1)
    return far


def crop_box(box: np.ndarray, protocol: Protocol, width: int, height: int, angle: float = 0.0) -> np.ndarray:
    """Return the nominal crop (4,) float64 of a face box (4,), both in image px, in an image of width x height.

    angle: radians by which the box and the crop are turned clockwise, each about its own centre; such a crop is never
    clipped.

    Two kinds of crops are those of PIPNet's published preparation (Jin et al., IJCV 2021). For 300W (rounding `int`,
    border `clip`), the box in whole pixels is enlarged, its corner is moved into the image without changing its size,
    then its size is cut. For WFLW (`float` and `clip`), each side is clipped by itself. Both stop one pixel before the
    image's right and lower edge. The crops of Peppa's Slim (`floor` and `clip`) are made from the box in whole pixels:
    its centre and half the crop's sides are rounded down, then each side is clipped by itself, at the image's edge. PIPNet's
    demo (`demo`) moves the sides of the box in whole pixels by whole pixels, and leaves the last row and column out.

    UserError for a box that is empty, not finite or huge, or whose clipped crop is empty.
    """
    edges = [float(edge) for edge in box]  # plain numbers: for four of them numpy takes ten times as long
    crop = _crop_of(edges, protocol, width, height, angle) if all(map(math.isfinite, edges)) else np.zeros(4)
    left, top, right, bottom = crop.tolist()
    if not (1e-3 <= right - left < LARGEST and 1e-3 <= bottom - top < LARGEST):
        sides = ", ".join(f"{value:.2f}" for value in edges)
        raise UserError(f"box ({sides}) leaves no crop in an image of {width} x {height} px")
    return crop


def _crop_of(edges: list[float], protocol: Protocol, width: int, height: int, angle: float) -> np.ndarray:
    """Return the crop (4,) of a finite box, see `crop_box`. The crop may be empty."""
    floors, demo = protocol.rounding == "floor", protocol.rounding == "demo"
    whole = float if protocol.rounding == "float" else math.trunc
    if protocol.rounding == "int":
        # the published code truncates 1-based landmarks, which are 0.5 larger
        edges = [whole(edge + 0.5) for edge in edges]
    elif floors or demo:
        edges = [whole(edge) for edge in edges]
    x, y, wide, high = edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1]
    grown_x, grown_y = wide * protocol.scale_x, high * protocol.scale_y
    if demo:  # the published code takes half of (scale - 1), which decides where a side is a multiple of ten px
        grown_x, grown_y = (
            side + 2 * whole(side * (scale - 1) / 2)
            for side, scale in ((wide, protocol.scale_x), (high, protocol.scale_y))
        )
    else:
        grown_x, grown_y = (2 * (side // 2) if floors else whole(side) for side in (grown_x, grown_y))
    if protocol.square != "no":
        grown_x = grown_y = (max if protocol.square == "max" else min)(grown_x, grown_y)
    if floors:
        x, y = (edges[0] + edges[2]) // 2 - grown_x / 2, (edges[1] + edges[3]) // 2 - grown_y / 2
    else:
        x, y = x - whole((grown_x - wide) / 2), y - whole((grown_y - high) / 2)
    y += whole((1 + 2 * protocol.shift_y - 1) / 2 * high if demo else protocol.shift_y * high)
    crop = np.array([x, y, x + grown_x - demo, y + grown_y - demo], np.float64)
    if angle:
        return carry(crop, turn_about(np.array([edges[0] + edges[2], edges[1] + edges[3]]) / 2, angle))
    if protocol.border == "clip":
        low, limit = np.maximum(crop[:2], 0), np.array([width, height], np.float64) - (not floors)
        end = low + (grown_x, grown_y) if protocol.rounding == "int" else crop[2:]
        return np.concatenate([low, np.minimum(end, limit)])
    return crop


def to_crop(points: Any, crop: Any) -> Any:
    """Return points (..., N, 2) in image px as points in the frame [0, 1] of a crop (..., 4) in image px; numpy or
    torch.
    """
    corner = crop[..., None, :2]
    return (points - corner) / (crop[..., None, 2:] - corner)


def to_image(points: Any, crop: Any) -> Any:
    """Return points (..., N, 2) in the frame [0, 1] of a crop (..., 4) as points in image px: the inverse of `to_crop`."""
    corner = crop[..., None, :2]
    return points * (crop[..., None, 2:] - corner) + corner


def box_of_crop(centre: np.ndarray, side: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Return the box (..., 4) from which `protocol` makes the crop with this centre (..., 2) and side, (2,) or (...,
    1).

    All are in one frame. It is the inverse of `crop_box` where that does not round.
    """
    half = side / (2 * np.array([protocol.scale_x, protocol.scale_y]))
    centre = centre - side * np.array([0, protocol.shift_y / protocol.scale_y])
    return np.concatenate([centre - half, centre + half], -1)


def grow(crop: np.ndarray, factor: float) -> np.ndarray:
    """Return a crop (..., 4) scaled about its centre, same frame."""
    centre, half = (crop[..., :2] + crop[..., 2:]) / 2, (crop[..., 2:] - crop[..., :2]) * (factor / 2)
    return np.concatenate([centre - half, centre + half], axis=-1)


def border_px(size: int, margin: float) -> int:
    """Return the border in px on each side of a nominal crop of `size` px that is stored `margin` times as large."""
    return round(size * (margin - 1) / 2)


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union (M, K) of boxes (M, 4) with others (K, 4), same frame."""
    common = _common(boxes, others)
    area, other = (np.prod(part[:, 2:] - part[:, :2], axis=1) for part in (boxes, others))
    overlap: np.ndarray = common / np.maximum(area[:, None] + other - common, 1e-9)
    return overlap


def shared(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the share (M, K) of each box (M, 4) that lies in others (K, 4), same frame."""
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    share: np.ndarray = _common(boxes, others) / np.maximum(area[:, None], 1e-9)
    return share


def greedy_nms(covers: np.ndarray) -> list[int]:
    """Return the indices that greedy non-maximum suppression keeps. The boxes are in order, best first.

    covers (M, M) bool: whether two boxes count as one. A box is kept unless a better one that is kept counts as the
    same.
    """
    kept: list[int] = []
    for index, row in enumerate(covers):
        if not row[kept].any():
            kept.append(index)
    return kept


def _common(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the area (M, K) that boxes (M, 4) and others (K, 4) have in common."""
    low, high = np.maximum(boxes[:, None, :2], others[:, :2]), np.minimum(boxes[:, None, 2:], others[:, 2:])
    area: np.ndarray = np.prod(np.maximum(high - low, 0), axis=2)
    return area


def crop_matrix(crop: np.ndarray, size: int | tuple[int, int], angle: float = 0.0) -> np.ndarray:
    """Return the map (2, 3) from image px to px of a crop (4,) that is resized to `size` px, or to (width, height).

    Both frames are continuous. angle: radians by which the crop is turned clockwise about its centre.
    """
    (left, top, right, bottom), (width, height) = crop.tolist(), size if isinstance(size, tuple) else (size, size)
    across, down = width / (right - left), height / (bottom - top)
    matrix = np.array([[across, 0, -left * across], [0, down, -top * down]])
    return compose(turn_about((crop[:2] + crop[2:]) / 2, -angle), matrix) if angle else matrix


def opencv_matrix(matrix: np.ndarray) -> np.ndarray:
    """Return continuous maps (..., 2, 3) as cv2.warpAffine takes them: there, integers are pixel centres."""
    shifted = np.array(matrix, dtype=np.float64)
    shifted[..., 2] += matrix[..., :2] @ (0.5, 0.5) - 0.5
    return shifted


def compose(*matrices: np.ndarray) -> np.ndarray:
    """Return the map (..., 2, 3) that does what these maps do one after another, the first one first."""
    whole = np.eye(3)
    for matrix in matrices:
        whole = _square(matrix) @ whole
    return whole[..., :2, :]


def invert(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse of maps (..., 2, 3). UserError for a singular one."""
    if (np.abs(np.linalg.det(matrix[..., :2])) < 1e-12).any():
        raise UserError("a singular affine map has no inverse; use one with a scale other than 0")
    return np.linalg.inv(_square(matrix))[..., :2, :]


def _square(matrix: np.ndarray) -> np.ndarray:
    """Return maps (..., 2, 3) with the row (0, 0, 1)."""
    return np.concatenate([matrix, np.broadcast_to((0.0, 0.0, 1.0), (*matrix.shape[:-2], 1, 3))], -2)


def turn_about(centre: np.ndarray, angle: float, zoom: float = 1.0) -> np.ndarray:
    """Return the map (2, 3) that turns clockwise by `angle` radians and scales by `zoom`, about the point `centre`
    (2,).
    """
    cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, centre - turn @ centre])


def carry(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return boxes (..., 4) whose centres are mapped by `matrix` (2, 3), with the same sides."""
    centre = (boxes[..., None, :2] + boxes[..., None, 2:]) / 2
    moved: np.ndarray = boxes + np.tile((transform(centre, matrix) - centre)[..., 0, :], 2)
    return moved


def turned_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the tight boxes (M, 4) of ellipses that filled the boxes (M, 4) before a similarity (2, 3) moved them."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    centre, half = transform(centre, matrix), np.sqrt(half**2 @ (matrix[:, :2] ** 2).T)
    return np.concatenate([centre - half, centre + half], 1)


def upright_boxes(boxes: np.ndarray) -> np.ndarray:
    """Return the tight boxes (M, 4) of ellipses that fill the boxes (M, 5) turned clockwise by the fifth value, degrees."""
    tight = boxes[:, :4].copy()
    for row in np.flatnonzero(boxes[:, 4]):
        centre = (boxes[row, :2] + boxes[row, 2:4]) / 2
        tight[row] = turned_boxes(tight[row : row + 1], turn_about(centre, np.radians(boxes[row, 4])))[0]
    return tight


def transform(points: Array, matrix: Any) -> Array:
    """Return points (..., N, 2) mapped by `matrix` (..., 2, 3), in continuous coordinates; numpy or torch."""
    moved: Array = points @ matrix[..., :2].swapaxes(-1, -2) + matrix[..., None, :, 2]
    return moved


def mirrored(points: np.ndarray, flip_index: Sequence[int], width: float) -> np.ndarray:
    """Return where points (N, 2) are in the mirror image of a picture of that width, px; flip_index: see `Layout`."""
    return (points * (-1, 1) + (width, 0))[list(flip_index)]


def similarity(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Return the least-squares similarities (..., 2, 3) from points (..., M, 2) to `onto` (..., M, 2).

    There must be at least two different points.
    """
    centre, goal = points.mean(-2, keepdims=True), onto.mean(-2, keepdims=True)
    source, target = points - centre, onto - goal
    a = (source * target).sum((-2, -1))
    b = (source[..., 0] * target[..., 1] - source[..., 1] * target[..., 0]).sum(-1)
    turn = np.stack([a, -b, b, a], -1).reshape(*a.shape, 2, 2) / (source**2).sum((-2, -1))[..., None, None]
    return np.concatenate([turn, (goal - centre @ turn.swapaxes(-1, -2)).swapaxes(-1, -2)], -1)


def turn_picture(image: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the whole image (H, W, 3), turned clockwise by `angle` radians on black, and the map (2, 3) from its px
    before.
    """
    height, width = image.shape[:2]
    matrix, size = turned_frame(width, height, angle)
    return cv2.warpAffine(image, opencv_matrix(matrix), size, flags=cv2.INTER_LINEAR), matrix


def turned_frame(width: int, height: int, angle: float) -> tuple[np.ndarray, list[int]]:
    """Return the map (2, 3) of `turn_picture` for an image of width x height, and [width, height] of its result."""
    matrix = turn_about(np.array([width, height]) / 2, angle)
    corners = transform(np.array([(0, 0), (width, 0), (0, height), (width, height)], np.float64), matrix)
    matrix[:, 2] -= corners.min(0)
    return matrix, np.ceil(np.ptp(corners, axis=0) - 1e-6).astype(int).tolist()


def _shrunk(image: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the image (H, W, 3), resized by about this factor below 1, and the map (2, 3) from its px to those of
    `image`.
    """
    sides = np.array(image.shape[1::-1])
    fewer = np.maximum(np.round(factor * sides), 1).astype(int)
    back = np.column_stack([np.diag(sides / fewer), np.zeros(2)])
    return cv2.resize(image, fewer.tolist(), interpolation=cv2.INTER_AREA), back


def cut(
    image: np.ndarray,
    crop: np.ndarray,
    size: int,
    margin: float = 1.0,
    border: str = "real",
    angle: float = 0.0,
    halve: bool = False,
) -> np.ndarray:
    """Return a crop (4,), image px, with its margin: uint8 (S, S, 3), S = round(size * margin), cut out of an image (H,
    W, 3).

    The nominal crop is exactly the middle size x size px of the result. Pixels outside the image are black; with border
    `zero` also those outside the nominal crop. Enlarging is bilinear. Shrinking averages at least one sample per source
    pixel, so that nothing aliases; a crop beyond MOST_SAMPLES is sampled more coarsely. angle: radians by which the
    crop is turned clockwise about its centre. halve: shrink a large crop by means of four px first, which takes a third
    of the time.
    """
    side = round(size * margin)
    wide = grow(np.asarray(crop, dtype=np.float64), side / size)
    extent = (wide[2:] - wide[:2]).tolist()
    halvings = int(math.log2(max(min(extent) / side, 1))) if halve else 0
    # warpAffine cannot address all of a huge picture: cut out what is needed first
    if max(image.shape[:2]) >= 2**15 or max(extent) > MOST_SAMPLES or halvings:
        needed = grow(wide, 1.5) if angle else wide  # a turned square lies within one of sqrt(2) times its side
        low, high = (np.maximum(edge, 0).astype(int) for edge in (np.floor(needed[:2]) - 2, np.ceil(needed[2:]) + 2))
        image, wide = image[low[1] : high[1], low[0] : high[0]], wide - np.tile(low, 2)
        if not image.size:
            return np.zeros((side, side, 3), np.uint8)
    for _ in range(halvings if min(image.shape[:2]) >= 2**halvings else 0):
        image, wide = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_LINEAR), wide / 2
        extent = [length / 2 for length in extent]
    shrink = min(MOST_SAMPLES / max(extent), 1)
    times = [max(math.ceil(shrink * length / side - 1e-9), 1) for length in extent]  # samples per pixel, x and y
    samples = (side * times[0], side * times[1])
    matrix = crop_matrix(wide, samples, angle)
    if shrink < 1:
        image, back = _shrunk(image, shrink)
        matrix = compose(back, matrix)
    matrix = opencv_matrix(matrix)
    # OpenCV warps four channels in half the time of three, to the same values; but adding one to a large picture takes
    # longer
    fast = image.size < FEW_BYTES
    result = cv2.warpAffine(
        cv2.cvtColor(image, cv2.COLOR_BGR2BGRA) if fast else image,
        matrix,
        samples,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0),
    )
    if max(times) > 1:
        result = cv2.resize(result, (side, side), interpolation=cv2.INTER_AREA)
    if fast:
        result = cv2.cvtColor(result, cv2.COLOR_BGRA2BGR)
    if border == "zero":
        inner = (side - size) // 2
        result[:inner], result[side - inner :], result[:, :inner], result[:, side - inner :] = 0, 0, 0, 0
    return result
