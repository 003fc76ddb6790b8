"""Tables of the choices on the command line: heads with their options, error forms, activations, pools, outputs.

This module must not import torch, so that flags are checked and --help is printed without loading it.
"""

from importlib import import_module
from typing import Any, NamedTuple


class HeadRow(NamedTuple):
    """One head.

    place: MODULE:NAME of its class
    strides: px of the input that one cell of its feature map may cover; the default first
    options: the keys of args.yaml that it reads
    terms: {term of its loss: the key of args.yaml that weighs the term}
    """

    place: str
    strides: tuple[int, ...]
    options: tuple[str, ...]
    terms: dict[str, str]

    def load(self) -> Any:
        """Import the class and return it."""
        module, _, name = self.place.partition(":")
        return getattr(import_module(module), name)

    @property
    def weights(self) -> tuple[str, ...]:
        """Return the keys of args.yaml that weigh terms of the loss."""
        return tuple(dict.fromkeys(self.terms.values()))


SWITCHES = ("sigma",)  # weights that, above 0, also turn on the option of the head's class that has their name
ACTS = ("prelu", "relu")  # of IRNets
POOLS = ("average", "depthwise")  # of the coordinate head
ERRORS = ("l1", "l2", "wing")  # functions of nets.losses
STATES = ("left_eye_closed", "right_eye_closed", "mouth_closed", "mouth_wide_open")  # left and right in the picture
TERMS = {  # {output beside the landmarks: {term: the key of args.yaml that weighs it}}
    "pose": {"pose": "pose"},
    "states": dict(zip(STATES, ("eyes", "eyes", "mouth", "mouth"), strict=True)),
    "visible": {"visible": "visible"},
    "face": {"face": "face"},
}
# the keys that weigh these terms
BESIDE = tuple(dict.fromkeys(key for terms in TERMS.values() for key in terms.values()))
# {output: its module in `Net`}
MODULES = {"pose": "auxiliary.pose", "states": "auxiliary.states", "visible": "visibility", "face": "face"}

HEADS: dict[str, HeadRow] = {
    "pip": HeadRow(
        "nets.heads.pip:PIPHead",
        (32, 16, 8, 64, 128),
        ("num_nb", "error", "cls_error"),
        {
            "score": "cls",
            "offset_x": "reg",
            "offset_y": "reg",
            "neighbor_x": "reg",
            "neighbor_y": "reg",
            "log_scale": "sigma",
        },
    ),
    "coordinate": HeadRow(
        "nets.heads.coordinate:CoordinateHead",
        (32,),
        ("error", "pool", "excite"),
        {"coordinate": "reg", "log_scale": "sigma"},
    ),
}
