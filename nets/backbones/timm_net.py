"""Any backbone of timm (Wightman 2019) with feature maps: `timm:<name>`, with or without a pretrained tag."""

import difflib
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn

from nets.backbones.row import Row

STRIDES = (2, 4, 8, 16, 32)


class TimmNet(nn.Module):
    """x (B, 3, H, W) -> {stride: (B, C, H/stride, W/stride)} at the strides of 2 to 32 that the net has.

    Raises ValueError for an unknown name and for nets without feature maps, without stride 32 or with a fixed image
    size.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.options: dict[str, Any] = {}
        self.net = self._create()
        problem = self._probe()
        if problem:  # window transformers (Swin) accept any image size with this option
            try:
                self.options = {"strict_img_size": False}
                self.net = self._create()
                problem = self._probe()
            except ValueError:  # the net does not know the option: report the first problem
                pass
        if problem:
            raise ValueError(f"timm:{name} cannot be a backbone: {problem}; choose one that takes images of any size")

    def _create(self) -> Any:
        pretrained_cfg(self.name)
        try:
            net: Any = timm.create_model(self.name, features_only=True, **self.options)
        except Exception as error:  # timm's builders raise errors of any type
            raise ValueError(
                f"timm:{self.name} gives no feature maps ({first_line(error)}); choose another net"
            ) from error
        # where several maps have one stride, the last is the deepest
        self.indices = {stride: i for i, stride in enumerate(net.feature_info.reduction()) if stride in STRIDES}
        self.channels = {stride: net.feature_info.channels()[i] for stride, i in self.indices.items()}
        self.nhwc = str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")
        if 32 not in self.indices:
            raise ValueError(f"timm:{self.name} has no feature map of stride 32, only {net.feature_info.reduction()}")
        return net

    @torch.no_grad()
    def _probe(self, height: int = 64, width: int = 96) -> str | None:
        """Return what is wrong with the maps of an image that is small and not square, or None."""
        training = self.training
        self.eval()
        try:
            features = self(torch.zeros(1, 3, height, width))
        except Exception as error:  # assertions and shape errors from anywhere in the net
            return f"it fails on {height}x{width} px ({first_line(error)})"
        finally:
            self.train(training)
        for stride, feature in features.items():
            expected = (1, self.channels[stride], height // stride, width // stride)
            if tuple(feature.shape) != expected:
                return f"its map of stride {stride} has the shape {tuple(feature.shape)} instead of {expected}"
        return None

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        outputs = self.net(x)
        features = {stride: outputs[i] for stride, i in self.indices.items()}
        return {s: f.permute(0, 3, 1, 2) for s, f in features.items()} if self.nhwc else features

    def own_names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of a whole timm net, `backbone.` before their names, to the names in this net.

        Where feature maps are tapped, timm writes `stages_0.conv` for `stages.0.conv`. Unknown tensors keep their
        names.
        """
        own = {
            f"backbone.{name.removeprefix('net.').replace('.', '_')}": f"backbone.{name}" for name in self.state_dict()
        }
        return {
            own.get(f"backbone.{name.removeprefix('backbone.').replace('.', '_')}", name): tensor
            for name, tensor in state.items()
        }


class EarlyStem(TimmNet):
    """A ResNet of timm whose deep stem reaches stride 4 in its second convolution, not by a max pool after its third.

    The third convolution then has a quarter of the places, so the second one may be as wide as it. In 8 bits
    ResNet-10-T takes a sixth less time, also because the first two convolutions have stride 2
    (`extras.runtimes.fusion.read_blocks`).
    """

    def _create(self) -> Any:
        net = super()._create()
        stem, wide = net.conv1, net.conv1[6].out_channels
        stem[3], stem[4] = nn.Conv2d(stem[0].out_channels, wide, 3, 2, 1, bias=False), nn.BatchNorm2d(wide)
        stem[6], net.maxpool = nn.Conv2d(wide, wide, 3, 1, 1, bias=False), nn.Identity()
        del self.indices[2], self.channels[2]
        return net


def timm_row(name: str) -> Row:
    """Return the registry row of `timm:<name>`, with or without the prefix. Raises ValueError with the nearest names."""
    name = name.removeprefix("timm:")
    cfg = pretrained_cfg(name)
    note = f"timm, weights {cfg.tag or 'without tag'}" if cfg.has_weights else "timm, without pretrained weights"
    return Row(
        build=partial(TimmNet, name),
        mean=tuple(cfg.mean),
        std=tuple(cfg.std),
        imagenet=f"timm:{name}" if cfg.has_weights else None,
        note=note,
    )


def pretrained_cfg(name: str) -> timm.models.PretrainedCfg:
    """Return timm's configuration of the weights `architecture.tag`. Raises ValueError with the names there are."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        nearest = difflib.get_close_matches(architecture, timm.list_models(), n=5)
        raise ValueError(f"timm has no net '{name}'" + (f"; the nearest are {', '.join(nearest)}" if nearest else ""))
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
        raise ValueError(
            f"timm has no weights '{tag}' for {architecture}; it has {', '.join(tags) or 'none'}"
        ) from error


def first_line(error: object) -> str:
    """Return the first line of an error's text, or its type."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# {our name: (timm's name, published figures under our heads)}
NAMES = {
    **{f"mobileone_s{size}": (f"mobileone_s{size}", "") for size in range(5)},
    "mobileone_s1": ("mobileone_s1", "IRNet fork of PIPNet: 1.82 on the 12 eye points of 300W"),
    **{f"regnetx_{mega}mf": (f"regnetx_{mega // 100:03}", "") for mega in (200, 400, 600, 800, 1600, 3200)},
    "regnetx_800mf": (
        "regnetx_008",
        "IRNet fork of PIPNet: 1.88 on 12 eye points, with private data, coordinates by part",
    ),
    "mobilenetv3_small": ("mobilenetv3_small_100", ""),
    "res2net50": ("res2net50d", "v1b; coordinates at 224 px: 300W 4.07, with squeeze-excite 4.01"),
    "hrnet_w18_small_v2": ("hrnet_w18_small_v2", ""),
}
ROWS = {ours: timm_row(theirs)._replace(note=note) for ours, (theirs, note) in NAMES.items()} | {
    "resnet10t_early": timm_row("resnet10t")._replace(
        build=partial(EarlyStem, "resnet10t"), imagenet=None, note="timm:resnet10t with a stem that is faster in 8 bits"
    )
}
