"""A set of faces as a table: named columns of equal length, and the crops. Rows are read only when they are used."""

import copy
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property, partial
from typing import Any

import numpy as np

from pipnet.cores import cores
from pipnet.geometry import border_px, cut, similarity, to_crop, transform
from utils.data.threads import Threads

GIB = 1 << 30
CHUNK = 1 << 16  # most faces that are read at once if all are needed
AVERAGED = 1 << 18  # most faces from which the mean face is computed
ALL = slice(None)


# ------------------------------------------------------------------------------------------------------------- columns
class Column:
    """Values of `count` faces, read or computed when they are used. An array can take the place of a Column.

    `column[i]` is one value, `column[rows]` an array of several; rows: a slice, indices or flags. read(rows): returns
    the values of indices (B,) or of a slice.
    """

    def __init__(self, count: int, read: Callable[[np.ndarray | slice], np.ndarray]):
        self.count, self.read = count, read

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows):
        if isinstance(rows, (int, np.integer)):
            return self.read(np.array([range(self.count)[rows]]))[0]
        if isinstance(rows, slice):  # a part of a stored column is not copied
            return self.read(
                slice(*rows.indices(self.count)) if rows.step in (None, 1) else np.arange(self.count)[rows]
            )
        rows = np.asarray(rows)
        return self.read(np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64, copy=False))

    def __iter__(self) -> Iterator:
        for start in range(0, self.count, CHUNK):
            yield from self[start : start + CHUNK]


Values = np.ndarray | Column


def constant(value: Any, count: int) -> np.ndarray:
    """Return a column (count, ...) with the same value in each row, stored once.

    A value that is no number or array becomes an object.
    """
    value = np.array(value, None if isinstance(value, (int, float, np.generic, np.ndarray)) else object)
    return np.broadcast_to(value, (count, *value.shape))


def mapped(function: Callable, *columns: Values) -> Column:
    """Return a column whose values are function(values of the columns)."""
    return Column(len(columns[0]), partial(_mapped, function, columns))


def picked(column: Values, rows: np.ndarray) -> Column:
    """Return a column with some rows (indices) of another one."""
    return Column(len(rows), partial(_picked, column, rows))


def joined_column(columns: list[Values]) -> Values:
    """Return a column with the rows of several columns, one after the other."""
    starts = np.cumsum([0, *map(len, columns)])
    return columns[0] if len(columns) == 1 else Column(int(starts[-1]), partial(_joined, columns, starts[:-1]))


def _mapped(function: Callable, columns: tuple[Values, ...], rows) -> np.ndarray:
    return function(*(column[rows] for column in columns))


def _picked(column: Values, chosen: np.ndarray, rows) -> np.ndarray:
    return column[chosen[rows]]


def _joined(columns: list[Values], starts: np.ndarray, rows) -> np.ndarray:
    rows = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
    of = (
        np.searchsorted(starts, rows, "right") - 1
    )  # the column of each row; one without rows shares its start with the next
    if len(rows) and (of == of[0]).all():
        return columns[of[0]][rows - starts[of[0]]]
    none = columns[0][:0]
    found = np.empty((len(rows), *none.shape[1:]), none.dtype)
    for number in np.unique(of):
        found[of == number] = columns[number][rows[of == number] - starts[number]]
    return found


# --------------------------------------------------------------------------------------------------------------- crops
def reclaimable(*shape: int) -> np.ndarray:
    """Return an array of bytes, mapped to a temporary file without a name, so that the system can reclaim its memory.

    Without room for the file, and on other systems than Linux, the array is in memory.
    """
    if sys.platform == "linux" and min(shape):
        with suppress(OSError), tempfile.TemporaryFile() as file:
            os.posix_fallocate(
                file.fileno(), 0, math.prod(shape)
            )  # a write to a mapped file on a full disk would be a SIGBUS
            return np.asarray(np.memmap(file, np.uint8, "w+", shape=shape))
    return np.empty(shape, np.uint8)


