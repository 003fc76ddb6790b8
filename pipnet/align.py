"""Upright, aligned pictures of faces (chips), as face recognition nets take them."""

import math
from typing import Any

import cv2
import numpy as np

from pipnet.errors import UserError, as_text, is_integer
from pipnet.geometry import carry, opencv_matrix, similarity, transform, turn_about
from pipnet.layout import Layout

# ArcFace's template (Deng et al., CVPR 2019, after SphereFace): eyes, tip of the nose, corners of the mouth, the one on
# the image's left first, in continuous px of a chip of 112 x 112 (published with pixel centres at integers)
TEMPLATE = (
    np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]) + 0.5
)
LARGEST = 2**14  # px of a chip
MIRRORED = [1, 0, 2, 4, 3]  # the five points in the mirror image
# weights of the five points of an upright face, about their mean, by which the edges of its landmark box are found:
# least squares over the faces of 300W, FACES68 and 1,686 people of all ages
LEFT = np.array([1.70, -0.52, -1.61, 0.29, 0.14])
TOP = np.array([0.46, 0.46, -0.13, -0.43, -0.43])
BOTTOM = np.array([-0.58, -0.58, -0.14, 0.61, 0.61])
FIVE_NAMES = ("eye_left", "eye_right", "nose_tip", "mouth_left", "mouth_right")  # of the five points
# {stored layout: groups of landmarks whose means are these five points}
FIVE = {
    "68": (range(36, 42), range(42, 48), [30], [48], [54]),
    "98": (range(60, 68), range(68, 76), [54], [76], [82]),
    "106": (range(66, 74), range(75, 83), [54], [84], [90]),
    "29": ([16], [17], [20], [22], [23]),
    "19": ([7], [10], [13], [15], [17]),
    "5": ([0], [1], [2], [3], [4]),
}


def five_points(landmarks: np.ndarray, layout: Layout) -> np.ndarray:
    """Return eyes, nose and corners of the mouth (5, 2) of landmarks (N, 2), same frame.
    UserError for a layout without them, and for landmarks of another shape.
    """
    landmarks = layout.checked(landmarks)
    shared = layout.places()
    known = next((name for name in (layout.stored, *FIVE) if name in FIVE and name in shared), "")
    groups = [[shared[known][i] for i in group if i in shared[known]] for group in FIVE.get(known, [[]])]
    if not all(groups):
        raise UserError(
            f"layout {layout.name} has no eyes, tip of the nose and corners of the mouth to align a face by; take a "
            "net of another layout, or name these landmarks in the layout's same_as"
        )
    return np.array([landmarks[group].mean(0) for group in groups])


def box_of_points(points: np.ndarray) -> np.ndarray:
    """Return the landmark box (5,) that a face with these five points (5, 2) is likely to have, same frame.

    The last value is its roll in degrees, see `Landmarker.landmarks_of`.
    """
    matrix, centre = similarity(TEMPLATE, points), points.mean(0)
    roll = math.atan2(matrix[1, 0], matrix[0, 0])
    x, y = (transform(points, turn_about(centre, -roll)) - centre).T
    box = np.array([LEFT @ x, TOP @ y, -(LEFT @ -x[MIRRORED]), BOTTOM @ y]) + np.tile(centre, 2)
    return np.append(carry(box, turn_about(centre, roll)), math.degrees(roll))


def chip(image: np.ndarray, landmarks: Any, layout: Layout, size: int) -> np.ndarray:
    """Return the upright chip (size, size, 3) of the face in `image` that has these landmarks (N, 2), px."""
    if not is_integer(size, 1, LARGEST):  # OpenCV would take the size of the image
        raise UserError(f"size of a chip must be a whole number of px, from 1 to {LARGEST}, not {as_text(size)}")
    points = five_points(landmarks, layout)
    if not (np.isfinite(points).all() and np.ptp(points, axis=0).max() > 0):
        raise UserError("a face whose landmarks are not finite, or all in one place, cannot be aligned; leave it out")
    matrix = opencv_matrix(similarity(points, TEMPLATE * (size / 112)))
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)
