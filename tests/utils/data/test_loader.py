"""Loader processes: how they end, and what a training says that cannot go on without them."""

import errno
import gc
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from pipnet.errors import UserError
from utils.data.loader import explaining_errors, train_loader


@pytest.fixture(autouse=True)
def _torch(monkeypatch):
    """Let torch look after its processes every 0.2 s, not 5; give its handler of ended processes back, which it sets
    once.
    """
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
    before = signal.getsignal(signal.SIGCHLD)
    yield
    if before is not signal.SIG_DFL:
        signal.signal(signal.SIGCHLD, before)


class Faces(torch.utils.data.Dataset):
    """Its samples do something in the loader process: call `action`, or carry it as something that cannot be sent."""

    def __init__(self, action, sent: bool = False):
        self.action, self.sent = action, sent

    def __getitem__(self, index):
        return Unsendable(self.action) if self.sent else self.action() or index


class Unsendable:
    """An object that cannot be pickled because of an error."""

    def __init__(self, action):
        self.action = action

    def __reduce__(self):
        self.action()


def report() -> None:
    for error in (BrokenPipeError(), EOFError(), RuntimeError("something else")):
        sys.excepthook(type(error), error, None)  # as a thread of multiprocessing does


def raises(error: Exception):
    def action():
        raise error

    return action


@pytest.mark.slow
def test_a_loader_process_is_silent_about_a_training_that_has_ended(capfd):
    assert list(train_loader(Faces(report), [0], 1, False)) == [0]
    assert capfd.readouterr().err.strip() == "RuntimeError: something else"


ENDING = """
import os, threading, time
from torch.utils.data._utils.worker import ManagerWatchdog
from utils.data.loader import train_loader
{}
threading.Timer(1, os._exit, [0]).start()
list(train_loader([0], [0], 1, False))
"""
LATE_WATCH = """
begin = ManagerWatchdog.__init__
ManagerWatchdog.__init__ = lambda watch: time.sleep(2) or begin(watch)"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "late",
    ("os.register_at_fork(after_in_child=lambda: time.sleep(2))", LATE_WATCH),
    ids=("at the fork", "before torch watches over the training"),
)
def test_a_loader_process_ends_with_a_training_that_ends_while_it_begins(late):
    script = ENDING.format(late)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=60
    )  # waits for both processes
    assert done.returncode == 0 and not done.stderr


FULL = RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")
FEW = RuntimeError("unable to open shared memory object </torch_1> in read-write mode: Too many open files (24)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faces", "message"),
    [
        (Faces(raises(FULL), True), "/dev/shm.*--shm-size=2g.*--workers .*; later"),
        (Faces(raises(OSError(errno.EMFILE, "few")), True), "more open files; allow more .ulimit -n"),
        (Faces(raises(FEW), True), "more open files; allow more .ulimit -n"),
        (Faces(lambda: os.kill(os.getpid(), signal.SIGBUS)), "/dev/shm.*--shm-size=2g"),
        (Faces(lambda: os.kill(os.getpid(), signal.SIGKILL)), "ended by SIGKILL .*--cache.*--workers"),
        (Faces(raises(UserError("b.jpg: the image is cut short"))), "^b.jpg: the image is cut short$"),
    ],
)
def test_a_training_that_gets_no_batch_says_why(faces, message, capfd):
    loader = train_loader(faces, [0], 1, False)
    with pytest.raises(UserError, match=message) as caught, explaining_errors(loader, lambda: "; later"):
        list(loader)
    assert "\n" not in str(caught.value) and "Traceback" not in capfd.readouterr().err


def test_other_errors_stay_as_they_are(capfd):
    for faces in (Faces(raises(ValueError("b"))), Faces(raises(ValueError("b")), True)):
        loader = train_loader(faces, [0], 1, False)
        with pytest.raises((ValueError, RuntimeError)), explaining_errors(loader, str):
            list(loader)
    assert "ValueError: b" in capfd.readouterr().err, "what a thread meets is printed"


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
@pytest.mark.parametrize(("limit", "message"), [("memory", "--shm-size"), ("files", "ulimit -n")])
def test_a_small_shared_memory_and_few_open_files_end_a_training(limit, message):
    command = [sys.executable, "-c", SCRIPT, limit]
    if limit == "memory":
        mounted = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=5m tmpfs /dev/shm && exec "$@"', "sh"]
        if subprocess.run([*mounted, "true"], capture_output=True).returncode:
            pytest.skip("no right to mount")
        command = [*mounted, *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode and message in done.stderr.splitlines()[-1], done.stderr


def test_processes_that_cannot_all_begin_leave_no_traceback(monkeypatch):
    lost: list = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)  # what Python prints of a destructor
    begun = multiprocessing.context.ForkProcess.start

    def start(process) -> None:
        if process._identity[-1] % 2 == 0:
            raise OSError(errno.EMFILE, "Too many open files")
        begun(process)

    monkeypatch.setattr(multiprocessing.context.ForkProcess, "start", start)
    loader = train_loader(Faces(int), range(4), 2, False)
    with pytest.raises(UserError, match="ulimit -n"), explaining_errors(loader, str):
        next(iter(loader))
    gc.collect()
    assert not lost
