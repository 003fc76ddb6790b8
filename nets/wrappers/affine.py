"""Affine maps (B, 2, 3) between frames in which a crop is [0, 1]."""

import torch
import torch.nn.functional as F
from torch import Tensor

FLAT = 0.01  # lower bound of a determinant: no map may flatten or mirror the face


def determinant(matrix: Tensor) -> Tensor:
    """Return (B,), the determinants of maps (B, 2, 3)."""
    (a, b), (c, d) = matrix[:, 0, :2].unbind(-1), matrix[:, 1, :2].unbind(-1)
    return a * d - b * c


def length_scale(matrix: Tensor) -> Tensor:
    """Return (B, 1), the factor by which maps (B, 2, 3) change distances, as a mean over directions."""
    return determinant(matrix).clamp(min=FLAT).sqrt()[:, None]


def inverse(matrix: Tensor) -> Tensor:
    """Return the inverse of affine maps (B, 2, 3)."""
    (a, b, x), (c, d, y) = matrix[:, 0].unbind(-1), matrix[:, 1].unbind(-1)
    rows = torch.stack([d, -b, b * y - d * x, -c, a, c * x - a * y], -1) / determinant(matrix).clamp(min=FLAT)[:, None]
    return rows.view(-1, 2, 3)


def chain(first: Tensor, then: Tensor) -> Tensor:
    """Return the maps (B, 2, 3) that apply `first`, then `then`."""
    both = (then[:, :, :2, None] * first[:, None]).sum(2)
    return torch.cat([both[:, :, :2], both[:, :, 2:] + then[:, :, 2:]], 2)


def resample(images: Tensor, matrix: Tensor, size: int, nominal: int) -> Tensor:
    """Return pictures (B, size, size, 3) float, resampled bilinearly through maps (B, 2, 3); black outside the source.

    images (B, S, S, 3) hold the nominal crop, `nominal` px wide, in their middle. Differentiable with regard to the
    maps.
    """
    side = images.shape[1]
    centre = (torch.arange(size, device=images.device) + 0.5) / size
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    rows = inverse(matrix)[:, :, :, None, None]  # (B, 2, 3, 1, 1)
    outer = rows[:, :, 0] * x + rows[:, :, 1] * y + rows[:, :, 2]  # (B, 2, size, size)
    # the wide crop is [-1, 1]. A trace makes `nominal / side` the reciprocal of an integer, which Core ML lacks
    grid = ((2 * outer - 1) * nominal / side).permute(0, 2, 3, 1)
    pictures = F.grid_sample(images.permute(0, 3, 1, 2).float(), grid, align_corners=False)
    return pictures.permute(0, 2, 3, 1)
