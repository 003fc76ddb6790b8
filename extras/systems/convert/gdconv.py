"""The MobileNets of pytorch_face_landmark under our names."""

import numpy as np
import torch
from torch import Tensor

from nets.heads.coordinate import UNIT

SIZES = {7: 224, 2: 56}  # {cells of the last map: px of the input}
NAMES = {
    "pretrain_net.features.": "backbone.features.",
    "linear7.conv.": "head.pool.0.",
    "linear7.bn.": "head.pool.1.",
    "linear1.conv.": "head.output.",
    "linear1.bn.": "head.norm.",
    "attention.fc1.": "head.excite.gate.1.",
    "attention.fc2.": "head.excite.gate.3.",
}  # {beginning of a tensor's name: ours}


def gdconv_keys(state: dict[str, Tensor]) -> dict:
    """Return the keys of args.yaml that the tensors tell. ValueError for a map of another size."""
    cells = state["linear7.conv.weight"].shape[-1]
    if cells not in SIZES:
        raise ValueError(
            f"its last map has {cells} x {cells} cells, and only {' and '.join(map(str, SIZES))} tell the size of the input; "
            "export it to ONNX, which states the size"
        )
    size = SIZES[cells]
    return {
        "layout": str(len(state["linear1.bn.bias"]) // 2),
        "input_size": size,
        "excite": "attention.fc1.weight" in state,
        "protocol": protocol_at(size),
    }


def protocol_at(size: int) -> str:
    """Return the crop protocol of the demos that run a net with an input of that size: on a folder 224 px, else a camera."""
    return "cunjian" if size == 224 else "cunjian_camera"


def from_gdconv(state: dict[str, Tensor], meanface: np.ndarray) -> dict[str, Tensor]:
    """Return the state dict of a MobileNet_GDConv under our names.

    meanface (N, 2), in [0, 1] of the crop: that of the coordinate head, which adds its output to it. The files hold the
    backbone twice, and the classifier of ImageNet.
    """
    found = {
        name.replace(theirs, ours, 1): tensor
        for theirs, ours in NAMES.items()
        for name, tensor in state.items()
        if name.startswith(theirs)
    }
    bias = found["head.norm.bias"]
    found["head.output.bias"] = torch.zeros_like(bias)
    found["head.norm.weight"] = found["head.norm.weight"] / UNIT
    found["head.norm.bias"] = (bias - torch.tensor(np.asarray(meanface).ravel(), dtype=bias.dtype)) / UNIT
    for name in [name for name in found if name.startswith("head.excite.")]:
        found[name.replace("weight", "bias")] = found[name].new_zeros(len(found[name]))
    return found
