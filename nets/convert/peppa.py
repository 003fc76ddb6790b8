"""Peppa's Slim under our names."""
import numpy as np
import torch
from torch import Tensor

from nets.heads.coordinate import UNIT
from nets.stages.auxiliary import UNIT as QUARTER

UPWARDS = (-1.0, 1.0, 1.0)  # pitch is positive downwards there, upwards here


def from_peppa(state: dict[str, Tensor], meanface: np.ndarray) -> dict[str, Tensor]:
    """Return Peppa's state dict under our names; meanface (N, 2), in [0, 1] of the crop, is that of the coordinate head.

    Its last layer gives 68 landmarks in [0, 1] of the crop, the pose in quarter turns and four states.
    """
    found = {f"backbone.{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")}
    weight, bias = state["fc.weight"], state["fc.bias"]
    points, mean = len(bias) - 7, torch.tensor(np.asarray(meanface).ravel(), dtype=bias.dtype)
    if len(mean) == points:
        found |= {"head.output.weight": weight[:points, :, None, None] / UNIT, "head.output.bias": (bias[:points] - mean) / UNIT}
    upwards = torch.tensor(UPWARDS)
    found |= {"auxiliary.pose.weight": weight[points:-4] * upwards[:, None], "auxiliary.pose.bias": bias[points:-4] * upwards}
    return found | {"auxiliary.states.weight": weight[-4:], "auxiliary.states.bias": bias[-4:]}


def read_output(output: np.ndarray) -> dict[str, np.ndarray]:
    """Return landmarks (B, 68, 2) in [0, 1] of the crop, score, pose and states from the output (B, 143) of Peppa's graph."""
    landmarks = output[:, :-7].reshape(len(output), -1, 2)
    pose, states = output[:, -7:-4] * np.float32(QUARTER) * np.array(UPWARDS, np.float32), 1 / (1 + np.exp(-output[:, -4:]))
    return {"landmarks": landmarks, "score": np.ones(landmarks.shape[:2], np.float32), "pose": pose, "states": states}
