"""The training and the tests of a face detector, as main.py calls them; `utils.task.landmarks` describes the functions."""

from typing import Any

from extras.detector.evaluation import DetectorEvaluation
from extras.detector.experiment import PictureSets, detector_experiment, prepare
from extras.detector.show import show
from utils.train import checkpoint
from utils.train.loop import train as train_experiment
from utils.train.ranks import Ranks
from utils.train.run_folder import Run

__all__ = ["prepare", "show", "tests", "train"]


def train(task_data: PictureSets, ranks: Ranks, run: Run, resume: bool) -> None:
    """Train a detector in the run's folder."""
    train_experiment(detector_experiment(task_data), run, ranks, resume)


def tests(task_data: PictureSets, ranks: Ranks, run: Run, stored: dict[str, Any] | None) -> DetectorEvaluation:
    """Return the tests of a run."""
    return DetectorEvaluation(task_data, run, stored or checkpoint.load(run.weights))
