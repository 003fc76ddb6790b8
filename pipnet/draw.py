"""Drawing of faces and landmarks: points, edges, numbers, labels, tiles and sheets of tiles."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np

from pipnet.errors import UserError
from pipnet.face import Face
from pipnet.layout import Layout

Style = Literal["edges", "points", "numbers", "nothing"]  # in the order in which key d goes through them
STYLES = get_args(Style)
Colour = tuple[int, int, int]  # BGR
UNCERTAIN = 0.4  # score below which a landmark is drawn hollow
FONT = cv2.FONT_HERSHEY_SIMPLEX
WHITE, BLACK, RED, GREY = (255, 255, 255), (0, 0, 0), (60, 60, 255), (160, 160, 160)  # BGR
TRUTH, FOUND = (80, 220, 80), RED  # of labels and of predictions
FARTHEST = 1e6  # px; OpenCV cannot draw at places far beyond this, where a diverged net may put a landmark
DENSE = 68  # landmarks; points of sparser layouts are larger, up to twice as large, since few or no edges join them


class Pen(NamedTuple):
    """Sizes in px: radius of points (None: by the height of the image), width of edges (0: no edges)."""

    radius: float | None = None
    width: int = 1


PEN = Pen()


def palette(count: int) -> list[Colour]:
    """Return `count` bright BGR colours; neighbours in the list differ much."""
    hues = (np.arange(count) * 0.381966 % 1 * 180).astype(np.uint8)
    return [
        tuple(cv2.cvtColor(np.array([[(hue, 150, 255)]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0].tolist()) for hue in hues
    ]


def group_colours(layout: Layout) -> list[Colour]:
    """Return the BGR colour of each landmark: that of its group as it is drawn, white without a group."""
    colours, groups = [WHITE] * layout.count, layout.drawn_groups()
    for group, colour in zip(groups.values(), palette(len(groups)), strict=True):
        for i in group:
            colours[i] = colour
    return colours


def _fixed(points: np.ndarray) -> np.ndarray:
    """Return continuous px as OpenCV's drawing functions take them with shift=4: in 1/16 px, counted from a pixel's
    centre.
    """
    return np.asarray(np.round((np.clip(points, -FARTHEST, FARTHEST) - 0.5) * 16), int)


def draw(
    image: np.ndarray,
    landmarks: np.ndarray,
    layout: Layout,
    colour: Sequence[Any],
    hollow: np.ndarray | None = None,
    pen: Pen = PEN,
) -> None:
    """Draw points and edges of landmarks (N, 2), continuous px, into `image`. Landmarks that are NaN are left out.

    colour: BGR, or one for each landmark. hollow (N,) bool: points drawn as rings.
    """
    known = np.isfinite(landmarks).all(1)
    places = _fixed(np.where(known[:, None], landmarks, 0)).tolist()
    colours = np.broadcast_to(colour, (len(landmarks), 3)).tolist()
    size = max(24, len(image) // 10) if pen.radius is None else round(pen.radius * 16)
    size = round(size * np.clip(np.sqrt(DENSE / len(landmarks)), 1, 2))
    for a, b in layout.edges() if pen.width else ():
        if known[a] and known[b]:
            cv2.line(image, places[a], places[b], colours[a], pen.width, cv2.LINE_AA, 4)
    for i in np.flatnonzero(known):
        if hollow is not None and hollow[i]:
            cv2.circle(image, places[i], round(size * 1.6), colours[i], max(1, pen.width), cv2.LINE_AA, 4)
        else:
            cv2.circle(image, places[i], size, colours[i], -1, cv2.LINE_AA, 4)


def draw_line(image: np.ndarray, start: np.ndarray, end: np.ndarray, colour: Colour, width: int = 1) -> None:
    """Draw a line between two points (2,) in continuous px."""
    cv2.line(image, _fixed(start).tolist(), _fixed(end).tolist(), colour, width, cv2.LINE_AA, 4)


def draw_circle(image: np.ndarray, point: np.ndarray, colour: Colour, radius: float) -> None:
    """Draw a circle of `radius` px around a point (2,) in continuous px."""
    cv2.circle(image, _fixed(point).tolist(), round(radius * 16), colour, 1, cv2.LINE_AA, 4)


def draw_text(
    image: np.ndarray, text: str, corner: tuple[int, int], size: float = 0.45, colour: Colour = WHITE
) -> None:
    """Write a line of text with a dark outline; its lower left corner is at `corner`, px."""
    text = text.encode(errors="replace").decode()  # of a name that is not UTF-8, at which OpenCV would end the process
    around = [(x, y, BLACK) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y]
    for x, y, shade in (*around, (0, 0, colour)):  # thicker strokes would be wider letters
        cv2.putText(image, text, (corner[0] + x, corner[1] + y), FONT, size, shade, 1, cv2.LINE_AA)


def draw_numbers(
    image: np.ndarray,
    landmarks: np.ndarray,
    layout: Layout,
    colours: list[Colour],
    which: Iterable[int] | None = None,
    size: float = 0.4,
) -> None:
    """Write the number of each landmark (N, 2), continuous px, beside it, on the side away from the middle of its
    group.

    colours: BGR, one for each landmark. which: the landmarks to number; None: all.
    """
    known, landmarks = np.isfinite(landmarks).all(1), np.clip(landmarks, -FARTHEST, FARTHEST)
    rings = [[i for i in group if known[i]] for name, group in layout.groups.items() if name in layout.closed]
    middles = {i: landmarks[ring].mean(0) for ring in rings for i in ring}
    for i in range(len(landmarks)) if which is None else which:
        if not known[i]:
            continue
        away = landmarks[i] - middles.get(i, landmarks[known].mean(0))
        away = away / max(np.linalg.norm(away), 1e-6)
        (width, height), _ = cv2.getTextSize(str(i), FONT, size, 1)
        centre = landmarks[i] + away * (np.abs(away) @ (width, height) / 2 + 5)
        draw_text(image, str(i), (round(centre[0] - width / 2), round(centre[1] + height / 2)), size, colours[i])


def draw_faces(image: np.ndarray, faces: list[Face], layout: Layout, style: Style = "edges") -> None:
    """Draw landmarks, corners of the boxes, labels and the alarm into `image`. Sizes are proportional to the face.

    style: one of STYLES; with "nothing", only an alarm is drawn. UserError for others.
    """
    if style not in STYLES:
        raise UserError(f"there is no style {style!r} of drawing; take one of {', '.join(STYLES)}")
    colours = group_colours(layout)
    for face in faces if style != "nothing" else ():
        side = float(np.sqrt(np.prod(face.box[2:] - face.box[:2])))
        width = max(1, round(side / 300))
        pen = Pen(max(1.0, side / 130), width if style == "edges" else 0)
        hollow = face.scores < UNCERTAIN if face.visible is None else face.visible < 0.5
        draw(image, face.landmarks, layout, colours, hollow, pen)
        if style == "numbers" or (pen.width and not layout.edges()):
            draw_numbers(image, face.landmarks, layout, colours, size=max(0.3, side / 900))
        x1, y1, x2, y2 = face.box
        dx, dy = (face.box[2:] - face.box[:2]) / 5
        for x, y, right, down in ((x1, y1, dx, dy), (x2, y1, -dx, dy), (x1, y2, dx, -dy), (x2, y2, -dx, -dy)):
            for end in ((x + right, y), (x, y + down)):
                draw_line(image, np.array((x, y)), np.array(end), WHITE, width)
        draw_label(image, face, side)
    draw_alarm(image, faces)


def draw_label(image: np.ndarray, face: Face, side: float) -> None:
    """Write id, score, pose, states and drowsiness above the box, or below it where there is no room, inside the
    picture.
    """
    words = [f"#{face.id}"] if face.id is not None else []
    words += [f"{face.score:.2f}"] if np.isfinite(face.score) else []
    lines = [" ".join(words)] if words else []
    if face.pose is not None and np.isfinite(face.pose).all():
        lines.append("pitch {:+.0f} yaw {:+.0f} roll {:+.0f}".format(*face.pose))
    if likely := [name.replace("_", " ") for name, value in face.states.items() if value > 0.5]:
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


def draw_alarm(image: np.ndarray, faces: list[Face]) -> None:
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


def tile(
    crop: np.ndarray, drawn: Sequence[tuple[np.ndarray, Sequence[Any]]], layout: Layout, size: int, title: str = ""
) -> np.ndarray:
    """Return a crop as an image (size, size, 3) with landmarks [((N, 2) in [0, 1], BGR)] and a title in a lower corner."""
    image = cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC if size > len(crop) else cv2.INTER_AREA)
    for landmarks, colour in drawn:
        draw(image, landmarks * size, layout, colour)
    draw_text(image, title, (4, size - 6))
    return image


def sheet(tiles: list[np.ndarray], columns: int) -> np.ndarray:
    """Return one image of tiles of equal size, in rows of `columns`."""
    tiles = tiles + [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.concatenate([np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)])
