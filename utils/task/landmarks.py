"""The landmark task as main.py calls it; `extras.detector.detect` has the same functions. All processes call them.

prepare(sets, ranks, train, test): prepares and returns the sets to train on and to test on
show(task_data, ranks, count, run): draws training samples as the net gets them; returns the text to print
train(task_data, ranks, run, resume): trains in the run's folder
tests(task_data, ranks, run, stored): returns the `Evaluation` of a run; stored: the values of its checkpoint, None: not read
yet
"""

from dataclasses import replace
from pathlib import Path

from loguru import logger

from utils.data.sets import Sets
from utils.settings import rooms
from utils.settings.rules import ROUNDS
from utils.task.check_sets import doubts
from utils.task.evaluation import landmark_evaluation as tests
from utils.task.experiment import train_landmarks as train
from utils.task.task_data import TaskData
from utils.task.task_data import prepare as prepare_sets
from utils.train.ranks import Ranks
from utils.train.run_folder import Run
from utils.train.settings import with_protocol

__all__ = ["prepare", "show", "tests", "train"]


def prepare(sets: Sets, ranks: Ranks, train: bool, test: bool) -> TaskData:
    """Return the sets of a run, see `utils.task.task_data.prepare`. Log what is doubtful about the training sets.

    Without --protocol, points that are learnt behind a net get such crops as that net was trained with.
    """
    prepared = prepare_sets(sets, ranks, train, test)
    settings = prepared.settings
    weights = Path(settings.net.weights)  # may be gone where a trained run is used
    begins = train and settings.trained_root is None and weights.is_file()
    if begins and rooms.tools and settings.train.freeze == "landmarks":
        misfit = ranks.agree(lambda: rooms.tools.fitting_crops(prepared))
        if misfit and sets.data.protocol:
            logger.warning(f"{misfit[0]}; leave --protocol out, and they are made as there")
        elif misfit:
            name, protocols = with_protocol(None, misfit[1], settings.protocols)
            logger.info(
                f"{misfit[0]}: they are made with protocol {name}, {misfit[1]} (--protocol square: as they were)"
            )
            data = replace(sets.data, protocol=name)
            sets = replace(sets, settings=sets.settings._replace(data=data, protocols=protocols))
            prepared = prepare_sets(sets, ranks, train, test)
    for line in doubts(prepared) if train and ranks.first else ():
        logger.warning(line)
    return prepared


def show(task_data: TaskData, ranks: Ranks, count: int, run: Run | None) -> str:
    """Draw `count` training faces of each set, and of the pseudo-labels of a run with --semi. Return the text to print."""
    texts = [rooms.tools.show_sets(task_data, ranks, count)]
    if run and task_data.settings.train.semi in ROUNDS:
        texts.append(rooms.semi.show_labels(task_data, ranks, run, count))
    return "\n".join(filter(None, texts))
