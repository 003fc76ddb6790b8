"""Peppa's Slim under our names."""

import numpy as np
import torch
from torch import Tensor

from nets.backbones.slim import MEAN
from nets.heads.coordinate import UNIT
from nets.stages.auxiliary import QUARTER
from pipnet.runtimes import Opened

UPWARDS = (-1.0, 1.0, 1.0)  # signs of pitch, yaw, roll: pitch is positive downwards there, upwards here


def from_peppa(state: dict[str, Tensor], meanface: np.ndarray) -> dict[str, Tensor]:
    """Return Peppa's state dict under our names; meanface (N, 2), in [0, 1] of the crop, is that of the coordinate
    head.

    Its last layer gives 68 landmarks in [0, 1] of the crop, the pose in quarter turns and four states.
    """
    found = {f"backbone.{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")}
    weight, bias = state["fc.weight"], state["fc.bias"]
    points, mean = len(bias) - 7, torch.tensor(np.asarray(meanface).ravel(), dtype=bias.dtype)
    if len(mean) == points:
        found |= {
            "head.output.weight": weight[:points, :, None, None] / UNIT,
            "head.output.bias": (bias[:points] - mean) / UNIT,
        }
    upwards = torch.tensor(UPWARDS)
    found |= {
        "auxiliary.pose.weight": weight[points:-4] * upwards[:, None],
        "auxiliary.pose.bias": bias[points:-4] * upwards,
    }
    return found | {"auxiliary.states.weight": weight[-4:], "auxiliary.states.bias": bias[-4:]}


def is_exported(opened: Opened) -> bool:
    """Return whether a graph has the ports of the published ONNX and MNN files."""
    return (opened.inputs, opened.outputs) == (["input1"], ["output1"])


def read_exported(opened: Opened, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of a landmark net for crops uint8 BGR (B, S, S, 3). opened: a published ONNX or MNN file.

    Such a file takes float32 (1, 3, S, S) and gives the 143 values of its last layer. The score is 1.
    """
    mean = np.array(MEAN, np.float32)
    inputs = ((images / np.float32(255) - mean) / mean).transpose(0, 3, 1, 2)
    values = np.concatenate([opened.run({"input1": one[None]})["output1"] for one in inputs])
    points = values[:, :-7].reshape(len(values), -1, 2)
    return {
        "landmarks": points,
        "score": np.ones(points.shape[:2], np.float32),
        "pose": values[:, -7:-4] * np.array(UPWARDS, np.float32) * np.float32(QUARTER),
        "states": 1 / (1 + np.exp(-values[:, -4:])),
    }
