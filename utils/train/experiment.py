"""An experiment: what a training is made of. The loop, resuming, folds of an audit and rounds of --semi take it."""
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from nets import Trainable
from pipnet.errors import UserError
from utils.config import Settings
from utils.train.initialise import Started
from utils.train.solver import Solver


class Samples(NamedTuple):
    """Training samples. batches: item (passes, indices) is a batch, with `name(index)` of a sample for errors; checksums: of
    the sets; words: for the log; labelled: only the first so many samples are labelled, None: there is one kind."""

    batches: Dataset
    checksums: list[str]
    words: str
    labelled: int | None = None


class Validated(NamedTuple):
    """The weights to keep, their validation figure (NaN without validation data), and what inference takes from its faces."""

    state: dict[str, Tensor]
    figure: float
    limits: dict[str, float] = {}


class Experiment(NamedTuple):
    """A training, before its first step. It is made by `utils.landmarks.experiment` and `utils.detect.experiment`.

    title: net, preset and size in words
    figure: column of step.csv that picks best.pt, lower is better; says: how the log writes it
    net(resume): the net, and the origin of its weights; a resumed net gets its weights later
    description: what inference needs beside the net, layout and protocol among it, for the checkpoint
    validator(solver): a function that validates the solver's weights, all processes together
    """

    settings: Settings
    title: str
    figure: str
    says: str
    samples: Samples
    net: Callable[[bool], tuple[Trainable, Started]]
    description: dict[str, Any]
    validator: Callable[[Solver], Callable[[], Validated]]


def check_finite(state: dict[str, Tensor]) -> None:
    """Raise UserError for weights that are not finite."""
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise UserError("the weights are not finite: the net has diverged, lower --learning-rate")
