"""The cards of exported nets: what a file's metadata say, with types and ranges. A file is checked once, on opening."""

import math
import reprlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import MISSING as REQUIRED
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from pipnet.bounds import MOST_LANDMARKS, MOST_PX
from pipnet.errors import UserError
from pipnet.geometry import CHOICES, Protocol
from pipnet.layout import Layout, contradiction

SHORT = reprlib.Repr()  # of values of any depth and length
SHORT.maxstring = SHORT.maxother = 100


class Kind(NamedTuple):
    """A kind of value.

    says: the kind in words; fits: whether a value is of this kind; parts: (name, value, kind) of the values inside a
    value; optional: whether it may be missing from a record
    """

    says: str
    fits: Callable[[Any], bool]
    parts: Callable[[Any], Iterable[tuple[str, Any, "Kind"]]] = lambda value: ()
    optional: bool = False


MISSING = object()


def check(value: Any, kind: Kind, name: str) -> None:
    """Raise ValueError unless `value` and all values inside it fit.
    The error says what is there and what belongs there.
    """
    if value is MISSING:
        raise ValueError(f"{name} is missing, it must be {kind.says}")
    if not kind.fits(value):
        shown = " ".join(SHORT.repr(value).split())
        raise ValueError(f"{name} must be {kind.says}, not {shown if len(shown) <= 60 else shown[:60] + '...'}")
    for part, inner, of in kind.parts(value):
        check(inner, of, f"{name}.{part}" if name else part)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(least: float = -math.inf, most: float = math.inf, finite: bool = True) -> Kind:
    """Return the kind of a number from `least` to `most`. NaN and infinity fit too unless it must be `finite`."""
    bounds = (
        f" from {least:g} to {most:g}"
        if math.isfinite(most)
        else f" of at least {least:g}"
        if math.isfinite(least)
        else ""
    )
    return Kind(
        f"a {'finite ' if finite else ''}number{bounds}",
        lambda value: (
            _is_number(value)
            and ((not finite and not math.isfinite(value)) or (math.isfinite(value) and least <= value <= most))
        ),
    )


def whole(least: int = 0, most: int = 10**9) -> Kind:
    """Return the kind of a whole number from `least` to `most`."""
    return Kind(
        f"a whole number from {least} to {most}",
        lambda value: _is_number(value) and isinstance(value, int) and least <= value <= most,
    )


def several(kind: Kind, count: int | None = None, least: int = 0) -> Kind:
    """Return the kind of a list of values of one kind: `count` of them, or at least `least`."""
    size = f" of {count}" if count is not None else f" of at least {least}" if least else ""
    return Kind(
        f"a list{size}",
        lambda value: isinstance(value, list | tuple) and len(value) >= least and count in (None, len(value)),
        lambda value: ((str(place), one, kind) for place, one in enumerate(value)),
    )


def table_of(kind: Kind) -> Kind:
    """Return the kind of a table from names to values of one kind."""
    return Kind(
        "a table of names and values",
        lambda value: isinstance(value, dict) and all(isinstance(name, str) for name in value),
        lambda value: ((name, one, kind) for name, one in value.items()),
    )


def record(**kinds: Kind) -> Kind:
    """Return the kind of a table with a given kind for each name.
    Optional values may be missing; other names are ignored.
    """
    return Kind(
        f"a table of {', '.join(name for name, kind in kinds.items() if not kind.optional) or 'values'}",
        lambda value: isinstance(value, dict),
        lambda value: (
            (name, value.get(name, MISSING), kind) for name, kind in kinds.items() if name in value or not kind.optional
        ),
    )


def nullable(kind: Kind) -> Kind:
    """Return the kind of a value of `kind`, or null."""
    return Kind(
        f"null or {kind.says}",
        lambda value: value is None or kind.fits(value),
        lambda value: () if value is None else kind.parts(value),
    )


def maybe(kind: Kind) -> Kind:
    """Return the kind of a value that may be missing from its record."""
    return kind._replace(optional=True)


def one_of(choices: Collection[Any]) -> Kind:
    """Return the kind of one of some plain values."""
    return Kind(
        f"one of {', '.join(map(str, choices))}",
        lambda value: any(value == one and type(value) is type(one) for one in choices),
    )


