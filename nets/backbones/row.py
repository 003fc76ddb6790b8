"""The row of a backbone in the registry."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB of [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


class Row(NamedTuple):
    """One backbone.

    build(**options): makes the module. Its `channels` is {stride: channels}; its `forward` turns x (B, 3, H, W) into
        {stride: (B, C, H/stride, W/stride)}, strides 2 or 4 to 32. It may have `vector(input_size)`, a neck that gives
        a head a vector instead of a map, and `own_names(state)`, which renames the tensors of a published state dict
    mean, std: of the channels, of images in [0, 1], as the weights were trained
    imagenet: place of ImageNet weights: the address of a state dict, `timm:<name>`, or None
    note: one line for --list-nets, with the published NME (%, interocular)
    acts: choices of build(act=...)
    order: of the channels, RGB or BGR
    input_margin: side of the pictures / side of the nominal crop, for a net with re-initialisation
    input_size: px, side of the input of the published figure
    """

    build: Callable[..., nn.Module]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    imagenet: str | None = None
    note: str = ""
    acts: tuple[str, ...] = ()
    order: str = "RGB"
    input_margin: float = 1.25
    input_size: int = 256
