"""Random changes of faces: drawn once for a whole batch, as arrays with one row a face.

pixels.py carries them out on pictures with OpenCV, extras/gpu/device_pixels.py with torch. `moved` carries them out on landmarks.

The random numbers are a pure function of (seed, pass, index of the face). Each row of NUMBERS has numbers of its own, so
that no change takes those of another; a new one is the last row. `recipe` is the section `augment` of the settings. With
its key `steps`, steps.py draws one `Change` for each step; without it there is a single `Change`.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipnet.geometry import compose, transform
from pipnet.pose import turn_pose
from utils.data.faces import CropGeometry
from utils.settings.sections import AugmentSettings

LUMA = np.array([0.114, 0.587, 0.299])  # weights of blue, green, red
INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}
# the choices among which a draw decides; `slim` is what its step sides does, which also averages: here, the stored crop is that
RANDOM = {"random": ("nearest", "linear", "cubic"), "slim": ("nearest", "linear", "cubic", "lanczos", "linear")}
GREY = 127
NUMBERS = {  # {change: how many uniform numbers it draws for a face}, in this order
    "warp": 8,
    "colour": 8,
    "blur": 2,
    "noise": 4,
    "occlusion": 8,
    "gamma": 1,
    "shadow": 9,
    "edge": 5,
    "shapes": 4,
}
DRAWS = 52  # uniform numbers of one crop of a face, of which NUMBERS may take all
STEP_DRAWS = 9  # uniform numbers of a face for one published step, see `AugmentSettings.steps`
DARKEST, TINT = 0.02, 0.5  # least share of the light in a shadow; largest change of it in one colour
BLACK = 0.06  # share of the light below which a landmark counts as hidden
ROUNDNESS = np.array([1.0, 2, 2, 8])  # powers of the shapes that cover a part: a diamond, an ellipse, a rectangle
EDGE_REACH = 0.35  # share of the stored crop, largest band that lies beyond an edge of the picture
# largest roll in degrees, |log(scale)| and distance, as a share of the crop, of a face in its place; those beyond which it
# is in none
IN_PLACE, OUT_OF_PLACE = (50, math.log(1.45), 0.2), (80, math.log(1.8), 0.45)
# of the faces that are misplaced: the share that is turned, by so many degrees or more; the others show a part, enlarged
# by a factor in this range, whose centre is up to this share of the farthest possible from the crop's centre
TURNED, LEAST_TURN, ENLARGED, REACH = 0.6, 85, (1.9, 3.2), 0.45
GOLDEN, MIX = np.uint64(0x9E3779B97F4A7C15), ((30, np.uint64(0xBF58476D1CE4E5B9)), (27, np.uint64(0x94D049BB133111EB)))


class Change(NamedTuple):
    """Changes of B square crops, in the order in which they are carried out.
    A column is None if no crop is changed in this way.

    matrix is in px of the nominal crop, which is the middle of the picture. Other lengths are in px of the result. Rows
    of crops that are not changed hold neutral values.
    """

    size: int  # px of the nominal crop
    seen: int  # px: side of the middle of the crop that counts as the picture
    side: int  # px of the result
    matrix: np.ndarray  # (B, 2, 3) from px of the nominal crop to px of that of the result
    mirrored: np.ndarray  # (B,) bool: left and right change places
    interpolation: np.ndarray | None = None  # (B,) OpenCV's flag; None: linear
    hsv: np.ndarray | None = None  # (B, 3) factors of hue, saturation and value
    # (B, 4) contrast about the mean, then a shift of the levels, of OpenCV's hue, saturation
    distort: np.ndarray | None = None
    light: np.ndarray | None = None  # (B, 2, 3) depth x of a shadow: affine of px; BGR light where x >= 1
    gamma: np.ndarray | None = None  # (B,) power of the grey levels in [0, 1]
    colour: np.ndarray | None = None  # (B, 3, 4) affine of blue, green, red
    blur: np.ndarray | None = None  # (B,) sigma in px, 0: none
    grain: np.ndarray | None = None  # (B, 3) sigma of the noise in grey levels, 0: none; px of a grain; seed
    jitter: np.ndarray | None = None  # (B, 2) uniform noise in +- this, grey levels, 0: none; seed
    box: np.ndarray | None = None  # (B, 4) int: x, y, width, height of a covered rectangle, 0: none
    shade: np.ndarray | None = None  # (B, 3) int: its colour
    shape: np.ndarray | None = None  # (B, 3, 3) rows of a covering shape, see `shapes`; 0: none
    texture: np.ndarray | None = None  # (B,) its texture, 0: plain, in the colour `shade`; 1: the picture upside down
    fill: int = 0  # grey level of what lies outside the picture
    clips: np.ndarray | None = None  # (B,) bool: landmarks that leave the crop are moved to its edge
    # (B, 4) x1, y1, x2, y2 in px of the stored crop, which first gets the level `fill` outside
    source: np.ndarray | None = None


# ------------------------------------------------------------------------------------------------------------- numbers
def mixed(state: np.ndarray) -> np.ndarray:
    """Return 64-bit numbers that look random, from numbers of any kind; different numbers give different ones
    (SplitMix64).
    """
    for shift, factor in MIX:
        state = (state ^ (state >> np.uint64(shift))) * factor
    return state ^ (state >> np.uint64(31))


def hashed(*keys) -> np.ndarray:
    """Return 64-bit numbers that look random, one for each tuple of keys: non-negative integers, or arrays that are
    broadcast.
    """
    state = np.zeros((1,), np.uint64)
    for key in keys:
        state = mixed((state ^ np.asarray(key).astype(np.uint64)) + GOLDEN)
    return state


def uniforms(seed: int, number, indices: np.ndarray, count: int, *key: int) -> np.ndarray:
    """Return numbers (B, count) in [0, 1), a function of seed, pass (a number or (B,)), index (B,), column and `key`."""
    rows = hashed(seed, number, indices, *key)[:, None]
    return (mixed(rows + GOLDEN * np.arange(1, count + 1, dtype=np.uint64)) >> np.uint64(11)) * 2.0**-53


# ------------------------------------------------------------------------------------------------------------- changes
def affines(linear: np.ndarray, centre: float, shift: np.ndarray | float = 0.0) -> np.ndarray:
    """Return (B, 2, 3): linear maps (B, 2, 2) about the point (centre, centre), then a shift (B, 2)."""
    middle = np.full(2, centre)
    return np.concatenate([linear, (middle - linear @ middle + shift)[..., None]], 2)


def turns(angle: np.ndarray, zoom: np.ndarray | float = 1.0) -> np.ndarray:
    """Return the rotations (B, 2, 2) by `angle` (B,) radians, clockwise as seen, with a zoom (B,)."""
    cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
    return np.stack([cosine, -sine, sine, cosine], 1).reshape(-1, 2, 2)


def interpolations(recipe: AugmentSettings, draw: np.ndarray, slim: str | None = None) -> np.ndarray:
    """Return OpenCV's interpolation flags (B,). draw (B,) in [0, 1) selects among several.

    slim: that of this step if the setting is `slim`; None: one of several.
    """
    name = slim if slim and recipe.interpolation == "slim" else recipe.interpolation
    flags = np.array([INTERPOLATION[one] for one in RANDOM.get(name, (name,))])
    return flags[(len(flags) * draw).astype(int)]


def colours(recipe: AugmentSettings, u: np.ndarray) -> np.ndarray | None:
    """Return affines (B, 3, 4) of BGR: brightness, contrast, saturation, hue, infrared, grayscale; None if all are off.

    u: uniform numbers (B, 8).
    """
    if not (recipe.colour_prob or recipe.grayscale or recipe.infrared):
        return None
    strengths = np.array([recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue])
    brightness, contrast, saturation, hue = ((2 * u[:, :4] - 1) * strengths * (u[:, 4:5] < recipe.colour_prob)).T[
        ..., None, None
    ]
    mean, axis = np.outer(np.ones(3), LUMA), np.full((3, 3), 1 / 3)  # hue rotates colours about the grey axis
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
    turn = axis + np.cos(2 * np.pi * hue) * (np.eye(3) - axis) + np.sin(2 * np.pi * hue) * cross
    linear = (1 + contrast) * (mean + (1 + saturation) * (np.eye(3) - mean)) @ turn
    offset = np.broadcast_to(255 * brightness - 128 * contrast, (len(u), 3, 1))  # contrast keeps mid-grey
    matrix = np.concatenate([linear, offset], 2)
    matrix[u[:, 4] >= recipe.colour_prob] = np.eye(3, 4)  # without rounding
    grey, dark = u[:, 5] < recipe.grayscale, u[:, 6] < recipe.infrared
    matrix[dark] = matrix[dark][:, :1]
    matrix[dark, :, 3] += 10 + np.floor(80 * u[dark, 7, None])
    matrix[grey] = (LUMA @ matrix[grey])[:, None]
    return matrix


def grains(recipe: AugmentSettings, strength: np.ndarray, size: np.ndarray | float, draw: np.ndarray) -> np.ndarray:
    """Return `Change.grain` (B, 3) of noise with `strength` (B,) in [0, 1]. size: px of a grain; draw: (B,) in [0, 1)."""
    return np.stack(np.broadcast_arrays(strength * recipe.noise_sigma, size, np.floor(draw * 2**31)), 1)


def rectangles(share: np.ndarray, place: np.ndarray, side: int, least: int, free: float = 0.0) -> np.ndarray:
    """Return boxes (B, 4) in whole px of pictures of `side` px, at `place` (B, 2) in [0, 1); share (B, 2) of the side.

    free: px at the right and lower edge that no box reaches.
    """
    extent = (share * side).astype(int) + least
    return np.concatenate([(place * (side - extent - free)).astype(int), extent], 1)


def shadows(u: np.ndarray, acts: np.ndarray, side: float) -> np.ndarray:
    """Return `Change.light` (B, 2, 3) of shadows in pictures of `side` px: none where `acts` (B,) is False.

    A shadow begins at a line through the middle half of the picture and reaches its depth within a tenth to all of the
    side. The light in it may have another colour. u: uniform numbers (B, 8).
    """
    angle, reach, start = 2 * np.pi * u[:, 0], (0.1 + 0.9 * u[:, 2] ** 2) * side, (u[:, 1] - 0.5) * side / 2
    normal = np.stack([np.cos(angle), np.sin(angle)], 1)
    depth = np.column_stack([normal, -normal.sum(1) * side / 2 - start]) / reach[:, None]
    light = DARKEST + (0.6 - DARKEST) * u[:, 3, None] + TINT * (2 * u[:, 4:7] - 1) * u[:, 7, None]
    made = np.stack([depth, np.clip(light, 0, 1)], 1)
    return np.where(acts[:, None, None], made, [[[0.0] * 3, [1.0] * 3]])


def ends(u: np.ndarray, acts: np.ndarray, side: int) -> np.ndarray:
    """Return `Change.source` (B, 4) of pictures that end inside the crop, at one edge or two, where `acts` (B,).
    u: (B, 4).
    """
    depth = EDGE_REACH * side * u[:, :2] * acts[:, None] * [1, 0.5]
    edge = np.stack([(4 * u[:, 2]).astype(int), (4 * u[:, 3]).astype(int)], 1)
    source = np.tile([0.0, 0, side, side], (len(u), 1))
    for column in (1, 0):
        rows = np.arange(len(u)), edge[:, column]
        source[rows] = np.where(edge[:, column] < 2, depth[:, column], side - depth[:, column])
    return source


def shapes(box: np.ndarray, u: np.ndarray, acts: np.ndarray) -> np.ndarray:
    """Return `Change.shape` (B, 3, 3) of turned shapes about the middles of boxes (B, 4); none where not `acts` (B,).

    A point (x, y) lies in a shape if |a x + b y + c|^p + |d x + e y + f|^p <= 1; the rows are a b c, d e f, p 0 0.
    u: uniform numbers (B, 2).
    """
    half, angle = np.maximum(box[:, 2:], 1) / 2, np.pi * u[:, 0]
    axes = turns(angle) / half[..., None]
    middle = box[:, :2] + half
    made = np.zeros((len(box), 3, 3))
    made[:, :2, :2], made[:, :2, 2] = axes, -(axes @ middle[..., None])[..., 0]
    made[:, 2, 0] = ROUNDNESS[(len(ROUNDNESS) * u[:, 1]).astype(int)]
    return made * acts[:, None, None]  # of zeros, both terms are 0^0 = 1, so that no point lies in them


def filling(recipe: AugmentSettings) -> int:
    """Return the grey level of what lies outside the picture."""
    return GREY if recipe.fill == "grey" else 0


def changes(uniform: np.ndarray, recipe: AugmentSettings, field: CropGeometry) -> Change:
    """Return the changes of B crops for `uniform` numbers (B, DRAWS).

    One warp comes first, then a shadow, light, colour, blur, noise and a rectangle.
    """
    columns = np.split(uniform, np.cumsum([*NUMBERS.values()]), 1)
    u = dict(zip(NUMBERS, columns, strict=False))
    side = field.side
    made: dict[str, Any] = {**warp(u["warp"], recipe, field), "colour": colours(recipe, u["colour"])}
    made["fill"] = filling(recipe)
    if recipe.blur:
        blurs, draw = u["blur"].T
        made["blur"] = (blurs < recipe.blur) * ((0.05 + 0.95 * draw) * recipe.blur_sigma * side / 256)
    if recipe.noise:
        grainy, strength, seed, draw = u["noise"].T
        size = 1 + draw * (max(recipe.noise_size * side / 256, 1) - 1)
        made["grain"] = grains(recipe, (grainy < recipe.noise) * strength, size, seed)
    hides, made["shade"] = u["occlusion"][:, 0] < recipe.occlusion, (u["occlusion"][:, 5:] * 256).astype(int)
    if recipe.occlusion:
        share, place = u["occlusion"][:, 1:3] * recipe.occlusion_size, u["occlusion"][:, 3:5]
        made["box"] = rectangles(share, place, side, 1) * hides[:, None]
    if recipe.gamma > 1:
        made["gamma"] = recipe.gamma ** (2 * u["gamma"][:, 0] - 1)
    if recipe.shadow:
        made["light"] = shadows(u["shadow"][:, 1:], u["shadow"][:, 0] < recipe.shadow, side)
    if recipe.edge:
        made["source"] = ends(u["edge"][:, 1:], u["edge"][:, 0] < recipe.edge, field.stored)
    if recipe.occlusion and recipe.occlusion_shapes:
        shaped = u["shapes"][:, 0] < recipe.occlusion_shapes
        made["shape"] = shapes(made["box"], u["shapes"][:, 1:3], hides & shaped)
        made["texture"] = np.clip(2 * u["shapes"][:, 3] - 0.5, 0, 1)
        made["box"] = made["box"] * ~shaped[:, None]
    return Change(field.size, field.stored if recipe.fill == "real" else side, side, **made)


def warp(u: np.ndarray, recipe: AugmentSettings, field: CropGeometry) -> dict[str, np.ndarray]:
    """Return the columns matrix, mirrored and interpolation of one warp. u: uniform numbers (B, 8)."""
    turn, move, mirror, size = u[:, 5], u[:, 6] < recipe.translation_prob, u[:, 4] < recipe.flip, field.size
    usual = recipe.rotation * (turn < recipe.rotation_prob * (1 - recipe.roll_prob))
    reach = np.where(turn >= 1 - recipe.roll_prob, 180.0, usual)
    angle, zoom = 2 * u[:, :2].T - 1
    shift = (2 * u[:, 2:4] - 1) * recipe.translation * size * move[:, None]
    matrix = affines(turns(np.radians(reach) * angle, 1 + recipe.scale * zoom), size / 2, shift)
    matrix[mirror, 0] = [0, 0, size] - matrix[mirror, 0]
    return {"matrix": matrix, "mirrored": mirror, "interpolation": interpolations(recipe, u[:, 7])}


def misplaced(u: np.ndarray, made: Sequence[Change], lost: np.ndarray) -> list[Change]:
    """Return the changes with crops in which the faces `lost` (B,) bool are not in their place.

    u: uniform numbers (B, 4 or more). Such a crop shows the face turned by more than 80 degrees, or a part of it.
    """
    size, turned = made[0].size, u[:, 0] < TURNED
    angle = np.radians(LEAST_TURN + (360 - 2 * LEAST_TURN) * u[:, 1]) * turned
    zoom = np.where(turned, 1, ENLARGED[0] + np.ptp(ENLARGED) * u[:, 1])
    shift = size * (zoom - 1)[:, None] * REACH * (2 * u[:, 2:4] - 1)
    moved = affines(turns(angle, zoom), size / 2, shift)
    moved[~lost] = np.eye(2, 3)
    first = made[0]._replace(matrix=compose(moved, made[0].matrix))
    # landmarks at the crop's edge would not tell where the face lies
    return [one if one.clips is None else one._replace(clips=one.clips & ~lost) for one in (first, *made[1:])]


def in_place(points: np.ndarray, known: np.ndarray, meanface: np.ndarray) -> np.ndarray:
    """Return whether faces lie where, as large as and as upright as `meanface` (N, 2): (B,) 1 or 0, NaN in between.

    points (B, N, 2), known (B, N) bool; all in [0, 1] of the crop. NaN too for a face with fewer than three landmarks.
    """
    known = known & np.isfinite(meanface).all(1)
    points, mean = (np.where(known[..., None], part, 0) @ (1, 1j) for part in (points, meanface))
    count = np.maximum(known.sum(1), 1)
    apart = (points - mean).sum(1) / count  # between the centres of the known landmarks
    centred = (mean - (mean.sum(1) / count)[:, None]) * known
    # of the least-squares similarity from the mean face to the landmarks: its length is the scale, its angle the roll
    turn = (points * centred.conj()).sum(1) / np.maximum((np.abs(centred) ** 2).sum(1), 1e-9)
    scale, roll, apart = np.log(np.maximum(np.abs(turn), 1e-9)), np.degrees(np.abs(np.angle(turn))), np.abs(apart)
    measures = np.abs(np.stack([roll, scale, apart], 1))
    found = np.where((measures <= IN_PLACE).all(1), 1.0, np.where((measures > OUT_OF_PLACE).any(1), 0.0, np.nan))
    return np.where(known.sum(1) >= 3, found, np.nan)


# -------------------------------------------------------------------------------------------------------------- labels
def moved(landmarks: np.ndarray, shift: np.ndarray, made: Sequence[Change], flip_index: Sequence[int]) -> np.ndarray:
    """Return landmarks (B, N, 2) in [0, 1] of the nominal crops after all changes. They may lie outside the crop.

    shift (B,): how far they lie right of the true points, in [0, 1] of the crop. In mirrored crops the labels would lie
    to the left; they are moved so that they lie to the right in all crops. Left and right landmarks change places
    there.
    """
    size = made[0].size
    points = landmarks * size
    for change in made:
        points[..., 0] -= (2 * size * shift * change.mirrored)[:, None]
        points = transform(points, change.matrix)
        if change.clips is not None:
            points = np.where(change.clips[:, None, None], np.clip(points, 0, size), points)
    return exchanged(points / size, made, flip_index)


def hidden(points: np.ndarray, frame: np.ndarray, made: Sequence[Change], border: int) -> np.ndarray:
    """Return which landmarks (B, N, 2), in [0, 1] of the nominal crops, nobody can see after the changes: (B, N) bool.

    These are covered, in black shadow, or outside the picture. frame (B, 4): ends of the source images in [0, 1] of the
    crop, NaN where unknown; border: px of the stored crop around the nominal one. Landmarks keep their order, also in
    mirrored crops.
    """
    size, gone = made[0].size, outside(points, frame[:, None])
    points = points * size
    for change in made:
        if change.source is not None:
            gone |= outside(points + border, change.source[:, None])
        points = transform(points, change.matrix)
        place = points + (change.side - size) / 2  # in px of the result
        gone |= outside(place, np.array([0, 0, change.side, change.side]))
        if change.light is not None:
            depth, light = change.light[:, 0], change.light[:, 1].max(1, keepdims=True)
            share = np.clip((place @ depth[:, :2, None])[..., 0] + depth[:, 2:], 0, 1)
            gone |= 1 + share * (light - 1) < BLACK
        if change.box is not None:
            box = change.box[:, None]
            gone |= ~outside(place, np.concatenate([box[..., :2], box[..., :2] + box[..., 2:]], -1))
        if change.shape is not None:
            gone |= in_shape(change.shape, place[..., 0], place[..., 1])
    return gone


def covers(shape: np.ndarray) -> np.ndarray:
    """Return which of shapes (B, 3, 3) there are: (B,) bool."""
    return shape[:, 2, 0] > 0


def outside(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return whether points (..., 2) lie outside boxes x1, y1, x2, y2 (..., 4); False for NaN."""
    return np.any((points < box[..., :2]) | (points >= box[..., 2:]), -1)