TEXT = Kind("text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
ANY = Kind("a value", lambda value: True)
INDEX = whole(0, MOST_LANDMARKS - 1)
INDICES = several(INDEX)
POINTS = several(several(number(), 2), least=1)
SHARE = number(0, 1)
SIZE = whole(1, MOST_PX)
SHAPE = several(
    nullable(Kind("a size or the name of one", lambda value: isinstance(value, str) or whole().fits(value)))
)
_CHOSEN = {name: one_of(choices) for name, choices in CHOICES.items()}
PROTOCOL = record(scale_x=number(1e-3, 100), scale_y=number(1e-3, 100), shift_y=number(-100, 100), **_CHOSEN)
_LAYOUT = {
    "name": TEXT,
    "count": whole(1, MOST_LANDMARKS),
    "flip_index": INDICES,
    "interocular": nullable(several(INDEX, 2)),
    "pupils": nullable(several(several(INDEX, least=1), 2)),
    "groups": table_of(INDICES),
    "closed": several(TEXT),
    "selected": INDICES,
    "stored": TEXT,
    "same_as": maybe(
        Kind(
            "a table of layouts, each with a table of landmarks",
            lambda value: (
                isinstance(value, dict)
                and all(
                    isinstance(pairs, dict) and all(str(i).isdecimal() and len(str(i)) < 9 for i in pairs)
                    for pairs in value.values()
                )
            ),
            lambda value: ((f"{name}.{i}", j, INDEX) for name, pairs in value.items() for i, j in pairs.items()),
        )
    ),
}
MEMBER = record(layout=record(**_LAYOUT), index=INDICES, sets=several(TEXT), own=maybe(INDICES))
LAYOUT = record(**_LAYOUT, members=maybe(table_of(MEMBER)))
VAL = Kind("a share between 0 and 1, or text", lambda value: isinstance(value, str) or SHARE.fits(value))


def check_layout(values: dict[str, Any], name: str = "layout") -> Layout:
    """Return the layout from plain values of the kind LAYOUT. ValueError if they contradict each other."""
    layout = Layout.from_dict(values)
    if wrong := contradiction(layout):
        raise ValueError(f"{name}: {wrong}")
    return layout


def stated(kind: Kind, default: Any = REQUIRED) -> Any:
    """Return a field of a card. kind: of the value in the metadata; default: if the file does not state it."""
    return field(default=default, metadata={"kind": kind})


@dataclass(frozen=True)
class Card:
    """The metadata of an exported net, see `stated`. Subclasses are frozen dataclasses."""

    @classmethod
    def kind(cls) -> Kind:
        """Return the kind of the metadata. Names that are no fields, such as notes for people, are ignored."""
        kinds = {}
        for one in fields(cls):
            kinds[one.name] = one.metadata["kind"] if one.default is REQUIRED else maybe(one.metadata["kind"])
        return record(**kinds)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Return the card of plain values that are right already, such as those of a checkpoint."""
        return cls(**{one.name: values[one.name] for one in fields(cls) if one.name in values})

    @classmethod
    def read(cls, values: dict[str, Any], file: Path | str) -> Self:
        """Return the card from a file's metadata. UserError if a value is missing, wrong, or contradicts another one."""
        try:
            check(values, cls.kind(), "")
            return cls.of(values)
        except ValueError as error:
            raise UserError(
                f"{file} has no usable metadata: {error}; give a net that `main.py --export` has exported"
            ) from None


@dataclass(frozen=True, kw_only=True)
class LandmarkCard(Card):
    """The card of a landmark net.

    outputs: {name: shape without the batch}
    input_size, input_margin: px of the nominal crop, and what the net sees as a multiple of it
    meanface (N, 2): mean landmarks of the training set in [0, 1] of the crop
    states: names of the output `states`, None for one that was not trained
    layouts: rows of args.yaml by which a union was made
    face_limit: see `LandmarkNet`
    epoch, val_nme, norm: of the weights; the error of the validation faces in %, and its norm
    """

    layout: Layout = stated(LAYOUT)
    protocol: Protocol = stated(PROTOCOL)
    input_size: int = stated(SIZE)
    outputs: dict[str, list[Any]] = stated(table_of(SHAPE))
    meanface: np.ndarray | None = stated(nullable(POINTS), None)
    input_margin: float = stated(number(1, 4), 1.0)
    states: tuple[str | None, ...] = stated(nullable(several(nullable(TEXT))), ())
    layouts: dict[str, dict[str, Any]] | None = stated(table_of(table_of(ANY)), None)
    face_limit: float = stated(SHARE, 0.0)
    epoch: int | None = stated(nullable(whole()), None)
    val_nme: float | None = stated(nullable(number(0)), None)
    norm: str | None = stated(nullable(TEXT), None)
    net: str | None = stated(nullable(TEXT), None)
    head: str | None = stated(nullable(TEXT), None)
    train_data: list[str] | None = stated(nullable(several(TEXT)), None)
    val: float | str | None = stated(VAL, None)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Return the card of plain values. ValueError if layout and mean face contradict themselves or each other."""
        layout, meanface = check_layout(values["layout"]), values.get("meanface")
        if any(len(one["index"]) < layout.count for one in values["layout"].get("members", {}).values() if one["sets"]):
            raise ValueError(
                f"layout {layout.name} joins several layouts, as in files of older versions; export the net again"
            )
        if meanface is not None:
            meanface = np.reshape(np.asarray(meanface, np.float64), (-1, 2))
            if len(meanface) != layout.count:
                raise ValueError(f"meanface has {len(meanface)} landmarks, {layout.count} belong there")
        protocol = Protocol(**{key: values["protocol"][key] for key in Protocol._fields})
        states = tuple(values.get("states") or ())
        return super().of({**values, "layout": layout, "protocol": protocol, "meanface": meanface, "states": states})


@dataclass(frozen=True, kw_only=True)
class DetectorCard(Card):
    """The card of a detector: least score of a face, largest IoU of two boxes, map of a box to the box of its landmarks.

    outputs: {name: shape without the batch}, of an exported file
    """

    threshold: float = stated(SHARE)
    overlap: float = stated(SHARE)
    face_box: tuple[float, float, float] = stated(several(number(), 3))
    outputs: dict[str, list[Any]] | None = stated(table_of(SHAPE), None)
    figures: dict[str, Any] | None = stated(table_of(ANY), None)
    epoch: int | None = stated(nullable(whole()), None)
    net: str | None = stated(nullable(TEXT), None)
    train_data: list[str] | None = stated(nullable(several(TEXT)), None)
