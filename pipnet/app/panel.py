"""The panel of the demo: frames per second and the time of each stage."""

import cv2
import numpy as np

from pipnet.draw import draw_text

STAGES = {
    "decode": (200, 160, 90),
    "detect": (90, 190, 250),
    "landmarks": (120, 210, 120),
    "track": (210, 140, 210),
    "draw": (170, 170, 240),
    "save": (200, 200, 120),
}  # BGR


def plural(count: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class Panel:
    """Frames per second and the time of each stage, smoothed over about a second."""

    def __init__(self) -> None:
        self.fps = 0.0
        self.stages: dict[str, float] = {}

    def update(self, seconds: dict[str, float], total: float) -> None:
        """Add a frame: seconds of each stage and of the whole frame."""
        share = min(1.0, max(total, 0.02)) if self.fps else 1.0
        self.fps += share * (1 / max(total, 1e-4) - self.fps)
        for name, value in seconds.items():
            before = self.stages.get(name, value)
            self.stages[name] = before + share * (value - before)

    def draw(self, image: np.ndarray, faces: int) -> None:
        """Draw the panel into the upper left corner, unless it would cover too much of the picture."""
        height, width = image.shape[:2]
        size = float(np.clip(min(width, height * 1.33) / 1300, 0.35, 1.2))
        step, across = round(34 * size) + 4, round(520 * size)
        if across > 0.6 * width or step * (len(self.stages) + 2) > height:
            return
        box = image[: step * (len(self.stages) + 1) + step // 2, :across]
        box[:] = box // 5 * 2
        draw_text(image, f"{self.fps:.0f} fps, {plural(faces, 'face')}", (6, step - 6), size)
        longest = max([0.02, *self.stages.values()])
        for row, (name, seconds) in enumerate(self.stages.items()):
            y = step * (row + 2) - 6
            start, reach = round(across * 0.58), across * 0.4
            cv2.rectangle(
                image, (start, y - step // 2), (start + round(reach * seconds / longest), y), STAGES[name], -1
            )
            draw_text(image, f"{name} {1000 * seconds:.1f} ms", (6, y), size)
