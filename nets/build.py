"""Nets from names and plain values.
A new backbone is one file and one line of NETS, a new head one file and one row of HEADS. Who has further heads passes a
table of its own.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from nets.backbones import timm_net
from nets.backbones.row import Row
from nets.net import Net
from nets.outside import code_of
from nets.registry import HEADS, HeadRow
from nets.trainable import Trainable
from nets.wrappers.own_points import OwnPoints
from nets.wrappers.spatial_transformer import Reinit

# a net may have so many times the values of its file, and so many more, while it is made: parts of timm's are dropped
SLACK = 4, 2**25
NETS = {  # {name: the file whose ROWS have it, which is imported when the net is asked for}
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), "nets.backbones.resnet"),
    **dict.fromkeys(("irnet18", "irnet50", "irnet100"), "nets.backbones.irnet"),
    **dict.fromkeys(("mobilenetv2", "mobilenetv3_large"), "nets.backbones.mobilenet"),
    "slim": "nets.backbones.slim",
    "dpr": "nets.backbones.dpr",
    **dict.fromkeys(timm_net.ROWS, "nets.backbones.timm_net"),
}


class NetOptions(NamedTuple):
    """The choices that define a net.

    net, head: rows of NETS and of the table of heads; stride, act: None for the default of the head, of the backbone
    head_options: keyword arguments of the head's class; groups: landmarks of each branch of the head `parts`
    refine: add the refiner; openings: opposite landmarks whose distance it learns, see `pipnet.layout.Layout.openings`
    reinit: move the face to a standard place first; local_parts: {name: landmarks} of the local stage, which implies
    reinit
    auxiliary: further outputs, among the keys of `registry.TERMS`
    hard_landmarks: power of `hard_landmark_weights`; 0: equal weights
    """

    net: str
    head: str = "pip"
    stride: int | None = None
    input_size: int = 256
    act: str | None = None
    num_nb: int = 10
    head_options: dict = {}
    reinit: bool = False
    local_parts: dict[str, list[int]] | None = None
    auxiliary: tuple[str, ...] = ()
    hard_landmarks: float = 0.0
    refine: bool = False
    groups: list[list[int]] | None = None
    openings: list[tuple[int, int, int, int]] = []


def net_row(name: str) -> Row:
    """Return the row of a net. Raises ValueError with the nearest name, and as `code_of`."""
    if name.startswith("timm:"):
        return timm_net.timm_row(name.removeprefix("timm:"))
    code = None if name in NETS else code_of("nets", name)
    if code is not None:
        return code if isinstance(code, Row) else Row(build=partial(_build_outside, name, code))
    if name not in NETS:
        near = difflib.get_close_matches(name, NETS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"no net '{name}'{hint} (there are: {', '.join(NETS)}, timm:NAME)")
    return import_module(NETS[name]).ROWS[name]


def _build_outside(name: str, build: Callable[..., nn.Module], **options: str) -> nn.Module:
    """Return the backbone that code from outside builds. ValueError if it is none."""
    backbone = build(**options)
    if not isinstance(backbone, nn.Module) or 32 not in getattr(backbone, "channels", ()):
        raise ValueError(
            f"'{name}' is no backbone: a torch module is needed, with `channels` {{stride: C}} for stride 32"
        )
    return backbone


def check_options(options: NetOptions, heads: Mapping[str, HeadRow] = HEADS) -> int:
    """Return the stride of the head. ValueError for choices that do not fit together, whatever the faces are."""
    row, head = net_row(options.net), heads[options.head]
    kind, stride, size = head.load(), options.stride or head.strides[0], options.input_size
    if options.act and options.act not in row.acts:
        raise ValueError(f"act is a choice of IRNets only, not of {options.net}; leave it out")
    if stride not in head.strides:
        choices = ", ".join(map(str, sorted(head.strides)))
        raise ValueError(f"head {options.head} cannot have stride {stride}; choose one of {choices}")
    if size < stride:
        raise ValueError(f"input_size must be at least the stride ({stride}), not {size}")
    if size % kind.size_multiple:
        raise ValueError(f"input_size must be a multiple of {kind.size_multiple} for head {options.head}, not {size}")
    return stride


def make_spec(
    options: NetOptions,
    meanface: np.ndarray,
    labelled: np.ndarray | None = None,
    heads: Mapping[str, HeadRow] = HEADS,
) -> dict:
    """Return the plain values from which `build_net` makes the net; meanface (N, 2) in [0, 1] of the crop.

    labelled (S, N) bool: which landmarks each training set labels; None: all label the same. ValueError as in
    `check_options`.
    """
    stride, row, kind = check_options(options, heads), net_row(options.net), heads[options.head].load()
    preprocess = {"order": row.order, "mean": list(row.mean), "std": list(row.std)}
    spec = {
        **options._asdict(),
        "head_options": dict(options.head_options),
        "stride": stride,
        "preprocess": preprocess,
        **kind.plan(meanface, options.num_nb, labelled),
    }
    if options.reinit or options.local_parts:
        spec |= {
            "reinit": True,
            "meanface": np.asarray(meanface, np.float64).tolist(),
            "input_margin": row.input_margin,
        }
    return spec


@contextmanager
def no_larger(values: int) -> Iterator[None]:
    """Raise ValueError if the modules that are made in the body have many more than so many values.

    A module takes its memory when it is filled, after it is counted: a foreign spec may name a net of any size.
    """
    taken, most = 0, SLACK[0] * values + SLACK[1]

    def add(_module: nn.Module, _name: str, tensor: Tensor | None) -> None:
        nonlocal taken
        taken += 0 if tensor is None else tensor.numel()
        if taken > most:
            raise ValueError("too large")

    hooks = [register_module_parameter_registration_hook(add), register_module_buffer_registration_hook(add)]
    try:
        yield
    except Exception:
        if taken > most:  # a builder may have reworded it
            raise ValueError(f"its net is far larger than the {values:,} values of the file") from None
        raise
    finally:
        for hook in hooks:
            hook.remove()


def build_net(
    spec: dict,
    heads: Mapping[str, HeadRow] = HEADS,
    stages: Mapping[str, Callable[[], type]] = MappingProxyType({}),
) -> Trainable:
    """Return a net with random weights from the values of `make_spec`.

    stages: {key of a spec: imports and returns the stage around a re-initialised net that this key asks for}.
    """
    row, head = net_row(spec["net"]), heads[spec["head"]]
    kind = head.load()
    backbone = row.build(act=spec["act"]) if spec["act"] else row.build()
    neck = kind.neck(backbone, spec)
    net: Any = Net(backbone, neck, kind(neck.channels, spec, **spec["head_options"]), spec, head.terms)
    if spec.get("reinit"):
        net = Reinit(net)
        net = stages["local_parts"]()(net) if spec.get("local_parts") else net
    return OwnPoints(net) if spec.get("points") else net
