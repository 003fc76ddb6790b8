"""Published augmentation against a statement of its steps in numpy: order, numbers, what is lost and what fills the
corners.
"""

from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from conftest import LAYOUTS, fails, settings
from scipy.ndimage import gaussian_filter

from extras.gpu.device_pixels import apply_changes, compile_changes, to_device
from utils.data.batches import drawn_changes
from utils.data.changes import GREY, INTERPOLATION, STEP_DRAWS, moved, uniforms, whole_matrix
from utils.data.faces import CropGeometry
from utils.data.pixels import framed, pixels

CPU = torch.device("cpu")
FLIP = list(LAYOUTS.load("68").flip_index)
SIZE, BORDER = 96, 24
PUBLISHED = {  # (order, share of the crop that a translation may shift by, largest angle, colour of the corners)
    "pipnet": (("translation", "occlusion", "flip", "rotation", "blur", "grayscale"), 30 / 256, 30, 0),
    "irnet": (("hsv", "rotation", "occlusion", "infrared", "translation", "flip", "blur"), 30 / 256, 45, 0),
    "slim": (("sides", "flip", "rotation", "shear", "colour", "noise", "occlusion", "padding"), 0, 45, 127),
}


class Crop(NamedTuple):
    """A stored crop, its landmarks (N, 2) and face box (2, 2) in [0, 1] of the nominal crop, and which part the image
    fills.
    """

    stored: np.ndarray
    landmarks: np.ndarray
    box: np.ndarray
    source: tuple = (-np.inf, -np.inf, np.inf, np.inf)  # px of the stored crop


