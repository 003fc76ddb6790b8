"""Changes carried out by torch, against OpenCV: each kind by itself, the presets, and that the host does not wait."""

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
import torch
from changed import GEOMETRY, PLAIN, crops, neutral
from conftest import settings
from torch.utils._python_dispatch import TorchDispatchMode

from extras.gpu.device_pixels import apply_changes, compile_changes, to_device
from utils.data.batches import drawn_changes
from utils.data.changes import (
    DRAWS,
    INTERPOLATION,
    Change,
    changes,
    misplaced,
    moved,
    shadows,
    shapes,
    uniforms,
)
from utils.data.faces import CropGeometry
from utils.data.pixels import pixels

CPU = torch.device("cpu")
ROWS, SIZE, STORED = 24, 64, 80


def on_device(stored: np.ndarray, *drawn: Change) -> np.ndarray:
    before, given = stored.copy(), torch.from_numpy(stored)
    made = apply_changes(given, to_device(compile_changes(drawn), CPU))
    assert np.array_equal(stored, before) and made.is_contiguous() and made.dtype == torch.uint8
    return made.numpy()


def assert_close(stored: np.ndarray, *made: Change) -> np.ndarray:
    """Assert that both ways agree within 2 levels in the mean, and in 99.9 % of the px within 8; return torch's
    pictures.
    """
    found, expected = on_device(stored, *made), reduce(pixels, made, stored)
    away = np.abs(found.astype(int) - expected)
    assert found.shape == expected.shape and away.mean((1, 2, 3)).max() < 2, away.mean((1, 2, 3))
    assert (away > 8).mean() < 0.001, (away > 8).mean((1, 2, 3))
    return found


def some(count: int, given: np.ndarray, plain) -> np.ndarray:
    """Return the values of some rows of `count`, and neutral ones in the others."""
    values = np.array([plain] * count, np.float64)
    values[: len(given)] = given
    return values


