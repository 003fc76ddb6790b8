"""Reads args.yaml, and merges it with a preset, a trained run and the command line into `Settings`."""

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from pipnet.card import PROTOCOL, check
from pipnet.errors import UserError
from pipnet.geometry import Protocol
from utils.settings.layouts import KEYS as LAYOUT_KEYS
from utils.settings.layouts import Layouts
from utils.settings.rooms import ROOMS
from utils.settings.sections import (
    KEYS,
    SECTIONS,
    AugmentSettings,
    DataSettings,
    LossSettings,
    NetSettings,
    TestSettings,
    TrainSettings,
)
from utils.settings.yaml_files import nearest, read_yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "args.yaml"
TABLES = ("presets", "views", "protocols", "layouts")
Kind = TypeVar("Kind")
VIEWS = ("weak", "strong")
ANCHORS = "anchors"  # its lists are used elsewhere in args.yaml


class Defaults(NamedTuple):
    """args.yaml, checked. values: {key: default}; the tables as they stand there.
    unread: {key: the room of extras that reads it, which this checkout lacks}.
    """

    values: dict[str, Any]
    presets: dict[str, Any]
    views: dict[str, dict[str, Any]]
    protocols: dict[str, Any]
    layouts: Layouts
    unread: dict[str, str]


class Settings(NamedTuple):
    """The settings of a run, a frozen object per section of args.yaml. Functions take the sections that they use.

    rooms: the sections that rooms of extras declare, see `room`
    trained_root: the data root in a trained run's file. Its prepared sets are read, but nothing is written there, since
    the file may come from anybody. view: the layout in which a net of several layouts is tested, exported or predicts;
    None: the default of each of these.
    """

    data: DataSettings
    net: NetSettings
    train: TrainSettings
    loss: LossSettings
    augment: AugmentSettings
    test: TestSettings
    views: dict[str, dict[str, Any]]
    protocols: dict[str, Any]
    layouts: Layouts
    rooms: dict[str, Any]
    trained_root: Path | None = None
    view: str | None = None

    @classmethod
    def of(cls, defaults: Defaults, *layers: dict[str, Any]) -> "Settings":
        """Return the settings of args.yaml and of `layers`, {key: checked value}. A later layer overrides earlier ones."""
        values = dict(defaults.values)
        for layer in layers:
            values |= layer
        sections = {name: row.kind(**{key: values[key] for key in row.keys}) for name, row in SECTIONS.items()}
        rooms = {name: sections.pop(name) for name in SECTIONS if name in ROOMS}
        return cls(
            **sections, views=defaults.views, protocols=defaults.protocols, layouts=defaults.layouts, rooms=rooms
        )

    def room(self, kind: type[Kind]) -> Kind:
        """Return the section that a room of extras declares as the dataclass `kind`."""
        return next(section for section in self.rooms.values() if isinstance(section, kind))

    def _sections(self) -> dict[str, dict[str, Any]]:
        """Return {section: {key: value}}."""
        found = {**self._asdict(), **self.rooms}
        return {name: asdict(found[name]) for name in SECTIONS}

    def flat(self) -> dict[str, Any]:
        """Return {key: value} of all sections, for a checkpoint.
        data_root is `trained_root` if the sets are read from there.
        """
        values = {key: value for section in self._sections().values() for key, value in section.items()}
        moved = self.trained_root and self.trained_root != ROOT / self.data.data_root
        return {**values, "data_root": str(self.trained_root)} if moved else values

    def dump(self) -> str:
        """Return the sections and tables as YAML, in the shape of args.yaml."""
        return yaml.safe_dump(
            {**self._sections(), "views": self.views, "protocols": self.protocols, "layouts": self.layouts.rows},
            sort_keys=False,
            width=130,
            allow_unicode=True,
        )


def read_defaults(file: Path = FILE) -> Defaults:
    """Return args.yaml, checked. UserError for an unknown or missing key, and for a value of a wrong type or out of
    range.
    """
    found = read_yaml(file)
    absent = [name for name in found if name in ROOMS and not ROOMS[name]]
    names = [*SECTIONS, *TABLES, *absent]
    if unknown := [name for name in found if name not in (*names, ANCHORS)]:
        raise UserError(f"unknown section '{unknown[0]}' in args.yaml{_hint(unknown[0], names)}")
    for name in names:
        if not isinstance(found.get(name), dict):
            raise UserError(f"{name} in args.yaml must be a table of names and values, not {found.get(name)!r}")
    values = {key: row.default for key, row in KEYS.items() if row.default is not ...}
    for name, section in SECTIONS.items():
        values |= check_values(found[name], f"section {name} of args.yaml", section.keys)
        if missing := [key for key in section.keys if key not in values]:
            raise UserError(f"section {name} of args.yaml lacks the key '{missing[0]}'; restore its line")
    unread = {key: room for room in absent for key in found[room]}
    views = _views(found["views"])
    return Defaults(values, found["presets"], views, found["protocols"], Layouts(found["layouts"]), unread)


