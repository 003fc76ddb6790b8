"""ResNet-18/34/50/101 (He et al. 2016) of torchvision, with its max-pool, without average pool and classifier."""

from functools import partial

from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, ResNet34_Weights, ResNet50_Weights, ResNet101_Weights, resnet

from nets.backbones.row import Row
from nets.blocks import run_taps

# {depth: (block, blocks in each stage, ImageNet weights, published figures)}
DEPTHS = {
    18: (
        resnet.BasicBlock,
        [2, 2, 2, 2],
        ResNet18_Weights,
        "PIPNet: 300W 3.36, WFLW 4.57, COFW 3.31, AFLW 1.48; coordinates at 224 px: 300W 4.39",
    ),
    34: (resnet.BasicBlock, [3, 4, 6, 3], ResNet34_Weights, ""),
    50: (resnet.Bottleneck, [3, 4, 6, 3], ResNet50_Weights, "PIPNet: 300W 3.34, WFLW 4.48, COFW 3.18, AFLW 1.44"),
    101: (resnet.Bottleneck, [3, 4, 23, 3], ResNet101_Weights, "PIPNet: 300W 3.19, WFLW 4.31, COFW 3.08, AFLW 1.42"),
}
TAPS = {2: 2, 4: 4, 8: 5, 16: 6, 32: 7}  # {stride: index of its last layer}


class ResNet(nn.Module):
    """x (B, 3, H, W) -> {2, 4, 8, 16, 32: (B, C, H/stride, W/stride)}; the names of the state dict are torchvision's."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        block, blocks, _, _ = DEPTHS[depth]
        net = resnet.ResNet(block, blocks)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self.channels = {2: 64} | {4 * 2**i: 64 * 2**i * block.expansion for i in range(4)}

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        return run_taps(self.children(), x, TAPS)


# the first published weights (V1), which PIPNet used
ROWS = {
    f"resnet{depth}": Row(build=partial(ResNet, depth), imagenet=weights.IMAGENET1K_V1.url, note=note)
    for depth, (_, _, weights, note) in DEPTHS.items()
}
