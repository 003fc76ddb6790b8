"""Runs of main.py and demo.py that a campaign may kill, stop or starve.

Each is a process of its own group, forked from one that has loaded the packages, which saves seconds a run.
"""

import argparse
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

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


def trained(words: str, root: Path) -> None:
    """Run the training that a campaign disturbs, and keep what it leaves."""
    done = call(shlex.split(words.format(root=root)), root / "output")
    if done.status:
        sys.exit(f"the run to disturb was not trained: {done.line}")
    keep(root)


def keep(root: Path) -> None:
    """Copy the folders `data` and `runs` to `kept`, for `restore`."""
    for name in ("data", "runs"):
        fresh(root / "kept" / name, root / name)


def restore(root: Path) -> None:
    """Make the folders `data` and `runs` what they were when they were kept."""
    for name in ("data", "runs"):
        fresh(root / name, root / "kept" / name)


def divided(count: int, shares: dict[str, float]) -> dict[str, int]:
    """Return how many of `count` cases each name gets."""
    ends = np.round(np.cumsum([*shares.values()]) / sum(shares.values()) * count).astype(int)
    return dict(zip(shares, np.diff(ends, prepend=0).tolist(), strict=True))


class Case(NamedTuple):
    """A case of a campaign: its kind, what is wrong with it, else how it ended, what repeats it, and its seconds."""

    kind: str
    wrong: list[str]
    outcome: str = "good"
    what: dict = {}
    seconds: float = 0.0


def campaign(name: str, argv: list[str]) -> bool:
    """Run a campaign of the command line `argv`: names of some of its module's KINDS, --count and --seed if it has a
    COUNT, --save, and its FLAGS. Return whether it finds faults.

    cases(args, the chosen kinds, an empty folder, figures) of the module yields each `Case`, and may add to the figures
    that are kept.
    """
    module = import_module("files" if name == "values" else name)
    kinds, count = module.KINDS, getattr(module, "COUNT", None)
    parser = argparse.ArgumentParser(
        f"tests/campaigns {name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(seed=0)
    if kinds:
        parser.add_argument("kinds", nargs="*", help=f"some of: {', '.join(kinds)}; without: all")
    if count:
        parser.add_argument("--count", type=int, default=count, help="cases of all kinds together")
        parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="write the figures to benchmarks/results")
    for flag, options in getattr(module, "FLAGS", {}).items():
        parser.add_argument(f"--{flag}", **options)
    args, begun = parser.parse_args(argv), time.monotonic()
    outcomes, slowest, faults, more = Counter(), Counter(), [], {}
    with tempfile.TemporaryDirectory() as folder:
        for case in module.cases(args, chosen(kinds, args.kinds) if kinds else [], Path(folder).resolve(), more):
            outcomes[f"{case.kind}: {'fault' if case.wrong else case.outcome}"] += 1
            slowest[case.kind] = max(slowest[case.kind], round(case.seconds, 2))
            if case.wrong:
                faults.append({"kind": case.kind, **case.what, "wrong": case.wrong})
                print(f"FAULT {faults[-1]}", file=sys.stderr, flush=True)
    minutes = (time.monotonic() - begun) / 60
    saved = "values" if getattr(args, "values", False) else getattr(module, "SAVED", name)
    print(histogram("cases", outcomes))
    print(f"{saved}: {outcomes.total()} cases, {len(faults)} faults, {minutes:.1f} minutes")
    if args.save:
        command = f"python tests/campaigns {name} {shlex.join(argv)}"
        row = {"attack": TITLES[saved], "cases": f"{outcomes.total()}", "faults": f"{len(faults)}"}
        row |= {"minutes": f"{minutes:.0f}", "command": f"`{command}`", "commit": COMMIT}
        figures = {"count": outcomes.total(), "outcomes": outcomes, "slowest_s": slowest, "faults": faults, **more}
        save(saved, command, args.seed, {**figures, "minutes": minutes, "rows": [row]})
    return bool(faults)
