"""300W as released or in Peppa's folders, its private test set, and the synthetic faces, which use the same folders."""
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipnet.errors import UserError
from utils.data.parsers.points import paired
from utils.data.parsers.records import Annotation, Splits, photograph, record, require_complete

VISIBLE_FILE = "visible.tsv"  # in the root: a line per image with its relative path, a tab, and 0 or 1 per landmark


class Part(NamedTuple):
    """An official subfolder of 300W."""
    folders: tuple[str, ...]    # its names in the known releases, lower case
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
PRIVATE = {"01_Indoor": Part(("01_indoor", "300w/01_indoor"), "test", "indoor", 300),
           "02_Outdoor": Part(("02_outdoor", "300w/02_outdoor"), "test", "outdoor", 300)}


def _find(root: Path, names: tuple[str, ...]) -> Path | None:
    """Return the last existing folder of `names` (lower case, / between levels) below root in any case, or None."""
    found = None
    for name in names:
        folder: Path | None = root
        for level in name.split("/"):
            below = sorted(p for p in folder.iterdir() if p.name.lower() == level and p.is_dir())
            folder = below[0] if below else None
            if folder is None:
                break
        found = folder or found
    return found


def _pairs(root: Path, parts: dict[str, Part], count: int | None) -> tuple[dict[str, list[tuple[Path, np.ndarray]]], list[str]]:
    """Return {name of the part: [(image, landmarks)]}, and a line for each part that has not the official number of faces."""
    pairs, missing = {}, []
    for name, part in parts.items():
        folder = _find(root, part.folders)
        pairs[name] = paired(folder, root, count, recursive=False) if folder else []
        if len(pairs[name]) != part.count:
            missing.append(f"{name}: {len(pairs[name]) if folder else 'no folder, 0'} of {part.count} faces")
    return pairs, missing


def _visibility(root: Path, count: int) -> dict[str, np.ndarray]:
    """Return {relative file: (N,) bool} of the visibility file; empty without that file."""
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
    """Return {train, test} of 300W (Sagonas et al., 2016) as released, or in Peppa's folders (AFW/afw, HELEN/trainset, ...).

    Folder names are case-insensitive. official: compare the numbers of faces with the release, as `require_complete` does.
    """
    root, splits = Path(data_dir), {"train": [], "test": []}
    flags = _visibility(root, count or 68)
    found, missing = _pairs(root, PARTS_300W, count)
    for name, pairs in found.items():
        part = PARTS_300W[name]
        for file, landmarks in pairs:
            identity = f"{name.split('/')[0]}/{photograph(file.stem)}"
            annotation = Annotation(landmarks, origin, visible=flags.get(file.relative_to(root).as_posix()))
            splits[part.split].append(record(file, part.subset, identity, annotation))
    if official:
        require_complete(root, "300W", missing, allow_partial)
    if not any(splits.values()):
        raise UserError(f"{root}: none of 300W's folders ({', '.join(PARTS_300W)}) holds a face")
    return splits


def parse_300w_private(data_dir: Path, allow_partial: bool = False, count: int | None = 68, origin: float = 1.0) -> Splits:
    """Return {test}: the private test set of the 300W challenge, in the folder or, as in Peppa's tree, in its folder 300W."""
    root = Path(data_dir)
    found, missing = _pairs(root, PRIVATE, count)
    records = [record(file, PRIVATE[name].subset, f"{PRIVATE[name].subset}/{file.stem}", Annotation(landmarks, origin))
               for name, pairs in found.items() for file, landmarks in pairs]
    require_complete(root, "300W's private test set", missing, allow_partial)
    if not records:
        raise UserError(f"{root}: neither 01_Indoor nor 02_Outdoor holds a face")
    return {"test": records}
