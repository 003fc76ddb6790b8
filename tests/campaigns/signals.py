"""Ctrl-C and SIGTERM at random moments: `python tests/campaigns signals --count 200`.
One line, and all end within 10 s.

A case is a command, a signal, whether it goes to one process or as from a terminal to its group, and a share of the
command's time, from the moment on in which main.py has begun. Afterwards no process of its group may be left.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
from victims import ROOT, TINY, Victim, chosen, finish, fresh, histogram

SECONDS = 10
PLACES = "--data-root {root}/data --run-root {root}/runs --exp run --overwrite "
TRAIN = f"main.py --train {PLACES} {shlex.join(TINY)} --workers 1 --epochs 3"
COMMANDS = {  # name: (command, share of the cases, whether it begins without the prepared set)
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


def attack(name: str, kind: str, share: float, seconds: float, root: Path) -> tuple[dict, list[str]] | None:
    """Send a signal after a share of the command's seconds. Return (figures, faults); None if it ended before."""
    number, group = SIGNALS[kind]
    begun = begin(COMMANDS[name][0], root)
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
    return {"command": name, "signal": kind, "seconds": round(took, 2)}, faults


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", help=f"some of: {', '.join(COMMANDS)}; without: all")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="write results/signals.json")
    args = parser.parse_args(argv)
    names, start, rng = chosen(COMMANDS, args.commands), time.monotonic(), np.random.default_rng(args.seed)
    shares = np.array([COMMANDS[name][1] for name in names], float)
    counts = np.diff(np.round(np.cumsum([0, *shares / shares.sum()]) * args.count).astype(int))
    found, faults = [], []
    with tempfile.TemporaryDirectory() as folder:
        root, kept = Path(folder).resolve(), Path(folder).resolve() / "kept"
        whole = begin(TRAIN, root)
        wait(whole, 600)
        for place in ("data", "runs"):
            fresh(kept / place, root / place)
        for name, count in zip(names, counts, strict=True):
            seconds = 0.0
            for case in range(count + 1):
                for place in ("data", "runs"):
                    fresh(root / place, kept / place)
                if COMMANDS[name][2]:
                    fresh(root / "data")
                if case == 0:  # undisturbed, for its time
                    seconds = wait(begin(COMMANDS[name][0], root), 600)
                    continue
                kind = str(rng.choice(list(SIGNALS)))
                if done := attack(name, kind, float(rng.random()), seconds, root):
                    found.append(done[0])
                    print(done[0], flush=True)
                    if done[1]:
                        faults.append({**done[0], "faults": done[1]})
                        print(f"FAULT {faults[-1]}", file=sys.stderr, flush=True)
    slowest = {
        name: max(row["seconds"] for row in found if row["command"] == name)
        for name in names
        if any(row["command"] == name for row in found)
    }
    commands, signals = (dict(Counter(row[key] for row in found)) for key in ("command", "signal"))
    figures = {
        "count": len(found),
        "commands": commands,
        "signals": signals,
        "slowest_s": slowest,
        "faults": faults,
        "minutes": (time.monotonic() - start) / 60,
    }
    print(histogram("signals by command", commands), histogram("signals by kind", signals), sep="\n")
    print(f"slowest end in s: {slowest}")
    return finish("signals", argv, args.seed, figures, args.save)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
