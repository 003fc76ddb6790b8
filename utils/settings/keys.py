"""Record of a key of args.yaml, which the fields of the settings carry, and the check of its value."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields, replace
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_origin

import numpy as np

from nets.outside import is_outside
from pipnet.errors import UserError
from utils.settings.yaml_files import nearest

WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
LARGEST = 10**6  # of numbers whose key has no `most`; far above it, sizes and steps no longer fit machine numbers
DECIMAL = {  # numbers that `utils.settings.yaml_files.Loader` leaves as text: 010, 1e-4
    int: re.compile(r"[-+]?[0-9]{1,300}"),
    float: re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"),
}


@dataclass(frozen=True)
class Key:
    """One key of args.yaml.

    help: its comment in args.yaml, and the text of --help
    least, most: bounds of a number, inclusive
    choices: the allowed values
    words: texts that are allowed in addition to values of the type
    valid: (function that tests the whole value, words for what the value must be)
    needs: (function that tells from `Settings` whether they read the key, message of the error if they do not)
    task: the only task that reads it, "" for all; None: that of the section
    change: when the value of a trained run may be changed: never, when its training is resumed (resume), in its tests
    (test), or always; None: that of the section
    outside: kind of code from outside of the checkout that may be named beside the choices, see `nets.outside`
    default: the value if args.yaml has no line for the key; ...: it must have one
    name, kind: name and type of the field; many: whether it is a list; null: whether it may be null
    """

    help: str
    least: float | None = None
    most: float | None = None
    choices: Collection | None = None
    words: tuple[str, ...] = ()
    valid: tuple[Callable[[Any], object], str] | None = None
    needs: tuple[Callable[[Any], object], str] | None = None
    task: str | None = None
    change: str | None = None
    outside: str = ""
    default: Any = ...
    name: str = ""
    kind: type = str
    many: bool = False
    null: bool = False

    @property
    def flag(self) -> str:
        """Return the flag of the command line."""
        return f"--{self.name.replace('_', '-')}"

    def check(self, value: Any) -> Any:
        """Return `value` in the type of the key.
        Raise UserError, naming both, if it has another type or is out of range.
        """
        if value is None and self.null:
            return None
        if not self.many:
            value = self._one(value)
        else:
            value = [self._one(item) for item in (value if isinstance(value, list) else [value])]
        if self.valid and not self.valid[0](value):
            raise UserError(f"{self.name} must be {self.valid[1]}, not {value!r}")
        return value

    def _one(self, value: Any) -> Any:
        """Return one value of the key's type, in its range and among its choices."""
        whole, must = isinstance(value, int) and not isinstance(value, bool), f"{self.name} must be"
        if whole and self.kind is float:
            value = float(value)
        elif isinstance(value, str) and self.kind in DECIMAL and DECIMAL[self.kind].fullmatch(value):
            value = self.kind(value)
        elif whole and self.kind is str:
            value = str(value)  # --layout 68
        if type(value) is not self.kind and value not in self.words:
            raise UserError(f"{must} {' or '.join([WORDS[self.kind], *map(repr, self.words)])}, not {value!r}")
        if isinstance(value, float) and not np.isfinite(value):
            raise UserError(f"{must} finite, not {value!r}")
        among = self.choices is None or value in self.choices
        if not among and not (self.outside and is_outside(self.outside, value)):
            raise UserError(
                f"{must} one of {', '.join(map(str, self.choices))}, not {value!r}{nearest(value, self.choices)}"
            )
        if isinstance(value, str) or self.kind is bool:
            return value
        if self.most is None and abs(value) > LARGEST:
            raise UserError(f"{must} {'at most ' if value > 0 else 'at least -'}{LARGEST}, not {value!r}")
        if self.most is not None and not self.least <= value <= self.most:
            raise UserError(f"{self.name} must lie between {self.least} and {self.most}, not {value!r}")
        if self.least is not None and value < self.least:
            raise UserError(f"{must} at least {self.least}, not {value!r}")
        return value


def key(text: str, least: float | None = None, most: float | None = None, **rules: Any) -> Any:
    """Return a field of a section. text: its help; least, most, rules: see `Key`."""
    return field(metadata={"key": Key(text, least, most, **rules)})


class Section(NamedTuple):
    """A section of args.yaml. kind: its dataclass; title: its heading in --help; keys: {name: key} of the fields."""

    kind: type
    title: str
    keys: dict[str, Key]


def section(kind: type, title: str, task: str = "", change: str = "never") -> Section:
    """Return a section. task: the only task that reads it, "" for all; change: which runs may change it, see `Key`."""
    return Section(kind, title, _keys_of(kind, task, change))


def _keys_of(kind: type, task: str, change: str) -> dict[str, Key]:
    """Return {name: key} of the fields."""
    found = {}
    for one in fields(kind):
        row: Key = one.metadata["key"]
        types = get_args(one.type) if isinstance(one.type, UnionType) else (one.type,)
        many = get_origin(types[0]) is list
        found[one.name] = replace(
            row,
            name=one.name,
            kind=get_args(types[0])[0] if many else types[0],
            many=many,
            null=NoneType in types,
            task=row.task if row.task is not None else task,
            change=row.change or change,
        )
    return found
