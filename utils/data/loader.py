"""Training batches from loader processes, and error messages for loader processes that end or cannot send a batch."""

import errno
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from multiprocessing.queues import Queue
from typing import Any

import cv2
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from pipnet.errors import UserError
from utils.settings.start import end_with_parent, share_sockets

# a loader process that cannot send a batch exits with the number of the system's error, which also ends torch's
# messages
NUMBER = re.compile(r"\((\d+)\)\s*$")
FEW_FILES = re.compile(
    "[Tt]oo many open files|ancdata"
)  # ancdata: a file was sent, and this process cannot open one more
SHARED = (
    "shared memory (/dev/shm) has no room for the batches of the loader processes; docker run --shm-size=2g gives more"
)
CAUSES = {
    **dict.fromkeys((errno.ENOSPC, errno.ENOMEM, errno.EROFS, errno.EACCES, -signal.SIGBUS), SHARED),
    errno.EMFILE: "the loader processes need more open files; allow more (ulimit -n 4096)",
    -signal.SIGKILL: "a loader process was ended by SIGKILL (usually out of memory); give a smaller --cache",
}


class Loader(DataLoader):
    """A DataLoader that is closed like the loader of extras/gpu."""

    def close(self) -> None:
        """Do nothing: the loader processes end when the loader is no longer used."""


def train_loader(batches: Dataset, keys: Iterable, workers: int, pin: bool) -> Loader:
    """Return a loader of batches[key] for all keys in turn, made by `workers` processes (0: in this one)."""
    # forked workers share the decoded crops; other start methods would copy them
    start = "fork" if workers and sys.platform == "linux" else None
    if workers:
        share_sockets()
        # torch ends the processes that began by it also where the next one could not begin, and has not set it then
        half_made: Any = _MultiProcessingDataLoaderIter
        half_made._workers_status = defaultdict(bool)
    return Loader(
        batches,
        sampler=keys,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_begin_worker,
        multiprocessing_context=start,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
    )


def _begin_worker(_worker: int) -> None:
    end_with_parent()  # torch does not notice if the training ended before this process began to watch it
    cv2.setNumThreads(0)
    sys.excepthook = _in_a_thread
    # otherwise the thread that sends a batch prints the error and goes on, and the training waits for that batch for
    # ever
    queues: Any = Queue
    queues._on_queue_feeder_error = staticmethod(lambda error, _: _end(error))


def _in_a_thread(kind, error, traceback) -> None:
    """Print an exception of a thread, unless it says that the training has ended.
    End the process if no batch can be sent.
    """
    if isinstance(error, OSError) and error.errno in CAUSES:
        _end(error)
    if not isinstance(error, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, traceback)


def _end(error: Exception) -> None:
    """End this loader process. Its status is the number of the system's error; other errors are printed, with status 1."""
    number = getattr(error, "errno", None) or int((NUMBER.search(str(error)) or [0, 0])[1])
    if number not in CAUSES:
        number = (
            _file_error() or number
        )  # Python reports "no folder for temporary files" when no more files can be opened
    if number not in CAUSES:
        sys.__excepthook__(type(error), error, error.__traceback__)
    os._exit(number if number in CAUSES else 1)


def _file_error() -> int:
    """Return the number of the error if the system cannot open one more file, else 0."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno or 0
    return 0


@contextmanager
def explaining_errors(loader: Any, later: Callable[[], str]):
    """Raise UserError, with cause and remedy, if a loader process ends or raises one while the body runs.

    torch may raise its error at any line of the body. later(): the end of the message, for example how to resume.
    """
    try:
        if loader.num_workers:
            multiprocessing.Lock()  # fails early with one error; torch needs such locks too, and would print a second error
        yield
    except UserError as error:  # torch prepends the traceback in the loader process
        _forget()
        raise UserError(str(error).rpartition("pipnet.errors.UserError: ")[2].strip()) from None
    except (RuntimeError, OSError, EOFError) as error:
        _forget()
        status = _status(loader, error)
        if status not in CAUSES:
            raise
        raise UserError(f"{CAUSES[status]}, or give fewer --workers (0 needs none){later()}") from None


def _forget() -> None:
    """Reset torch's signal handler, so that it does not raise for a second loader process while the first error is
    handled.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _status(loader: DataLoader, error: Exception) -> int | None:
    """Return the key of CAUSES that explains an error in the training process: its own error, or the exit status of a
    loader.
    """
    if not loader.num_workers or getattr(error, "filename", None):
        return None
    if FEW_FILES.search(str(error)):
        return errno.EMFILE
    if (number := getattr(error, "errno", None)) in CAUSES:
        return number
    processes = getattr(getattr(loader, "_iterator", None), "_workers", ())
    for _ in range(20):  # a connection may break before the process has ended
        if ended := [process.exitcode for process in processes if process.exitcode]:
            return ended[0]
        time.sleep(0.1)
    return None