@pytest.mark.parametrize("fill", (0, 127))
@pytest.mark.parametrize("seen", (64, 80))
@pytest.mark.parametrize("way", (*INTERPOLATION, "random"))
def test_a_warp(way, seen, fill):
    u = uniforms(3, 0, np.arange(ROWS), DRAWS)
    made = changes(u, replace(PLAIN, **GEOMETRY, interpolation=way), CropGeometry(SIZE, (STORED - SIZE) // 2))._replace(
        seen=seen, fill=fill
    )
    made.matrix[5:8] = np.eye(2, 3)
    made.matrix[8] = [[-1, 0, SIZE], [0, 1, 0]]
    stored = crops(ROWS)
    found = assert_close(stored, made)
    assert np.array_equal(found[5:8], stored[5:8, 8:-8, 8:-8]) and np.array_equal(
        found[8], stored[8, 8:-8, 8:-8][:, ::-1]
    )
    few = made._replace(matrix=np.where(np.arange(ROWS)[:, None, None] < 3, made.matrix, np.eye(2, 3)))
    found = assert_close(stored, few)
    assert np.array_equal(found[3:], stored[3:, 8:-8, 8:-8])


@pytest.mark.parametrize("count", (3, 20, ROWS), ids=("few rows", "most rows", "all rows"))
@pytest.mark.parametrize("kind", ("hsv", "distort", "light", "gamma", "colour", "blur", "box", "shape", "all"))
def test_each_kind_of_change(kind, count):
    rng, stored = np.random.default_rng(count), crops(ROWS)
    far = {
        "hsv": some(ROWS, 1 + rng.uniform(-0.5, 0.5, (count, 3)), [1, 1, 1]),
        "distort": some(ROWS, 1 + rng.uniform(-0.3, 0.3, (count, 4)) * [1, 80, 60, 1] - [0, 1, 1, 0], [1, 0, 0, 1]),
        "gamma": some(ROWS, 2 ** rng.uniform(-1, 1, count), 1),
        "colour": some(ROWS, np.eye(3, 4) * 1.1 + rng.uniform(-0.3, 0.3, (count, 3, 4)) * [1, 1, 1, 60], np.eye(3, 4)),
        "blur": some(ROWS, rng.uniform(0.05, 3, count), 0),
        "box": some(ROWS, rng.integers(0, 30, (count, 4)), [0] * 4).astype(int),
        "shade": rng.integers(0, 256, (ROWS, 3)),
        "shape": shapes(rng.integers(4, 40, (ROWS, 4)), rng.random((ROWS, 2)), np.arange(ROWS) < count),
        "texture": rng.random(ROWS),
        "light": some(ROWS, shadows(rng.random((count, 8)), np.ones(count, bool), SIZE), [[0, 0, 0], [1, 1, 1]]),
    }
    paint = ("shade", "texture") if kind in ("box", "shape") else ()
    chosen = far if kind == "all" else {name: far[name] for name in (kind, *paint)}
    found = assert_close(stored, neutral(ROWS, **chosen))
    assert np.array_equal(found[count:], stored[count:, 8:-8, 8:-8]), "a neutral row leaves the crop as it is"
    assert (found[:count] != stored[:count, 8:-8, 8:-8]).any((1, 2, 3)).mean() > 0.8


def test_a_picture_that_ends_inside_of_the_crop():
    source = np.array([[20, 0, 80, 80], [0, 0, 61.4, 30], [0, 0, 80, 80]] * 8)
    found = assert_close(crops(ROWS), neutral(ROWS, source=source))
    assert not found[0, :, :12].any() and not found[1, 22:].any() and found[2].any((0, 2)).all()


@pytest.mark.parametrize("margin", (0, 4))
@pytest.mark.parametrize("name", ("default", "short", "pipnet", "irnet", "slim"))
def test_the_presets(name, margin):
    recipe = replace(settings(name).augment, noise=0.0)
    recipe = recipe if recipe.steps else replace(recipe, shadow=0.5, edge=0.5)
    frame = np.tile([[0.1, 0.15], [0.9, 0.95]], (ROWS, 2, 1, 1))
    source = np.tile([10.4, -np.inf, 71.5, 90], (ROWS, 1)) if recipe.fill == "grey" else None
    field = CropGeometry(SIZE, (STORED - SIZE) // 2, margin)
    made = drawn_changes(1, np.zeros(ROWS, int), np.arange(ROWS), frame, recipe, field)
    assert_close(crops(ROWS), made[0]._replace(source=source), *made[1:])


def test_misplaced_faces():
    u = uniforms(3, 0, np.arange(ROWS), DRAWS)
    made = changes(u, replace(PLAIN, **GEOMETRY), CropGeometry(SIZE, (STORED - SIZE) // 2, (STORED - SIZE) // 2))
    assert_close(crops(ROWS), *misplaced(u, [made], np.arange(ROWS) % 2 == 0))


def test_landmarks_go_where_the_pixels_go():
    """In pictures whose levels are x and y, a plane through the levels tells where each place comes from, before
    rounding.
    """
    places, axis = np.array([[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.4, 0.75]]), np.arange(160) + 40.0
    stored = np.stack(np.broadcast_arrays(axis, axis[:, None], 255.0))[None].astype(np.float32).repeat(ROWS, 0)
    made = changes(uniforms(7, 0, np.arange(ROWS), DRAWS), replace(PLAIN, **GEOMETRY), CropGeometry(128, 16))
    landmarks = moved(np.tile(places, (ROWS, 1, 1)), np.zeros(ROWS), [made], range(4)) * 128
    act, _, numbers = compile_changes([made])[1]
    images = act(torch.from_numpy(stored), *to_device(numbers, CPU)).numpy()
    grid = np.stack([*np.meshgrid(np.arange(128) + 0.5, np.arange(128) + 0.5), np.ones((128, 128))], -1)
    for image, points in zip(images, landmarks, strict=True):
        inside = np.abs(image[2] - 255) < 1e-3
        plane = np.linalg.lstsq(grid[inside], image[:2, inside].T.astype(float), rcond=None)[0]
        back = np.column_stack([points, np.ones(len(points))]) @ plane - 40 + 0.5 - 16
        assert np.abs(back - places * 128).max() < 1e-3


def test_noise_is_as_strong_and_as_coarse_as_opencvs():
    stored = np.full((ROWS, 80, 80, 3), 128, np.uint8)
    grain = np.array([[12.0, 1.0, 77], [6, 2.5, 78], [0, 1, 79], [12, 1, 2**31 - 9000]] * 6)
    grain[:, 2] += np.arange(ROWS) * 379
    change = neutral(ROWS, grain=grain)
    found, again = (on_device(stored, change).astype(float) - 128 for _ in range(2))
    expected = pixels(stored, change).astype(float) - 128
    assert np.array_equal(found, again) and not found[2::4].any() and (found[0] != found[3]).mean() > 0.5

    def told(noise: np.ndarray) -> list[float]:
        return [
            noise.std(),
            np.abs(np.diff(noise, axis=1)).mean(),
            np.abs(np.diff(noise, axis=2)).mean(),
            abs(noise.mean()) + 5,
        ]

    for first in (0, 1, 3):
        assert told(found[first::4]) == pytest.approx(told(expected[first::4]), rel=0.06)
    for noise in (found[0], expected[0]):
        assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.06  # each channel has its own
    few = on_device(stored, neutral(ROWS, grain=np.where(np.arange(ROWS)[:, None] < 4, grain, 0) + [0, 1, 0]))
    assert (few[4:] == 128).all() and (few[0] != 128).any()


class Counted(TorchDispatchMode):
    """Counts operations that start work on a device. On meta tensors what would wait for the device is an error."""

    count = 0

    def __torch_dispatch__(self, act, types, args=(), kwargs=None):
        self.count += not act.is_view and "empty" not in str(act)
        return act(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "most"), (("default", 60), ("short", 60), ("slim", 240), ("irnet", 400)))
def test_the_host_does_not_wait_and_starts_few_operations(name, most):
    rows, frame = np.arange(128), np.tile([[0.1, 0.15], [0.9, 0.95]], (128, 2, 1, 1))
    made = drawn_changes(1, 0 * rows, rows, frame, settings(name).augment, CropGeometry(256, 32))
    work = to_device(compile_changes(made), torch.device("meta"))
    with Counted() as counted:
        found = apply_changes(torch.empty((128, 320, 320, 3), dtype=torch.uint8, device="meta"), work)
    assert found.shape == (128, 256, 256, 3) and counted.count <= most


def test_every_kind_of_change_has_an_order():
    """A new column of `Change` needs one in device_pixels.py, a row in `test_each_kind_of_change`, and its name here."""
    assert Change._fields == (
        "size",
        "seen",
        "side",
        "matrix",
        "mirrored",
        "interpolation",
        "hsv",
        "distort",
        "light",
        "gamma",
        "colour",
        "blur",
        "grain",
        "jitter",
        "box",
        "shade",
        "shape",
        "texture",
        "fill",
        "clips",
        "source",
    )


def test_all_numbers_go_up_in_one_copy():
    tree = [
        ("a", np.arange(3), [np.eye(2), None, np.array([True, False])]),
        np.zeros((0, 4), np.float32),
        np.float32([[7]]),
    ]
    (name, whole, (eye, none, flags)), empty, last = to_device(tree, CPU)
    assert (name, none) == ("a", None) and whole.tolist() == [0, 1, 2] and flags.tolist() == [True, False]
    assert (
        eye.dtype == torch.float32
        and torch.equal(eye, torch.eye(2))
        and empty.shape == (0, 4)
        and last.tolist() == [[7]]
    )
    assert len({tensor.untyped_storage().data_ptr() for tensor in (whole, eye, flags, last)}) == 1
