"""Nets by name. A backbone is one file and one row; a net is a backbone, a neck and a head, built from plain values."""
import difflib

import numpy as np

from nets.backbones.dpr import ROWS as DPR
from nets.backbones.irnet import ROWS as IRNETS
from nets.backbones.mobilenet import ROWS as MOBILENETS
from nets.backbones.resnet import ROWS as RESNETS
from nets.backbones.row import Row
from nets.backbones.slim import ROWS as SLIM
from nets.backbones.timm_net import ROWS as TIMM_NETS
from nets.backbones.timm_net import timm_row
from nets.heads.base import Head
from nets.heads.coordinate import CoordinateHead
from nets.heads.heatmap import HeatmapHead
from nets.heads.pip import PIPHead
from nets.heads.simcc import SimCCHead
from nets.labels import Labels, Prediction
from nets.net import Net
from nets.stages.local_parts import Parts, PartsHead
from nets.stages.spatial_transformer import Reinit

NETS: dict[str, Row] = {**RESNETS, **IRNETS, **MOBILENETS, **SLIM, **DPR, **TIMM_NETS}
HEADS: dict[str, type[Head]] = {"pip": PIPHead, "coordinate": CoordinateHead, "parts": PartsHead, "heatmap": HeatmapHead,
                                "simcc": SimCCHead}

__all__ = ["HEADS", "NETS", "Labels", "Net", "Prediction", "add_stages", "build_net", "make_spec", "net_row"]


def net_row(name: str) -> Row:
    """The row of a net, or a ValueError that names the nearest."""
    if name.startswith("timm:"):
        return timm_row(name.removeprefix("timm:"))
    if name not in NETS:
        near = difflib.get_close_matches(name, NETS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"no net '{name}'{hint} (there are: {', '.join(NETS)}, timm:NAME)")
    return NETS[name]


def make_spec(name: str, head: str, stride: int | None, input_size: int, meanface: np.ndarray, num_nb: int,
              act: str | None = None, options: dict | None = None) -> dict:
    """The plain values from which `build_net` makes a net. stride None: the head's own; options: of the head.

    Raises ValueError for a pair that makes no sense: net and act, head and stride, head and input size.
    """
    row, kind = net_row(name), HEADS[head]
    stride = stride or kind.strides[0]
    if act and act not in row.acts:
        raise ValueError(f"act is a choice of IRNets only, not of {name}")
    if stride not in kind.strides:
        raise ValueError(f"stride {stride} is none of the head {head}, which takes {', '.join(map(str, sorted(kind.strides)))}")
    if input_size < stride or input_size % 32 and head != "coordinate":
        raise ValueError(f"input_size must be a multiple of 32 and at least the stride ({stride}), not {input_size}")
    return {
        "net": name, "act": act, "head": head, "stride": stride, "input_size": input_size,
        "preprocess": {"order": row.order, "mean": list(row.mean), "std": list(row.std)},
        **kind.plan(meanface, num_nb), "options": options or {},
    }


def add_stages(spec: dict, meanface: np.ndarray, reinit: bool, parts: dict[str, list[int]] | None, others: list[str],
               hardness: float, refine: bool = False) -> dict:
    """The spec with what is not of every net: re-initialisation, a local stage for `parts`, other outputs, weighted landmarks,
    a refiner.

    meanface (N, 2) in [0, 1] of the crop. Keys are there only where they say something, so that older specs stay as they are.
    """
    more = {"others": others, "hardness": hardness, "parts": parts, "refine": refine}
    more |= {"face": np.asarray(meanface).tolist(), "input_margin": net_row(spec["net"]).input_margin} if reinit or parts else {}
    return {**spec, **{key: value for key, value in more.items() if value}}


def build_net(spec: dict) -> Net:
    """A net with random weights from `make_spec`'s values."""
    row, head = net_row(spec["net"]), HEADS[spec["head"]]
    backbone = row.build(act=spec["act"]) if spec["act"] else row.build()
    if spec["head"] == "coordinate" and hasattr(backbone, "vector"):
        neck = backbone.vector(spec["input_size"])
        if spec["options"].get("pool", "average") != "average":
            raise ValueError(f"pool {spec['options']['pool']} needs a map of cells, but {spec['net']} gives the head a vector; "
                             "leave pool out")
    else:
        neck = head.neck(backbone.channels, spec["stride"])
    net = Net(backbone, neck, head.of(neck.channels, spec), spec)
    if "parts" in spec:
        return Parts(net, spec["face"], spec["parts"])
    return Reinit(net, spec["face"]) if "face" in spec else net
