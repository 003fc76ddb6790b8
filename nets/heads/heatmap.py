"""The heatmap head: a Gaussian a landmark on a fine map, read to a fraction of a cell (DARK, Zhang et al., CVPR 2020).

The published decoding smooths the map and expands its logarithm about the largest cell by finite differences. Here the rows and
columns of the 3 x 3 cells round it are averaged, a parabola is put through each mean: for a Gaussian the same, at a border too.
"""
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nets.heads.base import Head
from nets.heads.peak import log_gaussian, parabola_top
from nets.labels import Labels, Prediction
from nets.necks import Pyramid

FLOOR = 1e-4  # of a map, below which its logarithm is not asked


class Targets(NamedTuple):
    """place (B, N, 2) in cells from the left upper corner of the map, weight (B, N), grid (H, W) in cells."""
    place: Tensor
    weight: Tensor
    grid: tuple[int, int]


class HeatmapHead(Head):
    """A 1x1 convolution to one map a landmark; score_width: standard deviation of the Gaussian in cells, 0: 1.5.

    A landmark half a cell outside the crop or more cannot be shown on the map: it is not trained.
    """

    strides = (4, 8, 16)
    keys = ("score_width",)
    terms = {"score": "cls"}
    rows = {"score": 1}

    def __init__(self, channels: int, num_lms: int, cells: int, score_width: float = 0.0):
        super().__init__()
        self.num_lms, self.reach, self.width = num_lms, 0.5 / cells, score_width or 1.5
        self.score = nn.Conv2d(channels, num_lms, 1)
        nn.init.normal_(self.score.weight, std=0.001)
        nn.init.zeros_(self.score.bias)

    @staticmethod
    def neck(channels: dict[int, int], stride: int) -> nn.Module:
        """All strides in one map."""
        return Pyramid(channels, stride)

    @classmethod
    def of(cls, channels: int, spec: dict) -> "HeatmapHead":
        """From the spec of a net. Raises ValueError for a map too small to read."""
        if spec["input_size"] < 3 * spec["stride"]:
            raise ValueError(f"a heatmap of {spec['input_size']} px has fewer than 3 cells at stride {spec['stride']}; "
                             "give a larger input_size or a smaller stride")
        return cls(channels, len(spec["meanface"]), spec["input_size"] // spec["stride"], **spec["options"])

    def forward(self, features: Tensor) -> Tensor:
        """features (B, C, H, W) -> maps (B, N, H, W)."""
        return self.score(features)

    def encode(self, labels: Labels, grid: tuple[int, int]) -> Targets:
        """Places on `grid` (H, W) cells."""
        known = torch.nan_to_num(labels.landmarks, nan=0.5, posinf=0.5, neginf=0.5)
        place = torch.stack([known[..., axis] * grid[1 - axis] for axis in (0, 1)], -1)
        return Targets(place, self._weight(labels), grid)

    def _weight(self, labels: Labels) -> Tensor:
        return labels.trainable() * ((labels.landmarks - 0.5).abs() < 0.5 + self.reach).all(-1)

    def count(self, labels: Labels) -> dict[str, Tensor]:
        """{term: count}, what divides the sums of `loss`."""
        return {"score": self._weight(labels).sum()}

    def loss(self, maps: Tensor, targets: Targets) -> dict[str, Tensor]:
        """{term: sum}: squared error of a landmark's map, as a share of the Gaussian's own square."""
        maps, (height, width) = maps.float(), targets.grid
        across = log_gaussian(targets.place[..., 0], width, self.width).exp()
        down = log_gaussian(targets.place[..., 1], height, self.width).exp()
        # (map - target)^2 without making the target; no einsum, which autocast would round: the terms nearly cancel
        correlation = ((maps * across[:, :, None]).sum(3) * down).sum(2)
        squares = maps.square().sum((2, 3)) - 2 * correlation + across.square().sum(2) * down.square().sum(2)
        return {"score": (targets.weight * squares).sum() / (math.pi * self.width ** 2)}

    def decode(self, maps: Tensor) -> Prediction:
        """Landmarks in [0, 1] of the crop, and the map's largest value as their score."""
        (height, width), flat = maps.shape[-2:], maps.float().flatten(2)
        score, cell = flat.max(2)
        x, y = (cell % width).clamp(1, width - 2), cell.div(width, rounding_mode="floor").clamp(1, height - 2)
        rows = torch.stack([flat.gather(2, (y + dy)[..., None] * width + torch.stack([x - 1, x, x + 1], -1))
                            for dy in (-1, 0, 1)], 2).clamp(min=FLOOR).log()  # (B, N, 3, 3)
        found = [middle + 0.5 + parabola_top(*rows.mean(axis).unbind(2)) for middle, axis in ((x, 2), (y, 3))]
        return Prediction(torch.stack([found[0] / width, found[1] / height], -1), score.clamp(0, 1))

    def scores(self, maps: Tensor) -> Tensor:
        """(B, N, H, W)."""
        return maps.float() / (math.pi ** 0.5 * self.width)

    def ideal(self, targets: Targets) -> Tensor:
        """Maps that decode to exactly the landmarks that `targets` were made of."""
        across, down = (log_gaussian(targets.place[..., axis], targets.grid[1 - axis], self.width) for axis in (0, 1))
        return (across[:, :, None] + down[..., None]).exp()
