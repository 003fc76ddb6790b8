"""Forms of a regression error: small functions of the absolute error, all but L2 with slope one for large errors.

Errors are in cells of the feature map. The constants are the published ones, given there in px of a 256 px crop, in cells of
32 px; so the weight of the loss need not change with the form.
"""
import math

import torch
from torch import Tensor

PX = 1 / 32  # one px of the published constants, in cells


def l1(error: Tensor) -> Tensor:
    """The error itself (PIPNet, section 3.2)."""
    return error


def l2(error: Tensor) -> Tensor:
    """Its square: what is far off pulls most."""
    return error.square()


def smooth_l1(error: Tensor, knee: float = 2 * PX) -> Tensor:
    """Quadratic below `knee`: errors within the noise of the labels hardly pull."""
    return torch.where(error < knee, 0.5 * error.square() / knee, error - 0.5 * knee)


def wing(error: Tensor, width: float = 10 * PX, curvature: float = 2 * PX) -> Tensor:
    """Logarithmic below `width`: small errors pull more (Feng et al., Wing Loss, CVPR 2018, eq. 5)."""
    shift = width - width * math.log1p(width / curvature)
    return torch.where(error < width, width * torch.log1p(error / curvature), error - shift)


def soft_wing(error: Tensor, inner: float = 2 * PX, outer: float = 20 * PX, curvature: float = 0.5 * PX) -> Tensor:
    """Linear up to `inner`, logarithmic beyond: middling errors pull less (Lin et al., TIP 2021, eq. 8)."""
    shift = inner - outer * math.log1p(inner / curvature)
    return torch.where(error < inner, error, outer * torch.log1p(error / curvature) + shift)


ERRORS = {"l1": l1, "l2": l2, "smooth-l1": smooth_l1, "wing": wing, "soft-wing": soft_wing}
