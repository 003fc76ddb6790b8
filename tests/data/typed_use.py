"""Right uses of `Landmarker`, which a type checker must accept."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipnet import Face, Landmarker


def of_a_picture(landmarker: Landmarker, image: np.ndarray | str | Path | Image.Image) -> list[Face]:
    return landmarker(image, second_crop=False)


def of_pictures(landmarker: Landmarker, images: list[np.ndarray]) -> list[list[Face]]:
    return landmarker([*images, "face.jpg"])


def boxes(landmarker: Landmarker) -> list[np.ndarray]:
    return [face.box for faces in landmarker(("a.jpg", "b.jpg")) for face in faces]
