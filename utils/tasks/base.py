"""The interface of a task: data, net, validation, tests and export. train/loop.py and test/run_tests.py use it."""
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipnet.errors import UserError
from utils.config import Defaults, Settings
from utils.data.sets import Sets
from utils.train.ranks import Ranks


def check_finite(state: dict[str, Tensor]) -> None:
    """Raise UserError for weights that are not finite."""
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise UserError("the weights are not finite: the net has diverged, lower --learning-rate")


class Training(NamedTuple):
    """Data of a training. samples: item (epoch, index), with `names` for errors; collate: samples -> batch; checksums: of the
    sets; words: for the log."""

    samples: Dataset
    collate: Callable
    checksums: list[str]
    words: str


class Tests:
    """Tests of one run's weights.

    agreement                 how much the figures of an export may differ from those of torch
    torch_model()             the net with the run's weights, as `evaluate` takes it
    export(), onnx_model()    write the ONNX file unless it is newer than the weights; the file, as `evaluate` takes it
    cases()                   yield what is evaluated, one case after the other
    evaluate(model, case)     the result; with several processes each does its share and all get it
    differences(case, a, b)   absolute differences of the figures of two results
    add(case, name, result)   put a result into the report
    close()                   write the report; the tables and the places of the files as text
    """

    agreement: float


class Task:
    """Something to train.

    figure                    column of step.csv that picks best.pt, lower is better; says: how the log writes it
    excludes                  {mode of main.py that the task does not have: message}
    title                     net, preset and size in words
    prepare(), prepare_tests() prepare the training sets; the test sets, UserError if they cannot be tested on
    show(count)               draw training samples as the net gets them; text to print. All processes call it
    training_data()           load training and validation data -> Training
    make_net(resume)          the net, and the origin of its weights (`Started`); a resumed net gets its weights later
    description()             what inference needs beside the net, layout and protocol among it, for the checkpoint
    validate(solver)          (weights to keep, validation figure; NaN without validation data)
    tests(run, compare)       `Tests` of a run; compare: runs whose reports are shown beside
    """

    figure: str
    says: str
    excludes: dict[str, str] = {}

    def __init__(self, settings: Settings, defaults: Defaults, ranks: Ranks):
        self.settings, self.ranks = settings, ranks
        self.sets = Sets(settings.data, settings.layouts, defaults)
