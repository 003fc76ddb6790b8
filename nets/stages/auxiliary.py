"""Auxiliary heads: head pose and the state of eyes and mouth, trained with the landmarks (Peppa's Slim)."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from nets.blocks import start_small
from nets.labels import Labels, Prediction

STATES = ("left_eye_closed", "right_eye_closed", "mouth_closed", "mouth_wide_open")  # left and right in the picture
SIZES = {"pose": 3, "states": len(STATES)}
TERMS = {
    "pose": {"pose": "pose"},  # {output: {term: the key of args.yaml that weighs it}}
    "states": dict(zip(STATES, ("eyes", "eyes", "mouth", "mouth"), strict=True)),
    "visible": {"visible": "visible"},  # of `Visibility`
    "face": {"face": "face"},  # of `FaceBranch`
}
QUARTER = math.pi / 2  # of the pose's outputs


class AuxiliaryHeads(nn.ModuleDict):
    """The outputs `pose` and `states`, each a linear map of the means of a feature map with `channels`.

    Pose is in radians, states are probabilities. A face whose pose or state is unknown does not train it.
    """

    def __init__(self, channels: int, outputs: list[str]):
        super().__init__({name: nn.Linear(channels, SIZES[name]) for name in outputs})
        start_small(*self.values())

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return pose (B, 3) in quarter turns and states (B, 4) as logits from features (B, C, H, W)."""
        if not len(self):
            return {}
        vector = features.mean((2, 3))
        return {name: layer(vector).float() for name, layer in self.items()}

    def denominators(self, labels: Labels) -> dict[str, Tensor]:
        """Return {term: number of faces with this label}."""
        counts = {}
        for name in self:
            counts |= self._by_term(name, self._targets(name, labels)[1])
        return counts

    def loss(self, features: Tensor, labels: Labels) -> dict[str, Tensor]:
        """Return {term: sum}: mean squared error of the pose in quarter turns, cross entropy of each state."""
        terms = {}
        for name, out in self(features).items():
            value, weight = self._targets(name, labels)
            if name == "pose":
                apart = out - value / QUARTER
                apart = apart - 4 * (apart / 4).round()  # of two rolls near 180 degrees the shorter way
                errors = apart.square().mean(1, keepdim=True)
            else:
                errors = F.binary_cross_entropy_with_logits(out, value, reduction="none")
            terms |= self._by_term(name, weight * errors)
        return terms

    def add(self, prediction: Prediction, features: Tensor) -> Prediction:
        """Return the prediction with pose and states of the same pictures."""
        out, found = self(features), {}
        if "pose" in out:
            found["pose"] = out["pose"] * QUARTER
        if "states" in out:
            found["states"] = out["states"].sigmoid()
        return prediction._replace(**found)

    @staticmethod
    def _targets(name: str, labels: Labels) -> tuple[Tensor, Tensor]:
        """Return the values (B, k) of an output and their weights, one a term (B, terms), all 0 where no label has it."""
        if getattr(labels, name) is None:
            zeros = labels.packed.new_zeros(len(labels.packed), SIZES[name])
            return zeros, zeros[:, : len(TERMS[name])]
        return getattr(labels, name), getattr(labels, f"{name}_weight")

    @staticmethod
    def _by_term(name: str, values: Tensor) -> dict[str, Tensor]:
        """Return {term: sum} of the values (B, terms) of an output."""
        return dict(zip(TERMS[name], values.sum(0).unbind(), strict=True))
