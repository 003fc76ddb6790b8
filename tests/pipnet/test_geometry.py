"""Frames and crops: exact inverses, the published 300W box, half-pixel centres, no aliasing."""

import cv2
import numpy as np
import pytest
import torch
from conftest import DEFAULTS
from hypothesis import given, settings
from hypothesis import strategies as st

from pipnet.errors import UserError
from pipnet.geometry import (
    Protocol,
    box_of,
    compose,
    crop_box,
    crop_matrix,
    cut,
    invert,
    iou,
    opencv_matrix,
    to_crop,
    to_image,
    transform,
)

SQUARE = Protocol(1.2, 1.2, 0.0, "max", "real", "float")
PIPNET = Protocol(1.1, 1.1, 0.0, "no", "clip", "int")
WFLW = Protocol(1.2, 1.2, 0.0, "no", "clip", "float")
coordinate = st.floats(-2000, 6000, allow_nan=False)
length = st.floats(0.5, 3000)


def published_300w(annotated: np.ndarray, width: int, height: int) -> list[int]:
    """The published recipe in whole numbers, from its description: landmarks truncated, 1.1 times the box, corner
    first.
    """
    whole = [[int(x), int(y)] for x, y in annotated.tolist()]
    box = []
    for axis, limit in enumerate((width, height)):
        values = [point[axis] for point in whole]
        low, side = min(values), max(values) - min(values)
        low, side = max(low - side * 5 // 100, 0), side * 110 // 100
        box += [low, min(side, limit - low - 1)]
    return [box[0], box[2], box[0] + box[1], box[2] + box[3]]


@given(st.integers(0, 10**6), st.integers(80, 900), st.integers(80, 900))
@settings(max_examples=300)
def test_pipnet_protocol_is_the_published_300w_box(seed, width, height):
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(-20, 0.6, 2) * (1, 1), rng.uniform(40, 0.8 * min(width, height), 2)
    annotated = np.maximum(corner + rng.random((68, 2)) * side + rng.uniform(0, 0.4) * np.array([width, height]), 1)
    crop = crop_box(box_of(annotated - 1 + 0.5), PIPNET, width, height)  # 300W's first pixel centre is 1
    assert crop.tolist() == published_300w(annotated, width, height)


def test_crop_boxes_by_hand():
    assert np.allclose(crop_box(np.array([100, 50, 200, 150]), SQUARE, 640, 480), [90, 40, 210, 160])
    assert np.allclose(crop_box(np.array([-10, 50, 90, 250]), SQUARE, 640, 480), [-80, 30, 160, 270])  # not clipped
    lower = SQUARE._replace(square="min", shift_y=0.1)
    assert np.allclose(crop_box(np.array([100, 50, 200, 150]), lower, 640, 480), [90, 50, 210, 170])
    # each side clipped by itself
    assert np.allclose(crop_box(np.array([5, 50, 105, 470]), WFLW, 640, 480), [0, 8, 115, 479])
    # shifted by the clip
    assert crop_box(np.array([3.2, 9.0, 103.4, 109.0]), PIPNET, 640, 480).tolist() == [0, 4, 110, 114]


@given(coordinate, coordinate, length, length, st.sampled_from([SQUARE, SQUARE._replace(square="min"), WFLW, PIPNET]))
def test_crop_box_is_a_box_or_a_clear_error(x, y, width, height, protocol):
    try:
        crop = crop_box(np.array([x, y, x + width, y + height]), protocol, 640, 480)
    except UserError as error:
        assert "leaves no crop" in str(error)
        return
    assert crop.dtype == np.float64 and np.isfinite(crop).all() and (crop[2:] > crop[:2]).all()
    if protocol.square != "no":
        assert np.isclose(crop[2] - crop[0], crop[3] - crop[1])
    if protocol.border == "clip":
        assert (crop >= 0).all() and (crop[2:] <= (639, 479)).all()


@given(st.integers(0, 10**6), coordinate, coordinate, length, length)
def test_to_crop_and_to_image_are_inverse_in_numpy_and_torch(seed, x, y, width, height):
    crop = np.array([[x, y, x + width, y + height]] * 3)
    points = np.random.default_rng(seed).uniform(-0.5, 1.5, (3, 7, 2))
    image = to_image(points, crop)
    assert np.allclose(to_crop(image, crop), points, atol=1e-6)
    assert np.allclose(to_image(np.array([[0.0, 0.0], [1.0, 1.0]]), crop[0]).ravel(), crop[0])
    assert np.allclose(to_crop(torch.from_numpy(image), torch.from_numpy(crop)).numpy(), points, atol=1e-6)


@given(st.floats(-180, 180), st.floats(0.2, 5), coordinate, coordinate)
def test_matrices_compose_and_invert(angle, scale, x, y):
    turn = cv2.getRotationMatrix2D((10, 20), angle, scale)
    move = np.array([[1, 0, x], [0, 1, y]], dtype=np.float64)
    points = np.random.default_rng(0).uniform(0, 100, (5, 2))
    assert np.allclose(transform(points, compose(turn, move)), transform(transform(points, turn), move))
    assert np.allclose(transform(transform(points, turn), invert(turn)), points, atol=1e-6)
    both = transform(torch.from_numpy(points)[None], torch.from_numpy(turn)[None])
    assert np.allclose(both[0].numpy(), transform(points, turn))
    with pytest.raises(UserError):
        invert(np.zeros((2, 3)))


@given(coordinate, coordinate, length, length)
def test_crop_matrix_agrees_with_to_crop(x, y, width, height):
    crop = np.array([x, y, x + width, y + height])
    points = to_image(np.random.default_rng(1).random((6, 2)), crop)
    assert np.allclose(transform(points, crop_matrix(crop, 128)), to_crop(points, crop) * 128, atol=1e-4)


def test_opencv_matrix_moves_pixel_centres():
    matrix = crop_matrix(np.array([10.0, 20.0, 20.0, 30.0]), 20)  # twice as large
    centre = transform(np.array([[12.5, 22.5]]), matrix)  # of image pixel (12, 22), continuous
    assert np.allclose(transform(np.array([[12.0, 22.0]]), opencv_matrix(matrix)), centre - 0.5)


def test_cut_at_scale_one_copies_pixels_and_blackens_what_is_outside():
    image = np.random.default_rng(0).integers(1, 256, (60, 80, 3), dtype=np.uint8)
    assert (cut(image, np.array([10, 5, 42, 37]), 32) == image[5:37, 10:42]).all()
    assert (cut(image, np.array([14, 9, 38, 33]), 24, margin=32 / 24) == image[5:37, 10:42]).all()
    for away in ([-50, 0, -18, 32], [0, 90, 32, 122]):
        assert not cut(image, np.array(away), 32).any()
    assert not cut(np.ones((40, 2**15, 3), np.uint8), np.array([0, 90, 32, 122]), 32).any()
    over = cut(image, np.array([-8, -8, 24, 24]), 32)
    assert (over[8:, 8:] == image[:24, :24]).all() and not over[:8].any() and not over[:, :8].any()
    zero = cut(image, np.array([14, 9, 38, 33]), 24, margin=32 / 24, border="zero")
    assert (zero[4:28, 4:28] == image[9:33, 14:38]).all() and zero.astype(int).sum() == zero[4:28, 4:28].astype(
        int
    ).sum()


def test_cut_averages_when_it_shrinks():
    checker = np.zeros((480, 480, 3), np.uint8)
    checker[::2, ::2] = checker[1::2, 1::2] = 255
    for size in (60, 96, 100, 224, 300):  # 8 to 1.6 times smaller: grey, where plain bilinear gives black and white
        area = cv2.resize(checker, (size, size), interpolation=cv2.INTER_AREA)[2:-2, 2:-2].astype(float)
        ours = cut(checker, np.array([0, 0, 480, 480]), size)[2:-2, 2:-2].astype(float)
        assert abs(ours - 127.5).max() <= abs(area - 127.5).max() + 2
    smooth = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (480, 480, 3), dtype=np.uint8), (0, 0), 4)
    exact = smooth.reshape(120, 4, 120, 4, 3).mean((1, 3))
    assert abs(cut(smooth, np.array([0, 0, 480, 480]), 120) - exact).max() <= 1


