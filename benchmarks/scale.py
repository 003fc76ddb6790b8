"""Training on large sets: `python benchmarks/scale.py [FACES ...]` measures sets of 1,000, 10,000 and 100,000 faces.

The crops are those of a few drawn faces, again and again, 128 px, with 68, 98 or 106 landmarks; 1 and 2 processes. For each:
images/s, the private memory of the first process and its loaders (not the page cache), seconds from the start of Python to the
first step and, with a checkpoint to load, to the first step after it, and the time of an evaluation over that of bare forward
passes on the same pictures.
"""
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BEGUN = time.time()  # before torch is loaded

import numpy as np  # noqa: E402
from record import ROOT, save  # noqa: E402

FACES, LANDMARKS, PROCESSES = (1000, 10_000, 100_000), (68, 98, 106), (1, 2)
DRAWN = 200        # different faces
STEPS, TESTED = 20, 512
FLAGS = ["--train", "--input-size", "128", "--weights", "none", "--batch-size", "16", "--val", "none"]


def raw_set(folder: Path, count: int) -> None:
    """Write drawn faces with `count` landmarks: 68, and points between them."""
    from utils.faces.archives import read_pts, write_pts
    from utils.synthetic import generate

    generate(folder / "drawn", DRAWN, 0, size=160)
    (folder / "raw" / "train").mkdir(parents=True)
    for number, file in enumerate(sorted((folder / "drawn").rglob("*.pts"))):
        points = read_pts(file)
        more = [(points[index] + points[index + 1]) / 2 for index in range(count - len(points))]
        write_pts(folder / "raw" / "train" / f"{number:04d}.pts", np.concatenate([points, np.reshape(more, (-1, 2))]))
        os.link(file.with_suffix(".jpg"), folder / "raw" / "train" / f"{number:04d}.jpg")


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
            column[start:start + len(values)] = values[:faces - start]
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
    from speed import begin

    from pipnet.layout import Layout
    from utils.evaluate.evaluate import evaluate, torch_predictor
    from utils.faces.batches import test_batches
    from utils.train import checkpoint
    from utils.train.ranks import start_ranks

    alone = private_mb()
    ranks = start_ranks()
    places = ["--train-data", str(Path(folder, name)), "--run-root", folder]
    experiment, solver, order, loader = begin([*FLAGS, *places], ranks)
    solver.net.train()
    batches = iter(loader)
    solver.train_step([next(batches)]).read()
    first = time.time() - BEGUN
    begun = time.perf_counter()
    for _ in range(STEPS):
        losses = solver.train_step([next(batches)])
    losses.read()
    speed = STEPS * order.batch * ranks.count / (time.perf_counter() - begun)
    memory = private_mb()
    begun = time.perf_counter()
    if ranks.first:
        checkpoint.save(Path(folder) / "last.pt", solver.state_dict())
    ranks.wait()
    begun = time.perf_counter()
    solver.load_state_dict(torch.load(Path(folder) / "last.pt", weights_only=True))
    load = time.perf_counter() - begun
    if ranks.first:
        faces, test = experiment.samples.batches.faces, experiment.settings.test
        faces = faces.only(np.arange(min(TESTED, len(faces))))
        predict = torch_predictor(solver.net, ranks.device)
        batches = [batch.images for batch in test_batches(faces, test.test_batch_size)]
        times = []
        for _ in range(2):  # the first round warms up
            begun = time.perf_counter()
            for images in batches:
                predict(images)
            middle = time.perf_counter()
            evaluate(predict, faces, Layout.from_dict(experiment.description["layout"]), "box", test.test_batch_size)
            times.append((time.perf_counter() - middle) / (middle - begun))
        print("FIGURES " + json.dumps({
            "images_per_second": round(speed, 1), "private_mb": round(memory), "private_mb_of_the_packages": round(alone),
            "seconds_to_first_step": round(first, 1), "seconds_to_resume": round(first + load, 1),
            "evaluation_over_forward": round(times[-1], 3)}), flush=True)
    ranks.wait()


def launched(ranks: int, folder: Path, name: str) -> dict:
    """Return what the first of `ranks` processes measures. Stop if one fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    command = [sys.executable, __file__, "work", str(folder), name]
    begun = []
    for rank in range(ranks):
        place = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "RANK": rank, "LOCAL_RANK": rank}
        env = {**os.environ, **where, **{key: str(value) for key, value in place.items()}}
        begun.append(subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, env=env))
    said = [process.communicate()[0] for process in begun][0]
    if any(process.returncode for process in begun):
        sys.exit("a process has failed")
    return json.loads(next(line.removeprefix("FIGURES ") for line in said.splitlines() if line.startswith("FIGURES ")))


def measure(sizes: list[int], landmarks=LANDMARKS, processes=PROCESSES) -> dict:
    """Return {"FACES faces, N landmarks, P processes": figures}."""
    from utils import DataGenerator

    found = {}
    for count in landmarks:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            raw_set(folder, count)
            prepared = Path(DataGenerator(folder / "raw", 128, "points", "drawn", folder / "data", val=0.0).run())
            for faces in sizes:
                repeated(prepared, folder / "data" / f"faces{faces}", faces)
                for ranks in processes:
                    figures = launched(ranks, folder / "data", f"faces{faces}")
                    found[f"{faces} faces, {count} landmarks, {ranks} processes"] = figures
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(*sys.argv[2:])
    else:
        sizes = list(map(int, sys.argv[1:])) or list(FACES)
        save("scale", " ".join(["python benchmarks/scale.py", *sys.argv[1:]]), 0, {"sets": measure(sizes)})
