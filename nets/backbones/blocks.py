"""Blocks that several backbones share."""
from collections.abc import Iterable

from torch import Tensor, nn


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution without bias and a batch norm."""
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]


def conv_norm_relu(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return the same, then ReLU."""
    return [*conv_norm(inputs, outputs, kernel, stride, groups), nn.ReLU(inplace=True)]


def run_taps(layers: Iterable[nn.Module], x: Tensor, taps: dict[int, int]) -> dict[int, Tensor]:
    """Run the layers on x and return {stride: output of layer taps[stride]}."""
    outputs = []
    for layer in layers:
        x = layer(x)
        outputs.append(x)
    return {stride: outputs[index] for stride, index in taps.items()}
