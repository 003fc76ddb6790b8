"""300W as released or in Peppa's folders, and the synthetic faces, which lie in the same tree."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipnet.errors import UserError
from utils.data.parsers.points import paired
from utils.data.parsers.records import Splits, record, short

VISIBLE_FILE = "visible.tsv"  # beside a 300W tree: relative file, tab, one 0 or 1 a landmark


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


def photograph(stem: str) -> str:
    """NAME of NAME_1 and NAME_2, faces of one Flickr photograph; LFPW's image_0001 numbers the photograph itself."""
    return re.sub(r"\s*_\d{1,2}$", "", stem)


def parse_300w(data_dir: Path, allow_partial: bool = False, count: int | None = 68, origin: float = 1.0,
               official: bool = True) -> Splits:
    """300W (Sagonas et al., 2016) as released, or Peppa's tree of the same (AFW/afw, HELEN/trainset, ...), case-insensitive.

    official: compare with the release's counts; UserError, a line a part, unless allow_partial, which warns instead.
    """
    root, splits, missing = Path(data_dir), {"train": [], "test": []}, []
    flags = _visibility(root, count or 68)
    for name, part in PARTS_300W.items():
        folder = _find(root, part.folders)
        pairs = paired(folder, root, count, recursive=False) if folder else []
        for file, annotated in pairs:
            identity, visible = f"{name.split('/')[0]}/{photograph(file.stem)}", flags.get(file.relative_to(root).as_posix())
            splits[part.split].append(record(file, part.subset, identity, annotated, origin, visible))
        if official and len(pairs) != part.count:
            missing.append(f"{name}: {len(pairs) if folder else 'no folder, 0'} of {part.count} faces")
    short(root, "300W", missing, allow_partial)
    if not any(splits.values()):
        raise UserError(f"{root}: none of 300W's folders ({', '.join(PARTS_300W)}) holds a face")
    return splits


PRIVATE = {"01_Indoor": Part(("01_indoor", "300w/01_indoor"), "test", "indoor", 300),
           "02_Outdoor": Part(("02_outdoor", "300w/02_outdoor"), "test", "outdoor", 300)}


def parse_300w_private(data_dir: Path, allow_partial: bool = False, count: int | None = 68, origin: float = 1.0) -> Splits:
    """{test}: the private test set of the 300W challenge, in the folder, or in its 300W as Peppa's tree has it."""
    root, records, missing = Path(data_dir), [], []
    for name, part in PRIVATE.items():
        folder = _find(root, part.folders)
        pairs = paired(folder, root, count, recursive=False) if folder else []
        records += [record(file, part.subset, f"{part.subset}/{file.stem}", annotated, origin) for file, annotated in pairs]
        if len(pairs) != part.count:
            missing.append(f"{name}: {len(pairs) if folder else 'no folder, 0'} of {part.count} faces")
    short(root, "300W's private test set", missing, allow_partial)
    if not records:
        raise UserError(f"{root}: neither 01_Indoor nor 02_Outdoor holds a face")
    return {"test": records}
