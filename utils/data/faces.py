"""Faces as rows of one table. A row is read when it is used: `Part.read` makes it what a net needs."""

import math
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from pipnet.cores import cores
from pipnet.geometry import similarity, to_crop, transform
from utils.data.threads import Threads
from utils.settings.conversion import Conversion

GIB = 1 << 30
CHUNK = 1 << 16  # most faces that are read at once if all are needed
AVERAGED = 1 << 18  # most faces from which the mean face is computed
ALL = slice(None)
DERIVED = {  # columns that are computed from others
    "known": ("landmarks",),
    "visible": ("landmarks",),
    "nominal": ("landmarks", "crop"),
    "shift": ("label_shift", "crop"),
    "frame": ("box", "size", "crop"),
}


class CropGeometry(NamedTuple):
    """The pictures of faces: the nominal crop of `size` px with `border` px around it, of which a net sees `seen` px."""

    size: int
    border: int = 0
    seen: int = 0

    @property
    def stored(self) -> int:
        """Return the side of the picture in px."""
        return self.size + 2 * self.border

    @property
    def side(self) -> int:
        """Return the side of the net's input in px."""
        return self.size + 2 * self.seen


def constant(value: Any, count: int) -> np.ndarray:
    """Return a column (count, ...) with the same value in each row, stored once.

    A value that is no number or array becomes an object.
    """
    value = np.array(value, None if isinstance(value, (int, float, np.generic, np.ndarray)) else object)
    return np.broadcast_to(value, (count, *value.shape))


@dataclass(frozen=True)
class Part:
    """Faces from one place, such as a split of a prepared set, and how a net sees them.

    columns: {name: K values}; arrays, or what `disk.py` maps, whose rows are read and checked by `values[rows]`
    crop: row -> picture (S, S, 3) uint8 BGR. jpeg: row -> the bytes in which it is stored
    rule: converts landmarks to the net's layout; selected: indices of those that it has; None: they are as they are
    states: for each state in `columns` its index among those of the net, and the number of these; None: they are the same
    """

    columns: dict[str, Any]
    crop: Callable[[int], np.ndarray]
    jpeg: Callable[[int], bytes]
    rule: Conversion | None = None
    selected: list[int] | None = None
    states: tuple[list[int], int] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def read(self, rows: np.ndarray, names: Collection[str]) -> dict[str, np.ndarray]:
        """Return the columns `names` of some rows (B,), as far as there are such columns; see `Faces`."""
        wanted = {*names, *(other for name in names for other in DERIVED.get(name, ()))}
        row = {name: values[rows] for name, values in self.columns.items() if name in wanted}
        if "landmarks" in row:
            row |= self._in_layout(row["landmarks"], row.get("visible"))
        if "pose" in row:
            row["pose"] = row["pose"].astype(np.float32)
        if "states" in row and self.states:
            places, count = self.states
            states = np.full((len(rows), count), np.nan, np.float32)
            states[:, places] = row["states"]
            row["states"] = states
        if "nominal" in names:
            row["nominal"] = to_crop(row["landmarks"], row["crop"]).astype(np.float32)
        if "shift" in names:
            row["shift"] = row["label_shift"] / (row["crop"][:, 2] - row["crop"][:, 0])
        if "frame" in names:
            source = np.stack([np.zeros_like(row["size"]), row["size"]], 1)
            row["frame"] = to_crop(np.stack([row["box"].reshape(-1, 2, 2), source], 1), row["crop"][:, None])
        return {name: row[name] for name in names if name in row}

    def _in_layout(self, landmarks: np.ndarray, visible: np.ndarray | None) -> dict[str, np.ndarray]:
        """Return the columns landmarks, known and visible in the net's layout."""
        if self.rule:
            visible = None if visible is None else self.rule.flags(landmarks, visible)
            landmarks = self.rule(landmarks)
        if self.selected is not None:
            visible = None if visible is None else visible[:, self.selected]
            landmarks = landmarks[:, self.selected]
        known = np.isfinite(landmarks).all(-1)
        visible = np.where(known, np.nan if visible is None else visible, np.nan).astype(np.float32)
        return {"landmarks": landmarks, "known": known, "visible": visible}

    def with_columns(self, **new: Any) -> "Part":
        """Return the part with other columns, which are as the net gets them."""
        converted = {"landmarks": {"rule": None, "selected": None}, "states": {"states": None}}
        plain: dict[str, Any] = {field: None for name in new for field in converted.get(name, {})}
        return replace(self, columns={**self.columns, **new}, **plain)

    def keeping(self, names: Collection[str]) -> "Part":
        """Return the part with only these of its columns."""
        return replace(self, columns={name: self.columns[name] for name in names if name in self.columns})

    def hidden(self, count: int) -> "Part":
        """Return the part without labels: its `count` landmarks are unknown."""
        unknown = constant(np.full((count, 2), np.nan), len(self))
        return self.keeping(self.columns.keys() - {"pose", "states", "visible"}).with_columns(landmarks=unknown)

    def decoded(self, side: int) -> "Part":
        """Return the part with all its pictures, of `side` px, in memory."""
        pictures = reclaimable(len(self), side, side, 3)
        with Threads(cores()) as pool:
            for row, picture in enumerate(pool.map(self.crop, range(len(self)))):
                pictures[row] = picture
        return replace(self, crop=pictures.__getitem__)


