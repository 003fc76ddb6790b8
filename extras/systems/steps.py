"""Augmentation as it was published: each step changes the result of the step before it.

Our own augmentation (changes.py) warps a picture only once, so that all pixels come from the source image. Here, as in
the published code, each warp loses what leaves the crop. The key `steps` gives the order; other keys of the section
`augment` give probabilities and strengths. PIPNet, its IRNet fork and Peppa's Slim differ in order, in colours and in
how corners are filled.

A step gets uniform numbers (B, STEP_DRAWS), the section and the `CropGeometry`. It returns the columns of its `Change`
that are not neutral.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from utils.data.changes import (
    GREY,
    LUMA,
    STEP_DRAWS,
    Change,
    affines,
    filling,
    interpolations,
    rectangles,
    turns,
)
from utils.data.faces import CropGeometry
from utils.settings.sections import AugmentSettings

FREE = 10 / 256  # share of the crop at its right and lower edge that no rectangle of PIPNet and its fork reaches
TRIANGLE = np.array([(10, 100), (200, 50), (100, 250)]) / 160  # of Slim's affine map, shares of the crop
Columns = dict[str, Any]


def sides(box: np.ndarray, u: np.ndarray, recipe: AugmentSettings, field: CropGeometry) -> Columns:
    """Cut a new crop, whose sides lie at random distances from the centre of the face box (B, 2, 2), px of the crop."""
    near_x, far_x, near_y, far_y = recipe.sides
    low, high = box[:, 0], box[:, 1]
    reach = np.array([near_x, near_y]) + u[:, :4].reshape(-1, 2, 2) * (far_x - near_x, far_y - near_y)
    first, last = ((low + high) / 2 + sign * reach[:, row] * (high - low) for row, sign in enumerate((-1, 1)))
    scale = field.size / (last - first)
    matrix = np.concatenate([scale[..., None] * np.eye(2), (-first * scale)[..., None]], 2)
    return {"matrix": matrix, "interpolation": interpolations(recipe, u[:, 4])}


def translation(u: np.ndarray, recipe: AugmentSettings, field: CropGeometry) -> Columns:
    """Shift by whole px. The landmarks are clipped to the crop, as in PIPNet."""
    acts = u[:, 0] < recipe.translation_prob
    shift = np.trunc((2 * u[:, 1:3] - 1) * recipe.translation * field.size) * acts[:, None]
    return {"matrix": affines(np.tile(np.eye(2), (len(u), 1, 1)), 0, shift), "clips": acts}


def rotation(u: np.ndarray, recipe: AugmentSettings, field: CropGeometry) -> Columns:
    """Turn about the crop's centre."""
    angle = np.radians(recipe.rotation) * (2 * u[:, 1] - 1) * (u[:, 0] < recipe.rotation_prob)
    return {"matrix": affines(turns(angle), field.size / 2), "interpolation": interpolations(recipe, u[:, 2], "cubic")}


def shear(u: np.ndarray, recipe: AugmentSettings, field: CropGeometry) -> Columns:
    """Shift three points by random shares of a random distance; the affine map that takes them back is applied."""
    reach = recipe.shear * u[:, 1] * (2 * u[:, 2] - 1) * (u[:, 0] < recipe.shear_prob)
    points = field.size * (TRIANGLE + reach[:, None, None] * u[:, 3:9].reshape(-1, 3, 2))
    corners = np.concatenate([points, np.ones((len(u), 3, 1))], 2)
    matrix = np.linalg.solve(corners, np.broadcast_to(field.size * TRIANGLE, points.shape)).swapaxes(1, 2)
    still = (reach == 0)[:, None, None]
    return {
        "matrix": np.where(still, np.eye(2, 3), matrix),
        "interpolation": interpolations(recipe, np.zeros(len(u)), "linear"),
    }


def flip(u: np.ndarray, recipe: AugmentSettings, field: CropGeometry) -> Columns:
    """Mirror; left and right landmarks change places after the last step."""
    acts = u[:, 0] < recipe.flip
    mirror = np.array([[-1.0, 0, field.size], [0, 1, 0]])
    return {"matrix": np.where(acts[:, None, None], mirror, np.eye(2, 3)), "mirrored": acts}


def occlusion(u: np.ndarray, recipe: AugmentSettings, field: CropGeometry) -> Columns:
    """Cover a rectangle: of a random colour, or of the colour of the corners where these are grey."""
    free = 0 if recipe.fill == "grey" else FREE * field.side
    box = rectangles(u[:, 1:3] * recipe.occlusion_size, u[:, 3:5], field.side, 0, free)
    shade = np.full((len(u), 3), GREY) if recipe.fill == "grey" else (u[:, 5:8] * 256).astype(int)
    return {"box": box * (u[:, :1] < recipe.occlusion), "shade": shade}


