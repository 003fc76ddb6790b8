"""Head pose: ten landmarks against the same points of a rigid 3D head, as in Peppa."""

import math

import cv2
import numpy as np

from pipnet.errors import UserError
from pipnet.layout import Layout

# Points of the head (10, 3); x to the image's left, y up, z out of the face. Outer and inner end of the left brow,
# inner and outer end of the right brow, outer and inner corner of the left eye, inner and outer corner of the right
# eye, nose wings
_HALF = np.array(
    [
        (6.825897, 6.760612, 4.402142),
        (1.330353, 7.122144, 6.903745),
        (5.311432, 5.485328, 3.987654),
        (1.789930, 5.393625, 4.413414),
        (2.005628, 1.409845, 6.165652),
    ]
)
MODEL = np.stack([_HALF, _HALF * (-1, 1, 1)], 1)[[0, 1, 1, 0, 2, 3, 3, 2, 4, 4], [0, 0, 1, 1, 0, 0, 1, 1, 0, 1]]

# The landmarks of these points. The mean of two is taken where a layout has both edges of the brow
POINTS: dict[str, list[tuple[int, ...]]] = {
    "68": [(17,), (21,), (22,), (26,), (36,), (39,), (42,), (45,), (31,), (35,)],
    "98": [(33,), (37, 38), (42, 50), (46,), (60,), (64,), (68,), (72,), (55,), (59,)],
    "106": [(33,), (37, 38), (42, 50), (46,), (66,), (70,), (75,), (79,), (58,), (62,)],
}
Points = list[tuple[int, tuple[int, ...]]]  # row of MODEL, landmarks whose mean is that point
LEAST = 6  # points that solvePnP needs
SMALLEST = 1e-3  # px of a face that has a pose
FAR = 10.0  # distance of the camera from the face / the face's size in the picture


def pose_points(layout: Layout) -> Points:
    """Return the row of MODEL and the landmarks for each point that `layout` has, also through same_as.

    UserError if the layout has fewer than six of the ten points.
    """
    found: Points = []
    for name, places in layout.places().items():
        rows = [
            (row, tuple(places[i] for i in ids))
            for row, ids in enumerate(POINTS.get(name, ()))
            if places.keys() >= {*ids}
        ]
        found = max(found, rows, key=len)
    if len(found) < LEAST:
        raise UserError(
            f"layout '{layout.name}' has {len(found)} of the points that head pose needs; give a net of layout "
            f"{', '.join(POINTS)}, or same_as with {LEAST} or more of the brows' ends, eye corners and nose wings"
        )
    return found


def head_pose(
    landmarks: np.ndarray, layout: Layout, width: int | None = None, height: int | None = None
) -> tuple[float, float, float]:
    """Return (pitch, yaw, roll) in degrees of a face, from its landmarks (N, 2) in px. NaN if one of the points is not
    finite, or if they lie in one place.

    The convention is that of 300W-LP, of our labels and nets: pitch is positive when the face looks up, yaw when it
    looks to the image's left, roll when it leans clockwise as seen. The head is turned by Rx(pitch) Ry(yaw) Rz(roll).
    The camera is straight ahead, FAR face sizes away: size and place of the face in its image have no effect.

    width, height: of the image, for the angles of Peppa's demo, with its pitch upwards. There the head is turned by
    Rz(roll) Ry(yaw) Rx(pitch), the focal length is the image's width and its middle the camera's centre, so yaw
    depends on the size of the face. UserError for a layout that shares fewer than six of the ten points, and for
    landmarks of another shape.
    """
    points, landmarks = pose_points(layout), layout.checked(landmarks)
    seen = np.array([landmarks[list(ids)].mean(0) for _, ids in points])
    if not (np.isfinite(seen).all() and np.ptp(seen, axis=0).max() >= SMALLEST):
        return math.nan, math.nan, math.nan
    if width is None or height is None:
        return tuple(np.degrees(far_poses(landmarks[None], points)[0]).tolist())
    camera = np.array([(width, 0, width // 2), (0, width, height // 2), (0, 0, 1)], dtype=np.float64)
    model = MODEL[[row for row, _ in points]]
    _, rotation, shift = cv2.solvePnP(model, seen, camera, None)
    # solved for a head behind the camera, mirrored, as the model's y points up: start again in front of it
    if shift[2] > 0:
        rotation = cv2.Rodrigues(np.diag([-1.0, -1.0, 1.0]) @ cv2.Rodrigues(rotation)[0])[0]
        _, rotation, shift = cv2.solvePnP(model, seen, camera, None, rotation, -shift, useExtrinsicGuess=True)
    pitch, yaw, roll = cv2.decomposeProjectionMatrix(np.hstack([cv2.Rodrigues(rotation)[0], shift]))[6].ravel().tolist()
    return -pitch, yaw, roll  # OpenCV's pitch is positive when the face looks down


def far_poses(landmarks: np.ndarray, points: Points) -> np.ndarray:
    """Return pitch, yaw, roll (M, 3) in radians, as in `head_pose`, of landmarks (M, N, 2) in px; NaN where too few are
    known or they lie in one place.

    points: those of `pose_points`.
    """
    seen = np.stack([landmarks[:, list(ids)].mean(1) for _, ids in points], 1)
    model = MODEL[[row for row, _ in points]] * (-1, -1, -1)  # x to the right, y down, z away from the camera
    found = np.full((len(landmarks), 3), np.nan)
    for face, marks in enumerate(seen):
        known = np.isfinite(marks).all(1)
        if known.sum() < LEAST:
            continue
        centred = marks[known] - marks[known].mean(0)
        size = np.ptp(centred, axis=0).max()
        if size < SMALLEST:
            continue
        far = FAR * size
        camera = np.array([(far, 0, 0), (0, far, 0), (0, 0, 1)])
        solved, rotation, shift = cv2.solvePnP(model[known], centred, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        if solved:
            rotation, _ = cv2.solvePnPRefineLM(model[known], centred, camera, None, rotation, shift)
            turn = cv2.Rodrigues(rotation)[0]
            pitch, roll = np.arctan2(turn[1, 2], turn[2, 2]), np.arctan2(-turn[0, 1], turn[0, 0])
            found[face] = pitch, np.arcsin(np.clip(turn[0, 2], -1, 1)), roll
    return found


def turn_pose(pose: np.ndarray, angle: float | np.ndarray) -> np.ndarray:
    """Return pitch, yaw, roll (..., 3) of heads whose pictures are turned clockwise by `angle` (...), radians, as in
    300W-LP.

    There the head is turned by Rx(pitch) Ry(yaw) Rz(roll), with y upwards.
    """
    (sp, sy, sr), (cp, cy, cr) = (np.moveaxis(part, -1, 0) for part in (np.sin(pose), np.cos(pose)))
    sine, cosine = np.sin(angle), np.cos(angle)
    top, middle = np.stack([cy * cr, cy * sr, -sy]), np.stack([sp * sy * cr - cp * sr, sp * sy * sr + cp * cr, sp * cy])
    top, middle = cosine * top + sine * middle, cosine * middle - sine * top
    return np.stack(
        [np.arctan2(middle[2], cp * cy), -np.arcsin(np.clip(top[2], -1, 1)), np.arctan2(top[1], top[0])], -1
    )
