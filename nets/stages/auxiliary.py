"""Outputs beside the landmarks: their losses, and the heads of pose and states (Peppa's Slim).

An output has (B, k) numbers: the pose in quarter turns, all others logits of probabilities. A label that is unknown
trains nothing.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from nets.blocks import start_small
from nets.labels import Labels
from nets.registry import STATES, TERMS

SIZES = {"pose": 3, "states": len(STATES)}
QUARTER = math.pi / 2  # of the pose's outputs


class AuxiliaryHeads(nn.ModuleDict):
    """The outputs `pose` and `states`, each a linear map of the means of a feature map with `channels`."""

    def __init__(self, channels: int, outputs: list[str]):
        super().__init__({name: nn.Linear(channels, SIZES[name]) for name in outputs})
        start_small(*self.values())

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return pose (B, 3) in quarter turns and states (B, 4) as logits from features (B, C, H, W)."""
        if not len(self):
            return {}
        vector = features.mean((2, 3))
        return {name: layer(vector).float() for name, layer in self.items()}


def counts(name: str, labels: Labels, size: int) -> dict[str, Tensor]:
    """Return {term: number of labels} of an output of `size` numbers, those that are known."""
    return by_term(name, labels.known(name, size)[1])


def losses(name: str, out: Tensor, labels: Labels) -> dict[str, Tensor]:
    """Return {term: sum} of an output (B, k): mean squared error of the pose in quarter turns, else cross entropies."""
    value, weight = labels.known(name, out.shape[1])
    if name == "pose":
        apart = out - value / QUARTER
        apart = apart - 4 * (apart / 4).round()  # of two rolls near 180 degrees the shorter way
        errors = apart.square().mean(1, keepdim=True)
    else:
        errors = F.binary_cross_entropy_with_logits(out, value, reduction="none")
    return by_term(name, weight * errors)


def decoded(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the fields of a `Prediction` from outputs: the pose in radians, probabilities."""
    found = {name: out * QUARTER if name == "pose" else out.sigmoid() for name, out in outputs.items()}
    if "face" in found:
        found["face"] = found["face"].squeeze(1)
    return found


def by_term(name: str, values: Tensor) -> dict[str, Tensor]:
    """Return {term: sum} of values (B, k) of an output; with several terms, each is the sum of a column."""
    terms = TERMS[name]
    return dict(zip(terms, values.sum(0).unbind() if len(terms) > 1 else [values.sum()], strict=True))
