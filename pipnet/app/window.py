"""The window of the demo: it shows frames and reads keys."""
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from pipnet.app.panel import STYLES
from pipnet.app.sinks import save_picture

OUTPUT = Path("output")  # folder for what is saved without a name
KEYS = "q or Esc: quit; s: save this picture; d: draw edges, points, numbers or nothing; m: mirror; space: pause, next picture"
LARGEST = (1280, 800)    # px of the window at first


def has_display() -> bool:
    """Whether a window can be opened. A process of its own tries it, since a failure ends the process."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        return subprocess.run([sys.executable, "-c", "import cv2; cv2.namedWindow('pipnet')"], capture_output=True,
                              timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


class Window:
    """A window. still: every picture waits for a key. `style`: how faces are drawn, one of STYLES."""

    def __init__(self, still: bool):
        self.title, self.still, self.style = "PIPNet", still, STYLES[0]
        cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        self._sized, self._mirrored, self._offset = False, False, -np.inf

    def show(self, image: np.ndarray, seconds: float, redraw: Callable[[str], np.ndarray], name: str) -> bool:
        """Show a frame until the next one is due; False when the user quits.

        seconds: time of the frame in its video, 0 for still and live sources. redraw(style): the frame drawn in another style.
        name: of the file that key s saves, without suffix.
        """
        paused, now = self.still, time.monotonic()
        self._offset = max(self._offset, now - seconds)  # the video's start; later after a pause and where drawing is too slow
        wait = max(1, int(1000 * (seconds + self._offset - now)))
        self._fit(image)
        while True:
            cv2.imshow(self.title, cv2.flip(image, 1) if self._mirrored else image)
            key = cv2.waitKey(30 if paused else wait) & 0xFF
            if key in (ord("q"), 27) or cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1:
                return False
            if key == ord("s"):
                file = OUTPUT / f"{name}.png"
                save_picture(file, image)
                tqdm.write(f"saved {file}", file=sys.stderr)
            elif key == ord("d"):
                self.style = STYLES[(STYLES.index(self.style) + 1) % len(STYLES)]
                image = redraw(self.style)
            elif key == ord("m"):
                self._mirrored = not self._mirrored
            elif key == ord(" "):
                if self.still:
                    return True
                paused = not paused
            if not paused:
                return True

    def _fit(self, image: np.ndarray) -> None:
        """Give the window the shape of the first picture."""
        if not self._sized:
            height, width = image.shape[:2]
            scale = min(1.0, LARGEST[0] / width, LARGEST[1] / height)
            cv2.resizeWindow(self.title, max(1, int(width * scale)), max(1, int(height * scale)))
            self._sized = True
