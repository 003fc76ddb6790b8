"""Augmentation of a crop: one warp in pixels, then colour, blur, noise and occlusion. Every draw is keyed, none has a state.

The same numbers are drawn whatever is switched on, so that one option never changes what another one does.
"""
from typing import NamedTuple

import cv2
import numpy as np
import torch

from nets.labels import turned
from pipnet.geometry import compose, opencv_matrix, transform

LUMA = np.array([0.114, 0.587, 0.299])  # of blue, green, red


class Recipe(NamedTuple):
    """Strengths and probabilities; each is the key of that name in args.yaml, explained there."""
    flip: float
    rotation: float
    rotation_prob: float
    scale: float
    translation: float
    translation_prob: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    colour_prob: float
    grayscale: float
    infrared: float
    blur: float
    blur_sigma: float
    noise: float
    noise_sigma: float
    occlusion: float
    occlusion_size: float
    fill: str
    interpolation: str

    @classmethod
    def of(cls, args) -> "Recipe":
        """From the resolved args."""
        return cls(*(getattr(args, key) for key in cls._fields))


def generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The random numbers of one sample in one epoch: the same in whatever process, order and number of ranks."""
    return np.random.default_rng((seed, epoch, sample))


def affine(rng: np.random.Generator, recipe: Recipe, size: int) -> tuple[np.ndarray, bool]:
    """((2, 3) map from px of the nominal crop at `size` to px of the result, continuous; whether it mirrors)."""
    angle, zoom, dx, dy = rng.uniform(-1, 1, 4)
    mirror, turns, moves = rng.random(3) < (recipe.flip, recipe.rotation_prob, recipe.translation_prob)
    angle = np.radians(recipe.rotation) * angle * turns
    zoom = 1 + recipe.scale * zoom
    shift = np.array([dx, dy]) * recipe.translation * size * moves
    if recipe.interpolation == "nearest":
        shift = np.trunc(shift)  # whole px, as published
    centre, cosine, sine = size / 2, zoom * np.cos(angle), zoom * np.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    matrix = np.column_stack([turn, centre - turn @ (centre, centre) + shift])
    return (compose(matrix, np.array([[-1.0, 0, size], [0, 1, 0]])) if mirror else matrix), bool(mirror)


def colour_matrix(rng: np.random.Generator, recipe: Recipe) -> np.ndarray | None:
    """(3, 4) map of BGR for brightness, contrast, saturation, hue, grayscale and the infrared look; None when none is drawn."""
    strengths = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
    brightness, contrast, saturation, hue = rng.uniform(-1, 1, 4) * strengths
    jitter, gray, infrared = rng.random(3) < (recipe.colour_prob, recipe.grayscale, recipe.infrared)
    lift = rng.integers(10, 90)
    matrix = np.eye(3, 4)
    if jitter:
        mean = np.outer(np.ones(3), LUMA)
        axis = np.full((3, 3), 1 / 3)  # hue turns colours about the gray axis
        cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
        turn = axis + np.cos(2 * np.pi * hue) * (np.eye(3) - axis) + np.sin(2 * np.pi * hue) * cross
        linear = (1 + contrast) * (mean + (1 + saturation) * (np.eye(3) - mean)) @ turn
        offset = 255 * brightness - 128 * contrast  # contrast turns about mid-gray
        matrix = np.column_stack([linear, np.full(3, offset)])
    if infrared:
        matrix = np.array([[1.0, 0, 0]] * 3) @ matrix + np.array([0, 0, 0, lift])
    if gray:
        matrix = np.outer(np.ones(3), LUMA) @ matrix
    return matrix if jitter or gray or infrared else None


def photometric(image: np.ndarray, rng: np.random.Generator, recipe: Recipe) -> np.ndarray:
    """Colour, blur, noise and one rectangle on a crop (S, S, 3) uint8; returns a new array."""
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
        cv2.setRNGSeed(seed)  # OpenCV's generator is of this thread and an order of magnitude faster than numpy's
        image = cv2.add(image, cv2.randn(np.empty(image.shape, np.int16), 0, grain), dtype=cv2.CV_8U)
    if covered:
        image = image.copy()
        image[y:y + sides[1], x:x + sides[0]] = colour
    return image


def augment(stored: np.ndarray, landmarks: np.ndarray, weight: np.ndarray, size: int, recipe: Recipe, flip_index,
            rng: np.random.Generator, seen: int = 0,
            label_shift: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A stored crop with its margin -> (crop (size, size, 3) uint8, landmarks (N, 2) in [0, 1] of it, weight (N,), the affine).

    stored (S, S, 3) uint8 with S >= size: the nominal crop of `size` px in the middle of real pixels; landmarks (N, 2) in [0, 1]
    of the nominal crop. Landmarks that leave the crop stay true. The affine (2, 3) is from px of the nominal crop to px of the
    result; its determinant is negative where it mirrors. seen: px of margin that the result has on each side of its nominal crop.
    label_shift: share of the crop by which the labels lie to the right of what they mark; those of a mirror image do, too, or
    the net would learn neither.
    """
    border = (len(stored) - size) / 2
    if recipe.fill == "black":  # beyond what tests see too
        edge = round(border) - seen
        stored, border = stored[edge:len(stored) - edge, edge:len(stored) - edge], seen
    matrix, mirror = affine(rng, recipe, size)
    inner, widen = np.array([[1.0, 0, -border], [0, 1, -border]]), np.array([[1.0, 0, seen], [0, 1, seen]])
    warp, side = opencv_matrix(compose(inner, matrix, widen)), size + 2 * seen
    interpolation = cv2.INTER_NEAREST if recipe.interpolation == "nearest" else cv2.INTER_LINEAR
    landmarks = transform((landmarks - (2 * label_shift * mirror, 0)) * size, matrix) / size
    image = cv2.warpAffine(stored, warp, (side, side), flags=interpolation, borderMode=cv2.BORDER_CONSTANT)
    if mirror:
        landmarks, weight = landmarks[list(flip_index)], weight[list(flip_index)]
    return photometric(image, rng, recipe), landmarks, weight, matrix


def turn_pose(pose: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Pose (3,), in radians, of a face after its picture went through the affine `matrix` (2, 3) of a mirror perhaps, a rotation
    and a zoom.
    """
    sign = np.sign(np.linalg.det(matrix[:, :2]))  # a mirrored head turns and leans to the other side
    angle = np.arctan2(sign * matrix[1, 0], sign * matrix[0, 0])
    return turned(torch.tensor(pose * [1, sign, sign])[None], torch.tensor([angle]))[0].numpy()
