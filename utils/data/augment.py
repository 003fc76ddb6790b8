"""Augmentation of a crop: one warp in pixels, then colour, blur, noise and occlusion, drawn from a keyed generator.

All random numbers are drawn even for options that are off, so that one option never changes the draws of another. `recipe` is
the section `augment` of the settings.
"""
from typing import NamedTuple

import cv2
import numpy as np

from pipnet.geometry import compose, opencv_matrix, transform, turn_about
from pipnet.pose import turn_pose

LUMA = np.array([0.114, 0.587, 0.299])  # weights of blue, green, red


def generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """Return the generator of one sample in one epoch, which depends on no process, order or number of ranks."""
    return np.random.default_rng((seed, epoch, sample))


def affine(rng: np.random.Generator, recipe, size: int) -> tuple[np.ndarray, bool]:
    """Return a random affine (2, 3) from px of the nominal crop to px of the result, both `size` px, and whether it mirrors."""
    angle, zoom, dx, dy = rng.uniform(-1, 1, 4)
    mirror, turn, move = rng.random(3)
    if turn >= 1 - recipe.roll_prob:
        reach = 180.0
    else:
        reach = recipe.rotation * (turn < recipe.rotation_prob * (1 - recipe.roll_prob))
    shift = np.array([dx, dy]) * recipe.translation * size * (move < recipe.translation_prob)
    if recipe.interpolation == "nearest":
        shift = np.trunc(shift)  # the published recipe shifts by whole px
    matrix = turn_about(np.full(2, size / 2), np.radians(reach) * angle, 1 + recipe.scale * zoom)
    matrix[:, 2] += shift
    mirrors = bool(mirror < recipe.flip)
    return (compose(matrix, np.array([[-1.0, 0, size], [0, 1, 0]])) if mirrors else matrix), mirrors


def colour_matrix(rng: np.random.Generator, recipe) -> np.ndarray | None:
    """Return a random affine of BGR (3, 4): brightness, contrast, saturation, hue, grayscale, infrared; None for no change."""
    strengths = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
    brightness, contrast, saturation, hue = rng.uniform(-1, 1, 4) * strengths
    jitter, gray, infrared = rng.random(3) < (recipe.colour_prob, recipe.grayscale, recipe.infrared)
    lift = rng.integers(10, 90)
    matrix = np.eye(3, 4)
    if jitter:
        mean = np.outer(np.ones(3), LUMA)
        axis = np.full((3, 3), 1 / 3)  # hue rotates colours about the gray axis
        cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
        turn = axis + np.cos(2 * np.pi * hue) * (np.eye(3) - axis) + np.sin(2 * np.pi * hue) * cross
        linear = (1 + contrast) * (mean + (1 + saturation) * (np.eye(3) - mean)) @ turn
        offset = 255 * brightness - 128 * contrast  # contrast keeps mid-gray
        matrix = np.column_stack([linear, np.full(3, offset)])
    if infrared:
        matrix = np.array([[1.0, 0, 0]] * 3) @ matrix + np.array([0, 0, 0, lift])
    if gray:
        matrix = np.outer(np.ones(3), LUMA) @ matrix
    return matrix if jitter or gray or infrared else None


def photometric(image: np.ndarray, rng: np.random.Generator, recipe) -> np.ndarray:
    """Return a crop (S, S, 3) uint8 with random colour, blur, noise and one occluding rectangle."""
    size = len(image)
    matrix = colour_matrix(rng, recipe)
    blurs, noisy, covered = rng.random(3) < (recipe.blur, recipe.noise, recipe.occlusion)
    sigma, grain = rng.uniform(0.05, 1) * recipe.blur_sigma * size / 256, rng.random() * recipe.noise_sigma
    sides = (rng.random(2) * recipe.occlusion_size * size).astype(int) + 1
    x, y = (rng.random(2) * (size - sides)).astype(int)
    colour, seed = rng.integers(0, 256, 3).tolist(), int(rng.integers(1 << 31))
    if matrix is not None:
        image = cv2.transform(image, matrix)
    if blurs and sigma > 0.1:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    if noisy:
        cv2.setRNGSeed(seed)  # OpenCV's generator is thread-local and ten times as fast as numpy's
        image = cv2.add(image, cv2.randn(np.empty(image.shape, np.int16), 0, grain), dtype=cv2.CV_8U)
    if covered:
        image = image.copy()
        image[y:y + sides[1], x:x + sides[0]] = colour
    return image


class Crop(NamedTuple):
    """A stored crop and its labels, before augmentation."""
    stored: np.ndarray        # (S, S, 3) uint8, S >= size: the nominal crop in the middle, real pixels round it
    landmarks: np.ndarray     # (N, 2) in [0, 1] of the nominal crop
    weight: np.ndarray        # (N,)
    size: int                 # px of the nominal crop
    margin: int = 0           # px that the net sees on each side of the nominal crop
    label_shift: float = 0.0  # share of the crop by which the labels lie to the right of what they mark


def augment(crop: Crop, recipe, flip_index, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return image (size + 2 margin, ..., 3) uint8, landmarks (N, 2) in [0, 1] of its nominal crop, weight (N,), affine (2, 3).

    Landmarks outside the crop keep their true place. The affine maps px of the nominal crop to px of the result; its
    determinant is negative for a mirrored crop. Labels keep their `label_shift` to the right in a mirrored crop too; a net
    could not learn a shift that changes sides.
    """
    stored, size, margin = crop.stored, crop.size, crop.margin
    border = (len(stored) - size) / 2
    if recipe.fill == "black":  # black beyond what the net sees, as in tests
        edge = round(border) - margin
        stored, border = stored[edge:len(stored) - edge, edge:len(stored) - edge], margin
    matrix, mirror = affine(rng, recipe, size)
    inner, widen = np.array([[1.0, 0, -border], [0, 1, -border]]), np.array([[1.0, 0, margin], [0, 1, margin]])
    warp, side = opencv_matrix(compose(inner, matrix, widen)), size + 2 * margin
    interpolation = cv2.INTER_NEAREST if recipe.interpolation == "nearest" else cv2.INTER_LINEAR
    image = cv2.warpAffine(stored, warp, (side, side), flags=interpolation, borderMode=cv2.BORDER_CONSTANT)
    shift, weight = 2 * crop.label_shift if mirror else 0.0, crop.weight
    landmarks = transform((crop.landmarks - (shift, 0)) * size, matrix) / size
    if mirror:
        landmarks, weight = landmarks[list(flip_index)], weight[list(flip_index)]
    return photometric(image, rng, recipe), landmarks, weight, matrix


def augment_pose(pose: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the pose (3,) in radians of a face whose picture went through the affine (2, 3): mirror, rotation and zoom."""
    sign = np.sign(np.linalg.det(matrix[:, :2]))  # mirroring changes the sides of yaw and roll
    return turn_pose(pose * [1, sign, sign], np.arctan2(sign * matrix[1, 0], sign * matrix[0, 0]))
