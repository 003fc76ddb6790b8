"""Drawings of the demo: faces, the time of each stage, the drowsiness alarm."""

import cv2
import numpy as np

from pipnet.draw import WHITE, Pen, draw, draw_line, draw_numbers, draw_text, group_colours
from pipnet.face import Face
from pipnet.layout import Layout

STYLES = ("edges", "points", "numbers", "nothing")  # in the order in which key d goes through them
UNCERTAIN = 0.4  # score below which a landmark is drawn hollow
STAGES = {
    "decode": (200, 160, 90),
    "detect": (90, 190, 250),
    "landmarks": (120, 210, 120),
    "track": (210, 140, 210),
    "draw": (170, 170, 240),
    "save": (200, 200, 120),
}  # BGR
FONT = cv2.FONT_HERSHEY_SIMPLEX


def plural(count: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def draw_faces(image: np.ndarray, faces: list[Face], layout: Layout, style: str = "edges") -> None:
    """Draw landmarks, corners of the boxes and labels into `image`. Sizes are proportional to the face."""
    if style == "nothing":
        return
    colours = group_colours(layout)
    for face in faces:
        side = float(np.sqrt(np.prod(face.box[2:] - face.box[:2])))
        width = max(1, round(side / 300))
        pen = Pen(max(1.0, side / 130), width if style == "edges" else 0)
        draw(image, face.landmarks, layout, colours, face.scores < UNCERTAIN, pen)
        if style == "numbers":
            draw_numbers(image, face.landmarks, layout, colours, size=max(0.3, side / 900))
        x1, y1, x2, y2 = face.box
        dx, dy = (face.box[2:] - face.box[:2]) / 5
        for x, y, right, down in ((x1, y1, dx, dy), (x2, y1, -dx, dy), (x1, y2, dx, -dy), (x2, y2, -dx, -dy)):
            for end in ((x + right, y), (x, y + down)):
                draw_line(image, np.array((x, y)), np.array(end), WHITE, width)
        draw_label(image, face, side)


def draw_label(image: np.ndarray, face: Face, side: float) -> None:
    """Write id, score, pose, states and drowsiness above the box, or below it where there is no room, inside the
    picture.
    """
    words = [f"#{face.id}"] if face.id is not None else []
    words += [f"{face.score:.2f}"] if np.isfinite(face.score) else []
    lines = [" ".join(words)] if words else []
    if face.pose is not None and np.isfinite(face.pose).all():
        lines.append("pitch {:+.0f} yaw {:+.0f} roll {:+.0f}".format(*face.pose))
    if likely := [name.replace("_", " ") for name, value in (face.states or {}).items() if value > 0.5]:
        lines.append(", ".join(likely))
    if face.drowsiness:
        lines.append("eyes {open:.0%} blinks {blinks} yawns {yawns}".format(**face.drowsiness))
    if not lines:
        return
    size = float(np.clip(side / 400, 0.4, 3))
    step, (height, width) = round(26 * size) + 4, image.shape[:2]
    across = max(cv2.getTextSize(text, FONT, size, 1)[0][0] for text in lines)
    rest = 6 + step * (len(lines) - 1)
    x, top = max(1, min(round(face.box[0]), width - across - 2)), round(face.box[1]) - rest
    if top < step:
        top = min(round(face.box[3]) + step, height - rest)
    for row, text in enumerate(lines):
        draw_text(image, text, (x, top + row * step), size)


class Panel:
    """Frames per second and the time of each stage, smoothed over about a second."""

    def __init__(self):
        self.fps, self.stages = 0.0, {}

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


def alarm(image: np.ndarray, faces: list[Face]) -> None:
    """Draw a red frame round the picture, with the reason at the bottom, if a face is drowsy."""
    drowsy = next((face.drowsiness for face in faces if face.drowsiness and face.drowsiness["alarm"]), None)
    if drowsy is None:
        return
    text = (
        "EYES CLOSED"
        if drowsy["alarm"] == "eyes closed"
        else f"DROWSY: eyes closed {drowsy['perclos']:.0%} of the time"
    )
    height, width = image.shape[:2]
    edge = max(2, min(width, height) // 60)
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), (40, 40, 230), edge)
    size = float(np.clip(width / 900, 0.4, 3))
    across = cv2.getTextSize(text, FONT, size, 1)[0][0]
    draw_text(image, text, ((width - across) // 2, height - 3 * edge), size, (80, 80, 255))
