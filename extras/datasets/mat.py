"""Readers of MATLAB files up to v7, by scipy."""

from io import BytesIO
from pathlib import Path

import numpy as np

from pipnet.errors import UserError, one_line
from pipnet.files import read_bytes
from utils.settings.memory import limited


def damaged(file: Path, kind: str, error: Exception) -> UserError:
    """Return the UserError for a file that is not a readable file of `kind`."""
    return UserError(f"{file}: not a readable {kind} file ({one_line(error, 100)}); fetch it again")


def read_mat(file: Path, *keys: str) -> list[np.ndarray]:
    """Return the variables `keys` as MATLAB shows them (a row is (1, n)).
    Raise UserError for a damaged file or a missing key.
    """
    from scipy.io import loadmat

    try:
        data = BytesIO(read_bytes(file))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    try:
        with limited():
            found = loadmat(data, variable_names=keys)
    except Exception as error:  # scipy raises many kinds for a damaged file, among them zlib.error and IndexError
        raise damaged(file, "MATLAB", error) from None
    if missing := [key for key in keys if key not in found]:
        raise UserError(f"{file}: no {missing[0]} in it; fetch it again")
    return [found[key] for key in keys]


def values(array: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Return an array as finite float64 of `shape` (-1: any length). Raise UserError for other contents."""
    try:
        array = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{where} does not hold numbers") from None
    if array.ndim != len(shape) or any(want not in (-1, have) for want, have in zip(shape, array.shape, strict=True)):
        raise UserError(
            f"{where} is {' x '.join(map(str, array.shape))}, not {' x '.join(map(str, shape)).replace('-1', 'N')}"
        )
    if not np.isfinite(array).all():
        raise UserError(f"{where} holds a value that is not finite")
    return array
