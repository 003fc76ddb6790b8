"""Training speed against its upper bound: the same steps, fed by the loader and fed by batches in memory, in turn.

`memory_given_back` is the speed of the batches in memory without `keep_memory`, measured before.

`python benchmarks/speed.py [--input-size 128] ...` takes the flags of main.py.
"""
import sys
import time
from itertools import chain, islice
from statistics import median

import torch
from record import save

import main
from utils.config import parse, read_defaults
from utils.faces.batches import make_order
from utils.faces.loader import train_loader
from utils.tasks import task_class
from utils.tasks.settings import read_settings
from utils.train.batchnorm import share_batch_norm
from utils.train.ranks import keep_memory, set_threads, start_ranks, worker_count
from utils.train.solver import Solver

STEPS, ROUNDS = 20, 5


def start(flags: list[str], ranks=None) -> tuple:
    """Return (task, solver, order, loader) as a training with these flags of main.py has them before its first step."""
    defaults, ranks = read_defaults(), ranks or start_ranks()
    mode, given = parse(flags, main.add_modes, defaults)
    settings = read_settings({"dataset": "synthetic", **given}, mode, None, defaults)
    train = settings.train
    set_threads(train.threads, train.deterministic)
    task = task_class(train.task)(settings, defaults, ranks)
    task.prepare()
    data = task.training_data()
    order = make_order(len(data.samples), data.labelled, train, ranks.rank, ranks.count)
    net = task.make_net(False)[0]
    net = (share_batch_norm(net, ranks.device) if ranks.count > 1 else net).to(ranks.device, memory_format=torch.channels_last)
    solver = Solver(net, train, settings.loss, len(order) // train.accumulate, ranks)
    loader = train_loader(data.samples, order.epochs(0, 1 << 30), worker_count(train.workers), ranks.device.type == "cuda")
    return task, solver, order, loader


def measure(flags: list[str]) -> dict:
    """Return images/s of both, medians over the rounds. flags: of main.py."""
    task, solver, order, loader = start(flags)
    settings = task.settings
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
    return {"net": settings.net.net, "input_size": settings.net.input_size, "batch_size": order.batch,
            "images_per_second": round(median(fed), 1), "pure_compute": round(median(pure), 1),
            "memory_given_back": round(median(given_back), 1),
            "ratio": round(median(f / p for f, p in zip(fed, pure, strict=True)), 3)}


if __name__ == "__main__":
    save("speed", "python benchmarks/speed.py " + " ".join(sys.argv[1:]), 0, measure(sys.argv[1:]))
