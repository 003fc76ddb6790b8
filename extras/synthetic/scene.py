"""Surroundings of a synthetic face: glasses, occluders, and the effects of lens, sensor and file format.

Canvases are float32 BGR in linear light, masks float32 in [0, 1]; coordinates are continuous canvas px.
"""

from typing import Any

import cv2
import numpy as np

from extras.shared.backgrounds import background, random_colour
from extras.synthetic.raster import Drawing


def blend(canvas: np.ndarray, mask: np.ndarray, paint: np.ndarray) -> None:
    """Lay `paint` (3,) or (H, W, 3) over the canvas, in place, with opacity `mask` (H, W)."""
    x, y, w, h = cv2.boundingRect((mask > 0.004).astype(np.uint8))
    if w and h:
        part = canvas[y : y + h, x : x + w]
        over = paint[y : y + h, x : x + w] if paint.ndim == 3 else paint
        part += (over - part) * mask[y : y + h, x : x + w, None]


def _sixteenths(points: np.ndarray) -> Any:  # OpenCV's stubs know no arrays as points
    """Return points (..., 2) int32 for OpenCV's drawing functions with `shift` 4."""
    return np.round(points * 16).astype(np.int32)


def _draw_path(image: np.ndarray, points: Any, colour: Any, thick: float, closed: bool = False) -> None:
    """Draw a path through points (N, 2) in continuous px into the image, in place."""
    cv2.polylines(image, [_sixteenths(np.asarray(points))], closed, colour, max(1, int(thick)), cv2.LINE_AA, 4)


def glasses(rng: np.random.Generator, drawing: Drawing, bridge: float, light: float) -> np.ndarray:
    """Draw spectacles or sunglasses onto the canvas, in place; return the mask (S, S) of hidden pixels.

    bridge: z in mm of the nose's root. light: brightness of the scene.
    """
    size, project = drawing.size, drawing.project
    canvas, depth = drawing.canvas.reshape(size, size, 3), drawing.depth.reshape(size, size)
    dark = rng.random() < 0.28
    half_w, half_h, power = rng.uniform(21, 27), rng.uniform(14, 23 if dark else 20), rng.choice([2.0, 2.6, 4.0, 7.0])
    cy, gap, drop = rng.uniform(8, 13), rng.uniform(31.5, 34.5), rng.uniform(-0.06, 0.1)
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ox = half_w * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / power)
    oy = half_h * np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / power) * (1 - drop * (np.sin(t) > 0))
    scale = np.linalg.norm(np.subtract(*project(np.array([[10.0, 0, 0], [0.0, 0, 0]]))[0])) / 10
    frame = random_colour(rng, 0.0, 0.35) if rng.random() < 0.7 else random_colour(rng)
    thick = max(1, round(rng.uniform(0.9, 3.5) * scale))
    rim, lens = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)
    for s in (-1, 1):
        x, y = s * gap + ox * s, cy + oy
        p = np.stack([x, y, bridge + 9 - 0.0045 * x**2 - 0.08 * np.maximum(y - 5, 0)], 1)
        flat = project(p)[0] - 0.5
        cv2.fillPoly(lens, [_sixteenths(flat)], 255, cv2.LINE_AA, 4)
        if rng.random() < 0.95 or not dark:
            _draw_path(rim, flat, 255, thick, closed=True)
        a = np.array([s * (gap + half_w), cy - 5, bridge + 9 - 0.0045 * (gap + half_w) ** 2])
        arm = a + (np.array([s * 79.0, 24.0, -95.0]) - a) * np.linspace(0, 1, 12)[:, None]
        flat, far = project(arm)
        cell = np.clip(flat.astype(int), 0, size - 1)
        seen = depth[cell[:, 1], cell[:, 0]] < far + 5
        for i in range(11):
            if seen[i] and seen[i + 1]:
                _draw_path(rim, flat[i : i + 2] - 0.5, 255, thick)
    p = np.stack(
        [np.linspace(-(gap - half_w), gap - half_w, 7), np.full(7, cy - half_h * 0.35), np.full(7, bridge + 9)], 1
    )
    p[:, 1] -= 2.5 * (1 - (p[:, 0] / (gap - half_w)) ** 2)
    _draw_path(rim, project(p)[0] - 0.5, 255, thick)
    rim, lens = rim.astype(np.float32) / 255, lens.astype(np.float32) / 255
    opacity = rng.uniform(0.75, 0.98) if dark else rng.choice([0.0, 0.0, 0.08, 0.2])
    blend(canvas, lens * opacity, random_colour(rng, *((0.0, 0.25) if dark else (0.3, 1.0))) * light)
    if rng.random() < (0.5 if dark else 0.3):  # a reflection across the lenses
        yy, xx = np.mgrid[0:size, 0:size].astype(np.float32) / size
        band = np.exp(-0.5 * (((xx + yy * rng.uniform(-1, 1) - rng.uniform(0.2, 1.0)) / rng.uniform(0.02, 0.08)) ** 2))
        blend(canvas, lens * band * rng.uniform(0.1, 0.5), random_colour(rng, 0.6, 1.0))
    blend(canvas, rim, frame * light * rng.uniform(0.5, 1.2))
    return np.maximum(rim, lens * (opacity > 0.6))


