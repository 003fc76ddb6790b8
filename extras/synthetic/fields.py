"""Displacement fields over the synthetic head: the mean face, and the basis of identity and expression.

Fields are functions of canonical mm (x, y), see `head`. `front` is 1 on the face and 0 behind it, `jaw` is the share in
the jaw's rotation, 0 above and 1 below the mouth.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

# coefficients of the mean of photographed faces, relative to the relief
MEAN = {
    "width": 0.6,
    "jaw_width": 0.8,
    "lower": -2.4,
    "jaw_corner": 1.2,
    "mouth_height": -1.5,
    "bridge": 1.0,
    "chin_width": 2.4,
    "brow_space": 0.6,
    "upper_lip": -0.8,
    "lower_lip": -0.4,
    "chin_height": 0.8,
}
# standard deviation of each coefficient
IDENTITY = {
    "width": 3.6,
    "depth": 4.0,
    "lower": 4.3,
    "middle": 2.6,
    "forehead": 5.0,
    "jaw_width": 3.8,
    "jaw_corner": 2.2,
    "chin_width": 3.0,
    "chin_height": 2.4,
    "chin_depth": 2.6,
    "cheekbone": 1.8,
    "cheek": 2.4,
    "eye_space": 1.5,
    "eye_size": 0.08,
    "eye_tilt": 0.06,
    "eye_depth": 1.8,
    "eye_height": 1.3,
    "brow_height": 1.8,
    "brow_tilt": 0.06,
    "brow_space": 2.0,
    "brow_arch": 1.0,
    "brow_ridge": 1.6,
    "nose_width": 0.13,
    "nose_depth": 2.3,
    "nose_tip": 1.8,
    "bridge": 2.0,
    "hump": 1.1,
    "mouth_width": 0.08,
    "mouth_height": 1.5,
    "upper_lip": 1.3,
    "lower_lip": 1.4,
    "lips": 1.5,
    "temple": 2.0,
    "mouth_shift": 0.7,
    "nose_shift": 0.6,
    "jaw_shift": 1.0,
    "eye_skew": 0.5,
    "brow_skew": 0.8,
    "neck_width": 5.0,
    "throat": 6.0,
}


def curve(knots: np.ndarray, values: np.ndarray | list) -> Callable[[np.ndarray], np.ndarray]:
    """Return the smooth function through the points (knots, values) that is monotonic between two of them."""
    from scipy.interpolate import PchipInterpolator  # loading it takes half a second; most commands render nothing

    return PchipInterpolator(knots, values)


def smooth(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Return a smooth step of x from 0 at `low` to 1 at `high`, which may be smaller than `low`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def ridge(off: np.ndarray, width: float) -> np.ndarray:
    """Return a Gaussian of standard deviation `width`, 1 where `off` is 0."""
    return np.exp(-0.5 * (off / width) ** 2)


def bump(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    """Return a Gaussian hill at (cx, cy), plus its mirror image at (-cx, cy) unless cx is 0."""
    hill = ridge(x - cx, sx)
    return ridge(y - cy, sy) * (hill if cx == 0 else hill + ridge(x + cx, sx))


def vectors(x: np.ndarray, dx: np.ndarray | float = 0.0, dy: np.ndarray | float = 0.0, dz: np.ndarray | float = 0.0):
    """Return displacements (..., 3) of points (...) whose first coordinate is `x`."""
    return np.stack([np.zeros_like(x) + part for part in (dx, dy, dz)], -1)


def relief(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the displacement (..., 3) from the bare rings to a face with nose, eye sockets, cheekbones, lips and chin."""
    d, hill = np.zeros((*x.shape, 3)), partial(bump, x, y)
    z = d[..., 2]
    knots = np.array([-14, -6, 0, 10, 20, 30, 34.5, 38, 41.7, 44.8, 49, 56])
    height = curve(knots, [0, 4.5, 8, 16, 25, 33, 33.5, 29.5, 20, 12, 6, 0])(np.clip(y, -14, 56))
    half = curve(knots, [14, 11, 9.5, 10, 12.5, 15.5, 17, 17, 16, 15, 15, 15])(np.clip(y, -14, 56))
    z += height * np.exp(-0.5 * (np.abs(x) / (half * 0.62)) ** 2.2)
    z += 8.0 * hill(13, 37.6, 4.6, 4.6)
    z += 2.0 * hill(0, 33, 6, 5)
    z -= 9.0 * hill(31, 6, 14, 9)
    z -= 5.0 * hill(18, 7, 5, 8)
    z += 5.5 * hill(32, 8.5, 9.5, 7)
    z += 3.5 * hill(27, -11, 16, 6)
    z += 4.0 * hill(44, 32, 15, 12)
    z += 6.5 * hill(0, 64, 17, 6) + 9.0 * hill(0, 78, 15, 6.5)
    z -= 2.5 * hill(0, 91, 16, 5)
    z += 5.0 * hill(0, 108, 15, 9)
    z += 3.5 * hill(57, -3, 8, 8)
    d[..., 1] += 3.0 * hill(27, 70, 10, 8)
    return d


