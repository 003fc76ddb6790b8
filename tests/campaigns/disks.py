"""Limited, full and read-only disks: one line names the file, no older file changes, and the command then succeeds.

`limited` is RLIMIT_FSIZE, as `ulimit -f` sets it; `full` and `read-only` are a small tmpfs, which needs the right to
mount.
"""

import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

from commands import TRAIN, Victim, fresh

RUN = "--data-root {root}/data --run-root {root}/runs --exp run --threads 1"
PLACES = {  # name: (folder below the root, flags, bytes that a file may have)
    "run": ("runs", f"{TRAIN} --resume --epochs 3", 100_000),
    "export": ("runs", f"--test --test-onnx {RUN}", 100_000),
    "data root": ("data", TRAIN.replace("--train ", "--prepare "), 2_000),
}
TROUBLES = ("limited", "full", "read-only")
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
    """Return {file: hash} of what a command must not lose."""
    files = [file for file in folder.rglob("*") if file.suffix in (".pt", ".csv", ".yaml", ".npy", ".jpegs")]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if "report" not in file.parts}


def attack(place: str, trouble: str, root: Path) -> list[str]:
    """Return what is wrong with a command whose disk is in trouble."""
    name, flags, size = PLACES[place]
    for part in ("data", "runs"):
        fresh(root / part, root / "kept" / part)
    folder, mounted = root / name, trouble != "limited"
    if place == "data root":
        fresh(folder)
    if mounted:
        content = fresh(root / "content", folder)
        if not mount(folder, "size=64m"):
            return []
        subprocess.run(["cp", "-a", f"{content}/.", str(folder)], check=True)
    before, wrong, filler = hashes(folder), [], folder / "filler"
    try:
        if trouble == "full":
            space = os.statvfs(folder)
            filler.write_bytes(bytes(space.f_bavail * space.f_frsize - FREE))
        elif trouble == "read-only":
            mount(folder, "remount,ro")
        done = Victim(flags, root, *(() if mounted else (limit, (size,)))).wait()
        said = [line for line in done.text.splitlines() if line.startswith("error: ")]
        named = said and (str(folder) in said[0] or "TMPDIR" in said[0])
        if done.status != 1 or "Traceback" in done.text or len(said) != 1 or not named:
            wrong.append(f"status {done.status}: {done.text[-800:]}")
        if not before.items() <= hashes(folder).items():
            wrong.append("an older file has changed")
        if trouble == "read-only":
            mount(folder, "remount,rw")
        filler.unlink(missing_ok=True)
        done = Victim(flags, root).wait()
        wrong += [f"with space again: {done.text[-400:]}"] * bool(done.status)
        wrong += [f"left over: {file}" for file in folder.rglob(".*") if file.name != ".lock"]
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
    return wrong


def cases(count: int, _seed: int, root: Path) -> Iterator[tuple[str, list[str]]]:
    done = Victim(f"{TRAIN} --epochs 2", root).wait()
    assert not done.status, done.text
    for part in ("data", "runs"):
        fresh(root / "kept" / part, root / part)
    for trouble, place in islice(product(TROUBLES, PLACES), count):
        yield f"{trouble}: {place}", attack(place, trouble, root)
