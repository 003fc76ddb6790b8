"""The 3-D head behind the synthetic faces: a ring model with a linear basis for identity and expression.

The head is a grid: a row is a closed ring round the head (JAW_ROW runs along the jaw bone up to the ear), a column is a
direction `phi` round the vertical axis. A face is `mean + coefficients @ basis`, as in a morphable model (Blanz and
Vetter 1999) but designed by hand (see `fields`), and a rotation of the jaw about its hinge. Landmarks are points of the
same surface on the same basis, so they are exact.

Frame: mm of a face whose outer eye corners are 90 apart; origin at the nasion (landmark 27), x to the right of the
picture, y down, z towards the viewer. The `canonical` (x, y) of a surface point is its place on the undisplaced rings;
paint uses it.
"""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from extras.synthetic.fields import MEAN, curve, expression_fields, identity_fields, relief, smooth

# rings from crown to shoulders: v, y of the front, rise of the side over the front, half width, z of front, side and
# back, exponent of the front
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
RISE_POWER = 2.7  # a ring rises with this power of its angle: the bend of the jaw
JAW_ROW = 121.0
MOUTH_ROW = 71.0
HINGE = np.array([0.0, 25.0, -85.0])
EYE = (32.0, 9.5)  # canonical centre of the image-right eye, on the line through its corners
EYE_HALF = 13.2  # canonical half width of the eye opening
LID_UPPER = 6.6  # canonical height of the upper lid over the line of the corners for a usual open eye
LID_LOWER = 2.6  # canonical depth of the lower lid under it
LID_SAMPLES = np.linspace(-LID_LOWER - 0.4, LID_UPPER * 1.5, 9)

# canonical landmarks of the image-right half and the middle, without jaw and lids: index, mirrored index, x, y
POINTS = np.array(
    [
        [26, 17, 60.0, 1.2],
        [25, 18, 51.0, -9.5],
        [24, 19, 38.0, -16.0],
        [23, 20, 24.6, -17.0],
        [22, 21, 12.6, -14.4],
        [27, 27, 0, 0.8],
        [28, 28, 0, 11.0],
        [29, 29, 0, 20.4],
        [30, 30, 0, 28.9],
        [35, 31, 14.5, 43.5],
        [34, 32, 7.6, 45.6],
        [33, 33, 0, 46.6],
        [45, 36, 45.0, 9.9],
        [42, 39, 18.8, 9.2],
        [54, 48, 26.2, 0],
        [53, 49, 17.0, 64.3],
        [52, 50, 6.8, 61.2],
        [51, 51, 0, 62.4],
        [55, 59, 17.0, 77.6],
        [56, 58, 7.6, 80.8],
        [57, 57, 0, 81.6],
    ],
    np.float64,
)
# landmarks of the inner lips: index, mirrored index, x, 0 to 1 from upper to lower lip
INNER = np.array([[64, 60, 22.5, 0.5], [63, 61, 7.5, 0.0], [62, 62, 0, 0.0], [65, 67, 7.5, 1.0], [66, 66, 0, 1.0]])
JAW_PHI = np.radians([89.2, 81.2, 73.3, 64.2, 53.2, 40.8, 27.8, 13.7, 0.0])  # landmarks 16 down to 8, on JAW_ROW
MARCH = 16  # samples on the way of a contour landmark to the midline


class HeadModel(NamedTuple):
    """The constant part of the model.
    V vertices: those of the grid (rows * columns) first, then the extra points of `slices`.
    """

    rows: int
    columns: int
    mean: np.ndarray  # (V, 3)
    basis: np.ndarray  # (K, V * 3)
    names: dict[str, int]  # row of each coefficient in the basis
    canonical: np.ndarray  # (V, 2)
    phi: np.ndarray  # (V,) radians
    lip: np.ndarray  # (V,) 0 above the mouth line, 1 below it, between them inside the mouth
    jaw: np.ndarray  # (V,) share in the jaw's rotation
    slices: dict[str, slice]

    def grid(self, values: np.ndarray) -> np.ndarray:
        """Return the grid's part of vertex values (V, ...), as (rows, columns, ...)."""
        return values[self.slices["grid"]].reshape(self.rows, self.columns, *values.shape[1:])