@pytest.mark.parametrize("size", [40, 64, 100, 250])
def test_a_spot_lands_where_to_crop_says(size):
    image = np.zeros((300, 400, 3), np.float64)
    ys, xs = np.mgrid[:300, :400] + 0.5
    spot, crop, margin = np.array([211.3, 140.8]), np.array([100.6, 40.2, 310.6, 250.2]), 1.25
    image[:] = 255 * np.exp(-((xs - spot[0]) ** 2 + (ys - spot[1]) ** 2) / (2 * 12**2))[..., None]
    drawn = cut(image.round().astype(np.uint8), crop, size, margin)[..., 0].astype(float)
    ys, xs = np.mgrid[: len(drawn), : len(drawn)] + 0.5
    found = np.array([(drawn * xs).sum(), (drawn * ys).sum()]) / drawn.sum()
    assert np.allclose(found, to_crop(spot, crop)[0] * size + (len(drawn) - size) / 2, atol=0.03)


def test_box_of_leaves_out_nan_and_batches():
    points = np.array([[[1, 2], [np.nan, np.nan], [5, 9]], [[0, 0], [1, 1], [2, 2]]], dtype=float)
    assert box_of(points).tolist() == [[1, 2, 5, 9], [0, 0, 2, 2]]
    with pytest.raises(UserError, match="no box"):
        box_of(np.full((3, 2), np.nan))


