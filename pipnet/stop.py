"""Ctrl-C and SIGTERM while a library's call does not return: Python runs signal handlers after the call, so a thread
watches.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

SIGNALS = signal.SIGINT, signal.SIGTERM
PATIENCE = 7  # seconds
_answered = float("-inf")


def answer() -> None:
    """Tell the watching thread that the handler of a signal has run, so that it does not end the process."""
    global _answered
    _answered = time.monotonic()


def end_when_stuck(line: Callable[[], str]) -> None:
    """From now on, print `line()` and end the process if no handler calls `answer` within PATIENCE seconds after a
    signal. On Windows, which has no such pipe of signals, nothing is done.
    """
    if not hasattr(os, "register_at_fork"):
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_ignore)
    threading.Thread(target=_watch, args=(reader, line), daemon=True).start()


def _ignore() -> None:
    """Keep a child's signals from the pipe, which is its parent's too."""
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)


def _watch(reader: int, line: Callable[[], str]) -> None:
    """Wait for signals, whose numbers come through the pipe. One answer may be for several of them."""
    while numbers := os.read(reader, 1):
        if numbers[0] in SIGNALS:
            came = time.monotonic() - 1
            while time.monotonic() < came + 1 + PATIENCE and _answered < came:
                time.sleep(0.1)
            if _answered < came:
                os.write(2, line().encode(errors="surrogateescape"))
                os._exit(128 + numbers[0])
