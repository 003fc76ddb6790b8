"""Rendered faces of kinds that are rare in labelled photographs: `python weights/making/make.py rare_faces OUT COUNT`.

Half of them have shut or narrow eyes, the others are turned to the side. OUT becomes a dataset of pictures with .pts. A
larger set begins with the faces of a smaller one.
"""

import numpy as np
from record import ROOT

from extras.shared.pts import write_pts
from extras.synthetic import render
from extras.synthetic.head import both_lids
from extras.synthetic.people import PROFILE
from pipnet.images import write_image

SEED, SIDE = 1, 256  # seed 0 draws the faces of the dataset `synthetic`; px
POSES = 2000  # the pose of face i is drawn by the seed of face POSES + i
SHUT, TURNED = 0.6, 35  # share of the first half whose eyes are quite shut; degrees, least yaw of the others


def shut_eyes(rng: np.random.Generator) -> dict:
    """Return the pose of a face whose eyes are shut, or open by up to half of the usual height."""
    openness = 0.0 if rng.uniform() < SHUT else rng.uniform(0.05, 0.5)
    return {"lids": both_lids(openness, max(rng.normal(0.8, 0.15), 0.2))}


def turned(rng: np.random.Generator) -> dict:
    """Return the pose of a face that looks to the left or right."""
    yaw = rng.choice([-1, 1]) * rng.uniform(TURNED, PROFILE)
    return {"angles": tuple(np.radians([yaw, np.clip(rng.normal(-17, 11), -50, 14), rng.normal(0, 10)]))}


def main(out: str, count: str) -> None:
    """Write `count` faces into OUT/train."""
    folder = ROOT / out / "train"
    folder.mkdir(parents=True)
    for index in range(int(count)):
        rng = np.random.default_rng([SEED, POSES + index])
        face = render(SEED, index, SIDE, **(shut_eyes if index % 2 else turned)(rng))
        file = folder / f"{index:05d}.jpg"
        write_image(file, face.image)
        write_pts(file.with_suffix(".pts"), face.landmarks - 0.5)  # of the first pixel, the centre is 0
