"""Where a Gaussian's peak is, to a fraction of a cell: its logarithm is a parabola, which three values fix.

After DARK (Zhang et al., CVPR 2020).
"""
import math

import torch
from torch import Tensor


def parabola_top(low: Tensor, middle: Tensor, high: Tensor) -> Tensor:
    """Steps from the middle of three equidistant values to the top of the parabola through them, at most two."""
    slope, bend = (high - low) / 2, (2 * middle - low - high).clamp(min=1e-6)  # without a top: towards the larger side
    return (slope / bend).clamp(-2, 2)


def log_gaussian(place: Tensor, cells: int, width: float) -> Tensor:
    """place (...) in cells, whose centres are at 0.5, 1.5, ... -> (..., cells): logarithm of a Gaussian of height 1 round it."""
    distance = torch.arange(cells, device=place.device) + 0.5 - place[..., None]
    return -0.5 * (distance / width).square()


def log_height(width: float) -> float:
    """Logarithm of the height of a Gaussian whose sum over all cells is one."""
    return -math.log(width * math.sqrt(2 * math.pi))
