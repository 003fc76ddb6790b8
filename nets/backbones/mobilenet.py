"""MobileNetV2 (Sandler et al. 2018) and MobileNetV3-Large (Howard et al. 2019), the light backbones of PIPNet."""

from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from nets.backbones.row import Row


def _taps(features: nn.Sequential, x: Tensor, taps: dict[int, int]) -> dict[int, Tensor]:
    """Run `features` on x; {stride: output of the layer taps[stride]}."""
    outputs = []
    for layer in features:
        x = layer(x)
        outputs.append(x)
    return {stride: outputs[index] for stride, index in taps.items()}


class MobileNetV2(nn.Module):
    """x (B, 3, H, W) -> {2, 4, 8, 16, 32: (B, C, H/stride, W/stride)}; torchvision's `features`, last 1x1 to 1280 included."""

    taps = {2: 1, 4: 3, 8: 6, 16: 13, 32: 18}  # stride: its last layer

    def __init__(self) -> None:
        super().__init__()
        self.features = mobilenet_v2().features
        self.channels = {2: 16, 4: 24, 8: 32, 16: 96, 32: 1280}

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        return _taps(self.features, x, self.taps)


# kernel, expanded width, output width, squeeze-excite, h-swish, stride (table 1 of the paper)
LARGE = [
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
]


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]


def _activation(swish: bool) -> nn.Module:
    return nn.Hardswish(inplace=True) if swish else nn.ReLU(inplace=True)


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate in [0, 1] made from their means; a quarter of them (a multiple of 8) inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(8, (channels // 4 + 4) // 8 * 8)
        if inner < 0.9 * (channels // 4):  # rounding never takes away more than a tenth
            inner += 8
        self.fc = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(inplace=True), nn.Linear(inner, channels), nn.Hardsigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, squeeze-excite, linear 1x1; the sum with x where shapes allow."""

    def __init__(self, inputs: int, expanded: int, outputs: int, kernel: int, stride: int, excite: bool, swish: bool) -> None:
        super().__init__()
        gate = SqueezeExcite(expanded) if excite else nn.Identity()
        depthwise = _conv(expanded, expanded, kernel, stride, groups=expanded)
        if inputs == expanded:
            layers = [*depthwise, _activation(swish), gate]
        else:  # the gate stands before the activation here, unlike torchvision's: the published weights need it so
            layers = [*_conv(inputs, expanded, 1), _activation(swish), *depthwise, gate, _activation(swish)]
        self.conv = nn.Sequential(*layers, *_conv(expanded, outputs, 1))
        self.identity = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.identity else self.conv(x)


class MobileNetV3Large(nn.Module):
    """x (B, 3, H, W) -> {2, 4, 8, 16, 32: (B, C, H/stride, W/stride)}; in the layout and names of d-li14's implementation."""

    taps = {2: 1, 4: 3, 8: 6, 16: 12, 32: 15}  # stride: its last layer

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*_conv(3, 16, 3, stride=2), _activation(True))]
        inputs = 16
        for kernel, expanded, outputs, excite, swish, stride in LARGE:
            layers.append(InvertedResidual(inputs, expanded, outputs, kernel, stride, excite, swish))
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.conv = nn.Sequential(*_conv(inputs, 960, 1), _activation(True))
        self.channels = {2: 16, 4: 24, 8: 40, 16: 112, 32: 960}
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        features = _taps(self.features, x, self.taps)
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
        imagenet="https://github.com/d-li14/mobilenetv3.pytorch/raw/master/pretrained/mobilenetv3-large-1cd25616.pth",
        note="IRNet fork of PIPNet: 1.79 on the 12 eye points of 300W",
    ),
}
