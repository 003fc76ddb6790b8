"""Damaged and malicious files: `python tests/campaigns files --count 5000`. Each is read, or refused by a UserError.

Every input is one of ours, changed by a named mutator with a seeded generator, and is read in a child process by the
function that the commands use. A fault is any other exception, a crash, more than 30 s, or more than 2 GB of memory
beyond the packages'. Then files are read that would run code if they were unpickled or evaluated. `--values` damages no
bytes: it removes or replaces one value in whole checkpoints, metadata, tables and settings, and runs the commands on
them.
"""

import json
import os
import resource
import shutil
import signal
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from file_formats import FORMATS as BYTES
from file_formats import harmful
from value_formats import VALUES
from victims import FORKS, Case, fresh, histogram

SECONDS, MEMORY, BATCH = 30, 2 << 30, 200
KINDS = {**BYTES, **VALUES}
COUNT = 5000
FLAGS = {"values": {"action": "store_true", "help": "wrong values in whole files, instead of damaged bytes"}}


def inputs(name: str, made: list[tuple[Path, str]], seed: int, index: int, place: Path) -> tuple[Path, str]:
    """Write input `index` of a format into `place`; return (the changed file, its mutator). The first are whole."""
    rng = np.random.default_rng([seed, list(KINDS).index(name), index])
    folder, file = made[index % len(made)]
    target = fresh(place, folder) / file
    if index < len(made):
        return target, "whole"
    mutator = KINDS[name].mutators[rng.integers(len(KINDS[name].mutators))]
    target.write_bytes(mutator(target.read_bytes(), rng))
    return target, mutator.__name__


def work(name: str, made: list, seed: int, todo: range, place: Path, report: str) -> None:
    """Read the inputs of `todo`; append a line before and after each to `report`."""
    from pipnet.errors import UserError

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warm(name, made, place)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(report, "a", buffering=1) as lines_out:
        for index in todo:
            file, mutator = inputs(name, made, seed, index, place)
            print(json.dumps([index, mutator]), file=lines_out)
            signal.alarm(SECONDS)
            begun, outcome = time.monotonic(), "read"
            try:
                KINDS[name].read(file)
            except UserError as error:
                outcome = (
                    "refused" if mutator != "whole" or "bomb" in file.name else f"a whole file is refused: {error}"
                )
            except BaseException as error:  # what the commands would show as a traceback
                where = error.__traceback__
                while where.tb_next:
                    where = where.tb_next
                place_of = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
                outcome = f"{type(error).__name__}: {str(error)[:150]} ({place_of})"
            signal.alarm(0)
            print(json.dumps([index, outcome, round(time.monotonic() - begun, 2)]), file=lines_out)


def warm(name: str, made: list, place: Path) -> None:
    """Read a whole input once, so that packages and their memory are loaded before the limit is set."""
    folder, file = made[0]
    try:
        KINDS[name].read(fresh(place, folder) / file)
    except Exception:  # the campaign reads it again
        pass


def attack(name: str, count: int, seed: int, root: Path) -> Iterator[tuple[str, str, float, int]]:
    """Yield (mutator, outcome, seconds, index) of each input of a format."""
    made = KINDS[name].make(fresh(root / "made"))
    report, begin = root / "report", 0
    while begin < count:
        report.write_text("")
        todo = range(begin, min(begin + BATCH, count))
        child = FORKS.Process(target=work, args=(name, made, seed, todo, root / "input", str(report)))
        child.start()
        child.join()
        rows = [json.loads(line) for line in report.read_text().splitlines()]
        for start, end in zip(rows[::2], rows[1::2], strict=False):
            yield start[1], end[1], end[2], start[0]
        begin += max(len(rows) // 2, 0)
        if len(rows) % 2:
            ended = "hangs" if child.exitcode == -signal.SIGALRM else f"the process ends with {child.exitcode}"
            yield rows[-1][1], ended, SECONDS, rows[-1][0]
            begin += 1
        elif child.exitcode and not rows:
            raise RuntimeError(f"{name}: the child process ended with status {child.exitcode} before the first input")


def run_code(folder: Path, mark: Path, report: str) -> None:
    """Read each harmful file, and write which made `mark` or ended in anything but a UserError."""
    from pipnet.errors import UserError

    found = {}
    for name, (kind, file) in harmful(folder, mark).items():
        try:
            KINDS[kind].read(file)
            outcome = "read"
        except UserError:
            outcome = "refused"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
        found[name] = "RAN" if mark.exists() else outcome
        shutil.rmtree(mark, ignore_errors=True)
    Path(report).write_text(json.dumps(found))


def cases(args: Namespace, names: list[str], root: Path, figures: dict) -> Iterator[Case]:
    mutators = figures["mutators"] = Counter()
    names = [name for name in names if (name in VALUES) == args.values]
    for name in names:
        for mutator, outcome, seconds, index in attack(
            name, -(-args.count // len(names)), args.seed, fresh(root / "files")
        ):
            mutators[mutator] += 1
            wrong = [] if outcome in ("read", "refused") else [outcome]
            yield Case(name, wrong, outcome, {"input": index, "mutator": mutator}, seconds)
    print(histogram("inputs by mutator", mutators))
    child = FORKS.Process(target=run_code, args=(fresh(root / "code"), root / "mark", str(root / "codes")))
    child.start()
    child.join()
    for name, outcome in json.loads((root / "codes").read_text()).items():
        yield Case("code", [] if outcome == "refused" else [outcome], outcome, {"file": name})
