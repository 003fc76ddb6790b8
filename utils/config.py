"""args.yaml and the command line: one set of names, every key a flag, nothing unknown passes."""
import argparse
import difflib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml

from nets.registry import ACTS, ERRORS, HEADS, POOLS
from pipnet.errors import UserError
from pipnet.layout import Layout

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_FILE = ROOT / "args.yaml"
TABLES = ("presets", "protocols", "layouts")


def _kinds(**named: str) -> dict[str, tuple[type | None, ...]]:
    types = {"text": (str,), "whole": (int,), "number": (float,), "switch": (bool,), "texts": (list, str), "wholes": (list, int),
             "numbers": (list, float), "share": (float, str)}
    return {key: types[name.rstrip("_")] + (None,) * name.endswith("_") for name, keys in named.items() for key in keys.split()}


# what each key of args.yaml holds, so that a slip in that file is found too; with an underscore: or null. (list, x): of x
KINDS = _kinds(
    text="task dataset data_root run_root net head weights optimizer schedule amp fill interpolation norm error pool detector",
    text_="data_dir layout protocol act meanface preset label_weights detector_weights teacher",
    whole="target_size frame_step folds synthetic_train synthetic_test num_nb input_size epochs batch_size accumulate ema_ramp "
          "seed threads early_stop test_batch_size crops pasted",
    whole_="num_lms stride workers",
    number="margin cache learning_rate final_learning_rate warmup warmup_learning_rate weight_decay clip ema cls reg sigma "
           "score_width flip rotation rotation_prob scale translation translation_prob brightness contrast "
           "saturation hue colour_prob grayscale infrared blur blur_sigma noise noise_sigma occlusion occlusion_size box_jitter "
           "mosaic alignment hard_landmarks pose eyes mouth teacher_landmarks teacher_maps teacher_features",
    switch="balance reinit local_parts refine allow_partial excite train_hidden compile deterministic flip_test",
    share="val", texts="box partial_events", texts_="train_data test_data", wholes_="selected_index",
    numbers="milestones thresholds scales face_sides", numbers_="label_shift")
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list"}
CHOICES = {
    "task": ("landmarks", "detect"),
    "head": tuple(HEADS), "stride": (4, 8, 16, 32, 64, 128), "optimizer": ("adam", "adamw"),
    "schedule": ("cosine", "steps"),
    "amp": ("auto", "bf16", "fp16", "off"), "fill": ("real", "black"), "interpolation": ("linear", "nearest"),
    "norm": ("interocular", "interpupil", "box", "diagonal", "size"), "act": ACTS,
    "pool": POOLS, "error": tuple(ERRORS),
    "box": ("true", "perturbed", "detector"), "detector": ("faceboxes", "rfb320", "mtcnn", "yunet", "none"),
}
AT_LEAST = {
    "epochs": 1, "batch_size": 1, "accumulate": 1, "input_size": 32, "target_size": 32, "margin": 1, "test_batch_size": 1,
    "synthetic_train": 8, "synthetic_test": 3, "num_nb": 0, "seed": 0, "learning_rate": 0, "threads": 0, "workers": 0,
    "folds": 2, "frame_step": 1, "early_stop": 0, "cache": 0, "ema_ramp": 1, "warmup": 0, "clip": 0, "weight_decay": 0,
    "final_learning_rate": 0, "warmup_learning_rate": 0, "cls": 0, "reg": 0, "sigma": 0, "score_width": 0, "rotation": 0,
    "alignment": 0, "hard_landmarks": 0, "pose": 0, "eyes": 0, "mouth": 0, "hue": 0, "blur_sigma": 0, "noise_sigma": 0,
    "crops": 1, "pasted": 0, "teacher_landmarks": 0, "teacher_maps": 0, "teacher_features": 0,
}
SHARES = ("flip", "rotation_prob", "scale", "translation", "translation_prob", "brightness",
          "contrast", "saturation", "colour_prob", "grayscale", "infrared", "blur", "noise", "occlusion", "occlusion_size", "ema",
          "box_jitter", "mosaic")


