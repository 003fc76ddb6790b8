"""The 3D head behind the synthetic faces: a ring model with a linear basis for identity and expression.

The head is a grid of rings: a row is a closed curve round the head (the row of the jaw runs along the jaw bone, up to the
ear), a column is a direction `phi` round the vertical axis. All that varies between people and moments is a displacement
field over this grid, worked out once a process, so that a face is `mean + coefficients @ basis` as in a morphable model
(Blanz and Vetter 1999), here designed by hand, and a rotation of the jaw about its hinge. Landmarks are points of the same
surface and ride on the same basis, therefore exact.

Frame: millimetres of a face whose outer eye corners are 90 apart; origin at the nasion (landmark 27), x to the right of the
picture, y down, z towards the viewer. `canonical` coordinates (x, y) of a surface point are those of the undisplaced rings:
paint is laid out in them.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

# Rings from crown to shoulders: v, y of the front, rise of the side over the front, half width, z of front, side and back,
# exponent of the front fmt: off
RINGS = np.array(
    [
        [-116, -116, 0, 14.0, -88, -103, -120, 2.00],
    [-108, -108, 0, 36.0, -62, -101, -148, 2.00],
    [-95, -95, 0, 53.0, -42, -98, -166, 2.00],
    [-75, -75, 0, 66.0, -25, -95, -178, 1.95],
    [-50, -50, 1, 73.0, -11, -92, -185, 1.85],
    [-25, -25, 6, 74.5, -4, -88, -187, 1.75],
    [0, 0, 17, 75.0, -9, -86, -186, 1.72],
        [20, 20, 27, 75.5, -4, -86, -183, 1.72],
        [45, 45, 40, 75.5, 5, -87, -176, 1.62],
        [73, 73, 57, 75.0, 8, -88, -168, 1.50],
        [100, 100, 78, 74.5, 7, -89, -160, 1.42],
        [121, 119.5, 96, 74.0, 1, -88, -155, 1.38],
        [135, 130, 76, 64.0, -24, -93, -152, 1.60],
        [155, 141, 50, 54.0, -44, -94, -146, 1.90],
        [185, 164, 20, 51.0, -46, -92, -140, 2.00],
        [240, 218, 0, 58.0, -34, -84, -136, 2.00],
    ],
    np.float64,
)
RISE_POWER = 2.7  # how late round the head a ring rises: the bend of the jaw
# fmt: on
JAW_ROW = 121.0
MOUTH_ROW = 71.0
HINGE = np.array([0.0, 25.0, -85.0])
EYE = (32.0, 9.5)  # canonical centre of the image-right eye, on the line through its corners
EYE_HALF = 13.2  # canonical half width of the eye opening
LID_UPPER = 6.6  # canonical height of the upper lid over the line of the corners at openness 1
LID_LOWER = 2.6  # and of the lower lid under it
LID_SAMPLES = np.linspace(-LID_LOWER - 0.4, LID_UPPER * 1.5, 9)

# fmt: off
# Canonical landmarks of the image-right half and the middle: index, mirrored index, x, y. Jaw and lids have rules of their own.
POINTS = np.array([
    [26, 17, 60.0, 1.2], [25, 18, 51.0, -9.5], [24, 19, 38.0, -16.0], [23, 20, 24.6, -17.0], [22, 21, 12.6, -14.4],
    [27, 27, 0, 0.8], [28, 28, 0, 11.0], [29, 29, 0, 20.4], [30, 30, 0, 28.9],
    [35, 31, 14.5, 43.5], [34, 32, 7.6, 45.6], [33, 33, 0, 46.6],
    [45, 36, 45.0, 9.9], [42, 39, 18.8, 9.2],
    [54, 48, 26.2, 0], [53, 49, 17.0, 64.3], [52, 50, 6.8, 61.2], [51, 51, 0, 62.4],
    [55, 59, 17.0, 77.6], [56, 58, 7.6, 80.8], [57, 57, 0, 81.6],
], np.float64)
INNER = np.array([[64, 60, 22.5, 0.5], [63, 61, 7.5, 0.0], [62, 62, 0, 0.0], [65, 67, 7.5, 1.0], [66, 66, 0, 1.0]])
JAW_PHI = np.radians([89.2, 81.2, 73.3, 64.2, 53.2, 40.8, 27.8, 13.7, 0.0])     # landmarks 16 down to 8 on the row of the jaw
MARCH = 16                                                                    # samples of a contour landmark's way to the midline


# fmt: on


class Head(NamedTuple):
    """The constant part of the model: grid attributes, mean and basis.

    `mean` (V, 3) and `basis` (K, V*3) hold the grid's R*C vertices first, then the extra points of `slices`; `canonical` (V,
    2), `phi` (V,), `lip` (V,) (0 over the mouth line, 1 under it, between them inside the mouth) and `jaw` (V,) (share in
    the jaw's rotation) go along.
    """

    rows: int
    columns: int
    mean: np.ndarray
    basis: np.ndarray
    names: dict[str, int]
    canonical: np.ndarray
    phi: np.ndarray
    lip: np.ndarray
    jaw: np.ndarray
    slices: dict[str, slice]

    def grid(self, values: np.ndarray) -> np.ndarray:
        """The grid's part of vertex values (V, ...), as (rows, columns, ...)."""
        return values[self.slices["grid"]].reshape(self.rows, self.columns, *values.shape[1:])


def smooth(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at `low` to 1 at `high` (which may be the smaller)."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def bump(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    """Gaussian hill about (cx, cy), and its mirror image about (-cx, cy) unless cx is 0."""
    tall = np.exp(-0.5 * ((y - cy) / sy) ** 2)
    hill = np.exp(-0.5 * ((x - cx) / sx) ** 2)
    return tall * (hill if cx == 0 else hill + np.exp(-0.5 * ((x + cx) / sx) ** 2))


def _rings(phi: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Points (..., 3) of the bare rings at angle `phi` (radians, 0 = front, positive to the right) and row `v`."""
    y_front, rise, width, front, side, back, power = (PchipInterpolator(RINGS[:, 0], RINGS[:, i])(v) for i in range(1, 8))
    u, c = np.abs(np.sin(phi)), np.cos(phi)
    ahead = side + (front - side) * np.maximum(1 - u**power, 0) ** (1 / power)
    z = np.where(c >= 0, ahead, side - (side - back) * -c)
    y = y_front - rise * np.minimum(np.abs(phi) / (np.pi / 2), 1) ** RISE_POWER
    return np.stack([width * np.sin(phi), y, z], -1)


def _locate(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(phi, v) of the canonical points (x, y) on the front of the head: the inverse of `_rings`, by iteration."""
    width, rise = PchipInterpolator(RINGS[:, 0], RINGS[:, 3]), PchipInterpolator(RINGS[:, 0], RINGS[:, 2])
    v = np.asarray(y, np.float64)
    for _ in range(12):
        phi = np.arcsin(np.clip(x / width(v), -1, 1))
        v = y + rise(v) * (np.abs(phi) / (np.pi / 2)) ** RISE_POWER
    return phi, v


def _relief(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Displacement (..., 3) from the bare rings to the mean face: nose, sockets, brow ridge, cheekbones, lips, chin."""
    d = np.zeros((*x.shape, 3))
    knots = np.array([-14, -6, 0, 10, 20, 30, 34.5, 38, 41.7, 44.8, 49, 56])
    height = PchipInterpolator(knots, [0, 4.5, 8, 16, 25, 33, 33.5, 29.5, 20, 12, 6, 0])(np.clip(y, -14, 56))
    half = PchipInterpolator(knots, [14, 11, 9.5, 10, 12.5, 15.5, 17, 17, 16, 15, 15, 15])(np.clip(y, -14, 56))
    d[..., 2] += height * np.exp(-0.5 * (np.abs(x) / (half * 0.62)) ** 2.2)
    d[..., 2] += 8.0 * bump(x, y, 13, 37.6, 4.6, 4.6)
    d[..., 2] += 2.0 * bump(x, y, 0, 33, 6, 5)
    d[..., 2] -= 9.0 * bump(x, y, 31, 6, 14, 9)
    d[..., 2] -= 5.0 * bump(x, y, 18, 7, 5, 8)
    d[..., 2] += 5.5 * bump(x, y, 32, 8.5, 9.5, 7)
    d[..., 2] += 3.5 * bump(x, y, 27, -11, 16, 6)
    d[..., 2] += 4.0 * bump(x, y, 44, 32, 15, 12)
    d[..., 2] += 6.5 * bump(x, y, 0, 64, 17, 6) + 9.0 * bump(x, y, 0, 78, 15, 6.5)
    d[..., 2] -= 2.5 * bump(x, y, 0, 91, 16, 5)
    d[..., 2] += 5.0 * bump(x, y, 0, 108, 15, 9)
    d[..., 2] += 3.5 * bump(x, y, 57, -3, 8, 8)
    d[..., 1] += 3.0 * bump(x, y, 27, 70, 10, 8)
    return d


# fmt: off
# how the mean of photographed faces differs from the relief above, in the units of the identity fields
MEAN = {
    "width": 0.6, "jaw_width": 0.8, "lower": -2.4, "jaw_corner": 1.2, "mouth_height": -1.5, "bridge": 1.0,
    "chin_width": 2.4, "brow_space": 0.6, "upper_lip": -0.8, "lower_lip": -0.4, "chin_height": 0.8,
}
# name: (standard deviation of its coefficient); the fields themselves follow in _identity_fields and _expression_fields
IDENTITY = {
    "width": 3.6, "depth": 4.0, "lower": 4.3, "middle": 2.6, "forehead": 5.0, "jaw_width": 3.8,
    "jaw_corner": 2.2, "chin_width": 3.0, "chin_height": 2.4, "chin_depth": 2.6, "cheekbone": 1.8, "cheek": 2.4,
    "eye_space": 1.5, "eye_size": 0.08, "eye_tilt": 0.06, "eye_depth": 1.8, "eye_height": 1.3, "brow_height": 1.8,
    "brow_tilt": 0.06, "brow_space": 2.0, "brow_arch": 1.0, "brow_ridge": 1.6, "nose_width": 0.13, "nose_depth": 2.3,
    "nose_tip": 1.8, "bridge": 2.0, "hump": 1.1, "mouth_width": 0.08, "mouth_height": 1.5, "upper_lip": 1.3,
    "lower_lip": 1.4, "lips": 1.5, "temple": 2.0, "mouth_shift": 0.7, "nose_shift": 0.6, "jaw_shift": 1.0,
    "eye_skew": 0.5, "brow_skew": 0.8, "neck_width": 5.0, "throat": 6.0,
}


# fmt: on


def _identity_fields(p: np.ndarray, x: np.ndarray, y: np.ndarray, front: np.ndarray, jaw: np.ndarray) -> dict[str, np.ndarray]:
    zero, side = np.zeros_like(x), np.sign(x)
    face = smooth(175, 130, y)  # the neck does not follow the face
    eye, mouth = bump(x, y, 32, 7, 17, 11) * front, bump(x, y, 0, 71, 30, 13) * front
    brow = bump(x, y, 36, -12, 20, 8) * front
    nose = bump(x, y, 0, 40, 15, 9) * front

    def field(dx: np.ndarray | float = 0.0, dy: np.ndarray | float = 0.0, dz: np.ndarray | float = 0.0) -> np.ndarray:
        return np.stack([zero + dx, zero + dy, zero + dz], -1)

    chin, tip = bump(x, y, 0, 116, 24, 15) * front, bump(x, y, 0, 35, 14, 9) * front
    gonion = bump(x, y, 60, 93, 14, 20)
    return {
        "width": field(x / 75 * (0.4 + 0.6 * face)),
        "depth": field(dz=(p[:, 2] + 86) / 90 * face),
        "lower": field(dy=smooth(44, 121, y) * (0.3 + 0.7 * front), dz=0),
        "middle": field(dy=smooth(5, 46, y) * (0.3 + 0.7 * front)),
        "forehead": field(dy=-smooth(-25, -116, y)),
        "jaw_width": field(x / 60 * smooth(35, 95, y) * face),
        "jaw_corner": field(side * gonion, 0.8 * gonion),
        "chin_width": field(x / 20 * bump(x, y, 0, 116, 22, 14) * front),
        "chin_height": field(dy=chin),
        "chin_depth": field(dz=bump(x, y, 0, 110, 24, 18) * front),
        "cheekbone": field(side * bump(x, y, 56, 30, 16, 15), dz=bump(x, y, 48, 32, 16, 13) * front),
        "cheek": field(side * bump(x, y, 58, 68, 16, 20), dz=bump(x, y, 45, 66, 15, 18) * front),
        "eye_space": field(side * eye),
        "eye_size": field((x - side * 32) * eye, (y - 8) * eye),
        "eye_tilt": field(dy=-(np.abs(x) - 32) * eye),
        "eye_depth": field(dz=eye),
        "eye_height": field(dy=eye),
        "brow_height": field(dy=-brow),
        "brow_tilt": field(dy=-(np.abs(x) - 36) * brow),
        "brow_space": field(side * brow),
        "brow_arch": field(dy=-bump(x, y, 42, -13, 9, 7) * front),
        "brow_ridge": field(dz=bump(x, y, 26, -8, 18, 7) * front),
        "nose_width": field(x * nose),
        "nose_depth": field(dz=bump(x, y, 0, 32, 13, 13) * front + 0.3 * bump(x, y, 0, 48, 14, 6) * front),
        "nose_tip": field(dy=tip),
        "bridge": field(dz=bump(x, y, 0, 7, 10, 12) * front),
        "hump": field(dz=bump(x, y, 0, 17, 7, 6) * front),
        "mouth_width": field(x * mouth),
        "mouth_height": field(dy=mouth),
        "upper_lip": field(dy=-bump(x, y, 0, 61, 20, 4.5) * front * (1 - jaw)),
        "lower_lip": field(dy=bump(x, y, 0, 82, 18, 5) * front * jaw),
        "lips": field(dz=bump(x, y, 0, 71, 20, 9) * front),
        "temple": field(x / 75 * bump(x, y, 0, -35, 400, 28)),
        "mouth_shift": field(mouth),
        "nose_shift": field(tip),
        "jaw_shift": field(smooth(50, 115, y) * face * front),
        "eye_skew": field(dy=side * eye),
        "brow_skew": field(dy=side * brow),
        "neck_width": field(x / 52 * smooth(121, 145, y)),
        "throat": field(dy=bump(x, y, 0, 136, 40, 9) * front, dz=smooth(123, 142, y) * front),
    }


def _expression_fields(x: np.ndarray, y: np.ndarray, front: np.ndarray, jaw: np.ndarray) -> dict[str, np.ndarray]:
    """Fields whose coefficient is about 0 to 1, sometimes negative; one a side where faces are not symmetric."""
    fields = {}

    def field(dx: np.ndarray | float = 0.0, dy: np.ndarray | float = 0.0, dz: np.ndarray | float = 0.0) -> np.ndarray:
        return np.stack([np.zeros_like(x) + dx, np.zeros_like(x) + dy, np.zeros_like(x) + dz], -1) * front[:, None]

    for name, s in (("left", -1.0), ("right", 1.0)):  # left and right of the picture
        half = smooth(-9, 9, s * x)
        corner = bump(x, y, 28, 71, 11, 10) * half
        cheek = bump(x, y, 42, 42, 15, 13) * half
        brow_in, brow_out = bump(x, y, 16, -13, 11, 10) * half, bump(x, y, 45, -10, 15, 11) * half
        upper, lower = bump(x, y, 15, 65, 12, 6) * (1 - jaw) * half, bump(x, y, 15, 79, 12, 7) * jaw * half
        fields[f"smile_{name}"] = field(
            s * 7 * corner, -6.5 * corner - 4 * cheek - 1.2 * upper + 0.8 * lower, -5 * corner + 2.5 * cheek
        )
        fields[f"frown_{name}"] = field(s * 1.0 * corner, 6 * corner)
        fields[f"brow_in_{name}"] = field(0.0, -6 * brow_in)
        fields[f"brow_out_{name}"] = field(0.0, -6 * brow_out)
        fields[f"brow_knit_{name}"] = field(-s * 3 * brow_in, 4 * brow_in + 2 * brow_out)
        fields[f"sneer_{name}"] = field(0.0, -4 * bump(x, y, 14, 40, 7, 8) * half - 4 * upper)
    mouth, near = bump(x, y, 0, 71, 26, 13), bump(x, y, 0, 71, 25, 12)
    fields["pucker"] = field(-0.36 * x * mouth, 0.0, 6 * bump(x, y, 0, 71, 17, 11))
    fields["stretch"] = field(0.16 * x * mouth, 0.0, -2 * mouth)
    fields["upper_up"] = field(0.0, -5.5 * bump(x, y, 0, 66, 17, 7) * (1 - jaw))
    fields["lower_down"] = field(0.0, 5.5 * bump(x, y, 0, 77, 17, 8) * jaw)
    fields["press"] = field(0.0, 4.0 * bump(x, y, 0, 61, 24, 4) * (1 - jaw) - 4.0 * bump(x, y, 0, 82, 22, 4) * jaw, -2 * near)
    fields["puff"] = field(7 * np.sign(x) * bump(x, y, 46, 68, 15, 15), 0.0, 6 * bump(x, y, 36, 68, 13, 14))
    fields["chin_up"] = field(0.0, -4 * bump(x, y, 0, 100, 22, 14) * jaw)
    return fields


@cache
def head() -> Head:
    """The model, built on first use in a process."""
    half = np.radians(
        np.concatenate([np.arange(0, 30, 2.0), np.arange(30, 60, 3.5), np.arange(60, 91, 4.0), np.arange(100, 181, 13.4)])
    )
    phi = np.concatenate([-half[:0:-1], half])
    upper = np.concatenate(
        [np.linspace(-116, -40, 12), np.linspace(-34, 30, 20), np.arange(32, 50, 1.6), np.linspace(50.5, MOUTH_ROW - 0.8, 11)]
    )
    lower = np.concatenate(
        [np.linspace(MOUTH_ROW + 0.8, 90, 10), np.linspace(93, 121, 10), [124, 128, 135, 145, 155, 170, 185, 210, 240]]
    )
    inside = np.linspace(0, 1, 6)
    rows_v = np.concatenate([upper, np.full(6, MOUTH_ROW), lower])
    rows_lip = np.concatenate([np.zeros(len(upper)), inside, np.ones(len(lower))])
    grid_phi, grid_v = np.broadcast_arrays(phi[None], rows_v[:, None])
    points = [(grid_phi.ravel(), grid_v.ravel(), np.repeat(rows_lip, len(phi)))]
    slices, count = {"grid": slice(0, len(rows_v) * len(phi))}, len(rows_v) * len(phi)

    def add(name: str, angle: np.ndarray, row: np.ndarray, lip: np.ndarray) -> None:
        nonlocal count
        points.append((angle, row, lip))
        slices[name] = slice(count, count + len(angle))
        count += len(angle)

    right = POINTS.copy()
    angle, row = _locate(right[:, 2], right[:, 3])
    corner = right[:, 0] == 54
    row[corner] = MOUTH_ROW
    angle[corner] = np.arcsin(right[corner, 2] / 75)
    lip = np.where(corner, 0.5, (right[:, 3] > MOUTH_ROW).astype(float))
    add("right", angle, row, lip)
    add("left", -angle, row, lip)
    angle = np.arcsin(INNER[:, 2] / 75)
    add("inner_right", angle, MOUTH_ROW - 0.8 * (INNER[:, 3] == 0), INNER[:, 3])
    add("inner_left", -angle, MOUTH_ROW - 0.8 * (INNER[:, 3] == 0), INNER[:, 3])
    # lids: tracks over the eye on which the lid's height picks the point
    for name, s in (("lids_right", 1.0), ("lids_left", -1.0)):
        track_x = np.repeat([EYE[0] - 0.36 * EYE_HALF, EYE[0] + 0.36 * EYE_HALF], len(LID_SAMPLES))
        angle, row = _locate(track_x, EYE[1] - np.tile(LID_SAMPLES, 2))
        add(name, s * angle, row, np.zeros(len(row)))
    # contour: from the jaw's row to the midline, the way a landmark may slide to the visible outline
    start = np.concatenate([-JAW_PHI, JAW_PHI[-2::-1]])
    march = np.linspace(0, 0.97, MARCH)
    jaw_y = _rings(start, np.full(17, JAW_ROW))[:, 1]
    way_phi = start[:, None] * (1 - march)
    way_v = np.full_like(way_phi, JAW_ROW)
    rise = PchipInterpolator(RINGS[:, 0], RINGS[:, 2])
    for _ in range(40):  # hold the height of the start, yet never leave the face for the neck
        way_v = 0.5 * way_v + 0.5 * np.minimum(
            jaw_y[:, None] + rise(way_v) * (np.abs(way_phi) / (np.pi / 2)) ** RISE_POWER, JAW_ROW
        )
    add("contour", way_phi.ravel(), way_v.ravel(), np.ones(17 * MARCH))

    angle, row, lip = (np.concatenate(part) for part in zip(*points, strict=True))
    bare = _rings(angle, row)
    x, y = bare[:, 0], bare[:, 1]
    front = smooth(-0.05, 0.3, np.cos(angle))
    gap = np.maximum(np.abs(x) - 27, 0)
    inside_mouth = np.sqrt(np.clip(1 - (x / 27) ** 2, 0, 1)) * front
    line = _rings(angle, np.full_like(angle, MOUTH_ROW))[:, 1]
    jaw = np.clip(0.5 + (lip - 0.5) * inside_mouth + (y - line) / (8 + 1.1 * gap + 30 * (1 - front)), 0, 1)
    jaw = np.where((lip > 0) & (lip < 1) | (row == MOUTH_ROW), 0.5 + (lip - 0.5) * inside_mouth, jaw)
    relief = _relief(x, y) * front[:, None]
    mean = bare + relief
    fields = _identity_fields(mean, x, y, front, jaw) | _expression_fields(x, y, front, jaw)
    mean = mean + sum(value * fields[name] for name, value in MEAN.items())
    basis = np.stack([f.ravel() for f in fields.values()])
    names = {name: i for i, name in enumerate(fields)}
    jaw = jaw * smooth(190, 125, row)
    return Head(
        len(rows_v),
        len(phi),
        mean.astype(np.float32),
        basis.astype(np.float32),
        names,
        np.stack([np.where(np.cos(angle) >= 0, x, 2 * 75 * np.sign(x) - x), y], -1).astype(np.float32),
        angle.astype(np.float32),
        lip.astype(np.float32),
        jaw.astype(np.float32),
        slices,
    )


def pose_vertices(coefficients: dict[str, float], jaw_angle: float, jaw_side: float = 0.0) -> np.ndarray:
    """Vertices (V, 3) of the head in mm: mean + coefficients @ basis, then the jaw turned by `jaw_angle` radians and moved
    `jaw_side` mm."""
    model = head()
    weight = np.zeros(len(model.names), np.float32)
    for name, value in coefficients.items():
        weight[model.names[name]] = value
    points = model.mean + (weight @ model.basis).reshape(-1, 3)
    if jaw_angle or jaw_side:
        angle = (jaw_angle * model.jaw)[:, None]
        arm = points - HINGE.astype(np.float32)
        y = arm[:, 1:2] * np.cos(angle) - arm[:, 2:3] * -np.sin(angle)
        z = arm[:, 2:3] * np.cos(angle) + arm[:, 1:2] * -np.sin(angle)
        points = np.concatenate([arm[:, :1] + jaw_side * model.jaw[:, None], y, z], 1) + HINGE.astype(np.float32)
    return points.astype(np.float32)


def lid_height(openness: float, lower: float) -> tuple[float, float]:
    """Canonical heights over the line of the eye's corners of the upper and the lower lid: `openness` 0 is shut, 1 usual, up
    to 1.4 wide; `lower` 1 is the usual lower lid, less when it is pushed up by a smile."""
    low = -LID_LOWER * lower
    return (low + (LID_UPPER - low) * openness if openness < 1 else LID_UPPER * openness), low


def landmarks_3d(points: np.ndarray, lids: np.ndarray, project: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The 68 landmarks (68, 3) in mm on the posed head.

    `points` (V, 3) as from `pose_vertices`; `lids` (2, 2) heights (upper, lower) of the image-left and the image-right eye;
    `project` maps (M, 3) mm to (M, 2) pixels and is used to find the visible outline, on which the far side's contour points
    slide (300W's way).
    """
    s = head().slices
    out = np.zeros((68, 3), np.float32)
    right, left = points[s["right"]], points[s["left"]]
    out[POINTS[:, 0].astype(int)], out[POINTS[:, 1].astype(int)] = right, left
    out[INNER[:, 0].astype(int)], out[INNER[:, 1].astype(int)] = points[s["inner_right"]], points[s["inner_left"]]
    for eye, name, (inner_up, outer_up, inner_low, outer_low) in (
        (0, "lids_left", (38, 37, 40, 41)),
        (1, "lids_right", (43, 44, 47, 46)),
    ):
        track = points[s[name]].reshape(2, len(LID_SAMPLES), 3)
        profile = (1 - 0.36**2) ** 0.75
        for index, side, height in (
            (inner_up, 0, lids[eye, 0]),
            (outer_up, 1, lids[eye, 0]),
            (inner_low, 0, lids[eye, 1]),
            (outer_low, 1, lids[eye, 1]),
        ):
            out[index] = [np.interp(height * profile, LID_SAMPLES, track[side, :, a]) for a in range(3)]
    way = points[s["contour"]].reshape(17, MARCH, 3)
    flat = project(way.reshape(-1, 3)).reshape(17, MARCH, 2)
    axis = project(points[s["right"]][[5]]) - flat[8, 0]  # from the chin to the nasion, in the picture
    axis = axis[0] / np.linalg.norm(axis)
    outward = np.array([-axis[1], axis[0]])  # to the picture's right for an upright face
    lateral = flat @ outward
    for i in range(17):
        if i != 8:
            out[i] = way[i, int(np.argmax(lateral[i] if i > 8 else -lateral[i]))]
    out[8] = way[8, 0]
    return out
