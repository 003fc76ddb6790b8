"""MobileNetV2 (Sandler et al. 2018) and MobileNetV3-Large (Howard et al. 2019), the light backbones of PIPNet."""

from typing import NamedTuple

from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from nets.backbones.row import Row
from nets.blocks import conv_norm, run_taps


class MobileNetV2(nn.Module):
    """x (B, 3, H, W) -> {2, 4, 8, 16, 32: (B, C, H/stride, W/stride)}; torchvision's `features`, with the last 1x1 to
    1280.
    """

    taps = {2: 1, 4: 3, 8: 6, 16: 13, 32: 18}  # {stride: index of its last layer}

    def __init__(self) -> None:
        super().__init__()
        self.features = mobilenet_v2().features
        self.channels = {2: 16, 4: 24, 8: 32, 16: 96, 32: 1280}

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        return run_taps(self.features, x, self.taps)


class BlockRow(NamedTuple):
    """An inverted residual: kernel of the depthwise convolution, widths, squeeze-excite, h-swish or ReLU, stride."""

    kernel: int
    expanded: int
    outputs: int
    excite: bool
    swish: bool
    stride: int


LARGE = [  # table 1 of the paper
    BlockRow(3, 16, 16, False, False, 1),
    BlockRow(3, 64, 24, False, False, 2),
    BlockRow(3, 72, 24, False, False, 1),
    BlockRow(5, 72, 40, True, False, 2),
    BlockRow(5, 120, 40, True, False, 1),
    BlockRow(5, 120, 40, True, False, 1),
    BlockRow(3, 240, 80, False, True, 2),
    BlockRow(3, 200, 80, False, True, 1),
    BlockRow(3, 184, 80, False, True, 1),
    BlockRow(3, 184, 80, False, True, 1),
    BlockRow(3, 480, 112, True, True, 1),
    BlockRow(3, 672, 112, True, True, 1),
    BlockRow(5, 672, 160, True, True, 2),
    BlockRow(5, 960, 160, True, True, 1),
    BlockRow(5, 960, 160, True, True, 1),
]


def _activation(swish: bool) -> nn.Module:
    return nn.Hardswish(inplace=True) if swish else nn.ReLU(inplace=True)


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate in [0, 1] computed from their means; inside, a quarter of them, rounded to a multiple
    of 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(8, (channels // 4 + 4) // 8 * 8)
        if inner < 0.9 * (channels // 4):  # rounding never removes more than a tenth
            inner += 8
        self.fc = nn.Sequential(
            nn.Linear(channels, inner), nn.ReLU(inplace=True), nn.Linear(inner, channels), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, squeeze-excite, linear 1x1; the sum with x where shapes allow."""

    def __init__(self, inputs: int, block: BlockRow) -> None:
        super().__init__()
        expanded, outputs = block.expanded, block.outputs
        gate = SqueezeExcite(expanded) if block.excite else nn.Identity()
        depthwise = conv_norm(expanded, expanded, block.kernel, block.stride, expanded)
        if inputs == expanded:
            layers = [*depthwise, _activation(block.swish), gate]
        else:  # unlike torchvision's, the gate comes before the activation, as the published weights need it
            expand = conv_norm(inputs, expanded, 1)
            layers = [*expand, _activation(block.swish), *depthwise, gate, _activation(block.swish)]
        self.conv = nn.Sequential(*layers, *conv_norm(expanded, outputs, 1))
        self.identity = block.stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.identity else self.conv(x)


class MobileNetV3Large(nn.Module):
    """x (B, 3, H, W) -> {2, 4, 8, 16, 32: (B, C, H/stride, W/stride)}; order and names as in d-li14's implementation."""

    taps = {2: 1, 4: 3, 8: 6, 16: 12, 32: 15}  # {stride: index of its last layer}

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*conv_norm(3, 16, 3, stride=2), _activation(True))]
        inputs = 16
        for block in LARGE:
            layers.append(InvertedResidual(inputs, block))
            inputs = block.outputs
        self.features = nn.Sequential(*layers)
        self.conv = nn.Sequential(*conv_norm(inputs, 960, 1), _activation(True))
        self.channels = {2: 16, 4: 24, 8: 40, 16: 112, 32: 960}
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        features = run_taps(self.features, x, self.taps)
        return features | {32: self.conv(features[32])}


ROWS = {
    "mobilenetv2": Row(
        build=MobileNetV2,
        imagenet=MobileNet_V2_Weights.IMAGENET1K_V1.url,
        note="PIPNet: 300W 3.40, WFLW 4.79, COFW 3.43, AFLW 1.52; coordinates: 300W 4.39 at 224 px, with squeeze-excite 4.28; "
        "5.27 at 56 px",
    ),
    "mobilenetv3_large": Row(
        build=MobileNetV3Large,
        note="IRNet fork of PIPNet: 1.79 on the 12 eye points of 300W",
        imagenet="https://github.com/d-li14/mobilenetv3.pytorch/raw/master/pretrained/mobilenetv3-large-1cd25616.pth",
    ),
}
