"""Auxiliary heads: head pose and the state of eyes and mouth, trained with the landmarks (Peppa's Slim)."""
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.heads.base import start_small
from nets.labels import Labels, Prediction

STATES = ("left_eye_closed", "right_eye_closed", "mouth_closed", "mouth_wide_open")  # left and right in the picture
SIZES = {"pose": 3, "states": len(STATES)}
TERMS = {"pose": {"pose": "pose"},  # {output: {term: the key of args.yaml that weighs it}}
         "states": dict(zip(STATES, ("eyes", "eyes", "mouth", "mouth"), strict=True))}
UNIT = math.pi / 2  # of the pose's outputs


class AuxiliaryHeads(nn.ModuleDict):
    """The outputs `pose` and `states`, each a linear map of the means of a feature map with `channels`.

    Pose is in radians, states are probabilities. A face whose pose or state is unknown (NaN or absent) does not train it.
    """

    def __init__(self, channels: int, outputs: list[str]):
        super().__init__({name: nn.Linear(channels, SIZES[name]) for name in outputs})
        start_small(*self.values())

    @property
    def terms(self) -> dict[str, str]:
        return {term: key for name in self for term, key in TERMS[name].items()}

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return pose (B, 3) in quarter turns and states (B, 4) as logits from features (B, C, H, W)."""
        vector = features.mean((2, 3))
        return {name: layer(vector).float() for name, layer in self.items()}

    def count(self, labels: Labels) -> dict[str, Tensor]:
        """Return {term: faces that have such a label}."""
        return {term: known.sum() for term, (_, known) in self._targets(labels).items()}

    def loss(self, features: Tensor, labels: Labels) -> dict[str, Tensor]:
        """Return {term: sum}: mean squared error of the pose in quarter turns, cross entropy of each state."""
        out, targets, terms = self(features), self._targets(labels), {}
        if "pose" in out:
            value, known = targets["pose"]
            terms["pose"] = (known * (out["pose"] - value / UNIT).square().mean(1)).sum()
        if "states" in out:
            for place, name in enumerate(STATES):
                value, known = targets[name]
                terms[name] = (known * F.binary_cross_entropy_with_logits(out["states"][:, place], value, reduction="none")).sum()
        return terms

    def add(self, prediction: Prediction, features: Tensor) -> Prediction:
        """Return the prediction with pose and states of the same pictures."""
        out, found = self(features), {}
        if "pose" in out:
            found["pose"] = out["pose"] * UNIT
        if "states" in out:
            found["states"] = out["states"].sigmoid()
        return prediction._replace(**found)

    def _targets(self, labels: Labels) -> dict[str, tuple[Tensor, Tensor]]:
        """Return {term: (value, (B,) 1 where it is known, else 0)}; unknown values are 0."""
        faces, found = labels.landmarks[:, 0, 0], {}
        for name in self:
            values = getattr(labels, name)
            values = faces.new_full((len(faces), SIZES[name]), torch.nan) if values is None else values
            parts = [values] if name == "pose" else values.unbind(1)
            for term, part in zip(TERMS[name], parts, strict=True):
                known = torch.isfinite(part.reshape(len(faces), -1)).all(1)
                found[term] = torch.nan_to_num(part), known.to(faces.dtype)
        return found
