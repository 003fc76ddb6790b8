"""Augmentation as it is published: steps one after another, each on what the one before it left.

Ours (augment.py) warps a picture once, from real pixels. Here each warp loses what leaves the crop, as in the published code. The
key `steps` gives the order, the other keys of the section `augment` the probabilities and strengths. PIPNet, its IRNet fork and
Peppa's Slim differ in order, in colour and in what fills the corners.
"""
import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from pipnet.geometry import compose, crop_matrix, opencv_matrix, transform

LUMA = np.array([0.114, 0.587, 0.299])  # weights of blue, green, red
INTERPOLATION = {"nearest": cv2.INTER_NEAREST, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC,
                 "lanczos": cv2.INTER_LANCZOS4}
GREY = 127
DRAWS = 9  # uniform numbers that a step takes


class Crop(NamedTuple):
    """A stored crop and its labels, before augmentation."""
    stored: np.ndarray        # (S, S, 3) uint8, S >= size: the nominal crop in the middle, real pixels round it
    landmarks: np.ndarray     # (N, 2) in [0, 1] of the nominal crop
    weight: np.ndarray        # (N,)
    size: int                 # px of the nominal crop
    margin: int = 0           # px that the net sees on each side of the nominal crop
    label_shift: float = 0.0  # share of the crop by which the labels lie to the right of what they mark
    # (2, 2) in [0, 1] of the nominal crop: upper left and lower right corner of the face box, and of the source image
    box: np.ndarray = np.array([[0.0, 0.0], [1.0, 1.0]])
    source: np.ndarray = np.array([[-np.inf, -np.inf], [np.inf, np.inf]])


class Face(NamedTuple):
    """A face between two steps; landmarks (N, 2) and matrix (2, 3) in px of the nominal crop, which is `border` px inside."""
    image: np.ndarray
    border: int
    landmarks: np.ndarray
    matrix: np.ndarray  # from px of the nominal crop as it was to px as it is
    crop: Crop

    def warped(self, matrix: np.ndarray, recipe, draw: float) -> "Face":
        """Return the face after an affine (2, 3) of px of the nominal crop. draw: chooses a random interpolation."""
        inner, outer = (np.array([[1.0, 0, edge], [0, 1, edge]]) for edge in (-self.border, self.border))
        image = cv2.warpAffine(self.image, opencv_matrix(compose(inner, matrix, outer)), self.image.shape[:2],
                               flags=interpolation(recipe, draw), borderValue=filling(recipe))
        return self._replace(image=image, landmarks=transform(self.landmarks, matrix), matrix=compose(self.matrix, matrix))

    def seen(self, margin: int) -> "Face":
        """Return the face with `margin` px round the nominal crop."""
        edge = slice(self.border - margin, len(self.image) - self.border + margin)
        return self._replace(image=np.ascontiguousarray(self.image[edge, edge]), border=margin)

    def linear(self, matrix: np.ndarray, recipe, draw: float) -> "Face":
        """Return the face after a linear map (2, 2) about the crop's centre."""
        centre = np.full(2, self.crop.size / 2)
        return self.warped(np.column_stack([matrix, centre - matrix @ centre]), recipe, draw)


def interpolation(recipe, draw: float) -> int:
    """Return OpenCV's flag of the interpolation; `random` is one of four, by `draw` in [0, 1)."""
    return [*INTERPOLATION.values()][int(4 * draw)] if recipe.interpolation == "random" else INTERPOLATION[recipe.interpolation]


def filling(recipe) -> tuple[int, int, int]:
    """Return the colour of what lies outside the picture."""
    return (GREY,) * 3 if recipe.fill == "grey" else (0, 0, 0)


