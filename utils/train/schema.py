"""The schema of a checkpoint: types and ranges of its values. It is checked once, on opening."""

from typing import Any

import torch
from torch import Tensor

from nets.outside import is_outside
from nets.registry import ACTS, STATES, SWITCHES, TERMS
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
from utils.settings.config import check_values
from utils.settings.heads import HEADS
from utils.settings.layouts import Layouts
from utils.settings.rooms import ROOMS
from utils.settings.sections import KEYS
from utils.settings.union import layout_of

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
    head=Kind(
        one_of(HEADS).says, lambda value: isinstance(value, str) and (value in HEADS or is_outside("heads", value))
    ),
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
    points=maybe(whole(1)),
    learnt_points=maybe(FLAG),
    preprocess=record(order=one_of(("RGB", "BGR")), mean=several(number(), 3), std=several(number(1e-6), 3)),
)
COMMON = {
    "args": table_of(ANY),
    "model": TENSORS,
    "format": one_of((FORMAT,)),
    "data": maybe(CHECKSUMS),
    "teacher": maybe(TEXT),
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


def checked(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of our checkpoint, with its settings in their types: a single name is a list if the setting is one.

    ValueError, which names the value, if it is incomplete, has wrong types or contradicts itself.
    """
    check(values, record(args=record(task=ANY, val=ANY, epochs=ANY)), "")  # others are new since the file was written
    values = {**values, "args": _typed(values["args"])}
    detects = values["args"]["task"] == "detect"
    check(values, DETECTOR if detects else LANDMARKS, "")
    if not detects:
        _check_landmarks(values)
    if "solver" in values or "rows" in values:
        check(values, STATE, "")
        _check_state(values, "val_miss" if detects else "val_nme")
    return values


def _typed(args: dict[str, Any]) -> dict[str, Any]:
    """Return settings in their types, without those of rooms that this checkout lacks. ValueError for wrong ones."""
    known = args if all(ROOMS.values()) else {key: value for key, value in args.items() if key in KEYS}
    try:
        return check_values(known, "args")
    except UserError as error:
        raise ValueError(str(error)) from None


def _check_landmarks(values: dict[str, Any]) -> None:
    """Raise ValueError if layout, mean face, neighbors, parts of the face and options of the head do not fit each
    other.
    """
    spec, layout = values["net"], layout_of(values["layout"])
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
    points = several(ANY, layout.count)
    means = values["model"].get("points.weight", torch.empty(0, layout.count))  # of more landmarks than the layout has
    indices = several(whole(0, means.shape[-1] - 1))
    neighbors = several(indices, means.shape[-1])
    own = record(
        points=maybe(one_of((layout.count,))),
        meanface=maybe(several(ANY, means.shape[-1])),
        neighbor_index=maybe(neighbors),
        groups=maybe(nullable(several(indices))),
        openings=maybe(several(indices)),
        local_parts=maybe(nullable(table_of(indices))),
    )
    check(values, record(meanface=maybe(nullable(points)), net=own), "")
    if len({len(ids) for ids in spec.get("neighbor_index", ())}) > 1:
        raise ValueError("net.neighbor_index has landmarks with different numbers of neighbors")
    options = HEADS[spec["head"]].options if spec["head"] in HEADS else KEYS  # of code that is not imported
    for key, value in spec["head_options"].items():
        if key not in SWITCHES and key not in options:
            raise ValueError(f"net.head_options.{key} is no option of the head {spec['head']}")
        try:
            check(value, FLAG, f"net.head_options.{key}") if key in SWITCHES else KEYS[key].check(value)
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
