"""The record of a face that every parser returns, and the checks that the parsers share."""
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from loguru import logger

from pipnet.errors import UserError
from pipnet.geometry import box_of

FARTHEST = 1e6  # px; a coordinate beyond this is an error in the annotation
BESIDE = "//"  # joins several subsets of one face; subset names are folder names, so they cannot contain it


class Record(NamedTuple):
    """An annotated face. Coordinates are continuous image px."""
    file: Path                  # the image; for an image inside an archive file: that file / a number, see WITHIN
    subset: str                 # reported separately, e.g. common/lfpw; BESIDE joins several
    identity: str               # all faces of one identity go to the same split
    landmarks: np.ndarray       # (N, 2) float64, NaN where not annotated
    box: np.ndarray             # (4,) x1, y1, x2, y2
    visible: np.ndarray | None  # (N,) bool, None where the set does not say
    pose: np.ndarray | None = None    # (3,) float64 pitch, yaw, roll in radians
    states: np.ndarray | None = None  # (k,) bool, named by Dataset.states
    face: int = 1               # number of the face in its image; prepare counts them


Splits = dict[str, list[Record]]


class Dataset(NamedTuple):
    """A row of DATASETS."""
    parse: Callable[..., Splits]    # (data_dir, allow_partial, count, origin) -> {split: records}
    layout: str | None              # row of args.yaml's layouts; None: the layout with the file's number of landmarks
    origin: float                   # annotated coordinate of the centre of the first pixel
    expected: dict[str, int] | None  # faces per subset in the official release; None: any number
    signs: tuple[str, ...] = ()     # file or folder patterns by which `infer` recognises the set
    states: tuple[str, ...] = ()    # names of Record.states
    options: tuple[str, ...] = ()   # fields of DataGenerator that are passed to `parse`
    label_shift: float = 0.0        # px of the source image by which the annotations lie to the right of what they mark
    norms: tuple[str, ...] = ()     # norms that publications use for this set; reports mark them


class Annotation(NamedTuple):
    """The annotation of one face in the coordinates of its archive."""
    landmarks: np.ndarray             # (N, 2), NaN where not annotated
    origin: float                     # coordinate of the centre of the first pixel
    where: str = ""                   # file and line for errors; empty: the .pts beside the image
    box: np.ndarray | None = None     # (4,) x1, y1, x2, y2; None: the tight box of the landmarks
    visible: np.ndarray | None = None
    pose: np.ndarray | None = None
    states: np.ndarray | None = None


def record(file: Path, subset: str, identity: str, annotation: Annotation) -> Record:
    """Return the record of a face in continuous coordinates. Raise UserError for an empty face and for absurd coordinates."""
    where = annotation.where or str(file.with_suffix(".pts"))
    landmarks = annotation.landmarks - annotation.origin + 0.5
    try:
        tight = box_of(landmarks)
    except (UserError, ValueError):
        raise UserError(f"{where}: none of its points has coordinates; remove the pair") from None
    if not (tight[2:] > tight[:2]).all():
        raise UserError(f"{where}: its points span no area; remove the pair")
    box = tight if annotation.box is None else annotation.box - annotation.origin + 0.5
    if max(np.abs(tight).max(), np.nanmax(np.abs(box), initial=0)) > FARTHEST:
        raise UserError(f"{where}: a coordinate is beyond {FARTHEST:g} px; correct it or remove the face")
    if not (np.isfinite(box).all() and (box[2:] > box[:2]).all()):
        raise UserError(f"{where}: its face box is empty; correct it or remove the face")
    return Record(file, subset, identity, landmarks, box, annotation.visible, annotation.pose, annotation.states)