def _rings(phi: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return points (..., 3) of the bare rings at angle `phi` (radians, 0 in front, positive to the right) and row `v`."""
    y_front, rise, width, front, side, back, power = (curve(RINGS[:, 0], RINGS[:, i])(v) for i in range(1, 8))
    u, c = np.abs(np.sin(phi)), np.cos(phi)
    ahead = side + (front - side) * np.maximum(1 - u**power, 0) ** (1 / power)
    z = np.where(c >= 0, ahead, side - (side - back) * -c)
    y = y_front - rise * np.minimum(np.abs(phi) / (np.pi / 2), 1) ** RISE_POWER
    return np.stack([width * np.sin(phi), y, z], -1)


def _locate(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (phi, v) of canonical points (x, y) on the front of the head: the inverse of `_rings`, by iteration."""
    width, rise = curve(RINGS[:, 0], RINGS[:, 3]), curve(RINGS[:, 0], RINGS[:, 2])
    v = np.asarray(y, np.float64)
    for _ in range(12):
        phi = np.arcsin(np.clip(x / width(v), -1, 1))
        v = y + rise(v) * (np.abs(phi) / (np.pi / 2)) ** RISE_POWER
    return phi, v


def _landmark_points() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return {group: angles, rows and lip values (n,)} of the points from which `landmarks_3d` reads the landmarks."""
    phi, row = _locate(POINTS[:, 2], POINTS[:, 3])
    corner = POINTS[:, 0] == 54  # the mouth's corner, on its line
    row[corner] = MOUTH_ROW
    phi[corner] = np.arcsin(POINTS[corner, 2] / 75)
    lip = np.where(corner, 0.5, (POINTS[:, 3] > MOUTH_ROW).astype(float))
    found = {"right": (phi, row, lip), "left": (-phi, row, lip)}
    phi, row = np.arcsin(INNER[:, 2] / 75), MOUTH_ROW - 0.8 * (INNER[:, 3] == 0)
    found |= {"inner_right": (phi, row, INNER[:, 3]), "inner_left": (-phi, row, INNER[:, 3])}
    # tracks over the eye, on which the height of a lid picks its landmark
    for name, s in (("lids_right", 1.0), ("lids_left", -1.0)):
        track_x = np.repeat([EYE[0] - 0.36 * EYE_HALF, EYE[0] + 0.36 * EYE_HALF], len(LID_SAMPLES))
        phi, row = _locate(track_x, EYE[1] - np.tile(LID_SAMPLES, 2))
        found[name] = s * phi, row, np.zeros(len(row))
    # ways from the jaw to the midline, on which a contour landmark slides to the visible outline
    start = np.concatenate([-JAW_PHI, JAW_PHI[-2::-1]])
    jaw_y = _rings(start, np.full(17, JAW_ROW))[:, 1]
    way_phi = start[:, None] * (1 - np.linspace(0, 0.97, MARCH))
    way_v = np.full_like(way_phi, JAW_ROW)
    rise = curve(RINGS[:, 0], RINGS[:, 2])
    for _ in range(40):  # a way keeps the height of its start, but does not leave the face for the neck
        level = jaw_y[:, None] + rise(way_v) * (np.abs(way_phi) / (np.pi / 2)) ** RISE_POWER
        way_v = 0.5 * way_v + 0.5 * np.minimum(level, JAW_ROW)
    return found | {"contour": (way_phi.ravel(), way_v.ravel(), np.ones(17 * MARCH))}


@cache
def head_model() -> HeadModel:
    """Return the model, built once per process."""
    half = np.radians(
        np.concatenate(
            [np.arange(0, 30, 2.0), np.arange(30, 60, 3.5), np.arange(60, 91, 4.0), np.arange(100, 181, 13.4)]
        )
    )
    columns = np.concatenate([-half[:0:-1], half])
    upper = np.concatenate(
        [
            np.linspace(-116, -40, 12),
            np.linspace(-34, 30, 20),
            np.arange(32, 50, 1.6),
            np.linspace(50.5, MOUTH_ROW - 0.8, 11),
        ]
    )
    lower = np.concatenate(
        [np.linspace(MOUTH_ROW + 0.8, 90, 10), np.linspace(93, 121, 10), [124, 128, 135, 145, 155, 170, 185, 210, 240]]
    )
    rows = np.concatenate([upper, np.full(6, MOUTH_ROW), lower])
    rows_lip = np.concatenate([np.zeros(len(upper)), np.linspace(0, 1, 6), np.ones(len(lower))])
    points = {
        "grid": (np.tile(columns, len(rows)), np.repeat(rows, len(columns)), np.repeat(rows_lip, len(columns))),
        **_landmark_points(),
    }
    phi, row, lip = (np.concatenate(part) for part in zip(*points.values(), strict=True))
    ends = np.cumsum([0, *(len(part[0]) for part in points.values())]).tolist()
    slices = {name: slice(*span) for name, span in zip(points, pairwise(ends), strict=True)}
    bare = _rings(phi, row)
    x, y = bare[:, 0], bare[:, 1]
    front = smooth(-0.05, 0.3, np.cos(phi))
    gap = np.maximum(np.abs(x) - 27, 0)
    inside_mouth = np.sqrt(np.clip(1 - (x / 27) ** 2, 0, 1)) * front
    line = _rings(phi, np.full_like(phi, MOUTH_ROW))[:, 1]
    jaw = np.clip(0.5 + (lip - 0.5) * inside_mouth + (y - line) / (8 + 1.1 * gap + 30 * (1 - front)), 0, 1)
    jaw = np.where((lip > 0) & (lip < 1) | (row == MOUTH_ROW), 0.5 + (lip - 0.5) * inside_mouth, jaw)
    mean = bare + relief(x, y) * front[:, None]
    fields = identity_fields(mean, x, y, front, jaw) | expression_fields(x, y, front, jaw)
    mean = mean + sum(value * fields[name] for name, value in MEAN.items())
    basis = np.stack([f.ravel() for f in fields.values()]).astype(np.float32)
    names = {name: i for i, name in enumerate(fields)}
    # behind the ears, canonical x goes on growing
    canonical = np.stack([np.where(np.cos(phi) >= 0, x, 2 * 75 * np.sign(x) - x), y], -1)
    canonical, phi, lip, jaw = (part.astype(np.float32) for part in (canonical, phi, lip, jaw * smooth(190, 125, row)))
    return HeadModel(len(rows), len(columns), mean.astype(np.float32), basis, names, canonical, phi, lip, jaw, slices)


def pose_vertices(coefficients: dict[str, float], jaw_angle: float, jaw_side: float = 0.0) -> np.ndarray:
    """Return vertices (V, 3) in mm: mean + coefficients @ basis, then the jaw turned by `jaw_angle` and moved
    `jaw_side` mm.
    """
    model = head_model()
    weight = np.zeros(len(model.names), np.float32)
    for name, value in coefficients.items():
        weight[model.names[name]] = value
    points = model.mean + (weight @ model.basis).reshape(-1, 3)
    if jaw_angle or jaw_side:
        angle = (jaw_angle * model.jaw)[:, None]
        arm = points - HINGE.astype(np.float32)
        y = arm[:, 1:2] * np.cos(angle) + arm[:, 2:3] * np.sin(angle)
        z = arm[:, 2:3] * np.cos(angle) - arm[:, 1:2] * np.sin(angle)
        points = np.concatenate([arm[:, :1] + jaw_side * model.jaw[:, None], y, z], 1) + HINGE.astype(np.float32)
    return points.astype(np.float32)


def lid_height(openness: float, lower: float) -> tuple[float, float]:
    """Return the canonical heights of the upper and lower lid over the line of the eye's corners.

    openness: 0 shut, 1 usual, up to 1.4 wide. lower: 1 for the usual lower lid, less when a smile pushes it up.
    """
    low = -LID_LOWER * lower
    high = low + (LID_UPPER - low) * openness if openness < 1 else LID_UPPER * openness
    return high, low


def both_lids(openness: float, lower: float) -> np.ndarray:
    """Return the heights (2, 2) float32 of the lids of two eyes that are alike; arguments as of `lid_height`."""
    return np.array([lid_height(openness, lower)] * 2, np.float32)


def landmarks_3d(points: np.ndarray, lids: np.ndarray, project: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the 68 landmarks (68, 3) in mm on the posed head.

    points (V, 3): from `pose_vertices`. lids (2, 2): heights (upper, lower) of the image-left and the image-right eye.
    project: maps (M, 3) mm to (M, 2) px; the contour landmarks of the far side slide to the visible outline, as in
    300W.
    """
    s = head_model().slices
    out = np.zeros((68, 3), np.float32)
    right, left = points[s["right"]], points[s["left"]]
    out[POINTS[:, 0].astype(int)], out[POINTS[:, 1].astype(int)] = right, left
    out[INNER[:, 0].astype(int)], out[INNER[:, 1].astype(int)] = points[s["inner_right"]], points[s["inner_left"]]
    profile = (1 - 0.36**2) ** 0.75
    # eye, its tracks, its landmarks (inner, outer) of the upper and of the lower lid
    for eye, name, *edges in ((0, "lids_left", (38, 37), (40, 41)), (1, "lids_right", (43, 44), (47, 46))):
        track = points[s[name]].reshape(2, len(LID_SAMPLES), 3)
        for height, edge in zip(lids[eye], edges, strict=True):
            for side, index in enumerate(edge):
                out[index] = [np.interp(height * profile, LID_SAMPLES, track[side, :, a]) for a in range(3)]
    way = points[s["contour"]].reshape(17, MARCH, 3)
    flat = project(way.reshape(-1, 3)).reshape(17, MARCH, 2)
    axis = project(points[s["right"]][[5]]) - flat[8, 0]  # from the chin to the nasion in the picture
    axis = axis[0] / np.linalg.norm(axis)
    outward = np.array([-axis[1], axis[0]])  # points to the picture's right for an upright face
    lateral = flat @ outward
    for i in range(17):
        if i != 8:
            out[i] = way[i, int(np.argmax(lateral[i] if i > 8 else -lateral[i]))]
    out[8] = way[8, 0]
    return out
