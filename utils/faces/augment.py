"""Augmentation of a crop: one warp in pixels, then light, colour, blur, noise and occlusion, drawn from a keyed generator.

All random numbers are drawn even for options that are off, so that one option never changes the draws of another. `recipe` is
the section `augment` of the settings; with its key `steps`, steps.py does the work.
"""
import cv2
import numpy as np

from pipnet.geometry import compose, opencv_matrix, transform, turn_about
from pipnet.pose import turn_pose
from utils.faces.steps import (
    DRAWS,
    Crop,
    blurred,
    colour_matrix,
    covered,
    filling,
    framed,
    graded,
    in_steps,
    interpolation,
    noisy,
)


def generator(seed: int, number: int, sample: int) -> np.random.Generator:
    """Return the generator of one sample in pass `number` over all; it depends on no process, order or number of ranks."""
    return np.random.default_rng((seed, number, sample))


def affine(rng: np.random.Generator, recipe, size: int) -> tuple[np.ndarray, bool]:
    """Return a random affine (2, 3) from px of the nominal crop to px of the result, both `size` px, and whether it mirrors."""
    angle, zoom, dx, dy = rng.uniform(-1, 1, 4)
    mirror, turn, move = rng.random(3)
    if turn >= 1 - recipe.roll_prob:
        reach = 180.0
    else:
        reach = recipe.rotation * (turn < recipe.rotation_prob * (1 - recipe.roll_prob))
    shift = np.array([dx, dy]) * recipe.translation * size * (move < recipe.translation_prob)
    matrix = turn_about(np.full(2, size / 2), np.radians(reach) * angle, 1 + recipe.scale * zoom)
    matrix[:, 2] += shift
    mirrors = bool(mirror < recipe.flip)
    return (compose(matrix, np.array([[-1.0, 0, size], [0, 1, 0]])) if mirrors else matrix), mirrors


def photometric(image: np.ndarray, rng: np.random.Generator, late: np.random.Generator, recipe) -> np.ndarray:
    """Return a crop (S, S, 3) uint8 with random light, colour, blur, noise and one occluding rectangle.

    late: a child of `rng`, whose draws leave those of `rng` as they were.
    """
    size = len(image)
    matrix = colour_matrix(rng, recipe)
    blurs, grainy, hides = rng.random(3) < (recipe.blur, recipe.noise, recipe.occlusion)
    sigma, grain = rng.uniform(0.05, 1) * recipe.blur_sigma * size / 256, rng.random() * recipe.noise_sigma
    sides = (rng.random(2) * recipe.occlusion_size * size).astype(int) + 1
    x, y = (rng.random(2) * (size - sides)).astype(int)
    colour, seed = rng.integers(0, 256, 3).tolist(), int(rng.integers(1 << 31))
    power, enlarged = late.uniform(-1, 1), late.uniform(1, max(recipe.noise_size * size / 256, 1))
    if recipe.gamma > 1:
        image = graded(image, recipe.gamma ** power)
    if matrix is not None:
        image = cv2.transform(image, matrix)
    if blurs:
        image = blurred(image, sigma)
    if grainy:
        image = noisy(image, grain, seed, enlarged)
    return covered(image, (x, y), sides, colour) if hides else image


def augment(crop: Crop, recipe, flip_index, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return image (size + 2 margin, ..., 3) uint8, landmarks (N, 2) in [0, 1] of its nominal crop, weight (N,), affine (2, 3).

    Landmarks outside the crop keep their true place. The affine maps px of the nominal crop to px of the result; its
    determinant is negative for a mirrored crop. Labels keep their `label_shift` to the right in a mirrored crop too; a net
    could not learn a shift that changes sides.
    """
    if recipe.steps:
        face = in_steps(crop, recipe, rng.random((len(recipe.steps), DRAWS)))
        return _labelled(face.image, face.landmarks / crop.size, crop.weight, face.matrix, flip_index)
    stored, size, margin = framed(crop, recipe), crop.size, crop.margin
    border = (len(stored) - size) / 2
    if recipe.fill != "real":  # nothing beyond what the net sees, as in tests
        edge = round(border) - margin
        stored, border = stored[edge:len(stored) - edge, edge:len(stored) - edge], margin
    matrix, mirror = affine(rng, recipe, size)
    inner, widen = np.array([[1.0, 0, -border], [0, 1, -border]]), np.array([[1.0, 0, margin], [0, 1, margin]])
    warp, side = opencv_matrix(compose(inner, matrix, widen)), size + 2 * margin
    late = rng.spawn(1)[0]
    flags = interpolation(recipe, late.random())
    image = cv2.warpAffine(stored, warp, (side, side), flags=flags, borderValue=filling(recipe))
    shift = 2 * crop.label_shift if mirror else 0.0
    landmarks = transform((crop.landmarks - (shift, 0)) * size, matrix) / size
    return _labelled(photometric(image, rng, late, recipe), landmarks, crop.weight, matrix, flip_index)


def _labelled(image, landmarks, weight, matrix, flip_index) -> tuple[np.ndarray, ...]:
    """Return what `augment` returns; in a mirrored crop left and right landmarks change places."""
    order = list(flip_index) if np.linalg.det(matrix[:, :2]) < 0 else slice(None)
    return image, landmarks[order], weight[order], matrix


def augment_pose(pose: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the pose (3,) in radians of a face whose picture went through the affine (2, 3): mirror, rotation and zoom."""
    sign = np.sign(np.linalg.det(matrix[:, :2]))  # mirroring changes the sides of yaw and roll
    return turn_pose(pose * [1, sign, sign], np.arctan2(sign * matrix[1, 0], sign * matrix[0, 0]))
