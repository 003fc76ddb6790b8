"""Locks between processes: on a folder that is being prepared, and on a run's folder. The system frees them with the process."""
import fcntl
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from pipnet.errors import UserError

LOG = "log.txt"


@contextmanager
def waiting(file: Path):
    """Hold `file`, after waiting until no other process does."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = open(file, "a+")
    except OSError as error:
        raise UserError(f"{file.parent} cannot be written to ({error.strerror}); give another --data-root") from None
    with handle:
        fcntl.lockf(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if [path.name for path in file.parent.iterdir()] == [file.name]:  # nothing was made
                shutil.rmtree(file.parent)


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
        except OSError:
            handle.seek(0)
            owner = handle.read().strip() or "?"
            raise UserError(f"{folder} is in use by process {owner}; wait for it or give another --exp") from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        for partial in folder.glob(".*.partial-*"):
            partial.unlink()
        try:
            yield
        finally:
            if {path.name for path in folder.iterdir()} <= {file.name, LOG}:
                shutil.rmtree(folder)  # nothing was made: the id is free again
                if parent_is_new and not any(folder.parent.iterdir()):
                    folder.parent.rmdir()
