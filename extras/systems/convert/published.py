"""Names in published snapshots of PIPNet (Jin, Liao & Shao 2021) and its IRNet fork, and ours.

Theirs have backbone, neck and head side by side; ours are `backbone.<published name>`, `neck.<published name>` and
`head.<name>`. Tensors have the same shapes.
"""

import re

from torch import Tensor

from nets.heads.transplant import PARTS

NECK = ("deconv1", "bn_deconv1", "layer5", "bn5", "layer6", "bn6")
HEAD_NAMES = {  # {system: {our name of a head's convolution: the published one}}
    "pipnet": dict(zip(PARTS, ("cls_layer", "x_layer", "y_layer", "nb_x_layer", "nb_y_layer"), strict=True)),
    "irnet": dict(zip(PARTS, PARTS, strict=True)),
}
CLASSIFIER = ("fc", "classifier")  # in plain ImageNet nets
OURS = ("backbone", "neck", "head", "auxiliary", "refiner", "transformer", "places", "regressors")
WRAPPED = re.compile(r"^(module\.|_orig_mod\.)+")


def are_our_names(state: dict[str, Tensor]) -> bool:
    """Return whether all names of a state dict are ours."""
    return all(name.partition(".")[0] in OURS for name in state)


def unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without the prefixes that DataParallel and torch.compile put before all names.

    Raises ValueError if two names become one.
    """
    plain = {WRAPPED.sub("", name): tensor for name, tensor in state.items()}
    if len(plain) < len(state):
        raise ValueError("it names some tensors both with and without the prefix 'module.'; it mixes two nets")
    return plain


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
