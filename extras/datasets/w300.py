"""300W as released or in Peppa's folders, and its private test set."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from extras.datasets.archive import Archive, deviation
from extras.datasets.naming import photograph
from extras.datasets.points import paired


class Subset(NamedTuple):
    """An official subfolder of 300W."""

    split: str
    subset: str
    count: int  # faces in the official release


PARTS_300W = {
    "afw": Subset("train", "afw", 337),
    "helen/trainset": Subset("train", "helen/trainset", 2000),
    "lfpw/trainset": Subset("train", "lfpw/trainset", 811),
    "helen/testset": Subset("test", "common/helen", 330),
    "lfpw/testset": Subset("test", "common/lfpw", 224),
    "ibug": Subset("test", "challenge/ibug", 135),
}
PRIVATE = {"01_Indoor": Subset("test", "indoor", 300), "02_Outdoor": Subset("test", "outdoor", 300)}


def _below(folder: Path | None, path: str) -> Path | None:
    """Return the folder of a path (lower case, / between levels) in any case below a folder, or None."""
    for level in path.split("/"):
        folder = folder and next((p for p in sorted(folder.iterdir()) if p.name.lower() == level and p.is_dir()), None)
    return folder


def _faces(
    archive: Archive, parts: dict[str, Subset], top: str = ""
) -> tuple[list[tuple[str, Subset, Path, np.ndarray]], list[str]]:
    """Return (name of the part, part, image, landmarks) of all faces, and a line for each part with another number of
    faces.

    A part is below its path in the folder or once more below `top`, by default the first folder of the path.
    """
    faces, missing = [], []
    for name, part in parts.items():
        path = name.lower()
        folder = _below(archive.root, f"{top or path.split('/')[0]}/{path}") or _below(archive.root, path)
        pairs = paired(archive, folder, recursive=False) if folder else []
        faces += [(name, part, *pair) for pair in pairs]
        if len(pairs) != part.count:
            missing.append(deviation(name, len(pairs), part.count, bool(folder)))
    return faces, missing


def parse_300w(archive: Archive) -> list[str]:
    """Add train and test of 300W (Sagonas et al., 2016) as released, or in Peppa's folders (AFW/afw, HELEN/trainset,
    ...).

    Folder names are case-insensitive. Return a line for each part with another number of faces than the release.
    """
    faces, missing = _faces(archive, PARTS_300W)
    for name, part, image, landmarks in faces:
        identity = f"{name.split('/')[0]}/{photograph(image.stem)}"
        archive.add(part.split, image, part.subset, identity, landmarks)
    return missing


def parse_300w_private(archive: Archive) -> list[str]:
    """Add test: the private test set of the 300W challenge, in the folder or, as in Peppa's tree, in its folder 300W."""
    faces, missing = _faces(archive, PRIVATE, top="300w")
    for _, part, image, landmarks in faces:
        archive.add(part.split, image, part.subset, f"{part.subset}/{image.stem}", landmarks)
    return missing
