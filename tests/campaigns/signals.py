"""Ctrl-C and SIGTERM at random moments: `python tests/campaigns signals --count 200`.
One line, and all end within 10 s.

A case is a command, a signal, whether it goes to one process or as from a terminal to its group, and a share of the
command's time, from the moment on in which main.py has begun. Afterwards no process of its group may be left.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from victims import ROOT, TINY, Case, Victim, divided, fresh, restore, trained

SECONDS = 10
PLACES = "--data-root {root}/data --run-root {root}/runs --exp run --overwrite "
TRAIN = f"main.py --train {PLACES} {shlex.join(TINY)} --workers 1 --epochs 3"
KINDS = {  # name: (command, share of the cases, whether it begins without the prepared set)
    "imports": (f"python {TRAIN}", 3, False),
    "preparation": (TRAIN, 3, True),
    "training": (TRAIN, 5, False),
    "test and export": (f"main.py --test --test-onnx {PLACES.replace('--overwrite', '')} --threads 1", 2, False),
    "detector": (
        f"main.py --train {PLACES} --task detect --dataset synthetic --synthetic-train 12 --synthetic-test 3 "
        "--target-size 64 --weights none --threads 1 --crops 6 --batch-size 2 --input-size 128 --epochs 2",
        2,
        False,
    ),
    "demo": ("demo.py --source assets/faces.jpg --json {root}/faces.json --threads 1", 2, False),
    "two processes": (f"bash main.sh 2 {TRAIN.removeprefix('main.py ')}", 3, False),
    "sweep": (f"main.py --sweep num_nb=3,5 {TRAIN.removeprefix('main.py ')}", 2, False),
}
COUNT = 200
SIGNALS = {
    "Ctrl-C": (signal.SIGINT, True),
    "SIGINT": (signal.SIGINT, False),
    "SIGTERM": (signal.SIGTERM, False),
    "SIGTERM to all": (signal.SIGTERM, True),
}


class Shell:
    """A command as a shell starts it, with the interface of a Victim."""

    def __init__(self, argv: list[str], output: Path):
        argv = [sys.executable if word == "python" else word for word in argv]
        self.error = open(f"{output}.err", "w")
        self.process = subprocess.Popen(
            argv,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=self.error,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def status(self) -> int | None:
        """Return the exit status, None while it runs."""
        return self.process.poll()


class Fork(Victim):
    """A forked command."""

    def status(self) -> int | None:
        """Return the exit status, None while it runs."""
        return self.process.exitcode


def begin(command: str, root: Path) -> Shell | Fork:
    """Start a command and return when it answers signals."""
    argv = shlex.split(command.format(root=root))
    begun = Fork(argv, root / "output") if argv[0].endswith(".py") else Shell(argv, root / "output")
    while begun.status() is None:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            status = Path(f"/proc/{begun.process.pid}/status").read_text()
            caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
            if caught >> signal.SIGTERM - 1 & 1 and os.getpgid(begun.process.pid) == begun.process.pid:
                break
        time.sleep(0.01)
    return begun


def left(group: int) -> bool:
    """Return whether a process of the group lives."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            state, _parent, of, *_ = file.read_text().rpartition(")")[2].split()
            if int(of) == group and state != "Z":
                return True
    return False


def wait(begun: Shell | Fork, seconds: float) -> float:
    """Wait until no process of the group is left; return the seconds that it took."""
    start = time.monotonic()
    while (begun.status() is None or left(begun.process.pid)) and time.monotonic() - start < seconds:
        time.sleep(0.02)
    return time.monotonic() - start


def attack(name: str, kind: str, share: float, seconds: float, root: Path) -> tuple[float, list[str]] | None:
    """Send a signal after a share of the command's seconds. Return (seconds it took, faults); None if it ended before."""
    number, group = SIGNALS[kind]
    begun = begin(KINDS[name][0], root)
    time.sleep(share * seconds)
    if begun.status() is not None:
        wait(begun, 30)
        return None
    try:
        (os.killpg if group else os.kill)(begun.process.pid, number)
    except ProcessLookupError:
        return None
    took = wait(begun, 60)
    status, faults = begun.status(), []
    if left(begun.process.pid):
        os.killpg(begun.process.pid, signal.SIGKILL)
        faults.append(f"processes are left after {took:.0f} s")
    text = (root / "output.err").read_text(errors="replace").replace("\r", "\n")
    said = [line for line in text.splitlines() if line.startswith("stopped")]
    if status == 0 and not said:
        return None  # it was finished
    if took > SECONDS:
        faults.append(f"took {took:.1f} s")
    if status != 128 + number:
        faults.append(f"status {status}")
    if "Traceback" in text or "Exception" in text or len(said) != 1:
        faults.append(f"{len(said)} lines; {text[-1500:]}")
    return took, faults


def cases(args: Namespace, names: list[str], root: Path, _figures: dict) -> Iterator[Case]:
    trained(TRAIN, root)
    rng = np.random.default_rng(args.seed)
    for name, count in divided(args.count, {name: KINDS[name][1] for name in names}).items():
        command, _, unprepared = KINDS[name]
        seconds = None
        for _ in range(count + 1):
            restore(root)
            if unprepared:
                fresh(root / "data")
            if seconds is None:  # undisturbed, for its time
                seconds = wait(begin(command, root), 600)
                continue
            kind, share = str(rng.choice(list(SIGNALS))), float(rng.random())
            if done := attack(name, kind, share, seconds, root):
                took, wrong = done
                yield Case(f"{name}, {kind}", wrong, what={"share": share}, seconds=took)
