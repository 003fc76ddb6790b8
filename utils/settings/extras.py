"""The one table of the rooms beside the core. Each can be deleted; the core asks for one by its name, and imports none.

A room's public face is its package, `extras/<room>/__init__.py`, which imports its modules when they are asked for.
"""

from importlib import import_module
from types import ModuleType

from pipnet.errors import UserError
from utils.settings.config import ROOT

EXTRAS = {  # {room: what cannot be done without it}
    "datasets": "reading a dataset's archive or own labels",
    "detector": "training and testing face detectors in torch",
    "gpu": "augmentation and replayed steps on a GPU",
    "heads": "the heads heatmap, simcc and parts",
    "report": "report pages and comparisons",
    "runtimes": "int8, MNN, ncnn, OpenVINO, TorchScript and the pipeline",
    "semi": "learning from unlabelled faces",
    "synthetic": "rendered faces",
    "systems": "nets and steps of other authors",
    "tools": "--audit, --sweep, --predict, --show-data and --list-nets",
}


def has_extra(room: str) -> bool:
    """Return whether this checkout has a room."""
    return (ROOT / "extras" / room / "__init__.py").is_file()


def extra(room: str) -> ModuleType:
    """Return the package of a room. UserError if this checkout lacks it."""
    if not has_extra(room):
        raise UserError(f"{EXTRAS[room]} needs the folder extras/{room}, which this checkout lacks")
    return import_module(f"extras.{room}")
