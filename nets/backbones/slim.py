"""Slim, Peppa's net of 26 MFLOP (Apache-2.0) for 68 landmarks, head pose and the state of eyes and mouth.

Depthwise separable convolutions without shortcuts; a linear layer reads the means of the maps of three depths. Tensors
of the backbone have the names of the published file.
"""

import torch
from torch import Tensor, nn

from nets.backbones.row import Row
from nets.blocks import conv_norm_relu, run_taps

# conv2 ... conv13: (width, stride)
STEPS = [
    (32, 1),
    (32, 2),
    (32, 1),
    (64, 2),
    (64, 1),
    (64, 1),
    (64, 1),
    (128, 2),
    (128, 1),
    (128, 1),
    (256, 2),
    (256, 1),
]
TAPS = {2: 1, 4: 3, 8: 7, 16: 10, 32: 12}  # {stride: index of its last layer}
MEAN = 127 / 255  # of each channel; the published net takes BGR


class Means(nn.Module):
    """A neck: {stride: (B, C, H, W)} -> (B, 448, 1, 1), means of the maps of strides 8, 16 and 32."""

    channels = 64 + 128 + 256

    def forward(self, pyramid: dict[int, Tensor]) -> Tensor:
        return torch.cat([pyramid[stride].mean((2, 3), keepdim=True) for stride in (8, 16, 32)], 1)


class Slim(nn.Module):
    """x (B, 3, H, W) -> {2, 4, 8, 16, 32: (B, C, H/stride, W/stride)}."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*conv_norm_relu(3, 16, 3, 2))
        inputs = 16
        for number, (outputs, stride) in enumerate(STEPS, 2):
            step = nn.Sequential(
                *conv_norm_relu(inputs, inputs, 3, stride, inputs), *conv_norm_relu(inputs, outputs, 1)
            )
            self.add_module(f"conv{number}", step)
            inputs = outputs
        self.channels = {stride: STEPS[layer - 1][0] for stride, layer in TAPS.items()}

    def vector(self, input_size: int) -> nn.Module:
        """Return the neck for a head that takes a vector."""
        return Means()

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        return run_taps(self.children(), x, TAPS)


ROWS = {
    "slim": Row(
        build=Slim,
        mean=(MEAN,) * 3,
        std=(MEAN,) * 3,
        order="BGR",
        input_size=160,
        note="Peppa's 26 MFLOP net at 160 px (--preset slim); no published figure",
    )
}
