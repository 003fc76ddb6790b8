"""A `Change` carried out on pictures with OpenCV, crop by crop."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from pipnet.geometry import compose, opencv_matrix
from utils.data.changes import Change, covers, in_shape

LEVELS = np.arange(256)
STILL = -1  # instead of a flag: the crop is not warped


def middle(image: np.ndarray, side: int) -> np.ndarray:
    """Return the middle (side, side, 3) of a square picture."""
    edge = (len(image) - side) // 2
    return image[edge : edge + side, edge : edge + side]


def warps(change: Change) -> tuple[np.ndarray, np.ndarray]:
    """Return affines (B, 2, 3) from px of the middle with the side `change.seen` to px of the result, and OpenCV's
    flags (B,).
    """
    inner, outer = (
        np.array([[1.0, 0, edge], [0, 1, edge]])
        for edge in ((change.size - change.seen) // 2, (change.side - change.size) // 2)
    )
    still = (change.matrix == np.eye(2, 3)).all((1, 2))
    flags = cv2.INTER_LINEAR if change.interpolation is None else change.interpolation
    return compose(inner, change.matrix, outer), np.where(still, STILL, flags)


UNDISTORTED = (1.0, 0.0, 0.0, 1.0)  # see `Change.distort`


def pixels(crops: Sequence[np.ndarray], change: Change) -> np.ndarray:
    """Return changed copies (B, side, side, 3) uint8 of crops: B square pictures of one size, uint8 BGR."""
    out = np.empty((len(change.matrix), change.side, change.side, 3), np.uint8)
    if change.source is not None:
        crops = [framed(*pair, change.fill) for pair in zip(crops, change.source, strict=True)]
    whole, flags = warps(change)
    maps = opencv_matrix(whole)
    for row, (crop, image) in enumerate(zip(crops, out, strict=True)):
        crop = middle(crop, change.seen)
        if flags[row] == STILL:
            image[:] = middle(crop, change.side)
        else:  # OpenCV warps four channels in half the time of three, to the same values
            warped = cv2.warpAffine(
                cv2.cvtColor(crop, cv2.COLOR_BGR2BGRA),
                maps[row],
                image.shape[:2],
                flags=int(flags[row]),
                borderValue=(change.fill,) * 4,
            )
            cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR, dst=image)
    if change.hsv is not None:
        for row in np.flatnonzero((change.hsv != 1).any(1)).tolist():
            hue_saturation_value(out[row], change.hsv[row])
    if change.distort is not None:
        for row in np.flatnonzero((change.distort != UNDISTORTED).any(1)).tolist():
            distort(out[row], *change.distort[row].tolist())
    if change.light is not None:
        for row in np.flatnonzero((change.light[:, 1] != 1).any(1)).tolist():
            darken(out[row], *change.light[row])
    if change.gamma is not None:
        for image, table in zip(
            out, np.rint(255 * (LEVELS / 255) ** change.gamma[:, None]).astype(np.uint8), strict=True
        ):
            cv2.LUT(image, table, dst=image)
    if change.colour is not None:
        for row in np.flatnonzero((change.colour != np.eye(3, 4)).any((1, 2))).tolist():
            cv2.transform(out[row], change.colour[row], dst=out[row])
    if change.blur is not None:
        for row in np.flatnonzero(change.blur > 0.1).tolist():
            cv2.GaussianBlur(out[row], (0, 0), float(change.blur[row]), dst=out[row])
    if change.grain is not None:
        for row in np.flatnonzero(change.grain[:, 0] > 0).tolist():
            add_noise(out[row], *change.grain[row].tolist())
    if change.jitter is not None:
        for row in np.flatnonzero(change.jitter[:, 0] > 0).tolist():
            add_uniform_noise(out[row], *change.jitter[row].tolist())
    if change.box is not None and change.shade is not None:
        for image, (x, y, width, height), shade in zip(out, change.box.tolist(), change.shade, strict=True):
            image[y : y + height, x : x + width] = shade
    if change.shape is not None and change.shade is not None and change.texture is not None:
        for row in np.flatnonzero(covers(change.shape)).tolist():
            cover(out[row], change.shape[row], change.shade[row], change.texture[row])
    return out


def hue_saturation_value(image: np.ndarray, factors: np.ndarray) -> None:
    """Multiply hue, saturation and value of an image, in place."""
    _change_hsv(image, LEVELS[:, None] * factors)


def _change_hsv(image: np.ndarray, levels: np.ndarray) -> None:
    """Give each level of hue, saturation and value of an image the new one in `levels` (256, 3), in place."""
    levels[:, 0] %= 180  # OpenCV's hue has steps of two degrees
    table = np.minimum(levels, 255).astype(np.uint8)[None]
    cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), table), cv2.COLOR_HSV2BGR, dst=image)


def distort(image: np.ndarray, contrast: float, brightness: float, hue: float, saturation: float) -> None:
    """Change contrast about the mean colour, brightness by grey levels, OpenCV's hue and saturation of an image, in place.
    After each, levels are clipped and rounded down, as in Peppa's Slim.
    """
    mean = image.reshape(-1, 3).mean(0)
    levels = np.clip((LEVELS[:, None] - mean) * contrast + mean, 0, 255).astype(np.uint8)
    cv2.LUT(image, np.clip(levels + brightness, 0, 255).astype(np.uint8)[None], dst=image)
    _change_hsv(image, LEVELS[:, None] * (1, saturation, 1) + (hue, 0, 0))


def darken(image: np.ndarray, depth: np.ndarray, light: np.ndarray) -> None:
    """Lay a shadow over an image, in place; depth, light (3,): see `Change.light`."""
    place = np.arange(len(image), dtype=np.float32) + np.float32(0.5)
    across, down = (np.float32(depth[0]) * place + np.float32(depth[2]))[None], (np.float32(depth[1]) * place)[:, None]
    share = np.clip(across + down, 0, 1)[..., None]
    image[:] = np.rint(image * (1 + share * (light - 1).astype(np.float32)))


def cover(image: np.ndarray, shape: np.ndarray, shade: np.ndarray, texture: float) -> None:
    """Draw a shape over an image, in place; see `Change.shape`, `Change.shade` and `Change.texture`."""
    place = np.arange(len(image)) + 0.5
    inside = in_shape(shape[None], *(part.reshape(1, -1) for part in np.meshgrid(place, place))).reshape(
        image.shape[:2]
    )
    paint = (1 - texture) * shade + texture * image[::-1]
    image[inside] = np.rint(paint[inside])


def add_noise(image: np.ndarray, sigma: float, grain: float, seed: float) -> None:
    """Add Gaussian noise to an image (H, W, 3), in place. sigma: in grey levels; grain: px, size of the noise's grains."""
    cv2.setRNGSeed(int(seed))  # OpenCV's generator is thread-local and ten times as fast as numpy's
    height, width = image.shape[:2]
    grains = np.empty((math.ceil(height / grain), math.ceil(width / grain), 3), np.int16)
    noise = cv2.randn(grains, np.zeros(3), np.full(3, sigma))
    cv2.add(image, cv2.resize(noise, (width, height)), dst=image, dtype=cv2.CV_8U)


def add_uniform_noise(image: np.ndarray, reach: float, seed: float) -> None:
    """Add noise that is uniform in +- `reach` grey levels to an image (H, W, 3), in place. Levels are rounded down."""
    cv2.setRNGSeed(int(seed))
    noise = cv2.randu(np.empty(image.shape, np.float32), np.full(3, -reach), np.full(3, reach))
    cv2.add(image, np.floor(noise), dst=image, dtype=cv2.CV_8U)


def framed(crop: np.ndarray, source: np.ndarray, fill: int) -> np.ndarray:
    """Return a crop with the grey level `fill` outside of the source image.
    source: its x1, y1, x2, y2 in px of the crop.
    """
    left, top, right, bottom = np.clip(source, 0, len(crop)).round().astype(int)
    if (left, top, right, bottom) == (0, 0, len(crop), len(crop)):
        return crop
    image = np.full_like(crop, fill)
    image[top:bottom, left:right] = crop[top:bottom, left:right]
    return image


def sharpness(grey: np.ndarray) -> float:
    """Return the variance of the Laplacian of a grey picture, in squared grey levels."""
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())