def framed(crop: Crop, recipe) -> np.ndarray:
    """Return the stored crop; for grey corners it is grey outside the source image, where it is stored black."""
    if recipe.fill != "grey":
        return crop.stored
    side, border = len(crop.stored), (len(crop.stored) - crop.size) // 2
    (left, top), (right, bottom) = np.clip(crop.source * crop.size + border, 0, side).round().astype(int)
    image = np.full_like(crop.stored, GREY)
    image[top:bottom, left:right] = crop.stored[top:bottom, left:right]
    return image


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Return the image after a Gaussian blur; below 0.1 px it is itself."""
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0.1 else image


def noisy(image: np.ndarray, sigma: float, seed: int, grain: float = 1.0) -> np.ndarray:
    """Return the image (H, W, 3) with Gaussian noise, as if it had been enlarged `grain` times after the picture was taken."""
    cv2.setRNGSeed(seed)  # OpenCV's generator is thread-local and ten times as fast as numpy's
    height, width = image.shape[:2]
    noise = cv2.randn(np.empty((math.ceil(height / grain), math.ceil(width / grain), 3), np.int16), 0, sigma)
    return cv2.add(image, cv2.resize(noise, (width, height)), dtype=cv2.CV_8U)


def graded(image: np.ndarray, gamma: float) -> np.ndarray:
    """Return the uint8 image with its grey levels in [0, 1] to the power of gamma."""
    return cv2.LUT(image, np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8))


def covered(image: np.ndarray, corner: np.ndarray, sides: np.ndarray, colour) -> np.ndarray:
    """Return the image with a rectangle of one colour; corner and sides (2,) in whole px."""
    image = image.copy()
    image[corner[1]:corner[1] + sides[1], corner[0]:corner[0] + sides[0]] = colour
    return image


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


# --------------------------------------------------------------------------------------------------------------- steps
def sides(face: Face, recipe, u: np.ndarray) -> Face:
    """Cut anew: each side of the crop lies at a random distance from the centre of the face box."""
    near_x, far_x, near_y, far_y = recipe.sides
    low, high = face.crop.box * face.crop.size
    reach = np.array([near_x, near_y]) + u[:4].reshape(2, 2) * (far_x - near_x, far_y - near_y)
    corners = (low + high) / 2 + np.array([[-1], [1]]) * reach * (high - low)
    return face.warped(crop_matrix(corners.ravel(), face.crop.size), recipe, u[4])


def translation(face: Face, recipe, u: np.ndarray) -> Face:
    """Shift by whole px. The landmarks are clipped to the crop, as in PIPNet."""
    if u[0] >= recipe.translation_prob:
        return face
    shift = np.trunc((2 * u[1:3] - 1) * recipe.translation * face.crop.size)
    moved = face.warped(np.column_stack([np.eye(2), shift]), recipe, 0)
    return moved._replace(landmarks=np.clip(moved.landmarks, 0, face.crop.size))


def rotation(face: Face, recipe, u: np.ndarray) -> Face:
    """Turn about the crop's centre."""
    angle = np.radians(recipe.rotation) * (2 * u[1] - 1) * (u[0] < recipe.rotation_prob)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return face.linear(turn, recipe, u[2]) if angle else face


def shear(face: Face, recipe, u: np.ndarray) -> Face:
    """Map linearly, close to the identity."""
    return face.linear(np.eye(2) + recipe.shear * (2 * u[:4].reshape(2, 2) - 1), recipe, u[4])


def flip(face: Face, recipe, u: np.ndarray) -> Face:
    """Mirror; the caller exchanges left and right landmarks. Labels keep their shift to the right."""
    if u[0] >= recipe.flip:
        return face
    mirror = np.array([[-1.0, 0, face.crop.size], [0, 1, 0]])
    landmarks = transform(face.landmarks - (2 * face.crop.label_shift * face.crop.size, 0), mirror)
    image = np.ascontiguousarray(face.image[:, ::-1])
    return face._replace(image=image, landmarks=landmarks, matrix=compose(face.matrix, mirror))


def occlusion(face: Face, recipe, u: np.ndarray) -> Face:
    """Cover a rectangle: of a random colour, or of the colour of the corners where these are grey."""
    if u[0] >= recipe.occlusion:
        return face
    side = len(face.image)
    extent = (u[1:3] * recipe.occlusion_size * side).astype(int)
    colour = (u[5:8] * 256).astype(int) if recipe.fill != "grey" else GREY
    return face._replace(image=covered(face.image, (u[3:5] * (side - extent)).astype(int), extent, colour))


def padding(face: Face, recipe, u: np.ndarray) -> Face:
    """Cover a band along one of the four sides."""
    side, thick = len(face.image), int(u[1] * recipe.padding * len(face.image))
    corner, extent = [((0, 0), (side, thick)), ((0, side - thick), (side, thick)), ((0, 0), (thick, side)),
                      ((side - thick, 0), (thick, side))][int(4 * u[0])]
    return face._replace(image=covered(face.image, corner, extent, filling(recipe)))


