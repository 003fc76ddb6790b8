"""Necks: from the backbone's maps to one feature map at the head's stride."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


class Neck(nn.Module):
    """From stride 32 to the head's stride: transposed convolutions below 32, strided ones above (PIPNet, section
    4.5.2).

    Published for strides 16, 64 and 128; stride 8 repeats the step of stride 16.
    """

    width = 512

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.channels = channels if stride == 32 else self.width
        self.steps: list[tuple[str, str]] = []
        for i in range({8: 2, 16: 1, 64: 1, 128: 2}.get(stride, 0)):
            source = channels if i == 0 else self.width
            if stride < 32:
                names = f"deconv{i + 1}", f"bn_deconv{i + 1}"
                conv = nn.ConvTranspose2d(source, self.width, 4, 2, 1, bias=False)
            else:
                names = f"layer{i + 5}", f"bn{i + 5}"
                conv = nn.Conv2d(source, self.width, 3, 2, 1)
            nn.init.normal_(conv.weight, std=0.001)
            self.add_module(names[0], conv)
            self.add_module(names[1], nn.BatchNorm2d(self.width))
            self.steps.append(names)

    def forward(self, pyramid: dict[int, Tensor]) -> Tensor:
        """Return (B, channels, H', W') at the head's stride from {stride: (B, C, H, W)}."""
        features = pyramid[32]
        for conv, norm in self.steps:
            features = torch.relu(getattr(self, norm)(getattr(self, conv)(features)))
        return features


class Pyramid(nn.Module):
    """One map from those of all strides between the head's and 32, after FPN (Lin et al., CVPR 2017).

    Each map goes through a 1x1 convolution; coarser maps are enlarged and added to finer ones; the sum goes through a
    3x3 convolution. Raises ValueError for a backbone without one of the strides.
    """

    channels = 128

    def __init__(self, channels: dict[int, int], stride: int):
        super().__init__()
        self.strides = [step for step in (32, 16, 8, 4) if step >= stride]
        if missing := [step for step in self.strides if step not in channels]:
            raise ValueError(
                f"this backbone has no feature map of stride {missing[0]}, only {', '.join(map(str, channels))}"
            )
        self.lateral = nn.ModuleDict(
            {
                str(step): nn.Sequential(
                    nn.Conv2d(channels[step], self.channels, 1, bias=False), nn.BatchNorm2d(self.channels)
                )
                for step in self.strides
            }
        )
        self.smooth = nn.Sequential(
            nn.Conv2d(self.channels, self.channels, 3, padding=1, bias=False), nn.BatchNorm2d(self.channels)
        )

    def forward(self, pyramid: dict[int, Tensor]) -> Tensor:
        """Return (B, channels, H', W') at the head's stride from {stride: (B, C, H, W)}."""
        coarsest, *finer = self.strides
        features = self.lateral[str(coarsest)](pyramid[coarsest])
        for step in finer:
            own = self.lateral[str(step)](pyramid[step])
            features = own + interpolate(torch.relu(features), scale_factor=2.0)
        return torch.relu(self.smooth(torch.relu(features)))
