"""The folders from which modules are imported: not the current folder, where a foreign cv2.py may lie."""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # from which this package was loaded


def own_path() -> list[str]:
    """Return sys.path without the current folder, unless PYTHONPATH names it or this package was loaded from there."""
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:  # it is deleted
        return [one for one in sys.path if one]
    named = "" if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "")
    kept = {ROOT, *(os.path.realpath(one) for one in named.split(os.pathsep) if one)}  # an empty part names nothing
    return [one for one in sys.path if here in kept or os.path.realpath(one or here) != here]


def other_package(name: str) -> str | None:
    """Return where Python finds the package of this name, if the project has one and Python finds another."""
    from importlib.util import find_spec  # after `own_path`: it imports more of the standard library

    own = os.path.join(ROOT, name)
    spec = find_spec(name) if name and os.path.isdir(own) else None
    if spec is None:
        return None
    place = next(iter(spec.submodule_search_locations or [spec.origin or ""]))
    return None if os.path.realpath(place) == own else place


def python(code: str) -> list[str]:
    """Return the command of a Python process that runs `code` with `own_path`, untouched by variables of Python."""
    return [sys.executable, "-I", "-c", f"import sys; sys.path[:] = {own_path()!r}; {code}"]
