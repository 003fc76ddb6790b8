"""Code from outside of the checkout that stands for a row of a table: a net, a head, a form of the loss, a dataset.

Its name is PACKAGE.MODULE:NAME, or that of an entry point in the group `pipnet.<kind>` of an installed package. Only a
typed flag imports PACKAGE.MODULE:NAME, since a checkpoint, which names it too, may come from anybody.
"""

import re
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

NAME = re.compile(r"(?!timm:)[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
# {kind: the flag that names such code}
KINDS = {"nets": "--net", "heads": "--head", "losses": "--error", "datasets": "--dataset"}

_typed: dict[tuple[str, str], Any] = {}  # {(kind, name): what a typed flag has imported}


def is_outside(kind: str, name: str) -> bool:
    """Return whether a name is that of code from outside. Nothing is imported."""
    return bool(NAME.fullmatch(name) or entry_points(group=f"pipnet.{kind}", name=name))


def import_typed(kind: str, name: str) -> Any:
    """Return the code that a typed flag names, and keep it for `code_of`. ValueError if it cannot be imported."""
    if NAME.fullmatch(name):
        module, _, attribute = name.partition(":")
        _typed[kind, name] = _imported(name, lambda: getattr(import_module(module), attribute))
    return code_of(kind, name)


def code_of(kind: str, name: str) -> Any:
    """Return the code from outside of that name, None without one. ValueError if it cannot be imported, or if its name
    is PACKAGE.MODULE:NAME and no flag has named it.
    """
    if (kind, name) in _typed:
        return _typed[kind, name]
    check_typed({kind: name})
    points = entry_points(group=f"pipnet.{kind}", name=name)
    return _imported(name, next(iter(points)).load) if points else None


def check_typed(names: dict[str, str]) -> None:
    """Raise ValueError, with all flags to type, if {kind: name} has a PACKAGE.MODULE:NAME that no flag has named."""
    untyped = {kind: name for kind, name in names.items() if NAME.fullmatch(name) and (kind, name) not in _typed}
    if untyped:
        flags = " ".join(f"{KINDS[kind]} {name}" for kind, name in untyped.items())
        raise ValueError(
            f"'{next(iter(untyped.values()))}' is code from outside of the checkout, which is not imported because a file "
            f"names it; if you trust it, type {flags}"
        )


def _imported(name: str, load: Any) -> Any:
    try:
        return load()
    except Exception as error:  # its modules may raise errors of any type
        what = (str(error).splitlines() or [""])[0]
        missing = str(error.name) if isinstance(error, ModuleNotFoundError) else ""
        remedy = f"install {missing}, which its code imports" if missing else "correct its code, or the name"
        if missing and f"{name.partition(':')[0]}.".startswith(f"{missing}."):
            remedy = "install its package, or put its folder into PYTHONPATH"
        raise ValueError(f"'{name}' cannot be imported ({type(error).__name__}: {what}); {remedy}") from error
