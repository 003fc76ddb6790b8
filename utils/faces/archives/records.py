"""The record of a face that every parser returns, and the checks that the parsers share."""
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from loguru import logger

from pipnet.errors import UserError
from pipnet.geometry import box_of
from pipnet.images import SUFFIXES
from utils.faces.archives import own
from utils.faces.archives.naming import cleaned, composed
from utils.layouts import Layouts

FARTHEST = 1e6  # px; a coordinate beyond this is an error in the annotation
NOT_COUNTABLE = "--first-pixel is for .pts, CSV and COCO files of your own; other sets say how they count"
MORE = "more than the release has"
NO_LAYOUTS = Layouts({})
LEVEL = 5       # landmarks at most that may lie on one level line, such as the corners of the eyes
THINNEST = 0.1  # side of their box / its other side
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
    face: int = 1               # number of the face in its image
    where: str = ""             # place of the annotation, for errors


def truncated(face: Record) -> Record:
    """Return the record in whole px, to which the PIPNet authors' preparation of 300W truncates the annotation."""
    return face._replace(landmarks=np.trunc(face.landmarks), box=np.trunc(face.box))


def clipped(face: Record, done) -> Record:
    """Return the record with its landmarks inside the image of that `size`, as the PIPNet authors prepare WFLW and AFLW."""
    return face._replace(landmarks=np.clip(face.landmarks, 0, done.size))


Splits = dict[str, list[Record]]


class Annotation(NamedTuple):
    """The annotation of one face in the coordinates of its archive."""
    landmarks: np.ndarray             # (N, 2), NaN where not annotated
    where: str = ""                   # file and line for errors; empty: the .pts beside the image
    box: np.ndarray | None = None     # (4,) x1, y1, x2, y2; None: the tight box of the landmarks
    visible: np.ndarray | None = None
    pose: np.ndarray | None = None
    states: np.ndarray | None = None


def record(file: Path, subset: str, identity: str, annotation: Annotation, origin: float) -> Record:
    """Return the record of a face in continuous coordinates. Raise UserError for an empty face and for absurd coordinates.

    origin: annotated coordinate of the centre of the first pixel.
    """
    where = annotation.where or str(file.with_suffix(".pts"))
    landmarks = annotation.landmarks - origin + 0.5
    try:
        tight = box_of(landmarks)
    except (UserError, ValueError):
        raise UserError(f"{where}: none of its points has coordinates; remove the pair") from None
    if annotation.box is None:
        tight = _with_area(tight, len(landmarks), where)
    box = tight if annotation.box is None else annotation.box - origin + 0.5
    if max(np.abs(tight).max(), np.nanmax(np.abs(box), initial=0)) > FARTHEST:
        raise UserError(f"{where}: a coordinate is beyond {FARTHEST:g} px; correct it or remove the face")
    if not (np.isfinite(box).all() and (box[2:] > box[:2]).all()):
        raise UserError(f"{where}: its face box is empty; correct it or remove the face")
    return Record(file, subset, identity, landmarks, box, annotation.visible, annotation.pose, annotation.states, where=where)


def _with_area(tight: np.ndarray, count: int, where: str) -> np.ndarray:
    """Return the tight box (4,) of `count` landmarks; that of a few on a level line gets a height. UserError without any area."""
    sides = tight[2:] - tight[:2]
    if not sides.any() or not sides.all() and count > LEVEL:
        raise UserError(f"{where}: its points span no area; " + ("a single landmark needs a face box, such as bbox of COCO"
                                                                 if count == 1 else "remove the pair"))
    missing = np.where(sides > 0, 0, THINNEST * sides.max()) / 2
    return tight + np.concatenate([-missing, missing])


