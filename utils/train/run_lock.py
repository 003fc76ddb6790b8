"""Takes a run's folder for a command: a new folder or one that is continued, locked while the command works, with a log."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from loguru import logger

from pipnet.errors import UserError
from pipnet.files import is_partial, open_regular, read_bytes, remove_abandoned, set_aside
from utils.settings.yaml_files import read_yaml
from utils.train.run_folder import Run, is_run, next_id

LOCK, LOG = ".lock", "log.txt"
PATIENCE = 5  # seconds to wait for a lock; a process that was killed has ended by then
# files of a run that has not ended its first epoch; a folder with others is moved aside with --overwrite only
UNTRAINED = {LOCK, LOG, "args.yaml", "initialisation.csv", "events", "wandb.txt"}
EVENTS = "events/events.out.tfevents."
LINE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+ ")  # beginning of our log


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the system frees it when the process ends. UserError if another process holds it."""
    lock = FileLock(folder / LOCK, timeout=PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{folder} is in use by another process; wait for it, or give another --exp") from None
    except OSError as error:
        raise UserError(
            f"{folder / LOCK} cannot be locked ({error.strerror}); give another --exp or --run-root"
        ) from None
    try:
        yield
    finally:
        lock.release()


def check_new(folder: Path, overwrite: bool, kept: tuple[Path, ...] = ()) -> None:
    """Raise UserError if no run may begin in `folder`.

    It must be missing or empty, or hold nothing but a run that ended before its first checkpoint; with `overwrite` any
    run, see `_holds_run`. It must not contain one of the folders `kept`.
    """
    for place in kept:
        if place.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"--exp {folder} is or holds {place}; give an id, or a folder of the run's own")
    names = _names(folder) - {LOCK}
    if names and not _holds_run(folder):
        raise UserError(f"{folder} holds {min(names)} and no run; give an id, or a new or empty folder")
    if names and not (overwrite or _is_untrained(folder)):
        raise UserError(
            f"{folder} already holds a run; give --resume to go on, --overwrite to move it aside, or another --exp"
        )


@contextmanager
def hold(run: Run, new: bool = False, overwrite: bool = False, named: bool = True) -> Iterator[Run]:
    """Lock the folder of a run, make it if it is missing, and yield the run.

    new: a run begins, see `check_new`. An earlier run in the folder is moved aside. named: the user has
    named the folder; otherwise a new run takes the next id that is free. A new folder into which nothing but a log was
    written is removed at the end, and what was moved aside comes back.
    """
    with ExitStack() as locks:
        aside = None
        if new and named:
            check_new(run.folder, overwrite)
        try:
            if new and named and _names(run.folder) - {LOCK}:
                locks.enter_context(locked(run.folder))
                aside = set_aside(run.folder)
            made = [path for path in (run.folder, *run.folder.parents) if not path.exists()]
            if new and not named:
                run = _take_next(run)
                made = [run.folder, *made[1:]]
            run.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{error.filename} cannot be written to ({error.strerror}); give another --exp or --run-root"
            ) from None
        before = _names(run.folder)
        locks.enter_context(locked(run.folder))
        if new:
            check_new(run.folder, False)  # another process may have trained a run meanwhile
        _tidy(run.folder)
        if aside:
            logger.info(f"{run.folder} of an earlier run is moved to {aside}")
        try:
            yield run
        finally:
            left = _names(run.folder)
            if left <= {LOCK, LOG}:
                for name in left - before:
                    (run.folder / name).unlink()
                with suppress(OSError):
                    for path in made:
                        path.rmdir()
                if aside:
                    aside.rename(run.folder)


def _holds_run(folder: Path) -> bool:
    """Return whether a folder holds what only a run, an audit or a sweep of ours leaves.

    Other projects have files of the same names, such as args.yaml, best.pt and sweep.yaml.
    """
    if any(is_run(place) for place in (folder, folder / "round0", folder / "fold0")):
        return True
    with suppress(OSError, UserError):
        if read_yaml(folder / "sweep.yaml").keys() == {"sweep", "tests", "values"}:
            return True
    with suppress(OSError):  # a run that ended before it had settings
        return _names(folder) == {LOCK, LOG} and bool(LINE.match(read_bytes(folder / LOG)[:40]))
    return False


def _is_untrained(folder: Path) -> bool:
    """Return whether a run's folder holds nothing but what a run leaves that ended in its first epoch."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not is_partial(path)}
    return {name for name in names if not name.startswith(EVENTS)} <= UNTRAINED


def _names(folder: Path) -> set[str]:
    """Return the names of what a folder holds, none for a missing one."""
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _take_next(run: Run) -> Run:
    """Make the folder of the next free id, and return the run there."""
    root = run.folder.parent
    root.mkdir(parents=True, exist_ok=True)
    while True:
        folder = root / next_id(root)
        with suppress(FileExistsError):
            folder.mkdir()
            return run._replace(folder=folder, weights=folder / run.weights.name)


def _tidy(folder: Path) -> None:
    """Remove the half-written files and pages of a killed process from a run's folder.
    UserError if it holds a link to a folder.
    """
    remove_abandoned(folder)
    for path in folder.rglob("*"):
        if path.is_symlink() and path.is_dir():
            raise UserError(f"{path} is a link to a folder, and links in a run's folder are not followed; remove it")
        if is_partial(path) and not path.is_dir() and "predicted" not in path.parts:
            path.unlink()  # a prediction needs no lock


def log_to(file: Path):
    """Return a sink for the logger that appends to `file`. A line that cannot be written is dropped.

    If the disk is full, the next checkpoint reports it. UserError for a link, a pipe or a device, which could lead
    anywhere.
    """

    def opened() -> int:
        return open_regular(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(line: str) -> None:
        with suppress(OSError), open(opened(), "a", encoding="utf-8", errors="surrogateescape") as log:
            log.write(line)

    if os.path.lexists(file):
        try:
            os.close(opened())
        except OSError as error:
            raise UserError(
                f"{file} cannot be written to ({error.strerror}); remove it or give another --exp"
            ) from None
    return write
