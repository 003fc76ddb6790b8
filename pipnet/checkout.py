"""Code that only the checkout has, for nets that run in torch.
It is imported when needed, so that inference needs no torch.
"""

import importlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from pipnet.console import load_failure
from pipnet.errors import UserError
from pipnet.files import SHIPPED
from pipnet.module_path import ROOT


def from_checkout(function: str, file: Path | str) -> Callable:
    """Return the function named "module:function", which loads `file`.
    UserError if the checkout or its packages are missing.
    """
    module, name = function.split(":")
    try:
        package = module.partition(".")[0]
        found = find_spec(package)
        if found is None or found.origin != os.path.join(ROOT, package, "__init__.py"):
            raise ModuleNotFoundError(name=package)  # no file makes us run a package of another project
        return getattr(importlib.import_module(module), name)
    except (ImportError, OSError) as error:
        if not isinstance(error, ModuleNotFoundError):
            raise UserError(f"{file} is loaded by code of the checkout: {load_failure(error)}") from None
        if not Path(file).is_file():
            raise UserError(
                f"there is no file {file}, and no net of that name ({', '.join(SHIPPED)}); a run of a checkout is "
                f"opened by demo.py there, where {error.name} can be imported"
            ) from None
        raise UserError(
            f"{file} is loaded with torch by code of the checkout, and {error.name} cannot be imported; give an ONNX "
            "file, or run demo.py of the checkout in the environment that main.sh makes"
        ) from None
