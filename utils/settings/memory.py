"""Out-of-memory errors, on a GPU or a CPU, as one line with a remedy."""

import re
import resource
import threading
from contextlib import contextmanager
from pathlib import Path

from pipnet.errors import UserError

# messages of torch on CUDA and on the CPU, of oneDNN, and of CUDA's libraries
SHORT = re.compile(
    "out of memory|not enough memory|DefaultCPUAllocator|can't allocate|could not create a (memory|primitive)|"
    "ALLOC_FAILED"
)
STATM = Path("/proc/self/statm")  # Linux: pages of this process


def is_short(error: Exception) -> bool:
    """Return whether an error says that there is not enough memory."""
    return isinstance(error, MemoryError) or SHORT.search(str(error)) is not None


@contextmanager
def advice(what: str, remedy: str):
    """Raise UserError if memory runs out in the body. what: the cause in words; remedy: what to do about it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_short(error):
            raise
        raise UserError(f"out of memory with {what}; {remedy}") from None


class _Limit:
    """The limit on this process's memory that all threads in `limited` share. before: the limit to restore."""

    lock, holders, before = threading.Lock(), 0, (0, 0)


@contextmanager
def limited(gib: float = 2):
    """Raise MemoryError if the body takes more than `gib` additional GiB, which a damaged file can cause. Linux only.

    The limit holds for the whole process. The first thread that enters sets it; the last one that leaves restores the
    old one.
    """
    if not STATM.is_file():
        yield
        return
    with _Limit.lock:
        if not _Limit.holders:
            soft, hard = _Limit.before = resource.getrlimit(resource.RLIMIT_AS)
            wanted = int(STATM.read_text().split()[0]) * resource.getpagesize() + int(gib * (1 << 30))
            resource.setrlimit(
                resource.RLIMIT_AS, (wanted if soft == resource.RLIM_INFINITY else min(wanted, soft), hard)
            )
        _Limit.holders += 1
    try:
        yield
    finally:
        with _Limit.lock:
            _Limit.holders -= 1
            if not _Limit.holders:
                resource.setrlimit(resource.RLIMIT_AS, _Limit.before)


def smaller_steps(batch_size: int, accumulate: int, input_size: int) -> str:
    """Return flags with which an optimizer step needs less memory."""
    if batch_size == 1:
        return f"--input-size {max(input_size // 2 // 32, 1) * 32}, or a smaller --net"
    return f"--batch-size {batch_size // 2} --accumulate {2 * accumulate}"
