"""A prepared set on disk, data/<name>/: a row a face, written and read back.

    <split>.tsv               a headed row a face (COLUMNS, and of OPTIONAL what the set has); row i is crops/<split>/{i:06d}.jpg
    crops/<split>/*.jpg       the nominal crop grown by the margin, side round(target_size * margin) px
    meanface.txt              mean training landmarks in the nominal crop frame, x y x y ... on one line
    left_out.txt              faces whose image is damaged, with the reason; only where there are any
    meta.yaml                 how it was made; written last, so a folder without it is not a prepared set
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from pipnet import images
from pipnet.errors import UserError
from pipnet.geometry import Protocol, check_protocol, to_crop
from utils.config import DEFAULT_FILE, nearest, read_yaml
from utils.data.parsers import WITHIN, Record, Splits

SPLITS = ("train", "val", "test")
COLUMNS = ("file", "subset", "identity", "width", "height", "crop_x1", "crop_y1", "crop_x2", "crop_y2",
           "box_x1", "box_y1", "box_x2", "box_y2", "landmarks", "visible")
LEFT_OUT = "left_out.txt"
OPTIONAL = ("pose", "states")  # pitch yaw roll in radians; one 0 or 1 a name of meta.yaml's `states`
FORMAT = 2  # of the folder; others are prepared again
META = {"dataset", "name", "source", "layout", "count", "protocol", "target_size", "margin", "origin", "val", "seed", "expected",
        "found", "checksum"}


class Table(NamedTuple):
    """A split of a prepared set: M faces with N landmarks. All coordinates are continuous px of the source image."""

    files: list[str]         # source images, relative to the raw archive; #2 marks the second face of one, and so on
    images: list[Path]       # the crops on disk
    subsets: list[str]       # several of one face are joined by parsers.BESIDE
    identities: list[str]
    crop: np.ndarray         # (M, 4) float64 nominal crop x1, y1, x2, y2
    box: np.ndarray          # (M, 4) float64
    landmarks: np.ndarray    # (M, N, 2) float64, NaN where not annotated
    visible: np.ndarray      # (M, N) bool; a landmark that is NaN is not visible
    size: np.ndarray         # (M, 2) int64 width and height of the source image
    pose: np.ndarray | None = None    # (M, 3) float64 pitch, yaw, roll in radians, None where the set has none
    states: np.ndarray | None = None  # (M, k) bool, named in meta.yaml


class Done(NamedTuple):
    """What became of a face: its nominal crop (4,) in px of the source image, and that image's width and height."""

    crop: np.ndarray
    size: tuple[int, int]


def crop_file(split: str, index: int) -> str:
    """Where the crop of a split's row lies, relative to the prepared folder."""
    return f"crops/{split}/{index:06d}.jpg"


def read_image(file: Path) -> np.ndarray:
    """Image (H, W, 3) uint8 BGR, upright by its EXIF tag, also one inside a file of an archive, FILE/0001. UserError when it is
    missing, unreadable or cut short."""
    if (reader := WITHIN.get(file.parent.suffix)) and file.parent.is_file():
        return reader(file)
    return images.read_image(file, "fetch it again or remove it with its .pts")


def protocol_row(protocol: str | Protocol) -> Protocol:
    """The row of args.yaml of that name, checked."""
    if isinstance(protocol, Protocol):
        return check_protocol(protocol)
    rows = read_yaml(DEFAULT_FILE)["protocols"]
    if protocol not in rows:
        raise UserError(f"no crop protocol '{protocol}' in args.yaml (there are: {', '.join(rows)}){nearest(protocol, rows)}")
    try:
        return check_protocol(Protocol(**rows[protocol]))
    except TypeError:
        raise UserError(f"protocol '{protocol}' in args.yaml must hold {', '.join(Protocol._fields)}") from None


def face_name(record: Record, source: Path) -> str:
    """What tables call a face: its image, and which face of it."""
    return record.file.relative_to(source).as_posix() + (f"#{record.face}" if record.face > 1 else "")


def _line(record: Record, source: Path, done: Done) -> str:
    """A face as a row of COLUMNS and its own of OPTIONAL; `_row` reads it back."""
    numbers = (f"{value:.4f}" for value in (*done.crop, *record.box))
    landmarks = " ".join(f"{value:.4f}" for value in record.landmarks.ravel())
    visible = "" if record.visible is None else "".join("01"[int(flag)] for flag in record.visible)
    more = [] if record.pose is None else [" ".join(f"{value:.6f}" for value in record.pose)]
    more += [] if record.states is None else ["".join("01"[int(flag)] for flag in record.states)]
    names = (face_name(record, source), record.subset, record.identity)
    return "\t".join((*names, *map(str, done.size), *numbers, landmarks, visible, *more))


def write_set(folder: Path, source: Path, splits: Splits, done: dict[str, list[Done]], meta: dict) -> None:
    """The tables, the meanface and, last, meta.yaml beside the crops. UserError where a landmark is never annotated."""
    for split, records in splits.items():
        columns = [*COLUMNS, *(name for name in OPTIONAL if getattr(records[0], name) is not None)]
        lines = ["\t".join(columns), *(_line(record, source, one) for record, one in zip(records, done[split], strict=True))]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    if "train" in splits:
        crops = np.array([one.crop for one in done["train"]])
        landmarks = to_crop(np.array([record.landmarks for record in splits["train"]]), crops)
        unseen = np.flatnonzero(np.isnan(landmarks).any(axis=-1).all(axis=0))
        if len(unseen):
            raise UserError(f"{source}: landmark {unseen[0]} is annotated in no training face, so it has no mean")
        meanface = np.nanmean(landmarks, axis=0).ravel().tolist()
        (folder / "meanface.txt").write_text(" ".join(map(repr, meanface)) + "\n", encoding="ascii")
    (folder / "meta.yaml").write_text(yaml.safe_dump(meta, sort_keys=False), encoding="utf-8")


