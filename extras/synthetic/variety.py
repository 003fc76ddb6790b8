"""People who differ more than those in photographs: for nets that are trained on drawn faces alone.

Such a net takes what all drawn faces share for a law. So shapes spread wider here, a fifth are children, half of them
babies, heads are uneven, and the details of eyes and brows are drawn from ranges beyond those of photographs.
"""

from functools import cache

import numpy as np

from extras.synthetic import paint
from extras.synthetic.fields import IDENTITY, ridge
from extras.synthetic.head import head_model
from extras.synthetic.people import Person, Pose

SPREAD = 1.35  # standard deviations of shape over those of `people`
CHILD = {"eye_size": 0.16, "lower": -9, "middle": -6, "nose_depth": -5, "forehead": 8, "cheek": 4, "bridge": -4}
BABY = {
    "nose_tip": -2,
    "brow_height": 2,
    "width": 3,
    "chin_depth": -4,
    "jaw_width": -2,
    "mouth_width": -0.1,
    "neck_width": -8,
}
HILLS = 14
NOSE = [[0, 27, 7, 0, 0, 0, 1.8], [0, 39, 6, 0, 0, 0, -2.5]]  # the tip is higher; rows as of `unevenness`
# so that the mean frontal face is that of 300W's training photographs: to coefficients of shape and of expression, mm to
# the lids of open eyes (upper, lower), radians to jaw and pitch
MEAN = {
    "width": -3.6,
    "depth": -6.9,
    "lower": 1.3,
    "middle": 2.7,
    "jaw_width": -4.6,
    "jaw_corner": 2.3,
    "chin_width": -0.9,
    "chin_height": -0.2,
    "chin_depth": -0.8,
    "cheekbone": -0.5,
    "cheek": 1.4,
    "eye_size": -0.057,
    "eye_tilt": -0.043,
    "eye_height": 0.5,
    "brow_height": -0.9,
    "brow_tilt": 0.028,
    "brow_space": -1.4,
    "brow_arch": -0.5,
    "nose_width": -0.048,
    "nose_depth": -1.3,
    "nose_tip": -1.0,
    "hump": -0.3,
    "mouth_width": 0.022,
    "mouth_height": -2.4,
    "upper_lip": -1.2,
    "lower_lip": -0.2,
    "lips": -1.8,
    "temple": -1.5,
    "eye_space": -0.1,
    "brow_ridge": -0.3,
    "bridge": 0.3,
}
EXPRESSION = {
    "smile_left": -0.22,
    "smile_right": -0.22,
    "brow_in_left": -0.24,
    "brow_in_right": -0.24,
    "lower_down": -0.06,
    "stretch": 0.08,
}
LIDS, JAW, PITCH = (1.25, -0.2), -0.024, 0.027
# Landmarks lie elsewhere on painted features than people mark them in photographs. {(landmark of the picture's left, its
# mirror image): mm outwards and down by which it is moved}
MARKS = {
    (0, 16): (-0.5, -6.9),
    (1, 15): (-0.5, -6.9),
    (2, 14): (-0.5, -6.9),
    (3, 13): (-0.4, -5.5),
    (4, 12): (0.3, -3.0),
    (5, 11): (0.5, -1.9),
    (6, 10): (0.5, -0.6),
    (7, 9): (0, 0.8),
    (8, 8): (0, 1.5),
    (17, 26): (-3.4, -4.2),
    (18, 25): (-3.0, -3.2),
    (19, 24): (-1.8, -2.5),
    (20, 23): (-0.9, -1.0),
    (21, 22): (-0.9, -0.9),
    (27, 27): (0, 0.7),
    (28, 28): (0, 0.7),
    (29, 29): (0, 0.7),
    (30, 30): (0, 2.8),
    (31, 35): (0, 1.2),
    (32, 34): (0, 1.2),
    (33, 33): (0, 1.2),
    (36, 45): (-4.5, -2.0),
    (37, 44): (-2.6, -0.6),
    (38, 43): (-1.5, -0.7),
    (39, 42): (0.3, -0.5),
    (40, 47): (-1.3, -1.0),
    (41, 46): (-2.3, -1.0),
    (48, 54): (-0.2, 0.7),
    (57, 57): (0, 0.7),
    (58, 56): (0, 0.7),
    (59, 55): (0, 0.7),
    (66, 66): (0, 0.4),
    (67, 65): (0, 0.4),
}
JAW_MARKS, NEAR = 17, 14  # landmarks of the jaw; vertices that give the slope of the face at a landmark
STEEPEST = 2.0  # mm towards the viewer on a mm, most slope along which a landmark is moved


