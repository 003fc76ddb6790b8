"""The functions of each --task, which main.py calls."""

from collections.abc import Callable
from typing import NamedTuple

from extras.detector import experiment as detector
from extras.detector.show import show
from extras.detector.tested import DetectorTests
from extras.tools.show import show_sets
from utils.task import sources as landmarks
from utils.task.experiment import train_landmarks
from utils.task.tested import landmark_tests
from utils.train import checkpoint
from utils.train.loop import train


class Task(NamedTuple):
    """Functions of a task, which all processes call.
    excludes: {mode that the task does not have: message of the error}.

    prepare(settings, sets, ranks, train, test): prepares and returns the sources to train on and to test on
    show(sources, ranks, count, run): draws training samples as the net gets them; returns the text to print
    train(sources, ranks, run, resume): trains in the run's folder
    tests(sources, ranks, run, compare): returns the `Tests` of a run; compare: runs whose figures are shown too
    """

    prepare: Callable
    show: Callable
    train: Callable
    tests: Callable
    excludes: dict[str, str] = {}


TASKS = {
    "landmarks": Task(landmarks.prepare, show_sets, train_landmarks, landmark_tests),
    "detect": Task(
        detector.prepare,
        lambda sources, ranks, count, _: show(sources, count),
        lambda sources, ranks, run, resume: train(detector.detector_experiment(sources), run, ranks, resume),
        lambda sources, ranks, run, _: DetectorTests(sources, run, checkpoint.load(run.weights)),
        {
            "audit": "--audit judges landmarks; leave it out of --task detect",
            "predict": "--predict is for landmark nets; demo.py --detector-weights shows what a detector finds",
            "compare": "--compare is for landmark nets; leave it out of --task detect",
        },
    ),
}
