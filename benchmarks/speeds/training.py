"""Training speed against its upper bound: the same steps, fed as in a training and fed by batches in device memory, in
turn.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import cycle, islice
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import extras  # noqa: F401 fills the tables of the core
from utils.data.batches import Batch, Shuffle
from utils.data.sets import Sets
from utils.settings.command import Command
from utils.task.experiment import landmark_experiment
from utils.task.task_data import prepare
from utils.train.experiment import Experiment
from utils.train.loop import make_loader, make_solver
from utils.train.ranks import Ranks, keep_memory, set_threads, start_ranks
from utils.train.run_folder import Run
from utils.train.settings import settings_of
from utils.train.solver import Solver
from utils.train.step_values import one_behind

# a figure is that of at least so many steps and seconds, the median of so many of them
STEPS, SECONDS, ROUNDS = 20, 1.0, 5
TRACED = 5  # steps


def begin(flags: Sequence[str], ranks: Ranks) -> tuple[Experiment, Solver, Shuffle, Any]:
    """Return experiment, solver, order and loader, as a training with these flags of main.py has them before its first
    step.
    """
    command = Command.of(["--train", *flags])
    if "train_data" not in command.given:
        command = command.with_values({"dataset": "synthetic", **command.given})
    settings = settings_of(command)
    set_threads(settings.train.threads, settings.train.deterministic)
    sources = prepare(Sets(settings, command.defaults), ranks, True, False)
    experiment = landmark_experiment(sources, ranks)
    with tempfile.TemporaryDirectory() as folder:
        solver, order, _ = make_solver(experiment, Run(Path(folder), Path(folder) / "best.pt"), ranks, False)
    loader = make_loader(experiment.samples.batches, order.epochs(0, 1 << 30), settings.train, ranks.device)
    return experiment, solver, order, loader


def training(*flags: str, rounds: int = ROUNDS) -> dict:
    """Return images/s of both, medians over the rounds, and what `traced` says of a step. flags: of main.py."""
    *begun, loader = begin(flags, start_ranks())
    with closing(loader):
        return measured(*begun, loader, rounds)


def measured(experiment: Experiment, solver: Solver, order: Shuffle, loader: Any, rounds: int) -> dict:
    """Return the figures of a training that has begun."""
    net, device = experiment.settings.net, solver.ranks.device
    solver.begin()
    feed = iter(loader)
    ready = [Batch(images.to(device), labels.to(device), index) for images, labels, index in islice(feed, STEPS)]

    def seconds(batches) -> float:
        """Take steps as the loop of a training does. Reading the last losses waits for the device."""
        begun = time.perf_counter()
        for losses in one_behind(solver.train_step([batch]) for batch in batches):
            losses.read()
        return time.perf_counter() - begun

    seconds(ready)  # kernels are chosen, graphs are captured
    keep_memory()
    steps = max(STEPS, ceil(SECONDS * STEPS / seconds(ready)))
    ahead = loader.num_workers and loader.num_workers * loader.prefetch_factor
    fed, pure = [], []
    for _ in range(rounds):
        seconds(islice(feed, 3 + 2 * ahead))  # uses up the batches that were made while none were taken
        fed.append(steps * order.batch / seconds(islice(feed, steps)))
        pure.append(steps * order.batch / seconds(islice(cycle(ready), steps)))
    found = {
        "net": net.net,
        "input_size": net.input_size,
        "batch_size": order.batch,
        "images_per_second": round(median(fed), 1),
        "pure_compute": round(median(pure), 1),
        "ratio": round(median(f / p for f, p in zip(fed, pure, strict=True)), 3),
    }
    if device.type == "cuda":
        own = sum(batch.images.nbytes for batch in ready)  # which a training has not
        found["peak_gib"] = round((torch.cuda.max_memory_allocated() - own) / 2**30, 2)
    return found | traced(lambda: seconds(islice(cycle(ready), TRACED)), device)


def traced(steps, device: torch.device) -> dict:
    """Return what one of TRACED steps is made of: operators of torch, and on a GPU launches, kernels and their time in
    ms.
    """
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=kinds) as profiler:
        steps()
    with tempfile.TemporaryDirectory() as folder:
        profiler.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    found = {"operators": sum(event.get("cat") == "cpu_op" for event in events) // TRACED}
    if device.type == "cuda":
        work = [event for event in events if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
        calls = [event for event in events if event.get("cat") in ("cuda_runtime", "cuda_driver")]
        found |= {
            "launches": sum("Launch" in event["name"] for event in calls) // TRACED,
            "kernels": sum(event["cat"] == "kernel" for event in work) // TRACED,
            "device_ms": round(sum(event["dur"] for event in work) / 1000 / TRACED, 2),
        }
    return found
