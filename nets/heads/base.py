"""The interface of a head: its verbs denominators, encode, forward, loss and decode, and its neck, which joins it to a
backbone.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nets.heads.remap import Origins
from nets.labels import Labels, Prediction
from nets.necks import Neck


class PointTargets(NamedTuple):
    """place (B, N, 2) in the head's own unit, weight (B, N)."""

    place: Tensor
    weight: Tensor


class Head(nn.Module):
    """Turns a feature map into landmarks. The maps with the lowest loss decode to the labels.

    It is made as Head(channels of its feature map, spec of its net, **spec["head_options"]). Its row in
    nets/registry.py holds strides, options and loss terms. A head that predicts its error has a module `log_scale` for
    the logarithm of that error.
    rows: {module: number of its outputs for one landmark}, for `remapped`; outputs are ordered by landmark.
    """

    size_multiple = 32  # px, of the net's input
    rows: dict[str, int] = {}
    num_lms: int

    @staticmethod
    def neck(backbone: Any, spec: dict) -> nn.Module:
        """Return the module that turns the backbone's {stride: map} into the head's feature map of `channels` channels."""
        return Neck(backbone.channels[32], spec["stride"])

    @staticmethod
    def plan(meanface: np.ndarray, num_nb: int, labelled: np.ndarray | None = None) -> dict:
        """Return the plain values about landmarks that go into the spec; meanface (N, 2) in [0, 1] of the crop.

        labelled (S, N): which landmarks each set labels, if these differ.
        """
        return {"meanface": np.asarray(meanface, np.float64).tolist()}

    def denominators(self, labels: Labels, grid: tuple[int, int]) -> dict[str, Tensor]:
        """Return {term: count}, the divisors of the sums of `loss` on a feature map of `grid` (H, W) cells."""
        raise NotImplementedError

    def encode(self, labels: Labels, grid: tuple[int, int]):
        """Return targets on a feature map of `grid` (H, W) cells."""
        raise NotImplementedError

    def loss(self, maps, targets) -> dict[str, Tensor]:
        """Return {term: sum} of the batch."""
        raise NotImplementedError

    def decode(self, maps) -> Prediction:
        """Return landmarks in [0, 1] of the crop, scores, and sigma where the head predicts it."""
        raise NotImplementedError

    def decode_with_spread(self, maps) -> tuple[Prediction, Tensor | None]:
        """Return (what `decode` returns, spread (B, N) of the votes in [0, 1] of the crop, None without votes)."""
        return self.decode(maps), None

    def scores(self, maps) -> Tensor | None:
        """Return score maps (B, N, ...) for distillation, scaled so that the squares of ideal maps sum to about 1; or
        None.
        """
        return None

    def calibrated(self, state: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
        """Return a net's `state`, changed so that the predicted sigma is `factor` times as large."""
        name = "head.log_scale.bias"
        return {**state, name: state[name] + math.log(factor)}

    def remapped(self, state: dict[str, Tensor], old: dict, new: dict, origins: Origins, meanface: np.ndarray) -> dict:
        """Return the head's tensors for the net of spec `new`, from `state`, those of the head of the net of spec
        `old`.

        Each landmark starts as a copy of its origin. meanface (N, 2) is in [0, 1] of the new net's crop. Raises
        ValueError if `state` does not fit `old`.
        """
        made = dict(state)
        for name, tensor in state.items():
            outputs = next((count for module, count in self.rows.items() if name.startswith(f"{module}.")), 0)
            if outputs and tensor.ndim:
                if len(tensor) != outputs * len(old["meanface"]):
                    raise ValueError(f"{name} is not of {len(old['meanface'])} landmarks")
                made[name] = tensor.unflatten(0, (-1, outputs))[origins.landmark].flatten(0, 1)
        return made


def weights_inside(labels: Labels, reach: float) -> Tensor:
    """Return the weights (B, N) of the landmarks, 0 for landmarks outside the crop by `reach` (in [0, 1]) or more."""
    return labels.weight * ((labels.landmarks - 0.5).abs() < 0.5 + reach).all(-1)


def in_cells(landmarks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return landmarks (B, N, 2) in cells of a `grid` (H, W), from [0, 1] of the crop."""
    # axis by axis, because a tensor made from the numbers of `grid` would have to be copied to a GPU
    return torch.stack([part * cells for part, cells in zip(landmarks.unbind(-1), grid[::-1], strict=True)], -1)


def from_cells(points: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Return points (..., 2) in [0, 1] of the crop, from cells of a `grid` (H, W): the inverse."""
    if grid[0] == grid[1]:
        return points / grid[0]  # one operator of an export instead of six
    return torch.stack([part / cells for part, cells in zip(points.unbind(-1), grid[::-1], strict=True)], -1)
