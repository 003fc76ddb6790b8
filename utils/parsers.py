"""Official annotation files -> records. A dataset is one parser and one row of DATASETS.

Parsers hand out continuous image px (see geometry.py): annotated coordinates minus the row's `origin` (what the annotation calls
the centre of the first pixel) plus half a pixel. Anything wrong in the archive raises UserError before a picture is decoded.
"""

import os
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from loguru import logger

from utils.errors import UserError
from utils.geometry import box_of

IMAGES = (".jpg", ".jpeg", ".png")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?|nan", re.ASCII)
VISIBLE_FILE = "visible.tsv"  # beside a 300W tree: relative file, tab, one 0 or 1 a landmark


class Record(NamedTuple):
    """One annotated face."""

    file: Path                  # the image
    subset: str                 # reported apart, e.g. common/lfpw
    identity: str               # faces of one identity never stand in two splits
    landmarks: np.ndarray       # (N, 2) float64, continuous image px, NaN where not annotated
    box: np.ndarray             # (4,) x1, y1, x2, y2, continuous image px
    visible: np.ndarray | None  # (N,) bool, None where the set does not say


Splits = dict[str, list[Record]]


class Part(NamedTuple):
    """An official subfolder of 300W."""

    folders: tuple[str, ...]    # names it goes by, lower case
    split: str
    subset: str
    count: int                  # faces in the official release


PARTS_300W = {
    "afw": Part(("afw", "afw/afw"), "train", "afw", 337),
    "helen/trainset": Part(("helen/trainset", "helen/helen/trainset"), "train", "helen/trainset", 2000),
    "lfpw/trainset": Part(("lfpw/trainset", "lfpw/lfpw/trainset"), "train", "lfpw/trainset", 811),
    "helen/testset": Part(("helen/testset", "helen/helen/testset"), "test", "common/helen", 330),
    "lfpw/testset": Part(("lfpw/testset", "lfpw/lfpw/testset"), "test", "common/lfpw", 224),
    "ibug": Part(("ibug", "ibug/ibug"), "test", "challenge/ibug", 135),
}


def complain(faults: list[str]) -> None:
    """Raises UserError with the first fault and how many more there are; nothing when there is none."""
    if faults:
        raise UserError(faults[0] + (f" (and {len(faults) - 1} more such files)" if len(faults) > 1 else ""))


def read_pts(file: Path, count: int | None = None) -> np.ndarray:
    """Landmarks (N, 2) float64 of a .pts file as annotated (the file's own origin), NaN where it says nan.

    Format: `version: 1`, `n_points: N`, `{`, N lines `x y`, `}`. UserError names file, line and fault; also for N != count.
    """
    try:
        lines = Path(file).read_bytes().decode("utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    if len(rows) < 3:
        raise UserError(f"{file}: not a .pts file, which begins with the lines 'version: 1', 'n_points: N' and '{{'")
    headers = [(number, "".join(words)) for number, words in rows[:3]]
    for (number, text), pattern, wanted in zip(headers, (r"version:\d[\d.]*", r"n_points:(\d{1,6})", r"\{"),
                                               ("version: 1", "n_points: N", "{"), strict=True):
        if not re.fullmatch(pattern, text, re.ASCII):
            raise UserError(f"{file}, line {number}: '{text[:40]}' where '{wanted}' belongs")
    promised = int(headers[1][1].split(":")[1])
    end = next((i for i, (_, words) in enumerate(rows) if words == ["}"]), None)
    if end is None:
        raise UserError(f"{file}, line {rows[-1][0]}: the closing brace is missing; the file may be cut short")
    if end + 1 < len(rows):
        raise UserError(f"{file}, line {rows[end + 1][0]}: text after the closing brace")
    for number, words in rows[3:end]:
        if len(words) != 2:
            raise UserError(f"{file}, line {number}: {len(words)} values where 'x y' belongs")
        for word in words:
            if not NUMBER.fullmatch(word) or abs(float(word)) >= 1e9:
                raise UserError(f"{file}, line {number}: '{word[:40]}' is not a coordinate")
    if end - 3 != promised:
        raise UserError(f"{file}: n_points says {promised}, but {end - 3} points follow")
    landmarks = np.array([words for _, words in rows[3:end]], dtype=np.float64).reshape(-1, 2)
    half = np.flatnonzero(np.isnan(landmarks).sum(axis=1) == 1)
    if len(half):
        raise UserError(f"{file}, line {rows[3 + half[0]][0]}: one coordinate is nan and the other is not")
    if count is not None and promised != count:
        raise UserError(f"{file}: {promised} points where {count} are expected; correct it, or choose the layout of that number")
    return landmarks


def write_pts(file: Path, landmarks: np.ndarray) -> None:
    """Writes landmarks (N, 2) as a .pts file, coordinates as they are; `read_pts` gives them back to 1e-6."""
    rows = "".join(f"{x:.6f} {y:.6f}\n" for x, y in np.asarray(landmarks, dtype=np.float64).tolist())
    Path(file).write_text(f"version: 1\nn_points:  {len(landmarks)}\n{{\n{rows}}}\n", encoding="ascii")


def _listed(folder: Path, root: Path, recursive: bool) -> tuple[dict[str, list[Path]], dict[str, Path]]:
    """Images by stem path and .pts by stem path below folder, hidden files left out. UserError when a link leaves root."""
    images: dict[str, list[Path]] = {}
    points: dict[str, Path] = {}
    inside = os.path.realpath(root)
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith(".") and name != "__MACOSX")
        for name in (*folders, *sorted(names)):
            path, suffix = Path(base, name), Path(name).suffix.lower()
            wanted = name in folders or suffix in (*IMAGES, ".pts") and not name.startswith(".")
            if wanted and os.path.commonpath([inside, os.path.realpath(path)]) != inside:
                raise UserError(f"{path}: a link that leaves {root}; copy what it points to into the folder")
            if not wanted or name in folders:
                continue
            if any(c in str(path) for c in "\t\n\r"):
                raise UserError(f"{str(path)!r}: a tab or line break in the name; rename the file")
            stem = str(path.with_suffix(""))
            if suffix == ".pts":
                points[stem] = path
            else:
                images.setdefault(stem, []).append(path)
    return images, points


