"""Blocks that several backbones share."""
from torch import Tensor, nn


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution without bias and a batch norm."""
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]


def conv_norm_relu(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return the same, then ReLU."""
    return [*conv_norm(inputs, outputs, kernel, stride, groups), nn.ReLU(inplace=True)]


def run_taps(features: nn.Sequential, x: Tensor, taps: dict[int, int]) -> dict[int, Tensor]:
    """Run `features` on x and return {stride: output of layer taps[stride]}."""
    outputs = []
    for layer in features:
        x = layer(x)
        outputs.append(x)
    return {stride: outputs[index] for stride, index in taps.items()}
