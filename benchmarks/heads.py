"""Rendered pictures of one head that moves: for the clips of demo.py and pictures.py."""
from collections.abc import Iterable
from typing import Any

import numpy as np
from record import ROOT  # noqa: F401  the import makes the project importable

from utils.data.synthetic import face


def moving_head(person: int, side: int, poses: Iterable[dict[str, Any]]) -> list:
    """Return a drawn face of `side` px for each pose. person: who, with seed 0; pose: fields of the pose that replace his own."""
    sample, drawn = face.sample_pose, []
    try:
        for pose in poses:
            face.sample_pose = lambda rng, hard, pose=pose: sample(rng, hard)._replace(**pose)
            drawn.append(face.draw(np.random.default_rng([0, person]), side, False))
    finally:
        face.sample_pose = sample
    return drawn
