"""SIGKILL at seeded moments of a run: `python tests/campaigns kills --count 200`. Nothing may be lost.

A reference run tells how often each phase occurs, how long it takes and how many file operations it makes. A victim is
killed in one occurrence: before its n-th file operation, or after a share of its time. Then the same command goes on,
with --resume if there is a checkpoint. At the end step.csv, weights and prepared pictures must equal those of the
reference run, every file in sight must have been whole after the kill, and no partial file may be left.
"""

import functools
import hashlib
import importlib
import os
import re
import shlex
import shutil
import signal
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from victims import TINY, Case, Victim, call, divided, fresh, keep, restore

OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
PLACES = "--data-root {root}/data --run-root {root}/runs --exp run "
SYNTHETIC = "--dataset synthetic --synthetic-train 12 --synthetic-test 3 --target-size 64 --weights none --threads 1 --workers 1 "
JOBS = {
    "landmarks": f"--train {PLACES} {shlex.join(TINY)} --workers 1 --epochs 3",
    "test": f"--test --test-onnx {PLACES} --threads 1",  # of the run that the job before it has left
    "semi": f"--train {PLACES} {shlex.join(TINY)} --workers 1 --epochs 1 --semi self-training --labelled-fraction 0.5",
    "detector": f"--train {PLACES} {SYNTHETIC} --task detect --crops 6 --batch-size 2 --input-size 128 --epochs 2",
}
KINDS = {  # name: (job, function, share of the kills)
    "render": ("landmarks", "extras.synthetic:generate", 15),
    "prepare": ("landmarks", "utils.data.prepare:DataGenerator._crops", 20),
    "prepare: rename": ("landmarks", "utils.data.new_folder:_finish", 32),
    "start": ("landmarks", "utils.train.loop:make_solver", 12),
    "step": ("landmarks", "utils.train.solver:Solver.train_step", 20),
    "validation": ("landmarks", "utils.task.experiment:evaluate", 10),
    "save": ("landmarks", "utils.train.loop:save", 34),
    "tables": ("landmarks", "utils.train.callbacks:Callbacks.epoch", 10),
    "export": ("test", "utils.task.evaluation:LandmarkEvaluation.export", 8),
    "report": ("test", "utils.task.evaluation:LandmarkEvaluation.close", 7),
    "semi: label": ("semi", "extras.semi.rounds:write_pseudo_labels", 6),
    "semi: save": ("semi", "utils.train.loop:save", 6),
    "detector: step": ("detector", "utils.train.solver:Solver.train_step", 10),
    "detector: save": ("detector", "utils.train.loop:save", 10),
}
COUNT = 200
EARLY = ("render", "prepare", "prepare: rename")  # they need a data root without the prepared set
PREPARED = "synthetic-" + 8 * "[0-9a-f]"  # with the hash


class Moment(NamedTuple):
    """When to kill: in which occurrence of a phase, before which file operation (None: after `share` of its time)."""

    phase: str
    occurrence: int = 0
    operation: int | None = None
    share: float = 0.0


class Seen(NamedTuple):
    """An occurrence of a phase in the reference run."""

    phase: str
    seconds: float
    operations: int


def watch(phases: list[str], file: str, moment: Moment | None) -> None:
    """Write a line into `file` whenever a phase begins and ends.
    In `moment`'s occurrence, kill before its file operation.
    """
    lines = open(file, "a", buffering=1)
    now: list = [None, 0]  # the phase of this moment, its file operations
    counts: Counter = Counter()
    me = os.getpid()

    def die() -> None:
        os.kill(me, signal.SIGKILL)

    def hook(event: str, args: tuple) -> None:
        if now[0] is None or event not in OPERATIONS or os.getpid() != me:
            return
        if event == "open" and not (isinstance(args[1], str) and set(args[1]) & set("wax+")):
            return
        if moment and now[0] == moment.phase and counts[now[0]] == moment.occurrence and now[1] == moment.operation:
            die()
        now[1] += 1

    def wrapped(phase: str, function):
        @functools.wraps(function)
        def run(*args, **options):
            if now[0] is not None:
                return function(*args, **options)
            now[:], start = [phase, 0], time.perf_counter()
            print(f"begin\t{phase}\t{counts[phase]}", file=lines)
            try:
                return function(*args, **options)
            finally:
                print(f"end\t{phase}\t{time.perf_counter() - start}\t{now[1]}", file=lines)
                if (
                    moment
                    and moment.phase == phase
                    and counts[phase] == moment.occurrence
                    and moment.operation is not None
                ):
                    die()  # it has one operation fewer than in the reference run
                now[0] = None
                counts[phase] += 1

        return run

    for phase in phases:
        module, _, name = KINDS[phase][1].partition(":")
        owner = importlib.import_module(module)
        *path, name = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, name, wrapped(phase, getattr(owner, name)))
    sys.addaudithook(hook)


def of_job(job: str) -> list[str]:
    return [phase for phase, row in KINDS.items() if row[0] == job]


def command(job: str, root: Path, *modes: str) -> list[str]:
    return ["main.py", *shlex.split(JOBS[job].format(root=root)), *modes]


def result(root: Path) -> dict[str, str]:
    """Return hashes of all that must be equal: prepared files, step.csv, the tensors of the checkpoints, the scores."""
    found = {}
    run = root / "runs/run"
    for file in sorted([*(root / "data").glob("*/**/*"), *run.glob("**/*.csv"), *run.glob("**/*.pt")]):
        if not file.is_file() or file.name in ("time.csv", ".lock"):
            continue
        if file.suffix == ".pt":
            stored = torch.load(file, weights_only=True)
            values = [stored["model"], stored.get("rows"), stored.get("solver")]
            data = b"".join(
                name.encode() + (value.numpy().tobytes() if isinstance(value, torch.Tensor) else str(value).encode())
                for name, value in flat(values)
            )
        else:
            data = re.sub(rb"\nfingerprint: .*", b"", file.read_bytes())  # it has the times of the raw files
        found[re.sub(r"-[0-9a-f]{8}/", "/", str(file.relative_to(root)))] = hashlib.sha256(data).hexdigest()
    return found


