"""--profile: how much time each phase of a training step takes."""

import time
from contextlib import contextmanager
from pathlib import Path

import torch
from loguru import logger
from torch.profiler import ProfilerActivity, profile, record_function

from pipnet.files import write_atomic
from utils.train.solver import Phases

SKIPPED = 5  # first steps, in which memory is allocated and kernels are chosen
STEPS = 20  # that are measured
NAMES = ("data", "forward", "backward", "optimiser")


class Profile(Phases):
    """Measures STEPS steps, logs the share of each phase and writes a trace that chrome://tracing and Perfetto show.

    The device is synchronised at the end of each phase, so that a phase holds its own work only. "idle" is the rest of
    the step: copies of labels and losses, sums over processes, Python between the phases. A training of fewer steps
    writes no trace, and says so.
    """

    def __init__(self, file: Path, device: torch.device):
        self.file, self.device, self.steps, self.start, self.wall = file, device, 0, 0.0, 0.0
        self.seconds = dict.fromkeys(NAMES, 0.0)
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        self.profiler = profile(activities=kinds)

    @contextmanager
    def __call__(self, name: str):
        start = time.perf_counter()
        if name == "data":
            self.start = start
        with record_function(name):
            yield
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        self.seconds[name] += time.perf_counter() - start

    def end_step(self) -> None:
        self.wall += time.perf_counter() - self.start
        self.steps += 1
        if self.steps == SKIPPED:
            self.wall, self.seconds = 0.0, dict.fromkeys(NAMES, 0.0)
            self.profiler.start()
        elif self.steps == SKIPPED + STEPS:
            self.profiler.stop()
            write_atomic(self.file, lambda path: self.profiler.export_chrome_trace(str(path)))
            logger.info(f"a step takes {1000 * self.wall / STEPS:.1f} ms: {self.shares()}; trace: {self.file}")

    def close(self) -> None:
        if self.steps < SKIPPED + STEPS:
            if self.steps >= SKIPPED:
                self.profiler.stop()  # it would crash at the end of the process
            logger.warning(
                f"there is no trace: --profile needs {SKIPPED + STEPS} steps, and only {self.steps} were trained; "
                "give a larger --epochs"
            )

    def shares(self) -> str:
        """Return the share of each phase in words."""
        seconds = {**self.seconds, "idle": self.wall - sum(self.seconds.values())}
        return ", ".join(f"{name} {100 * value / self.wall:.0f} %" for name, value in seconds.items())
