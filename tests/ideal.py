"""Maps of each head whose loss is lowest, made from its targets by the definitions of its file, for round trips."""

import torch

from extras.heads.gaussian import log_gaussian
from extras.heads.heatmap import HeatmapHead
from extras.heads.simcc import SimCCHead, SimCCMaps
from nets.heads.coordinate import CoordinateMaps, RegressionHead
from nets.heads.pip import PIPMaps
from nets.labels import Labels


def ideal(head, labels: Labels, grid: tuple[int, int]):
    """Return maps on `grid` (H, W) cells that decode to the landmarks of the labels."""
    targets = head.encode(labels, grid)
    if isinstance(head, RegressionHead):
        return CoordinateMaps(targets.place, torch.zeros_like(targets.weight) if head.log_scale else None)
    if isinstance(head, HeatmapHead):
        across, down = (log_gaussian(targets.place[..., axis], grid[1 - axis], head.width).exp() for axis in (0, 1))
        return across[:, :, None] * down[..., None]
    if isinstance(head, SimCCHead):
        return SimCCMaps(*(log_gaussian(targets.place[..., axis], head.bins, head.width) for axis in (0, 1)))
    (batch, count, candidates, _), (height, width) = targets.place.shape, grid

    def put(values: torch.Tensor) -> torch.Tensor:
        """Return maps (B, N * M, H, W) with the values (B, N, M) at the landmarks' cells, 0 elsewhere."""
        maps = torch.zeros(batch, count, values.shape[2], height * width)
        cells = targets.cell[:, :, None, None].expand(-1, -1, values.shape[2], 1)
        return maps.scatter(3, cells, values[..., None]).reshape(batch, count * values.shape[2], height, width)

    x, y = targets.place.unbind(-1)
    return PIPMaps(
        put(torch.ones(batch, count, 1)),
        put(x[..., :1]),
        put(y[..., :1]),
        put(x[..., 1:]),
        put(y[..., 1:]),
        torch.zeros(batch, count * candidates, height, width) if head.log_scale else None,
    )
