"""What every parser hands out, and the checks that they share."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from loguru import logger

from pipnet.errors import UserError
from pipnet.geometry import box_of

FARTHEST = 1e6  # px of a picture
BESIDE = "//"  # between the subsets of one face; a subset is made of names of folders, so it cannot hold this


class Record(NamedTuple):
    """One annotated face. Coordinates are continuous image px."""

    file: Path                  # the image; of one inside a file of the archive: that file / a number, see WITHIN
    subset: str                 # reported apart, e.g. common/lfpw; several are joined by BESIDE
    identity: str               # faces of one identity never stand in two splits
    landmarks: np.ndarray       # (N, 2) float64, NaN where not annotated
    box: np.ndarray             # (4,) x1, y1, x2, y2
    visible: np.ndarray | None  # (N,) bool, None where the set does not say
    pose: np.ndarray | None = None    # (3,) float64 pitch, yaw, roll in radians
    states: np.ndarray | None = None  # (k,) bool, named by Dataset.states
    face: int = 1               # number of the face among those of its image, counted by prepare


Splits = dict[str, list[Record]]


class Dataset(NamedTuple):
    """A row of DATASETS."""

    parse: Callable[..., Splits]    # (data_dir, allow_partial, count, origin) -> {split: records}
    layout: str | None              # row of args.yaml's layouts; None: the one with as many landmarks as the files
    origin: float                   # annotated coordinate of the centre of the first pixel
    expected: dict[str, int] | None  # faces a subset in the official release; None: any number
    signs: tuple[str, ...] = ()     # patterns of files or folders of which only such an archive has one
    states: tuple[str, ...] = ()    # names of Record.states
    options: tuple[str, ...] = ()   # fields of DataGenerator that `parse` takes too
    label_shift: float = 0.0        # px of the pictures by which the annotations lie to the right of what they mark


def complain(faults: list[str]) -> None:
    """Raises UserError with the first fault and how many more there are; nothing when there is none."""
    if faults:
        raise UserError(faults[0] + (f" (and {len(faults) - 1} more such files)" if len(faults) > 1 else ""))


def uniform(splits: Splits, empty: str, others: str, place: Callable[[Record], Path]) -> Splits:
    """The same; UserError `empty` without a face, or naming the `place` of one that has another number of points than most."""
    if not any(splits.values()):
        raise UserError(empty)
    counts = Counter(len(face.landmarks) for records in splits.values() for face in records)
    usual = counts.most_common(1)[0][0]
    complain([f"{place(face)}: {len(face.landmarks)} points where the other {others} have {usual}"
              for records in splits.values() for face in records if len(face.landmarks) != usual])
    return splits


def record(file: Path, subset: str, identity: str, annotated: np.ndarray, origin: float, visible: np.ndarray | None = None,
           box: np.ndarray | None = None, where: str = "", **more) -> Record:
    """A record in continuous coordinates from annotated landmarks (N, 2) and box (4,), by default the landmarks' tight box.

    where: how errors call the place of the annotation, by default the .pts beside the image. more: further fields of Record.
    """
    where, landmarks = where or str(file.with_suffix(".pts")), annotated - origin + 0.5
    try:
        tight = box_of(landmarks)
    except (UserError, ValueError):
        raise UserError(f"{where}: none of its points has coordinates; remove the pair") from None
    if not (tight[2:] > tight[:2]).all():
        raise UserError(f"{where}: its points span no area; remove the pair")
    box = tight if box is None else box - origin + 0.5
    if max(np.abs(tight).max(), np.nanmax(np.abs(box), initial=0)) > FARTHEST:
        raise UserError(f"{where}: a coordinate of it is beyond {FARTHEST:g} px; correct it or remove the face")
    if not (np.isfinite(box).all() and (box[2:] > box[:2]).all()):
        raise UserError(f"{where}: its face box is empty; correct it or remove the face")
    return Record(file, subset, identity, landmarks, box, visible, **more)


@lru_cache(maxsize=16)  # asked for every one of a hundred thousand files
def _real(folder: Path) -> str:
    return os.path.realpath(folder)


def inside(root: Path, name: str, where: str, below: str = "") -> Path:
    """root/below/name, for a name that a list gives. UserError when it leads out: absolute, by .., or through a link that leaves
    root."""
    name = name.replace("\\", "/")
    if not name.strip() or any(c in name for c in "\0\t\n\r"):
        raise UserError(f"{where}: {name[:80]!r} cannot be the name of a file")
    if name.startswith("/") or ".." in name.split("/") or name[1:3] == ":/":
        raise UserError(f"{where}: '{name[:80]}' leads out of {root / below}; names in a list must stay below it")
    path = root / below / name
    if os.path.commonpath([_real(root), os.path.realpath(path)]) != _real(root):
        raise UserError(f"{where}: '{name[:80]}' leads through a link out of {root}; copy what it points to into the folder")
    return path


def read_lines(file: Path) -> list[str]:
    """Lines of a text file; bytes that are no UTF-8 come back as they are in names. UserError when it cannot be read."""
    try:
        return Path(file).read_bytes().decode("utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None


def numbers(words: Iterable[str], where: str) -> np.ndarray:
    """(n,) float64 of words that must be finite numbers."""
    try:
        values = np.array(list(words), dtype=np.float64)
    except ValueError:
        values = np.array([np.nan])
    if not np.isfinite(values).all() or (np.abs(values) >= 1e9).any():
        raise UserError(f"{where}: not a coordinate where one belongs")
    return values


def tally(splits: Splits) -> Counter:
    """Faces a subset, a face counted in each of its own."""
    return Counter(name for records in splits.values() for record in records for name in record.subset.split(BESIDE))


def whole(root: Path, title: str, expected: dict[str, int], splits: Splits, absent: list[Path], allow_partial: bool) -> None:
    """Compares the faces found with the release's; `absent`: annotated images that are not there. See `short`."""
    found = tally(splits)
    lines = [f"{name}: {found[name]} of {count} faces" for name, count in expected.items() if found[name] != count]
    if absent:
        lines.append(f"{len(absent)} annotated images or annotations are not there, such as {absent[0]}")
    short(root, title, lines, allow_partial)
    if not any(splits.values()):
        raise UserError(f"{root}: no face of {title} in it whose image and annotation are both there")


def short(root: Path, title: str, lines: list[str], allow_partial: bool) -> None:
    """UserError with a line for each part of a release that is not whole; a warning each where allow_partial."""
    if lines and not allow_partial:
        raise UserError("\n  ".join((f"{root} is not the whole of {title}; complete it, or allow_partial (--allow-partial):",
                                     *lines)))
    for line in lines:
        logger.warning(f"{title} is partial: {line}")