def padding(u: np.ndarray, recipe: AugmentSettings, field: CropGeometry) -> Columns:
    """Cover a band along one of the four sides: top, bottom, left or right."""
    side, thick, where = field.side, (u[:, 1] * recipe.padding * field.side).astype(int), (4 * u[:, 0]).astype(int)
    flat, last = where < 2, where % 2 * (side - thick)
    box = np.stack([last * ~flat, last * flat, np.where(flat, side, thick), np.where(flat, thick, side)], 1)
    acts = u[:, 2:3] < recipe.padding_prob
    return {"box": box * acts, "shade": np.full((len(u), 3), filling(recipe))}


def hsv(u: np.ndarray, recipe: AugmentSettings, field: CropGeometry) -> Columns:
    """Multiply hue, saturation and value by random gains."""
    gains = (2 * u[:, 1:4] - 1) * (recipe.hue, recipe.saturation, recipe.brightness)
    return {"hsv": 1 + gains * (u[:, :1] < recipe.colour_prob)}


def colour(u: np.ndarray, recipe: AugmentSettings, field: CropGeometry) -> Columns:
    """Change contrast about the mean colour, brightness, hue and saturation, one after the other."""
    strengths = np.array([recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue])
    brightness, contrast, saturation, hue = ((2 * u[:, :4] - 1) * strengths * (u[:, 4:5] < recipe.colour_prob)).T
    return {"distort": np.stack([1 + contrast, 255 * brightness, 180 * hue, 1 + saturation], 1)}


def infrared(u: np.ndarray, recipe: AugmentSettings, field: CropGeometry) -> Columns:
    """Replace all three channels by the brightened blue one."""
    acts = u[:, 0] < recipe.infrared
    matrix = np.where(acts[:, None, None], np.array([[1.0, 0, 0, 0]] * 3), np.eye(3, 4))
    matrix[acts, :, 3] = 10 + np.floor(80 * u[acts, 1, None])
    return {"colour": matrix}


def grayscale(u: np.ndarray, recipe: AugmentSettings, field: CropGeometry) -> Columns:
    """Remove the colours."""
    grey = np.tile(np.append(LUMA, 0), (3, 1))
    return {"colour": np.where((u[:, 0] < recipe.grayscale)[:, None, None], grey, np.eye(3, 4))}


def blur(u: np.ndarray, recipe: AugmentSettings, field: CropGeometry) -> Columns:
    """Blur by a random radius."""
    return {"blur": u[:, 1] * recipe.blur_sigma * field.size / 256 * (u[:, 0] < recipe.blur)}


def noise(u: np.ndarray, recipe: AugmentSettings, field: CropGeometry) -> Columns:
    """Add uniform noise to each level."""
    return {"jitter": np.stack([recipe.noise_reach * (u[:, 0] < recipe.noise), np.floor(u[:, 1] * 2**31)], 1)}


# the names are those of utils.settings.sections.STEPS, which tells the keys that each reads
STEPS: dict[str, Callable[..., Columns]] = {
    "sides": sides,
    "translation": translation,
    "rotation": rotation,
    "shear": shear,
    "flip": flip,
    "occlusion": occlusion,
    "padding": padding,
    "hsv": hsv,
    "colour": colour,
    "infrared": infrared,
    "grayscale": grayscale,
    "blur": blur,
    "noise": noise,
}


def in_steps(u: np.ndarray, recipe: AugmentSettings, field: CropGeometry, box: np.ndarray) -> list[Change]:
    """Return a change for each step. u: uniform numbers (B, steps * STEP_DRAWS) in [0, 1).

    box (B, 2, 2): corners of the face boxes in px of the nominal crop, for the step `sides`. With `fill: real`, pixels
    around the crop are kept until the last step. Otherwise only `sides`, as the first step, sees them.
    """
    made: list[Change] = []
    still: dict[str, Any] = {"matrix": np.tile(np.eye(2, 3), (len(u), 1, 1)), "mirrored": np.zeros(len(u), bool)}
    inner = field._replace(seen=field.border) if recipe.fill == "real" else field
    kept = inner.side
    for place, name in enumerate(recipe.steps):
        seen = field.stored if not made and name == "sides" else kept
        step = partial(sides, box) if name == "sides" else STEPS[name]
        columns = step(u[:, place * STEP_DRAWS : (place + 1) * STEP_DRAWS], recipe, inner)
        made.append(
            Change(**{"size": field.size, "seen": seen, "side": kept, "fill": filling(recipe), **still, **columns})
        )
    return [*made, Change(field.size, kept, field.side, **still)] if kept != field.side else made
