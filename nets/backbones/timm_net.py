"""Any backbone of timm (Wightman 2019) that gives feature maps: `timm:<name>`, with or without a pretrained tag."""

import difflib
import os
from functools import partial

import timm
import torch
from torch import Tensor, nn

from nets.backbones.row import Row, first_line, network_timeout, require_reachable

STRIDES = (2, 4, 8, 16, 32)


class TimmNet(nn.Module):
    """x (B, 3, H, W) -> {stride: (B, C, H/stride, W/stride)} at the strides of 2 to 32 that the net has.

    Raises ValueError for an unknown name, and for nets without feature maps, without stride 32 or of one fixed image size.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.options: dict[str, bool] = {}
        self.net = self._create()
        problem = self._probe()
        if problem:  # window transformers (Swin) pad images of any size once they are told to
            try:
                self.options = {"strict_img_size": False}
                self.net = self._create()
                problem = self._probe()
            except ValueError:  # the option is unknown to this net: the first problem stands
                pass
        if problem:
            raise ValueError(f"timm:{name} cannot be a backbone: {problem}; choose one that takes images of any size")

    def _create(self) -> nn.Module:
        _pretrained_cfg(self.name)
        try:
            net = timm.create_model(self.name, features_only=True, **self.options)
        except Exception as error:  # timm's builders raise whatever comes up
            raise ValueError(f"timm:{self.name} gives no feature maps ({first_line(error)}); choose another net") from error
        # of several maps of one stride the last is the deepest
        self.indices = {stride: i for i, stride in enumerate(net.feature_info.reduction()) if stride in STRIDES}
        self.channels = {stride: net.feature_info.channels()[i] for stride, i in self.indices.items()}
        self.nhwc = str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")
        if 32 not in self.indices:
            raise ValueError(f"timm:{self.name} has no feature map of stride 32, only {net.feature_info.reduction()}")
        return net

    @torch.no_grad()
    def _probe(self, height: int = 64, width: int = 96) -> str | None:
        """What is wrong with the maps of an image that is small and not square; None if nothing."""
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
                return f"its map of stride {stride} has the shape {tuple(feature.shape)} where {expected} is due"
        return None

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        outputs = self.net(x)
        features = {stride: outputs[i] for stride, i in self.indices.items()}
        return {s: f.permute(0, 3, 1, 2) for s, f in features.items()} if self.nhwc else features

    def own_names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A whole timm net's tensors, `backbone.` before their names, under the names they have where feature maps are tapped.

        `stages.0.conv` is `net.stages_0.conv` here. Tensors that this net has not keep their names.
        """
        own = {f"backbone.{name.removeprefix('net.').replace('.', '_')}": f"backbone.{name}" for name in self.state_dict()}
        return {own.get(f"backbone.{name.removeprefix('backbone.').replace('.', '_')}", name): tensor
                for name, tensor in state.items()}

    def load_pretrained(self) -> None:
        """Load timm's pretrained weights, from the local cache or the network. Raises OSError with one line."""
        cfg = _pretrained_cfg(self.name)
        if not cfg.has_weights:
            raise OSError(f"timm has no pretrained weights for {self.name}; name a tag that has them, or use --weights none")
        overlay = {}
        if cfg.hf_hub_id:
            cached = None if cfg.custom_load else _cached(cfg.hf_hub_id)
            if cached:
                overlay = {"file": cached}
            else:
                endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
                require_reachable(endpoint, "or set HF_HOME to a folder that holds them")
        elif cfg.url and not os.path.isfile(_hub_file(cfg.url)):
            require_reachable(cfg.url, f"or put the file at {_hub_file(cfg.url)}")
        try:
            with network_timeout():
                source = timm.create_model(
                    self.name, pretrained=True, features_only=True, pretrained_cfg_overlay=overlay, **self.options
                )
            self.net.load_state_dict(source.state_dict())
        except Exception as error:  # the hub's client has errors of its own kind
            raise OSError(f"ImageNet weights of timm:{self.name} cannot be loaded ({first_line(error)})") from error


def timm_row(name: str) -> Row:
    """Registry row of `timm:<name>` (the prefix may be left out). Raises ValueError that names the nearest nets."""
    name = name.removeprefix("timm:")
    cfg = _pretrained_cfg(name)
    return Row(
        build=partial(TimmNet, name),
        mean=tuple(cfg.mean),
        std=tuple(cfg.std),
        imagenet=f"timm:{name}" if cfg.has_weights else None,
        note=f"timm, weights {cfg.tag or 'without tag'}" if cfg.has_weights else "timm, without pretrained weights",
    )


def _pretrained_cfg(name: str):  # timm.models.PretrainedCfg
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        nearest = difflib.get_close_matches(architecture, timm.list_models(), n=5)
        raise ValueError(f"timm has no net '{name}'" + (f"; the nearest are {', '.join(nearest)}" if nearest else ""))
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
        raise ValueError(f"timm has no weights '{tag}' for {architecture}; it has {', '.join(tags) or 'none'}") from error


def _cached(hub_id: str) -> str | None:
    """Path of the weights of `hub_id` in the local cache of the Hugging Face hub, None if they are not there."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = hub_id.partition("@")
    for file in ("model.safetensors", "pytorch_model.bin"):
        path = try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(path, str):
            return path
    return None


def _hub_file(url: str) -> str:
    return os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(url))


# Ours: timm's, and what is published of it under our heads.
NAMES = {
    **{f"mobileone_s{size}": (f"mobileone_s{size}", "IRNet fork of PIPNet: 1.82 on the 12 eye points of 300W" * (size == 1))
       for size in range(5)},
    **{f"regnetx_{mega}mf": (f"regnetx_{mega // 100:03}", "IRNet fork of PIPNet: 1.88 on 12 eye points, with private data, "
                             "coordinates by part" * (mega == 800)) for mega in (200, 400, 600, 800, 1600, 3200)},
    "mobilenetv3_small": ("mobilenetv3_small_100", ""),
    "res2net50": ("res2net50d", "v1b; coordinates at 224 px: 300W 4.07, with squeeze-excite 4.01"),
    "hrnet_w18_small_v2": ("hrnet_w18_small_v2", "coordinates at 224 px: 300W 4.20"),
}
ROWS = {ours: timm_row(theirs)._replace(note=note) for ours, (theirs, note) in NAMES.items()}
