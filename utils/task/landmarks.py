"""The landmark task as main.py calls it; `extras.detector.detect` has the same functions. All processes call them.

prepare(settings, sets, ranks, train, test): prepares and returns the sources to train on and to test on
show(sources, ranks, count, run): draws training samples as the net gets them; returns the text to print
train(sources, ranks, run, resume): trains in the run's folder
tests(sources, ranks, run, compare): returns the `Tests` of a run; compare: runs whose figures are shown too
"""

from utils.settings.extras import extra
from utils.settings.sections import ROUNDS
from utils.task.experiment import train_landmarks as train
from utils.task.sources import Sources, prepare
from utils.task.tested import landmark_tests as tests
from utils.train.ranks import Ranks
from utils.train.run_folder import Run

__all__ = ["prepare", "show", "tests", "train"]


def show(sources: Sources, ranks: Ranks, count: int, run: Run | None) -> str:
    """Draw `count` training faces of each set, and of the pseudo-labels of a run with --semi. Return the text to print."""
    texts = [extra("tools").show_sets(sources, ranks, count)]
    if run and sources.settings.train.semi in ROUNDS:
        texts.append(extra("semi").show_labels(sources, ranks, run, count))
    return "\n".join(filter(None, texts))
