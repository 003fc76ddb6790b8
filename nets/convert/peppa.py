"""Peppa's Slim under our names."""
import numpy as np
import torch
from torch import Tensor

from nets.heads.coordinate import UNIT


def from_peppa(state: dict[str, Tensor], meanface: np.ndarray) -> dict[str, Tensor]:
    """Return Peppa's state dict under our names; meanface (N, 2), in [0, 1] of the crop, is that of the coordinate head.

    Its last layer gives 68 landmarks in [0, 1] of the crop, the pose in quarter turns (pitch is positive downwards there, upwards
    here) and four states.
    """
    found = {f"backbone.{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")}
    weight, bias = state["fc.weight"], state["fc.bias"]
    points, mean = len(bias) - 7, torch.tensor(np.asarray(meanface).ravel(), dtype=bias.dtype)
    if len(mean) == points:
        found |= {"head.output.weight": weight[:points, :, None, None] / UNIT, "head.output.bias": (bias[:points] - mean) / UNIT}
    upwards = torch.tensor([-1.0, 1, 1])
    found |= {"auxiliary.pose.weight": weight[points:-4] * upwards[:, None], "auxiliary.pose.bias": bias[points:-4] * upwards}
    return found | {"auxiliary.states.weight": weight[-4:], "auxiliary.states.bias": bias[-4:]}
