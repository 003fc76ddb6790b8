"""Published systems whose files run here as their authors ran them: one row for each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from extras.systems import DPR_MEANFACE, PIPNET_MEANFACE
from extras.systems.convert import exported, peppa
from extras.systems.convert.dpr import from_dpr, has_local_parts
from extras.systems.convert.gdconv import from_gdconv, gdconv_keys
from extras.systems.convert.published import HEAD_NAMES, NECK, from_published
from pipnet.runtimes import Opened
from utils.train.initialise import BACKBONES, backbone_in, shapes_of
from utils.train.weight_files import are_our_names

# {landmarks of a snapshot: what it was trained on}; 12: the eyes of 68
SETS = {68: "300w", 12: "300w", 98: "wflw", 29: "cofw", 19: "aflw", 106: "lapa"}
OUTPUTS = 143  # of Slim
STRIDES = {"deconv1.weight": 16, "layer6.weight": 128, "layer5.weight": 64}  # {tensor of the neck: its stride}


class PublishedGraph(NamedTuple):
    """An exported net of a system.

    net: its name, for messages
    fits(opened): whether an opened file is such a graph
    keys(opened): settings that the system's preset does not hold; the crop protocol is that of its demo
    read: function (opened, crops uint8 BGR (B, S, S, 3)) -> outputs of a landmark net
    """

    net: str
    fits: Callable[[Opened], Any]
    keys: Callable[[Opened], dict[str, Any]]
    read: Callable[[Opened, np.ndarray], dict[str, np.ndarray]]


class System(NamedTuple):
    """One published system.

    - title: its name, for messages
    - marks: tensors by any of which its files are known
    - preset: the row of args.yaml that holds its net, input size and crop protocol
    - keys(state): further keys of args.yaml, which follow from the tensors. KeyError, ValueError or ZeroDivisionError if
      the tensors cannot be run
    - convert: function (state, mean face (N, 2)) -> tensors under our names
    - meanface: the file with the mean face that its weights do not hold, and the folder of that file; empty if they need
      none
    - unused: beginnings of our names of tensors that its files may hold, but that the net does not have
    - graphs: its exported forms, the special before the general
    - crops(mean face): the preset, where the mean face tells another one than `preset`
    """

    title: str
    marks: tuple[str, ...]
    preset: str
    keys: Callable[[dict[str, Tensor]], dict]
    convert: Callable[[dict[str, Tensor], Any], dict[str, Tensor]]
    meanface: tuple[str, str] | tuple[()] = ()
    unused: tuple[str, ...] = ()
    graphs: tuple[PublishedGraph, ...] = ()
    crops: Callable[[np.ndarray], str] | None = None


def pipnet_preset(meanface: np.ndarray) -> str:
    """Return the preset of a PIPNet snapshot with that mean face (N, 2), in [0, 1] of the crop.

    Snapshots of semi-supervision hold the same tensors as others, but their crops of 300W are 1.3 boxes wide, not 1.1.
    """
    extent = np.ptp(meanface, axis=0).mean()
    return "gssl" if len(meanface) == 68 and extent < (1.1 * 1.3) ** -0.5 else "pipnet"


def snapshot_keys(state: dict[str, Tensor], system: str) -> dict:
    """Return the keys that a snapshot of PIPNet or of its IRNet fork tells: backbone, stride, neighbors, layout and
    dataset.
    """
    names = HEAD_NAMES[system]
    count, neighbors = (len(state[f"{names[part]}.bias"]) for part in ("score", "neighbor_x"))
    if count not in SETS:
        raise ValueError(f"it has {count} landmarks; snapshots of {', '.join(map(str, SETS))} are known")
    net, act = _backbone(state, system)
    stride = next((stride for tensor, stride in STRIDES.items() if tensor in state), 32)
    return {
        "net": net,
        "stride": stride,
        "num_nb": neighbors // count,
        "layout": str(count),
        "dataset": SETS[count],
        **({"act": act} if act else {}),
    }


def slim_keys(state: dict[str, Tensor]) -> dict:
    """Return the keys that Slim's tensors tell; none are needed."""
    if "fc.bias" in state and len(state["fc.bias"]) != OUTPUTS:
        raise ValueError(f"it has {len(state['fc.bias'])} outputs; one with {OUTPUTS} is known")
    return {"layout": "68"}


def _backbone(state: dict[str, Tensor], system: str) -> tuple[str, str | None]:
    """Return (net, activation, see `backbone_in`) of a snapshot. ValueError if a tensor belongs to no part of the net."""
    others = {*HEAD_NAMES[system].values(), *NECK}
    backbone = {name: tensor for name, tensor in state.items() if name.partition(".")[0] not in others}
    found = backbone_in(backbone, BACKBONES[system])
    if found is None:
        raise ValueError(f"its backbone is none of {', '.join(BACKBONES[system])}")
    if foreign := sorted(backbone.keys() - shapes_of(*found).keys()):
        raise ValueError(
            f"its backbone is {found[0]} with {len(foreign)} more tensors ({', '.join(foreign[:3])}"
            f"{' ...' if foreign[3:] else ''}), so another one"
        )
    return found


SYSTEMS = {
    "slim": System(
        "Peppa's Slim",
        ("conv13.4.weight",),
        "slim",
        slim_keys,
        peppa.from_peppa,
        graphs=(
            PublishedGraph(
                "slim",
                peppa.is_exported,
                lambda opened: {"layout": "68", "protocol": "slim_demo"},
                peppa.read_exported,
            ),
        ),
    ),
    "dpr": System(
        "DPR",
        ("localization.0.weight", "pts_net.4.weight", "left_eye_net.0.weight", "left_eye_loc.4.weight"),
        "dpr",
        lambda state: {"layout": "98", "local_parts": has_local_parts(state)},
        from_dpr,
        DPR_MEANFACE,
        ("places.",),
    ),
    "gdconv": System(
        "pytorch_face_landmark",
        ("linear7.conv.weight", "linear1.conv.weight"),
        "coordinate",
        gdconv_keys,
        from_gdconv,
        graphs=(
            PublishedGraph("mobilenetv2", exported.structure, exported.mobilenet_keys, exported.read_mobilenet),
            PublishedGraph("MobileFaceNet", exported.is_mobilefacenet, exported.pfld_keys, exported.read_pfld),
            PublishedGraph("PFLD", exported.is_pfld, exported.pfld_keys, exported.read_pfld),
        ),
    ),
    "pipnet": System(
        "PIPNet",
        ("cls_layer.weight",),
        "pipnet",
        lambda state: snapshot_keys(state, "pipnet"),
        from_published,
        PIPNET_MEANFACE,
        crops=pipnet_preset,
    ),
    "irnet": System(
        "the IRNet fork of PIPNet",
        ("score.weight",),
        "irnet",
        lambda state: snapshot_keys(state, "irnet"),
        from_published,
        PIPNET_MEANFACE,
    ),
}


def system_of(state: dict[str, Tensor]) -> System | None:
    """Return the system that published a state dict; None for one of ours, a plain backbone, and what is unknown."""
    if are_our_names(state):
        return None
    return next((system for system in SYSTEMS.values() if not state.keys().isdisjoint(system.marks)), None)
