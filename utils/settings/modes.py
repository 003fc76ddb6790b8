"""The flags of main.py that are not keys of args.yaml: the modes, the run, and which of these can be combined."""

from argparse import ArgumentParser, Namespace
from collections.abc import Collection
from typing import Any, NamedTuple

from pipnet import __version__
from pipnet.app.flags import FACES, add_face_flags
from pipnet.errors import UserError
from pipnet.files import SHIPPED
from utils.settings.formats import EXPORTS, TESTED
from utils.settings.sections import KEYS, SECTIONS


class Mode(NamedTuple):
    """The flags with which a mode can be combined: one of `needs` must be given too, and none of `excludes`.

    says: the error message otherwise.
    """

    needs: tuple[str, ...]
    excludes: tuple[str, ...]
    says: str


TESTS = ("test", "test_onnx", "test_formats")
TESTED_ONLY = (
    "norm",
    "thresholds",
    "data_dir",
    "test_data",
    "frame_step",
    "allow_partial",
)  # keys that --predict does not read
WORK = ("prepare", "train", *TESTS, "export", "show_data", "audit", "predict")
MODES = {  # checked in this order
    "list_nets": Mode((), (*WORK, "sweep", "resume", "overwrite"), "--list-nets only lists; leave the other modes out"),
    "predict": Mode((), ("sweep", "audit"), "--predict uses one trained net; leave --sweep and --audit out"),
    "predict_format": Mode(("predict",), (), "--predict-format is the format of --predict; give that too"),
    **{name: Mode(("predict",), (), f"--{name.replace('_', '-')} is for --predict; give that too") for name in FACES},
    "compare": Mode(TESTS, ("sweep",), "--compare is for the report of a test; give --test with it, and no --sweep"),
    "resume": Mode(("train", "audit"), (), "--resume continues a --train or an --audit; give that too"),
    "overwrite": Mode(
        ("train", "audit", "predict", "prepare", "export"),
        (),
        "--overwrite moves aside what --train, --audit, --predict, --prepare or --export would replace; give one of these",
    ),
    "audit": Mode(
        (), ("train", *TESTS, "export", "sweep"), "--audit trains nets of its own; leave --train, --test, --sweep out"
    ),
    "sweep": Mode(
        ("train",),
        ("show_data", "export", "test_formats"),
        "--sweep goes with --train, and with --test or --test-onnx; leave other modes out",
    ),
}


def add_modes(parser: ArgumentParser) -> None:
    """Add the flags that are not keys of args.yaml."""
    add = parser.add_argument_group("modes").add_argument
    add("--version", action="version", version=f"pipnet {__version__}")
    add("--prepare", action="store_true", help="write data/NAME-HASH from the raw archive (also done on first use)")
    add("--train", action="store_true", help="train a net in weights/EXP")
    add("--test", action="store_true", help="print NME, failure rate and area under the curve on the test sets")
    add(
        "--test-onnx",
        action="store_true",
        help="export the net if necessary, test the ONNX file, fail if it differs from torch",
    )
    add(
        "--export",
        metavar="FORMAT",
        nargs="+",
        choices=EXPORTS,
        action="extend",
        default=[],
        help=f"write the net for other runtimes: {', '.join(TESTED)}; pipeline: one ONNX file that takes a picture and returns "
        "its faces; web: a page for the browser",
    )
    add(
        "--export-raw",
        dest="export",
        action="append_const",
        const="raw",
        help="write an ONNX file that returns the head's maps",
    )
    add(
        "--test-formats",
        metavar="FORMAT",
        nargs="+",
        choices=TESTED,
        default=[],
        help="export these formats if necessary, test them, measure their time; fail if one differs from torch by more than its "
        "bound",
    )
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
    add = parser.add_argument_group("run").add_argument
    add(
        "--exp",
        metavar="EXP",
        help=f"id (018), folder, file (.pt, .onnx, a published one) or shipped net ({', '.join(SHIPPED)}); default: the next "
        f"free id for a training, the newest run for tests, {SHIPPED[0]} for --predict",
    )
    add("--resume", action="store_true", help="continue from the last whole checkpoint of that run")
    add(
        "--overwrite",
        action="store_true",
        help="move aside, under a dated name, what is there: that run, results of --predict or --export web; with "
        "--prepare, the prepared sets",
    )
    add(
        "--out",
        metavar="PATH",
        help="for --predict: a folder for .pts, or a file .csv or .json (COCO); default: in weights/EXP/predicted. For --export "
        "web: the folder of the page; default: weights/EXP/web",
    )
    add("--predict-format", metavar="FORMAT", help="pts, csv or coco; default: by the ending of --out")
    add_face_flags(add, "for --predict 32")
    add(
        "--compare",
        metavar="RUN",
        nargs="+",
        default=[],
        help="show these runs, tested on the same faces, beside this one in the table and report of the test",
    )


def check_modes(mode: Namespace, given: dict[str, Any]) -> None:
    """Raise UserError for modes that do not go together, and for `given` keys that none of them reads."""
    typed = {name for name, value in vars(mode).items() if value is not None and value is not False and value != []}
    typed |= {
        name for name in ("list_nets", "int8") if getattr(mode, name) is not None
    }  # [] and False are values of these
    if not typed & {*WORK, "list_nets"}:
        raise UserError(
            "nothing to do: give --train, --test, --test-onnx, --predict PATH, --prepare, --show-data N, --audit or "
            "--list-nets (--help explains them)"
        )
    if mode.show_data is not None and mode.show_data < 1:
        raise UserError(f"--show-data needs the number of faces to draw, at least 1, not {mode.show_data}")
    for name, rule in MODES.items():
        if name in typed and ((rule.needs and not typed & set(rule.needs)) or typed & set(rule.excludes)):
            raise UserError(rule.says)
    if mode.out and bool(mode.predict) == ("web" in mode.export):
        raise UserError("--out says where the landmarks of --predict or the page of --export web go; give one of these")
    if mode.audit and mode.resume and not mode.exp:
        raise UserError("--audit --resume needs the name of the audit: --exp")
    if typed & {*WORK} == {"predict"}:
        _check_unread(given, TESTED_ONLY, "is not read by --predict; leave it out, or give --test too")
        if "perturbed" in given.get("box", ()):
            raise UserError("--box perturbed is not read by --predict; leave it out, or give --test too")
    if mode.list_nets is not None:
        _check_unread(given, KEYS, "is not read by --list-nets, which measures nets with a head pip; leave it out")
    if mode.audit:
        unread = {"test_data", *SECTIONS["test"].keys} - {"norm"}
        _check_unread(given, unread, "is for tests, and --audit tests no net; leave it out")
    elif mode.train or mode.prepare:
        _check_unread(given, ("folds",), "is the number of nets of --audit; give that, or leave it out")


def _check_unread(given: dict[str, Any], unread: Collection[str], why: str) -> None:
    """Raise UserError if a key of `unread` is given."""
    for key in given:
        if key in unread:
            raise UserError(f"{KEYS[key].flag} {why}")