def in_shape(shape: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return whether points with x and y (B, N) lie in shapes (B, 3, 3), see `shapes`."""
    (a, b, c), (d, e, f), (p, *_) = shape.transpose(1, 2, 0)[..., None]
    return np.abs(a * x + b * y + c) ** p + np.abs(d * x + e * y + f) ** p <= 1


def exchanged(values: np.ndarray, made: Sequence[Change], partners: Sequence[int]) -> np.ndarray:
    """Return values (B, N, ...) in which, for mirrored crops, each value is replaced by that of its partner.
    partners (N,).
    """
    mirrored = np.logical_xor.reduce([change.mirrored for change in made])
    return np.where(mirrored.reshape(-1, *[1] * (values.ndim - 1)), values[:, list(partners)], values)


def whole_matrix(made: Sequence[Change]) -> np.ndarray:
    """Return the affines (B, 2, 3) of all changes together, in px of the nominal crop."""
    return compose(*(change.matrix for change in made))


def turned(pose: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return poses (B, 3) in radians of faces after affines (B, 2, 3) of their pictures: mirror, rotation and zoom."""
    sign = np.sign(np.linalg.det(matrix[..., :2]))  # mirroring changes the sides of yaw and roll
    pose = pose * np.stack([np.ones_like(sign), sign, sign], -1)
    return turn_pose(pose, np.arctan2(sign * matrix[..., 1, 0], sign * matrix[..., 0, 0]))