def _hint(name: Any, names: Collection[str]) -> str:
    """Return where an unknown key belongs, or the nearest of `names`."""
    if name in LAYOUT_KEYS:
        return "; it is of a layout: write it into a row of the table layouts, indented below the layout's name"
    homes = [home for home, section in SECTIONS.items() if name in section.keys]
    return f"; it belongs to section {homes[0]} of args.yaml" if homes else nearest(name, names)


def _views(rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rows of `views`, checked.
    Raise UserError for an unknown row or key, and a strong value that is no number.
    """
    if rows.keys() != {*VIEWS}:
        raise UserError(f"views in args.yaml must hold the tables {' and '.join(VIEWS)}")
    augment = SECTIONS["augment"].keys
    views = {name: check_values(row, f"view {name} of args.yaml", augment) for name, row in rows.items()}
    for key in views["strong"]:
        if KEYS[key].kind is not float or KEYS[key].many:
            raise UserError(f"{key} in view strong of args.yaml has no least value; set it in the section augment")
    return views


def check_values(values: Any, where: str, known: Collection[str] = KEYS) -> dict[str, Any]:
    """Return {key: checked value} of a table of keys, which are among `known`.
    UserError, which names the table by `where`, for anything else.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} must be a table of keys and values, not {values!r}")
    if unknown := [key for key in values if key not in known]:
        raise UserError(f"unknown key '{unknown[0]}' in {where}{_hint(unknown[0], KEYS)}")
    try:
        return {key: KEYS[key].check(value) for key, value in values.items()}
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def preset_values(
    name: str | None, over: dict[str, Any], defaults: Defaults, datasets: Collection[str] = ()
) -> dict[str, Any]:
    """Return {key: checked value} of a preset; {} without one.

    over: the keys that override it. datasets: rows of DATASETS to train on. A preset's protocol may depend on these,
    its pool on the net, its weight decay on the initial weights.
    """
    if name is None:
        return {}
    if name not in defaults.presets:
        there = ", ".join(defaults.presets)
        raise UserError(f"no preset '{name}' in args.yaml (there are: {there}){nearest(name, defaults.presets)}")
    row = defaults.presets[name] or {}
    if not isinstance(row, dict):
        raise UserError(f"preset {name} in args.yaml must be a table of keys and values, not {row!r}")
    for key in defaults.unread.keys() & row.keys():
        ROOMS[defaults.unread[key]].require()
    row = {**row, "preset": name}
    chosen = {**defaults.values, **row, **over}
    names = {"protocol": datasets, "pool": [chosen["net"]], "weight_decay": [chosen["weights"]]}
    for key in names:
        if isinstance(row.get(key), dict):
            row[key] = over[key] if key in over else _chosen(f"preset {name}", key, row[key], names[key])
    return check_values(row, f"preset {name}")


def _chosen(preset: str, key: str, by_name: dict[str, Any], names: Collection[str]) -> Any:
    """Return the value of a preset's key for all names. UserError if it has different ones for them."""
    if "default" not in by_name:
        raise UserError(f"{preset} in args.yaml: {key} lacks 'default', for what it does not name")
    found = {name: by_name.get(name, by_name["default"]) for name in names}
    if len(set(found.values())) > 1:
        several = ", ".join(f"{value} for {name}" for name, value in found.items())
        raise UserError(
            f"{preset} has several values of {key} ({several}), but a net needs one; choose it: {KEYS[key].flag}"
        )
    return next(iter(found.values()), by_name["default"])


def load_protocol(rows: dict[str, Any], name: str) -> Protocol:
    """Return the crop protocol of that name. Raise UserError for an unknown name or a bad row."""
    if name not in rows:
        raise UserError(f"no crop protocol '{name}' in args.yaml (there are: {', '.join(rows)}){nearest(name, rows)}")
    return checked_protocol(rows[name], f"protocol '{name}' in args.yaml")


def checked_protocol(values: dict[str, Any], where: str) -> Protocol:
    """Return the crop protocol of plain values. UserError, which begins with `where`, for missing and wrong ones."""
    try:
        check(values, PROTOCOL, where)
        return Protocol(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{error}; a protocol holds {', '.join(Protocol._fields)}") from None
