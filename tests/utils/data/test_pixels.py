"""Changes carried out on pictures: each kind by itself, their order, and that pictures go where landmarks go."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from changed import GEOMETRY, PLAIN, crops, neutral
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from utils.data.changes import DRAWS, INTERPOLATION, changes, moved, uniforms
from utils.data.faces import CropGeometry
from utils.data.pixels import pixels


def dotted(size: int, border: int, landmarks: np.ndarray) -> np.ndarray:
    """Return a black stored crop with a white spot at each landmark (N, 2), in [0, 1] of the nominal crop of `size` px."""
    side = size + 2 * border
    centre = (landmarks * size + border)[:, None, None]
    grid = np.stack(np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5), -1)
    spots = np.exp(-((grid - centre) ** 2).sum(-1) / (2 * 1.5**2)).max(0)
    return np.repeat(np.round(255 * spots).astype(np.uint8)[..., None], 3, 2)


def spot_near(image: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return the centre of mass of the brightness within 5 px of `point`, in continuous px."""
    grid = np.stack(np.meshgrid(np.arange(image.shape[1]) + 0.5, np.arange(image.shape[0]) + 0.5), -1)
    weight = image[..., 0].astype(float) * (((grid - point) ** 2).sum(-1) < 25)
    return (grid * weight[..., None]).sum((0, 1)) / weight.sum()


@examples(max_examples=40)
@given(
    st.integers(0, 2**31),
    st.sampled_from(("real", "black")),
    st.sampled_from(("linear", "nearest")),
    st.sampled_from((64, 96, 128)),
    st.sampled_from((0, 4)),
)
def test_the_picture_goes_where_the_landmarks_go(seed, fill, interpolation, size, margin):
    # five spots that cannot be confused, one of them in the margin
    places = np.array([[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.4, 0.75], [1.05, 0.5]])
    border, flip = size // 8, (1, 0, 2, 3, 4)
    recipe = replace(PLAIN, **GEOMETRY, fill=fill, interpolation=interpolation)
    field = CropGeometry(size, border, margin)
    made = [changes(uniforms(seed, 0, np.arange(2), DRAWS), recipe, field)]
    landmarks = moved(np.tile(places, (2, 1, 1)), np.zeros(2), made, flip)
    for image, points in zip(pixels([dotted(size, border, places)] * 2, made[0]), landmarks * size, strict=True):
        for number, point in enumerate(points):
            inside = (point > 5).all() and (point < size - 5).all()
            if inside and (number < 4 or fill == "real"):
                far = np.abs(spot_near(image, point + margin) - margin - point).max()
                assert far < (0.15 if interpolation == "linear" else 0.6), number


@pytest.mark.parametrize("way", INTERPOLATION)
def test_no_change_is_the_middle_of_the_crop_and_a_mirror_is_exact(way):
    stored, flags = crops(2), np.full(2, INTERPOLATION[way])
    mirror = np.stack([np.eye(2, 3), [[-1.0, 0, 64], [0, 1, 0]]])
    image = pixels(stored, neutral(2, interpolation=flags)._replace(matrix=mirror))
    assert np.array_equal(image[0], stored[0, 8:-8, 8:-8]) and np.array_equal(image[1], stored[1, 8:-8, 8:-8][:, ::-1])
    shift = pixels(
        stored, neutral(2, matrix=mirror * [[1, 1, 1], [1, 1, 1]] + [[0, 0, 3], [0, 0, -2]], interpolation=flags)
    )
    assert np.array_equal(shift[0], stored[0, 10:-6, 5:-11])
    warped = pixels(
        stored,
        changes(
            uniforms(0, 0, np.arange(2), DRAWS), replace(PLAIN, **GEOMETRY, interpolation=way), CropGeometry(64, 8)
        ),
    )
    assert (warped != stored[:, 8:-8, 8:-8]).any((1, 2, 3)).all()


