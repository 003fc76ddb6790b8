"""The training and the tests of a face detector, as main.py calls them; `utils.task.landmarks` describes the functions."""

from argparse import Namespace
from typing import Any

from extras.detector.evaluation import DetectorEvaluation
from extras.detector.experiment import PictureSets, detector_experiment, prepare
from extras.detector.show import show
from pipnet.errors import UserError
from utils.train import checkpoint
from utils.train.loop import train as train_experiment
from utils.train.ranks import Ranks
from utils.train.run_folder import Run

__all__ = ["check", "prepare", "show", "tests", "train"]


def check(mode: Namespace) -> None:
    """Raise UserError for a mode that only landmark nets have."""
    if mode.audit:
        raise UserError("--audit judges landmarks; leave it out of --task detect")
    if mode.predict:
        raise UserError("--predict is for landmark nets; demo.py --detector-weights shows what a detector finds")
    if mode.compare:
        raise UserError("--compare is for landmark nets; leave it out of --task detect")


def train(task_data: PictureSets, ranks: Ranks, run: Run, resume: bool) -> None:
    """Train a detector in the run's folder."""
    train_experiment(detector_experiment(task_data), run, ranks, resume)


def tests(
    task_data: PictureSets, ranks: Ranks, run: Run, compare: list[Run], stored: dict[str, Any] | None
) -> DetectorEvaluation:
    """Return the tests of a run."""
    return DetectorEvaluation(task_data, run, stored or checkpoint.load(run.weights))
