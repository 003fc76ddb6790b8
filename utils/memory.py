"""A shortage of memory, on a GPU or not, as one line that says what to type."""
import re
from contextlib import contextmanager

from pipnet.errors import UserError

# torch on CUDA, torch on the CPU, oneDNN, and CUDA's libraries
SHORT = re.compile("out of memory|not enough memory|DefaultCPUAllocator|can't allocate|could not create a (memory|primitive)|"
                   "ALLOC_FAILED")


def is_shortage(error: BaseException) -> bool:
    """Whether `error` says that memory ran out; torch has several ways to say so."""
    return isinstance(error, MemoryError) or isinstance(error, RuntimeError) and bool(SHORT.search(str(error)))


@contextmanager
def advice(what: str, remedy: str):
    """Where memory does not suffice for `what`: a UserError with the `remedy`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        raise UserError(f"out of memory with {what}; {remedy}") from None


def smaller_steps(batch_size: int, accumulate: int, input_size: int) -> str:
    """The flags of the same step in less memory."""
    if batch_size == 1:
        return f"--input-size {max(input_size // 2 // 32, 1) * 32}, or a smaller --net"
    return f"--batch-size {batch_size // 2} --accumulate {2 * accumulate}"