class Archive:
    """A data set while it is parsed: `root`, the `splits` found so far, missing images and faults of the annotation."""

    def __init__(self, data_dir: Path, *splits: str):
        self.root = Path(data_dir)
        self.splits: Splits = {split: [] for split in splits}
        self.absent: list[Path] = []
        self.faults: list[str] = []

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Collect a UserError of the body as a fault, so that the next face is read as well."""
        try:
            yield
        except UserError as error:
            self.faults.append(str(error))

    def lacks(self, image: Path) -> bool:
        """Return whether an annotated image is missing; a missing one is counted."""
        missing = not image.is_file()
        if missing:
            self.absent.append(image)
        return missing

    def add(self, split: str, file: Path, subset: str, identity: str, annotation: Annotation) -> None:
        """Add the `record` of a face to a split."""
        self.splits.setdefault(split, []).append(record(file, subset, identity, annotation))

    def finish(self, title: str, expected: dict[str, int], allow_partial: bool) -> Splits:
        """Return the splits. Raise UserError for a fault, without any face, and, unless allow_partial, for missing faces."""
        complain(self.faults)
        found = tally(self.splits)
        missing = [f"{name}: {found[name]} of {count} faces" for name, count in expected.items() if found[name] != count]
        if self.absent:
            missing.append(f"{len(self.absent)} annotated images or annotations are missing, such as {self.absent[0]}")
        require_complete(self.root, title, missing, allow_partial)
        if not any(self.splits.values()):
            raise UserError(f"{self.root}: no face of {title} in it with both image and annotation")
        return self.splits


def complain(faults: list[str]) -> None:
    """Raise UserError with the first fault and the number of the others; do nothing without faults."""
    if faults:
        raise UserError(faults[0] + (f" (and {len(faults) - 1} more such files)" if len(faults) > 1 else ""))


def require_complete(root: Path, title: str, missing: list[str], allow_partial: bool) -> None:
    """Raise UserError with one line for each incomplete part of a release; with allow_partial, warn instead."""
    if missing and not allow_partial:
        advice = f"{root} does not hold all of {title}; complete it, or use what is there with allow_partial (--allow-partial):"
        raise UserError("\n  ".join((advice, *missing)))
    for line in missing:
        logger.warning(f"{title} is partial: {line}")


def require_uniform(splits: Splits, empty: str, others: str, place: Callable[[Record], Path]) -> Splits:
    """Return the splits. Raise UserError `empty` without a face, or with the `place` of faces with an unusual point count."""
    if not any(splits.values()):
        raise UserError(empty)
    counts = Counter(len(face.landmarks) for records in splits.values() for face in records)
    usual = counts.most_common(1)[0][0]
    complain([f"{place(face)}: {len(face.landmarks)} points where the other {others} have {usual}"
              for records in splits.values() for face in records if len(face.landmarks) != usual])
    return splits


@lru_cache(maxsize=16)  # a list may name a hundred thousand files of one folder
def _real(folder: Path) -> str:
    return os.path.realpath(folder)


def inside(root: Path, name: str, where: str, below: str = "") -> Path:
    """Return root/below/name for a name from a list. Raise UserError when it leaves root: absolute, by .., or by a link."""
    name = name.replace("\\", "/")
    if not name.strip() or any(c in name for c in "\0\t\n\r"):
        raise UserError(f"{where}: {name[:80]!r} cannot be the name of a file")
    if name.startswith("/") or ".." in name.split("/") or name[1:3] == ":/":
        raise UserError(f"{where}: '{name[:80]}' leads out of {root / below}; names in a list must stay below it")
    path = root / below / name
    if os.path.commonpath([_real(root), os.path.realpath(path)]) != _real(root):
        raise UserError(f"{where}: '{name[:80]}' leads through a link out of {root}; copy its target into the folder")
    return path


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file, with bytes that are not UTF-8 as in file names. Raise UserError if it is unreadable."""
    try:
        return Path(file).read_bytes().decode("utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None


def numbered(file: Path, optional: bool = False) -> list[tuple[str, str]]:
    """Return ("FILE, line N", text) for each line that is not blank; nothing for a missing file that is `optional`."""
    if optional and not file.is_file():
        return []
    return [(f"{file}, line {number}", line) for number, line in enumerate(read_lines(file), 1) if line.strip()]


def numbers(words: Iterable[str], where: str) -> np.ndarray:
    """Return words as float64 (n,). Raise UserError unless all are finite numbers."""
    try:
        values = np.array(list(words), dtype=np.float64)
    except ValueError:
        values = np.array([np.nan])
    if not np.isfinite(values).all() or (np.abs(values) >= 1e9).any():
        raise UserError(f"{where}: not a coordinate where one belongs")
    return values


def pixel_corners(box: np.ndarray) -> np.ndarray:
    """Return x1, y1, x2, y2 (4,) of a box x, y, w, h that counts whole pixels: the last one is x + w - 1."""
    return np.concatenate([box[:2], box[:2] + box[2:] - 1])


def photograph(stem: str, numbers: int = 1) -> str:
    """Return the name of a face's photograph: NAME for NAME_1, NAME_2, ..., which end in at most `numbers` such numbers.

    LFPW's image_0001 is a photograph's own name: a face's number has one or two digits.
    """
    return re.sub(rf"(\s*_\d{{1,2}}){{1,{numbers}}}$", "", stem)


def tally(splits: Splits) -> Counter:
    """Return the number of faces per subset; a face counts in each of its subsets."""
    return Counter(name for records in splits.values() for record in records for name in record.subset.split(BESIDE))
