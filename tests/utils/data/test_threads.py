"""utils.data.threads: pools of threads."""

import os
import threading

import cv2
import numpy as np

from utils.data.threads import Threads


def test_threads_have_ended_for_the_system_when_their_pool_is_left():
    """A process that is forked while a thread deletes its data in OpenCV waits for ever in its first call."""

    def work(_: int) -> int:
        cv2.cvtColor(np.zeros((32, 32, 3), np.uint8), cv2.COLOR_BGR2GRAY)
        return threading.get_native_id()

    for _ in range(100):
        with Threads(4) as pool:
            begun = set(pool.map(work, range(50)))
        assert not any(os.path.exists(f"/proc/self/task/{thread}") for thread in begun)
