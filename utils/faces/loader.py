"""Batches of a training from loader processes, and the causes for which these end or cannot pass a batch on."""
import errno
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from multiprocessing.queues import Queue

import cv2
from torch.utils.data import DataLoader, Dataset

from pipnet.errors import UserError
from utils.start import end_with_parent

# the exit status of a loader process that cannot pass a batch on: the system's error, as torch's messages end with it too
NUMBER = re.compile(r"\((\d+)\)\s*$")
FEW_FILES = re.compile("[Tt]oo many open files|ancdata")  # a file that was sent is lost where no more can be opened
SHARED = "shared memory (/dev/shm) has no room for the batches of the loader processes; docker run --shm-size=2g gives more"
CAUSES = {
    **dict.fromkeys((errno.ENOSPC, errno.ENOMEM, errno.EROFS, errno.EACCES, -signal.SIGBUS), SHARED),
    errno.EMFILE: "the loader processes need more open files; allow more (ulimit -n 4096)",
    -signal.SIGKILL: "a loader process was ended by SIGKILL (usually out of memory); give a smaller --cache",
}


def train_loader(batches: Dataset, keys: Iterable, workers: int, pin: bool) -> DataLoader:
    """Return a loader of batches[key] for all keys in turn, made by `workers` processes (0: in this one)."""
    # forked workers share the decoded crops; other start methods would copy them
    start = "fork" if workers and sys.platform == "linux" else None
    return DataLoader(batches, sampler=keys, batch_size=None, num_workers=workers, pin_memory=pin, worker_init_fn=_begin_worker,
                      multiprocessing_context=start, persistent_workers=workers > 0, prefetch_factor=4 if workers else None)


def _begin_worker(_worker: int) -> None:
    end_with_parent()  # torch does not notice a training that ended before this process began to look for it
    cv2.setNumThreads(0)
    sys.excepthook = _in_a_thread
    # the thread that sends a batch would print the error and go on, and the training would wait for that batch for ever
    Queue._on_queue_feeder_error = staticmethod(lambda error, _: _end(error))


def _in_a_thread(kind, error, traceback) -> None:
    """Print an exception, but not that the training has ended before it took a batch. End where no batch can be sent."""
    if isinstance(error, OSError) and error.errno in CAUSES:
        _end(error)
    if not isinstance(error, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, traceback)


def _end(error: Exception) -> None:
    """End this loader process with the number of the system's error as its status, 1 for another error, which is printed."""
    number = getattr(error, "errno", None) or int((NUMBER.search(str(error)) or [0, 0])[1])
    if number not in CAUSES:
        number = _file_error() or number  # a search for a folder for temporary files says that there is none
    if number not in CAUSES:
        sys.__excepthook__(type(error), error, error.__traceback__)
    os._exit(number if number in CAUSES else 1)


def _file_error() -> int:
    """Return the number of the error with which the system refuses to open one more file, 0 if it does not."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno or 0
    return 0


@contextmanager
def explaining_errors(loader: DataLoader, later: Callable[[], str]):
    """Raise UserError, with cause and remedy, when in the body a loader process ends, or has raised one.

    torch raises its own errors at any line of the body. later(): what follows in the message, e.g. how to go on.
    """
    try:
        if loader.num_workers:
            multiprocessing.Lock()  # fails where torch, which needs such locks, would print an error of a half-made object too
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
    """Let the next loader process end without an error of torch in the middle of what is done about the first one."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _status(loader: DataLoader, error: Exception) -> int | None:
    """Return the key of CAUSES that an error in the training process comes from: its own, or that of a process that has ended."""
    if not loader.num_workers or getattr(error, "filename", None):
        return None
    if FEW_FILES.search(str(error)):
        return errno.EMFILE
    if getattr(error, "errno", None) in CAUSES:
        return error.errno
    processes = getattr(getattr(loader, "_iterator", None), "_workers", ())
    for _ in range(20):  # a connection may break before the process has ended
        if ended := [process.exitcode for process in processes if process.exitcode]:
            return ended[0]
        time.sleep(0.1)
    return None
