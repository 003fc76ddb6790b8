"""The regressor of DPR: a small MobileNetV2 down to stride 128 (Shao et al., TPAMI 2021; MIT)."""

from torch import Tensor, nn

from nets.backbones.row import Row
from nets.blocks import conv_norm, conv_norm_relu, run_taps

# (expansion, width, repeats, stride of the first)
STEPS = [
    (1, 8, 1, 1),
    (6, 12, 2, 2),
    (6, 16, 2, 2),
    (6, 24, 3, 2),
    (6, 32, 3, 2),
    (6, 48, 3, 2),
    (6, 64, 2, 2),
    (6, 80, 1, 1),
]
STEM, WIDTH = 8, 64


class InvertedResidual(nn.Module):
    """1x1 expansion (unless it is 1), depthwise convolution, linear 1x1; the sum with x where shapes allow
    (MobileNetV2).
    """

    def __init__(self, inputs: int, expansion: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = conv_norm_relu(inputs, inner, 1) if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand, *conv_norm_relu(inner, inner, 3, stride, inner), *conv_norm(inner, outputs, 1)
        )
        self.identity = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.identity else self.conv(x)


class Dense(nn.Module):
    """A neck: {128: (B, 64, cells, cells)} -> (B, channels, 1, 1), all cells through two linear layers."""

    def __init__(self, cells: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.layers = nn.Sequential(
            nn.Linear(WIDTH * cells**2, channels), nn.PReLU(), nn.Linear(channels, channels), nn.PReLU()
        )

    def forward(self, pyramid: dict[int, Tensor]) -> Tensor:
        return self.layers(pyramid[128].flatten(1))[:, :, None, None]


class SmallMobileNetV2(nn.Module):
    """x (B, 3, H, W) -> {2 ... 128: (B, C, H/stride, W/stride)}."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*conv_norm_relu(3, STEM, 3, 2))]
        inputs, stride, self.taps = STEM, 2, {}
        for expansion, outputs, repeats, first in STEPS:
            for step in [first] + [1] * (repeats - 1):
                layers.append(InvertedResidual(inputs, expansion, outputs, step))
                inputs, stride = outputs, stride * step
                self.taps[stride] = len(layers) - 1
        layers.append(nn.Sequential(*conv_norm_relu(inputs, WIDTH, 1)))
        self.taps[stride] = len(layers) - 1
        self.features = nn.Sequential(*layers)
        self.channels = {2: 8, 4: 12, 8: 16, 16: 24, 32: 32, 64: 48, 128: WIDTH}

    def vector(self, input_size: int) -> nn.Module:
        """Return the neck for a head that takes a vector."""
        return Dense(-(-input_size // 128), 256)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        return run_taps(self.features, x, self.taps)


ROWS = {
    "dpr": Row(
        build=SmallMobileNetV2,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        order="BGR",
        note="DPR's regressor (--preset dpr re-initialises): WFLW 5.35, with the local stage 5.08",
    )
}
