"""Runs of main.py and demo.py that a campaign may kill, stop or starve.

Each is a process of its own group, forked from one that has loaded the packages, which saves seconds a run.
"""

import json
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

sys.path[1:1] = [str(Path(__file__).resolve().parent.parent / folder) for folder in ("", "../benchmarks")]
from record import COMMIT, ROOT, chosen, result, save  # noqa: E402, F401

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "torch.utils.tensorboard",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "main",
        "utils.task.run_access",
        "extras.tools.predict",
        "utils.task.run_tests",
        "utils.train.loop",
        "pipnet.app.demo",
    ]
)
TINY = (
    "--dataset synthetic --synthetic-train 12 --synthetic-test 3 --net timm:test_efficientnet --weights none --input-size 64 "
    "--target-size 64 --batch-size 4 --threads 1 --warmup 0.5"
).split()
TITLES = {
    "kills": "SIGKILLs",
    "signals": "signals",
    "disks": "disks in trouble",
    "files": "damaged files",
    "values": "wrong values in whole files",
    "attacks": "foreign files and links",
    "options": "combinations of options",
    "learning": "nets with heads",
    "paths": "ways of main.py on a GPU",
}
PATIENCE = 300  # seconds until a run that was not stopped is a hang


class Done(NamedTuple):
    """An ended run: exit status, what it printed to stderr, and seconds."""

    status: int
    text: str
    seconds: float

    @property
    def line(self) -> str:
        """Return the last line of stderr."""
        return self.text.strip().splitlines()[-1] if self.text.strip() else ""


def _run(argv: list[str], output: str, change: Callable | None, given: tuple) -> None:
    """Be `python main.py ...` or `python demo.py ...` from here on, after change(*given)."""
    os.setsid()
    os.environ["OMP_NUM_THREADS"] = "1"
    for descriptor, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(output + suffix, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(ROOT)
    sys.argv = argv
    import main
    from pipnet.app import demo
    from utils.settings import start

    start.begin_loading()
    if change:
        change(*given)
    if argv[0] == "demo.py":
        start.end_loading()
        demo.command()
    else:
        start.run_command(main.main)


class Victim:
    """A run of `argv`, such as ["main.py", "--train"]; what it prints goes to the files `output`.out and .err.

    change: a function of a module that the run calls first, with the arguments `given`.
    """

    def __init__(self, argv: Iterable, output: Path, change: Callable | None = None, given: tuple = ()):
        self.output, self.begun = str(output), time.monotonic()
        self.process = FORKS.Process(target=_run, args=([str(word) for word in argv], self.output, change, given))
        self.process.start()

    def signal(self, number: int, group: bool = False) -> None:
        """Send a signal to the process, or to its group as a terminal does."""
        with suppress(ProcessLookupError):  # it has just ended
            (os.killpg if group else os.kill)(self.process.pid, number)

    def wait(self, timeout: float = PATIENCE) -> Done:
        """Return how it ended. TimeoutError, after killing its group, if it does not."""
        self.process.join(timeout)
        hangs = self.process.exitcode is None
        self.signal(signal.SIGKILL, group=True)  # loader processes that outlive it
        if hangs:
            raise TimeoutError(f"still running after {timeout:.0f} s")
        text = Path(self.output + ".err").read_text(encoding="utf-8", errors="replace")
        return Done(self.process.exitcode, text.replace("\r", "\n"), time.monotonic() - self.begun)


def call(argv: Iterable, output: Path, change: Callable | None = None, given: tuple = ()) -> Done:
    """Run to the end."""
    return Victim(argv, output, change, given).wait()


def fresh(folder: Path, copy: Path | None = None) -> Path:
    """Return `folder`, empty or with what `copy` holds; times of files are kept."""
    shutil.rmtree(folder, ignore_errors=True)
    if copy and copy.exists():
        shutil.copytree(copy, folder, symlinks=True)
    else:
        folder.mkdir(parents=True)
    return folder


def histogram(title: str, counts: dict[str, int]) -> str:
    """Return the counts as bars of text."""
    width, most = max(map(len, counts), default=0), max(counts.values(), default=1)
    bars = (f"  {name:<{width}} {count:5d} {'#' * round(40 * count / most)}" for name, count in counts.items())
    return "\n".join([title, *bars])


def finish(name: str, argv: list[str], seed: int, figures: dict, keep: bool) -> int:
    """Print the faults of a campaign; write its figures to results/<name>.json if they are to be kept.
    Return 1 for faults.
    """
    for fault in figures["faults"]:
        print(f"FAULT {json.dumps(fault)}", file=sys.stderr)
    if keep:
        command = f"python tests/campaigns {Path(sys.argv[0]).stem} {shlex.join(argv)}"
        figures["rows"] = [
            {
                "attack": TITLES[name],
                "cases": f"{figures['count']}",
                "faults": f"{len(figures['faults'])}",
                "minutes": f"{figures['minutes']:.0f}",
                "command": f"`{command}`",
                "commit": COMMIT,
            }
        ]
        save(name, command, seed, figures)
    print(f"{name}: {figures['count']} cases, {len(figures['faults'])} faults, {figures['minutes']:.1f} minutes")
    return bool(figures["faults"])
