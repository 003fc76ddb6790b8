"""The CPU cores, in a module without heavy imports."""

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")  # Linux: a line per core with the time that it has spent in each way


def cores() -> int:
    """Return the number of CPU cores that this process may use. With more threads, threads wait for each other."""
    return len(_usable())


def _usable() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def free_cores(seconds: float = 0.4) -> float:
    """Return how many of these cores are idle, measured for `seconds`, in which this process sleeps.

    Work of processes with lower priority (nice) counts as idle, since they make way. Without /proc/stat the load
    average is used.
    """
    if not STAT.is_file():
        return max(cores() - os.getloadavg()[0], 0.0)
    before = _times()
    time.sleep(seconds)
    spent = {core: [b - a for a, b in zip(before[core], after, strict=True)] for core, after in _times().items()}
    polite = 0 if os.nice(0) > 0 else 1  # column of the work at low priority
    return float(sum((polite * row[1] + row[3] + row[4]) / max(sum(row), 1) for row in spent.values()))


def _times() -> dict[int, list[int]]:
    """Return {usable core: ticks as user, nice, system, idle, iowait, ...}."""
    rows = (line.split() for line in STAT.read_text().splitlines() if line.startswith("cpu") and line[3].isdigit())
    return {int(row[0][3:]): [int(word) for word in row[1:9]] for row in rows if int(row[0][3:]) in _usable()}
