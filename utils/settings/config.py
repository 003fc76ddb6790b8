"""Reads args.yaml and the command line into `Settings`, a frozen object per section."""

import argparse
import os
import re
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from pipnet.app.flags import Parser, check_flags
from pipnet.errors import CONTROLS, UserError
from pipnet.geometry import Protocol, check_protocol
from utils.settings.extras import EXTRAS, extra, flags_of_missing_rooms, has_extra
from utils.settings.layouts import KEYS as LAYOUT_KEYS
from utils.settings.layouts import Layouts
from utils.settings.modes import add_modes
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
from utils.settings.yaml_files import Loader, nearest, read_yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "args.yaml"
TABLES = ("presets", "views", "protocols", "layouts")
Kind = TypeVar("Kind")
VIEWS = ("weak", "strong")
ANCHORS = "anchors"  # its lists are used elsewhere in args.yaml
# fmt: off
PATHS = ("exp", "out", "compare", "predict", "dataset", "data_dir", "train_data", "test_data", "unlabelled", "backgrounds",
         "data_root", "run_root", "weights", "teacher", "meanface", "layout", "layouts",
         "detector_weights")  # flags whose values may be paths
# fmt: on
PER_NODE = (*PATHS, "threads", "workers", "cache")  # keys whose values may differ between the nodes of a run
LONGEST = 4000, 255  # bytes of a path and of a name in it, of the usual file systems


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

    rooms: the sections that rooms of extras declare, see `of`
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

    def of(self, kind: type[Kind]) -> Kind:
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
    absent = [name for name in found if name in EXTRAS and not has_extra(name)]
    if unknown := [name for name in found if name not in (*SECTIONS, *TABLES, *absent, ANCHORS)]:
        homes = {name: [key for key in unknown if key in section.keys] for name, section in SECTIONS.items()}
        if places := "; ".join(f"{', '.join(keys)} to section {name}" for name, keys in homes.items() if keys):
            raise UserError(
                f"args.yaml has keys outside of its sections ({places}); move these lines there. If it is the file of the "
                "IRNet fork, restore ours: preset irnet has its values, docs/migration.md its keys"
            )
        raise UserError(f"unknown section '{unknown[0]}' in args.yaml{_hint(unknown[0], [*SECTIONS, *TABLES])}")
    for name in (*SECTIONS, *TABLES, *absent):
        if not isinstance(found.get(name), dict):
            raise UserError(f"{name} in args.yaml must be a table of names and values, not {found.get(name)!r}")
    values = {key: row.default for key, row in KEYS.items() if row.default is not ...}
    for name, section in SECTIONS.items():
        for key, value in found[name].items():
            if key in KEYS and key not in section.keys:
                home = next(other for other in SECTIONS if key in SECTIONS[other].keys)
                raise UserError(f"{key} belongs to section {home} of args.yaml, not to {name}; move its line")
            if key not in section.keys:
                raise UserError(f"unknown key '{key}' in section {name} of args.yaml{_hint(key, KEYS)}")
            values[key] = KEYS[key].check(value)
        if missing := [key for key in section.keys if key not in values]:
            raise UserError(f"section {name} of args.yaml lacks the key '{missing[0]}'; restore its line")
    unread = {key: room for room in absent for key in found[room]}
    views = _views(found["views"])
    return Defaults(values, found["presets"], views, found["protocols"], Layouts(found["layouts"]), unread)


def _hint(name: Any, names: Collection[str]) -> str:
    """Return where an unknown key belongs, or the nearest of `names`."""
    if name in LAYOUT_KEYS:
        return "; it is of a layout: write it into a row of the table layouts, indented below the layout's name"
    return nearest(name, names)


