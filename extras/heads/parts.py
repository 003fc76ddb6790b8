"""The head `parts`: coordinates group by group (the IRNet fork's PHA-REGR)."""

import torch
from torch import Tensor, nn

from nets.blocks import SqueezeExcite, start_small
from nets.heads.coordinate import UNIT, CoordinateMaps, RegressionHead

WIDTH = 128


class PartsHead(RegressionHead):
    """One branch for each group of landmarks: a gate, a 1x1 convolution and a linear map.

    spec["groups"]: the landmarks of each group, every landmark in one group; without it all are in one.
    """

    order: Tensor

    def __init__(self, channels: int, spec: dict, error: str = "l1"):
        super().__init__(spec["meanface"], error)
        groups = spec.get("groups") or [list(range(self.num_lms))]
        branches = [
            nn.Sequential(
                SqueezeExcite(channels),
                nn.Conv2d(channels, WIDTH, 1, bias=False),
                nn.BatchNorm2d(WIDTH),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(WIDTH, 2 * len(ids), 1),
            )
            for ids in groups
        ]
        self.branches = nn.ModuleList(branches)
        start_small(*(branch[-1] for branch in branches))
        order = torch.tensor([i for ids in groups for i in ids]).argsort()  # of landmarks in the branches' outputs
        self.register_buffer("order", order, persistent=False)

    def forward(self, features: Tensor) -> CoordinateMaps:
        """Return landmarks from features (B, C, H, W)."""
        moved = torch.cat([branch(features).flatten(1).unflatten(1, (-1, 2)) for branch in self.branches], 1).float()
        return CoordinateMaps(self.meanface + UNIT * moved[:, self.order])

    def remapped(self, *_args) -> dict[str, Tensor]:
        """Raise ValueError: a branch fits its own group of landmarks only."""
        raise ValueError("the branches of head parts fit no other landmarks; start from a net with another head")
