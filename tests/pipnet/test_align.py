"""Chips, the five points of a layout and the box that they give."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import (
    LAYOUTS,
    ROOT,
    mean_face,
    refuses,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from known_nets import geometric

from pipnet import Face, UserError
from pipnet.align import FIVE, TEMPLATE, box_of_points, chip, five_points
from pipnet.geometry import box_of, transform, turn_about
from pipnet.pose import head_pose
from pipnet.video.drowsiness import Drowsiness

ASTRONAUT = cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))


@settings(max_examples=50)
@given(st.floats(-180, 180), st.floats(0.2, 5), st.floats(-300, 300))
def test_the_box_of_five_points_goes_with_the_face(degrees, zoom, x):
    points = five_points(mean_face() * 100, LAYOUTS.load("68"))
    plain = box_of_points(points)
    turn = turn_about(np.array([50.0, 40]), np.radians(degrees), zoom)
    moved = box_of_points(transform(points, turn) + (x, 0))
    centres = [(box[:2] + box[2:4]) / 2 for box in (plain, moved)]
    assert np.allclose(transform(centres[0][None], turn)[0] + (x, 0), centres[1], atol=1e-6)
    assert np.allclose((plain[2:4] - plain[:2]) * zoom, moved[2:4] - moved[:2])
    assert abs((moved[4] - plain[4] - degrees + 180) % 360 - 180) < 1e-6
    off = np.abs(plain[:4] - box_of(mean_face() * 100)).max()
    assert off < 10  # of a face of 100 px


@settings(max_examples=50)
@given(st.floats(0.3, 4), st.floats(-3.1, 3.1), st.floats(-50, 50), st.floats(-50, 50), st.sampled_from([32, 112, 224]))
def test_chips_are_upright(scale, angle, x, y, size):
    landmarks = TEMPLATE @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * scale + (x, y)
    face = Face(box_of(landmarks), 1.0, landmarks, np.ones(5))
    low = np.floor(landmarks.min(0)).astype(int) - 8
    image = np.zeros((*(np.ceil(np.ptp(landmarks, 0)).astype(int) + 20)[::-1], 3), np.uint8)
    moved = replace(face, landmarks=landmarks - low)
    cv2.circle(
        image, np.round(moved.landmarks[2] - 0.5).astype(int).tolist(), max(2, round(2 * scale)), (255, 255, 255), -1
    )
    chip = geometric(layout="5").align(image, moved, size)
    assert chip.shape == (size, size, 3)
    tip = (
        np.array(np.unravel_index(cv2.GaussianBlur(chip[..., 0], (0, 0), size / 56).argmax(), (size, size)))[::-1] + 0.5
    )
    assert np.abs(tip - TEMPLATE[2] * size / 112).max() < max(1.5, 0.03 * size)


def test_the_five_points_of_each_layout():
    for name in FIVE:
        assert np.isfinite(
            five_points(np.random.default_rng(0).random((LAYOUTS.load(name).count, 2)), LAYOUTS.load(name))
        ).all()
    points = five_points(mean_face(), LAYOUTS.load("68"))
    assert points[0, 0] < points[2, 0] < points[1, 0] and points[3, 0] < points[4, 0]
    own = replace(
        LAYOUTS.load("5"),
        name="mine",
        stored="mine",
        count=6,
        selected=tuple(range(6)),
        same_as={"68": {0: 54, 1: 48, 2: 30, 3: 45, 4: 36, 5: 8}},
    )
    assert np.allclose(five_points(mean_face()[[54, 48, 30, 45, 36, 8]], own), mean_face()[[36, 45, 30, 48, 54]])
    for name in ("12", "39"):
        with pytest.raises(UserError, match=f"layout {name}"):
            five_points(np.zeros((LAYOUTS.load(name).count, 2)), LAYOUTS.load(name))


@pytest.mark.parametrize(("value", "message"), [(np.nan, "not finite"), (7.0, "in one place")])
def test_landmarks_without_an_extent_give_no_pose_and_no_chip(value, message):
    layout, landmarks, image = LAYOUTS.load("68"), np.full((68, 2), value), np.zeros((9, 9, 3), np.uint8)
    for size in ((), (9, 9)):
        assert np.isnan(head_pose(landmarks, layout, *size)).all()
    refuses(message, chip, image, landmarks, layout, 112)
    refuses("size of a chip", chip, image, landmarks, layout, 10**6)
    for seconds in (None, np.nan, "1"):
        refuses("number of seconds", Drowsiness(layout).update, 0, landmarks, seconds)
