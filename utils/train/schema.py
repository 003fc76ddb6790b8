"""The schema of a checkpoint: types and ranges of its values. It is checked once, on opening."""

from typing import Any

import torch
from torch import Tensor

from nets.registry import ACTS, HEADS
from nets.stages.auxiliary import STATES, TERMS
from pipnet.card import (
    ANY,
    FLAG,
    INDEX,
    INDICES,
    LAYOUT,
    MISSING,
    POINTS,
    PROTOCOL,
    SHARE,
    SIZE,
    TEXT,
    Kind,
    check,
    check_layout,
    maybe,
    nullable,
    number,
    one_of,
    record,
    several,
    table_of,
    whole,
)
from pipnet.errors import UserError
from utils.settings.extras import EXTRAS, has_extra
from utils.settings.layouts import Layouts
from utils.settings.sections import KEYS
from utils.settings.yaml_files import nearest

FORMAT = 2


def is_whole(value: Any) -> bool:
    """Return whether a value is a tensor whose values are all there: dense, on the CPU, with as many as it claims."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_complex()
        and value.nbytes <= value.untyped_storage().nbytes()
    )


TENSOR = Kind("a tensor with all its values", is_whole)
TENSORS = table_of(TENSOR)
FIGURE = number(finite=False)  # NaN without validation faces
CHECKSUMS = several(TEXT, least=1)
NUMBERS = table_of(nullable(FIGURE))
SPEC = record(  # see nets.build.make_spec
    net=TEXT,
    head=one_of(HEADS),
    stride=whole(1, 1024),
    input_size=SIZE,
    act=nullable(one_of(ACTS)),
    num_nb=maybe(whole()),
    head_options=table_of(ANY),
    reinit=maybe(FLAG),
    refine=FLAG,
    auxiliary=several(one_of(TERMS)),
    states=maybe(several(nullable(one_of(STATES)))),
    hard_landmarks=number(0),
    local_parts=maybe(nullable(table_of(INDICES))),
    groups=maybe(nullable(several(INDICES))),
    openings=maybe(several(several(INDEX, 4))),
    input_margin=maybe(number(1, 4)),
    neighbor_index=maybe(several(INDICES, least=1)),
    meanface=maybe(POINTS),
    preprocess=record(order=one_of(("RGB", "BGR")), mean=several(number(), 3), std=several(number(1e-6), 3)),
)
COMMON = {
    "args": table_of(ANY),
    "model": TENSORS,
    "format": one_of((FORMAT,)),
    "data": maybe(CHECKSUMS),
    "epoch": maybe(whole()),
    "threads": maybe(whole(0, 4096)),
    "command": maybe(TEXT),
}
LANDMARKS = record(
    **COMMON,
    net=SPEC,
    layout=LAYOUT,
    protocol=PROTOCOL,
    layouts=maybe(table_of(table_of(ANY))),
    meanface=maybe(nullable(POINTS)),
    val_nme=maybe(FIGURE),
    val_false=maybe(FIGURE),
    face_reliability=maybe(several(several(number(), 3))),
    face_limit=maybe(SHARE),
)
DETECTOR = record(
    **COMMON,
    net=record(net=TEXT),
    layout=record(),
    protocol=record(),
    val_miss=maybe(FIGURE),
    threshold=maybe(SHARE),
    overlap=maybe(SHARE),
    face_box=maybe(several(number(), 3)),
)
STATE = record(  # what a training goes on from
    data=CHECKSUMS,
    epoch=whole(),
    rows=several(NUMBERS, least=1),
    times=several(NUMBERS, least=1),
    best=FIGURE,
    solver=record(
        net=TENSORS,
        average=nullable(TENSORS),
        scaler=table_of(ANY),
        step=whole(),
        optimizer=record(
            state=Kind(
                "a table of numbers and tensors",
                lambda value: isinstance(value, dict) and all(isinstance(place, int) for place in value),
                lambda value: ((str(place), one, TENSORS) for place, one in value.items()),
            ),
            param_groups=several(record()),
        ),
    ),
)
ALWAYS = ("task", "val", "epochs")  # args that are read as they stand in the file


def check_checkpoint(values: dict[str, Any]) -> None:
    """Raise ValueError, which names the value, if our checkpoint is incomplete, has wrong types or contradicts itself.

    Settings are converted in place: a single name becomes a list if the setting is a list.
    """
    check(values, record(args=table_of(ANY)), "")
    _check_args(values["args"])
    task = values["args"]["task"]
    check(values, DETECTOR if task == "detect" else LANDMARKS, "")
    if task == "landmarks":
        _check_landmarks(values)
    if "solver" in values or "rows" in values:
        check(values, STATE, "")
        _check_state(values, "val_miss" if task == "detect" else "val_nme")


def _check_args(args: dict[str, Any]) -> None:
    """Convert the settings to their types in place. ValueError for unknown or wrong ones.

    Settings may be missing, since an older version may have written the file.
    """
    for key in ALWAYS:
        if key not in args:
            raise ValueError(f"args.{key} is missing, it must be a value of that setting")
    for key in [key for key in args if key not in KEYS]:
        if all(map(has_extra, EXTRAS)):
            raise ValueError(f"args.{key} is no setting of this version{nearest(key, KEYS)}")
        del args[key]  # it may be of a room that this checkout lacks
    for key, value in args.items():
        try:
            args[key] = KEYS[key].check(value)
        except UserError as error:
            raise ValueError(f"args.{error}") from None


def _check_landmarks(values: dict[str, Any]) -> None:
    """Raise ValueError if layout, mean face, neighbors, parts of the face and options of the head do not fit each
    other.
    """
    spec, layout = values["net"], check_layout(values["layout"])
    layouts = Layouts(values.get("layouts", {}))
    for name, row in layouts.rows.items():
        try:
            if layouts.is_union(name):
                layouts.conventions(name)
            elif {
                row.get("of", name),
                *(row.get("same_as") or {}),
            } <= layouts.rows.keys():  # else it is checked when it is used
                layouts.load(name)
        except UserError as error:
            raise ValueError(f"layouts.{name}: {error}") from None
    for name, points in (
        ("meanface", values.get("meanface")),
        ("net.meanface", spec.get("meanface")),
        ("net.neighbor_index", spec.get("neighbor_index")),
    ):
        if points is not None and len(points) != layout.count:
            raise ValueError(f"{name} has {len(points)} landmarks, {layout.count} belong there")
    neighbors = spec.get("neighbor_index") or []
    if len({len(ids) for ids in neighbors}) > 1:
        raise ValueError("net.neighbor_index has landmarks with different numbers of neighbors")
    parts = {
        "neighbor_index": neighbors,
        "groups": spec.get("groups") or [],
        "openings": spec.get("openings") or [],
        "local_parts": list((spec.get("local_parts") or {}).values()),
    }
    for name, several_ids in parts.items():
        if any(i >= layout.count for ids in several_ids for i in ids):
            raise ValueError(f"net.{name} names a landmark outside 0..{layout.count - 1}")
    options = HEADS[spec["head"]].options
    for key, value in spec["head_options"].items():
        if key != "sigma" and key not in options:
            raise ValueError(f"net.head_options.{key} is no option of the head {spec['head']}")
        try:
            check(value, FLAG, "net.head_options.sigma") if key == "sigma" else KEYS[key].check(value)
        except UserError as error:
            raise ValueError(f"net.head_options.{error}") from None


def _check_state(values: dict[str, Any], figure: str) -> None:
    """Raise ValueError if epochs are missing from a training's state. figure: the column that picks the best epoch."""
    rows, times = values["rows"], values["times"]
    for name, several_rows in (("rows", rows), ("times", times)):
        for place, row in enumerate(several_rows):
            check(row.get("epoch", MISSING), one_of((place,)), f"{name}.{place}.epoch")
    if not len(rows) == len(times) == values["epoch"] + 1:
        raise ValueError(
            f"rows and times hold {len(rows)} and {len(times)} epochs, epoch {values['epoch']} is the last one"
        )
    for place, row in enumerate(rows):
        for key in (figure, "lr", "loss"):
            check(row.get(key, MISSING), FIGURE, f"rows.{place}.{key}")
    if rows[-1].get("best") != values["best"] and values["best"] == values["best"]:
        raise ValueError(f"best is {values['best']}, the last row has {rows[-1].get('best')}")
