"""A prepared set on disk, data/<name>/: one row per face, written and read back.

    <split>.tsv               headed rows (COLUMNS, and OPTIONAL ones that the set has); row i is crops/<split>/{i:06d}.jpg
    crops/<split>/*.jpg       the nominal crop grown by the margin, side round(target_size * margin) px
    meanface.txt              mean training landmarks in [0, 1] of the nominal crop, x y x y ... on one line
    left_out.txt              faces whose image is damaged, with the reason; absent if there are none
    meta.yaml                 how the set was made; written last, so a folder without it is not a prepared set
"""

import hashlib
import math
import os
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from loguru import logger

from pipnet import images
from pipnet.errors import UserError
from pipnet.geometry import Protocol, check_protocol, to_crop
from pipnet.layout import MOST_LANDMARKS, Layout
from utils.faces.archives import DATASETS, WITHIN, Splits, image_of
from utils.growing import SPLITS
from utils.layouts import Layouts
from utils.yaml_files import read_yaml

SYNTHETIC = "synthetic"
UNLABELLED = "unlabelled"  # split, dataset and layout of faces without landmarks, which unlabelled.py prepares
FAR = 1 << 20  # px; no picture that can be read is larger
ALL = "all"  # every face of a set, whatever its split
COLUMNS = ("file", "subset", "identity", "width", "height", "crop_x1", "crop_y1", "crop_x2", "crop_y2",
           "box_x1", "box_y1", "box_x2", "box_y2", "landmarks", "visible")
LEFT_OUT = "left_out.txt"
OPTIONAL = ("pose", "states")  # pitch yaw roll in radians; one 0 or 1 per name in meta.yaml's `states`
FORMAT = 2  # of the folder; a folder of another format is prepared again
META = {"dataset": str, "name": str, "source": str, "layout": str, "count": int, "protocol": dict, "target_size": int,
        "margin": (int, float), "origin": (int, float, type(None)), "val": (int, float, str), "seed": int,
        "expected": (dict, type(None)), "found": dict, "checksum": str}  # types of the values


class Table(NamedTuple):
    """One split of a prepared set: M faces with N landmarks. All coordinates are continuous px of the source image."""

    files: list[str]         # source images, relative to the raw archive; #2 marks the second face of an image, and so on
    images: list[str]        # files of the crops; a Path takes ten times the memory
    subsets: list[str]       # several subsets of one face are joined by parsers.BESIDE
    identities: list[str]
    crop: np.ndarray         # (M, 4) float64 nominal crop x1, y1, x2, y2
    box: np.ndarray          # (M, 4) float64
    landmarks: np.ndarray    # (M, N, 2) float64, NaN where not annotated
    visible: np.ndarray      # (M, N) bool; False where the landmark is NaN
    size: np.ndarray         # (M, 2) int64 width and height of the source image
    pose: np.ndarray | None = None    # (M, 3) float64 pitch, yaw, roll in radians
    states: np.ndarray | None = None  # (M, k) bool, named in meta.yaml


class Done(NamedTuple):
    """A prepared face: its nominal crop (4,) in px of the source image, and that image's width and height."""

    crop: np.ndarray
    size: tuple[int, int]


