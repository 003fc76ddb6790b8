"""Tables of the choices on the command line: heads with their options, error forms, activations, pools.

This module must not import torch, so that flags are checked and --help is printed without loading it. Other packages
may add heads and stages.
"""

from collections.abc import Callable
from typing import Any, NamedTuple


class HeadRow(NamedTuple):
    """One head.

    load: imports and returns its class
    strides: px of the input that one cell of its feature map may cover; the default first
    options: the keys of args.yaml that it reads
    terms: {term of its loss: the key of args.yaml that weighs the term}
    """

    load: Callable[[], Any]
    strides: tuple[int, ...]
    options: tuple[str, ...]
    terms: dict[str, str]

    @property
    def weights(self) -> tuple[str, ...]:
        """Return the keys of args.yaml that weigh terms of the loss. With `sigma` above 0 a head predicts its error."""
        return tuple(dict.fromkeys(self.terms.values()))


def _pip() -> type:
    from nets.heads.pip import PIPHead

    return PIPHead


def _coordinate() -> type:
    from nets.heads.coordinate import CoordinateHead

    return CoordinateHead


ACTS = ("prelu", "relu")  # of IRNets
POOLS = ("average", "depthwise")  # of the coordinate head
ERRORS = ("l1", "l2", "wing")  # functions of nets.losses

HEADS: dict[str, HeadRow] = {
    "pip": HeadRow(
        _pip,
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
        _coordinate,
        (32,),
        ("error", "pool", "excite"),
        {"coordinate": "reg", "log_scale": "sigma"},
    ),
}
# {key of a spec: imports and returns the stage around a re-initialised net that this key asks for}
STAGES: dict[str, Callable[[], Any]] = {}
