"""Crops and changes that the tests of both ways to carry out changes share."""

from dataclasses import asdict, replace

import cv2
import numpy as np
from conftest import settings

from utils.data.changes import Change

DEFAULT = settings("default").augment
PLAIN = replace(DEFAULT, **{key: 0.0 for key, value in asdict(DEFAULT).items() if isinstance(value, float)})
GEOMETRY = {
    "scale": 0.15,
    "translation": 0.08,
    "rotation": 30.0,
    "rotation_prob": 1.0,
    "translation_prob": 1.0,
    "flip": 0.5,
}


def crops(count: int = 3, side: int = 80) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (side, side)) for _ in range(count)])


def neutral(count: int, side: int = 64, **given) -> Change:
    return Change(
        **{
            "size": 64,
            "seen": 80,
            "side": side,
            "matrix": np.tile(np.eye(2, 3), (count, 1, 1)),
            "mirrored": np.zeros(count, bool),
            **given,
        }
    )
