"""IRNet-18/50/100, the improved residual net of face recognition (ArcFace, Deng et al.
2019), as in the IRNet fork of PIPNet.

A block normalises first, has its stride in the second convolution, and ends without an activation. The stem has a
stride too, so an input of 256 px gives 8x8 cells.
"""

from functools import partial

from torch import Tensor, nn

from nets.backbones.row import Row
from nets.blocks import run_taps

ACTS = ("prelu", "relu")
DEPTHS = {18: [2, 2, 2, 2], 50: [3, 4, 14, 3], 100: [3, 13, 30, 3]}
WIDTHS = [64, 128, 256, 512]


def _activation(act: str, channels: int) -> nn.Module:
    # relu has no parameters, so integer kernels can fuse it with the convolution
    return nn.PReLU(channels) if act == "prelu" else nn.ReLU(inplace=True)


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, activation. The published names call every activation `relu`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, act: str | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = _activation(act, outputs) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm(self.conv(x)))


class Block(nn.Module):
    """Batch norm, 3x3, 3x3 with the stride; plus a shortcut: 1x1 where the width changes, else every stride-th pixel."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: str) -> None:
        super().__init__()
        if inputs != outputs:
            self.conv1 = ConvNorm(inputs, outputs, 1, stride)
        else:
            self.conv1 = nn.MaxPool2d(1, stride) if stride > 1 else nn.Identity()
        convs = ConvNorm(inputs, outputs, 3, act=act), ConvNorm(outputs, outputs, 3, stride)
        self.conv2 = nn.Sequential(nn.BatchNorm2d(inputs), *convs)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(x) + self.conv2(x)


class IRNet(nn.Module):
    """x (B, 3, H, W) -> {2, 4, 8, 16, 32: (B, C, H/stride, W/stride)}. act: 'prelu' (published) or 'relu'."""

    def __init__(self, depth: int, act: str = "prelu") -> None:
        super().__init__()
        self.p1 = nn.Sequential(ConvNorm(3, WIDTHS[0], 3, stride=2, act=act))
        stages = []
        inputs = WIDTHS[0]
        for width, blocks in zip(WIDTHS, DEPTHS[depth], strict=True):
            first = Block(inputs, width, 2, act)
            stages.append(nn.Sequential(first, *(Block(width, width, 1, act) for _ in range(blocks - 1))))
            inputs = width
        self.p2, self.p3, self.p4, self.p5 = stages
        self.channels = {2: WIDTHS[0]} | {4 * 2**i: width for i, width in enumerate(WIDTHS)}
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        return run_taps(self.children(), x, {2: 0, 4: 1, 8: 2, 16: 3, 32: 4})


# The published weights were trained on face recognition with ImageNet's mean and std; there are no ImageNet weights.
ROWS = {
    f"irnet{depth}": Row(build=partial(IRNet, depth), note=f"IRNet fork of PIPNet: 300W {nme}", acts=ACTS)
    for depth, nme in ((18, "3.27"), (50, "3.11"), (100, "3.08"))
}