def identity_fields(
    p: np.ndarray, x: np.ndarray, y: np.ndarray, front: np.ndarray, jaw: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the fields {name: (V, 3)} of IDENTITY at vertices `p` (V, 3); coefficients are mm unless the field is a
    scale.
    """
    side, field, hill = np.sign(x), partial(vectors, x), partial(bump, x, y)

    def near(*place: float) -> np.ndarray:
        """Return a hill of `bump` on the face only."""
        return hill(*place) * front

    face = smooth(175, 130, y)  # the neck does not follow the face
    eye, mouth = near(32, 7, 17, 11), near(0, 71, 30, 13)
    brow = near(36, -12, 20, 8)
    nose = near(0, 40, 15, 9)
    chin, tip = near(0, 116, 24, 15), near(0, 35, 14, 9)
    gonion = hill(60, 93, 14, 20)
    return {
        "width": field(x / 75 * (0.4 + 0.6 * face)),
        "depth": field(dz=(p[:, 2] + 86) / 90 * face),
        "lower": field(dy=smooth(44, 121, y) * (0.3 + 0.7 * front), dz=0),
        "middle": field(dy=smooth(5, 46, y) * (0.3 + 0.7 * front)),
        "forehead": field(dy=-smooth(-25, -116, y)),
        "jaw_width": field(x / 60 * smooth(35, 95, y) * face),
        "jaw_corner": field(side * gonion, 0.8 * gonion),
        "chin_width": field(x / 20 * hill(0, 116, 22, 14) * front),
        "chin_height": field(dy=chin),
        "chin_depth": field(dz=near(0, 110, 24, 18)),
        "cheekbone": field(side * hill(56, 30, 16, 15), dz=near(48, 32, 16, 13)),
        "cheek": field(side * hill(58, 68, 16, 20), dz=near(45, 66, 15, 18)),
        "eye_space": field(side * eye),
        "eye_size": field((x - side * 32) * eye, (y - 8) * eye),
        "eye_tilt": field(dy=-(np.abs(x) - 32) * eye),
        "eye_depth": field(dz=eye),
        "eye_height": field(dy=eye),
        "brow_height": field(dy=-brow),
        "brow_tilt": field(dy=-(np.abs(x) - 36) * brow),
        "brow_space": field(side * brow),
        "brow_arch": field(dy=-near(42, -13, 9, 7)),
        "brow_ridge": field(dz=near(26, -8, 18, 7)),
        "nose_width": field(x * nose),
        "nose_depth": field(dz=near(0, 32, 13, 13) + 0.3 * hill(0, 48, 14, 6) * front),
        "nose_tip": field(dy=tip),
        "bridge": field(dz=near(0, 7, 10, 12)),
        "hump": field(dz=near(0, 17, 7, 6)),
        "mouth_width": field(x * mouth),
        "mouth_height": field(dy=mouth),
        "upper_lip": field(dy=-near(0, 61, 20, 4.5) * (1 - jaw)),
        "lower_lip": field(dy=near(0, 82, 18, 5) * jaw),
        "lips": field(dz=near(0, 71, 20, 9)),
        "temple": field(x / 75 * hill(0, -35, 400, 28)),
        "mouth_shift": field(mouth),
        "nose_shift": field(tip),
        "jaw_shift": field(smooth(50, 115, y) * face * front),
        "eye_skew": field(dy=side * eye),
        "brow_skew": field(dy=side * brow),
        "neck_width": field(x / 52 * smooth(121, 145, y)),
        "throat": field(dy=near(0, 136, 40, 9), dz=smooth(123, 142, y) * front),
    }


def expression_fields(x: np.ndarray, y: np.ndarray, front: np.ndarray, jaw: np.ndarray) -> dict[str, np.ndarray]:
    """Return the fields {name: (V, 3)} of expressions, for coefficients of about 0 to 1; one per side where faces move
    so.
    """
    fields, hill = {}, partial(bump, x, y)

    def field(*parts: np.ndarray | float) -> np.ndarray:
        return vectors(x, *parts) * front[:, None]

    for name, s in (("left", -1.0), ("right", 1.0)):  # left and right of the picture
        half = smooth(-9, 9, s * x)
        corner = hill(28, 71, 11, 10) * half
        cheek = hill(42, 42, 15, 13) * half
        brow_in, brow_out = hill(16, -13, 11, 10) * half, hill(45, -10, 15, 11) * half
        upper, lower = hill(15, 65, 12, 6) * (1 - jaw) * half, hill(15, 79, 12, 7) * jaw * half
        fields[f"smile_{name}"] = field(
            s * 7 * corner, -6.5 * corner - 4 * cheek - 1.2 * upper + 0.8 * lower, -5 * corner + 2.5 * cheek
        )
        fields[f"frown_{name}"] = field(s * 1.0 * corner, 6 * corner)
        fields[f"brow_in_{name}"] = field(0.0, -6 * brow_in)
        fields[f"brow_out_{name}"] = field(0.0, -6 * brow_out)
        fields[f"brow_knit_{name}"] = field(-s * 3 * brow_in, 4 * brow_in + 2 * brow_out)
        fields[f"sneer_{name}"] = field(0.0, -4 * hill(14, 40, 7, 8) * half - 4 * upper)
    mouth, near = hill(0, 71, 26, 13), hill(0, 71, 25, 12)
    fields["pucker"] = field(-0.36 * x * mouth, 0.0, 6 * hill(0, 71, 17, 11))
    fields["stretch"] = field(0.16 * x * mouth, 0.0, -2 * mouth)
    fields["upper_up"] = field(0.0, -5.5 * hill(0, 66, 17, 7) * (1 - jaw))
    fields["lower_down"] = field(0.0, 5.5 * hill(0, 77, 17, 8) * jaw)
    fields["press"] = field(0.0, 4.0 * hill(0, 61, 24, 4) * (1 - jaw) - 4.0 * hill(0, 82, 22, 4) * jaw, -2 * near)
    fields["puff"] = field(7 * np.sign(x) * hill(46, 68, 15, 15), 0.0, 6 * hill(36, 68, 13, 14))
    fields["chin_up"] = field(0.0, -4 * hill(0, 100, 22, 14) * jaw)
    return fields