def _paired(folder: Path, root: Path, count: int | None, recursive: bool) -> list[tuple[Path, np.ndarray]]:
    """(image, annotated landmarks) of a folder in order of the name; UserError for the first file without its other half."""
    images, points = _listed(folder, root, recursive)
    complain([f"{paths[0]}: no {Path(stem).name}.pts beside it" for stem, paths in images.items() if stem not in points])
    kinds = ", ".join(IMAGES)
    complain([f"{path}: no image of the same stem ({kinds}) beside it" for stem, path in points.items() if stem not in images])
    complain([f"{two[1]}: shares its .pts with {two[0].name}; remove one" for two in images.values() if len(two) > 1])
    pairs, faults = [], []
    for stem in sorted(images):
        try:
            pairs.append((images[stem][0], read_pts(points[stem], count)))
        except UserError as error:
            faults.append(str(error))
    complain(faults)
    return pairs


def _record(file: Path, subset: str, identity: str, annotated: np.ndarray, origin: float,
            visible: np.ndarray | None = None) -> Record:
    """A record in continuous coordinates, its box the tight box of the landmarks."""
    landmarks = annotated - origin + 0.5
    try:
        box = box_of(landmarks)
    except (UserError, ValueError):
        raise UserError(f"{file.with_suffix('.pts')}: none of its points has coordinates; remove the pair") from None
    if not (box[2:] > box[:2]).all():
        raise UserError(f"{file.with_suffix('.pts')}: its points span no area; remove the pair")
    return Record(file, subset, identity, landmarks, box, visible)


def _find(root: Path, names: tuple[str, ...]) -> Path | None:
    """The last that exists of the folders `names` (lower case, / between levels) below root, whatever their case, or None."""
    found = None
    for name in names:
        here: Path | None = root
        for level in name.split("/"):
            below = sorted(p for p in here.iterdir() if p.name.lower() == level and p.is_dir())
            here = below[0] if below else None
            if here is None:
                break
        found = here or found
    return found


def _visibility(root: Path, count: int) -> dict[str, np.ndarray]:
    """{relative file: (N,) bool} of the visibility file, empty when the tree has none."""
    file, flags = root / VISIBLE_FILE, {}
    if not file.exists():
        return flags
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        name, _, text = line.partition("\t")
        text = re.sub(r"\s", "", text)
        if len(text) != count or set(text) - {"0", "1"}:
            raise UserError(f"{file}, line {number}: a file, a tab and {count} flags 0 or 1 belong here")
        flags[name] = np.array(list(text)) == "1"
    return flags


