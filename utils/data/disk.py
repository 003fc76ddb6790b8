"""A prepared set on disk, data/<name>-<hash>/: a table for each split. A column's values are read when they are used.

<split>/NAME.npy       a column: M values; jpeg: byte range [begin, end) of each face's crop in crops.jpegs
<split>/NAME.text.npy  a column of names: byte range [begin, end) of each name in text.utf8
<split>/crops.jpegs    the nominal crops grown by the margin, side round(target_size * margin) px, one after the other
<split>/text.utf8      names, one after the other
meanface.txt           mean training landmarks in [0, 1] of the nominal crop, x y x y ... on one line
left_out.txt           faces whose image is damaged, with the reason; absent if there are none
meta.yaml              how the set was made, and what is needed to use it
opened                 empty; its time is that of the last use
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tokenize import TokenError  # of a damaged .npy
from typing import Any

import numpy as np
import yaml

from pipnet import images
from pipnet.bounds import MOST_CROP
from pipnet.errors import UserError, limit_reached, one_line
from pipnet.geometry import to_crop
from utils.data.table import Splits

FAR = 1 << 20  # px; no picture that can be read is larger
CROPS, TEXT, NAMES = "crops.jpegs", "text.utf8", ".text"
AGAIN = "prepare the set again: --prepare --overwrite"


# ------------------------------------------------------------------------------------------------------------- reading
class Stored:
    """A column in a file: `column[rows]` reads values and checks them. check: (file, values) -> values; UserError."""

    def __init__(self, file: Path, values: np.ndarray, check: Callable[[Path, np.ndarray], np.ndarray]):
        self.file, self.values, self.check = file, values, check

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        return self.check(self.file, self.values[rows])


def stored_columns(folder: Path, meta: dict[str, Any]) -> dict[str, Any]:
    """Return {name: array or `Stored` of K values} of a split. Values are read and checked when they are used.

    UserError if types or sizes of the files do not fit together.
    """
    count, states = meta["count"], len(meta["states"])
    shapes = {
        "size": (np.int64, 2),
        "crop": (np.float64, 4),
        "box": (np.float64, 4),
        "landmarks": (np.float64, count, 2),
        "visible": (np.bool_, count),
        "pose": (np.float64, 3),
        "states": (np.bool_, states),
        "jpeg": (np.int64, 2),
    }
    checks = {"crop": _check_crops, "box": _check_places, "landmarks": _check_landmarks}
    names = _bytes(folder / TEXT)
    columns: dict[str, Any] = {}
    for stem in meta["columns"]:
        file, name = folder / f"{stem}.npy", stem.removesuffix(NAMES)
        values = _array(file)
        kind, *shape = (np.int64, 2) if stem != name else shapes.get(name, (values.dtype, *values.shape[1:]))
        if values.dtype != kind or values.shape[1:] != tuple(shape) or values.dtype.kind not in "biuf":
            raise UserError(
                f"{file} holds {values.dtype} {values.shape}, not a row of {np.dtype(kind)} {tuple(shape)} for each "
                f"face; {AGAIN}"
            )
        if stem != name:
            columns[name] = Stored(file, values, partial(_texts, names))
        else:
            columns[name] = Stored(file, values, checks[name]) if name in checks else values
    rows = {name: len(values) for name, values in columns.items()}
    if not rows["jpeg"] or len(set(rows.values())) > 1:
        raise UserError(f"{folder} has columns of {', '.join(map(str, sorted(set(rows.values()))))} rows; {AGAIN}")
    end, crops = int(columns["jpeg"][-1][1]), folder / CROPS
    if not crops.is_file() or end > crops.stat().st_size:
        raise UserError(f"{crops} has not the {end} bytes that {folder / 'jpeg.npy'} says; {AGAIN}")
    return columns


def _array(file: Path) -> np.ndarray:
    """Return the array in a file, memory-mapped, so that nothing is read yet. UserError for a file that holds no array."""
    try:
        if not file.is_file():
            raise ValueError("no such file")
        # it runs no pickle, and maps no more than the file has
        array = np.asarray(np.lib.format.open_memmap(file, mode="r"))
        if not array.ndim:
            raise ValueError("a single value")
        return array
    except (OSError, EOFError, ValueError, OverflowError, TypeError, TokenError, SyntaxError) as error:
        raise UserError(f"{file} holds no column ({one_line(error)}); {limit_reached(error) or AGAIN}") from None


def _bytes(file: Path) -> np.ndarray:
    try:
        return (
            np.asarray(np.memmap(file, np.uint8, "r"))
            if file.is_file() and file.stat().st_size
            else np.zeros(0, np.uint8)
        )
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror})") from None


def _texts(names: np.ndarray, file: Path, places: np.ndarray) -> np.ndarray:
    """Return the names (B,) at places (B, 2). Names of files that are not UTF-8 are allowed."""
    if not ((places[:, 0] >= 0) & (places[:, 0] <= places[:, 1]) & (places[:, 1] <= len(names))).all():
        raise UserError(f"{file}: a name is not in {TEXT}; {AGAIN}")
    return np.array(
        [names[begin:end].tobytes().decode(errors="surrogateescape") for begin, end in places.tolist()], object
    )


def _check_landmarks(file: Path, values: np.ndarray) -> np.ndarray:
    if (np.abs(values) > FAR).any():  # NaN is an unknown landmark
        raise UserError(f"{file}: a coordinate is more than {FAR} px away; {AGAIN}")
    return values


def _check_places(file: Path, values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise UserError(f"{file}: a coordinate that is no number; {AGAIN}")
    return _check_landmarks(file, values)


def _check_crops(file: Path, values: np.ndarray) -> np.ndarray:
    if not (values[:, 2:] > values[:, :2]).all():
        raise UserError(f"{file}: not a crop box; {AGAIN}")
    return _check_places(file, values)


def stored_crop(file: Path, places: np.ndarray, index: int) -> bytes:
    """Return the bytes of a crop's JPEG. places (M, 2): first byte in `file` and the one after the last."""
    begin, end = places[index].tolist()
    try:
        with open(file, "rb") as handle:
            if not 0 <= begin < end <= min(begin + MOST_CROP, os.fstat(handle.fileno()).st_size):
                raise UserError(f"{file}: a crop is not within it; {AGAIN}")
            return os.pread(handle.fileno(), end - begin, begin)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None