class Crops:
    """Pictures of faces: `crops[i]` is (S, S, 3) uint8 BGR, the nominal crop of `size` px with `border` px around it.

    side: S. seen: px of the border that the net sees. read(i): returns the picture. stored(i): returns its JPEG as
    bytes.
    """

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        stored: Callable[[int], bytes],
        count: int,
        size: int,
        border: int,
        seen: int = 0,
    ):
        self.read, self.stored, self.size, self.border, self.seen = read, stored, size, border, seen
        self.count, self.side = count, size + 2 * border
        self.rows: np.ndarray | None = None  # which pictures these are; None: all of them
        self.decoded: np.ndarray | None = None  # all that `read` returns

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        row = self._row(index)
        return self.read(row) if self.decoded is None else self.decoded[row]

    def encoded(self, index: int) -> bytes:
        """Return the stored JPEG of a crop."""
        return self.stored(self._row(index))

    def _row(self, index: int) -> int:
        return range(self.count)[index] if self.rows is None else int(self.rows[index])

    def plain(self, index: int, seen: int | None = None) -> np.ndarray:
        """Return a crop as the net gets it without augmentation.
        seen: px of border that are kept, 0 for the nominal crop.
        """
        picture, edge = self[index], self.border - (self.seen if seen is None else seen)
        return picture[edge : len(picture) - edge, edge : len(picture) - edge]

    def only(self, rows: np.ndarray) -> "Crops":
        """Return the crops at some rows (indices). Decoded pictures are shared, not copied."""
        some = copy.copy(self)
        some.count, some.rows = len(rows), rows if self.rows is None else self.rows[rows]
        return some

    def at(self, size: int, margin: float, seen: float) -> "Crops":
        """Return the crops resized to a nominal crop of `size` px.

        margin: stored crop / nominal crop; seen: net's input / nominal crop.
        """
        border = border_px(size, margin)
        return Crops(partial(_at, self, size, border), self.encoded, len(self), size, border, border_px(size, seen))

    def cached(self, cache: float) -> "Crops":
        """Return the crops, all of them decoded now if they fit into `cache` GiB."""
        if len(self) * self.side**2 * 3 > cache * GIB:
            return self
        some = Crops(self.__getitem__, self.encoded, len(self), self.size, self.border, self.seen)
        decoded = reclaimable(len(self), self.side, self.side, 3)
        with Threads(cores()) as pool:
            for index, crop in enumerate(pool.map(self.__getitem__, range(len(self)))):
                decoded[index] = crop
        some.decoded = decoded
        return some

    @classmethod
    def join(cls, parts: list["Crops"]) -> "Crops":
        """Return the crops of several sets, one after the other. All must have one size."""
        if len(parts) == 1:
            return parts[0]
        starts, first = np.cumsum([0, *map(len, parts)]), parts[0]
        read, stored = (partial(_of_part, way, parts, starts[:-1]) for way in (cls.__getitem__, cls.encoded))
        return cls(read, stored, int(starts[-1]), first.size, first.border, first.seen)


def _of_part(way: Callable, parts: list[Crops], starts: np.ndarray, index: int):
    part = int(np.searchsorted(starts, index, "right")) - 1
    return way(parts[part], index - int(starts[part]))


def _at(crops: Crops, size: int, border: int, index: int) -> np.ndarray:
    stored, side = crops[index], size + 2 * border
    if len(stored) == side:
        return stored
    edge = (len(stored) - crops.size) / 2
    return cut(stored, np.array([edge, edge, len(stored) - edge, len(stored) - edge]), size, side / size)