LAYOUT_KEYS = ("count", "flip_index", "interocular", "pupils", "parts", "closed", "same_as", "of", "selected_index")


def nearest(name: str, names) -> str:
    """' (did you mean X?)' or nothing, for error messages."""
    near = difflib.get_close_matches(str(name), [str(n) for n in names], 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _indices(values) -> tuple[int, ...]:
    """[1, "3-5"] -> (1, 3, 4, 5)."""
    out = []
    for value in values:
        match = re.fullmatch(r"(\d+)-(\d+)", str(value))
        out += range(int(match[1]), int(match[2]) + 1) if match else [int(value)]
    return tuple(out)


def load_layout(rows: dict[str, dict], name: str, selected_index: list[int] | None = None) -> Layout:
    """Row `name` of the layouts, restricted to `selected_index` when that is given. Raises UserError for a bad row."""
    if str(name) not in rows:
        raise UserError(f"no layout '{name}' in args.yaml (there are: {', '.join(rows)}; or give a file: --layout {name}.yaml)"
                        f"{nearest(name, rows)}")
    row = rows[str(name)]
    if not isinstance(row, dict):
        raise UserError(f"layout '{name}' must be a table of keys (count, flip_index, ...), not {row!r}")
    if unknown := [key for key in row if key not in LAYOUT_KEYS]:
        raise UserError(f"unknown key '{unknown[0]}' in layout '{name}'{nearest(unknown[0], LAYOUT_KEYS)}")
    if "of" in row and (derived := sorted(row.keys() - {"of", "selected_index"})):
        raise UserError(f"layout '{name}' is a subset (of), of which {derived[0]} is derived; leave it out")
    try:
        if "of" in row:
            others = {key: values for key, values in rows.items() if key != str(name)}  # a circle ends
            return _subset(load_layout(others, row["of"]), str(name), _indices(selected_index or row["selected_index"]))
        flip, count, eyes, pupils = _indices(row["flip_index"]), int(row["count"]), row.get("interocular"), row.get("pupils")
        parts = {str(i): [i] for i in range(count)} if row.get("parts") is None else row["parts"]  # each landmark by itself
        layout = Layout(
            str(name), count, flip, eyes and _indices(eyes), pupils and (_indices(pupils[0]), _indices(pupils[1])),
            {str(part): _indices(ids) for part, ids in parts.items()}, tuple(row.get("closed") or ()), tuple(range(count)),
            str(name), _same_as(rows, str(name), flip, row.get("same_as") or {}))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"layout '{name}' is malformed: {type(error).__name__} {error}") from None
    used = [i for part in layout.parts.values() for i in part] + list(layout.interocular or ())
    used += [i for part in layout.pupils or () for i in part] + [i for pairs in layout.same_as.values() for i in pairs]
    if len(flip) != layout.count or any(not 0 <= f < layout.count or flip[f] != i for i, f in enumerate(flip)):
        raise UserError(f"layout '{name}': flip_index must hold {layout.count} indices and be its own inverse")
    if any(not 0 <= i < layout.count for i in used):
        raise UserError(f"layout '{name}': an index is outside 0..{layout.count - 1}")
    if eyes and not len(layout.interocular) == len(set(layout.interocular)) == 2:
        raise UserError(f"layout '{name}': interocular must be two landmarks, not {eyes}")
    if unknown := [part for part in layout.closed if part not in layout.parts]:
        raise UserError(f"layout '{name}': closed names '{unknown[0]}', which is no part{nearest(unknown[0], layout.parts)}")
    return _subset(layout, str(name), tuple(selected_index)) if selected_index else layout