def hsv(face: Face, recipe, u: np.ndarray) -> Face:
    """Multiply hue, saturation and value by random gains."""
    if u[0] >= recipe.colour_prob:
        return face
    gains = 1 + (2 * u[1:4] - 1) * (recipe.hue, recipe.saturation, recipe.brightness)
    levels = np.arange(256)[:, None] * gains
    levels[:, 0] %= 180  # OpenCV's hue has steps of two degrees
    table = np.minimum(levels, 255).astype(np.uint8)[None]
    return face._replace(image=cv2.cvtColor(cv2.LUT(cv2.cvtColor(face.image, cv2.COLOR_BGR2HSV), table), cv2.COLOR_HSV2BGR))


def colour(face: Face, recipe, u: np.ndarray) -> Face:
    """Change brightness, contrast, saturation and hue as without steps."""
    matrix = colour_matrix(np.random.default_rng(int(u[0] * 2**53)), recipe)
    return face if matrix is None else face._replace(image=cv2.transform(face.image, matrix))


def infrared(face: Face, recipe, u: np.ndarray) -> Face:
    """Put the blue channel, brightened, into all three."""
    if u[0] >= recipe.infrared:
        return face
    lifted = cv2.add(face.image[..., :1].copy(), np.full_like(face.image[..., :1], 10 + int(80 * u[1])))
    return face._replace(image=np.repeat(lifted.reshape(*face.image.shape[:2], 1), 3, 2))


def grayscale(face: Face, recipe, u: np.ndarray) -> Face:
    """Remove the colours."""
    gray = cv2.cvtColor(face.image, cv2.COLOR_BGR2GRAY)
    return face._replace(image=np.repeat(gray[..., None], 3, 2)) if u[0] < recipe.grayscale else face


def blur(face: Face, recipe, u: np.ndarray) -> Face:
    """Blur by a random radius."""
    sigma = u[1] * recipe.blur_sigma * face.crop.size / 256
    return face._replace(image=blurred(face.image, sigma)) if u[0] < recipe.blur else face


def noise(face: Face, recipe, u: np.ndarray) -> Face:
    """Add noise of a random strength."""
    return face._replace(image=noisy(face.image, u[1] * recipe.noise_sigma, int(u[2] * 2**31))) if u[0] < recipe.noise else face


class Step(NamedTuple):
    """A step and the keys of `augment` that it reads, beside fill and interpolation."""
    apply: Callable[[Face, object, np.ndarray], Face]
    keys: tuple[str, ...]


STEPS = {
    "sides": Step(sides, ("sides",)), "translation": Step(translation, ("translation", "translation_prob")),
    "rotation": Step(rotation, ("rotation", "rotation_prob")), "shear": Step(shear, ("shear",)), "flip": Step(flip, ("flip",)),
    "occlusion": Step(occlusion, ("occlusion", "occlusion_size")), "padding": Step(padding, ("padding",)),
    "hsv": Step(hsv, ("hue", "saturation", "brightness", "colour_prob")),
    "colour": Step(colour, ("hue", "saturation", "brightness", "contrast", "colour_prob")),
    "infrared": Step(infrared, ("infrared",)), "grayscale": Step(grayscale, ("grayscale",)),
    "blur": Step(blur, ("blur", "blur_sigma")), "noise": Step(noise, ("noise", "noise_sigma")),
}
ONLY_STEPS = ("sides", "shear", "padding")  # keys that nothing else reads


def in_steps(crop: Crop, recipe, draws: np.ndarray) -> Face:
    """Return the face after all steps, as the net sees it. draws: uniform numbers (steps, DRAWS) in [0, 1)."""
    border = (len(crop.stored) - crop.size) // 2
    face = Face(framed(crop, recipe), border, crop.landmarks * crop.size, np.eye(2, 3), crop)
    for name, u in zip(recipe.steps, draws, strict=True):
        if name != "sides" and recipe.fill != "real":
            face = face.seen(crop.margin)
        face = STEPS[name].apply(face, recipe, u)
    return face.seen(crop.margin)
