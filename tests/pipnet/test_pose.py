"""Head pose from landmarks: the published angles, every layout that has the points, and their signs."""

import cv2
import numpy as np
import pytest
from conftest import LAYOUTS, refuses

from pipnet.pose import POINTS, head_pose, pose_points

# The points of the head in round numbers, in the order of POINTS, written out so that an exchange in MODEL is seen
HEAD = np.array(
    [
        *((6.8, 6.8, 4.4), (1.3, 7.1, 6.9), (-1.3, 7.1, 6.9), (-6.8, 6.8, 4.4)),
        *((5.3, 5.5, 4.0), (1.8, 5.4, 4.4), (-1.8, 5.4, 4.4), (-5.3, 5.5, 4.0)),
        *((2.0, 1.4, 6.2), (-2.0, 1.4, 6.2)),
    ]
)


def projected(pitch: float = 0, yaw: float = 0, roll: float = 0, width: int = 640, height: int = 480) -> np.ndarray:
    """(10, 2) px of the points of a head in the middle of the image, degrees as `head_pose` gives them."""

    def turn(a, b, degrees):
        matrix = np.eye(3)
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        matrix[[a, a, b, b], [a, b, a, b]] = c, -s, s, c
        return matrix

    head = (HEAD - (0, 4, 5)) * (-1, -1, 1)  # x right, y down, z to the viewer
    turned = head @ (turn(0, 1, roll) @ turn(2, 0, -yaw) @ turn(2, 1, -pitch)).T  # nods, turns, leans
    return turned[:, :2] * width / 1000 * 10 + (width / 2, height / 2)


def placed(points: np.ndarray, name: str) -> np.ndarray:
    """The ten points as landmarks of a layout, NaN elsewhere."""
    landmarks = np.full((LAYOUTS.load(name).count, 2), np.nan)
    for ids, point in zip(POINTS[name], points, strict=True):
        landmarks[list(ids)] = point
    return landmarks


def test_published_angles(reference):
    """They are Peppa's but for the sign of pitch."""
    layout = LAYOUTS.load("68")
    with np.load(reference / "slim.npz") as arrays:
        for i in range(8):
            height, width = cv2.imdecode(arrays[f"i{i}_file_bytes"], cv2.IMREAD_COLOR).shape[:2]
            for kind in ("", "onnx_"):
                angles = head_pose(arrays[f"i{i}_{kind}landmarks"], layout, width, height)
                np.testing.assert_allclose(angles, arrays[f"i{i}_{kind}euler_pry_deg"] * (-1, 1, 1), atol=1e-4)


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize(
    "turned", [(20, 0, 0), (-20, 0, 0), (0, 30, 0), (0, -30, 0), (0, 0, 25), (0, 0, -25), (10, 20, 15)]
)
def test_signs_and_sizes_of_the_angles(name, turned):
    layout, landmarks = LAYOUTS.load(name), placed(projected(*turned), name)
    peppa = head_pose(landmarks, layout, 640, 480)
    np.testing.assert_allclose(peppa, turned, atol=6)  # perspective
    angles = head_pose(landmarks, layout)
    if turned != (10, 20, 15):  # the order of the turns differs
        np.testing.assert_allclose(angles, turned, atol=3)
    for size in (0.3, 4):  # a small face near the corner, and one that fills the picture
        np.testing.assert_allclose(head_pose(landmarks * size + (200, -90), layout), angles, atol=0.01)


def test_a_layout_of_ones_own_by_the_points_it_shares():
    shared = [36, 39, 42, 45, 31, 35, 17, 26]
    row = {"count": 8, "flip_index": [3, 2, 1, 0, 5, 4, 7, 6], "same_as": {"68": dict(enumerate(shared))}}
    landmarks = placed(projected(0, 30, 0), "68")[shared]
    np.testing.assert_allclose(head_pose(landmarks, LAYOUTS.with_rows({"mine": row}).load("mine")), (0, 30, 0), atol=3)


@pytest.mark.parametrize("name, count", [("12", 4), ("5", 0), ("29", 0)])
def test_a_layout_without_the_points_says_so(name, count):
    refuses(f"'{name}'.*{count}", pose_points, LAYOUTS.load(name))
