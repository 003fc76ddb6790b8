"""An archive while it is parsed: its faces as columns of one table, what is missing, and the faults of its annotation."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from extras.datasets.naming import RULES, cleaned, composed, identities, split_folders, split_of
from extras.shared.lists import numbered, path_inside, walk
from pipnet.errors import UserError
from pipnet.geometry import box_of
from pipnet.images import SUFFIXES
from utils.data.table import Splits, Table, only, tally
from utils.settings.layouts import Layouts

FARTHEST = 1e6  # px; a coordinate beyond this is an error in the annotation
MORE = "more than the release has"
NO_LAYOUTS = Layouts({})
LEVEL = 5  # landmarks at most that may lie on one level line, such as the corners of the eyes
THINNEST = 0.1  # side of their box / its other side
FIRST_PIXELS = (None, 0.0, 0.5, 1.0)  # coordinates of the first pixel's centre that a file may state


class Stated(NamedTuple):
    """The size of a picture in px according to its annotation, and where that says it."""

    width: float
    height: float
    where: str


class Missing(Exception):
    """An annotated file that is not there."""


class Archive:
    """An unpacked dataset while it is parsed.

    origin: annotated coordinate of the centre of the first pixel; None: the faces are added in continuous px. layouts:
    those of args.yaml, for parsers that mirror or convert landmarks. expected: faces per subset of the release.
    pictures: that of each face. For a user's own set: annotation: the one file that is read, None for all; names of the
    points in their order, if there are any; stated: size of each image according to the annotation; told: faces by the
    coordinate of the first pixel that their file states, None where it states none; left_out: what is not used, and how
    often; notes: lines for the log; outside: pictures outside of the folders of the splits, whose faces are left out;
    named: number of faces with a stated identity; tops: the folder of a split in which a folder is.
    """

    def __init__(
        self,
        data_dir: Path,
        origin: float | None,
        count: int | None,
        splits: tuple[str, ...],
        layouts: Layouts = NO_LAYOUTS,
        annotation: str | None = None,
        expected: dict[str, int] | None = None,
    ):
        self.root, self.origin, self.count, self.layouts = Path(data_dir), origin, count, layouts
        self.annotation, self.expected = annotation, expected or {}
        self.splits = list(splits)
        self.columns: Table = {"file": []}
        self.absent: list[Path] = []
        self.faults: list[str] = []
        self.faces: Counter = Counter()  # of each image
        self.names: list[str] = []
        self.stated: dict[Path, Stated] = {}
        self.pictures: list[Path] = []
        self.told: Counter = Counter()
        self.left_out: Counter = Counter()
        self.notes: list[str] = []
        self.outside: list[Path] = []
        self.named = 0
        self.tops: dict[str, Path | None] = {}

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.columns["file"])

    @property
    def first(self) -> float:
        """Return the annotated coordinate of the centre of the first pixel."""
        return 0.5 if self.origin is None else self.origin

    # ------------------------------------------------------------------------------------------------------ for parsers
    @contextmanager
    def checked(self) -> Iterator[None]:
        """Collect a UserError of the body as a fault and count a missing file, so that the next face is read as well."""
        try:
            yield
        except Missing as file:
            self.absent.append(file.args[0])
        except UserError as error:
            self.faults.append(str(error))

    def lines(self, name: str) -> list[tuple[str, str]]:
        """Return ("FILE, line N", text) for each line of a list that is not blank; nothing for a missing one."""
        return numbered(path_inside(self.root, name, str(self.root)), optional=True)

    def file(self, name: str, where: str, below: str = "") -> Path:
        """Return root/below/name for a name found in `where`.
        Raise Missing if it is not there, UserError if it leaves root.
        """
        path = path_inside(self.root, name, where, below)
        if not path.is_file():
            raise Missing(path)
        return path

    def counted(self, points: np.ndarray, first: Any, where: str) -> np.ndarray:
        """Return points as this archive counts pixels. first: coordinate of the first pixel that their file states, None
        if it states none. UserError unless it is one of FIRST_PIXELS.
        """
        try:
            first = None if first is None else float(first)
            if first not in FIRST_PIXELS:
                raise ValueError
        except (TypeError, ValueError):
            raise UserError(f"{where}: first_pixel must be 0, 0.5 or 1, not {str(first)[:20]!r}") from None
        self.told[first] += 1
        return points if first is None else points - first + self.first

    def add(
        self,
        split: str,
        image: Path,
        subset: str,
        identity: str,
        landmarks: np.ndarray | None,
        where: str = "",
        box: np.ndarray | None = None,
        **more: Any,
    ) -> None:
        """Add a face with its landmarks (N, 2), NaN where unknown, and box (4,), None for the tight one, as annotated.
        landmarks: None for a face with a box that is not labelled.

        where: file and line for errors; empty: the .pts beside the image. identity: if it is empty, `tell_identities` tells
        it. more: further columns, such as visible=(N,) bool; None if it is unknown. Coordinates become continuous px. Raise
        UserError for an empty face and for absurd coordinates.
        """
        where, origin = where or str(image.with_suffix(".pts")), self.first
        labelled = landmarks is not None
        if landmarks is None:
            landmarks = np.full((self.count or 0, 2), np.nan)
        landmarks = landmarks - origin + 0.5
        try:
            tight = box_of(landmarks) if labelled or box is None else box
        except (UserError, ValueError):
            raise UserError(f"{where}: none of its points has coordinates; remove the pair") from None
        if box is None:
            box = tight = _with_area(tight, len(landmarks), where)
        else:
            box = box - origin + 0.5
        if (np.abs([tight, box]) > FARTHEST).any():
            raise UserError(f"{where}: a coordinate is beyond {FARTHEST:g} px; correct it or remove the face")
        if not (np.isfinite(box).all() and (box[2:] > box[:2]).all()):
            raise UserError(f"{where}: its face box is empty; correct it or remove the face")
        self.faces[image] += 1
        number = f"#{self.faces[image]}" if self.faces[image] > 1 else ""
        row = {
            "split": split,
            "file": image.relative_to(self.root).as_posix() + number,
            "subset": subset,
            "identity": identity,
            "where": where,
            "landmarks": landmarks,
            "box": box,
            **more,
        }
        self.pictures.append(image)
        self.extend({name: [value] for name, value in row.items() if value is not None})

    def add_own(
        self, said: str | None, image: Path, landmarks: np.ndarray, where: str = "", identity: str = "", **more: Any
    ) -> None:
        """Add a face of a user's own set to its split: the one that its list `said`, else that of the folder of its
        picture, else train; if there is a folder of training faces, it is left out then. where: as in `add`; if it is empty,
        the subset is the first folder below that of the split. UserError for a face in a folder test* that would be
        trained on.
        """
        folder = self.split_folder(image)
        own = self.split_folders[folder] if folder else None
        if not said and not own and "train" in self.split_folders.values():
            self.outside.append(image)
            return
        split, name = said or own or "train", image.relative_to(self.root)
        begins = () if own == "train" else "test"  # a folder of a person in train/ may be named testperson
        tests = [part for part in name.parts[:-1] if split_of(part, True) == "test" or part.lower().startswith(begins)]
        if split == "train" and tests:
            how = "list it in a file named test" if said else "put folders train/ and test/ side by side"
            raise UserError(
                f"{where or image}: {name} would be trained on, but it is in a folder {tests[0]}; {how}, or rename that folder"
            )
        below = image.relative_to(folder or self.root).parts[:-1]
        self.add(split, image, below[0] if below and not where else "all", identity, landmarks, where, **more)

    def split_folder(self, image: Path) -> Path | None:
        """Return the folder of a split in which a picture is; None if it is in none."""
        parent = os.path.dirname(image)  # comparing paths takes long
        if parent not in self.tops:
            self.tops[parent] = next((folder for folder in image.parents if folder in self.split_folders), None)
        return self.tops[parent]

    def extend(self, columns: Table) -> None:
        """Add faces from finished columns. A missing value is None."""
        unknown = [None] * len(columns["file"])
        self.columns |= {name: [None] * len(self) for name in columns if name not in self.columns}
        for name, column in self.columns.items():
            column += columns.get(name, unknown)

    def state(self, image: Path, width: Any, height: Any, where: str) -> None:
        """Keep the size in px that the annotation states for an image; anything but two positive numbers states none."""
        with suppress(TypeError, ValueError):
            size = Stated(float(width), float(height), where)
            if min(size[:2]) > 0 and max(size[:2]) < FARTHEST and self.stated.setdefault(image, size)[:2] != size[:2]:
                raise UserError(
                    f"{where}: another size of {image.name} than in {self.stated[image].where}; correct one"
                )

    def tell_identities(self, rule: str) -> None:
        """Give an identity to each face without one, in each split by its pictures' names, and note what tells it.
        rule: see `identities`.
        """
        self.named = sum(map(bool, self.columns["identity"]))
        if self.named:
            self.notes.append(f"{self.root}: {self.named} faces have the identity that their file names")
        paths = {image: image.relative_to(self.root).as_posix() for image in dict.fromkeys(self.pictures)}
        names = [paths[image] for image in self.pictures]
        for split in dict.fromkeys(self.columns["split"]):
            faces = [
                i for i, one in enumerate(self.columns["split"]) if one == split and not self.columns["identity"][i]
            ]
            found, rule_used = identities([names[i] for i in faces], rule)
            for i, name in zip(faces, found, strict=True):
                self.columns["identity"][i] = name
            if faces and split == "train":
                self.notes.append(
                    f"{self.root}: {len(faces)} faces are of {len(set(found))} identities, told by {RULES[rule_used]}, such as "
                    f"'{found[0]}' (--identity sets another rule)"
                )

    @cached_property
    def split_folders(self) -> dict[Path, str]:
        """Return {folder: its split} of a user's own set, see `naming.split_folders`."""
        return split_folders(self.root)

    @cached_property
    def images(self) -> dict[str, Path]:
        """Return {path below the root, in Unicode's composed form: image} of all images."""
        left: list[str] = []
        found = {
            composed(path.relative_to(self.root).as_posix()): path
            for path, is_folder in walk(self.root, left=left)
            if not is_folder and path.suffix.lower() in SUFFIXES
        }
        if left:
            self.left_out[f"folders of the system, such as {left[0]}"] += len(left)
        return found

    @cached_property
    def without_ending(self) -> dict[str, list[Path]]:
        """Return {path below the root without the ending: images}, in Unicode's composed form."""
        found: dict[str, list[Path]] = {}
        for name, path in self.images.items():
            found.setdefault(name.removesuffix(path.suffix), []).append(path)
        return found

    @cached_property
    def uploaded(self) -> dict[str, list[Path]]:
        """Return {name of an image without its folder, as Label Studio cleans it: images}."""
        found: dict[str, list[Path]] = {}
        for path in self.images.values():
            for name in cleaned(path.name):
                found.setdefault(name, []).append(path)
        return found

    # ------------------------------------------------------------------------------------------------------ the results
    def shortfall(self) -> list[str]:
        """Return a line for each subset with another number of faces than expected, and one for missing images."""
        found = tally(self.columns.get("subset", ()))
        lines = [deviation(name, found[name], count) for name, count in self.expected.items() if found[name] != count]
        if self.absent:
            lines.append(f"{len(self.absent)} annotated images or annotations are missing, such as {self.absent[0]}")
        return lines

    def tables(self) -> Splits:
        """Return the table of each split: file (below the root; #2 for the second face of an image), subset, identity,
        landmarks (M, N, 2) and box (M, 4) float64 in continuous px, and what else the set knows."""
        table = {name: _column(values) for name, values in self.columns.items() if name != "where"}
        splits = np.array(table.pop("split"))
        return {
            split: only(table, np.flatnonzero(splits == split))
            for split in dict.fromkeys([*self.splits, *splits.tolist()])
        }