class Told:
    """What a parser tells beside the faces. notes: lines for the log; names: of the points in their order, if the set has any.

    sized: pictures of which the annotation states the upright width and height, and these differ.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.names: list[str] = []
        self.sized: set[Path] = set()


class Archive:
    """An unpacked data set while it is parsed: the faces found so far, missing images, and faults of the annotation.

    layouts: those of args.yaml, for the parsers that mirror or convert landmarks. told: what to say beside the faces.
    """

    def __init__(self, data_dir: Path, origin: float | None, count: int | None, splits: tuple[str, ...],
                 layouts: Layouts = NO_LAYOUTS):
        self.root, self.origin, self.count, self.layouts = Path(data_dir), origin, count, layouts
        self.told = Told()
        self.splits: Splits = {split: [] for split in splits}
        self.absent: list[Path] = []
        self.faults: list[str] = []
        self.faces: Counter = Counter()  # of each image
        self.stated: dict[Path, own.Stated] = {}  # size of each image according to the annotation
        self.left_out: Counter = Counter()  # what of a user's own set is not used, and how often

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
        found = record(file, subset, identity, annotation, self.origin)
        self.faces[file] += 1
        self.splits.setdefault(split, []).append(found._replace(face=self.faces[file]))

    def state(self, image: Path, width: Any, height: Any, where: str) -> None:
        """Keep the size in px that the annotation states for an image; anything but two positive numbers states none."""
        with suppress(TypeError, ValueError):
            size = own.Stated(float(width), float(height), where)
            if min(size[:2]) > 0 and max(size[:2]) < FARTHEST and self.stated.setdefault(image, size)[:2] != size[:2]:
                raise UserError(f"{where}: another size of {image.name} than in {self.stated[image].where}; correct one")

    @cached_property
    def pictures(self) -> dict[str, Path]:
        """Return {path below the root, in Unicode's composed form: image} of all images."""
        found = {}
        for base, folders, names in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
            for path in (Path(base, name) for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES and name[0] != "."):
                found[composed(path.relative_to(self.root).as_posix())] = path
        return found

    @cached_property
    def uploaded(self) -> dict[str, list[Path]]:
        """Return {name of an image without its folder, as Label Studio cleans it: images}."""
        found: dict[str, list[Path]] = {}
        for path in self.pictures.values():
            for name in cleaned(path.name):
                found.setdefault(name, []).append(path)
        return found

    def unused(self) -> None:
        """Count the images that no face of a user's own set names."""
        used = {record.file for records in self.splits.values() for record in records}
        self.left_out["pictures without a face"] += sum(path not in used for path in self.pictures.values())

    def shortfall(self, expected: dict[str, int]) -> list[str]:
        """Return a line for each subset with another number of faces than expected, and one for missing images."""
        found = tally(self.splits)
        lines = [deviation(name, found[name], count) for name, count in expected.items() if found[name] != count]
        if self.absent:
            lines.append(f"{len(self.absent)} annotated images or annotations are missing, such as {self.absent[0]}")
        return lines


class Dataset(NamedTuple):
    """A row of DATASETS."""
    parser: Callable[..., list[str] | None]  # adds the faces to an Archive; may return lines that replace its `shortfall`
    title: str                      # in messages
    layout: str | None              # row of args.yaml's layouts; None: the layout with the file's number of landmarks
    origin: float | None            # annotated coordinate of the centre of the first pixel; None: that of each part
    expected: dict[str, int] | None  # faces per subset in the official release; None: any number
    splits: tuple[str, ...] = ("train", "test")  # splits of every archive; a parser may add others
    signs: tuple[str, ...] = ()     # file or folder patterns by which `infer` recognises the set
    states: tuple[str, ...] = ()    # names of Record.states
    options: tuple[str, ...] = ()   # fields of DataGenerator that are passed to the parser
    label_shift: float = 0.0        # px of the source image by which the annotations lie to the right of what they mark
    clipped: bool = False           # whether PIPNet's authors clip the landmarks to the image
    norms: tuple[str, ...] = ()     # norms that publications use for this set; reports mark them

    @property
    def countable(self) -> bool:
        """Return whether users may count the first pixel as 0 or 1: in own sets whose format does not say it."""
        return self.layout is None and self.origin == 0

    def read(self, data_dir: Path, count: int | None = None, origin: float | None = None, layouts: Layouts = NO_LAYOUTS,
             **options) -> tuple[Archive, list[str]]:
        """Return the parsed archive and a line for each missing part. Raise UserError for a fault in the annotation."""
        if count is None and self.layout is not None:
            count = int(self.layout)
        archive = Archive(data_dir, self.origin if origin is None else origin, count, self.splits, layouts)
        missing = self.parser(archive, **options)
        complain(archive.faults)
        return archive, archive.shortfall(self.expected or {}) if missing is None else missing

    def parse(self, data_dir: Path, allow_partial: bool = False, count: int | None = None, origin: float | None = None,
              layouts: Layouts = NO_LAYOUTS, told: Told | None = None, **options) -> Splits:
        """Return {split: records} of an unpacked archive. The default of count and origin is the row's. told: is filled.

        Raise UserError for a fault in the annotation, without any face, and for missing faces; with allow_partial, warn of these.
        """
        archive, missing = self.read(data_dir, count, origin, layouts, **options)
        require_complete(archive.root, self.title, missing, allow_partial)
        if not any(archive.splits.values()):
            raise UserError(f"{archive.root}: no annotated face of {self.title} with its image in it")
        if self.layout is None:
            _check_own(archive)
        if told is not None:
            told.notes += archive.told.notes
            told.names = archive.told.names
            told.sized = {file for file, (width, height, _) in archive.stated.items() if width != height}
        return archive.splits


def _check_own(archive: Archive) -> None:
    """Bring the labels of a user's own set to the size of the pictures. UserError for labels that cannot be what they seem."""
    records = [record for split in archive.splits.values() for record in split]
    complain(own.wrong_counts(records, archive.count))
    complain(own.shares(records, archive.origin) or own.marks(records, archive.origin))
    factors, faults, notes = own.factors(archive.stated)
    complain(faults)
    archive.splits = {split: [own.scaled(record, factors.get(record.file)) for record in part]
                      for split, part in archive.splits.items()}
    complain(own.tiny(record for part in archive.splits.values() for record in part))
    archive.unused()
    if left := [f"{what} ({count})" for what, count in archive.left_out.items() if count]:
        notes.append(f"{archive.root}: left out: {', '.join(left)}")
    archive.told.notes += notes


def complain(faults: list[str]) -> None:
    """Raise UserError with the first fault and the number of the others; do nothing without faults."""
    if faults:
        raise UserError(faults[0] + (f" (and {len(faults) - 1} more such files)" if len(faults) > 1 else ""))


def require_complete(root: Path, title: str, missing: list[str], allow_partial: bool) -> None:
    """Raise UserError with one line for each incomplete part of a release; with allow_partial, warn instead."""
    if missing and not allow_partial:
        advice = f"{root} does not hold all of {title}; complete it, or"
        if all(MORE in line for line in missing):
            advice = f"{root} holds more than the release of {title}; remove what is not of it, or"
        raise UserError("\n  ".join((f"{advice} use what is there with allow_partial (--allow-partial):", *missing)))
    for line in missing:
        logger.warning(f"{title}: {line}" if MORE in line else f"{title} is partial: {line}")


def deviation(name: str, found: int, count: int, folder: bool = True) -> str:
    """Return how many faces of a part of a release there are; that they are more than officially, if they are."""
    more = f", {found - count} {MORE}" if found > count else ""
    return f"{name}: {found if folder else 'no folder, 0'} of {count} faces{more}"


def pixel_corners(box: np.ndarray) -> np.ndarray:
    """Return x1, y1, x2, y2 (4,) of a box x, y, w, h that counts whole pixels: the last one is x + w - 1."""
    return np.concatenate([box[:2], box[:2] + box[2:] - 1])


def tally(splits: Splits) -> Counter:
    """Return the number of faces per subset; a face counts in each of its subsets."""
    return Counter(name for records in splits.values() for record in records for name in record.subset.split(BESIDE))