def vary(rng: np.random.Generator, person: Person) -> Person:
    """Return a person who differs more from others in shape, eyes, brows, collar and hair."""
    shape = {
        name: value + rng.normal(0, np.sqrt(SPREAD**2 - 1)) * IDENTITY[name] for name, value in person.shape.items()
    }
    for name, value in MEAN.items():
        shape[name] += value
    look, fate = person.look, rng.random()
    if fate < 0.2:
        for name, value in (CHILD | (BABY if fate < 0.1 else {})).items():
            shape[name] += value * (rng.uniform(0.8, 1.4) if fate < 0.1 else rng.uniform(0.3, 1.0))
        amount = look.brow_amount * rng.uniform(0.1, 1.0)
        look = look._replace(beard=0.0, moustache=0.0, stubble=0.0, age=0.0, makeup=0.0, brow_amount=amount)
        look = look._replace(blush=rng.uniform(0, 1.0))
        if fate < 0.1:
            style = str(rng.choice(["bald", "short", "hood", "hat"], p=[0.35, 0.35, 0.15, 0.15]))
            person = person._replace(style=style, long=0.0, volume=rng.uniform(0.5, 5), hairline=rng.normal(-4, 8))
    low, high = rng.uniform(-1, 1, 2)
    detail = paint.Detail(
        iris=rng.uniform(0.9, 1.3),
        white=rng.uniform(0.6, 1.5),
        dull=rng.uniform(0, 0.8),
        tear=rng.uniform(0, 1),
        lash=max(rng.uniform(-0.6, 2.6), 0.0),
        reach=max(rng.uniform(-2, 6.5), 0.0),
        droop=rng.uniform(-0.3, 0.7),
        fold=rng.uniform(-1.5, 2.5),
        socket=max(rng.uniform(-0.5, 1), 0.0),
        brow_lift=rng.uniform(-1, 2.5),
        brow_end=rng.uniform(50, 67),
    )
    look = look._replace(
        detail=detail,
        brow_width=look.brow_width * float(np.exp(0.25 * low)),
        mottle=look.mottle * float(np.exp(0.5 * high)),
    )
    hills = np.stack(
        [
            rng.uniform(-70, 70, HILLS),
            rng.uniform(-60, 125, HILLS),
            rng.uniform(8, 28, HILLS),
            np.where(rng.random(HILLS) < 2 / 3, 1.0, 0.0),
            *(rng.normal(0, (0.9, 0.9, 2.0), (HILLS, 3)).T),
        ],
        1,
    )
    shape["neck_width"] -= rng.uniform(0, 16)
    return person._replace(
        shape=shape,
        look=look,
        collar=rng.uniform(0.65, 0.95),
        ear=(rng.uniform(-10, 14), rng.uniform(0.8, 2.6), rng.uniform(0.9, 1.35)),
        cheek=rng.uniform(44, 64),
        hills=np.concatenate([hills, NOSE]).astype(np.float32),
    )


def mean_pose(pose: Pose) -> Pose:
    """Return the pose with the means that belong to MEAN; shut eyes stay shut."""
    expression = pose.expression | {name: pose.expression.get(name, 0.0) + value for name, value in EXPRESSION.items()}
    lids = pose.lids + np.array(LIDS, np.float32) * (pose.lids[:, :1] > 0.5)
    yaw, pitch, roll = pose.angles
    return pose._replace(
        expression=expression, jaw=max(pose.jaw + JAW, 0.0), lids=lids, angles=(yaw, pitch + PITCH, roll)
    )


@cache
def _moves() -> np.ndarray:
    """Return MARKS as mm (68, 2) to the picture's right and down, for both halves of the face."""
    moves = np.zeros((68, 2), np.float32)
    for (left, right), (outwards, down) in MARKS.items():
        moves[right], moves[left] = (outwards, down), (-outwards, down)
    return moves


def as_marked(marks: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return landmarks (68, 3) in mm where people mark them; points (V, 3): the posed head.

    They are moved in x and y by MARKS, and along the slope of the face; those of the jaw keep their depth.
    """
    moved, grid = marks.copy(), points[head_model().slices["grid"]]
    moved[:, :2] += _moves()
    for index in set(np.flatnonzero(_moves().any(1)).tolist()) - set(range(JAW_MARKS)):
        near = grid[np.argsort(((grid - marks[index]) ** 2).sum(1))[:NEAR]] - marks[index]
        plane = np.linalg.lstsq(np.c_[near[:, :2], np.ones(NEAR)], near[:, 2], rcond=None)[0]
        moved[index, 2] += np.clip(plane[:2], -STEEPEST, STEEPEST) @ _moves()[index]
    return moved


def unevenness(hills: np.ndarray) -> np.ndarray:
    """Return the displacement (V, 3) in mm of the head's vertices by hills (n, 7).

    A hill has its canonical place x, y and standard deviation in mm, 1 if it has a mirror image, and its peak in x, y, z.
    """
    model = head_model()
    x, y = model.canonical.T
    out = np.zeros((len(x), 3), np.float32)
    for cx, cy, wide, mirrored, dx, dy, dz in hills:
        rise = ridge(y - cy, wide)
        out += (ridge(x - cx, wide) * rise)[:, None] * np.array([dx, dy, dz], np.float32)
        if mirrored:
            out += (ridge(x + cx, wide) * rise)[:, None] * np.array([-dx, dy, dz], np.float32)
    return out * (np.cos(model.phi) > 0)[:, None]
