"""The folders from which modules are imported: not the current folder, where a foreign cv2.py may lie."""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # from which this package was loaded


def own_path() -> list[str]:
    """Return sys.path without the current folder, unless this package was loaded from there."""
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:  # it is deleted
        return [one for one in sys.path if one]
    return [one for one in sys.path if here == ROOT or os.path.realpath(one or here) != here]


def python(code: str) -> list[str]:
    """Return the command of a Python process that runs `code` with `own_path`, untouched by variables of Python."""
    return [sys.executable, "-I", "-c", f"import sys; sys.path[:] = {own_path()!r}; {code}"]
