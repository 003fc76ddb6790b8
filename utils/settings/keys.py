"""Record of a key of args.yaml, which the fields of the settings carry, and the check of its value."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields, replace
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_origin

from nets.outside import is_outside
from pipnet.card import FLAG, TEXT, check, number, one_of, whole
from pipnet.errors import UserError
from pipnet.flags import flag
from utils.settings.yaml_files import nearest

LARGEST = 10**6  # the usual bound of numbers; far above it, sizes and steps no longer fit machine numbers
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
    read_by: (function that tells from `Settings` whether they read the key, flags with which it is read)
    sets: (function that tells from a row of DATASETS whether such sets read the key, words for these sets)
    task: the only task that reads it, "" for all; None: that of the section
    change: when the value of a trained run may be changed: never, when its training is resumed (resume), in its tests
    (test), or always; None: that of the section
    path: what a value may be the path of: a prepared set or raw faces, which names of sets mean too (set); a file or
    folder that exists (file); a net, in files that are joined by commas (net); what is kept as it is typed (kept)
    outside: kind of code from outside of the checkout that may be named beside the choices, see `nets.outside`
    default: the value if args.yaml has no line for the key; ...: it must have one
    name, kind: name and type of the field; many: whether it is a list; null: whether it may be null
    """

    help: str
    least: float = -LARGEST
    most: float = LARGEST
    choices: Collection | None = None
    words: tuple[str, ...] = ()
    valid: tuple[Callable[[Any], object], str] | None = None
    read_by: tuple[Callable[[Any], object], str] | None = None
    sets: tuple[Callable[[Any], object], str] | None = None
    task: str | None = None
    change: str | None = None
    path: str = ""
    outside: str = ""
    default: Any = ...
    name: str = ""
    kind: type = str
    many: bool = False
    null: bool = False

    @property
    def flag(self) -> str:
        """Return the flag of the command line."""
        return flag(self.name)

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
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        is_decimal = isinstance(value, str) and self.kind in DECIMAL and DECIMAL[self.kind].fullmatch(value)
        if is_decimal or (is_whole and self.kind in (float, str)):  # --layout 68
            value = self.kind(value)
        if self.choices is not None:
            kind = one_of(self.choices)
        elif self.kind is int:
            kind = whole(int(self.least), int(self.most))
        else:
            kind = {bool: FLAG, str: TEXT, float: number(self.least, self.most)}[self.kind]
        if value in self.words:
            return value
        if self.outside and self.choices and str(value) not in self.choices and is_outside(self.outside, str(value)):
            return value
        try:
            check(value, kind, self.name)
        except ValueError as error:
            words = "".join(f" or {word!r}" for word in self.words)
            raise UserError(f"{error}{words}{nearest(value, self.choices or ())}") from None
        return value


def key(text: str, least: float = -LARGEST, most: float = LARGEST, **rules: Any) -> Any:
    """Return a field of a section. text: its help; least, most, rules: see `Key`."""
    return field(metadata={"key": Key(text, least, most, **rules)})


class Section(NamedTuple):
    """A section of args.yaml. kind: its dataclass; title: its heading in --help; keys: {name: key} of the fields."""

    kind: type
    title: str
    keys: dict[str, Key]


def section(kind: type, title: str, task: str = "", change: str = "never") -> Section:
    """Return a section. task: the only task that reads it, "" for all; change: which runs may change it, see `Key`."""
    keys = {}
    for one in fields(kind):
        row: Key = one.metadata["key"]
        types = get_args(one.type) if isinstance(one.type, UnionType) else (one.type,)
        many = get_origin(types[0]) is list
        keys[one.name] = replace(
            row,
            name=one.name,
            kind=get_args(types[0])[0] if many else types[0],
            many=many,
            null=NoneType in types,
            task=task if row.task is None else row.task,
            change=row.change or change,
        )
    return Section(kind, title, keys)
