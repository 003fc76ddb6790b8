"""Lines in the terminal, and progress bars: two updates a second in a terminal, one line a minute in a log file."""

import sys
from typing import Any

from loguru import logger
from tqdm import tqdm

from pipnet.errors import printable


def progress(*args: Any, desc: str = "", **values: Any) -> tqdm:
    """Return tqdm(...). desc: what is done, which may name a file."""
    every = 0.5 if sys.stderr.isatty() else 60
    return tqdm(*args, desc=printable(desc) or None, mininterval=every, maxinterval=60, dynamic_ncols=True, **values)


def log_to_terminal(speaks: bool) -> None:
    """Log to the terminal only, in short lines that do not break a progress bar. speaks: whether this process logs."""
    logger.remove()
    logger.configure(patcher=lambda record: record.update(message=printable(record["message"])))
    if speaks:
        logger.add(
            lambda line: tqdm.write(line, end="", file=sys.stderr), format="{time:HH:mm:ss} {message}", level="INFO"
        )
