"""Visibility: tells whether each landmark is seen in the crop, from what the refiner looks at.

A landmark is hidden behind the head itself, behind something else, under what the augmentation draws, or outside the
picture. Hidden landmarks keep their places, which are trained as those of all others.
"""

import torch
from torch import Tensor, nn

from nets.stages.refiner import PATCH, WIDTH


class Visibility(nn.Module):
    """Reads the refiner's patch of each of `count` landmarks, together with the landmark's identity."""

    def __init__(self, count: int):
        super().__init__()
        self.describe = nn.Linear(PATCH, WIDTH)
        self.identity = nn.Parameter(torch.randn(count, WIDTH))
        self.read = nn.Parameter(torch.zeros(count, WIDTH))
        self.bias = nn.Parameter(torch.zeros(count))

    def forward(self, patches: Tensor) -> Tensor:
        """Return logits (B, N) of being seen from `Refiner.patches`."""
        described = self.describe(patches) + self.identity
        return (described.float().relu() * self.read).sum(2) + self.bias
