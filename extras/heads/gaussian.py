"""Gaussians on cells, and the place of their peak to a fraction of a cell, after DARK (Zhang et al., CVPR 2020).

The logarithm of a Gaussian is a parabola, which three values define.
"""

import math

import torch
from torch import Tensor


def parabola_top(low: Tensor, middle: Tensor, high: Tensor) -> Tensor:
    """Return the steps from the middle of three equidistant values to the top of the parabola through them, within +-2."""
    slope = (high - low) / 2
    bend = (2 * middle - low - high).clamp(min=1e-6)  # where the parabola has no top, the larger side wins
    return (slope / bend).clamp(-2, 2)


def log_gaussian(place: Tensor, cells: int, width: float) -> Tensor:
    """Return (..., cells), the logarithm of Gaussians of height 1 around `place` (...); cell centres are at 0.5, 1.5,
    ...
    """
    distance = torch.arange(cells, device=place.device) + 0.5 - place[..., None]
    return -0.5 * (distance / width).square()


def log_height(width: float) -> float:
    """Return the logarithm of the height of a Gaussian whose sum over all cells is 1."""
    return -math.log(width * math.sqrt(2 * math.pi))
