"""The flags of main.py that are not keys of args.yaml: the modes, and what belongs to them.

A room of extras declares its own in `extras/<room>/modes.py`: add_modes(add) and add_flags(add) add them to the groups of
modes and of the run; WORK names those that are something to do; READ_BY has the flags and keys that some modes alone read;
reader(name, command, settings) says with what else a flag is read, as `utils.settings.faults.reader` does.
"""

from argparse import ArgumentParser
from collections.abc import Callable

from pipnet import __version__
from pipnet.shipped import SHIPPED
from utils.settings.formats import EXPORTS, TESTED
from utils.settings.rooms import added

TESTS = ("test", "test_onnx", "test_formats")
WORK = ("prepare", "train", *TESTS, "compare", "export")
READ_BY = {  # {flag: the modes that read it}
    "overwrite": ("train", "audit", "predict", "prepare", "export"),
    "out": ("predict", "export"),
}


def add_modes(parser: ArgumentParser) -> None:
    """Add the flags that are not keys of args.yaml."""
    modes, run = (parser.add_argument_group(name).add_argument for name in ("modes", "run"))
    _add_main_job(modes)
    _add_run(run)
    for room in added("modes").values():
        room.add_modes(modes)
        room.add_flags(run)


def _add_main_job(add: Callable) -> None:
    """Add the modes of the main job with `add`, a parser's add_argument."""
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
        help="export these formats if necessary, test them, measure their time; fail if one differs from torch by more than its "
        "bound",
    )
    add(
        "--compare",
        metavar="RUN",
        nargs="+",
        help="test these runs, and that of --exp if it is given, on the same faces; write a table and a page of what differs: "
        "keys, curves, figures and their intervals",
    )


def _add_run(add: Callable) -> None:
    """Add the flags that say which run is meant, and where results go."""
    add(
        "--exp",
        metavar="EXP",
        help=f"id (018), folder, file (.pt, .onnx, a published one) or shipped net ({', '.join(SHIPPED)}); default: the next "
        f"free id for a training, the newest run for tests, {SHIPPED[0]} for --predict",
    )
    add(
        "--config",
        metavar="FILE",
        help="YAML with keys of args.yaml, in its sections or without them, or the args.yaml of a run; flags win over it, "
        "and it wins over the preset",
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
        help="for --predict: a folder for .pts, or a file .csv or .json (COCO); default: in weights/EXP/predicted. For --export: "
        "a folder for the files, or the folder of the page of --export web; default: weights/EXP and weights/EXP/web",
    )
