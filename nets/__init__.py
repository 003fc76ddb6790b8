"""Nets by name. A backbone is one file and one row; a net is a backbone, a neck and a head, built from plain values."""
import difflib

import numpy as np

from nets.irnet import ROWS as IRNETS
from nets.labels import Labels, Prediction
from nets.mobilenet import ROWS as MOBILENETS
from nets.net import Net
from nets.pip import Neck, PIPHead, nearest_neighbors
from nets.resnet import ROWS as RESNETS
from nets.row import Row
from nets.timm_net import timm_row

NETS: dict[str, Row] = {**RESNETS, **IRNETS, **MOBILENETS}
HEADS = {"pip": PIPHead}

__all__ = ["HEADS", "NETS", "Labels", "Net", "Prediction", "build_net", "make_spec", "net_row"]


def net_row(name: str) -> Row:
    """The row of a net, or a ValueError that names the nearest."""
    if name.startswith("timm:"):
        return timm_row(name.removeprefix("timm:"))
    if name not in NETS:
        near = difflib.get_close_matches(name, NETS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"no net '{name}'{hint} (there are: {', '.join(NETS)}, timm:NAME)")
    return NETS[name]


def make_spec(name: str, head: str, stride: int, input_size: int, meanface: np.ndarray, num_nb: int,
              act: str | None = None, options: dict | None = None) -> dict:
    """The plain values from which `build_net` makes a net. meanface (N, 2) decides the neighbors; options: of the head."""
    row = net_row(name)
    if act and not name.startswith("irnet"):
        raise ValueError(f"act is a choice of IRNets only, not of {name}")
    if input_size < stride or input_size % 32:
        raise ValueError(f"input_size must be a multiple of 32 and at least the stride ({stride}), not {input_size}")
    return {
        "net": name, "act": act, "head": head, "stride": stride, "input_size": input_size,
        "preprocess": {"order": "RGB", "mean": list(row.mean), "std": list(row.std)},
        "neighbor_index": nearest_neighbors(meanface, num_nb), "options": options or {},
    }


def build_net(spec: dict) -> Net:
    """A net with random weights from `make_spec`'s values."""
    row = net_row(spec["net"])
    backbone = row.build(act=spec["act"]) if spec["act"] else row.build()
    neck = Neck(backbone.channels[32], spec["stride"])
    return Net(backbone, neck, HEADS[spec["head"]](neck.channels, spec["neighbor_index"], **spec.get("options", {})), spec)
