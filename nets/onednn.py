"""Replaces convolutions whose filter gradients oneDNN computes wrongly on a CPU (docs/performance.md describes the
errors).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 16  # channels that oneDNN handles at once


def misses_taps(side: int, kernel: int, stride: int) -> bool:
    """Return whether bf16 gradients of filters may be wrong over maps of this side (height or width, in cells).

    Some taps of the filter then see only padding, and oneDNN does not write their gradients, so the memory keeps old
    values.
    """
    return side < max(stride, kernel // 2)


def overruns(conv: nn.Conv2d) -> bool:
    """Return whether the gradient of the filter may be written beyond its memory: 1 x 1, with a stride, over few
    channels.

    The first blocks of MobileOne and RepVGG have such filters.
    """
    return (
        conv.in_channels < BLOCK
        and conv.groups == 1
        and conv.kernel_size == (1, 1)
        and max(conv.stride) > 1
        and conv.padding == (0, 0)
    )


class _SafeConv(nn.Conv2d):
    """A base class put before a kind of nn.Conv2d.
    On a CPU it avoids both errors: it computes in float32 where bf16 goes wrong, and leaves out the skipped cells
    before a 1 x 1 filter.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        if overruns(self):
            down, right = self.stride
            return F.conv2d(x[:, :, ::down, ::right], self.weight, self.bias)
        few = any(map(misses_taps, x.shape[-2:], self.kernel_size, self.stride))
        if few and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


def patch_convolutions(net: nn.Module) -> None:
    """Change the class of each convolution of `net` that could go wrong, as torch's parametrizations change that of a
    module. Tensors and their names stay.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and not isinstance(module, _SafeConv):
            if any(map(misses_taps, (1, 1), module.kernel_size, module.stride)):
                kind = type(module)
                module.__class__ = type(kind.__name__, (_SafeConv, kind), {})  # timm has kinds of its own
