"""Folders that are written once: each is made under a temporary name beside its place, and renamed when it is complete."""

import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loguru import logger

from pipnet.errors import UserError
from pipnet.files import partial_name, set_aside, sync

TEMPORARY = re.compile(r"\.(\d+)@([\w.-]+)\.partial-[0-9a-f]+")  # process and host
ASIDE = re.compile(r"-[0-9a-f]{8}-\d{8}-\d{6}(-\d{1,3})?$")  # end of the name of a set that `set_aside` has moved
DAY = 24 * 3600  # seconds


@contextmanager
def new_folder(target: Path, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `target`, and rename it to `target` after the body.

    If another process has made `target` meanwhile, this one's folder is dropped. replace: move an existing `target` aside
    instead. After an exception in the body nothing is left. UserError if nothing can be written there.
    """
    folder = partial_name(target.with_name(f"{os.getpid()}@{socket.gethostname()}"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent)
        folder.mkdir()
    except OSError as error:
        raise UserError(f"{error.filename or target}: {error.strerror or error}; give another --data-root") from None
    try:
        yield folder
        _finish(folder, target, replace)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _finish(folder: Path, target: Path, replace: bool) -> None:
    """Flush a new folder to the disk and rename it to `target`."""
    for path in (*folder.rglob("*"), folder):
        sync(path)
    if replace and target.exists():
        logger.info(f"the earlier {target} is kept as {set_aside(target)}")
    try:
        folder.rename(target)
        sync(target.parent)
    except OSError:
        if not target.is_dir():
            raise


def remove_abandoned(parent: Path) -> None:
    """Remove what killed processes have left of their new folders in `parent`.

    A folder is left if its process was of this host and has ended, or if nothing in it was written for a day.
    """
    for folder in parent.glob(".*.partial-*"):
        owner = TEMPORARY.fullmatch(folder.name)
        if owner and folder.is_dir() and not folder.is_symlink() and _is_abandoned(folder, int(owner[1]), owner[2]):
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path, process: int, host: str) -> bool:
    if host == socket.gethostname():
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass
    written = 0.0
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):  # its process goes on
            written = max(written, path.lstat().st_mtime)
    return time.time() - written > DAY