# --------------------------------------------------------------------------------------------------------------- table
class Faces:
    """M faces: columns {name: M values}, their crops, and facts about all of them. A column may be absent.

    file         text            name of the image in `source`; #2 at its end marks the second face of an image
    source       Path            folder of the raw archive
    subset       text            part of a test set; several are joined by table.BESIDE
    identity     text            the person; train and val have no person in common
    set          text            checksum of the prepared set
    size         (2,) int        width and height of the source image, px
    crop, box    (4,) float64    x1, y1, x2, y2 of the nominal crop and of the face box, continuous px of the source
    image target       int             side of the nominal crop as stored, px
    landmarks    (N, 2) float64  continuous px of the source image, NaN where unknown
    known        (N,) bool       whether the landmark is known
    visible      (N,) float      whether the landmark is seen, 0 or 1, NaN where unknown
    label_shift  float           px of the source image by which the labels lie too far right; NaN without a face
    pose         (3,) float      pitch, yaw, roll, radians
    states       (k,) float      0 or 1 for each of facts["states"], NaN where unknown
    face         float           1: the crop shows this face; 0: it shows no human face; see `nets.stages.face`
    step         int             frames between two faces of a video
    level        int             the terms that the face trains, see `Labels`

    Facts: protocol and margin of the crops; states: names; subsets: names in the order of the publications; aligned:
    whether each set has its own share of the landmarks, see `aligned`; meanface: with column `face`, that of the faces.
    """

    def __init__(self, columns: dict[str, Values], crops: Crops, facts: dict[str, Any]):
        self.columns, self.crops, self.facts = columns, crops, facts

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, name: str) -> Values:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def only(self, rows: np.ndarray) -> "Faces":
        """Return some of the faces, by their indices."""
        columns: dict[str, Values] = {name: picked(column, rows) for name, column in self.columns.items()}
        return Faces(columns, self.crops.only(rows), self.facts)

    def with_columns(self, **new: Values) -> "Faces":
        """Return the faces with columns added or replaced."""
        return Faces({**self.columns, **new}, self.crops, self.facts)

    def without(self, *names: str) -> "Faces":
        """Return the faces without some columns."""
        return Faces(
            {name: column for name, column in self.columns.items() if name not in names}, self.crops, self.facts
        )

    @classmethod
    def join(cls, parts: list["Faces"]) -> "Faces":
        """Return the faces of several sets, one after the other, with the facts of the first.

        A column that a set lacks is NaN or 0.
        """
        columns = {}
        for name in dict.fromkeys(name for part in parts for name in part.columns):
            known = next(part[name] for part in parts if name in part)[:0]
            unknown = np.full(known.shape[1:], np.nan if known.dtype.kind == "f" else 0, known.dtype)
            columns[name] = joined_column(
                [part[name] if name in part else constant(unknown, len(part)) for part in parts]
            )
        return cls(columns, Crops.join([part.crops for part in parts]), parts[0].facts)

    # -------------------------------------------------------------------------------- computed for the rows asked for
    def nominal(self, rows=ALL) -> np.ndarray:
        """Return landmarks (..., N, 2) float32 in [0, 1] of the crop. rows: see `Column`."""
        return to_crop(self["landmarks"][rows], self["crop"][rows]).astype(np.float32)

    def shift(self, rows=ALL) -> np.ndarray:
        """Return how far the labels lie right of the true points (...,), in [0, 1] of the crop."""
        crop = self["crop"][rows]
        return self["label_shift"][rows] / (crop[..., 2] - crop[..., 0])

    def frame(self, rows=ALL) -> np.ndarray:
        """Return the corners (..., 2, 2, 2) of the face box and of the source image in [0, 1] of the crop."""
        box, size, crop = (self[name][rows] for name in ("box", "size", "crop"))
        source = np.stack([np.zeros_like(size), size], -2)
        return to_crop(np.stack([box.reshape(source.shape), source], -3), crop[..., None, :])

    def meanface(self) -> np.ndarray:
        """Return the mean landmarks (N, 2) float64 in [0, 1] of the crop; NaN for a landmark that no face has.

        Of more than AVERAGED faces, only so many are read: the same share of each chunk. If sets have different
        landmarks, their means are `aligned`, in the crops of the first set.
        """
        return self._meanface.copy()

    @cached_property
    def _meanface(self) -> np.ndarray:
        if self.facts.get("aligned"):
            sets = np.concatenate([self["set"][rows] for rows in chunks(len(self))])
            parts = [self.only(np.flatnonzero(sets == mark)) for mark in dict.fromkeys(sets)]
            return aligned([Faces(part.columns, part.crops, {})._meanface for part in parts])
        total: Any = 0.0
        count, used = 0, math.ceil(CHUNK * min(AVERAGED / max(len(self), 1), 1))
        for rows in chunks(len(self)):
            nominal = self.nominal(slice(rows.start, rows.start + used))
            total, count = total + np.nansum(nominal, 0, np.float64), count + np.isfinite(nominal).sum(0)
        with np.errstate(invalid="ignore"):  # landmarks that no face has
            return total / count


def aligned(means: list[np.ndarray]) -> np.ndarray:
    """Return one mean face (N, 2) made from several, which are NaN at landmarks that their faces do not have.

    The result begins with the first mean face. The others follow, each time the one that shares most landmarks with the
    result. It is moved by the similarity that fits the shared landmarks, if there are two or more, and gives its
    unknown landmarks to the result.
    """
    face, rest = means[0].copy(), means[1:]
    while rest:
        known = np.isfinite(face).all(1)
        common = [known & np.isfinite(one).all(1) for one in rest]
        place = int(np.argmax([both.sum() for both in common]))
        one, both = rest.pop(place), common[place]
        if both.sum() > 1 and np.ptp(one[both], axis=0).any():
            one = transform(one, similarity(one[both], face[both]))
        face[~known] = one[~known]
    return face


def evenly(count: int, most: int) -> list[int]:
    """Return up to `most` of the indices 0 ... count - 1, evenly spread from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).astype(int).tolist()


def chunks(count: int) -> Iterator[slice]:
    """Yield slices of at most CHUNK rows that together are all rows, so that a set of any size fits into memory."""
    for start in range(0, max(count, 1), CHUNK):
        yield slice(start, start + CHUNK)
