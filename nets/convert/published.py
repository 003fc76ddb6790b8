"""Names of published snapshots and ours.

PIPNet (Jin, Liao & Shao 2021) and its IRNet fork keep backbone, neck and head side by side; ours are `backbone.<published name>`,
`neck.<published name>` and `head.<name>`. Tensors are the same, shape by shape.
"""

from torch import Tensor

NECK = ("deconv1", "bn_deconv1", "layer5", "bn5", "layer6", "bn6")
HEADS = {  # published by: our name of a head's convolution -> the published one
    "pipnet": {
        "score": "cls_layer",
        "offset_x": "x_layer",
        "offset_y": "y_layer",
        "neighbor_x": "nb_x_layer",
        "neighbor_y": "nb_y_layer",
    },
    "irnet": {name: name for name in ("score", "offset_x", "offset_y", "neighbor_x", "neighbor_y")},
}
CLASSIFIER = ("fc", "classifier")  # of a plain ImageNet net
OURS = ("backbone", "neck", "head", "refiner", "others", "frame", "places", "regressors")


def is_ours(state: dict[str, Tensor]) -> bool:
    """Whether all names of a state dict are ours."""
    return all(name.partition(".")[0] in OURS for name in state)


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """State dict under our names, from one under the names of PIPNet, its IRNet fork, or a plain torchvision backbone.

    A `module.` prefix (DataParallel) and the classifier of a plain backbone are dropped; a state of ours comes back as it is.
    Raises ValueError when two names become one.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if is_ours(state):
        return state
    heads = {theirs: ours for names in HEADS.values() for ours, theirs in names.items()}
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if is_classifier(name):
            continue
        if part in heads:
            ours = f"head.{heads[part]}.{rest}"
        else:
            ours = f"{'neck' if part in NECK else 'backbone'}.{name}"
        if ours in renamed:
            raise ValueError(f"the state dict names {ours} twice; it mixes snapshots of different systems")
        renamed[ours] = tensor
    return renamed


def is_classifier(name: str) -> bool:
    """Whether a tensor of a plain ImageNet net belongs to what no landmark net has."""
    return name.removeprefix("module.").partition(".")[0] in CLASSIFIER


def to_published(state: dict[str, Tensor], system: str) -> dict[str, Tensor]:
    """The inverse: a state dict of ours under the names of `system`, 'pipnet' or 'irnet'.

    Raises ValueError for another system, and for tensors that the published nets have no name for.
    """
    if system not in HEADS:
        raise ValueError(f"system '{system}' is unknown; choose {' or '.join(HEADS)}")
    return {_to_published(name, HEADS[system]): tensor for name, tensor in state.items()}


def _to_published(name: str, heads: dict[str, str]) -> str:
    part, _, rest = name.partition(".")
    child, _, leaf = rest.partition(".")
    if part == "backbone" and rest:
        return rest
    if part == "neck" and child in NECK:
        return rest
    if part == "head" and child in heads:
        return f"{heads[child]}.{leaf}"
    raise ValueError(f"the published nets have no tensor like {name}")
