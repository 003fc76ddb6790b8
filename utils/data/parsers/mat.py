"""MATLAB files up to v7, which scipy reads."""

from io import BytesIO
from pathlib import Path

import numpy as np

from pipnet.errors import UserError


def read_mat(file: Path, *keys: str) -> list[np.ndarray]:
    """The variables `keys` of a file, as MATLAB shows them (a row is (1, n)). UserError when it is damaged or lacks one."""
    from scipy.io import loadmat
    try:
        data = BytesIO(Path(file).read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    try:
        found = loadmat(data, variable_names=keys)
    except Exception as error:  # of a damaged file scipy raises whatever its parser stumbles over, zlib.error and IndexError too
        raise UserError(f"{file}: not a readable MATLAB file ({' '.join(str(error).split())[:100]}); fetch it again") from None
    if missing := [key for key in keys if key not in found]:
        raise UserError(f"{file}: no {missing[0]} in it")
    return [found[key] for key in keys]


def values(array: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """The same as finite float64 of that shape (-1: any length); UserError otherwise."""
    try:
        array = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{where} does not hold numbers") from None
    if array.ndim != len(shape) or any(want not in (-1, have) for want, have in zip(shape, array.shape, strict=True)):
        raise UserError(f"{where} is {' x '.join(map(str, array.shape))}, not {' x '.join(map(str, shape)).replace('-1', 'N')}")
    if not np.isfinite(array).all():
        raise UserError(f"{where} holds a value that is not finite")
    return array
