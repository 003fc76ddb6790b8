"""Locks between processes on a folder that is being prepared. The system frees them when a process ends."""

import errno
import fcntl
import os
import re
import socket
from collections.abc import Callable
from contextlib import contextmanager, suppress
from io import FileIO
from itertools import takewhile
from pathlib import Path

from loguru import logger

from pipnet.errors import UserError
from pipnet.files import open_regular

LOCK = ".lock"
HELD = BlockingIOError, PermissionError  # the system's errors for a lock that another process holds
OWNER = re.compile(r"\d+ on \S{1,255}|")  # content of a lock file: process id and host, or nothing


@contextmanager
def waiting(file: Path, own: bool = False):
    """Hold the lock `file`; wait while another process does.

    own: its folder is made for the lock, and removed if it stays empty.
    """

    def take(handle: FileIO) -> None:
        if not _taken(handle):
            logger.info(f"waiting for process {_owner(handle)}, which prepares {file.parent}")
            fcntl.lockf(handle, fcntl.LOCK_EX)

    with _holding(file, "--data-root", take, {file.name}, own):
        yield


def is_free(file: Path) -> bool:
    """Return whether no process holds the existing lock `file`."""
    with _open(file) as handle:
        return _taken(handle)


def is_lock(file: Path) -> bool:
    """Return whether a file is a lock of this module: empty, or with the name of a process."""
    try:
        _open(file).close()
    except OSError:
        return False
    return True


@contextmanager
def _holding(file: Path, flags: str, take: Callable[[FileIO], None], empty: set[str], own: bool = False):
    """Hold `file`, which take(handle) locks.
    Make it and its folder if they are missing; remove them at the end if unused.

    empty: names of files; a folder that holds no others counts as unused.
    """
    folder, handle, made = file.parent, None, []
    try:
        made = [folder] * own or list(takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
        before = {path.name for path in folder.iterdir()} if folder.is_dir() and not own else set()
        while handle is None:
            folder.mkdir(parents=True, exist_ok=True)
            handle = _open(file)
            take(handle)
            if not file.exists() or not os.path.samestat(os.fstat(handle.fileno()), file.stat()):
                handle.close()  # its last holder has just removed it
                handle = None
        if owner := _text(handle):
            logger.info(f"process {owner} ended before it had finished {folder}")
        handle.truncate(0)
        os.pwrite(handle.fileno(), f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
    except OSError as error:
        _remove(made)
        raise UserError(
            f"{error.filename or file} cannot be written to ({error.strerror}); give another {flags}"
        ) from None
    with handle:
        try:
            yield
        finally:
            handle.truncate(0)
            left = {path.name for path in folder.iterdir()} if folder.is_dir() else None  # somebody has removed it
            if left is not None and left <= empty:  # the id is free again
                for name in left - before:
                    (folder / name).unlink()
                _remove(made)


def _remove(folders: list[Path]) -> None:
    """Remove folders, the innermost first, as long as they are empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _open(file: Path) -> FileIO:
    """Open a lock; make it if it is missing. OSError for a link, a pipe, or a file with another content."""
    handle = FileIO(open_regular(file, os.O_RDWR | os.O_CREAT), "r+")
    if OWNER.fullmatch(_text(handle)) is None:
        handle.close()
        raise OSError(errno.EEXIST, "it is no lock of this project", str(file))
    return handle


def _taken(handle: FileIO) -> bool:
    """Lock a file and return True, or False where another process holds it."""
    try:  # not flock: the loader processes of a killed run would hold it for some more seconds
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except HELD:
        return False
    return True


def _text(handle: FileIO) -> str:
    """Return the content of a lock: the process that holds it."""
    return os.pread(handle.fileno(), 300, 0).decode(errors="replace")


def _owner(handle: FileIO) -> str:
    return _text(handle) or "?"
