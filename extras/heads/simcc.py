"""The SimCC head: a landmark's x and y as two classifications (Li et al., ECCV 2022), in RTMPose's form (Jiang et al.,
2023).

Large filters give a vector for each landmark; one gated attention unit relates the landmarks; two linear maps lead to
bins.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from extras.heads.gaussian import log_gaussian, log_height, parabola_top
from nets.blocks import GatedAttention
from nets.heads.base import Head, PointTargets, weights_inside
from nets.labels import Labels, Prediction

BINS_A_PX = 2
MARGIN = 1 / 8  # of the crop; the bins cover it on each side too


class SimCCMaps(NamedTuple):
    """Logits x, y (B, N, bins) over the crop and its margin."""

    x: Tensor
    y: Tensor


class SimCCHead(Head):
    """score_width: standard deviation of the target in bins of half a px; 0: sqrt(input size / 8), as published.

    A landmark that lies more than an eighth of the crop outside it has no bin, so it is not trained.
    """

    rows = {"points": 1}

    def __init__(self, channels: int, spec: dict, score_width: float = 0.0, width: int = 256):
        super().__init__()
        size, cells = spec["input_size"], spec["input_size"] // spec["stride"]
        self.num_lms, self.width = len(spec["meanface"]), score_width or (size / 8) ** 0.5
        self.bins, self.step = round(size * BINS_A_PX * (1 + 2 * MARGIN)), max(round(self.width), 1)
        self.points = nn.Conv2d(channels, self.num_lms, 7, padding=3)
        self.embed = nn.Sequential(nn.LayerNorm(cells**2), nn.Linear(cells**2, width, bias=False))
        self.attention = GatedAttention(width)
        self.x, self.y = nn.Linear(width, self.bins, bias=False), nn.Linear(width, self.bins, bias=False)

    def forward(self, features: Tensor) -> SimCCMaps:
        """Return logits from features (B, C, H, W)."""
        vectors = self.attention(self.embed(self.points(features).flatten(2)))
        return SimCCMaps(self.x(vectors), self.y(vectors))

    def denominators(self, labels: Labels, grid: tuple[int, int]) -> dict[str, Tensor]:
        return {"score": weights_inside(labels, MARGIN).sum()}

    def encode(self, labels: Labels, grid: tuple[int, int]) -> PointTargets:
        """Return places in bins; the grid is not used."""
        return PointTargets((labels.landmarks + MARGIN) / (1 + 2 * MARGIN) * self.bins, weights_inside(labels, MARGIN))

    def loss(self, maps: SimCCMaps, targets: PointTargets) -> dict[str, Tensor]:
        """Return {term: sum} of Kullback-Leibler divergences of the predicted distributions from the Gaussians."""
        total = 0.0
        for axis, logits in enumerate(maps):
            wanted = log_gaussian(targets.place[..., axis], self.bins, self.width).log_softmax(-1)
            total = total + (wanted.exp() * (wanted - logits.float().log_softmax(-1))).sum(-1)
        return {"score": (targets.weight * total).sum()}

    def decode(self, maps: SimCCMaps) -> Prediction:
        """Return landmarks in [0, 1] of the crop; the score is 1 where both peaks are as high as those of the targets."""
        places, heights = [], []
        for logits in maps:
            logs = logits.float().log_softmax(-1)
            height, place = logs.max(-1)
            middle = place.clamp(self.step, self.bins - 1 - self.step)
            around = logs.gather(-1, torch.stack([middle - self.step, middle, middle + self.step], -1))
            places.append(middle + 0.5 + self.step * parabola_top(*around.unbind(-1)))
            heights.append(height)
        score = ((heights[0] + heights[1]) / 2 - log_height(self.width)).exp().clamp(0, 1)
        return Prediction(torch.stack(places, -1) / self.bins * (1 + 2 * MARGIN) - MARGIN, score)

    def scores(self, maps: SimCCMaps) -> Tensor:
        """Return (B, N, 2 bins), both distributions scaled so that the peaks of ideal ones are equally high."""
        logs = torch.cat([logits.float().log_softmax(-1) for logits in maps], -1) - log_height(self.width)
        return logs.exp() / (math.pi**0.5 * self.width) ** 0.5
