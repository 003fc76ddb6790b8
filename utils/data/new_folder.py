"""Folders that are written once: each is made under a temporary name beside its place, and renamed when it is complete."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loguru import logger

from pipnet.errors import UserError
from pipnet.files import partial_folder, remove_abandoned, set_aside, sync

ASIDE = re.compile(r"-[0-9a-f]{8}-\d{8}-\d{6}(-\d{1,3})?$")  # end of the name of a set that `set_aside` has moved


@contextmanager
def new_folder(target: Path, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `target`, and rename it to `target` after the body.

    If another process has made `target` meanwhile, this one's folder is dropped. replace: move an existing `target` aside
    instead. After an exception in the body nothing is left. UserError if nothing can be written there.
    """
    folder = partial_folder(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent)
        folder.mkdir()
    except OSError as error:
        raise UserError(f"{error.filename or target}: {error.strerror or error}; give another --data-root") from None
    try:
        yield folder
        _finish(folder, target, replace)
    except OSError as error:
        error.filename = error.filename or str(target)  # of a full disk, which names no file
        raise
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