@given(st.floats(1, 1.8))
def test_margin_keeps_the_nominal_crop_in_the_middle(margin):
    image = np.random.default_rng(2).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    whole, edge = cut(image, np.array([30.0, 30.0, 60.0, 60.0]), 30, margin), (round(30 * margin) - 30) / 2
    if edge == int(edge):
        assert (whole[int(edge) : int(edge) + 30, int(edge) : int(edge) + 30] == image[30:60, 30:60]).all()


def test_intersection_over_union():
    shares = iou(np.array([[0, 0, 2, 2.0]]), np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6.0]]))
    assert shares == pytest.approx(np.array([[1, 1 / 7, 0]]))


def test_the_crop_of_pipnets_demo():
    """Its detector's corners are whole px, the width and height their differences; the crop is half-open."""
    rng = np.random.default_rng(0)
    boxes = [np.array([100, 80, 160, 180.0]), np.array([-7.9, 3.2, 83.1, 98.9]), np.array([560, 400, 650, 470.5])]
    low = rng.uniform(-9, 300, (40, 2))
    boxes += [*np.concatenate([low, low + rng.uniform(10, 300, (40, 2))], 1)]
    for box in boxes:
        x, y, x2, y2 = (int(edge) for edge in box)
        aside, down = int((x2 - x) * (1.2 - 1) / 2), int((y2 - y) * (1.2 - 1) / 2)
        published = max(x - aside, 0), max(y + down, 0), min(x2 - 1 + aside, 640 - 1), min(y2 - 1 + down, 480 - 1)
        assert crop_box(box, Protocol(**DEFAULTS.protocols["faceboxes_demo"]), 640, 480).tolist() == list(published)


@pytest.mark.parametrize("name", DEFAULTS.protocols)
@pytest.mark.parametrize("box", [(60, 50, 120, 150), (-20, -10, 60, 90), (130, 100, 210, 190)])
def test_a_point_of_a_padded_crop_goes_back_to_where_it_was(name, box):
    """A crop that reaches beyond the picture is filled up, and its landmarks still belong to the picture."""
    protocol = Protocol(**DEFAULTS.protocols[name])
    image = np.zeros((180, 200, 3), np.uint8)
    spot = np.clip([[(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]], 20, 160)
    cv2.circle(image, tuple((spot[0] * 16 - 8).astype(int).tolist()), 3 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    crop = crop_box(np.array(box, float), protocol, 200, 180)
    drawn = cut(image, crop, 224, 1.0, protocol.border)[..., 0].astype(float)
    y, x = np.mgrid[:224, :224] + 0.5
    seen = np.array([[(x * drawn).sum(), (y * drawn).sum()]]) / drawn.sum() / 224
    assert np.abs(to_image(seen, crop) - spot).max() < 0.5
    if name == "cunjian" and min(box) >= 0:  # whole px are made towards zero
        assert np.ptp(crop[2:] - crop[:2]) == 0 and crop[2] - crop[0] == int(
            min(box[2] - box[0], box[3] - box[1]) * 1.2
        )