def _same_as(rows: dict[str, dict], name: str, flip: tuple[int, ...], row: dict) -> dict[str, dict[int, int]]:
    """`same_as` of a row with every layout replaced by the one that its data is stored in. UserError for pairs that cannot be."""
    found: dict[str, dict[int, int]] = {}
    for other, pairs in row.items():
        plain = {key: {k: v for k, v in values.items() if k != "same_as"} for key, values in rows.items()}
        there = load_layout(plain, other)
        pairs = {int(i): int(j) for i, j in pairs.items()}
        for i, j in pairs.items():
            if not 0 <= j < there.count:
                raise UserError(f"layout '{name}': same_as {other} names landmark {j}, but there are 0..{there.count - 1}")
            mirror = pairs.get(flip[i]) if 0 <= i < len(flip) else None
            if mirror is not None and mirror != there.flip_index[j]:
                raise UserError(f"layout '{name}': {i} is {j} of {other}, so its mirror partner {flip[i]} must be "
                                f"{there.flip_index[j]} there, not {mirror}; are left and right swapped?")
        if len(set(pairs.values())) < len(pairs):
            raise UserError(f"layout '{name}': two landmarks are the same one of layout {other} (same_as)")
        found.setdefault(there.stored, {}).update({i: there.selected[j] for i, j in pairs.items()})
    return found


def read_layout_file(file: str, rows: dict[str, dict]) -> tuple[str, dict[str, dict]]:
    """(name, rows and the one in `file`, which stands there as it would below `layouts:` of args.yaml). UserError for others."""
    row = read_yaml(Path(file))
    if len(row) != 1 or not isinstance(next(iter(row.values())), dict):
        raise UserError(f"{file} must hold one layout: a line 'NAME:' and below it, indented, count, flip_index, ...")
    name = str(next(iter(row)))
    if name in rows and rows[name] != row[next(iter(row))]:
        raise UserError(f"{file}: there is another layout '{name}' already; choose another name")
    rows = {**rows, name: row[next(iter(row))]}
    load_layout(rows, name)
    return name, rows


