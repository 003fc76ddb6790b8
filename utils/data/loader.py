"""Training batches from loader processes, and what is said if they end or cannot send a batch."""

import errno
import os
import pickle
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import cv2
from torch.utils.data import DataLoader, Dataset, default_convert

from pipnet.errors import UserError

ENDED = "a loader process has ended, usually because memory or shared memory ran out; give a smaller --cache"
ROOM = 10  # files that a loader process opens for a batch, and to send another one
MOST_FILES = 2**16  # that are opened at a time, if the system allows so many
CAUSES = {  # text of an error: what it means
    "DataLoader worker .* (is killed by signal|exited unexpectedly)": ENDED,
    # ancdata: a file was sent, and this process cannot open one more
    "[Tt]oo many open files|ancdata": "the loader processes need more open files; allow more (ulimit -n 4096)",
    "shared memory": "shared memory (/dev/shm) has no room for the batches of the loader processes; "
    "docker run --shm-size=2g gives more",
}


class Loader(DataLoader):
    """A DataLoader that is closed like the loader of extras/gpu."""

    def close(self) -> None:
        """Do nothing: the loader processes end when the loader is no longer used."""


def train_loader(batches: Dataset, keys: Iterable, workers: int, pin: bool) -> Loader:
    """Return a loader of batches[key] for all keys in turn, made by `workers` processes (0: in this one)."""
    # forked workers share the decoded crops; other start methods would copy them
    start = "fork" if workers and sys.platform == "linux" else None
    if start:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, MOST_FILES), files))  # each tensor of a batch is a file
    return Loader(
        batches,
        sampler=keys,
        batch_size=None,
        num_workers=workers,
        collate_fn=_Sent if workers else None,
        pin_memory=pin,
        worker_init_fn=_begin_worker,
        multiprocessing_context=start,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
    )


def _begin_worker(_worker: int) -> None:
    cv2.setNumThreads(0)


class _Sent:
    """A batch of a loader process, pickled here: its tensors are in shared memory, and open files stand for them.

    torch would pickle it in a thread, whose errors do not reach the training: it would wait for ever.
    """

    def __init__(self, batch: Any):
        files = Path("/proc/self/fd")  # elsewhere than in Linux, tensors are sent without open files
        if files.is_dir() and len(os.listdir(files)) + ROOM > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.pickled = bytes(ForkingPickler.dumps(default_convert(batch)))

    def __reduce__(self):
        return pickle.loads, (self.pickled,)


@contextmanager
def explaining_errors(loader: Any, later: Callable[[], str]):
    """Raise UserError, with cause and remedy, if a loader process ends or raises one while the body runs.

    torch may raise its error at any line of the body. later(): the end of the message, for example how to resume.
    """
    try:
        yield
    except UserError as error:  # torch prepends the traceback in the loader process
        raise UserError(str(error).rpartition("pipnet.errors.UserError: ")[2].strip()) from None
    except (RuntimeError, OSError, EOFError) as error:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise for a second loader process too
        cause = next((cause for text, cause in CAUSES.items() if re.search(text, str(error))), None)
        if isinstance(error, (ConnectionError, EOFError)):
            cause = ENDED
        if not cause or not loader.num_workers or getattr(error, "filename", None):
            raise
        raise UserError(f"{cause}, or give fewer --workers (0 needs none){later()}") from None