def flat(value, name: str = ""):
    """Yield (name, leaf) of nested dicts and lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else None
    if pairs is None:
        yield name, value
    else:
        for key, one in pairs:
            yield from flat(one, f"{name}/{key}")


def whole(root: Path) -> list[str]:
    """Return what is not whole among the files in sight."""
    wrong = []
    for file in (root / "runs/run").glob("**/*.pt"):
        try:
            torch.load(file, weights_only=True)
        except Exception as error:  # whatever a damaged file raises
            wrong.append(f"{file.name} after the kill: {error}")
    for file in (root / "runs/run").glob("**/*.csv"):
        if not file.read_text(encoding="utf-8").endswith("\n"):
            wrong.append(f"{file.name} after the kill has no last line")
    return wrong


def stumps(root: Path) -> list[str]:
    """Return what an ended run should not leave."""
    hidden = [*(root / "data").rglob(".*"), *(root / "runs/run").rglob(".*")]
    return [str(file.relative_to(root)) for file in hidden if file.name != ".lock"]


def reference(job: str, root: Path) -> tuple[list[Seen], dict[str, str]]:
    """Return the phases of an undisturbed run and its result. It leaves raw/ and data/ in `root` to start others from."""
    phases = root / "phases"
    phases.unlink(missing_ok=True)
    done = call(command(job, root), root / "reference", watch, (of_job(job), str(phases), None))
    if done.status:
        sys.exit(f"the reference run of {job} failed: {done.line}")
    lines = [line.split("\t") for line in phases.read_text().splitlines()]
    return [Seen(line[1], float(line[2]), int(line[3])) for line in lines if line[0] == "end"], result(root)


def draw(seen: list[Seen], phase: str, rng: np.random.Generator) -> Moment:
    """Return a random moment of a phase: every second one by file operation, where there are any."""
    occurrences = [one for one in seen if one.phase == phase]
    occurrence = int(rng.integers(len(occurrences)))
    operations = occurrences[occurrence].operations
    if operations and (phase.endswith(("save", "rename")) or rng.random() < 0.5):
        return Moment(phase, occurrence, int(rng.integers(operations + 1)))
    return Moment(phase, occurrence, None, float(rng.random()))


def kill(job: str, root: Path, moment: Moment, seconds: float) -> bool:
    """Start the job and kill it in the moment. Return whether it was killed; else it was finished before."""
    phases = root / "phases"
    phases.write_text("")
    victim = Victim(command(job, root), root / "victim", watch, ([moment.phase], str(phases), moment))
    if moment.operation is None:
        wanted = f"begin\t{moment.phase}\t{moment.occurrence}\n"
        while wanted not in phases.read_text() and victim.process.is_alive():
            time.sleep(0.002)
        time.sleep(moment.share * seconds)
        victim.signal(signal.SIGKILL)
    return victim.wait().status == -signal.SIGKILL


def go_on(job: str, root: Path) -> list[str]:
    """Finish the job as its user would; return what went wrong."""
    trains, run = "--train" in JOBS[job], root / "runs/run"
    begun = run.is_dir() and any(path.name != ".lock" for path in run.iterdir())
    modes = ["--resume"] if any(run.glob("**/last.pt")) else ["--overwrite"] if begun else []
    done = call(command(job, root, *(modes if trains else [])), root / "again")
    return [f"going on: {done.line}"] if done.status else []


def attack(job: str, root: Path, seen: list[Seen], moment: Moment) -> list[str] | None:
    """Kill the job in the moment and go on. Return what is wrong then; None if the job ended before it was killed."""
    restore(root)
    if moment.phase in EARLY:
        for prepared in (root / "data").glob(PREPARED):
            shutil.rmtree(prepared)
    if moment.phase == "render":
        fresh(root / "data")
    if moment.phase == "export":
        (root / "runs/run/best.onnx").unlink()
    seconds = [one for one in seen if one.phase == moment.phase][moment.occurrence].seconds
    return whole(root) + go_on(job, root) if kill(job, root, moment, seconds) else None


def cases(args: Namespace, phases: list[str], root: Path, _figures: dict) -> Iterator[Case]:
    rng = np.random.default_rng(args.seed)
    counts = divided(args.count, {phase: KINDS[phase][2] for phase in phases})
    (root / "runs").mkdir()
    wanted = {KINDS[phase][0] for phase in phases}
    for job in [job for job in JOBS if job in wanted or (job == "landmarks" and "test" in wanted)]:
        if job != "test":
            fresh(root / "runs")
        seen, expected = reference(job, root)
        keep(root)
        if job != "test":
            fresh(root / "kept" / "runs")
        for phase in (phase for phase in of_job(job) if phase in phases):
            for _ in range(counts[phase]):
                moment = draw(seen, phase, rng)
                wrong = attack(job, root, seen, moment)
                if wrong is not None:
                    found = result(root)
                    wrong += [f"differs: {name}" for name in expected if found.get(name) != expected[name]]
                    wrong += [f"left over: {name}" for name in stumps(root)]
                    yield Case(phase, wrong[:4], what={"moment": moment._asdict()})
        restore(root)  # as after the reference run
        if job == "landmarks" and "test" in wanted:
            call(command(job, root), root / "again")
