"""Locks between processes: on a folder that is being prepared, and on a run's folder. The system frees them with the process."""
import fcntl
import os
import shutil
import socket
from contextlib import contextmanager
from pathlib import Path

from loguru import logger

from pipnet.errors import UserError

LOG = "log.txt"
HELD = BlockingIOError, PermissionError  # what the system says of a lock that another process holds


@contextmanager
def waiting(file: Path):
    """Hold `file`, after waiting until no other process does."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = open(file, "a+")
    except OSError as error:
        raise UserError(f"{file.parent} cannot be written to ({error.strerror}); give another --data-root") from None
    with handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except HELD:
            logger.info(f"waiting for {_owner(handle)}, which prepares {file.parent}")
            fcntl.lockf(handle, fcntl.LOCK_EX)
        _enter(handle)
        try:
            yield
        finally:
            handle.truncate(0)
            if [path.name for path in file.parent.iterdir()] == [file.name]:  # nothing was made
                shutil.rmtree(file.parent)


def is_free(file: Path) -> bool:
    """Return whether no process holds `file`."""
    with open(file, "a") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except HELD:
            return False
    return True


def _owner(handle) -> str:
    """Return which process has written its name into a lock."""
    handle.seek(0)
    return f"process {handle.read().strip() or '?'}"


def _enter(handle) -> None:
    """Write this process and its host into a lock that it holds. A name that is there is of a process that was killed."""
    if (owner := _owner(handle)) != "process ?":
        logger.info(f"{owner} ended before it was finished with {Path(handle.name).parent}")
    handle.truncate(0)
    os.write(handle.fileno(), f"{os.getpid()} on {socket.gethostname()}".encode())


@contextmanager
def lock(folder: Path):
    """Hold `folder`; make it if need be. UserError if another process holds it.

    Removes what a killed process left half written, and at the end a folder into which nothing but a log was written.
    """
    file, parent_is_new = folder / ".lock", not folder.parent.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(file, "a+")
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}); give another --exp or --run-root") from None
    with handle:
        try:
            # not flock: the loader processes of a killed run would hold it for some seconds more
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not file.exists() or not os.path.samestat(os.fstat(handle.fileno()), file.stat()):
                raise BlockingIOError  # the last holder has just removed the file that was opened here
            _enter(handle)
        except HELD:
            raise UserError(f"{folder} is in use by {_owner(handle)}; wait for it or give another --exp") from None
        except OSError as error:
            raise UserError(f"{folder} cannot be locked ({error.strerror}); give a --run-root on another file system") from None
        for partial in folder.rglob(".*.partial-*"):
            partial.unlink()
        try:
            yield
        finally:
            handle.truncate(0)
            if {path.name for path in folder.iterdir()} <= {file.name, LOG}:
                shutil.rmtree(folder)  # nothing was made: the id is free again
                if parent_is_new and not any(folder.parent.iterdir()):
                    folder.parent.rmdir()
