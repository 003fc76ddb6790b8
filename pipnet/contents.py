"""Types and ranges of the values in checkpoints and exports. A file is checked once, when it is opened."""

import math
import reprlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pipnet.errors import UserError
from pipnet.geometry import CHOICES
from pipnet.layout import MOST_LANDMARKS, Layout, contradiction

MOST_PX = 2048  # side of a net's input: its maps take 1 GB then
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


def one_of(choices: Collection) -> Kind:
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
MEMBER = record(layout=record(**_LAYOUT), index=INDICES, sets=several(TEXT), own=INDICES)
LAYOUT = record(**_LAYOUT, members=maybe(table_of(MEMBER)))
VAL = Kind("a share between 0 and 1, or text", lambda value: isinstance(value, str) or SHARE.fits(value))
LIMITS = {
    "face_limit": maybe(SHARE),
    "face_least": maybe(SHARE),
    "sure_score": maybe(SHARE),
    "sure_error": maybe(number(0)),
}
LIMITS["member_limits"] = maybe(table_of(record(**LIMITS)))  # of each layout of a union
LANDMARK_EXPORT = record(
    layout=LAYOUT,
    protocol=PROTOCOL,
    input_size=SIZE,
    meanface=maybe(nullable(POINTS)),
    input_margin=maybe(number(1, 4)),
    states=maybe(nullable(several(nullable(TEXT)))),
    layouts=maybe(table_of(table_of(ANY))),
    outputs=table_of(SHAPE),
    epoch=maybe(nullable(whole())),
    val_nme=maybe(nullable(number(0))),
    norm=maybe(nullable(TEXT)),
    net=maybe(nullable(TEXT)),
    head=maybe(nullable(TEXT)),
    train_data=maybe(nullable(several(TEXT))),
    val=maybe(VAL),
    **LIMITS,
)
DETECTOR_EXPORT = record(
    threshold=maybe(SHARE),
    overlap=maybe(SHARE),
    face_box=maybe(several(number(), 3)),
    figures=maybe(table_of(ANY)),
    outputs=table_of(SHAPE),
    epoch=maybe(nullable(whole())),
    net=maybe(nullable(TEXT)),
    train_data=maybe(nullable(several(TEXT))),
)


def check_layout(values: dict[str, Any], name: str = "layout") -> Layout:
    """Return the layout from plain values of the kind LAYOUT. ValueError if they contradict each other."""
    layout = Layout.from_dict(values)
    if wrong := contradiction(layout):
        raise ValueError(f"{name}: {wrong}")
    return layout


def check_export(values: dict[str, Any], file: Path | str, detector: bool = False) -> None:
    """Raise UserError if the metadata of an exported landmark net, or detector, are incomplete or wrong."""
    try:
        if detector:
            check(values, DETECTOR_EXPORT, "")
            return
        check(values, LANDMARK_EXPORT, "")
        count, face = check_layout(values["layout"]).count, values.get("meanface")
        if face is not None and len(face) != count:
            raise ValueError(f"meanface has {len(face)} landmarks, {count} belong there")
    except ValueError as error:
        raise UserError(
            f"{file} has no usable metadata: {error}; give a net that `main.py --export` has exported"
        ) from None
