"""A pool of threads that is gone before loader processes are forked."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

PATIENCE = 10  # seconds


class Threads(ThreadPoolExecutor):
    """A pool of `count` threads, which have ended for the system too when it has been shut down.

    Python takes a thread for ended before the thread deletes its data in OpenCV, which it does under a lock. A process
    that is forked in this moment inherits the lock as taken, and its first call of OpenCV never returns.
    """

    def __init__(self, count: int):
        self.begun: list[int] = []
        super().__init__(count, initializer=lambda: self.begun.append(threading.get_native_id()))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads, as in the base class. Wait until the system has removed them."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        latest = time.monotonic() + PATIENCE * wait
        while time.monotonic() < latest and any(os.path.exists(f"/proc/self/task/{thread}") for thread in self.begun):
            time.sleep(0.001)