def _subset(layout: Layout, name: str, selected_index: tuple[int, ...]) -> Layout:
    """Landmarks of `layout`, itself a subset perhaps, whose mirror partners, in ascending order, are `selected_index`."""
    selected = tuple(sorted(set(selected_index)))
    if len(selected) != len(selected_index) or not selected or selected[-1] >= layout.count or selected[0] < 0 \
            or any(layout.flip_index[i] != mirror for i, mirror in zip(selected, selected_index, strict=False)):
        raise UserError(f"selected_index of layout '{name}' must be the mirror partners of the chosen landmarks in ascending "
                        f"order of these; for landmarks {list(selected)} of layout {layout.name} that is "
                        f"{[layout.flip_index[i] for i in selected if 0 <= i < layout.count]}")
    place = {old: new for new, old in enumerate(selected)}

    def keep(ids) -> tuple[int, ...]:
        return tuple(place[i] for i in ids if i in place)

    parts = {part: keep(ids) for part, ids in layout.parts.items()}
    eyes = layout.interocular and keep(layout.interocular)
    pupils = layout.pupils and (keep(layout.pupils[0]), keep(layout.pupils[1]))
    return Layout(
        name if name != layout.name or len(selected) == layout.count else f"{layout.name}:{len(selected)}", len(selected),
        tuple(place[i] for i in selected_index), eyes if eyes and len(eyes) == 2 else None,
        pupils if pupils and all(pupils) else None,
        {part: ids for part, ids in parts.items() if ids}, layout.closed,
        tuple(layout.selected[i] for i in selected), layout.stored,
        {other: {place[i]: j for i, j in pairs.items() if i in place} for other, pairs in layout.same_as.items()})


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML mapping, or a UserError that names file and place."""
    try:
        values = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{file} does not hold a mapping of keys to values")
    return values


def comments(file: Path = DEFAULT_FILE) -> dict[str, tuple[str, str]]:
    """{key: (section, comment)} of the plain keys of args.yaml: the text of --help."""
    found, section = {}, ""
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        if match := re.match(r"# -{20,} (.+)$", line):
            section = match[1]
        elif match := re.match(r"([a-z_]+):.*?#\s*(.+)$", line):
            found[match[1]] = (section, match[2])
    return found


def check(key: str, value) -> Any:
    """`value` as key `key` wants it, or a UserError that names both."""
    kinds = KINDS[key]
    if value is None and None in kinds:
        return None
    if kinds[0] is list:
        value = [_as(key, item, kinds[1:2]) for item in (value if isinstance(value, list) else [value])]
    else:
        value = _as(key, value, kinds)
    for item in value if isinstance(value, list) else [value]:
        if key in CHOICES and item not in CHOICES[key]:
            choices = ", ".join(map(str, CHOICES[key]))
            raise UserError(f"{key} must be one of {choices}, not {item!r}{nearest(item, CHOICES[key])}")
    if key in AT_LEAST and value < AT_LEAST[key]:
        raise UserError(f"{key} must be at least {AT_LEAST[key]}, not {value!r}")
    if key in ("train_data", "test_data") and not value:
        raise UserError(f"{key} needs a name or a folder")
    if key == "box" and (not value or len(set(value)) < len(value)):
        raise UserError(f"box needs one or several of {', '.join(CHOICES[key])}, each once, not {value}")
    if key in SHARES and not 0 <= value <= 1 or key in ("scale", "ema") and value == 1:
        raise UserError(f"{key} must lie between 0 and 1, not {value!r}")
    if key == "thresholds" and any(threshold <= 0 for threshold in value):
        raise UserError(f"thresholds must be above 0 %, not {value}")
    if key == "scales" and not (value and min(value) > 0):
        raise UserError(f"scales must be factors above 0, not {value}")
    if key == "face_sides" and not (len(value) == 2 and 1 <= value[0] <= value[1]):
        raise UserError(f"face_sides must be the least and the largest side in px, not {value}")
    if key == "val" and not (value in ("test", "none") if isinstance(value, str) else 0 < value < 1):
        raise UserError(f"val must be a share between 0 and 1, 'test' or 'none', not {value!r}")
    return value


def _as(key: str, value, kinds) -> Any:
    """One value of the types `kinds`, or a UserError."""
    if float in kinds and isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        value = float(value)  # YAML 1.1 reads 1e-4 as text
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and float in kinds:
        value = float(value)
    elif whole and str in kinds:
        value = str(value)  # --layout 68
    if not any(kind and type(value) is kind for kind in kinds):
        wanted = " or ".join(WORDS[kind] for kind in kinds if kind)
        raise UserError(f"{key} must be {wanted}, not {value!r}")
    if isinstance(value, float) and not np.isfinite(value):
        raise UserError(f"{key} must be finite, not {value!r}")
    return value


def read_defaults() -> dict[str, Any]:
    """args.yaml, every key of it known and of its type, none missing; UserError otherwise."""
    values = read_yaml(DEFAULT_FILE)
    for key in values:
        if key not in KINDS and key not in TABLES:
            raise UserError(f"unknown key '{key}' in args.yaml{nearest(key, KINDS)}")
    for key in (*KINDS, *TABLES):
        if key not in values:
            raise UserError(f"args.yaml lacks the key '{key}'; restore its line")
        if key in TABLES and not isinstance(values[key], dict):
            raise UserError(f"{key} in args.yaml must be a table of names and rows, not {values[key]!r}")
    return {key: value if key in TABLES else check(key, value) for key, value in values.items()}


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        if match := re.match(r"unrecognized arguments: (--[\w-]+)", message):
            names = [flag for action in self._actions for flag in action.option_strings]
            message = f"unknown flag {match[1]}{nearest(match[1], names)} (--help lists them)"
        raise UserError(message)


def parser(modes) -> argparse.ArgumentParser:
    """The command line: the modes that `modes(parser)` adds, then one flag a key of args.yaml, explained by its comment."""
    top = _Parser(
        usage="python main.py MODE ... [--KEY VALUE ...]", allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=118),
        description="Prepare data, train, test and export facial-landmark nets. Modes can be combined; they run in the order "
                    "below. In brackets: the default, [None] where the text says what then happens.")
    modes(top)
    defaults, texts = read_defaults(), comments()
    groups: dict[str, Any] = {}
    for key, default in defaults.items():
        if key in TABLES:
            continue
        section, text = texts.get(key, ("others", ""))
        if (table := f"{key}s") in TABLES:
            text += f" ({', '.join(defaults[table])})"
        group = groups.setdefault(section, top.add_argument_group(section) if section not in groups else None)
        flags = [f"--{key.replace('_', '-')}"] + (["--backbone"] if key == "net" else [])
        shown = f"{text} [{default}]".replace("%", "%%")
        if isinstance(default, bool):
            group.add_argument(*flags, dest=key, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=shown)
        else:
            many = {"nargs": "*"} if list in KINDS[key] else {}
            metavar = key.split("_")[-1].upper()
            group.add_argument(*flags, dest=key, metavar=metavar, default=argparse.SUPPRESS, help=shown, **many)
    return top


def _typed(key: str, text):
    """What was typed on the command line as a YAML value (text stays text where text is wanted)."""
    if isinstance(text, list):
        return [part if str in KINDS[key] else _yaml(part) for item in text for part in item.split(",") if part]
    if not isinstance(text, str) or float not in KINDS[key] and str in KINDS[key]:
        return None if text == "null" else text
    return _yaml(text)


def read_value(key: str, text) -> Any:
    """What was typed for a key (a list of texts where it holds several), checked. UserError names both."""
    return check(key, _typed(key, text))


def _yaml(text: str):
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def defaults() -> SimpleNamespace:
    """args.yaml as it stands, checked; `tables` holds presets, protocols and layouts."""
    return resolve({}, read_defaults(), preset=None)


def resolve(given: dict[str, Any], values: dict[str, Any], preset: str | None) -> SimpleNamespace:
    """values < preset < given, checked key by key. Raises UserError for unknown keys and wrong types."""
    base = read_defaults()
    tables = {name: values.get(name, base[name]) for name in TABLES}
    out = {key: value for key, value in base.items() if key not in TABLES}
    layers = [({k: v for k, v in values.items() if k not in TABLES}, "args.yaml")]
    if preset is not None:
        if preset not in tables["presets"]:
            there = tables["presets"]
            raise UserError(f"no preset '{preset}' in args.yaml (there are: {', '.join(there)}){nearest(preset, there)}")
        if not isinstance(row := tables["presets"][preset] or {}, dict):
            raise UserError(f"preset {preset} in args.yaml must be a table of keys and values, not {row!r}")
        layers.append(({**row, "preset": preset}, f"preset {preset}"))
    for layer, where in [*layers, (given, "command line")]:
        for key, value in layer.items():
            if key not in KINDS:
                raise UserError(f"unknown key '{key}' in {where}{nearest(key, KINDS)}")
            out[key] = check(key, value)
    return SimpleNamespace(**out, tables=tables)


def parse(argv: list[str], modes) -> tuple[SimpleNamespace, dict[str, Any]]:
    """(modes as typed, {key: value} of the keys that were typed)."""
    typed = vars(parser(modes).parse_args(argv))
    given = {key: read_value(key, typed.pop(key)) for key in list(typed) if key in KINDS}
    return SimpleNamespace(**typed), given


def plain(args: SimpleNamespace) -> dict[str, Any]:
    """The keys of resolved args with their values, without the tables."""
    return {key: value for key, value in vars(args).items() if key != "tables"}


def dump(args: SimpleNamespace) -> str:
    """The resolved keys and tables as YAML, for the run's folder."""
    values = plain(args)
    return yaml.safe_dump({**values, **args.tables}, sort_keys=False, width=130, allow_unicode=True)