def _views(rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rows of `views`, checked.
    Raise UserError for an unknown row or key, and a strong value that is no number.
    """
    if rows.keys() != {*VIEWS} or not all(isinstance(row, dict) for row in rows.values()):
        raise UserError(f"views in args.yaml must hold the tables {' and '.join(VIEWS)}")
    known = SECTIONS["augment"].keys
    for name, row in rows.items():
        for key in row:
            if key not in known:
                raise UserError(f"unknown key '{key}' in view {name} of args.yaml{nearest(key, known)}")
            if name == "strong" and (KEYS[key].kind is not float or KEYS[key].many):
                raise UserError(f"{key} in view strong of args.yaml has no least value; set it in the section augment")
    return {name: {key: KEYS[key].check(value) for key, value in row.items()} for name, row in rows.items()}


# -------------------------------------------------------------------------------------------------------- command line
def check_files(given: dict[str, Any]) -> None:
    """Raise UserError if a given file or folder is missing, or a path cannot exist. Fast, because torch is not loaded."""
    for key in PATHS:
        for text in given.get(key) or () if isinstance(given.get(key), list) else [given.get(key) or ""]:
            for path in text.split(","):
                _check_path(key, path)
    for key in ("data_dir", "teacher", "detector_weights", "weights", "meanface", "exp", "predict"):
        value = given.get(key)
        joined = (
            key in ("weights", "teacher", "exp") and not Path(value or "").exists()
        )  # DPR's weights are several files
        for path in (value or "").split(",") if joined else filter(None, [value]):
            is_path = key in ("data_dir", "predict") or Path(path).suffix in (
                ".pt",
                ".pth",
                ".tar",
                ".safetensors",
                ".onnx",
                ".txt",
                ".npy",
            )
            if is_path and not Path(path).exists():
                raise UserError(f"--{key.replace('_', '-')}: no file or folder {path}")


def _check_path(key: str, path: str) -> None:
    """Raise UserError for a path that no file system can hold."""
    flag = f"--{key.replace('_', '-')}"
    odd = next((c for c in path if ord(c) in CONTROLS and ord(c) < 0xD800), None)  # not of bytes that are no UTF-8
    if odd == "\0" or (odd and not os.path.lexists(path)):
        kind = {"\0": "NUL character", "\n": "line break"}.get(odd, "control character")
        raise UserError(f"{flag} holds a {kind}; give a name or a path without it")
    name = os.fsencode(path)
    if len(name) > LONGEST[0] or max(map(len, name.split(b"/"))) > LONGEST[1]:
        raise UserError(f"{flag} {path[:40]}... is too long for a name of a file; give a shorter one")


class _Parser(Parser):
    unread: dict[str, str]  # {flag: the room of extras that it needs and this checkout lacks}

    def error(self, message):
        if match := re.match(r"unrecognized arguments: (--[\w-]+)", message):
            if match[1] in self.unread:
                extra(self.unread[match[1]])
            names = [flag for action in self._actions for flag in action.option_strings]
            message = f"unknown flag {match[1]}{nearest(match[1], names)} (--help lists them)"
        raise UserError(message)


def parser(defaults: Defaults) -> argparse.ArgumentParser:
    """Return the parser of the command line: the modes, then a flag per key with its comment."""
    top = _Parser(
        usage="python main.py MODE ... [--KEY VALUE ...]",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=118),
        description="Prepare data, train, test and export facial-landmark nets. Modes can be combined. They run in this order: "
        "--prepare, --show-data, --train, --audit, --export, tests, --predict. The value of a key in preset "
        "`default` is in brackets; if it is null, the text says what that means.",
    )
    missing = flags_of_missing_rooms()
    top.unread = {**missing, **{f"--{key.replace('_', '-')}": room for key, room in defaults.unread.items()}}
    top.set_defaults(**{flag[2:].replace("-", "_"): None for flag in missing})
    add_modes(top)
    names = {"preset": defaults.presets, "protocol": defaults.protocols, "layout": defaults.layouts.rows}
    usual = {**defaults.values, **(defaults.presets.get("default") or {})}
    for section in SECTIONS.values():
        add = top.add_argument_group(section.title).add_argument
        for key, row in section.keys.items():
            among = f" ({', '.join(names[key])})" if key in names else ""
            text = f"{row.help}{among} [{'null' if usual[key] is None else usual[key]}]".replace("%", "%%")
            options: dict[str, Any] = {"dest": key, "default": argparse.SUPPRESS, "help": text}
            if row.kind is bool:
                options["action"] = argparse.BooleanOptionalAction
            else:
                options |= {"metavar": key.split("_")[-1].upper()} | ({"nargs": "*"} if row.many else {})
            add(row.flag, *(["--backbone"] if key == "net" else []), **options)
    return top


def parse(argv: list[str], defaults: Defaults) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Return (the modes, {key: checked value} of the keys on the command line)."""
    typed = vars(parser(defaults).parse_args(argv))
    check_flags(typed)
    given = {key: read_value(key, typed.pop(key)) for key in list(typed) if key in KEYS}
    return argparse.Namespace(**typed), given


def flags_of(given: dict[str, Any]) -> list[str]:
    """Return the command line that gives these values. None of them is taken for another flag, whatever it is."""
    flags: list[str] = []
    for key, value in given.items():
        row, several = KEYS[key], [str(one) for one in value] if isinstance(value, list) else []
        if isinstance(value, bool):
            flags.append(row.flag if value else row.flag.replace("--", "--no-", 1))
        elif value == [] or any("," in one for one in several):
            if dashed := [one for one in several if one.startswith("-")]:
                raise UserError(f"{row.flag}: {dashed[0]} cannot stand beside a name with a comma; rename one of them")
            flags += [row.flag, *several]
        else:
            flags.append(f"{row.flag}={'null' if value is None else ','.join(several) or value}")
    return flags


def check_values(values: Any, where: str) -> dict[str, Any]:
    """Return {key: checked value} of a table of keys. UserError, which begins with `where`, for anything else."""
    if not isinstance(values, dict):
        raise UserError(f"{where} must be a table of keys and values, not {values!r}")
    if unknown := [key for key in values if key not in KEYS]:
        raise UserError(f"unknown key '{unknown[0]}' in {where}{_hint(unknown[0], KEYS)}")
    try:
        return {key: KEYS[key].check(value) for key, value in values.items()}
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def read_value(key: str, text: Any) -> Any:
    """Return the checked value of a key from its text on the command line; a list of texts for a key with several
    values.
    """
    row = KEYS[key]
    if isinstance(text, list):
        parts = [part for item in text for part in ([item] if os.path.exists(item) else item.split(",")) if part]
        return row.check(parts if row.kind is str else [_yaml(part) for part in parts])
    if not isinstance(text, str) or row.kind is not str:
        return row.check(_yaml(text) if isinstance(text, str) else text)
    return row.check(None if text == "null" else text)


def _yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError):  # also a date such as 2001-13-45
        return text


