"""Which faces of a training have labels, and faces with pseudo-labels."""
from collections.abc import Iterable

import numpy as np

from pipnet.geometry import to_image
from utils.faces.faces import Faces, constant
from utils.faces.prepared_set import name_hash


def labelled_rows(identities: Iterable[str], fraction: float, seed: int) -> np.ndarray:
    """Return (M,) bool: which faces keep their labels, those of that share of the identities, at least of one."""
    drawn = np.array([int.from_bytes(name_hash(f"{seed}/labelled/{name}")[:8]) for name in identities], np.uint64)
    order = np.unique(drawn)  # of the identities
    return drawn <= order[max(round(fraction * len(order)), 1) - 1] if len(order) else np.zeros(0, bool)


def pseudo_labelled(faces: Faces, nominal: np.ndarray, shift: float, level: int) -> Faces:
    """Return the faces with pseudo-labels (M, N, 2) in [0, 1] of the crop.

    shift: how far these lie right of the true points, in [0, 1] of the crop. level: which terms they train, see `Labels`.
    """
    crop = faces["crop"][:]
    return of_level(faces, level).with_columns(
        landmarks=to_image(nominal.astype(np.float32).astype(np.float64), crop),
        visible=constant(np.ones(nominal.shape[1], bool), len(faces)), label_shift=shift * (crop[:, 2] - crop[:, 0]))


def of_level(faces: Faces, level: int) -> Faces:
    """Return the faces with that `level`; in a training all faces have one or none has."""
    return faces.with_columns(level=constant(level, len(faces)))
