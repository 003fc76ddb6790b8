"""The command line of main.py as one frozen object, `Command`."""

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import yaml

from pipnet.errors import CONTROLS, UserError
from pipnet.flags import Parser, check_flags, flag
from utils.settings.config import ROOT, TABLES, Defaults, check_values, read_defaults
from utils.settings.modes import TESTS, add_modes
from utils.settings.rooms import ROOMS
from utils.settings.sections import KEYS, SECTIONS
from utils.settings.yaml_files import Loader, nearest, read_yaml

PATHS = {  # {flag whose value may be a path: of what, see `Key.path`}
    **{"exp": "net", "compare": "net", "predict": "file", "config": "file", "out": "kept"},
    **{name: row.path for name, row in KEYS.items() if row.path},
}
PER_NODE = (*PATHS, "threads", "workers", "cache")  # keys whose values may differ between the nodes of a run
LONGEST = 4000, 255  # bytes of a path and of a name in it, of the usual file systems
FILES = (".pt", ".pth", ".tar", ".safetensors", ".onnx", ".txt", ".npy")  # endings of what is no name


@dataclass(frozen=True)
class Command:
    """A command line. Functions take it whole, and return it with the values that they have resolved.

    modes: {name: value} of the flags that were typed and are no keys of args.yaml
    given: {key: value} of --config and of flags, checked
    typed: the keys of `given` that the user has written, not a run that has left its args.yaml
    defaults: args.yaml
    untaken: names in the --config file that are not taken, see `read_config`
    """

    modes: dict[str, Any]
    given: dict[str, Any]
    typed: frozenset[str]
    defaults: Defaults
    untaken: tuple[str, ...] = ()

    @classmethod
    def of(cls, argv: Sequence[str], defaults: Defaults | None = None) -> Self:
        """Return the command line `argv`. UserError for an unknown flag or key, and for a wrong value."""
        defaults = defaults or read_defaults()
        modes = vars(parser(defaults).parse_args(argv))
        check_flags(modes)
        if "compare" in modes and not {"exp", "train", *TESTS} & modes.keys():
            modes["exp"], *modes["compare"] = modes["compare"]
        flags = {key: read_value(key, modes.pop(key)) for key in list(modes) if key in KEYS}
        file = modes.get("config")
        values, untaken, left = read_config(Path(file), defaults) if file else ({}, [], False)
        given = {**values, **flags}
        return cls(modes, given, frozenset(flags if left else given), defaults, tuple(untaken))

    def has(self, *names: str) -> bool:
        """Return whether one of these modes was typed."""
        return any(name in self.modes for name in names)

    def mode(self, name: str, default: Any = None) -> Any:
        """Return the value of a mode, `default` if it was not typed."""
        return self.modes.get(name, default)

    @property
    def exp(self) -> str | None:
        """Return the run that the command names."""
        return self.modes.get("exp")

    @property
    def trains(self) -> bool:
        """Return whether the command trains nets."""
        return self.has("train", "audit")

    @property
    def tests(self) -> bool:
        """Return whether the command tests nets."""
        return self.has(*TESTS, "compare")

    @property
    def formats(self) -> set[str]:
        """Return the formats that are exported or tested."""
        named = {*self.mode("export", ()), *self.mode("test_formats", ())}
        return named | {"int8"} if "pipeline-int8" in named else named

    def value(self, key: str) -> Any:
        """Return the value of a key, without those of a preset and of a trained run."""
        return self.given.get(key, self.defaults.values[key])

    def folder(self, key: str) -> Path:
        """Return the folder that data_root or run_root means."""
        return ROOT / self.value(key)

    def with_values(self, values: dict[str, Any]) -> Self:
        """Return the command with these values of keys."""
        return replace(self, given={**self.given, **values})

    def without(self, *keys: str) -> Self:
        """Return the command as if these keys had not been given."""
        given = {key: value for key, value in self.given.items() if key not in keys}
        return replace(self, given=given, typed=self.typed.difference(keys))

    def with_tables(self, **tables: Any) -> Self:
        """Return the command with these tables of args.yaml."""
        return replace(self, defaults=self.defaults._replace(**tables))

    def with_layout_files(self) -> Self:
        """Return the command with the layouts of the files that --layouts and --layout name, if they do."""
        layouts, values = self.defaults.layouts, {}
        if file := self.given.get("layouts"):
            layouts = layouts.with_rows_of(file)[1]
        if (file := str(self.given.get("layout"))).endswith((".yaml", ".yml")):
            values["layout"], layouts = layouts.with_file(file)
        return self.with_values(values).with_tables(layouts=layouts)


# ---------------------------------------------------------------------------------------------------------------- files
def check_files(command: Command) -> None:
    """Raise UserError if a given file or folder is missing, or a path cannot exist. Fast, because torch is not loaded."""
    given = {**command.modes, **command.given}
    for name, kind in PATHS.items():
        value = given.get(name) or []
        for text in value if isinstance(value, list) else [value]:
            joined = kind == "net" and not os.path.exists(text)  # DPR's weights are several files
            for path in filter(None, text.split(",") if joined else [text]):
                _check_path(flag(name), path)
                must_exist = kind == "file" or (kind != "kept" and Path(path).suffix in FILES)
                if must_exist and not Path(path).exists():
                    raise UserError(f"{flag(name)}: no file or folder {path}")