def reclaimable(*shape: int) -> np.ndarray:
    """Return an array of bytes, mapped to a temporary file without a name, so that the system can reclaim its memory.

    Without room for the file, and on other systems than Linux, the array is in memory.
    """
    if sys.platform == "linux" and min(shape):
        with suppress(OSError), tempfile.TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, math.prod(shape))  # writing to a full disk would be a SIGBUS
            return np.asarray(np.memmap(file, np.uint8, "w+", shape=shape))
    return np.empty(shape, np.uint8)


@dataclass(frozen=True)
class Faces:
    """M faces: rows of one or several parts. A column may be absent; a part that lacks it has NaN or 0 there.

    file         text            name of the image in `source`; #2 at its end marks the second face of an image
    source       Path            folder of the raw archive
    subset       text            part of a test set; several are joined by table.BESIDE
    identity     text            the person; train and val have no person in common
    set          text            checksum of the prepared set
    size         (2,) int        width and height of the source image, px
    crop, box    (4,) float64    x1, y1, x2, y2 of the nominal crop and of the face box, continuous px of the source image
    target       int             side of the nominal crop as stored, px
    landmarks    (N, 2) float64  continuous px of the source image, NaN where unknown
    known        (N,) bool       whether the landmark is known
    nominal      (N, 2) float32  the landmarks in [0, 1] of the crop
    visible      (N,) float32    whether the landmark is seen, 0 or 1, NaN where the set does not tell
    label_shift  float           px of the source image by which the labels lie too far right; NaN without a face
    shift        float           the same in [0, 1] of the crop
    frame        (2, 2, 2)       corners of the face box and of the source image in [0, 1] of the crop
    pose         (3,) float32    pitch, yaw, roll, radians
    states       (k,) float32    0 or 1 for each of facts["states"], NaN where unknown
    face         float           1: the crop shows this face; 0: it shows no human face; see `nets.stages.face`
    step         int             frames between two faces of a video
    level        int             the terms that the face trains, see `Labels`

    rows (M,): numbers of the faces, counted over all parts. geometry: of all pictures.
    facts: protocol and margin of the crops; states: names; subsets: names in the order of the publications; aligned:
    whether each set has its own share of the landmarks, see `aligned`; outputs: which of pose, states and visible are
    learnt, by default all; meanface: with column `face`, that of the faces.
    """

    parts: tuple[Part, ...]
    rows: np.ndarray
    geometry: CropGeometry
    facts: dict[str, Any]

    @classmethod
    def of(cls, part: Part, geometry: CropGeometry, facts: dict[str, Any]) -> "Faces":
        """Return all faces of a part."""
        return cls((part,), np.arange(len(part)), geometry, facts)

    @classmethod
    def join(cls, several: list["Faces"]) -> "Faces":
        """Return the faces of all, one after the other, with geometry and facts of the first."""
        starts = np.cumsum([0, *(sum(map(len, faces.parts)) for faces in several)])
        parts = tuple(part for faces in several for part in faces.parts)
        rows = np.concatenate([faces.rows + start for faces, start in zip(several, starts, strict=False)])
        return replace(several[0], parts=parts, rows=rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, name: str) -> bool:
        return name in self._empty

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return tuple(self._empty)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column of all faces."""
        return self.read(name)[name]

    def row(self, index: int) -> dict[str, Any]:
        """Return all columns of one face."""
        return {name: values[0] for name, values in self.read(*self.names, rows=[index]).items()}

    def read(self, *names: str, rows: Any = ALL) -> dict[str, np.ndarray]:
        """Return {name: values} of those columns that there are. rows: of which faces, a slice, indices or flags."""
        numbers = self.rows[rows]
        if len(self.parts) == 1:
            return self.parts[0].read(numbers, names)
        found = {}
        for name in filter(self.__contains__, names):
            none = self._empty[name]
            unknown = np.nan if none.dtype.kind == "f" else 0
            found[name] = np.full((len(numbers), *none.shape[1:]), unknown, none.dtype)
        of_part = np.searchsorted(self._starts[1:], numbers, "right")
        for number in np.unique(of_part).tolist():
            mine = of_part == number
            for name, values in self.parts[number].read(numbers[mine] - self._starts[number], names).items():
                found[name][mine] = values
        return found

    @cached_property
    def _starts(self) -> np.ndarray:
        """Return the number of the first face of each part, and of all parts."""
        return np.cumsum([0, *map(len, self.parts)])

    @cached_property
    def _empty(self) -> dict[str, np.ndarray]:
        """Return {name: no values} of all columns that any part has."""
        none: dict[str, np.ndarray] = {}
        for part in self.parts:
            names = {*part.columns, *(name for name, others in DERIVED.items() if {*others} <= part.columns.keys())}
            none = part.read(np.arange(0), names) | none
        return none

    # ------------------------------------------------------------------------------------------------------- pictures
    def _place(self, index: int) -> tuple[Part, int]:
        number = int(self.rows[index])
        part = int(np.searchsorted(self._starts[1:], number, "right"))
        return self.parts[part], number - int(self._starts[part])

    def crop(self, index: int) -> np.ndarray:
        """Return the picture of a face (S, S, 3) uint8 BGR, with its border."""
        part, row = self._place(index)
        return part.crop(row)

    def encoded(self, index: int) -> bytes:
        """Return the JPEG in which the crop of a face is stored."""
        part, row = self._place(index)
        return part.jpeg(row)

    def plain_crop(self, index: int) -> np.ndarray:
        """Return the picture of a face as the net gets it without augmentation."""
        return self._middle(index, self.geometry.border - self.geometry.seen)

    def nominal_crop(self, index: int) -> np.ndarray:
        """Return the nominal crop of a face."""
        return self._middle(index, self.geometry.border)

    def _middle(self, index: int, edge: int) -> np.ndarray:
        picture = self.crop(index)
        return picture[edge : len(picture) - edge, edge : len(picture) - edge]

    def cached(self, cache: float) -> "Faces":
        """Return the faces, with all pictures of their parts in memory if they fit into `cache` GiB."""
        side = self.geometry.stored
        if self._starts[-1] * side**2 * 3 > cache * GIB:
            return self
        return replace(self, parts=tuple(part.decoded(side) for part in self.parts))

    # ---------------------------------------------------------------------------------------------------- other faces
    def only(self, rows: Any) -> "Faces":
        """Return some of the faces. rows: a slice, indices or flags."""
        return replace(self, rows=self.rows[rows])

    def with_values(self, **values: Any) -> "Faces":
        """Return the faces with columns that have one value for all of them."""
        parts = []
        for part in self.parts:
            columns = {name: constant(value, len(part)) for name, value in values.items()}
            parts.append(part.with_columns(**columns))
        return replace(self, parts=tuple(parts))

    def with_columns(self, **columns: np.ndarray) -> "Faces":
        """Return the faces with other columns (M, ...), as the net gets them. A face that comes twice has one value."""
        parts = []
        for part, start in zip(self.parts, self._starts.tolist(), strict=False):
            rows = self.rows - start
            mine, found = (rows >= 0) & (rows < len(part)), {}
            for name, values in columns.items():
                found[name] = np.zeros((len(part), *values.shape[1:]), values.dtype)
                found[name][rows[mine]] = values[mine]
            parts.append(part.with_columns(**found))
        return replace(self, parts=tuple(parts))

    def keeping(self, *names: str) -> "Faces":
        """Return the faces with only these of their columns."""
        return replace(self, parts=tuple(part.keeping(names) for part in self.parts))

    def with_facts(self, **facts: Any) -> "Faces":
        """Return the faces with other facts."""
        return replace(self, facts={**self.facts, **facts})

    # ------------------------------------------------------------------------------------------------------ mean face
    def meanface(self) -> np.ndarray:
        """Return the mean landmarks (N, 2) float64 in [0, 1] of the crop; NaN for a landmark that no face has.

        Of more than AVERAGED faces, only so many are read: the same share of each chunk. If sets have different
        landmarks, their means are `aligned`, in the crops of the first set.
        """
        return self._meanface.copy()

    @cached_property
    def _meanface(self) -> np.ndarray:
        if self.facts.get("aligned"):
            sets = self["set"]
            return aligned(
                [self.only(sets == mark).with_facts(aligned=False)._meanface for mark in dict.fromkeys(sets)]
            )
        total: Any = 0.0
        count, used = 0, math.ceil(CHUNK * min(AVERAGED / max(len(self), 1), 1))
        for rows in chunks(len(self)):
            nominal = self.read("nominal", rows=slice(rows.start, rows.start + used))["nominal"]
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