def occlude(
    rng: np.random.Generator, canvas: np.ndarray, box: np.ndarray, skin: np.ndarray, hair: np.ndarray, light: np.ndarray
) -> np.ndarray:
    """Draw a hand, a microphone, an object or strands of hair over the face, in place; return its mask (S, S).

    box: x1, y1, x2, y2 of the face in canvas px. skin, hair: colours. light: colour of the scene.
    """
    size, w, extent = canvas.shape[0], box[2] - box[0], box[2:] - box[:2]
    mask = np.zeros((size, size), np.uint8)
    kind = rng.choice(["hand", "hand", "mic", "object", "object", "strands"])
    spot = box[:2] + rng.uniform(-0.15, 1.15, 2) * extent
    if kind == "hand":
        spot = box[:2] + np.array([rng.uniform(-0.1, 1.1), rng.uniform(0.5, 1.15)]) * extent
        paint = _hand(rng, mask, spot, w, skin) * light
    elif kind == "mic":
        spot = box[:2] + np.array([rng.uniform(0.1, 0.9), rng.uniform(0.8, 1.1)]) * extent
        radius = rng.uniform(0.07, 0.15) * w
        end = spot + np.array([rng.uniform(-0.8, 0.8), 1.0]) * w
        _draw_path(mask, [spot, end], 255, radius * 0.9)
        cv2.circle(mask, _sixteenths(spot), int(radius * 16), 255, -1, cv2.LINE_AA, 4)
        y, x = np.mgrid[0:size, 0:size].astype(np.float32)
        glow = np.exp(-(((x - spot[0]) + radius * 0.4) ** 2 + ((y - spot[1]) + radius * 0.4) ** 2) / (radius * radius))
        paint = (random_colour(rng, 0.02, 0.4) * light + 0.3 * glow[..., None] * light).astype(np.float32)
    elif kind == "object":
        half = rng.uniform(0.08, 0.35, 2) * w
        shape = cv2.boxPoints((spot.tolist(), (2 * half).tolist(), float(rng.uniform(0, 180))))
        if rng.random() < 0.5:
            cv2.fillPoly(mask, [_sixteenths(shape)], 255, cv2.LINE_AA, 4)
        else:
            cv2.ellipse(mask, (spot.tolist(), (2 * half).tolist(), float(rng.uniform(0, 180))), 255, -1, cv2.LINE_AA)
        paint = background(rng, size) if rng.random() < 0.6 else np.float32(1) * random_colour(rng) * light
    else:
        _strands(rng, mask, box)
        paint = (np.maximum(hair, 0.01) * light * rng.uniform(0.8, 2.5)).astype(np.float32)
    soft = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 1.6)).astype(np.float32) / 255
    blend(canvas, soft, paint)
    return soft