class PreparedSet:
    """A whole prepared folder. `PreparedSet(folder, layouts)` raises UserError if there is none.

    folder; meta: the values of meta.yaml; layouts: those that its own `layout` comes from; show: where it is drawn, `drawn` or a
    folder in its own.
    """

    def __init__(self, folder: Path, layouts: Layouts, drawn: Path | None = None):
        self.folder, self.layouts, self.meta = Path(folder), layouts, read_meta(folder)
        self.show = drawn or self.folder / "show"

    @cached_property
    def layout(self) -> Layout:
        """Return the layout of the stored landmarks."""
        return self.layouts.load(self.meta["layout"])

    @cached_property
    def protocol(self) -> Protocol:
        """Return the protocol by which the crops were cut."""
        return Protocol(**self.meta["protocol"])

    @property
    def checksum(self) -> str:
        """Return the checksum of the names, image sizes and labels of the raw set."""
        return self.meta["checksum"]

    @property
    def splits(self) -> list[str]:
        """Return the splits that it has."""
        return [split for split in SPLITS if (self.folder / f"{split}.tsv").is_file()]

    @property
    def synthetic(self) -> bool:
        """Return whether the faces are rendered."""
        return self.meta["dataset"] == SYNTHETIC

    @property
    def title(self) -> str:
        """Return the name for tables; rendered faces say so."""
        return "synthetic faces" if self.synthetic else self.meta["name"]

    def meanface(self) -> np.ndarray:
        """Return the mean training landmarks (N, 2) in [0, 1] of the nominal crop. UserError without a train split."""
        file, count = self.folder / "meanface.txt", self.meta["count"]
        try:
            points = np.array(file.read_text(encoding="ascii").split(), dtype=np.float64).reshape(count, 2)
            if not (np.abs(points) < FAR).all():
                raise ValueError
            return points
        except (OSError, ValueError):
            raise UserError(f"{file} does not hold {count} landmarks; a prepared set without a train split has none") from None

    def read(self, split: str) -> Table:
        """Return a split, or ALL. UserError names file and line of a bad row. Only `val` may be absent: it then has no face."""
        if split == ALL:
            columns = zip(*(self.read(name) for name in self.splits), strict=True)
            return Table(*(None if parts[0] is None else sum(parts, []) if isinstance(parts[0], list) else np.concatenate(parts)
                           for parts in columns))
        file, count = self.folder / f"{split}.tsv", self.meta["count"]
        if not file.is_file() and split != "val":
            raise UserError(f"{self.folder} has no {split} split; give a set that has one")
        text = file.read_text(encoding="utf-8", errors="surrogateescape") if file.is_file() else "\t".join(COLUMNS)
        lines = text.removesuffix("\n").split("\n")
        columns = lines[0].split("\t")
        more = columns[len(COLUMNS):]
        if columns != [*COLUMNS, *(name for name in OPTIONAL if name in more)]:
            raise UserError(f"{file}, line 1: the header is not that of a prepared set; prepare it again")
        sizes = [{"pose": 3, "states": len(self.meta.get("states", ()))}[name] for name in more]
        rows = [_row(line.split("\t"), count, sizes, f"{file}, line {number}") for number, line in enumerate(lines[1:], 2)]
        if not rows and split != "val":
            raise UserError(f"{file}: no face in it; prepare the set again")
        numbers = np.array([row[1] for row in rows]).reshape(-1, 10)
        landmarks = np.array([row[2] for row in rows]).reshape(-1, count, 2)
        visible = np.array([row[3] for row in rows], dtype=bool).reshape(-1, count) & ~np.isnan(landmarks).any(axis=-1)
        files, subsets, identities = ([row[0][i] for row in rows] for i in range(3))
        images = [os.path.join(self.folder, crop_file(split, i)) for i in range(len(rows))]
        extra = {name: np.array([row[4][i] for row in rows]).reshape(-1, sizes[i]) for i, name in enumerate(more)}
        if "states" in extra:
            extra["states"] = extra["states"] == 1
        return Table(files, images, subsets, identities, numbers[:, 2:6], numbers[:, 6:], landmarks, visible,
                     numbers[:, :2].astype(np.int64), **extra)


class Split(NamedTuple):
    """A split of a prepared set, and by how many px of the source image its labels lie right of the true points.

    labelled: False hides the labels, so that nothing can learn from them; the set may then be of any layout.
    """

    set: PreparedSet
    name: str
    label_shift: float = 0.0
    labelled: bool = True


