"""Full, limited and read-only disks: `python tests/campaigns disks`. One line names the file, and nothing is lost.

`limit` is RLIMIT_FSIZE, as `ulimit -f` sets it; `full` and `read-only` are a small tmpfs, which needs the right to
mount. Afterwards the older files must be as before, and the same command must succeed once there is space.
"""

import hashlib
import os
import resource
import shlex
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from victims import TINY, Case, call, fresh, restore, trained

PLACES = "--data-root {root}/data --run-root {root}/runs --exp run"
TRAIN = f"--train {PLACES} {shlex.join(TINY)} --workers 1"
KINDS = {  # place: (its folder below the root, command, bytes that a file may have)
    "data root": ("data", f"main.py --prepare --data-root {{root}}/data {shlex.join(TINY)}", 2_000),
    "run folder": ("runs", f"main.py {TRAIN} --resume --epochs 3", 100_000),
    "export": ("runs", f"main.py --test --test-onnx {PLACES} --threads 1", 100_000),
    "report": ("runs", f"main.py --test {PLACES} --threads 1", 20_000),
    "demo": ("out", "demo.py --source assets/faces.jpg --save {root}/out/faces.png --threads 1", 20_000),
}
TROUBLES = ("limit", "full", "read-only")
FLAGS = {"troubles": {"nargs": "+", "choices": TROUBLES, "default": TROUBLES}}
FREE = 8_192  # bytes left on the full disk


def limit(size: int) -> None:
    """Let this process write no larger file."""
    sys.dont_write_bytecode = True  # Python keeps a cut-off .pyc file, and then fails with it
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def mount(folder: Path, options: str) -> bool:
    """Mount a tmpfs; return whether that was allowed."""
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(words, capture_output=True).returncode == 0


def hashes(folder: Path) -> dict[str, str]:
    """Return {file: hash} of what a run must not lose."""
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.suffix in (".pt", ".csv", ".tsv", ".yaml", ".npy", ".jpegs", ".utf8") and "report" not in file.parts
    }


def attack(place: str, trouble: str, root: Path) -> list[str] | None:
    """Return what is wrong with a command whose disk is in trouble; None if the trouble could not be made."""
    name, text, size = KINDS[place]
    folder, command = root / name, shlex.split(text.format(root=root))
    restore(root)
    fresh(root / "out")
    if place == "data root":
        fresh(folder)
    if trouble != "limit":
        if not mount(fresh(folder), "size=64m"):
            return None
        if place != "data root" and (root / "kept" / name).exists():
            subprocess.run(["cp", "-a", f"{root}/kept/{name}/.", str(folder)], check=True)
    before, wrong = hashes(folder), []
    filler = folder / "filler"
    try:
        if trouble == "full":
            space = os.statvfs(folder)
            filler.write_bytes(bytes(space.f_bavail * space.f_frsize - FREE))
        if trouble == "read-only":
            mount(folder, "remount,ro")
        done = call(command, root / "output", *((limit, (size,)) if trouble == "limit" else ()))
        said = [line for line in done.text.splitlines() if line.startswith("error: ")]
        named = said and (str(folder) in said[0] or "TMPDIR" in said[0])
        if done.status != 1 or "Traceback" in done.text or len(said) != 1 or not named:
            wrong.append(f"status {done.status}: {done.text[-800:]}")
        if before != {name: value for name, value in hashes(folder).items() if name in before}:
            wrong.append("an older file has changed")
        if trouble == "read-only":
            mount(folder, "remount,rw")
        filler.unlink(missing_ok=True)
        done = call(command, root / "output")
        if done.status:
            wrong.append(f"with space again: {done.line}")
        wrong += [f"left over: {file.relative_to(root)}" for file in folder.rglob(".*") if file.name != ".lock"]
    finally:
        if trouble != "limit":
            subprocess.run(["umount", str(folder)], check=True)
    return wrong


def cases(args: Namespace, places: list[str], root: Path, _figures: dict) -> Iterator[Case]:
    trained(f"main.py {TRAIN} --epochs 2", root)
    for place, trouble in product(places, args.troubles):
        wrong = attack(place, trouble, root)
        yield Case(f"{place}, {trouble}", wrong or [], "skipped: no right to mount" if wrong is None else "good")
