"""DPR's published files under our names."""

import numpy as np
import torch
from torch import Tensor

from nets.heads.coordinate import UNIT
from nets.wrappers.spatial_transformer import THETA_SCALE

PLACES = {
    "eye_left": "left_eye_net",
    "eye_right": "right_eye_net",
    "nose": "nose_net",
    "mouth": "mouth_net",
}  # {ours: published}


def from_dpr(state: dict[str, Tensor], _meanface: np.ndarray) -> dict[str, Tensor]:
    """Return the state dict of one of DPR's three files, or of several joined, under our names; others keep their
    names.

    Pixel centres are integers there, and frames are 128 px (box and parts) or 256 px (face) wide; ours are [0, 1]. The
    files do not hold the mean face that the regressor adds its output to; only a net with that mean face gives the
    published landmarks.
    """
    found = {
        f"transformer.{name}": tensor for name, tensor in state.items() if name.startswith(("localization.", "fc_loc."))
    }
    found |= {f"backbone.{name}": tensor for name, tensor in state.items() if name.startswith("features.")}
    dense = {name.removeprefix("pts_net."): tensor for name, tensor in state.items() if name.startswith("pts_net.")}
    found |= {f"neck.layers.{name}": tensor for name, tensor in dense.items() if name[0] != "4"}
    if "4.weight" in dense:  # half its output is in units of the face's frame
        found["head.output.weight"] = dense["4.weight"][:, :, None, None] / (2 * UNIT)
        found["head.output.bias"] = dense["4.bias"] / (2 * UNIT) + 0.5 / 256 / UNIT
    known = ("localization.", "fc_loc.", "features.", "pts_net.", *(f"{theirs}." for theirs in PLACES.values()))
    found |= {name: tensor for name, tensor in state.items() if not name.startswith(known)}
    if "fc_loc.2.weight" in state:
        _to_unit_frames(found, "transformer.fc_loc.2", 1.0, 0.5 / 256)
    for ours, theirs in PLACES.items():
        if f"{theirs}.0.weight" in state:
            found |= {
                f"places.{ours}.{name.removeprefix(f'{theirs}.')}": tensor
                for name, tensor in state.items()
                if name.startswith(f"{theirs}.")
            }
            first = f"places.{ours}.0"  # its input there is in px of 256
            found[f"{first}.bias"] = found[f"{first}.bias"] - 0.5 * found[f"{first}.weight"].sum(1)
            found[f"{first}.weight"] = 256 * found[f"{first}.weight"]
            _to_unit_frames(found, f"places.{ours}.4", 2.0, 0.5 / 128)
    return found


def _to_unit_frames(state: dict[str, Tensor], layer: str, scale: float, shift: float) -> None:
    """Convert, in place, the last layer of a net for a map between pixel frames to one for frames of [0, 1].

    The published map is shifted in units of 128 px. scale: side of the first frame over that of the second and over
    this unit; shift: half a px of the second frame.
    """
    for leaf, constant in (("weight", 0.0), ("bias", shift)):
        a, b, x, c, d, y = state[f"{layer}.{leaf}"].unbind(0)
        x, y = x - 0.5 / 128 * (a + b) + constant, y - 0.5 / 128 * (c + d) + constant
        state[f"{layer}.{leaf}"] = torch.stack([scale * a, scale * b, x, scale * c, scale * d, y]) / THETA_SCALE