def test_split(one: PreparedSet, apart: bool) -> Split | None:
    """Return what to test on: the test split; without one, all faces of an own set that is kept `apart` for tests; else None."""
    if "test" in one.splits:
        return Split(one, "test")
    if not apart or DATASETS[one.meta["dataset"]].layout is not None:
        return None
    logger.info(f"{one.folder.name} has no test split: all its faces are tested")
    return Split(one, ALL)


def _row(fields: list[str], count: int, sizes: list[int], where: str) -> tuple:
    """Return names (3), numbers (10), landmarks (2 count,), visible flags and the optional columns of one line.

    All landmarks are visible if the line has no flags. sizes: how many numbers each optional column holds.
    """
    if len(fields) != len(COLUMNS) + len(sizes):
        raise UserError(f"{where}: {len(fields)} columns where {len(COLUMNS) + len(sizes)} belong; prepare the set again")
    try:
        numbers, landmarks = np.array(fields[3:13], dtype=np.float64), np.array(fields[13].split(), dtype=np.float64)
        extra = [np.array(field.split() if " " in field else list(field), dtype=np.float64) for field in fields[15:]]
    except ValueError:
        raise UserError(f"{where}: a column that is not a number; prepare the set again") from None
    if len(landmarks) != 2 * count:
        raise UserError(f"{where}: {len(landmarks) / 2:g} landmarks where {count} belong; prepare the set again")
    if (np.abs(landmarks) > FAR).any() or (np.abs(numbers) > FAR).any():
        raise UserError(f"{where}: a coordinate is more than {FAR} px away; prepare the set again")
    if set(fields[14]) - {"0", "1"} or len(fields[14]) not in (0, count):
        raise UserError(f"{where}: visible is not {count} flags 0 or 1; prepare the set again")
    if not (np.isfinite(numbers).all() and (numbers[4:6] > numbers[2:4]).all()):
        raise UserError(f"{where}: not a crop box; prepare the set again")
    if [len(values) for values in extra] != sizes:
        raise UserError(f"{where}: pose or states have another number of values than the set; prepare the set again")
    return fields[:3], numbers, landmarks, [flag == "1" for flag in fields[14]] or [True] * count, extra


def read_meta(folder: Path) -> dict[str, Any]:
    """Return the values of meta.yaml. UserError if there is none, or one of another format."""
    file = Path(folder) / "meta.yaml"
    if not file.is_file():
        raise UserError(f"{folder} is not a prepared set; prepare one: python main.py --prepare --data-dir RAW")
    meta = read_yaml(file)
    meta.setdefault("labels", "exact")
    try:
        whole = meta.get("format") == FORMAT and all(isinstance(meta[key], kind) for key, kind in META.items())
        whole = whole and meta["dataset"] in (*DATASETS, UNLABELLED)
        whole = whole and 0 < meta["count"] <= MOST_LANDMARKS and 0 < meta["target_size"] <= FAR and 0 < meta["margin"] <= 100
        whole = whole and all(math.isfinite(value) for value in meta.values() if isinstance(value, float))
        whole = whole and all(isinstance(value, int) for key in ("expected", "found") for value in (meta[key] or {}).values())
        whole = whole and isinstance(meta.get("frame_step", 1), int | None) and isinstance(meta.get("states", []), list)
        check_protocol(Protocol(**meta["protocol"]))
    except (KeyError, TypeError, OverflowError, UserError):
        whole = False
    if not whole:
        raise UserError(f"{file} is damaged or of another version of the format; remove {folder} and prepare it again")
    return meta