def augment(
    crop: Crop, recipe, key: tuple[int, int, int], margin: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return image, landmarks (N, 2) in [0, 1] and affine (2, 3). margin: px that the net sees round the nominal crop."""
    seed, number, index = key
    image = framed(crop.stored, crop.source, GREY) if recipe.fill == "grey" else crop.stored
    field, frame = CropGeometry(SIZE, (len(image) - SIZE) // 2, margin), np.stack([crop.box, crop.box * np.nan])[None]
    made = drawn_changes(seed, number, np.array([index]), frame, recipe, field)
    images = [image]
    for change in made:
        images = pixels(images, change)
    return images[0], moved(crop.landmarks[None], np.zeros(1), made, FLIP)[0], whole_matrix(made)[0]


def stored(seed: int) -> Crop:
    """A smooth picture with landmarks in and outside the crop, and a face box that is not the crop; all of it is in the
    image.
    """
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.integers(0, 256, (SIZE + 2 * BORDER,) * 2 + (3,), dtype=np.uint8), (0, 0), 5)
    image = cv2.normalize(image, None, 5, 250, cv2.NORM_MINMAX)
    return Crop(image, rng.uniform(-0.1, 1.1, (68, 2)), np.array([[0.15, 0.2], [0.8, 0.9]]))


class Reference:
    """The steps on one crop, written from their descriptions: nearest pixels by their centres, landmarks in px of the
    crop.
    """

    def __init__(self, crop: Crop, name: str):
        self.image, self.points = crop.stored[BORDER:-BORDER, BORDER:-BORDER].astype(float), crop.landmarks * SIZE
        self.crop, (_, self.shift, self.angle, self.fill) = crop, PUBLISHED[name]

    def sample(self, image, x, y) -> None:
        column, row = np.floor(x).astype(int), np.floor(y).astype(int)
        there = (0 <= column) & (column < image.shape[1]) & (0 <= row) & (row < image.shape[0])
        self.image = np.where(there[..., None], image[row * there, column * there], self.fill).astype(float)

    def linear(self, matrix) -> None:
        """Map about the middle: each pixel of the result comes from where the inverse map puts its centre."""
        grid = np.stack(np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5), -1) - SIZE / 2
        source = np.einsum("ij,rcj->rci", np.linalg.inv(matrix), grid) + SIZE / 2
        self.sample(self.image, source[..., 0], source[..., 1])
        self.points = (self.points - SIZE / 2) @ matrix.T + SIZE / 2

    def translation(self, u) -> None:
        if u[0] < 0.5:
            dx, dy = int((2 * u[1] - 1) * self.shift * SIZE), int((2 * u[2] - 1) * self.shift * SIZE)
            y, x = np.mgrid[:SIZE, :SIZE] + 0.5
            self.sample(self.image, x - dx, y - dy)
            self.points = np.clip(self.points + (dx, dy), 0, SIZE)

    def occlusion(self, u) -> None:
        if u[0] < 0.5:
            width, height = int(u[1] * self.largest * SIZE), int(u[2] * self.largest * SIZE)
            free = 0 if self.fill else 10 * SIZE / 256
            x, y = int(u[3] * (SIZE - width - free)), int(u[4] * (SIZE - height - free))
            self.image[y : y + height, x : x + width] = self.fill if self.fill else np.floor(u[5:8] * 256)

    largest = property(lambda self: 0.2 if self.fill else 0.4)

    def flip(self, u) -> None:
        if u[0] < 0.5:
            self.image, self.points = self.image[:, ::-1], (np.array([SIZE, 0]) + self.points * (-1, 1))[FLIP]

    def rotation(self, u) -> None:
        if u[0] < 0.5 or self.fill:
            a = np.radians(self.angle * (2 * u[1] - 1))
            self.linear(np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]))

    def shear(self, u) -> None:
        """Three points are moved by up to 50 px of 160, all to the same side; the picture's map takes them back."""
        if u[0] < 0.5:
            goal = np.array([(10, 100), (200, 50), (100, 250)], np.float64)
            moved = goal + u[3:9].reshape(3, 2) * (50 * u[1] * (2 * u[2] - 1))
            matrix = cv2.getAffineTransform(*((one * SIZE / 160).astype(np.float32) for one in (moved, goal)))
            y, x = np.mgrid[:SIZE, :SIZE] + 0.5
            source = (np.stack([x, y], -1) - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
            self.sample(self.image, source[..., 0], source[..., 1])
            self.points = self.points @ matrix[:, :2].T + matrix[:, 2]

    def sides(self, u) -> None:
        """From 0.5 to 0.9 box widths left and right of the box's centre, 0.5 to 1.1 heights above and below."""
        (x1, y1), (x2, y2) = self.crop.box * SIZE
        x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        left, right = x - (0.5 + 0.4 * u[0]) * w, x + (0.5 + 0.4 * u[2]) * w
        top, bottom = y - (0.5 + 0.6 * u[1]) * h, y + (0.5 + 0.6 * u[3]) * h
        row, column = np.mgrid[:SIZE, :SIZE] + 0.5
        self.sample(
            self.crop.stored, left + column / SIZE * (right - left) + BORDER, top + row / SIZE * (bottom - top) + BORDER
        )
        self.points = (self.points - (left, top)) / (right - left, bottom - top) * SIZE

    def padding(self, u) -> None:
        if u[2] >= 0.5:
            return
        thick = int(u[1] * 0.3 * SIZE)
        bands = self.image[:thick], self.image[SIZE - thick :], self.image[:, :thick], self.image[:, SIZE - thick :]
        bands[int(4 * u[0])][:] = 127

    def hsv(self, u) -> None:
        if u[0] < 0.5:
            hue, saturation, value = np.moveaxis(
                cv2.cvtColor(self.image.astype(np.uint8), cv2.COLOR_BGR2HSV).astype(float), 2, 0
            )
            h, s, v = 1 + (2 * u[1:4] - 1) * (0.015, 0.7, 0.4)
            changed = np.stack([hue * h % 180, np.minimum(saturation * s, 255), np.minimum(value * v, 255)], -1)
            self.image = cv2.cvtColor(changed.astype(np.uint8), cv2.COLOR_HSV2BGR).astype(float)

    def infrared(self, u) -> None:
        if u[0] < 0.5:
            self.image = np.repeat(np.minimum(self.image[..., :1] + 10 + int(80 * u[1]), 255), 3, 2)

    def grayscale(self, u) -> None:
        if u[0] < 0.2:
            self.image = np.repeat(np.round(self.image @ (0.114, 0.587, 0.299))[..., None], 3, 2)

    def blur(self, u) -> None:
        often = {30: 0.3, 45: 0.75}[self.angle]
        if u[0] < often:
            self.image = gaussian_filter(self.image, (5 * u[1] * SIZE / 256,) * 2 + (0,), mode="mirror")

    def colour(self, u) -> None:
        """Contrast about the mean colour, brightness, hue, saturation; each is clipped and truncated."""
        if u[4] >= 0.5:
            return
        brightness, contrast, saturation, hue = (2 * u[:4] - 1) * (0.2, 0.2, 0.2, 0.1)
        mean = self.image.mean((0, 1))
        image = np.clip((self.image - mean) * (1 + contrast) + mean, 0, 255).astype(np.uint8)
        image = np.clip(image + 255 * brightness, 0, 255).astype(np.uint8)
        h, s, v = np.moveaxis(cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(float), 2, 0)
        changed = np.stack([(h + 180 * hue) % 180, np.clip(s * (1 + saturation), 0, 255), v], -1).astype(np.uint8)
        self.image = cv2.cvtColor(changed, cv2.COLOR_HSV2BGR).astype(float)

    def noise(self, u) -> None: ...  # none here


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_augmentation_is_that_of_its_description(name):
    recipe = replace(settings(name).augment, interpolation="nearest", noise=0.0)  # what the numpy code can repeat
    order = PUBLISHED[name][0]
    assert tuple(recipe.steps) == order
    for sample in range(40):
        crop = stored(sample)
        image, landmarks, matrix = augment(crop, recipe, (3, 0, sample))
        expected = Reference(crop, name)
        for step, u in zip(
            order, uniforms(3, 0, np.array([sample]), len(order) * STEP_DRAWS).reshape(-1, STEP_DRAWS), strict=True
        ):
            getattr(expected, step)(u)
        assert np.allclose(landmarks * SIZE, expected.points, atol=1e-4), sample
        apart = np.abs(image.astype(float) - expected.image).max(2)
        assert (apart > 3).mean() < 0.03, sample  # at edges OpenCV may take the pixel beside
        assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
        if name != "pipnet" and name != "irnet":  # nothing clips its landmarks, so the affine tells where they are
            order_of = FLIP if np.linalg.det(matrix[:, :2]) < 0 else slice(None)
            assert np.allclose((crop.landmarks * SIZE @ matrix[:, :2].T + matrix[:, 2])[order_of], landmarks * SIZE)


def test_irnets_interpolation_is_random_and_keyed():
    recipe = replace(settings("irnet").augment, steps=["rotation"], rotation_prob=1.0)
    crop, found = stored(0), set()
    for sample in range(20):
        image = augment(crop, recipe, (0, 0, sample))[0]
        assert np.array_equal(image, augment(crop, recipe, (0, 0, sample))[0])
        same = [
            way
            for way in ("nearest", "linear", "cubic")
            if np.array_equal(image, augment(crop, replace(recipe, interpolation=way), (0, 0, sample))[0])
        ]
        found |= {*same[:1]}
    assert found == {"nearest", "linear", "cubic"}
    ours = replace(settings("default").augment, interpolation="random")
    pictures = [
        augment(crop, replace(ours, interpolation=way), (0, 0, 3))[0]
        for way in ("random", "nearest", "linear", "cubic")
    ]
    assert sum(np.array_equal(pictures[0], other) for other in pictures[1:]) == 1


def test_the_interpolations_of_slim():
    """Any of four for the crop, cubic for the rotation, linear for the affine map."""
    recipe, frame = settings("slim").augment, np.tile(stored(0).box, (60, 2, 1, 1))
    made = drawn_changes(0, 0, np.arange(60), frame, recipe, CropGeometry(SIZE, BORDER))
    made = dict(zip(recipe.steps, made, strict=True))
    assert {*made["sides"].interpolation.tolist()} == {*INTERPOLATION.values()}
    assert {*made["rotation"].interpolation.tolist()} == {cv2.INTER_CUBIC}
    assert {*made["shear"].interpolation.tolist()} == {cv2.INTER_LINEAR}
    still = (made["shear"].matrix == np.eye(2, 3)).all((1, 2)).mean(), (made["padding"].box[:, 2:] == 0).all(1).mean()
    assert 0.3 < min(still) and max(still) < 0.7


def on_device(crops: np.ndarray, change) -> np.ndarray:
    return apply_changes(torch.from_numpy(crops), to_device(compile_changes([change]), CPU)).numpy()


@pytest.mark.parametrize("act", [pixels, on_device])
def test_the_noise_of_slim_is_uniform_in_five_levels(act):
    recipe, field = replace(settings("slim").augment, steps=["noise"]), CropGeometry(SIZE)
    made = drawn_changes(0, 0, np.arange(20), np.full((20, 2, 2, 2), np.nan), recipe, field)
    noise = act(np.full((20, SIZE, SIZE, 3), 100, np.uint8), *made).astype(int) - 100
    acts = (noise != 0).any((1, 2, 3))
    assert 4 < acts.sum() < 16 and {*np.unique(noise[acts])} == {*range(-5, 5)}  # 100 + noise is truncated there
    assert np.allclose(np.histogram(noise[acts], range(-5, 6))[0] / noise[acts].size, 0.1, atol=0.01)
    assert len({one.tobytes() for one in noise[acts]}) == acts.sum()


def test_grey_fills_what_is_outside_the_source_image():
    # the image ends in the middle of the crop
    crop = stored(0)._replace(source=(-SIZE, -SIZE, BORDER + SIZE // 2, 3 * SIZE))
    for steps in ([], ["flip"]):
        plain = replace(settings("plain").augment, fill="grey", steps=steps, flip=0.0)
        image = augment(crop, plain, (0, 0, 0))[0]
        assert (image[:, SIZE // 2 :] == 127).all() and np.array_equal(
            image[:, :40], crop.stored[BORDER:-BORDER, BORDER:][:, :40]
        )


def test_steps_from_real_pixels_and_with_a_margin():
    crop = stored(0)
    recipe = replace(
        settings("pipnet").augment, steps=["translation"], translation_prob=1.0, translation=0.2, fill="real"
    )
    image, _, matrix = augment(crop, recipe, (0, 0, 1), 8)
    dx, dy = matrix[:, 2].astype(int)
    edge = BORDER - 8
    assert (dx or dy) and np.array_equal(
        image, crop.stored[edge - dy : len(crop.stored) - edge - dy, edge - dx : len(crop.stored) - edge - dx]
    )
    black = augment(crop, replace(recipe, fill="black"), (0, 0, 1), 8)[0]
    assert black.shape == image.shape and (black != image).any()


def test_wrong_steps_are_named(cli, recipe):
    for flags, message in [
        ("--steps turn", "steps must be one of sides, translation, .*not 'turn'"),
        ("--steps sides --sides 0.5 0.4 0.5 1", "sides must be four shares of the face box"),
    ]:
        fails(cli("--train", *recipe, flags), message)
