"""The coordinate head: a net says where each landmark is, without maps; one vector for all of them.

Landmarks are the meanface plus what the net adds, in eighths of the crop: 32 px of a 256 px crop, the unit in which the errors of
the PIP head are measured too, so that forms and weights of the loss mean the same.
"""
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nets.heads.base import Head
from nets.labels import Labels, Prediction
from nets.losses import ERRORS

UNIT = 1 / 8  # of the crop


class Maps(NamedTuple):
    """landmarks (B, N, 2) in [0, 1] of the crop; spread (B, N): logarithm of the error to expect, in eighths of it, or None."""
    landmarks: Tensor
    spread: Tensor | None = None


class Targets(NamedTuple):
    """landmarks (B, N, 2) in [0, 1] of the crop, weight (B, N)."""
    landmarks: Tensor
    weight: Tensor


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate made of their means (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, reduction: int = 8):
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels // reduction, 1), nn.ReLU(),
                                  nn.Conv2d(channels // reduction, channels, 1), nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        return features * self.gate(features)


class CoordinateHead(Head):
    """A feature map of `channels` and `cells` (H = W) reduced to a vector, then one linear map to all coordinates.

    pool: average (of all cells), or depthwise (a filter a channel over all cells, batch norm after it and after the linear map);
    excite: squeeze-excite before; error: a name in nets/losses.py; sigma: another linear map predicts how far off each landmark
    is (Laplace likelihood). The score is one: a head without maps has no opinion of itself but sigma.
    """

    keys = ("error", "pool", "excite", "sigma")
    terms = {"coordinate": "reg", "spread": "sigma"}
    rows = {"output": 2, "norm": 2, "spread": 1}

    def __init__(self, channels: int, meanface: list[list[float]], cells: int, error: str = "l1", pool: str = "average",
                 excite: bool = False, sigma: bool = False):
        super().__init__()
        self.error, self.num_lms, self.cells = ERRORS[error], len(meanface), cells
        self.excite = SqueezeExcite(channels) if excite else nn.Identity()
        filters = [nn.Conv2d(channels, channels, cells, groups=channels, bias=False), nn.BatchNorm2d(channels)]
        self.pool = nn.AdaptiveAvgPool2d(1) if pool == "average" else nn.Sequential(*filters)
        self.output = nn.Conv2d(channels, 2 * self.num_lms, 1)
        self.norm = nn.Identity() if pool == "average" else nn.BatchNorm2d(2 * self.num_lms)
        self.spread = nn.Conv2d(channels, self.num_lms, 1) if sigma else None
        for conv in [self.output] + [self.spread] * sigma:
            nn.init.normal_(conv.weight, std=0.001)
            nn.init.zeros_(conv.bias)
        if pool != "average":  # of any input: what leaves it varies by this much
            nn.init.constant_(self.norm.weight, 0.5)
        self.register_buffer("meanface", torch.tensor(meanface, dtype=torch.float32), persistent=False)

    @classmethod
    def of(cls, channels: int, spec: dict) -> "CoordinateHead":
        """From the spec of a net."""
        return cls(channels, spec["meanface"], -(-spec["input_size"] // spec["stride"]), **spec["options"])

    def forward(self, features: Tensor) -> Maps:
        """features (B, C, H, W)."""
        vector = self.pool(self.excite(features))
        moved = self.norm(self.output(vector)).float().reshape(-1, self.num_lms, 2)
        spread = self.spread(vector).float().flatten(1).clamp(-8, 4) if self.spread else None
        return Maps(self.meanface + UNIT * moved, spread)

    def encode(self, labels: Labels, grid: tuple[int, int]) -> Targets:
        """The landmarks themselves; the grid says nothing here."""
        return Targets(torch.nan_to_num(labels.landmarks, nan=0.5, posinf=0.5, neginf=0.5), labels.trainable())

    def count(self, labels: Labels) -> dict[str, Tensor]:
        """{term: count}, what divides the sums of `loss`."""
        weight = labels.trainable().sum()
        return {"coordinate": weight, "spread": weight} if self.spread else {"coordinate": weight}

    def loss(self, maps: Maps, targets: Targets) -> dict[str, Tensor]:
        """{term: sum}: errors of x and y, in eighths of the crop."""
        errors = (maps.landmarks - targets.landmarks).abs() / UNIT
        terms = {"coordinate": (targets.weight * self.error(errors).sum(-1)).sum()}
        if maps.spread is not None:  # as the PIP head's, see there
            scale = maps.spread.exp()
            terms["spread"] = (targets.weight * scale.detach() * (errors.detach().mean(-1) / scale + maps.spread)).sum()
        return terms

    def decode(self, maps: Maps) -> Prediction:
        """Landmarks in [0, 1] of the crop, score one, and sigma where it is predicted."""
        sigma = None if maps.spread is None else UNIT * maps.spread.exp()
        return Prediction(maps.landmarks, torch.ones_like(maps.landmarks[..., 0]), sigma)

    def ideal(self, targets: Targets) -> Maps:
        """Maps that decode to exactly the landmarks that `targets` were made of."""
        return Maps(targets.landmarks, torch.zeros_like(targets.weight) if self.spread else None)