def _check_path(flag: str, path: str) -> None:
    """Raise UserError for a path that no file system can hold."""
    if any(ord(c) in CONTROLS and ord(c) < 0xD800 for c in path) and not os.path.lexists(path):  # surrogates: not UTF-8
        raise UserError(f"{flag} holds a control character, such as NUL or a line break; give a name without it")
    encoded = os.fsencode(path)
    if len(encoded) > LONGEST[0] or max(map(len, encoded.split(b"/"))) > LONGEST[1]:
        raise UserError(f"{flag} {path[:40]}... is too long for a name of a file; give a shorter one")


def read_config(file: Path, defaults: Defaults) -> tuple[dict[str, Any], list[str], bool]:
    """Return ({key: checked value} of a --config file, the names in it that are not taken, whether a run has left it).

    The keys stand in the sections of args.yaml or without them. The args.yaml that a run has left is known by its
    tables. These and its paths are not taken, since it may come from anybody.
    """
    found = read_yaml(file)
    left = all(isinstance(found.get(name), dict) for name in ("protocols", "layouts"))
    values: dict[str, Any] = {}
    for name, value in found.items():
        if isinstance(value, dict) and name in (*SECTIONS, *ROOMS):
            values |= value if name in SECTIONS else {}  # of a room that this checkout lacks
        elif not (left and name in TABLES):
            values[name] = value
    untaken = [name for name in values if name == "exp" or (left and _is_place(name, values[name], defaults))]
    taken = check_values({key: value for key, value in values.items() if key not in untaken}, str(file))
    return taken, untaken, left


def _is_place(key: str, value: Any, defaults: Defaults) -> bool:
    """Return whether a value of a trained run is a path, or a folder that files are written to."""
    texts = value if isinstance(value, list) else [value]
    return (
        key in PATHS
        and value != defaults.values[key]
        and (key in ("data_root", "run_root") or any(os.sep in str(text) for text in texts))
    )


# --------------------------------------------------------------------------------------------------------------- parser
class _Parser(Parser):
    unread: dict[str, str]  # {flag: the room of extras that it needs and this checkout lacks}

    def error(self, message):
        if match := re.match(r"unrecognized arguments: (--[\w-]+)", message):
            if match[1] in self.unread:
                ROOMS[self.unread[match[1]]].require()
            names = [flag for action in self._actions for flag in action.option_strings]
            message = f"unknown flag {match[1]}{nearest(match[1], names)} (--help lists them)"
        raise UserError(message)


def parser(defaults: Defaults) -> argparse.ArgumentParser:
    """Return the parser of the command line: the modes, then a flag per key with its comment. Its result holds what was
    typed, and nothing else.
    """
    top = _Parser(
        usage="python main.py MODE ... [--KEY VALUE ...]",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=118),
        description="Prepare data, train, test and export facial-landmark nets. Modes can be combined. They run in this order: "
        "--prepare, --show-data, --train, --audit, --export, tests, --compare, --predict. The value of a key in preset "
        "`default` is in brackets; if it is null, the text says what that means.",
    )
    top.unread = {flag(key): room for key, room in defaults.unread.items()}
    top.unread |= {name: key for key, room in ROOMS.items() if not room for name in room.flags}
    add_modes(top)
    names = {"preset": defaults.presets, "protocol": defaults.protocols, "layout": defaults.layouts.rows}
    usual = {**defaults.values, **(defaults.presets.get("default") or {})}
    for section in SECTIONS.values():
        add = top.add_argument_group(section.title).add_argument
        for key, row in section.keys.items():
            among = f" ({', '.join(names[key])})" if key in names else ""
            text = f"{row.help}{among} [{'null' if usual[key] is None else usual[key]}]".replace("%", "%%")
            options: dict[str, Any] = {"dest": key, "help": text}
            if row.kind is bool:
                options["action"] = argparse.BooleanOptionalAction
            else:
                options |= {"metavar": key.split("_")[-1].upper()} | ({"nargs": "*"} if row.many else {})
            add(row.flag, *(["--backbone"] if key == "net" else []), **options)
    return top


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


def read_value(key: str, text: Any) -> Any:
    """Return the checked value of a key from its text on the command line; a list of texts for a key with several
    values.
    """
    row = KEYS[key]
    if isinstance(text, list):
        parts = [part for item in text for part in ([item] if os.path.exists(item) else item.split(",")) if part]
        return row.check(parts if row.kind is str else [_yaml(part) for part in parts])
    is_yaml = isinstance(text, str) and (row.kind is not str or text == "null")
    return row.check(_yaml(text) if is_yaml else text)


def _yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError):  # also a date such as 2001-13-45
        return text
