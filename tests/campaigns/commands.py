"""Commands that a campaign may kill or starve: each is a process of its own group, forked from one that has loaded the
packages, which saves seconds a run.
"""

import multiprocessing
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["main", "utils.task.run_access", "utils.task.run_tests", "utils.train.loop"])
TRAIN = (
    "--train --data-root {root}/data --run-root {root}/runs --exp run --dataset synthetic --synthetic-train 12 "
    "--synthetic-test 3 --net timm:test_efficientnet --weights none --input-size 64 --target-size 64 --batch-size 4 "
    "--threads 1 --workers 1 --warmup 0.5"
)
PATIENCE = 300  # seconds until a run that was not stopped is a hang


class Done(NamedTuple):
    """How a command has ended: its exit status, and what it printed to stderr."""

    status: int
    text: str


def _be(argv: list[str], output: str, change: Callable | None, given: tuple) -> None:
    """Be `python main.py ...` from here on, after change(*given)."""
    os.setsid()
    os.environ["OMP_NUM_THREADS"] = "1"
    for descriptor, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(output + suffix, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(ROOT)
    sys.argv = argv
    import main
    from utils.settings import start

    start.begin_loading()
    if change:
        change(*given)
    start.run_command(main.main)


class Victim:
    """A run of main.py with some flags, in which `{root}` is the campaign's folder; what it prints goes there too.

    change: a function of a module that the process calls first, with the arguments `given`.
    """

    def __init__(self, flags: str, root: Path, change: Callable | None = None, given: tuple = ()):
        self.output = root / "output"
        argv = ["main.py", *shlex.split(flags.format(root=root))]
        self.process = FORKS.Process(target=_be, args=(argv, str(self.output), change, given))
        self.process.start()

    def kill(self) -> None:
        """Kill it and its loader processes."""
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(self.process.pid, signal.SIGKILL)

    def wait(self) -> Done:
        """Return how it ended. TimeoutError, after killing its group, if it does not."""
        self.process.join(PATIENCE)
        hangs = self.process.exitcode is None
        self.kill()
        if hangs:
            raise TimeoutError(f"still running after {PATIENCE} s")
        return Done(self.process.exitcode, Path(f"{self.output}.err").read_text(errors="replace").replace("\r", "\n"))


def fresh(folder: Path, copy: Path | None = None) -> Path:
    """Return `folder`, empty or with what `copy` holds."""
    shutil.rmtree(folder, ignore_errors=True)
    if copy:
        shutil.copytree(copy, folder, symlinks=True)
    else:
        folder.mkdir(parents=True)
    return folder
