"""The one table of the rooms beside the core. Each can be deleted; the core asks for one by its name, and imports none.

The core asks for a room's package, `extras/<room>/__init__.py`, or for one of its modules, when it needs them.
Importing this module adds the heads and the nets' stages of the rooms to the tables of nets. It does not load torch.
"""

import re
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from nets.registry import HEADS, STAGES, HeadRow
from pipnet.errors import UserError

FOLDER = Path(__file__).resolve().parents[2] / "extras"
EXTRAS = {  # {room: what cannot be done without it}
    "datasets": "reading a dataset's archive or own labels",
    "detector": "training and testing face detectors in torch",
    "gpu": "augmentation and replayed steps on a GPU",
    "heads": "the heads heatmap, simcc and parts",
    "report": "report pages and comparisons",
    "runtimes": "int8, MNN, LiteRT, Core ML and the pipeline",
    "semi": "learning from unlabelled faces",
    "synthetic": "rendered faces",
    "systems": "nets and steps of other authors",
    "tools": "--audit, --sweep, --predict, --show-data and --list-nets",
}


def has_extra(room: str) -> bool:
    """Return whether this checkout has a room."""
    return (FOLDER / room / "__init__.py").is_file()


def extra(room: str, module: str = "") -> ModuleType:
    """Return the package of a room, or a module in it. UserError if this checkout lacks the room."""
    if not has_extra(room):
        raise UserError(f"{EXTRAS[room]} needs the folder extras/{room}, which this checkout lacks")
    return import_module(f"extras.{room}.{module}" if module else f"extras.{room}")


def sections_of_rooms() -> dict[str, Any]:
    """Return {room: its `Section` of args.yaml}, of the rooms that declare one in their `settings.py`."""
    rooms = [room for room in EXTRAS if (FOLDER / room / "settings.py").is_file()]
    return {room: import_module(f"extras.{room}.settings").SECTION for room in rooms}


def modes_of_rooms() -> list[ModuleType]:
    """Return `modes.py` of the rooms that have one, see `utils.settings.modes`."""
    return [import_module(f"extras.{room}.modes") for room in EXTRAS if (FOLDER / room / "modes.py").is_file()]


def flags_of_missing_rooms() -> dict[str, str]:
    """Return {flag: the room that declares it}, of the modes of rooms that this checkout lacks."""
    missing = [room for room in EXTRAS if not has_extra(room)]
    return {flag: room for room in missing for flag in re.findall(r"--[\w-]+", EXTRAS[room])}


# names of a room that is missing stay known, so that who asks for one is told which folder is missing
if has_extra("heads"):
    HEADS.update(extra("heads").HEADS)
else:
    HEADS.update(dict.fromkeys(("parts", "heatmap", "simcc"), HeadRow(partial(extra, "heads"), (32,), (), {})))
STAGES["local_parts"] = extra("systems").local_parts_class if has_extra("systems") else partial(extra, "systems")
