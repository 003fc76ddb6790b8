"""The streams of a command, its working folder, and packages that do not load. It needs no package."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipnet.errors import UserError, limit_reached, one_line
from pipnet.module_path import ROOT, other_package

PACKAGES = {"cv2": "opencv-python", "yaml": "PyYAML", "PIL": "Pillow"}  # {module: package}


class _Output(io.TextIOWrapper):
    """stdout. Where it cannot be written, UserError; the end of the process if its reader has ended."""

    def write(self, text: str) -> int:
        """Write the text."""
        with self._checked():
            return super().write(text)

    def flush(self) -> None:
        """Flush the text."""
        with self._checked():
            super().flush()

    @contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more at its end
            if isinstance(error, BrokenPipeError):
                raise SystemExit(1) from None
            raise UserError(f"the output cannot be written ({error.strerror}); send it to another place") from None


class _Messages(_Output):
    """stderr. A message that is lost, on a full disk or because its reader has ended, does not end the work."""

    @contextmanager
    def _checked(self) -> Iterator[None]:
        with suppress(OSError):
            yield


def open_console() -> None:
    """Put the null device in the place of streams that the caller has closed; end if the working folder is deleted.

    A file that is opened later would else get the number of a closed stream, and what libraries print with it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)
    for number, name, kind in ((1, "stdout", _Output), (2, "stderr", _Messages)):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # None if it was closed; another one belongs to the caller
            encoding, errors = (stream.encoding, stream.errors) if stream else ("utf-8", "replace")
            lines = number == 2 or os.isatty(number)
            setattr(sys, name, kind(open(number, "wb", closefd=False), encoding, errors, line_buffering=lines))
    try:
        os.getcwd()
    except OSError as error:
        sys.exit(f"error: the working folder cannot be found ({error.strerror}); change to another one")


def load_failure(error: ImportError | OSError) -> str:
    """Return one line about a package that is missing or does not load, or has a name of ours. Raise the error for a
    module of the project.
    """
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if other := other_package(package):
        ours = os.path.join(ROOT, package)
        return f"{other} is found in the place of {ours}; rename it, or keep its folder out of Python's path"
    if not isinstance(error, ModuleNotFoundError):
        desktop = " (cv2 without a desktop: pip install opencv-python-headless)"
        remedy = limit_reached(error) or f"install it again{desktop}"
        return f"a package cannot be loaded: {one_line(error)}; {remedy}"
    if not package or os.path.isdir(os.path.join(ROOT, package)):
        raise error
    return f"the package '{package}' is missing: pip install {PACKAGES.get(package, package)}"
