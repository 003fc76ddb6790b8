"""Checks whether a run's folder may be trained in, and holds its lock and its log while a process works there."""

import os
import shutil
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from loguru import logger

from pipnet.errors import UserError
from pipnet.files import open_regular, write_atomic
from utils.data.locks import LOCK, LOG, InUse, lock
from utils.train.ranks import variable
from utils.train.run_folder import Run, next_id


def continue_after_restart(mode: Namespace, run: Run) -> None:
    """Set `resume` or `overwrite` if torchrun has restarted this process.
    UserError if the run has no name to be found by.
    """
    if variable("TORCHELASTIC_MAX_RESTARTS", 0) and not mode.exp:
        raise UserError("MAX_RESTARTS needs --exp, by which a restarted training finds its run")
    if variable("TORCHELASTIC_RESTART_COUNT", 0):
        mode.resume = run.last.is_file()
        mode.overwrite = not mode.resume


def check_free(run: Run, resume: bool, overwrite: bool) -> None:
    """Raise UserError if a training would destroy another run, or has nothing to resume."""
    if resume and not run.last.is_file():
        raise UserError(f"{run.folder} has no last.pt to resume; train without --resume")
    if not resume and not overwrite and (run.last.is_file() or run.weights.is_file()):
        raise UserError(
            f"{run.folder} already holds a run; give --resume to go on, --overwrite to replace it, or another --exp"
        )


@contextmanager
def hold(run: Run, new: bool = False) -> Iterator[Run]:
    """Lock the folder of a run and yield the run. InUse if another process holds a folder that the user has named.

    If the user has named none, the next free folder is taken: the next id for a `new` training, a numbered folder for
    the results of a single file.
    """
    for place in _places(run, new):
        with ExitStack() as held:
            try:
                held.enter_context(lock(place.folder))
                if new and {path.name for path in place.folder.iterdir()} - {LOCK, LOG}:
                    raise InUse(f"{place.folder} was trained in meanwhile")
            except InUse:
                if not (new or run.alone):
                    raise
                continue
            if place != run:
                logger.info(f"{run.folder} is in use by another process; this one takes {place.folder}")
            yield place
            return


def _places(run: Run, new: bool) -> Iterator[Run]:
    """Yield the run with its own folder, then with each further folder that it may take instead."""
    yield run
    for number in count(2):
        root = run.folder.parent
        folder = root / (next_id(root) if new else f"{run.folder.name}-{number}")
        yield run._replace(folder=folder, weights=folder / run.weights.name if new else run.weights)


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
            descriptor = opened()
            links = os.fstat(descriptor).st_nlink
            os.close(descriptor)
        except OSError as error:
            raise UserError(
                f"{file} cannot be written to ({error.strerror}); remove it or give another --exp"
            ) from None
        if links > 1:  # another name of the file may lie outside of the run, or in a copy that was made with hard links
            write_atomic(file, lambda path: shutil.copyfile(file, path))

    return write
