"""An experiment: everything that a training needs.
The training loop, each fold of --audit and each round of --semi take one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nets import Trainable
from pipnet.errors import UserError
from utils.settings.config import Settings
from utils.train.initialise import InitialWeights
from utils.train.solver import Solver


class TrainingSet(NamedTuple):
    """Training samples.

    batches: `batches[passes, indices]` is a batch; `batches.name(index)` names a sample in errors
    checksums: of the prepared sets
    words: a description for the log
    labelled: number of labelled samples, which come before the unlabelled ones; None: all are labelled
    unlabelled_share: share of each batch that is unlabelled, if there are such samples
    shares: (number of samples, share of the batches) of each set of labelled samples, in order; empty: sets are not
    told apart
    """

    batches: Any
    checksums: list[str]
    words: str
    labelled: int | None = None
    unlabelled_share: float = 0.0
    shares: tuple[tuple[int, float], ...] = ()


class ValidationResult(NamedTuple):
    """The result of a validation.

    state: the weights to save
    figures: {column of step.csv: validation figure}; NaN without validation data
    limits: values for inference that were measured on the validation faces, see `LandmarkNet`
    pictures: {name: BGR uint8 (H, W, 3)} of the worst faces, for --log; only in the first process
    """

    state: dict[str, Tensor]
    figures: dict[str, float]
    limits: dict[str, Any] = {}
    pictures: dict[str, np.ndarray] = {}


class Experiment(NamedTuple):
    """A training before its first step. `utils.task.experiment` and `extras.detector.experiment` make it.

    title: net, preset and size in words
    figure: the column of step.csv that picks best.pt; lower is better
    says: format of this figure in the log
    net(last): returns the net and the origin of its weights. last: None, or the checkpoint of a run that is resumed, whose
        net gets its weights later
    description: what inference needs besides the net, such as layout and protocol; stored in the checkpoint
    validator(solver): returns a function that validates the solver's weights in all processes together
    """

    settings: Settings
    title: str
    figure: str
    says: str
    samples: TrainingSet
    net: Callable[[Path | None], tuple[Trainable, InitialWeights]]
    description: dict[str, Any]
    validator: Callable[[Solver], Callable[[], ValidationResult]]


def check_finite(state: dict[str, Tensor]) -> None:
    """Raise UserError if a weight of the state dict is not finite."""
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise UserError("the weights are not finite: the net has diverged, lower --learning-rate")
