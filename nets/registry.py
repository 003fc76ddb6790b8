"""Tables of the choices on the command line: heads with their options, error forms, activations, pools.

This module must not import torch, so that flags are checked and --help is printed without loading it. A class or
function is named "module:name"; `import_named` imports it.
"""

from importlib import import_module
from typing import Any, NamedTuple


class HeadRow(NamedTuple):
    """One head.

    build: its class, as "module:name"
    strides: px of the input that one cell of its feature map may cover; the default first
    options: the keys of args.yaml that it reads
    terms: {term of its loss: the key of args.yaml that weighs the term}
    """

    build: str
    strides: tuple[int, ...]
    options: tuple[str, ...]
    terms: dict[str, str]

    @property
    def weights(self) -> tuple[str, ...]:
        """Return the keys of args.yaml that weigh terms of the loss. With `sigma` above 0 a head predicts its error."""
        return tuple(dict.fromkeys(self.terms.values()))


ACTS = ("prelu", "relu")  # of IRNets
POOLS = ("average", "depthwise")  # of the coordinate head
ERRORS = {"l1": "nets.losses:l1", "l2": "nets.losses:l2", "wing": "nets.losses:wing"}

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
    "parts": HeadRow("extras.heads.parts:PartsHead", (32,), ("error",), {"coordinate": "reg"}),
    "heatmap": HeadRow("extras.heads.heatmap:HeatmapHead", (4, 8, 16), ("score_width",), {"score": "cls"}),
    "simcc": HeadRow("extras.heads.simcc:SimCCHead", (32, 16), ("score_width",), {"score": "cls"}),
}


def import_named(place: str) -> Any:
    """Return the class or function named "module:name" after importing its module."""
    module, name = place.split(":")
    return getattr(import_module(module), name)