def parse_300w(data_dir: Path, allow_partial: bool = False, count: int | None = 68, origin: float = 1.0,
               official: bool = True) -> Splits:
    """300W (Sagonas et al., 2016) as released, or Peppa's tree of the same (AFW/afw, HELEN/trainset, ...), case-insensitive.

    official: compare with the release's counts; UserError, a line a part, unless allow_partial, which warns instead.
    """
    root, splits, missing = Path(data_dir), {"train": [], "test": []}, []
    flags = _visibility(root, count or 68)
    for name, part in PARTS_300W.items():
        folder = _find(root, part.folders)
        pairs = _paired(folder, root, count, recursive=False) if folder else []
        for file, annotated in pairs:
            # Flickr photographs hold several faces: NAME_1.jpg, NAME_2.jpg; LFPW's image_0001 numbers the photograph itself
            identity = f"{name.split('/')[0]}/" + re.sub(r"\s*_\d{1,2}$", "", file.stem)
            visible = flags.get(file.relative_to(root).as_posix())
            splits[part.split].append(_record(file, part.subset, identity, annotated, origin, visible))
        if official and len(pairs) != part.count:
            missing.append(f"{name}: {len(pairs) if folder else 'no folder, 0'} of {part.count} faces")
    if missing and not allow_partial:
        raise UserError("\n  ".join((f"{root} is not the whole of 300W; complete it, or allow_partial (--allow-partial):",
                                     *missing)))
    for line in missing:
        logger.warning(f"300W is partial: {line}")
    if not any(splits.values()):
        raise UserError(f"{root}: none of 300W's folders ({', '.join(PARTS_300W)}) holds a face")
    return splits


def parse_points(data_dir: Path, allow_partial: bool = False, count: int | None = None, origin: float = 0.0) -> Splits:
    """Any folder of images with a .pts of the same stem, searched in depth; train/, val/ and test/ at its top are the splits.

    Without these all goes to train. The subset is the first folder below the split, else `all`. The identity is the stem up to
    the first '_' where that groups several files of a folder (but not all of them), else the stem. A partial set is no notion
    here, as no official count is known.
    """
    root = Path(data_dir)
    tops = {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_dir() and p.name.lower() in ("train", "val", "test")}
    if tops and (stray := [p for p in sorted(root.iterdir()) if p.suffix.lower() in IMAGES]):
        logger.warning(f"{root}: {len(stray)} images beside {', '.join(tops)}, such as {stray[0].name}, are left out")
    splits: Splits = {}
    for split, folder in (tops or {"train": root}).items():
        pairs = _paired(folder, root, count, recursive=True)
        prefixes = [(file.parent, file.stem.split("_")[0]) for file, _ in pairs]
        groups, sizes = Counter(prefixes), Counter(file.parent for file, _ in pairs)
        records = []
        for (file, annotated), prefix in zip(pairs, prefixes, strict=True):
            below = file.relative_to(folder).parts[:-1]
            grouped = 1 < groups[prefix] < sizes[file.parent]
            identity = "/".join((*below, prefix[1] if grouped else file.stem))
            records.append(_record(file, below[0] if below else "all", identity, annotated, origin))
        splits[split] = records
    if not any(splits.values()):
        raise UserError(f"{root}: no image with a .pts of the same stem in it")
    counts = Counter(len(record.landmarks) for records in splits.values() for record in records)
    usual = counts.most_common(1)[0][0]
    complain([f"{record.file.with_suffix('.pts')}: {len(record.landmarks)} points where the other files have {usual}"
              for records in splits.values() for record in records if len(record.landmarks) != usual])
    return splits


class Dataset(NamedTuple):
    """A row of DATASETS."""

    parse: Callable[..., Splits]    # (data_dir, allow_partial, count, origin) -> {split: records}
    layout: str | None              # row of args.yaml's layouts; None: the one with as many landmarks as the files
    origin: float                   # annotated coordinate of the centre of the first pixel
    expected: dict[str, int] | None  # faces a subset in the official release; None: any number


DATASETS = {
    "300w": Dataset(parse_300w, "68", 1.0, {part.subset: part.count for part in PARTS_300W.values()}),
    "synthetic": Dataset(partial(parse_300w, official=False), "68", 1.0, None),
    "points": Dataset(parse_points, None, 0.0, None),
}


def infer(data_dir: Path) -> str:
    """Row of DATASETS that a folder looks like: synthetic or 300w for a 300W tree, else points."""
    tree = {p.name.lower() for p in data_dir.iterdir() if p.is_dir()} & {"afw", "helen", "lfpw", "ibug"}
    if not tree:
        return "points"
    return "synthetic" if (data_dir / VISIBLE_FILE).exists() else "300w"
