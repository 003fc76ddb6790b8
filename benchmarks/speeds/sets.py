"""Sets: how long they take to be made, and how a training deals with large ones."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

BEGUN = time.time()  # before torch is loaded

import numpy as np  # noqa: E402
from record import ROOT  # noqa: E402
from shown import rows_of  # noqa: E402

FACES, PROCESSES = (64, 10_000, 1_000_000), (1, 2)
PREPARED, COPIES = 100, 10  # photographs of `preparation`
TRAIN, TEST = 2000, 400  # faces of the default synthetic set
DRAWN = 200  # different faces
STEPS = 20
FLAGS = ["--train", "--input-size", "128", "--weights", "none", "--batch-size", "16", "--val", "none"]


def raw_set(folder: Path, faces: int, size: int, copies: int = 1) -> Path:
    """Write drawn faces as a user's own set, each so many times, and return its folder."""
    from extras.synthetic import generate

    generate(folder / "drawn", faces, 0, size=size)
    (folder / "raw" / "train").mkdir(parents=True)
    for file in (folder / "drawn").rglob("*.pts"):
        for suffix, copy in product((".pts", ".jpg"), range(copies)):
            shutil.copy(file.with_suffix(suffix), folder / "raw" / "train" / f"{file.stem} {copy}{suffix}")
    return folder / "raw"


def repeated(prepared: Path, folder: Path, faces: int) -> None:
    """Write a prepared set of `faces` faces: those of another one, again and again, with names of their own."""
    (folder / "train").mkdir(parents=True)
    for file in sorted((prepared / "train").iterdir()):
        if file.suffix != ".npy":
            os.link(file, folder / "train" / file.name)  # many faces have the same crop
            continue
        values = np.load(file)
        shape = faces, *values.shape[1:]
        column = np.lib.format.open_memmap(folder / "train" / file.name, "w+", values.dtype, shape)
        for start in range(0, faces, len(values)):
            column[start : start + len(values)] = values[: faces - start]
    names = b"".join(b"%09d" % index for index in range(faces))
    text = folder / "train" / "text.utf8"
    column = np.lib.format.open_memmap(folder / "train" / "file.text.npy", "r+")
    column[:] = text.stat().st_size + 9 * (np.arange(faces)[:, None] + (0, 1))
    before = text.read_bytes()
    text.unlink()
    text.write_bytes(before + names)
    for name in ("meanface.txt", "meta.yaml"):
        (folder / name).write_bytes((prepared / name).read_bytes())


def private_mb() -> float:
    """Return the memory in MB that would be free if this process and its loaders ended: without files that are mapped."""
    own = Path("/proc/self/task")
    children = [child for task in own.iterdir() for child in (task / "children").read_text().split()]
    rows = [row for pid in ("self", *children) for row in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(row.split()[1]) for row in rows if row.startswith(("Pss_Anon", "Pss_Shmem"))) / 1024


def work(folder: str, name: str) -> None:
    """Measure, as one of the processes of a training on the set `name`; the first one prints its figures as JSON."""
    import torch
    from speeds.training import begin

    from utils.data.prepared_set import PreparedSet
    from utils.settings.config import read_defaults
    from utils.train import checkpoint
    from utils.train.ranks import start_ranks

    layouts, begun = read_defaults().layouts, time.perf_counter()
    PreparedSet(Path(folder, name), layouts).read("train")
    opened = time.perf_counter() - begun
    ranks = start_ranks()
    places = ["--train-data", str(Path(folder, name)), "--run-root", folder]
    _, solver, order, loader = begin([*FLAGS, *places], ranks)
    solver.net.train()
    batches = iter(loader)
    solver.train_step([next(batches)]).read()
    first, spent = time.time() - BEGUN, time.process_time()
    begun = time.perf_counter()
    for _ in range(STEPS):
        losses = solver.train_step([next(batches)])
    losses.read()
    speed = STEPS * order.batch * ranks.count / (time.perf_counter() - begun)
    memory = private_mb()
    begun = time.perf_counter()
    for _ in order.epochs(0, 1):
        pass
    ordered = time.perf_counter() - begun
    if ranks.first:
        checkpoint.save(Path(folder) / "last.pt", solver.state_dict())
    ranks.wait()
    begun = time.perf_counter()
    solver.load_state_dict(torch.load(Path(folder) / "last.pt", weights_only=True))
    load = time.perf_counter() - begun
    if ranks.first:
        print(
            "FIGURES "
            + json.dumps(
                {
                    "seconds_to_open": round(opened, 3),
                    "seconds_of_an_order": round(ordered, 2),
                    "seconds_to_first_step": round(first, 1),
                    "cpu_seconds_to_first_step": round(spent, 1),
                    "seconds_to_resume": round(first + load, 1),
                    "images_per_second": round(speed, 1),
                    "private_mb": round(memory),
                }
            ),
            flush=True,
        )
    ranks.wait()


