"""The rooms beside the core. Each can be deleted.

`extras/__init__.py`, which main.py imports, says what each room adds. The core imports no room. It calls what a room adds
by the variables below, such as `rooms.semi.train_semi(...)`.
"""

import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from pipnet.errors import UserError

FOLDER = Path(__file__).resolve().parents[2] / "extras"


class Room:
    """A folder of extras, and what it adds to the core by name.

    name: of the folder; does: what cannot be done without it; flags: those of main.py among that
    """

    def __init__(self, name: str, does: str, flags: tuple[str, ...] = ()):
        self.name, self.does, self.flags = name, does, flags
        self.places: dict[str, str] = {}  # {name of what it adds: MODULE:NAME, or MODULE}

    def fill(self, places: Iterable[str]) -> None:
        """Say where all is that the room adds: MODULE:NAME, or MODULE. Nothing is added if the folder is missing."""
        if (FOLDER / self.name / "__init__.py").is_file():
            self.places = {re.split("[.:]", place)[-1]: place for place in places}

    def __bool__(self) -> bool:
        """Return whether this checkout has the room."""
        return bool(self.places)

    def __getattr__(self, name: str) -> Any:
        """Import what the room adds under a name. UserError if this checkout lacks the room."""
        self.require()
        if name not in self.places:
            raise AttributeError(f"the room {self.name} adds no {name}")
        module, _, attribute = self.places[name].partition(":")
        return getattr(import_module(module), attribute) if attribute else import_module(module)

    def require(self) -> None:
        """Raise UserError if this checkout lacks the room."""
        if not self:
            lacks = "`import extras` first" if (FOLDER / self.name).is_dir() else "which this checkout lacks"
            raise UserError(f"{self.does} needs the folder extras/{self.name}, {lacks}")


datasets = Room("datasets", "reading a dataset's archive or own labels")
detector = Room("detector", "training and testing face detectors in torch")
gpu = Room("gpu", "augmentation and replayed steps on a GPU")
heads = Room("heads", "the heads heatmap, simcc and parts")
report = Room("report", "report pages and comparisons")
runtimes = Room("runtimes", "int8, MNN, LiteRT, Core ML, the pipeline and the page")
semi = Room("semi", "learning from unlabelled faces")
synthetic = Room("synthetic", "rendered faces")
systems = Room("systems", "nets and steps of other authors")
TOOLS = ("--audit", "--sweep", "--predict", "--show-data", "--list-nets")
tools = Room("tools", " or ".join(TOOLS), TOOLS)
shared = Room("shared", "drawing backgrounds")  # what several rooms use; no room that can be deleted alone
ROOMS = {
    room.name: room for room in (datasets, detector, gpu, heads, report, runtimes, semi, synthetic, systems, tools)
}


def added(name: str) -> dict[str, Any]:
    """Return {room: what it adds under this name}, of the rooms that add it."""
    return {key: getattr(room, name) for key, room in ROOMS.items() if name in room.places}
