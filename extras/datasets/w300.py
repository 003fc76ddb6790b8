"""300W as released or in Peppa's folders, and its private test set."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from extras.datasets.archive import Archive, deviation
from extras.datasets.naming import photograph
from extras.datasets.points import paired


class Part(NamedTuple):
    """What the faces of an official subfolder of 300W are."""

    split: str
    subset: str


PARTS = {
    "afw": Part("train", "afw"),
    "helen/trainset": Part("train", "helen/trainset"),
    "lfpw/trainset": Part("train", "lfpw/trainset"),
    "helen/testset": Part("test", "common/helen"),
    "lfpw/testset": Part("test", "common/lfpw"),
    "ibug": Part("test", "challenge/ibug"),
}
PRIVATE = {"01_Indoor": Part("test", "indoor"), "02_Outdoor": Part("test", "outdoor")}


def _below(folder: Path | None, path: str) -> Path | None:
    """Return the folder of a path (lower case, / between levels) in any case below a folder, or None."""
    for level in path.split("/"):
        folder = folder and next((p for p in sorted(folder.iterdir()) if p.name.lower() == level and p.is_dir()), None)
    return folder


def _faces(
    archive: Archive, parts: dict[str, Part], top: str = ""
) -> tuple[list[tuple[str, Part, Path, np.ndarray]], list[str]]:
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
        if len(pairs) != (count := archive.expected[part.subset]):
            missing.append(deviation(name, len(pairs), count, bool(folder)))
    return faces, missing


def parse_300w(archive: Archive) -> list[str]:
    """Add train and test of 300W (Sagonas et al., 2016) as released, or in Peppa's folders (AFW/afw, HELEN/trainset,
    ...).

    Folder names are case-insensitive. Return a line for each part with another number of faces than the release.
    """
    faces, missing = _faces(archive, PARTS)
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
