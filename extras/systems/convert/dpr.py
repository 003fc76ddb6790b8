"""DPR's published files under our names."""

import numpy as np
import torch
from torch import Tensor

from extras.systems.local_parts import SIZE, square_frame
from nets.heads.coordinate import UNIT
from nets.wrappers.spatial_transformer import THETA_SCALE

PARTS = {
    "eye_left": ("left_eye", [*range(33, 42), *range(60, 68), 96]),
    "eye_right": ("right_eye", [*range(42, 51), *range(68, 76), 97]),
    "nose": ("nose", [*range(51, 60)]),
    "mouth": ("mouth", [*range(76, 96)]),
}  # {our name: (published name, landmarks)}
KNOWN = (
    "localization.",
    "fc_loc.",
    "features.",
    "pts_net.",
    "left_eye_",
    "right_eye_",
    "nose_",
    "mouth_",
    "mean_parts",
)


def from_dpr(state: dict[str, Tensor], meanface: np.ndarray) -> dict[str, Tensor]:
    """Return the state dict of one of DPR's four files, or of several joined, under our names; others keep their names.

    Pixel centres are integers there, and frames are 128 px (box and parts) or 256 px (face) wide; ours are [0, 1]. The
    files do not hold the mean face that the regressor adds its output to; only a net with that mean face gives the
    published landmarks. meanface (98, 2): of our net. The tensor mean_parts (65, 2) holds the mean places of the parts'
    landmarks in their crops, part by part. Raises ValueError if the nets of the parts are there, and it is not.
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
    found |= {name: tensor for name, tensor in state.items() if not name.startswith(KNOWN)}
    if "fc_loc.2.weight" in state:
        _to_unit_frames(found, "transformer.fc_loc.2", 1.0, 0.5 / 256)
    for ours, (theirs, _) in PARTS.items():
        found |= _place(state, ours, theirs)
    if has_local_parts(state):
        found |= _regressors(state, np.asarray(meanface))
    return found


def has_local_parts(state: dict[str, Tensor]) -> bool:
    """Return whether a state dict holds the nets of the parts."""
    return any(name.startswith(tuple(f"{theirs}_loc." for theirs, _ in PARTS.values())) for name in state)


def _place(state: dict[str, Tensor], ours: str, theirs: str) -> dict[str, Tensor]:
    """Return the tensors of the linear net that gives a part's crop; none if `state` does not hold it."""
    names = [f"{theirs}_net.{layer}.{leaf}" for layer in range(5) for leaf in ("weight", "bias")]
    found = {f"places.{ours}.{name.partition('.')[2]}": state[name] for name in names if name in state}
    first = f"places.{ours}.0"
    if f"{first}.weight" in found:  # its input there is in px of 256
        found[f"{first}.bias"] = found[f"{first}.bias"] - 0.5 * found[f"{first}.weight"].sum(1)
        found[f"{first}.weight"] = 256 * found[f"{first}.weight"]
        _to_unit_frames(found, f"places.{ours}.4", 2.0, 0.5 / SIZE)
    return found


def _regressors(state: dict[str, Tensor], meanface: np.ndarray) -> dict[str, Tensor]:
    """Return the tensors of the nets that find the parts' landmarks; see `from_dpr`.

    Their convolutions have one number more in their names than the layers of `_place`, which bear the same name.
    """
    if "mean_parts" not in state:
        raise ValueError(
            "the nets of the parts add their output to mean parts, which their file does not hold: join mean_parts.pt, "
            "made from DPR's data/mean_98_part_face.npy as docs/migration.md says"
        )
    found, means = {}, state["mean_parts"].double().split([len(ids) for _, ids in PARTS.values()])
    for (ours, (theirs, ids)), mean in zip(PARTS.items(), means, strict=True):
        for name, tensor in state.items():
            part, _, rest = name.partition(".")
            if part == f"{theirs}_net" and rest.count(".") > 1:
                found[f"regressors.{ours}.0.features.{rest}"] = tensor
            elif part == f"{theirs}_loc" and rest[0] != "4":
                found[f"regressors.{ours}.1.layers.{rest}"] = tensor
        matrix = square_frame(meanface[ids])
        moved = mean + 0.5 / SIZE - torch.tensor(meanface[ids] @ matrix[:, :2].T + matrix[:, 2])
        bias = state[f"{theirs}_loc.4.bias"]
        found[f"regressors.{ours}.2.weight"] = state[f"{theirs}_loc.4.weight"][:, :, None, None]
        found[f"regressors.{ours}.2.bias"] = bias + 2 * moved.flatten().to(bias)  # half the output is added to a mean
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
