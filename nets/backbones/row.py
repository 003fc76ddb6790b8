"""The row of a backbone in the registry."""
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB of [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


class Row(NamedTuple):
    """One backbone.

    build(**options): makes the module. Its `channels` is {stride: channels}; its `forward` turns x (B, 3, H, W) into
        {stride: (B, C, H/stride, W/stride)}, strides 2 or 4 to 32. It may have `vector(input_size)`, a neck that gives a head a
        vector instead of a map; `unused_branches`, True where parameters may stay without a gradient; `own_names(state)`, which
        renames the tensors of a published state dict
    mean, std: of the channels, of images in [0, 1], as the weights were trained
    imagenet: place of ImageNet weights: the address of a state dict, `timm:<name>`, or None
    note: one line for --list-nets, with the published NME (%, interocular)
    acts: choices of build(act=...)
    order: of the channels, RGB or BGR
    input_margin: side of the pictures / side of the nominal crop where the net re-initialises
    published(state, meanface): returns a published state dict under our names, for a coordinate head with that mean face; None:
        those of PIPNet, IRNet and torchvision
    published_meanface: the file with the mean face that the published net adds its output to, if its weights do not hold it
    input_size: px, side of the input of the published figure
    """

    build: Callable[..., nn.Module]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    imagenet: str | None = None
    note: str = ""
    acts: tuple[str, ...] = ()
    order: str = "RGB"
    input_margin: float = 1.25
    published: Callable[[dict[str, Tensor], np.ndarray], dict[str, Tensor]] | None = None
    published_meanface: str = ""
    input_size: int = 256
