"""Faces with a user's own points, for the tutorial: `python -m extras.synthetic.points FOLDER [TRAIN TEST]`.

Ten points: the outer and the inner corners of the eyes, the tip of the nose and the corners of the mouth, which 300W
has too, and the middle of the mouth and both cheeks, which it does not have.
"""

import sys
from pathlib import Path

import numpy as np

from extras.synthetic import TEST_INDEX, render, write_face
from pipnet.errors import UserError
from utils.settings.progress import progress

SEED = 1  # other people than in the default synthetic set
MEANS = ((36,), (45,), (39,), (42,), (30,), (48,), (54,), (62, 66), (2, 31), (14, 35))  # of 68; a point is their mean


def own_points(landmarks: np.ndarray) -> np.ndarray:
    """Return the ten points (..., 10, 2) of landmarks (..., 68, 2) in the same frame."""
    return np.stack([landmarks[..., list(ids), :].mean(-2) for ids in MEANS], -2)


def write_faces(folder: Path, train: int = 50, test: int = 200) -> None:
    """Write `train` faces into folder/train and `test` others into folder/test: .jpg and .pts.
    Raise UserError if it exists.
    """
    if Path(folder).exists():
        raise UserError(f"{folder} exists already; remove it or name another folder")
    for split, begin, count in (("train", 0, train), ("test", TEST_INDEX, test)):
        place = Path(folder, split)
        place.mkdir(parents=True)
        for index in progress(range(count), desc=f"{split} faces", unit="face"):
            face = render(SEED, begin + index)
            points = own_points(face.landmarks) - 0.5  # origin: the centre of the first pixel is 0
            write_face(place / f"face{index:04d}.jpg", face.image, points)


if __name__ == "__main__":
    try:
        flag = sys.argv[1:2] and sys.argv[1].startswith("-")  # --help is no folder
        if flag or not 2 <= len(sys.argv) <= 4 or not all(number.isdecimal() for number in sys.argv[2:]):
            raise UserError("usage: python -m extras.synthetic.points FOLDER [TRAIN TEST], with numbers of faces")
        write_faces(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    except UserError as error:
        sys.exit(f"error: {error}")