def decoded_crop(file: Path, stored: Callable[[int], bytes], names: Stored, index: int) -> np.ndarray:
    """Return a crop (S, S, 3) uint8 BGR. UserError, naming the face, for a damaged one."""
    return images.read_image(Path(f"{file} (the crop of {names[np.array([index])][0]})"), AGAIN, stored(index))


# ------------------------------------------------------------------------------------------------------------- writing
def rounded(values: np.ndarray, digits: int) -> np.ndarray:
    """Return numbers rounded to `digits` decimals, exactly as formatting them as text rounds them."""
    scaled = np.asarray(values, np.float64) * 10**digits
    result = np.rint(scaled) / 10**digits
    ties = np.abs(scaled - np.floor(scaled) - 0.5) < 1e-3  # the product is rounded itself
    result[ties] = [float(f"{value:.{digits}f}") for value in np.asarray(values)[ties]]
    return result


def write_set(folder: Path, source: Path, splits: Splits, meta: dict) -> None:
    """Write tables, meanface and meta.yaml beside the crops. UserError if only some landmarks are ever annotated.

    A table has a column jpeg: places in the split's file of crops, which has been written.
    """
    if "train" in splits and not np.isnan(splits["train"]["landmarks"]).all():  # faces without labels have no mean
        landmarks = to_crop(splits["train"]["landmarks"], splits["train"]["crop"])
        unseen = np.flatnonzero(np.isnan(landmarks).any(axis=-1).all(axis=0))
        if len(unseen):
            raise UserError(f"{source}: landmark {unseen[0]} is annotated in no training face, so it has no mean")
        meanface = np.nanmean(landmarks, axis=0).ravel().tolist()
        (folder / "meanface.txt").write_text(" ".join(map(repr, meanface)) + "\n", encoding="ascii")
    names: list[str] = []
    for split, table in splits.items():
        names = _write_table(folder / split, table)
    (folder / "meta.yaml").write_text(yaml.safe_dump({**meta, "columns": names}, sort_keys=False), encoding="utf-8")


def _write_table(folder: Path, table: dict[str, Any]) -> list[str]:
    """Write the columns of a table as files; return their names."""
    if "visible" in table:
        table = {**table, "visible": np.asarray(table["visible"]) & ~np.isnan(table["landmarks"]).any(-1)}
    for name, digits in {"crop": 4, "box": 4, "landmarks": 4, "pose": 6}.items():
        if name in table:
            table[name] = rounded(table[name], digits)
    stems, places, size = [], {}, 0
    with open(folder / TEXT, "wb") as text:
        for name, values in table.items():
            stems.append(name + NAMES * isinstance(values[0], str))
            if isinstance(values[0], str):
                for value in values:
                    if value not in places:  # many faces may have the same subset
                        start, size = size, size + text.write(value.encode(errors="surrogateescape"))
                        places[value] = start, size
                values = [places[value] for value in values]
            values = np.asarray(values)
            kinds = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}
            np.save(
                folder / f"{stems[-1]}.npy", values.astype(kinds[values.dtype.kind], copy=False), allow_pickle=False
            )
    return stems
