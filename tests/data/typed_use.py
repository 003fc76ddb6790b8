"""Right uses of `Landmarker`, which a type checker must accept."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipnet import Face, Landmarker

Pixels = NDArray[np.uint8]


def of_a_picture(landmarker: Landmarker, image: Pixels | str | Path | Image.Image) -> list[Face]:
    return landmarker(image, second_crop=False)


def of_pictures(landmarker: Landmarker, images: list[Pixels]) -> list[list[Face]]:
    return landmarker([*images, "face.jpg"])


def boxes(landmarker: Landmarker) -> list[Pixels]:
    return [face.box for faces in landmarker(("a.jpg", "b.jpg")) for face in faces]