def load_meta(folder: Path) -> dict[str, Any]:
    """meta.yaml of a prepared set; UserError when there is none, or one of another version."""
    file = Path(folder) / "meta.yaml"
    if not file.is_file():
        raise UserError(f"{folder} is not a prepared set; prepare one: python main.py --prepare --data-dir RAW")
    meta = read_yaml(file)
    if meta.get("format") != FORMAT or not META <= set(meta):
        raise UserError(f"{file} is damaged or of another version of the format; remove {folder} and prepare it again")
    return meta


def load_meanface(folder: Path) -> np.ndarray:
    """Mean training landmarks (N, 2) float64 in the nominal crop frame; UserError when the set has no train split."""
    file, count = Path(folder) / "meanface.txt", load_meta(folder)["count"]
    try:
        return np.array(file.read_text(encoding="ascii").split(), dtype=np.float64).reshape(count, 2)
    except (OSError, ValueError):
        raise UserError(f"{file} does not hold {count} landmarks; a prepared set without a train split has none") from None


def mismatch(folder: Path, **wanted: Any) -> str:
    """Why a prepared folder cannot serve, one line; empty when it is whole and every wanted key of its meta.yaml has that value.

    Keys are those of meta.yaml, e.g. target_size, margin, protocol (a Protocol or a row's name), val, seed, layout, source.
    """
    folder = Path(folder)
    if not (folder / "meta.yaml").is_file():
        return f"{folder} has not been prepared"
    try:
        meta = load_meta(folder)
    except UserError as error:
        return str(error)
    if "protocol" in wanted:
        wanted = {**wanted, "protocol": protocol_row(wanted["protocol"])._asdict()}
    for key, value in wanted.items():
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


def load_split(folder: Path, split: str) -> Table:
    """A split of a prepared set; UserError names file and line of a bad row. Only `val` may be absent: it then has no face."""
    folder = Path(folder)
    file, count = folder / f"{split}.tsv", load_meta(folder)["count"]
    if not file.is_file() and split != "val":
        raise UserError(f"{folder} has no {split} split; give a set that has one")
    text = file.read_text(encoding="utf-8", errors="surrogateescape") if file.is_file() else "\t".join(COLUMNS)
    lines = text.removesuffix("\n").split("\n")
    columns = lines[0].split("\t")
    more = columns[len(COLUMNS):]
    if columns != [*COLUMNS, *(name for name in OPTIONAL if name in more)]:
        raise UserError(f"{file}, line 1: the header is not that of a prepared set; prepare it again")
    sizes = [{"pose": 3, "states": len(load_meta(folder).get("states", ()))}[name] for name in more]
    rows = [_row(line.split("\t"), count, sizes, f"{file}, line {number}") for number, line in enumerate(lines[1:], 2)]
    if not rows and split != "val":
        raise UserError(f"{file}: no face in it; prepare the set again")
    numbers = np.array([row[1] for row in rows]).reshape(-1, 10)
    landmarks = np.array([row[2] for row in rows]).reshape(-1, count, 2)
    visible = np.array([row[3] for row in rows], dtype=bool).reshape(-1, count) & ~np.isnan(landmarks).any(axis=-1)
    files, subsets, identities = ([row[0][i] for row in rows] for i in range(3))
    images = [folder / crop_file(split, i) for i in range(len(rows))]
    extra = {name: np.array([row[4][i] for row in rows]).reshape(-1, sizes[i]) for i, name in enumerate(more)}
    if "states" in extra:
        extra["states"] = extra["states"] == 1
    return Table(files, images, subsets, identities, numbers[:, 2:6], numbers[:, 6:], landmarks, visible,
                 numbers[:, :2].astype(np.int64), **extra)


def _row(fields: list[str], count: int, sizes: list[int], where: str) -> tuple:
    """One line of a table: three names, ten numbers, landmarks, visible flags (all set where the line has none), and the
    optional columns, of `sizes` numbers each."""
    if len(fields) != len(COLUMNS) + len(sizes):
        raise UserError(f"{where}: {len(fields)} columns where {len(COLUMNS) + len(sizes)} belong; prepare the set again")
    try:
        numbers, landmarks = np.array(fields[3:13], dtype=np.float64), np.array(fields[13].split(), dtype=np.float64)
        extra = [np.array(field.split() if " " in field else list(field), dtype=np.float64) for field in fields[15:]]
    except ValueError:
        raise UserError(f"{where}: a column that is not a number; prepare the set again") from None
    if len(landmarks) != 2 * count:
        raise UserError(f"{where}: {len(landmarks) / 2:g} landmarks where {count} belong; prepare the set again")
    if set(fields[14]) - {"0", "1"} or len(fields[14]) not in (0, count):
        raise UserError(f"{where}: visible is not {count} flags 0 or 1; prepare the set again")
    if not (np.isfinite(numbers).all() and (numbers[4:6] > numbers[2:4]).all()):
        raise UserError(f"{where}: not a crop box; prepare the set again")
    if [len(values) for values in extra] != sizes:
        raise UserError(f"{where}: pose or states have another number of values than the set; prepare the set again")
    return fields[:3], numbers, landmarks, [flag == "1" for flag in fields[14]] or [True] * count, extra
