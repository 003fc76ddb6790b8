"""Progress bars: two updates a second in a terminal, one line a minute in a log file."""

import sys
from typing import Any

from tqdm import tqdm

from pipnet.errors import printable


def progress(*args: Any, desc: str = "", **values: Any) -> tqdm:
    """Return tqdm(...). desc: what is done, which may name a file."""
    every = 0.5 if sys.stderr.isatty() else 60
    return tqdm(*args, desc=printable(desc) or None, mininterval=every, maxinterval=60, dynamic_ncols=True, **values)
