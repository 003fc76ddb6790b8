"""Folders of images with a .pts of the same stem."""

import os
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from extras.datasets.archive import Archive
from extras.datasets.naming import composed
from extras.shared.lists import walk
from extras.shared.pts import read_counted_pts
from pipnet.errors import UserError
from pipnet.images import SUFFIXES as IMAGES
from utils.data.table import archive_and_labels, complain

SEVERAL = "; a .pts file holds one face, so let --predict write the faces of such pictures as CSV or COCO"


def images_and_points(
    folder: Path, root: Path, recursive: bool, without: Collection[Path] = ()
) -> tuple[dict[str, list[Path]], dict[str, Path]]:
    """Return images and .pts below folder, each by stem path, without hidden files and what is in the folders `without`.

    Raise UserError when a link leaves root, and for two .pts of one stem.
    """
    images: dict[str, list[Path]] = {}
    points: dict[str, Path] = {}
    inside = os.path.realpath(root)
    for path, is_folder in walk(folder, recursive, without):
        suffix = path.suffix.lower()
        wanted = is_folder or suffix in (*IMAGES, ".pts")
        if wanted and os.path.commonpath([inside, os.path.realpath(path)]) != inside:
            raise UserError(f"{path}: a link that leaves {root}; copy its target into the folder")
        if is_folder and path.is_symlink():
            raise UserError(f"{path}: a link to a folder, which is not followed; copy its target into the folder")
        if not wanted or is_folder:
            continue
        if any(c in str(path) for c in "\t\n\r"):
            raise UserError(f"{str(path)!r}: a tab or line break in the name; rename the file")
        stem = composed(str(path.with_suffix("")))
        if suffix == ".pts":
            if (other := points.setdefault(stem, path)) != path:
                raise UserError(f"{path}: shares its image with {other.name}; remove one")
        else:
            images.setdefault(stem, []).append(path)
    return images, points


def paired(
    archive: Archive, folder: Path, recursive: bool, without: Collection[Path] = ()
) -> list[tuple[Path, np.ndarray]]:
    """Return (image, annotated landmarks), sorted by name. Raise UserError for files without their counterpart.

    without: folders of splits that are not read; files outside of these need no counterpart.
    """
    images, points = images_and_points(folder, archive.root, recursive, without)
    if without:
        both = images.keys() & points
        images, points = ({stem: found[stem] for stem in both} for found in (images, points))
    complain(
        [f"{paths[0]}: no {Path(stem).name}.pts beside it" for stem, paths in images.items() if stem not in points]
    )
    kinds = ", ".join(IMAGES)
    complain(
        [
            f"{path}: no image of the same stem ({kinds}) beside it"
            + (SEVERAL if re.sub(r"_\d+$", "", stem) in images else "")
            for stem, path in points.items()
            if stem not in images
        ]
    )
    complain([f"{two[1]}: shares its .pts with {two[0].name}; remove one" for two in images.values() if len(two) > 1])
    pairs = []
    for stem in sorted(images):
        with archive.checked():
            landmarks, first = read_counted_pts(points[stem], archive.count)
            pairs.append((images[stem][0], archive.counted(landmarks, first, str(points[stem]))))
    complain(archive.faults)
    return pairs


def parse_points(archive: Archive) -> None:
    """Add the faces of any folder of images with a .pts of the same stem, searched recursively.

    Folders train/, val/ and test/ are the splits, see `Archive.add_own`. The subset is the first folder below the split,
    else `all`.
    """
    root = archive.root
    tops = archive.split_folders
    if next(root.rglob("*.[pP][tT][sS]"), None) is None:
        raise UserError(f"{root}: {_no_pts(root)}")
    archive.splits += tops.values()
    for folder in tops if "train" in tops.values() else [*tops, root]:
        for file, landmarks in paired(archive, folder, recursive=True, without=() if folder in tops else tops):
            archive.add_own(None, file, landmarks)
    if tops:
        archive.outside += [
            path for path in archive.images.values() if path not in archive.faces and not archive.split_folder(path)
        ]
    if not len(archive):
        raise UserError(f"{root}: no image with a .pts of the same stem in it")


def _no_pts(root: Path) -> str:
    """Return why a folder has no faces: there are no .pts files, or it has a table in a place where none is looked for."""
    files = [path for path, is_folder in walk(root) if not is_folder]
    if packed := next((path for path in files if path.suffix.lower() == ".zip"), None):
        return f"no .pts in it, but {packed.relative_to(root)}; unpack it there, or give the ZIP itself: --dataset {packed}"
    if tables := [path for path in files if path.suffix.lower() in (".csv", ".json", ".xml")]:
        folders = [*map(str, dict.fromkeys(archive_and_labels(path)[0] for path in tables))]
        return (
            f"no .pts in it, but {tables[0].relative_to(root)}; a CSV, JSON or XML of labels belongs at the top, or in train/, "
            f"val/ and test/ there; give {'one of the folders' if folders[1:] else 'the folder'} {', '.join(folders[:3])}, "
            "without --dataset points"
        )
    return "no image with a .pts of the same stem in it, and no CSV, JSON of COCO or Label Studio, or XML of CVAT"
