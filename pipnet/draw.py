"""Faces with their landmarks as pictures: points, edges, numbers, tiles, sheets."""
from pathlib import Path

import cv2
import numpy as np

from pipnet.errors import UserError
from pipnet.files import write_atomic
from pipnet.layout import Layout

WHITE, BLACK, RED, GREY = (255, 255, 255), (0, 0, 0), (60, 60, 255), (160, 160, 160)  # BGR


def palette(count: int) -> list[tuple[int, int, int]]:
    """`count` bright BGR colours, neighbors well apart."""
    hues = (np.arange(count) * 0.381966 % 1 * 180).astype(np.uint8)
    return [tuple(cv2.cvtColor(np.uint8([[(hue, 150, 255)]]), cv2.COLOR_HSV2BGR)[0, 0].tolist()) for hue in hues]


def part_colours(layout: Layout) -> list[tuple[int, int, int]]:
    """A BGR colour for each landmark: that of its part, white where it has none."""
    colours = [WHITE] * layout.count
    for part, colour in zip(layout.groups.values(), palette(len(layout.groups)), strict=True):
        for i in part:
            colours[i] = colour
    return colours


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.round((points - 0.5) * 16).astype(int)  # OpenCV draws at 1/16 px, integers are pixel centres


def draw(image: np.ndarray, landmarks: np.ndarray, layout: Layout, colour, radius: float | None = None,
         hollow: np.ndarray | None = None, width: int = 1) -> None:
    """Points and edges of landmarks (N, 2) in continuous px of `image`, drawn into it, anti-aliased; colour: BGR, or one each.

    radius of the points and width of the edges (0: none) in px; hollow: (N,) bool, points drawn as rings.
    """
    known = np.isfinite(landmarks).all(1)
    fixed = _fixed(np.where(known[:, None], landmarks, 0))
    colours = np.broadcast_to(colour, (len(landmarks), 3)).tolist()
    size = max(24, len(image) // 10) if radius is None else round(radius * 16)
    for a, b in layout.edges() if width else ():
        if known[a] and known[b]:
            cv2.line(image, fixed[a].tolist(), fixed[b].tolist(), colours[a], width, cv2.LINE_AA, 4)
    for i in np.flatnonzero(known):
        if hollow is not None and hollow[i]:
            cv2.circle(image, fixed[i].tolist(), round(size * 1.6), colours[i], max(1, width), cv2.LINE_AA, 4)
        else:
            cv2.circle(image, fixed[i].tolist(), size, colours[i], -1, cv2.LINE_AA, 4)


def line(image: np.ndarray, start: np.ndarray, end: np.ndarray, colour: tuple) -> None:
    """A line between two points (2,) in continuous px of `image`."""
    cv2.line(image, _fixed(start).tolist(), _fixed(end).tolist(), colour, 1, cv2.LINE_AA, 4)


def ring(image: np.ndarray, point: np.ndarray, colour: tuple, radius: float) -> None:
    """A circle of `radius` px round a point (2,) in continuous px of `image`."""
    cv2.circle(image, _fixed(point).tolist(), round(radius * 16), colour, 1, cv2.LINE_AA, 4)


def write(image: np.ndarray, text: str, corner: tuple[int, int], size: float = 0.45, colour: tuple = WHITE) -> None:
    """A line of text with its left lower corner at `corner` px, dark round the letters."""
    around = [(x, y, BLACK) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y]
    for x, y, shade in (*around, (0, 0, colour)):  # thicker strokes would be wider letters
        cv2.putText(image, text, (corner[0] + x, corner[1] + y), cv2.FONT_HERSHEY_SIMPLEX, size, shade, 1, cv2.LINE_AA)


def number(image: np.ndarray, landmarks: np.ndarray, layout: Layout, colours: list[tuple], which=None, size: float = 0.4) -> None:
    """Writes the numbers of landmarks (N, 2), in px of `image`, beside them: away from the middle of their part."""
    known = np.isfinite(landmarks).all(1)
    rings = [[i for i in part if known[i]] for name, part in layout.groups.items() if name in layout.closed]
    middles = {i: landmarks[ring].mean(0) for ring in rings for i in ring}
    for i in range(len(landmarks)) if which is None else which:
        if not known[i]:
            continue
        away = landmarks[i] - middles.get(i, landmarks[known].mean(0))
        away = away / max(np.linalg.norm(away), 1e-6)
        (width, height), _ = cv2.getTextSize(str(i), cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        centre = landmarks[i] + away * (np.abs(away) @ (width, height) / 2 + 5)
        write(image, str(i), (round(centre[0] - width / 2), round(centre[1] + height / 2)), size, colours[i])


def tile(crop: np.ndarray, drawn: list[tuple[np.ndarray, tuple]], layout: Layout, size: int, title: str = "") -> np.ndarray:
    """(size, size, 3): a crop with landmarks [(N, 2) in [0, 1], BGR] and a title in its corner."""
    image = cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC if size > len(crop) else cv2.INTER_AREA)
    for landmarks, colour in drawn:
        draw(image, landmarks * size, layout, colour)
    write(image, title, (4, size - 6))
    return image


def sheet(tiles: list[np.ndarray], columns: int) -> np.ndarray:
    """Tiles of one size in rows."""
    blank = np.zeros_like(tiles[0])
    tiles = tiles + [blank] * (-len(tiles) % columns)
    return np.concatenate([np.concatenate(tiles[i:i + columns], 1) for i in range(0, len(tiles), columns)])


def write_image(file: Path, image: np.ndarray) -> None:
    """A whole picture or the old one. UserError where its format has no room for it."""
    fits, data = cv2.imencode(file.suffix, image)
    if not fits:
        size = f"{image.shape[1]} x {image.shape[0]}"
        raise UserError(f"{file}: a {file.suffix} cannot hold {size} px; give a name that ends in .png")
    write_atomic(file, lambda path: path.write_bytes(data.tobytes()))
