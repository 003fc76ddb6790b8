"""Blocks that several backbones, heads and stages share."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution without bias and a batch norm."""
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]


def conv_norm_relu(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution without bias, a batch norm and a ReLU."""
    return [*conv_norm(inputs, outputs, kernel, stride, groups), nn.ReLU(inplace=True)]


def run_taps(layers: Iterable[nn.Module], x: Tensor, taps: dict[int, int]) -> dict[int, Tensor]:
    """Run the layers on x and return {stride: output of layer taps[stride]}."""
    outputs = []
    for layer in layers:
        x = layer(x)
        outputs.append(x)
    return {stride: outputs[index] for stride, index in taps.items()}


def in_full(x: Tensor) -> torch.autocast:
    """Return a context in which autocast rounds nothing on the device of x."""
    return torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False)


def start_small(*layers: Any) -> None:
    """Give output layers small random weights and no bias."""
    for layer in filter(None, layers):
        nn.init.normal_(layer.weight, std=0.001)
        nn.init.zeros_(layer.bias)


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate computed from their means (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, reduction: int = 8):
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // reduction, 1),
            nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features * self.gate(features)


class GatedAttention(nn.Module):
    """Attention between landmarks (B, N, D): squared ReLU inside a gated linear unit (Hua et al., ICML 2022)."""

    def __init__(self, width: int, keys: int = 128):
        super().__init__()
        self.norm, self.split = nn.LayerNorm(width), (2 * width, 2 * width, keys)
        self.expand = nn.Linear(width, sum(self.split), bias=False)
        self.scale, self.shift = nn.Parameter(torch.rand(2, keys)), nn.Parameter(torch.zeros(2, keys))
        self.join = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value, base = silu(self.expand(self.norm(x))).split(self.split, -1)
        query, key = (base[:, :, None] * self.scale + self.shift).unbind(2)
        attention = torch.relu(query.bmm(key.transpose(1, 2)) / self.split[2] ** 0.5).square() / x.shape[1]
        return x + self.join(gate * attention.bmm(value))