def make_settings(
    given: dict[str, Any],
    defaults: Defaults,
    preset: str | None = None,
    trained: dict[str, Any] | None = None,
    datasets: Collection[str] = (),
    start: dict[str, Any] | None = None,
) -> Settings:
    """Return the settings. Each of these overrides the ones before: defaults, trained, preset, start, given.

    All are checked where they are read, the preset here. trained: keys of a checkpoint. start: keys of the net from
    whose weights a training starts. datasets: rows of DATASETS to train on; a preset's protocol may depend on them,
    its pool on the net, its weight decay on the initial weights.
    """
    start = start or {}
    row = {} if preset is None else _preset(preset, {**start, **given}, defaults, datasets)
    values = {**defaults.values, **(trained or {}), **row, **start, **given}
    made = {name: row.kind(**{key: values[key] for key in row.keys}) for name, row in SECTIONS.items()}
    rooms = {name: made.pop(name) for name in SECTIONS if name in EXTRAS}
    return Settings(**made, views=defaults.views, protocols=defaults.protocols, layouts=defaults.layouts, rooms=rooms)


def _preset(name: str, over: dict[str, Any], defaults: Defaults, datasets: Collection[str]) -> dict[str, Any]:
    """Return the checked keys of a preset. over: the keys that override it."""
    if name not in defaults.presets:
        names = ", ".join(defaults.presets)
        raise UserError(f"no preset '{name}' in args.yaml (there are: {names}){nearest(name, defaults.presets)}")
    row = defaults.presets[name] or {}
    if not isinstance(row, dict):
        raise UserError(f"preset {name} in args.yaml must be a table of keys and values, not {row!r}")
    for key in defaults.unread.keys() & row.keys():
        extra(defaults.unread[key])
    row = {**row, "preset": name}
    chosen = {**defaults.values, **row, **over}
    if isinstance(by_dataset := row.get("protocol"), dict):
        row["protocol"] = over["protocol"] if "protocol" in over else _protocol_for(by_dataset, datasets, name)
    for key, by in (("pool", "net"), ("weight_decay", "weights")):
        if isinstance(rows := row.get(key), dict):
            row[key] = rows.get(chosen[by], rows.get("default"))
    return check_values(row, f"preset {name}")


def _protocol_for(by_dataset: dict[str, str], datasets: Collection[str], preset: str) -> str:
    """Return the protocol of a preset for all datasets. Raise UserError if it has different ones for them."""
    if "default" not in by_dataset:
        raise UserError(
            f"preset {preset} in args.yaml: protocol lacks 'default', for the datasets that it does not name"
        )
    chosen = {name: by_dataset.get(name, by_dataset["default"]) for name in datasets}
    if len(set(chosen.values())) > 1:
        several = ", ".join(f"{protocol} for {name}" for name, protocol in chosen.items())
        raise UserError(f"preset {preset} has the protocols {several}, but a net needs one; choose it: --protocol NAME")
    return next(iter(chosen.values()), by_dataset["default"])


def load_protocol(rows: dict[str, Any], name: str) -> Protocol:
    """Return the crop protocol of that name. Raise UserError for an unknown name or a bad row."""
    if name not in rows:
        raise UserError(f"no crop protocol '{name}' in args.yaml (there are: {', '.join(rows)}){nearest(name, rows)}")
    try:
        return check_protocol(Protocol(**rows[name]))
    except TypeError:
        raise UserError(f"protocol '{name}' in args.yaml must hold {', '.join(Protocol._fields)}") from None
