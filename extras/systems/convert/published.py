"""Names in published snapshots of PIPNet (Jin, Liao & Shao 2021) and its IRNet fork, and ours.

Theirs have backbone, neck and head side by side; ours are `backbone.<published name>`, `neck.<published name>` and
`head.<name>`. Tensors have the same shapes.
"""

from torch import Tensor

from nets.heads.remap import PARTS
from utils.train.weight_files import are_our_names

NECK = ("deconv1", "bn_deconv1", "layer5", "bn5", "layer6", "bn6")
HEAD_NAMES = {  # {system: {our name of a head's convolution: the published one}}
    "pipnet": dict(zip(PARTS, ("cls_layer", "x_layer", "y_layer", "nb_x_layer", "nb_y_layer"), strict=True)),
    "irnet": dict(zip(PARTS, PARTS, strict=True)),
}
CLASSIFIER = ("fc", "classifier")  # in plain ImageNet nets


def from_published(state: dict[str, Tensor], _meanface: object = None) -> dict[str, Tensor]:
    """Return a state dict of PIPNet, its IRNet fork, or a plain torchvision backbone under our names.

    The classifier of a plain backbone is dropped. A state dict of ours is returned unchanged. Raises ValueError if two
    names become one.
    """
    if are_our_names(state):
        return state
    heads = {theirs: ours for names in HEAD_NAMES.values() for ours, theirs in names.items()}
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if is_classifier(name):
            continue
        if part in heads:
            ours = f"head.{heads[part]}.{rest}"
        else:
            ours = f"neck.{name}" if part in NECK else f"backbone.{name}"
        if ours in renamed:
            raise ValueError(f"the state dict names {ours} twice; it mixes snapshots of different systems")
        renamed[ours] = tensor
    return renamed


def is_classifier(name: str) -> bool:
    """Return whether a tensor belongs to the classifier of a plain ImageNet net."""
    return name.partition(".")[0] in CLASSIFIER
