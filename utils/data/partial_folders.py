"""Folders .<name>.partial, in which data is made before it is moved to <name>. Foreign files are never touched."""

import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

from loguru import logger

from pipnet.errors import UserError
from pipnet.files import sync
from utils.data.locks import LOCK, is_free, is_lock, waiting
from utils.settings.yaml_files import read_yaml

SPLITS = ("train", "val", "test", "unlabelled")  # of a prepared set
NEW_SET, OLD, FACES = (
    "set",
    "old",
    "faces",
)  # folders: the new set; the set that it replaces, during the move; rendered faces
OURS = (
    r"({splits})/(({columns})\.npy|crops\.jpegs|text\.utf8)|({splits})\.(done|tsv)|crops/({splits})/\d{{6,}}\.jpg|"
    r"(meanface|left_out)\.txt|meta\.yaml|key|show/\.?(samples|suspects)\.(jpg|csv)(\.partial-[0-9a-f]+)?"
)  # with format 2
RENDERED = re.compile(r"visible\.tsv|(\w+/){1,2}face\d+\.(jpg|pts)")
META = {"dataset", "source", "protocol", "margin", "target_size"}  # keys of every meta.yaml


def _set_files(columns: str) -> re.Pattern:
    """Return a regular expression for the files of a prepared set. columns: one for the names of its columns."""
    return re.compile(OURS.format(splits="|".join(SPLITS), columns=columns))


PARTS = {NEW_SET: (SET := _set_files("[a-z_.]+")), OLD: SET, FACES: RENDERED}


@contextmanager
def partial_folder(target: Path):
    """Lock and yield the folder beside `target` in which it is made. UserError if foreign files have that name."""
    partial = target.with_name(f".{target.name}.partial")
    if os.path.lexists(partial) and (partial.is_symlink() or not partial.is_dir() or _foreign_part(partial)):
        raise UserError(f"{partial}, where {target.name} is made, holds files of others; move it away")
    with waiting(partial / LOCK, own=True):
        yield partial


def check_replaceable(target: Path, source: Path | None = None, overwrite: bool = False) -> None:
    """Raise UserError if `target` may not be replaced by the set prepared from `source`.

    An older prepared set may be replaced if it can be made again. overwrite: also if its raw folder is gone.
    """
    if target.is_symlink():
        raise UserError(f"{target} is a link; remove it or give another name")
    if not target.exists():
        return
    meta = read_yaml(target / "meta.yaml") if (target / "meta.yaml").is_file() else {}
    if not META <= meta.keys():
        raise UserError(f"{target} exists and is not a prepared set; move it away or give another name")
    columns = "|".join(
        re.escape(str(name)) for name in meta.get("columns") or ["none"]
    )  # a user may keep other arrays beside
    if other := _foreign(target, _set_files(columns)):
        raise UserError(f"{target} would be replaced, but {other} is no file of a prepared set; move it away")
    if source and (old := str(meta["source"])) != str(source.resolve()):
        if not (overwrite or os.path.exists(old)):
            raise UserError(
                f"{target} was prepared from {old}, which is gone; give --overwrite to replace it, or another "
                "--data-root"
            )
        logger.warning(f"{target} was prepared from {old} and is replaced")


def replace_folder(partial: Path, target: Path) -> None:
    """Move the finished folder into place. The older set stays there until then."""
    if target.exists():
        check_replaceable(target)  # it may have changed while the set was made
        os.replace(target, partial / OLD)
    os.replace(partial / NEW_SET, target)
    sync(target.parent)
    shutil.rmtree(partial / OLD, ignore_errors=True)


def remove_abandoned(root: Path) -> None:
    """Remove the files of killed processes below `root`.

    Keep preparations that can continue; restore a set that was moved away.
    """
    for left in root.glob(".*.partial"):
        if left.is_symlink() or not _is_lock(left / LOCK) or _foreign_part(left) or not is_free(left / LOCK):
            continue
        target = root / left.name.removeprefix(".").removesuffix(".partial")
        if (left / OLD).is_dir() and not target.exists():
            os.replace(left / OLD, target)
        if not (left / NEW_SET / "key").is_file():
            shutil.rmtree(left)


def _is_lock(file: Path) -> bool:
    """Return whether `file` is a lock that a process has held, or that has other files beside it."""
    return file.is_file() and is_lock(file) and (file.stat().st_size > 0 or len(os.listdir(file.parent)) > 1)


def _foreign_part(partial: Path) -> Path | None:
    """Return a foreign file in a folder in which data is made, None without one."""
    for path in partial.iterdir():
        if path.name == LOCK and is_lock(path):
            continue
        if path.name not in PARTS or path.is_symlink() or not path.is_dir():
            return path
        if found := _foreign(path, PARTS[path.name]):
            return found
    return None


def _foreign(folder: Path | str, names: re.Pattern, below: str = "") -> Path | None:
    """Return a link, or a file whose path below `folder` is none of `names`, None if there is none."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:  # another process works there, and has moved it
        return None
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if found := _foreign(entry.path, names, f"{below}{entry.name}/"):
                return found
        elif entry.is_symlink() or not names.fullmatch(below + entry.name):
            return Path(entry.path)
    return None