def _hand(rng: np.random.Generator, mask: np.ndarray, spot: np.ndarray, w: float, skin: np.ndarray) -> np.ndarray:
    """Draw a hand at `spot` into the mask, in place, for a face `w` px wide; return its colours (S, S, 3)."""
    turn = rng.uniform(-0.9, 0.9) + (np.pi if rng.random() < 0.15 else 0)
    up, right = np.array([np.sin(turn), -np.cos(turn)]), np.array([np.cos(turn), np.sin(turn)])
    shade = np.zeros((*mask.shape, 3), np.float32)
    shade[:] = skin * rng.uniform(0.7, 1.1)
    for i in range(rng.integers(2, 6)):
        a = spot + right * (i - 1.7) * 0.115 * w
        b = a + (up * rng.uniform(0.25, 0.5) + right * rng.normal(0, 0.05) + right * (i - 1.7) * 0.03) * w
        _draw_path(mask, [a, b], 255, 0.105 * w)
        beside = right * 0.05 * w
        _draw_path(shade, [a + beside, b + beside], (skin * 0.45).tolist(), 0.03 * w)  # the finger's shadow
    palm = spot - up * 0.22 * w
    axes = [int(0.26 * w), int(0.3 * w)]
    cv2.ellipse(mask, np.round(palm).astype(int).tolist(), axes, np.degrees(turn), 0, 360, 255, -1, cv2.LINE_AA)
    _draw_path(mask, [palm, palm - up * 1.5 * w], 255, 0.34 * w)
    return cv2.GaussianBlur(shade, (0, 0), max(0.6, 0.015 * w))


def _strands(rng: np.random.Generator, mask: np.ndarray, box: np.ndarray) -> None:
    """Draw strands of hair that hang over the face into the mask, in place."""
    w, t = box[2] - box[0], np.linspace(0, 1, 14)[:, None]
    for _ in range(rng.integers(2, 14)):
        a = np.array([rng.uniform(box[0], box[2]), box[1] - 0.35 * w])
        b = a + np.array([rng.uniform(-0.5, 0.5), rng.uniform(0.3, 1.3)]) * w
        c = (a + b) / 2 + np.array([rng.uniform(-0.3, 0.3), 0]) * w
        curve = (1 - t) ** 2 * a + 2 * t * (1 - t) * c + t * t * b
        thick = int(rng.integers(1, max(2, int(0.018 * w)) + 1))
        _draw_path(mask, curve, 255, thick)


def degrade(rng: np.random.Generator, image: np.ndarray, hard: bool) -> np.ndarray:
    """Return a linear picture (H, W, 3) as uint8 BGR with random exposure, colour cast, blur, resolution, noise and
    JPEG.
    """
    size = image.shape[0]
    image = np.sqrt(np.clip(image * np.float32(np.exp(rng.normal(-0.18, 0.24))), 0, 4))
    image = np.minimum(image, 0.75 + 0.25 * np.tanh((image - 0.75) / 0.25))  # soft highlights
    if rng.random() < 0.3:
        image *= np.exp(rng.normal(0, 0.06, 3)).astype(np.float32)
    saturation = float(np.clip(rng.normal(1.04, 0.25), 0.1, 1.7))
    if rng.random() < 0.10:
        saturation = 0.0
    grey = (image @ np.array([0.114, 0.587, 0.299], np.float32))[..., None]
    image = grey + (image - grey) * saturation
    contrast = float(np.exp(rng.normal(0.2, 0.16)))
    image = (image - 0.45) * contrast + 0.45 + rng.normal(0, 0.03)
    if rng.random() < 0.45:
        image = cv2.GaussianBlur(
            image, (0, 0), rng.uniform(0.3, 1.1) * (1.8 if hard or rng.random() < 0.15 else 1) * size / 256
        )
    if rng.random() < 0.06 + 0.08 * hard:
        length = int(rng.integers(3, 10) * size / 256) | 1
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * (length // 2)
        a, b = (np.round(length // 2 + sign * reach).astype(int).tolist() for sign in (-1, 1))
        cv2.line(kernel, a, b, 1.0, 1)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    if rng.random() < 0.25:
        low = int(size / rng.uniform(1.3, 4.0 if hard else 3.2))
        image = cv2.resize(image, (low, low), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.6:
        noise = rng.standard_normal((size, size, 1 if rng.random() < 0.5 else 3), np.float32)
        if rng.random() < 0.5:
            noise = cv2.GaussianBlur(noise, (0, 0), 0.7).reshape(noise.shape) * 2
        image = image + noise * rng.uniform(0.004, 0.035)
    out = np.clip(image * 255, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))])[1]
        out = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return out