def _with_area(tight: np.ndarray, count: int, where: str) -> np.ndarray:
    """Return the tight box (4,) of `count` landmarks; that of a few on a level line gets a height.
    UserError without any area.
    """
    sides = tight[2:] - tight[:2]
    if not sides.any() or (not sides.all() and count > LEVEL):
        raise UserError(
            f"{where}: its points span no area; "
            + ("a single landmark needs a face box, such as bbox of COCO" if count == 1 else "remove the pair")
        )
    missing = np.where(sides > 0, 0, THINNEST * sides.max()) / 2
    return tight + np.concatenate([-missing, missing])


def _column(values: Sequence | np.ndarray) -> Sequence | np.ndarray:
    """Return a list of texts, or an array of numbers. A face without a value gets NaN, or True in a column of flags."""
    if isinstance(values, np.ndarray):
        return values
    known = next(value for value in values if value is not None)
    blank = known if isinstance(known, str) else np.full_like(known, np.nan)
    return values if isinstance(known, str) else np.array([blank if value is None else value for value in values])


def deviation(name: str, found: int, count: int, folder: bool = True) -> str:
    """Return in words how many faces of a part of a release were found, and whether these are more than officially."""
    more = f", {found - count} {MORE}" if found > count else ""
    return f"{name}: {found if folder else 'no folder, 0'} of {count} faces{more}"


def pixel_corners(box: np.ndarray) -> np.ndarray:
    """Return x1, y1, x2, y2 (4,) of a box x, y, w, h that counts whole pixels: the last one is x + w - 1."""
    return np.concatenate([box[:2], box[:2] + box[2:] - 1])
