"""Rendered pictures without a face: what is behind synthetic faces, and where a detector shall find none.

Colours are BGR in linear light (about sRGB squared), float32.
"""

from functools import cache

import cv2
import numpy as np


def random_colour(rng: np.random.Generator, low: float = 0.02, high: float = 0.95) -> np.ndarray:
    """Return a random colour (3,) in linear light, more often greyish than vivid."""
    grey = rng.uniform(low, high)
    return np.clip(grey + (rng.random(3) - 0.5) * rng.choice([0.06, 0.2, 0.6]), 0.01, 1.0).astype(np.float32) ** 2


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a random picture (size, size, 3) without a face: a gradient with clutter, stripes, foliage or lights,
    blurred.
    """
    small = 96
    y, x = np.mgrid[0:small, 0:small].astype(np.float32) / small
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    image = (random_colour(rng) * (1 - ramp) + random_colour(rng) * ramp).astype(np.float32)
    kind = rng.choice(["plain", "clutter", "clutter", "clutter", "stripes", "leaves", "lights"])
    if kind == "clutter":
        for _ in range(rng.integers(8, 45)):
            c, p = random_colour(rng).tolist(), rng.integers(-10, small + 10, 2)
            if (shape := rng.random()) < 0.45:
                q = p + rng.integers(3, 45, 2)
                cv2.rectangle(image, p.tolist(), q.tolist(), c, -1 if rng.random() < 0.7 else int(rng.integers(1, 5)))
            elif shape < 0.7:
                cv2.ellipse(
                    image, p.tolist(), rng.integers(2, 26, 2).tolist(), float(rng.uniform(0, 180)), 0, 360, c, -1
                )
            elif shape < 0.85:
                cv2.line(image, p.tolist(), rng.integers(-10, small + 10, 2).tolist(), c, int(rng.integers(1, 7)))
            else:
                cv2.fillPoly(image, [rng.integers(-10, small + 10, (rng.integers(3, 7), 2)).astype(np.int32)], c)
    elif kind == "stripes":
        period, turn = rng.uniform(0.05, 0.3), rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
        wave = ((x * np.cos(turn) + y * np.sin(turn)) / period) % 1 < rng.uniform(0.1, 0.9)
        if rng.random() < 0.4:
            wave ^= ((y * np.cos(turn) - x * np.sin(turn)) / (period * rng.uniform(0.5, 2))) % 1 < rng.uniform(0.1, 0.9)
        image += wave[..., None] * (random_colour(rng) - image) * rng.uniform(0.2, 1)
    elif kind == "leaves":
        scale = rng.uniform(1.0, 5.0)
        n = read_noise((x * 96 * scale).ravel() + rng.uniform(0, 512), (y * 96 * scale).ravel() + rng.uniform(0, 512))
        n = n.reshape(small, small, 4)
        image = image * np.clip(1 + 0.5 * n[..., 1:2] + 0.35 * n[..., :1], 0.05, 3)
        image = image + random_colour(rng) * np.clip(n[..., 2:3] - 1, 0, 1) * 0.4
    elif kind == "lights":
        image *= 0.3
        for _ in range(rng.integers(6, 30)):
            centre, radius = rng.integers(0, small, 2).tolist(), int(rng.integers(1, 9))
            cv2.circle(image, centre, radius, (random_colour(rng, 0.5, 1.0) * 1.3).tolist(), -1)
    sigma = rng.choice([0.0, 0.6, 1.5, 3.0, 6.0])
    if sigma:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    image = cv2.resize(np.ascontiguousarray(image, np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.4:
        grain = cv2.resize(rng.standard_normal((size // 3, size // 3)).astype(np.float32), (size, size))
        image = image * (1 + rng.uniform(0.03, 0.25) * grain)[..., None]
    return np.clip(image, 0.001, 1.5)


def lookup(maps: np.ndarray, x: np.ndarray, y: np.ndarray, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
    """Return float32 values (N,) or (N, channels) of maps (H, W) or (H, W, channels) at indices (x, y), bilinear."""
    n, width = len(x), 1024  # OpenCV's remap limits the sides of an image, so the list is folded
    if not n:
        return np.zeros((0, *maps.shape[2:]), np.float32)
    rows = -(-n // width)
    place = np.zeros((2, rows * width), np.float32)
    place[0, :n], place[1, :n] = x, y
    place = place.reshape(2, rows, width)
    channels = maps[..., None] if maps.ndim == 2 else maps
    layers = [channels[..., i : i + 4] for i in range(0, channels.shape[2], 4)]  # and the channels to four
    out = [
        cv2.remap(np.ascontiguousarray(layer, np.float32), place[0], place[1], cv2.INTER_LINEAR, borderMode=border)
        for layer in layers
    ]
    values = np.concatenate([part.reshape(rows * width, -1)[:n] for part in out], 1)
    return values[:, 0] if maps.ndim == 2 else values


@cache
def noise_maps() -> np.ndarray:
    """Return periodic noise maps (512, 512, 4) with standard deviation 1: coarse, middle, fine, and vertical strands."""
    rng = np.random.default_rng(68)
    fy, fx = np.fft.fftfreq(512)[:, None] * 512, np.fft.rfftfreq(512)[None] * 512
    radius = np.hypot(fx, fy)
    shapes = [
        np.exp(-((radius / 14.0) ** 2)),
        np.exp(-((radius / 60.0) ** 2)) * (radius > 8),
        np.exp(-((radius / 170.0) ** 2)) * (radius > 40),
        np.exp(-((fx / 130.0) ** 2) - (fy / 12.0) ** 2) * (fx > 6),
    ]
    maps = []
    for shape in shapes:
        m = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((512, 512))) * shape, s=(512, 512))
        maps.append(m / m.std())
    return np.ascontiguousarray(np.stack(maps, -1).astype(np.float32))


def read_noise(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return noise (N, 4) at pixel coordinates (N,) of the periodic maps."""
    return lookup(noise_maps(), np.mod(x, 512), np.mod(y, 512), cv2.BORDER_WRAP)
