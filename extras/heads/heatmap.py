"""The heatmap head: a Gaussian a landmark on a fine map, decoded to a fraction of a cell (DARK, Zhang et al., CVPR
2020).

The published decoding smooths the map and expands its logarithm about the largest cell by finite differences. Here the
rows and columns of the 3 x 3 cells around that cell are averaged, and a parabola is fitted to each mean. On a Gaussian
both give the same result, and this one also works at the border.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from extras.heads.gaussian import log_gaussian, parabola_top
from nets.blocks import start_small
from nets.heads.base import Head, PointTargets, in_cells, weights_inside
from nets.labels import Labels, Prediction
from nets.necks import Pyramid

FLOOR = 1e-4  # lower bound of a map before its logarithm is taken


class HeatmapHead(Head):
    """A 1x1 convolution to one map a landmark; score_width: standard deviation of the Gaussian in cells, 0: 1.5.

    The map cannot show a landmark that lies half a cell or more outside the crop, so such a landmark is not trained.
    Raises ValueError for a map of fewer than 3 cells.
    """

    rows = {"score": 1}

    def __init__(self, channels: int, spec: dict, score_width: float = 0.0):
        super().__init__()
        size, stride = spec["input_size"], spec["stride"]
        if size < 3 * stride:
            raise ValueError(
                f"a heatmap of {size} px has fewer than 3 cells at stride {stride}; give a larger input_size or a "
                "smaller stride"
            )
        self.num_lms, self.reach, self.width = len(spec["meanface"]), 0.5 / (size // stride), score_width or 1.5
        self.score = nn.Conv2d(channels, self.num_lms, 1)
        start_small(self.score)

    @staticmethod
    def neck(backbone: Any, spec: dict) -> nn.Module:
        return Pyramid(backbone.channels, spec["stride"])

    def forward(self, features: Tensor) -> Tensor:
        """Return maps (B, N, H, W) from features (B, C, H, W)."""
        return self.score(features)

    def denominators(self, labels: Labels, grid: tuple[int, int]) -> dict[str, Tensor]:
        return {"score": weights_inside(labels, self.reach).sum()}

    def encode(self, labels: Labels, grid: tuple[int, int]) -> PointTargets:
        """Return places in cells."""
        return PointTargets(in_cells(labels.landmarks, grid), weights_inside(labels, self.reach))

    def loss(self, maps: Tensor, targets: PointTargets) -> dict[str, Tensor]:
        """Return {term: sum} of squared errors of the maps, each as a share of the Gaussian's own square."""
        maps, (height, width) = maps.float(), maps.shape[-2:]
        across = log_gaussian(targets.place[..., 0], width, self.width).exp()
        down = log_gaussian(targets.place[..., 1], height, self.width).exp()
        # (map - target)^2 without making the target. No einsum: autocast would round it, and the terms nearly cancel.
        correlation = ((maps * across[:, :, None]).sum(3) * down).sum(2)
        squares = maps.square().sum((2, 3)) - 2 * correlation + across.square().sum(2) * down.square().sum(2)
        return {"score": (targets.weight * squares).sum() / (math.pi * self.width**2)}

    def decode(self, maps: Tensor) -> Prediction:
        """Return landmarks in [0, 1] of the crop; a landmark's score is the largest value of its map."""
        (height, width), flat = maps.shape[-2:], maps.float().flatten(2)
        score, cell = flat.max(2)
        column = cell % width
        x = column.clamp(1, width - 2)
        # first cell of the row; not its number, because converters may give a quotient as a float, which is no index
        row = (cell - column).clamp(width, (height - 2) * width)
        rows = (
            torch.stack(
                [
                    flat.gather(2, (row + dy * width)[..., None] + torch.stack([x - 1, x, x + 1], -1))
                    for dy in (-1, 0, 1)
                ],
                2,
            )
            .clamp(min=FLOOR)
            .log()
        )  # (B, N, 3, 3)
        found = [middle + 0.5 + parabola_top(*rows.mean(axis).unbind(2)) for middle, axis in ((x, 2), (row / width, 3))]
        return Prediction(torch.stack([found[0] / width, found[1] / height], -1), score.clamp(0, 1))

    def scores(self, maps: Tensor) -> Tensor:
        return maps.float() / (math.pi**0.5 * self.width)
