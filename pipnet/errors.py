"""The exception whose message is written for the user."""

import errno
import math
import re
import sys
from numbers import Integral, Real
from typing import Any

# control characters, line separators and marks that turn the direction of writing; the last ones: bytes that are no
# UTF-8
CONTROLS = {
    code: ascii(chr(code))[1:-1]
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
CONTROLS |= {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0xA0)}


# user and password of an address, also with a slash in it, and values of such names in its query
SECRETS = re.compile(
    r"(?<=://)(?:[^\s/?#]*|[^\s/@:]+:\S*)@|(?<=[?&])((?:pass\w*|pwd|token|secret|\w*key|auth\w*)=)[^&\s]+",
    re.IGNORECASE,
)


LIMITS = {  # of the system, by the number and by the text of an error
    errno.EMFILE: ("Too many open files", "no more files can be opened; allow more (ulimit -n 4096)"),
    errno.ENFILE: ("Too many open files in system", "the system can open no more files; close other programs"),
    errno.EAGAIN: (
        "can't start new thread",
        "no more threads and processes can be started; allow more (ulimit -u 4096)",
    ),
    errno.ENOMEM: ("annot allocate memory", "there is no memory left; close other programs, or allow more (ulimit -v)"),
}


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, then what to do. The commands print it and exit with status 1."""


class Unreadable(UserError):
    """A file that the system does not let us read. It may be sound, so work without it is not taken for the whole."""


def limit_reached(error: BaseException) -> str | None:
    """Return which limit of the system an error reports, and what to do about it; None for another error."""
    number, text = getattr(error, "errno", None), str(error)
    found = (says for code, (words, says) in LIMITS.items() if code == number or (number is None and words in text))
    return LIMITS[errno.ENOMEM][1] if isinstance(error, MemoryError) else next(found, None)


def one_line(error: object, length: int = 160) -> str:
    """Return the first `length` characters of an error's text, on one line."""
    return " ".join(str(error).split())[:length]


def is_integer(value: Any, least: int, most: float = math.inf) -> bool:
    """Return whether a value is a whole number from `least` to `most`."""
    return isinstance(value, Integral) and least <= int(value) <= most


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, Real) and math.isfinite(value)


def as_text(value: Any) -> str:
    """Return a value of a wrong type or range for a message: of an array its type and shape, not its numbers."""
    array = getattr(value, "shape", ()) if hasattr(value, "dtype") else ()
    return f"{value.dtype} {tuple(value.shape)}" if array else one_line(repr(value), 80)


def printable(text: str) -> str:
    """Return the text as it is shown: on one line, with control characters escaped and passwords of addresses masked.

    Names of files may hold characters that change a terminal.
    """
    return SECRETS.sub(lambda found: f"{found[1]}***" if found[1] else "***@", text.translate(CONTROLS))


def lines(text: str) -> str:
    """Return a text of several lines, each of which is `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def tell(text: str) -> None:
    """Print a text for the user on stderr, on one line."""
    print(printable(text), file=sys.stderr)
