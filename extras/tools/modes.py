"""The flags of the commands beside the main job, see `utils.settings.modes`."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from pipnet.app.flags import FACES, add_face_flags
from pipnet.errors import UserError
from utils.settings.modes import TESTS, Mode, check_unread
from utils.settings.modes import WORK as MAIN_JOB
from utils.settings.sections import KEYS, SECTIONS

WORK = ("show_data", "audit", "predict", "list_nets")
TESTED_ONLY = (
    "norm",
    "thresholds",
    "data_dir",
    "test_data",
    "frame_step",
    "allow_partial",
    "layouts",
)  # --predict reads none
OTHERS = (*MAIN_JOB, "show_data", "audit", "predict", "sweep", "resume", "overwrite")
MODES = {  # checked in this order
    "list_nets": Mode((), OTHERS, "--list-nets only lists; leave the other modes out"),
    "predict": Mode((), ("sweep", "audit"), "--predict uses one trained net; leave --sweep and --audit out"),
    "predict_format": Mode(("predict",), (), "--predict-format is the format of --predict; give that too"),
    **{name: Mode(("predict",), (), f"--{name.replace('_', '-')} is for --predict; give that too") for name in FACES},
    "audit": Mode(
        (), ("train", *TESTS, "export", "sweep"), "--audit trains nets of its own; leave --train, --test, --sweep out"
    ),
    "sweep": Mode(
        ("train",),
        ("show_data", "export", "test_formats"),
        "--sweep goes with --train, and with --test or --test-onnx; leave other modes out",
    ),
}


def add_modes(add: Callable) -> None:
    """Add the modes with `add`, a parser's add_argument."""
    add("--show-data", metavar="N", type=int, help="draw N augmented training faces, and list suspicious labels")
    add(
        "--sweep",
        metavar="KEY=A,B,C",
        action="append",
        help="--train (and --test) once with each value of this key; if given several times, with each combination",
    )
    add(
        "--audit",
        action="store_true",
        help="find wrong labels: compare labels with nets that were not trained on these faces; writes weights/EXP/audit",
    )
    add(
        "--predict",
        metavar="PATH",
        help="write the landmarks of a picture, or of all pictures in a folder, most uncertain first, as .pts, CSV or COCO",
    )
    add(
        "--list-nets",
        metavar="NET",
        nargs="*",
        help="print the backbones with size, cost and published NME; with names: measure these on this machine",
    )


def add_flags(add: Callable) -> None:
    """Add the flags of --predict."""
    add("--predict-format", metavar="FORMAT", help="pts, csv or coco; default: by the ending of --out")
    add_face_flags(add, "for --predict 32")


def check_modes(mode: Namespace, typed: set[str], given: dict[str, Any]) -> None:
    """Raise UserError for values that do not fit, and for `given` keys that a mode does not read.
    typed: the names of the flags on the command line.
    """
    if mode.show_data is not None and mode.show_data < 1:
        raise UserError(f"--show-data needs the number of faces to draw, at least 1, not {mode.show_data}")
    if mode.audit and mode.resume and not mode.exp:
        raise UserError("--audit --resume needs the name of the audit: --exp")
    if typed & {*MAIN_JOB, *WORK} == {"predict"}:
        check_unread(given, TESTED_ONLY, "is not read by --predict; leave it out, or give --test too")
        if "perturbed" in given.get("box", ()):
            raise UserError("--box perturbed is not read by --predict; leave it out, or give --test too")
    if mode.list_nets is not None:
        check_unread(given, KEYS, "is not read by --list-nets, which measures nets with a head pip; leave it out")
    if mode.audit:
        unread = {"test_data", *SECTIONS["test"].keys} - {"norm"}
        check_unread(given, unread, "is for tests, and --audit tests no net; leave it out")
    elif mode.train or mode.prepare:
        check_unread(given, ("folds",), "is the number of nets of --audit; give that, or leave it out")
