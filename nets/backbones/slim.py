"""Slim, Peppa's 26 MFLOP net (Apache-2.0), for 68 landmarks, head pose and the state of eyes and mouth.

Depthwise separable convolutions without shortcuts; a linear layer sees the means of three depths together. The published file
loads as it is: names are its own.
"""
import numpy as np
import torch
from torch import Tensor, nn

from nets.backbones.row import Row
from nets.heads.coordinate import UNIT

# of conv2 ... conv13: width, stride
STEPS = [(32, 1), (32, 2), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1), (128, 2), (128, 1), (128, 1), (256, 2), (256, 1)]
TAPS = {2: 2, 4: 4, 8: 8, 16: 11, 32: 13}  # stride: its last layer
MEAN = 127 / 255  # of each channel, which the published net takes as BGR


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class Means(nn.Module):
    """{stride: (B, C, H, W)} -> (B, 448, 1, 1): the means of the maps of strides 8, 16 and 32."""

    channels = 64 + 128 + 256

    def forward(self, pyramid: dict[int, Tensor]) -> Tensor:
        return torch.cat([pyramid[stride].mean((2, 3), keepdim=True) for stride in (8, 16, 32)], 1)


class Slim(nn.Module):
    """x (B, 3, H, W) -> {2, 4, 8, 16, 32: (B, C, H/stride, W/stride)}."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*_conv(3, 16, 3, 2))
        inputs = 16
        for number, (outputs, stride) in enumerate(STEPS, 2):
            step = nn.Sequential(*_conv(inputs, inputs, 3, stride, inputs), *_conv(inputs, outputs, 1))
            self.add_module(f"conv{number}", step)
            inputs = outputs
        self.channels = {stride: STEPS[layer - 2][0] for stride, layer in TAPS.items()}

    def vector(self, input_size: int) -> nn.Module:
        """What a head sees that wants no map but a vector."""
        return Means()

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        features, layers = {}, {layer: stride for stride, layer in TAPS.items()}
        for number in range(1, len(STEPS) + 2):
            x = getattr(self, f"conv{number}")(x)
            if number in layers:
                features[layers[number]] = x
        return features


def from_peppa(state: dict[str, Tensor], meanface: np.ndarray) -> dict[str, Tensor]:
    """Peppa's state dict under our names. meanface (N, 2), in [0, 1] of the crop, is that of the coordinate head.

    Its last layer gives 68 landmarks in [0, 1] of the crop, the pose in quarter turns (its pitch is positive downwards, ours
    upwards) and four states.
    """
    found = {f"backbone.{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")}
    weight, bias = state["fc.weight"], state["fc.bias"]
    points, mean = len(bias) - 7, torch.tensor(np.asarray(meanface).ravel(), dtype=bias.dtype)
    if len(mean) == points:
        found |= {"head.output.weight": weight[:points, :, None, None] / UNIT, "head.output.bias": (bias[:points] - mean) / UNIT}
    upwards = torch.tensor([-1.0, 1, 1])
    return found | {"others.pose.weight": weight[points:-4] * upwards[:, None], "others.pose.bias": bias[points:-4] * upwards,
                    "others.states.weight": weight[-4:], "others.states.bias": bias[-4:]}


ROWS = {"slim": Row(build=Slim, mean=(MEAN,) * 3, std=(MEAN,) * 3, order="BGR", published=from_peppa, input_size=160,
                    note="Peppa's 26 MFLOP net at 160 px (--preset slim); no published figure")}
