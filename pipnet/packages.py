"""Packages that only some files need."""

import importlib
from types import ModuleType

from pipnet.errors import UserError, limit_reached, one_line


def import_package(name: str, needed: str) -> ModuleType:
    """Import a package. UserError where it is missing or does not load. needed: words for what needs it."""
    try:
        package = importlib.import_module(name)
        if hasattr(package, "__path__") and getattr(package, "__file__", None) is None:  # an empty folder
            raise ModuleNotFoundError(name=name)
    except ModuleNotFoundError:
        raise UserError(f"{needed} the package {name}: pip install {name}") from None
    except (ImportError, OSError) as error:
        remedy = limit_reached(error) or f"install it again: pip install --force-reinstall {name}"
        raise UserError(f"{needed} the package {name}, which does not load ({one_line(error)}); {remedy}") from None
    return package
