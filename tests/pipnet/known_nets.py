"""Nets and landmarkers with known outputs."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from conftest import (
    DEFAULTS,
    LAYOUTS,
    SQUARE,
    square_face,
)

from pipnet import Landmarker
from pipnet.detections import FaceBox
from pipnet.geometry import Protocol
from pipnet.landmark_net import LandmarkNet


def blind(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A detector that finds nothing."""
    return np.zeros((0, 4)), np.zeros(0)


def geometric(mean: np.ndarray | None = None, protocol: str = "square", layout: str = "68", **options) -> Landmarker:
    """A landmarker for boxes and chips, whose net was trained on this mean face and is never called."""
    row = Protocol(**DEFAULTS.protocols[protocol])
    return Landmarker(LandmarkNet(None, LAYOUTS.load(layout), row, 64, mean), blind, **options)


def found_at(net: LandmarkNet, *boxes: np.ndarray, **options) -> Landmarker:
    """A landmarker whose detector finds these landmark boxes in every picture, with scores from 0.9 down."""
    scores = 0.9 - 0.1 * np.arange(len(boxes))
    landmarker = Landmarker(net, lambda image: (np.array(boxes), scores), **{"finder": "none", **options})
    landmarker.detector.face_box = FaceBox(0, 1, 1)
    return landmarker


def known_net(truth: np.ndarray, pull: float = 0.0) -> LandmarkNet:
    """A net that knows where the landmarks `truth` (68, 2) of `coded` are, but drifts by the share `pull` to the mean
    face.
    """

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        shades = images.reshape(len(images), -1, 3)[..., :2] * (3.0, 2.0) + (1.5, 1)  # x and y that each pixel shows
        sides = shades.std(1, keepdims=True) * 12**0.5
        found = (truth - shades.mean(1, keepdims=True)) / sides + 0.5
        found = (1 - pull) * found + pull * square_face()
        return {"landmarks": found.astype(np.float32), "score": np.full(found.shape[:2], 1.5, np.float32)}

    return LandmarkNet(predict, LAYOUTS.load("68"), SQUARE, 128, square_face())


def judging(net: LandmarkNet, score: Callable[[np.ndarray], np.ndarray] | float = 1.0) -> LandmarkNet:
    """A net with the output `face`: what `score` says of crops (B, S, S, 3), or a number."""

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        said = score(images) if callable(score) else np.full(len(images), score)
        return {**net.predict(images), "face": np.asarray(said, np.float32)}

    return replace(net, predict=predict, face=True)


def coded() -> np.ndarray:
    """(480, 640, 3): blue says x / 3, green y / 2."""
    y, x = np.mgrid[:480, :640]
    return np.dstack([x // 3, y // 2, np.zeros_like(x)]).astype(np.uint8)


def looks_alike(count: int) -> dict[str, np.ndarray]:
    """Return what a net gives that sees the mean face in all crops."""
    return {"landmarks": np.tile(square_face(), (count, 1, 1)), "score": np.ones((count, 68), np.float32)}
