"""The coordinate head: landmarks from one vector of the whole crop, without score maps.

Landmarks are the meanface plus the net's output in eighths of the crop: 32 px of a 256 px crop, the unit in which the
PIP head measures its errors too. So forms and weights of the loss mean the same for both.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nets.blocks import SqueezeExcite, start_small
from nets.heads.base import Head, PointTargets
from nets.labels import Labels, Prediction
from nets.losses import bounded, error_form, laplace_loss

UNIT = 1 / 8  # of the crop


class CoordinateMaps(NamedTuple):
    """landmarks (B, N, 2) in [0, 1] of the crop; log_scale (B, N): logarithm of the expected error in eighths of it, or
    None.
    """

    landmarks: Tensor
    log_scale: Tensor | None = None


class RegressionHead(Head):
    """The verbs of heads whose maps are coordinates already.
    The score is 1: only sigma tells how certain such a head is.
    """

    meanface: Tensor

    def __init__(self, meanface: list[list[float]], error: str):
        super().__init__()
        self.error, self.num_lms = error_form(error), len(meanface)
        self.log_scale: nn.Module | None = None
        self.register_buffer("meanface", torch.tensor(meanface, dtype=torch.float32), persistent=False)

    def denominators(self, labels: Labels, grid: tuple[int, int]) -> dict[str, Tensor]:
        return dict.fromkeys(("coordinate", "log_scale") if self.log_scale else ("coordinate",), labels.weight.sum())

    def encode(self, labels: Labels, grid: tuple[int, int]) -> PointTargets:
        """Return the landmarks themselves; the grid is not used."""
        return PointTargets(labels.landmarks, labels.weight)

    def loss(self, maps: CoordinateMaps, targets: PointTargets) -> dict[str, Tensor]:
        """Return {term: sum} of errors of x and y in eighths of the crop."""
        errors = (maps.landmarks - targets.place).abs() / UNIT
        terms = {"coordinate": (targets.weight * self.error(errors).sum(-1)).sum()}
        if maps.log_scale is not None:
            terms["log_scale"] = laplace_loss(targets.weight, errors, maps.log_scale)
        return terms

    def decode(self, maps: CoordinateMaps) -> Prediction:
        sigma = None if maps.log_scale is None else UNIT * maps.log_scale.exp()
        return Prediction(maps.landmarks, torch.ones_like(maps.landmarks[..., 0]), sigma)


class CoordinateHead(RegressionHead):
    """A feature map of `channels` pooled to a vector, then one linear map to all coordinates.

    error: a row of ERRORS; pool: `average` of all cells, or `depthwise`: one filter a channel over all cells, with
    batch norm after it and after the linear map; excite: squeeze-excite before; sigma: another linear map predicts the
    errors.
    """

    norm: Any
    size_multiple = 1
    rows = {"output": 2, "norm": 2, "log_scale": 1}

    def __init__(
        self,
        channels: int,
        spec: dict,
        error: str = "l1",
        pool: str = "average",
        excite: bool = False,
        sigma: bool = False,
    ):
        super().__init__(spec["meanface"], error)
        self.excite = SqueezeExcite(channels) if excite else nn.Identity()
        depthwise, cells = pool == "depthwise", -(-spec["input_size"] // spec["stride"])
        self.pool = (
            nn.Sequential(nn.Conv2d(channels, channels, cells, groups=channels, bias=False), nn.BatchNorm2d(channels))
            if depthwise
            else nn.AdaptiveAvgPool2d(1)
        )
        self.output = nn.Conv2d(channels, 2 * self.num_lms, 1)
        self.norm = nn.BatchNorm2d(2 * self.num_lms) if depthwise else nn.Identity()
        self.log_scale = nn.Conv2d(channels, self.num_lms, 1) if sigma else None
        start_small(self.output, self.log_scale)
        if depthwise:  # the standard deviation of the outputs, whatever the input
            nn.init.constant_(self.norm.weight, 0.5)

    @staticmethod
    def neck(backbone: Any, spec: dict) -> nn.Module:
        """Return the backbone's own neck for a vector, if it has one. Raises ValueError if `pool` needs cells then."""
        if not hasattr(backbone, "vector"):
            return Head.neck(backbone, spec)
        if (pool := spec["head_options"].get("pool", "average")) != "average":
            raise ValueError(
                f"pool {pool} needs a map of cells, but {spec['net']} gives the head a vector; leave pool out"
            )
        return backbone.vector(spec["input_size"])

    def forward(self, features: Tensor) -> CoordinateMaps:
        """Return landmarks from features (B, C, H, W)."""
        vector = self.pool(self.excite(features))
        moved = self.norm(self.output(vector)).float().reshape(-1, self.num_lms, 2)
        log_scale = bounded(self.log_scale(vector).float().flatten(1)) if self.log_scale else None
        return CoordinateMaps(self.meanface + UNIT * moved, log_scale)
