"""SIGKILL at random moments of a training: before one of its operations on files, or after a share of its time.

Then the same command goes on, with --resume if there is a checkpoint. At the end step.csv, weights and prepared faces
must equal those of an undisturbed run, and no partial file may be left.
"""

import hashlib
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from commands import TRAIN, Victim, fresh

OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
FLAGS = f"{TRAIN} --epochs 3"


def watch(deadly: int | None, counted: str) -> None:
    """Count the operations on files of this process in the file `counted`; kill it before the one of number `deadly`."""
    me, seen = os.getpid(), 0
    counts = os.open(counted, os.O_WRONLY | os.O_CREAT)

    def hook(event: str, args: tuple) -> None:
        nonlocal seen
        if event not in OPERATIONS or os.getpid() != me:
            return
        if event == "open" and not (isinstance(args[1], str) and set(args[1]) & set("wax+")):
            return
        if seen == deadly:
            os.kill(me, signal.SIGKILL)
        seen += 1
        os.pwrite(counts, f"{seen:9d}".encode(), 0)

    sys.addaudithook(hook)


def result(root: Path) -> dict[str, str]:
    """Return {file: hash} of what must be equal: prepared faces, step.csv, and the tensors of the checkpoints."""
    found = {}
    for file in sorted([*(root / "data").glob("*/**/*"), *(root / "runs/run").glob("*.*")]):
        if file.suffix == ".pt":
            stored = torch.load(file, weights_only=True)
            data = repr([(key, value.tolist()) for key, value in stored["model"].items()]).encode()
        elif file.is_file() and file.name not in ("time.csv", ".lock", "log.txt", "args.yaml", "manifest.json"):
            data = re.sub(rb"\nfingerprint: .*", b"", file.read_bytes())  # it has the times of the raw files
        else:
            continue
        found[re.sub(r"-[0-9a-f]{8}/", "/", str(file.relative_to(root)))] = hashlib.sha256(data).hexdigest()
    return found


def go_on(root: Path) -> list[str]:
    """Finish the training as its user would; return what went wrong."""
    run = root / "runs/run"
    begun = run.is_dir() and any(path.name != ".lock" for path in run.iterdir())
    more = "--resume" if (run / "last.pt").exists() else "--overwrite" if begun else ""
    done = Victim(f"{FLAGS} {more}", root).wait()
    return [f"going on: {done.text[-400:]}"] if done.status else []


def cases(count: int, seed: int, root: Path) -> Iterator[tuple[str, list[str]]]:
    begun, counted = time.monotonic(), root / "counted"
    done = Victim(FLAGS, root, watch, (None, str(counted))).wait()
    seconds, operations, expected = time.monotonic() - begun, int(counted.read_text()), result(root)
    assert not done.status, done.text
    rng = np.random.default_rng(seed)
    for number in range(count):
        for name in ("data", "runs"):
            fresh(root / name)
        if number % 2:
            kind, victim = "a share of the time", Victim(FLAGS, root)
            time.sleep(seconds * rng.random())
            victim.kill()
        else:
            kind = "an operation on files"
            victim = Victim(FLAGS, root, watch, (int(rng.integers(operations)), str(counted)))
        victim.wait()
        wrong = go_on(root)
        found = result(root)
        wrong += [f"differs: {name}" for name in expected if found.get(name) != expected[name]]
        hidden = [*(root / "data").rglob(".*"), *(root / "runs/run").rglob(".*")]
        wrong += [f"left over: {file.relative_to(root)}" for file in hidden if file.name != ".lock"]
        yield kind, wrong
