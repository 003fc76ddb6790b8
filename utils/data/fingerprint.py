"""Checksums that tell whether a raw archive, or what was read from it, has changed."""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipnet.files import walk
from utils.data.table import Splits, Table, image_of


def fingerprint(source: Path) -> str:
    """Return a sha256 over names, sizes and times of all files below `source`, and below folders that it links to.

    Of a linked file it takes the size and time of the file itself. It needs little time, because no file is read, and
    it changes when the archive changes.
    """
    digest = hashlib.sha256()
    linked = sorted(path for path in source.iterdir() if path.is_symlink() and path.is_dir())
    for top in (source, *linked):
        for folder, folders, names in walk(top):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                with suppress(OSError):  # it has vanished since it was listed, or is a broken link
                    state = os.stat(path)
                    line = f"{os.path.relpath(path, source)}\0{state.st_size}\0{state.st_mtime_ns}\0"
                    digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def contents_checksum(splits: Splits) -> str:
    """Return a sha256 over crops, boxes, poses and states of the faces to train and validate on, ordered by name."""
    digest = hashlib.sha256()
    for name, table, row in _by_name([table for split, table in splits.items() if split != "test"]):
        digest.update(f"{name}\0".encode(errors="surrogateescape"))
        for column in ("crop", "box", "pose", "states"):
            digest.update(table[column][row].tobytes() if column in table else b"")
    return digest.hexdigest()


def labels_checksum(source: Path, splits: Splits) -> str:
    """Return a sha256 over names, image sizes in bytes, landmarks and visibility, ordered by name."""
    digest = hashlib.sha256()
    for name, table, row in _by_name(splits.values()):
        image = image_of(source, name)
        size = (image if image.is_file() else image.parent).stat().st_size  # a frame's is that of its video
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape") + table["landmarks"][row].tobytes())
        digest.update(table["visible"][row].tobytes() if "visible" in table else b"")
    return digest.hexdigest()


def _by_name(tables: Iterable[Table]) -> list[tuple[str, Table, int]]:
    """Return (name, its table, its row) of all faces, ordered by name."""
    return sorted(
        ((name, table, row) for table in tables for row, name in enumerate(table["file"])), key=lambda face: face[0]
    )