def launched(ranks: int, folder: Path, name: str) -> dict:
    """Return what the first of `ranks` processes measures. Stop if one fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    command = [sys.executable, "-m", "speeds.sets", str(folder), name]
    begun = []
    for rank in range(ranks):
        place = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "RANK": rank, "LOCAL_RANK": rank}
        env = {
            **os.environ,
            **where,
            "PYTHONPATH": str(ROOT / "benchmarks"),
            **{key: str(value) for key, value in place.items()},
        }
        begun.append(subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, env=env))
    said = [process.communicate()[0] for process in begun][0]
    if any(process.returncode for process in begun):
        sys.exit("a process has failed")
    return json.loads(next(line.removeprefix("FIGURES ") for line in said.splitlines() if line.startswith("FIGURES ")))


def scale(*faces: int) -> dict:
    """Return what a training takes on sets of 64, 10,000 and 1,000,000 faces, or on those of so many.

    All faces are copies of a few drawn ones, with 68 landmarks and crops of 128 px: the columns are written in full,
    the places of the crops point at the same JPEGs. With 1 and 2 processes, these are measured: the seconds in which
    the set is opened; those in which a process runs through the order of an epoch; those from the start of Python to
    the first step, also in CPU time, which the load of others hardly changes, and to the first step after a checkpoint
    is loaded; images/s; the private memory of the first process and its loaders, without the page cache. With 64 faces
    that is the memory of the net, the optimizer and the packages.
    """
    from utils import DataGenerator

    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepared = Path(
            DataGenerator(raw_set(folder, DRAWN, 160), 128, "points", "drawn", folder / "data", val=0.0).run()
        )
        for count in faces or FACES:
            repeated(prepared, folder / "data" / f"faces{count}", count)
            for ranks in PROCESSES:
                rows.append({"faces": count, "processes": ranks, **launched(ranks, folder / "data", f"faces{count}")})
                print(rows[-1], file=sys.stderr)
    return {
        "rows": rows_of(
            rows,
            ("faces", "faces", ",d"),
            ("processes", "processes"),
            ("s to open", "seconds_to_open", ".2f"),
            ("s for an order", "seconds_of_an_order", ".2f"),
            ("s to the first step", "seconds_to_first_step", ".1f"),
            ("of these, CPU", "cpu_seconds_to_first_step", ".1f"),
            ("s to resume", "seconds_to_resume", ".1f"),
            ("images/s", "images_per_second", ".0f"),
            ("private MB", "private_mb", ".0f"),
        )
    }


def preparation() -> dict:
    """Return how fast faces are prepared, in photographs of 500 px, as crops of 256 px with margin."""
    from utils import DataGenerator

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        raw = raw_set(place, PREPARED, 500, COPIES)
        start, busy, count = time.perf_counter(), time.process_time(), PREPARED * COPIES
        DataGenerator(raw, 256, out=place / "data").run()
        seconds, core_seconds = time.perf_counter() - start, time.process_time() - busy
        return {
            "faces": count,
            "seconds": round(seconds, 2),
            "core_seconds": round(core_seconds, 2),
            "faces_per_second": round(count / seconds, 1),
            "faces_per_core_second": round(count / core_seconds, 1),
        }


def rendering() -> dict:
    """Return how long the default synthetic set takes to be rendered and prepared."""
    from extras.synthetic import generate
    from utils import DataGenerator

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        start = time.perf_counter()
        generate(place / "raw", TRAIN, TEST)
        rendered = time.perf_counter()
        DataGenerator(place / "raw", dataset="synthetic", out=place / "data").run()
        return {
            "faces": TRAIN + TEST,
            "rendering_seconds": round(rendered - start, 1),
            "preparing_seconds": round(time.perf_counter() - rendered, 1),
        }


if __name__ == "__main__":
    work(*sys.argv[1:])
