"""Ctrl-C and SIGTERM while a library's call does not return: Python runs its handlers after the call, a thread need not wait."""
import os
import signal
import threading
import time
from contextlib import suppress

SIGNALS = signal.SIGINT, signal.SIGTERM
PATIENCE = 7  # seconds
_answered = float("-inf")


def answer() -> None:
    """Say that a signal's handler has run, and that what follows may take its time."""
    global _answered
    _answered = time.monotonic()


def end_when_stuck(line: str) -> None:
    """From now on, print `line` and end the process where a handler has not called `answer` PATIENCE seconds after its signal."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_ignore)
    threading.Thread(target=_watch, args=(reader, line), daemon=True).start()


def _ignore() -> None:
    """Keep a child's signals from the pipe, which is its parent's too."""
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)


def _watch(reader: int, line: str) -> None:
    """Wait for signals, whose numbers come through the pipe. One answer may be for several of them."""
    while numbers := os.read(reader, 1):
        if numbers[0] in SIGNALS:
            came = time.monotonic() - 1
            while time.monotonic() < came + 1 + PATIENCE and _answered < came:
                time.sleep(0.1)
            if _answered < came:
                os.write(2, line.encode())
                os._exit(128 + numbers[0])
