"""The flags of the commands beside the main job, see `utils.settings.modes`."""

from collections.abc import Callable

from pipnet.flags import FACES, add_face_flags
from utils.settings.command import Command
from utils.settings.config import Settings
from utils.settings.sections import SECTIONS

WORK = ("show_data", "audit", "predict", "list_nets")
READ_BY = {**dict.fromkeys(("predict_format", *FACES), ("predict",)), "folds": ("audit",)}
FORMATS = ("pts", "csv", "coco", "cvat", "label-studio")  # of --predict, see `extras.tools.results.FORMATS`
# keys that a test reads and --predict does not
TESTED_ONLY = ("norm", "thresholds", "data_dir", "test_data", "frame_step", "allow_partial", "layouts")


def add_modes(add: Callable) -> None:
    """Add the modes with `add`, a parser's add_argument."""
    add("--show-data", metavar="N", type=int, help="draw N augmented training faces, and list suspicious labels")
    add(
        "--sweep",
        metavar="KEY=A,B,C",
        action="append",
        help="--train (and --test) once with each value of this key; if given several times, with each combination. With "
        "--trials also a range: KEY=LOW..HIGH",
    )
    add(
        "--audit",
        action="store_true",
        help="find wrong labels: compare labels with nets that were not trained on these faces; writes weights/EXP/audit",
    )
    add(
        "--predict",
        metavar="PATH",
        help="write the landmarks of a picture, or of all pictures in a folder, most uncertain first, as .pts, CSV, COCO or CVAT",
    )
    add(
        "--list-nets",
        metavar="NET",
        nargs="*",
        help="print the backbones with size, cost and published NME; with names: measure these on this machine",
    )


def add_flags(add: Callable) -> None:
    """Add the flags of --sweep and --predict."""
    add("--trials", metavar="N", type=int, help="--sweep: train N runs with values that Optuna proposes, by validation")
    add(
        "--predict-format",
        metavar="FORMAT",
        choices=FORMATS,
        help=f"{', '.join(FORMATS)}; default: by the ending of --out",
    )
    add_face_flags(add, "for --predict 32")


def reader(name: str, command: Command, settings: Settings | None) -> str:
    """Return with what a flag is read, where READ_BY does not say it, see `utils.settings.faults.reader`."""
    if name in ("threshold", "detector_scale") and settings and settings.test.detector == "none":
        return "a --detector"
    if command.has("list_nets") and name != "list_nets":
        return "another mode"
    others = command.trains or command.tests or command.has("prepare", "show_data", "export")
    if name in TESTED_ONLY and command.has("predict") and not others:
        return "--test"
    if command.has("audit") and name != "norm" and (name == "test_data" or name in SECTIONS["test"].keys):
        return "--test"
    return ""
