"""Boxes, crops and affine maps: the only code that knows how image pixels and crop coordinates correspond.

Image pixels are continuous coordinates: pixel i covers [i, i + 1) and its centre is i + 0.5. The crop frame is [0, 1] x [0, 1]
over the nominal crop box. Matrices are (2, 3) and map continuous coordinates to continuous coordinates; `opencv_matrix` moves
them to OpenCV's frame, whose integers are pixel centres, as late as possible.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from pipnet.errors import UserError


class Protocol(NamedTuple):
    """How a crop is made from a face box: values only, one row of args.yaml."""

    scale_x: float  # crop width / box width
    scale_y: float  # crop height / box height
    shift_y: float  # the crop's centre moves down by this fraction of the box height
    square: str     # no | max | min: both sides become the longer or the shorter one
    border: str     # clip: the crop ends at the image; zero: black outside the crop; real: the picture goes on round the crop
    rounding: str   # int: whole pixels, as the published 300W preparation; float


CHOICES = {"square": ("no", "max", "min"), "border": ("clip", "zero", "real"), "rounding": ("int", "float")}


def check_protocol(protocol: Protocol) -> Protocol:
    """The same protocol; UserError when a word is none of its choices or a scale is not positive."""
    for key, choices in CHOICES.items():
        if getattr(protocol, key) not in choices:
            raise UserError(f"protocol: {key} is '{getattr(protocol, key)}'; choose one of {', '.join(choices)}")
    scales = (protocol.scale_x, protocol.scale_y)
    if not (min(scales) > 0 and math.isfinite(sum(scales) + protocol.shift_y)):
        raise UserError(f"protocol: scale_x, scale_y {scales} must be above 0, and they and shift_y {protocol.shift_y} finite")
    return protocol


def box_of(landmarks: np.ndarray) -> np.ndarray:
    """Tight box (..., 4) = x1, y1, x2, y2 of landmarks (..., N, 2) in their own frame; NaN points are left out."""
    if not np.isfinite(landmarks).all(axis=-1).any(axis=-1).all():
        raise UserError("a face without any landmark has no box; give it a box or leave it out")
    return np.concatenate([np.nanmin(landmarks, axis=-2), np.nanmax(landmarks, axis=-2)], axis=-1)


def crop_box(box: np.ndarray, protocol: Protocol, width: int, height: int) -> np.ndarray:
    """Nominal crop (4,) float64 of a face box (4,), both in image px, in an image of width x height.

    With rounding `int` and border `clip` this is the published 300W preparation of PIPNet (Jin et al., IJCV 2021) to the pixel:
    the box in whole pixels is grown, then its corner moved into the image with its size kept, then its size cut. With `float`
    each side is clipped by itself, as for WFLW there; both stop one pixel before the image's far sides.
    UserError: a box that is empty, not finite, or leaves nothing of the crop inside the image.
    """
    edges, limit = np.asarray(box, dtype=np.float64), np.array([width, height], dtype=np.float64) - 1
    whole = np.trunc if protocol.rounding == "int" else np.asarray
    if protocol.rounding == "int":
        edges = np.trunc(edges + 0.5)  # the published code truncates 1-based landmarks, half a pixel from continuous ones
    low, side = edges[:2], edges[2:] - edges[:2]
    grown = whole(side * (protocol.scale_x, protocol.scale_y))
    if protocol.square != "no":
        grown = np.full(2, grown.max() if protocol.square == "max" else grown.min())
    low = low - whole((grown - side) / 2) + (0, float(whole(protocol.shift_y * side[1])))
    high = low + grown
    if protocol.border == "clip":
        low, high = np.maximum(low, 0), np.minimum(high, limit)
        if protocol.rounding == "int":
            high = np.minimum(low + grown, limit)
    crop = np.concatenate([low, high])
    if not (np.isfinite(crop).all() and (high - low >= 1e-3).all()):
        sides = ", ".join(f"{value:.2f}" for value in box)
        raise UserError(f"box ({sides}) leaves no crop in an image of {width} x {height} px")
    return crop


def to_crop(points, crop):
    """Points (..., N, 2) from image px to the crop frame [0, 1] of crop (..., 4) in image px; numpy or torch."""
    corner = crop[..., None, :2]
    return (points - corner) / (crop[..., None, 2:] - corner)


def to_image(points, crop):
    """Points (..., N, 2) from the crop frame [0, 1] of crop (..., 4) to image px; the inverse of `to_crop`; numpy or torch."""
    corner = crop[..., None, :2]
    return points * (crop[..., None, 2:] - corner) + corner


def grow(crop: np.ndarray, factor: float) -> np.ndarray:
    """Crop (..., 4) scaled by factor about its centre, same frame."""
    centre, half = (crop[..., :2] + crop[..., 2:]) / 2, (crop[..., 2:] - crop[..., :2]) * (factor / 2)
    return np.concatenate([centre - half, centre + half], axis=-1)


def border_px(size: int, margin: float) -> int:
    """px of margin on each side of a nominal crop of `size` px, stored or seen `margin` times as large."""
    return round(size * (margin - 1) / 2)


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(M, K) intersection over union of boxes (M, 4) with others (K, 4), same frame."""
    low, high = np.maximum(boxes[:, None, :2], others[:, :2]), np.minimum(boxes[:, None, 2:], others[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    area, other = (np.prod(part[:, 2:] - part[:, :2], axis=1) for part in (boxes, others))
    return shared / np.maximum(area[:, None] + other - shared, 1e-9)


def crop_matrix(crop: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """(2, 3) map from image px to the px of the crop (4,) drawn at size (or width, height); both continuous."""
    scale = np.broadcast_to(np.asarray(size, dtype=np.float64), 2) / (crop[2:] - crop[:2])
    return np.column_stack([np.diag(scale), -crop[:2] * scale])


def opencv_matrix(matrix: np.ndarray) -> np.ndarray:
    """The same (2, 3) map for cv2.warpAffine, where integers are pixel centres: half a pixel off on both ends."""
    shifted = np.array(matrix, dtype=np.float64)
    shifted[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    return shifted


def compose(*matrices: np.ndarray) -> np.ndarray:
    """One (2, 3) map that applies the given ones in order: the first argument acts first."""
    whole = np.eye(3)
    for matrix in matrices:
        whole = np.vstack([matrix, (0, 0, 1)]) @ whole
    return whole[:2]


def invert(matrix: np.ndarray) -> np.ndarray:
    """The (2, 3) inverse of a (2, 3) map; UserError when it is singular."""
    if abs(np.linalg.det(matrix[:, :2])) < 1e-12:
        raise UserError("an affine map that squeezes the image flat has no inverse")
    return np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))[:2]


def transform(points, matrix):
    """Points (..., N, 2) through matrix (..., 2, 3), both in the matrix's continuous frames; numpy or torch."""
    return points @ matrix[..., :2].swapaxes(-1, -2) + matrix[..., None, :, 2]


def similarity(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """(2, 3) map of scale, rotation and shift that takes points (M, 2) nearest `onto` (M, 2); M >= 2, not all one point."""
    here, there = points - points.mean(0), onto - onto.mean(0)
    a, b = (here * there).sum(), (here[:, 0] * there[:, 1] - here[:, 1] * there[:, 0]).sum()
    turn = np.array([[a, -b], [b, a]]) / (here ** 2).sum()
    return np.column_stack([turn, onto.mean(0) - turn @ points.mean(0)])


def cut(image: np.ndarray, crop: np.ndarray, size: int, margin: float = 1.0, border: str = "real") -> np.ndarray:
    """Crop (S, S, 3) uint8, S = round(size * margin), of image (H, W, 3) uint8: the crop box (4,) in image px grown by margin.

    The nominal crop is exactly the middle size x size px of the result, (S - size) / 2 px from each side.
    Outside the image is black; with border `zero` the margin outside the nominal crop is black as well. Bilinear where the
    picture is enlarged; where it shrinks, the mean of at least one sample a source pixel, so nothing aliases.
    """
    side = round(size * margin)
    wide = grow(np.asarray(crop, dtype=np.float64), side / size)
    if max(image.shape[:2]) >= 2 ** 15:  # more than warpAffine can address
        low = np.maximum(np.floor(wide[:2]).astype(int) - 2, 0)
        image = image[low[1]:math.ceil(wide[3]) + 2, low[0]:math.ceil(wide[2]) + 2]
        wide = wide - np.tile(low, 2)
    times = np.maximum(np.ceil((wide[2:] - wide[:2]) / side - 1e-9), 1).astype(int)  # samples a pixel of the result, x and y
    matrix = opencv_matrix(crop_matrix(wide, (side * times[0], side * times[1])))
    result = cv2.warpAffine(image, matrix, (side * int(times[0]), side * int(times[1])), flags=cv2.INTER_LINEAR,
                            borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0))
    if times.max() > 1:
        result = cv2.resize(result, (side, side), interpolation=cv2.INTER_AREA)
    if border == "zero":
        inner = (side - size) // 2
        result[:inner], result[side - inner:], result[:, :inner], result[:, side - inner:] = 0, 0, 0, 0
    return result
