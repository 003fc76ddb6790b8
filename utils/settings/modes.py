"""The flags of main.py that are not keys of args.yaml: the modes, the run, and which of these can be combined.

A room of extras declares its own in `extras/<room>/modes.py`: add_modes(add) and add_flags(add) add them to the groups of
modes and of the run; WORK names those that are something to do, MODES has the rules of each; check_modes(mode, typed, given)
raises UserError for what no rule says.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Collection
from typing import Any, NamedTuple

from pipnet import __version__
from pipnet.errors import UserError
from pipnet.files import SHIPPED
from utils.settings.extras import modes_of_rooms
from utils.settings.formats import EXPORTS, TESTED
from utils.settings.sections import KEYS


class Mode(NamedTuple):
    """The flags with which a mode can be combined: one of `needs` must be given too, and none of `excludes`.

    says: the error message otherwise.
    """

    needs: tuple[str, ...]
    excludes: tuple[str, ...]
    says: str


TESTS = ("test", "test_onnx", "test_formats")
WORK = ("prepare", "train", *TESTS, "export")
MODES = {  # checked in this order
    "compare": Mode(TESTS, ("sweep",), "--compare is for the report of a test; give --test with it, and no --sweep"),
    "resume": Mode(("train", "audit"), (), "--resume continues a --train or an --audit; give that too"),
    "overwrite": Mode(
        ("train", "audit", "predict", "prepare", "export"),
        (),
        "--overwrite moves aside what --train, --audit, --predict, --prepare or --export would replace; give one of these",
    ),
}


def add_modes(parser: ArgumentParser) -> None:
    """Add the flags that are not keys of args.yaml."""
    rooms = modes_of_rooms()
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
    for room in rooms:
        room.add_modes(add)
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
    for room in rooms:
        room.add_flags(add)
    add(
        "--compare",
        metavar="RUN",
        nargs="+",
        default=[],
        help="show these runs, tested on the same faces, beside this one in the table and report of the test",
    )


def check_modes(mode: Namespace, given: dict[str, Any]) -> None:
    """Raise UserError for modes that do not go together, and for `given` keys that none of them reads."""
    rooms, parser = modes_of_rooms(), ArgumentParser(add_help=False)
    add_modes(parser)
    typed = {name for name, value in vars(mode).items() if value != parser.get_default(name)}
    if not typed & {*WORK, *(name for room in rooms for name in room.WORK)}:
        raise UserError(
            "nothing to do: give --train, --test, --test-onnx, --predict PATH, --prepare, --show-data N, --audit or "
            "--list-nets (--help explains them)"
        )
    rules = [pair for table in (*(room.MODES for room in rooms), MODES) for pair in table.items()]
    for name, rule in rules:
        if name in typed and ((rule.needs and not typed & set(rule.needs)) or typed & set(rule.excludes)):
            raise UserError(rule.says)
    if mode.out and bool(mode.predict) == ("web" in mode.export):
        raise UserError("--out says where the landmarks of --predict or the page of --export web go; give one of these")
    for room in rooms:
        room.check_modes(mode, typed, given)


def check_unread(given: dict[str, Any], unread: Collection[str], why: str) -> None:
    """Raise UserError if a key of `unread` is given."""
    for key in given:
        if key in unread:
            raise UserError(f"{KEYS[key].flag} {why}")
