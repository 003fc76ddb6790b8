"""300W as released or in Peppa's folders, its private test set, and the synthetic faces, which use the same folders."""
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipnet.errors import UserError
from utils.faces.archives.lists import read_lines
from utils.faces.archives.naming import photograph
from utils.faces.archives.points import paired
from utils.faces.archives.records import Annotation, Archive, deviation

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
    """Return {name of the part: [(image, landmarks)]}, and a line for each part with another number of faces than officially."""
    pairs, missing = {}, []
    for name, part in parts.items():
        folder = _find(root, part.folders)
        pairs[name] = paired(folder, root, count, recursive=False) if folder else []
        if len(pairs[name]) != part.count:
            missing.append(deviation(name, len(pairs[name]), part.count, bool(folder)))
    return pairs, missing


def _visibility(root: Path, count: int) -> dict[str, np.ndarray]:
    """Return {relative file: (N,) bool} of the visibility file; empty without that file."""
    file, flags = root / VISIBLE_FILE, {}
    if not file.exists():
        return flags
    for number, line in enumerate(read_lines(file), 1):
        name, _, text = line.partition("\t")
        text = re.sub(r"\s", "", text)
        if len(text) != count or set(text) - {"0", "1"}:
            raise UserError(f"{file}, line {number}: a file, a tab and {count} flags 0 or 1 belong here")
        flags[name] = np.array(list(text)) == "1"
    return flags


def parse_300w(archive: Archive, official: bool = True) -> list[str]:
    """Add train and test of 300W (Sagonas et al., 2016) as released, or in Peppa's folders (AFW/afw, HELEN/trainset, ...).

    Folder names are case-insensitive. official: return a line for each part with another number of faces than the release.
    """
    flags = _visibility(archive.root, archive.count)
    found, missing = _pairs(archive.root, PARTS_300W, archive.count)
    for name, pairs in found.items():
        part = PARTS_300W[name]
        for file, landmarks in pairs:
            identity = f"{name.split('/')[0]}/{photograph(file.stem)}"
            annotation = Annotation(landmarks, visible=flags.get(file.relative_to(archive.root).as_posix()))
            archive.add(part.split, file, part.subset, identity, annotation)
    return missing if official else []


def parse_300w_private(archive: Archive) -> list[str]:
    """Add test: the private test set of the 300W challenge, in the folder or, as in Peppa's tree, in its folder 300W."""
    found, missing = _pairs(archive.root, PRIVATE, archive.count)
    for name, pairs in found.items():
        subset = PRIVATE[name].subset
        for file, landmarks in pairs:
            archive.add("test", file, subset, f"{subset}/{file.stem}", Annotation(landmarks))
    return missing
