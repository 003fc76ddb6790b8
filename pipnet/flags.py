"""The parser of command lines, and the flags that demo.py and main.py --predict share."""

from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from pipnet.errors import UserError, printable

Add = Callable[..., Any]  # add_argument of a parser
FACES = ("int8", "detector_scale", "threshold", "upright", "max_faces")


class Parser(ArgumentParser):
    """A parser whose errors, which repeat what was typed or what a pattern has found, change no terminal.

    Its numbers are decimal: Python's int also takes 1_0 for 10, and digits of other scripts.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for kind in (int, float):
            self.register("type", kind, partial(_decimal, kind))

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error; end the process."""
        super().error(printable(message))


def _decimal(kind: type, text: str) -> Any:
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return kind(text)


def add_face_flags(add: Add, default: str) -> None:
    """Add the flags FACES with `add`, a parser's add_argument.
    default: the bits without --int8 and --no-int8, for the help.
    """
    add(
        "--int8",
        action=BooleanOptionalAction,
        help=f"run the nets that come with the project in 8 bits, or in 32 bits (default: {default})",
    )
    add(
        "--detector-scale",
        metavar="X",
        type=float,
        help="resize pictures by this factor for the detector; 2 finds smaller "
        "faces (default: that of the detector's authors; ours: a short side above 600 px is shrunk to 600 px)",
    )
    add(
        "--threshold",
        metavar="SCORE",
        type=float,
        help="lowest score of a face (default: 0.5; for nets that do not predict it, all that the detector finds)",
    )
    add(
        "--upright",
        action="store_true",
        help="if no face is sure, do not search the picture again, turned and enhanced",
    )
    add("--max-faces", metavar="N", type=int, help="keep the N largest faces (default: all)")


def flag(name: str) -> str:
    """Return the flag of a name, such as --max-faces of max_faces."""
    return f"--{name.replace('_', '-')}"


def check_flags(values: dict[str, Any]) -> None:
    """Raise UserError for an empty text among {name: value} of a command line, such as a shell's variable that is not
    set.
    """
    for name, value in values.items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise UserError(f"{flag(name)} is empty; give it a value, or leave it out")