def test_what_lies_outside_is_filled():
    stored = np.full((1, 80, 80, 3), 200, np.uint8)
    away = neutral(1, matrix=np.array([[[1.0, 0, 20], [0, 1, 0]]]), fill=127)
    assert (pixels(stored, away)[0, :, :12] == 127).all() and (pixels(stored, away)[0, :, 12:] == 200).all()
    assert (pixels(stored, away._replace(seen=64))[0, :, :20] == 127).all()
    assert (pixels(stored, away._replace(side=80))[0, :, :20] == 127).all()
    assert (pixels(stored, away._replace(fill=0))[0, :, :12] == 0).all()


def test_each_kind_of_change():
    stored = crops()
    image, levels = stored[:, 8:-8, 8:-8], np.arange(256)
    assert np.array_equal(stored, crops())

    def changed(**given) -> np.ndarray:
        made = pixels(stored, neutral(3, **given))
        assert np.array_equal(made[1], image[1]), "a neutral row leaves the crop as it is"
        assert np.array_equal(stored, crops()), "the crop itself has changed"
        return made

    made = changed(gamma=np.array([0.5, 1, 3]))
    assert np.array_equal(made[0], np.rint(255 * (levels / 255) ** 0.5)[image[0]])
    assert np.array_equal(made[2], np.rint(255 * (levels / 255) ** 3)[image[2]])
    matrix = np.stack([np.eye(3, 4)] * 3)
    matrix[0] = np.array([[1, 0.5, 0, -30], [0, 1, 0, 200], [0.2, 0.3, 0.5, 0]])
    expected = np.clip(np.rint(image[0] @ matrix[0, :, :3].T + matrix[0, :, 3]), 0, 255)
    assert np.abs(changed(colour=matrix)[0] - expected).max() <= 1
    made = changed(blur=np.array([2.0, 0, 0.05]))
    assert np.array_equal(made[0], cv2.GaussianBlur(image[0], (0, 0), 2)) and np.array_equal(made[2], image[2])
    grain = np.array([[10.0, 1, 5], [0, 1, 5], [10, 4, 6]])
    noisy = changed(grain=grain)
    noise = [(noisy[row].astype(int) - image[row])[..., 0] for row in (0, 2)]  # in the blue channel
    inside = (image[0, ..., 0] > 40) & (image[0, ..., 0] < 215)
    assert abs(noise[0][inside].std() - 10) < 1 and abs(noise[0][inside].mean()) < 0.5
    assert np.abs(np.diff(noise[1], axis=0)).mean() < 0.6 * np.abs(np.diff(noise[0], axis=0)).mean()
    assert np.array_equal(changed(grain=grain), noisy) and (changed(grain=grain + [0, 0, 1])[0] != noisy[0]).any()
    made = changed(box=np.array([[5, 6, 10, 20], [0, 0, 0, 0], [60, 60, 4, 4]]), shade=np.array([[1, 2, 3]] * 3))
    covered = (made[0] != image[0]).any(-1)
    assert (made[0, 6:26, 5:15] == (1, 2, 3)).all() and covered.sum() == 200 and (made[2, 60:, 60:] == (1, 2, 3)).all()
    gray = np.repeat(image[:, :, :, :1], 3, 3)
    assert np.array_equal(pixels(gray, neutral(3, seen=64, hsv=np.array([[0.5, 1.5, 1]] * 3))), gray)  # grey has no hue
    assert (changed(hsv=np.array([[1.0, 1, 0.5], [1, 1, 1], [1, 1, 1]]))[0].max(-1) <= image[0].max(-1) // 2 + 1).all()


def test_changes_come_in_order():
    stored = crops(1)
    far = {
        "gamma": np.array([2.0]),
        "colour": np.tile(np.eye(3, 4)[[2, 1, 0]] * 1.2, (1, 1, 1)),
        "blur": np.array([1.5]),
        "grain": np.array([[8.0, 1, 3]]),
        "box": np.array([[3, 4, 20, 9]]),
        "shade": np.array([[9, 8, 7]]),
    }
    whole = neutral(1, matrix=np.array([[[0.9, 0.2, 3], [-0.2, 0.9, 5]]]), **far)
    image = pixels(stored, whole._replace(**dict.fromkeys(far)))
    for part in (("gamma",), ("colour",), ("blur",), ("grain",), ("box", "shade")):
        image = pixels(image, neutral(1, seen=64, **{name: far[name] for name in part}))
    assert np.array_equal(pixels(stored, whole), image)