def mismatch(folder: Path, **wanted: Any) -> str:
    """Return in one line why a folder cannot serve; empty if it is a whole prepared set and meta.yaml has all wanted values.

    wanted: keys of meta.yaml, e.g. target_size, margin, protocol (a Protocol), val, seed, layout, source.
    """
    folder = Path(folder)
    if not (folder / "meta.yaml").is_file():
        return f"{folder} has not been prepared"
    try:
        meta = read_meta(folder)
    except UserError as error:
        return str(error)
    for key, value in wanted.items():
        value = value._asdict() if key == "protocol" else value
        if key not in meta:
            return f"{folder} was prepared without {key}"
        if meta[key] != value:
            if key == "fingerprint":
                return f"{meta['source']} has changed since {folder} was prepared"
            return f"{folder} was prepared with {key} {meta[key]}, not {value}"
    splits = [split for split in SPLITS if (folder / f"{split}.tsv").is_file()]
    for split in splits:
        with open(folder / f"{split}.tsv", "rb") as file:
            rows = sum(1 for _ in file) - 1
        crops = folder / "crops" / split
        held = sum(entry.name.endswith(".jpg") for entry in os.scandir(crops)) if crops.is_dir() else 0
        if held != rows:
            return f"{crops} holds {held} crops for {rows} rows of {split}.tsv"
    return "" if splits else f"{folder} holds no split"


# -------------------------------------------------------------------------------------------------------------- writing
def crop_file(split: str, index: int) -> str:
    """Return where the crop of a row lies, relative to the prepared folder."""
    return f"crops/{split}/{index:06d}.jpg"


def name_hash(text: str) -> bytes:
    """Return the sha256 of a text with a name in it, by which draws of names stay the same when others are added. File names
    that are not UTF-8 are allowed."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def source_picture(source: Path, name: str) -> Path | None:
    """Return the picture of a face by its name in the tables, or None if it is gone. source: the raw archive."""
    image = image_of(source, name)
    return image if image.is_file() or image.parent.is_file() else None  # COFW's and 300VW's are inside a file


def _line(table: dict, row: int) -> str:
    """Return a face as a line of the table; `_row` reads it back."""
    numbers = (f"{value:.4f}" for name in ("crop", "box") for value in table[name][row])
    landmarks = " ".join(f"{value:.4f}" for value in table["landmarks"][row].ravel())
    flags = {name: "".join("01"[int(flag)] for flag in table[name][row]) for name in ("visible", "states") if name in table}
    more = [" ".join(f"{value:.6f}" for value in table["pose"][row])] if "pose" in table else []
    more += [flags["states"]] if "states" in table else []
    names = (table[name][row] for name in ("file", "subset", "identity"))
    return "\t".join((*names, *map(str, table["size"][row]), *numbers, landmarks, flags.get("visible", ""), *more))


def write_set(folder: Path, source: Path, splits: Splits, meta: dict) -> None:
    """Write tables, meanface and, last, meta.yaml beside the crops. UserError if a landmark is never annotated."""
    for split, table in splits.items():
        columns = [*COLUMNS, *(name for name in OPTIONAL if name in table)]
        lines = ["\t".join(columns), *(_line(table, row) for row in range(len(table["file"])))]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    if "train" in splits:
        landmarks = to_crop(splits["train"]["landmarks"], splits["train"]["crop"])
        unseen = np.flatnonzero(np.isnan(landmarks).any(axis=-1).all(axis=0))
        if len(unseen):
            raise UserError(f"{source}: landmark {unseen[0]} is annotated in no training face, so it has no mean")
        meanface = np.nanmean(landmarks, axis=0).ravel().tolist()
        (folder / "meanface.txt").write_text(" ".join(map(repr, meanface)) + "\n", encoding="ascii")
    (folder / "meta.yaml").write_text(yaml.safe_dump(meta, sort_keys=False), encoding="utf-8")


def read_image(file: Path | str) -> np.ndarray:
    """Return an image (H, W, 3) uint8 BGR, upright by its EXIF tag; FILE/0001 is an image inside a file of an archive.

    UserError if it is missing, unreadable or cut short.
    """
    file = Path(file)
    if (reader := WITHIN.get(file.parent.suffix)) and file.parent.is_file():
        return reader(file)
    return images.read_image(file, "fetch it again or remove it with its .pts")
