"""Training speed against its upper bound: the same steps, fed by the loader and fed by batches in memory, in turn.

`memory_given_back` is the speed of the batches in memory without `keep_memory`, measured before.

`python benchmarks/speed.py [--input-size 128] ...` takes the flags of main.py.
"""
import sys
import tempfile
import time
from itertools import chain, islice
from pathlib import Path
from statistics import median

from record import save
from torch.utils.data import DataLoader

from utils.config import parse, read_defaults
from utils.faces.batches import Order
from utils.faces.loader import train_loader
from utils.faces.sets import Sets
from utils.landmarks.experiment import landmarks
from utils.landmarks.sources import prepare
from utils.modes import add_modes
from utils.train.experiment import Experiment
from utils.train.loop import start
from utils.train.ranks import Ranks, keep_memory, set_threads, start_ranks, worker_count
from utils.train.run_folder import Run
from utils.train.settings import read_settings
from utils.train.solver import Solver

STEPS, ROUNDS = 20, 5


def begin(flags: list[str], ranks: Ranks) -> tuple[Experiment, Solver, Order, DataLoader]:
    """Return experiment, solver, order and loader, as a training with these flags of main.py has them before its first step."""
    defaults = read_defaults()
    mode, given = parse(flags, add_modes, defaults)
    settings = read_settings({"dataset": "synthetic", **given}, mode, None, defaults)
    set_threads(settings.train.threads, settings.train.deterministic)
    sources = prepare(settings, Sets(settings, defaults), ranks, True, False)
    experiment = landmarks(sources, ranks)
    with tempfile.TemporaryDirectory() as folder:
        solver, order = start(experiment, Run(Path(folder), Path(folder) / "best.pt"), ranks, False)
    loader = train_loader(experiment.samples.batches, order.epochs(0, 1 << 30), worker_count(settings.train.workers),
                          ranks.device.type == "cuda")
    return experiment, solver, order, loader


def measure(flags: list[str]) -> dict:
    """Return images/s of both, medians over the rounds. flags: of main.py."""
    experiment, solver, order, loader = begin(flags, start_ranks())
    net = experiment.settings.net
    solver.begin()
    ready = list(islice(loader, STEPS))

    def timed(batches) -> float:
        begun = time.perf_counter()
        for batch in batches:
            losses = solver.train_step([batch])
        losses.read()
        return STEPS * order.batch / (time.perf_counter() - begun)

    timed(ready[:3])
    given_back = [timed(ready) for _ in range(ROUNDS)]
    keep_memory()
    timed(ready[:3])
    fed, pure = [], []
    for _ in range(ROUNDS):
        batches = iter(loader)
        first = next(batches)  # starting the workers is not part of a step
        fed.append(timed(chain([first], islice(batches, STEPS - 1))))
        pure.append(timed(ready))
    return {"net": net.net, "input_size": net.input_size, "batch_size": order.batch,
            "images_per_second": round(median(fed), 1), "pure_compute": round(median(pure), 1),
            "memory_given_back": round(median(given_back), 1),
            "ratio": round(median(f / p for f, p in zip(fed, pure, strict=True)), 3)}


if __name__ == "__main__":
    save("speed", "python benchmarks/speed.py " + " ".join(sys.argv[1:]), 0, measure(sys.argv[1:]))
