"""Face branch: tells whether the crop shows a human face, upright and in its place.

A face is in its place if it lies about where the crop protocol puts it, about as large, and turned by less than some 50
degrees. The negatives are crops without a face, crops of a part of one, and crops of a face that is turned by more than
80 degrees or far too large or too small. Landmark scores cannot replace this output: they say how sharp a peak is.
"""

import torch
from torch import Tensor, nn

from nets.blocks import start_small

WIDTH = 64  # hidden units


class FaceBranch(nn.Module):
    """Reads the means and the maxima of the head's feature map of `channels` channels, each scaled over the channels.

    A frozen net's maps have no common scale, and statistics over the batch would change with the share of crops without a
    face. It passes no gradient to the feature map, so it can be trained behind any trained net without changing landmarks.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.means, self.maxima = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.hidden, self.read = nn.Linear(2 * channels, WIDTH), nn.Linear(WIDTH, 1)
        start_small(self.read)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, 1) of showing a face, from features (B, C, H, W)."""
        features = features.detach()
        pooled = torch.cat([self.means(features.mean((2, 3))), self.maxima(features.amax((2, 3)))], 1)
        return self.read(self.hidden(pooled).relu()).float()
