"""Openers of nets that pipnet does not run itself, such as checkpoints, which need torch. The checkout fills their table.

Older Pythons read this file before main.py says which ones it needs, so it imports the rest of pipnet when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

OPENERS: dict[str, Callable[..., Any]] = {}  # {kind of file: what opens it; it imports torch when it is called}


def open_with(kind: str, file: Path | str, *options: Any) -> Any:
    """Return what the opener of a kind makes of a file, see `utils/__init__.py`.

    UserError if there is none, or if a package that it needs is missing or does not load.
    """
    from pipnet.console import load_failure
    from pipnet.errors import UserError
    from pipnet.shipped import SHIPPED

    is_file = Path(file).is_file()
    nowhere = f"there is no file {file}, and no net of that name ({', '.join(SHIPPED)})"
    if kind not in OPENERS:
        raise UserError(
            f"{f'{file} is no net that main.py has exported' if is_file else nowhere}; give an exported one (main.py "
            "--export onnx), or in the checkout run demo.py, or `import utils` first, which opens other nets too"
        )
    try:
        return OPENERS[kind](file, *options)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{f'{file} is loaded with torch' if is_file else nowhere}, and {error.name} cannot be imported; give an "
            "ONNX file, or run demo.py of the checkout in the environment that main.sh makes"
        ) from None
    except (ImportError, OSError) as error:
        if getattr(error, "errno", None):  # not of a library that does not load
            raise
        raise UserError(f"{file} is loaded with torch: {load_failure(error)}") from None
