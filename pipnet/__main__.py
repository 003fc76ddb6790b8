"""`python -m pipnet` and the command pipnet."""

import sys

from pipnet.console import load_failure, open_console
from pipnet.module_path import own_path


def command() -> None:
    """Run the command; a package that is missing or does not load is one line."""
    open_console()
    try:
        from pipnet.app import demo
    except (ImportError, OSError) as error:
        sys.exit(f"error: {load_failure(error)}")
    demo.command()


if __name__ == "__main__":
    sys.path[:] = own_path()
    command()
