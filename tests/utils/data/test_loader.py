"""Loader processes: how they end, and what a training says that cannot go on without them."""

import errno
import os
import signal
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from pipnet.errors import UserError
from utils.data.loader import explaining_errors, train_loader


@pytest.fixture(autouse=True)
def _torch(monkeypatch):
    """Let torch set its handler of ended processes, which it does once, and give the earlier one back."""
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, "_SIGCHLD_handler_set", False)
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


class Faces(torch.utils.data.Dataset):
    """Its samples do something in the loader process."""

    def __init__(self, action):
        self.action = action

    def __getitem__(self, index):
        return self.action() or index


def raises(error: Exception):
    def action():
        raise error

    return action


FULL = RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")
FEW = RuntimeError("unable to open shared memory object </torch_1> in read-write mode: Too many open files (24)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faces", "message"),
    [
        (Faces(raises(FULL)), "/dev/shm.*--shm-size=2g.*--workers .*; later"),
        (Faces(raises(OSError(errno.EMFILE, "Too many open files"))), "more open files; allow more .ulimit -n"),
        (Faces(raises(FEW)), "more open files; allow more .ulimit -n"),
        (Faces(lambda: os.kill(os.getpid(), signal.SIGBUS)), "has ended.*shared memory"),
        (Faces(lambda: os.kill(os.getpid(), signal.SIGKILL)), "has ended.* memory.*--cache.*--workers"),
        (Faces(raises(UserError("b.jpg: the image is cut short"))), "^b.jpg: the image is cut short$"),
    ],
)
def test_a_training_that_gets_no_batch_says_why(faces, message, capfd):
    loader = train_loader(faces, [0], 1, False)
    with pytest.raises(UserError, match=message) as caught, explaining_errors(loader, lambda: "; later"):
        list(loader)
    assert "\n" not in str(caught.value) and "Traceback" not in capfd.readouterr().err


def test_other_errors_stay_as_they_are():
    loader = train_loader(Faces(raises(ValueError("b"))), [0], 1, False)
    with pytest.raises(ValueError, match="b"), explaining_errors(loader, str):
        list(loader)


SCRIPT = f"""
import os, resource, sys, torch
sys.path.insert(0, {str(ROOT)!r})
from utils.data.loader import explaining_errors, train_loader
if sys.argv[1] == "files":
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/proc/self/fd')) + 12,) * 2)
loader = train_loader([torch.zeros(1 << 20)] * 9, range(9), 2, False)
with explaining_errors(loader, str):
    print(len(list(loader)))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize(
    ("limit", "message"), [("memory", "shared memory"), ("files", "the loader processes need more open files")]
)
def test_a_small_shared_memory_and_few_open_files_end_a_training(limit, message):
    command = [sys.executable, "-c", SCRIPT, limit]
    if limit == "memory":
        mounted = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=5m tmpfs /dev/shm && exec "$@"', "sh"]
        if subprocess.run([*mounted, "true"], capture_output=True).returncode:
            pytest.skip("no right to mount")
        command = [*mounted, *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and f"UserError: {message}" in done.stderr, done.stderr
