"""Charts as SVG text, without a plotting package.

They are part of a page, follow the reader's light or dark scheme and name the landmark under the pointer. A chart takes
a few kB and a millisecond.
"""

import math
from html import escape
from typing import NamedTuple

import numpy as np

from pipnet.layout import Layout

WIDTH, HEIGHT, LINE = 480, 260, 16  # px: the picture, the axes of a chart, a line of its names
LEFT, BOTTOM, TOP, RIGHT = 56, 44, 16, 16  # px around the axes
COLOURS = ("#2f6fde", "#d1492e", "#2c9c5a", "#9a5bd0", "#c98a1b", "#5b7d8c", "#c2417f")
STYLE = (
    "<style>svg{background:#fff;color:#222;font:13px system-ui,sans-serif}text{fill:currentColor}.grid{stroke:currentColor;"
    "opacity:.15}@media(prefers-color-scheme:dark){svg{background:#16181c;color:#ddd}text[style]{filter:brightness(1.4)}}"
    "</style>"
)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return about `about` round numbers that cover `low` to `high`."""
    high = high if high > low else low + 1
    raw = (high - low) / about
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, last + 1)]


class Style(NamedTuple):
    """Options of a chart."""

    diagonal: bool = False  # draw y = x, for predicted against true values
    dots: bool = False  # mark the points
    top: float = 0  # value that the y axis reaches at least


PLAIN = Style()


def _document(height: int, lines: list[str]) -> str:
    """Return elements as an SVG document of WIDTH x height px."""
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">{STYLE}'
    return "\n".join([start, *lines, "</svg>\n"])


def chart(series: dict[str, tuple[np.ndarray, np.ndarray]], x_title: str, y_title: str, style: Style = PLAIN) -> str:
    """Return lines {name: (x, y)} as an SVG document.
    Points that are not finite are left out; ValueError if none is left.

    The names stand above the axes, so they cover no line; those of single dots stand beside these.
    """
    kept = {}
    for name, (x, y) in series.items():
        points = np.column_stack([x, y]).astype(float)
        kept[name] = points[np.isfinite(points).all(1)]
    every = np.concatenate(list(kept.values()))
    if not len(every):
        raise ValueError("a chart needs a point that is finite")
    (left, low), (right, high) = np.minimum(every.min(0), 0), every.max(0)
    across, up = ticks(left, right), ticks(low, max(high, style.top))
    single = style.dots and all(len(points) == 1 for points in kept.values())
    top = TOP if single else TOP + LINE * len(kept)
    base = top + HEIGHT

    def place(x, y) -> tuple[float, float]:
        return (
            LEFT + (x - across[0]) / (across[-1] - across[0]) * (WIDTH - LEFT - RIGHT),
            base - (y - up[0]) / (up[-1] - up[0]) * HEIGHT,
        )

    lines = []
    for value in across:
        px = place(value, up[0])[0]
        lines.append(
            f'<path class="grid" d="M{px:.1f} {top}V{base}"/>'
            f'<text x="{px:.1f}" y="{base + 16}" text-anchor="middle">{value:g}</text>'
        )
    for value in up:
        px = place(across[0], value)[1]
        lines.append(
            f'<path class="grid" d="M{LEFT} {px:.1f}H{WIDTH - RIGHT}"/>'
            f'<text x="{LEFT - 6}" y="{px + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    if style.diagonal:
        path = "L".join("{:.1f} {:.1f}".format(*place(value, value)) for value in (0, min(across[-1], up[-1])))
        lines.append(f'<path d="M{path}" stroke="currentColor" stroke-dasharray="4 4" opacity=".5"/>')
    names = [(float(LEFT), float(TOP + LINE * number)) for number in range(len(kept))]
    if single:
        names = beside_dots([place(*points[0]) for points in kept.values()], [7 * len(name) for name in kept])
    for number, (name, points) in enumerate(kept.items()):
        colour, placed = COLOURS[number % len(COLOURS)], [place(*point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        lines.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>'
        )
        if style.dots:
            lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        x, y = names[number]
        lines.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" style="fill:{colour}">{escape(name)}</text>')
    lines.append(
        f'<text x="{(WIDTH + LEFT - RIGHT) / 2}" y="{base + BOTTOM - 6}" text-anchor="middle">{escape(x_title)}</text>'
    )
    middle = (base + top) / 2
    lines.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y_title)}</text>'
    )
    return _document(base + BOTTOM, lines)


def beside_dots(dots: list[tuple[float, float]], widths: list[float]) -> list[tuple[float, float]]:
    """Return the left middle of a name beside each dot, px, where it covers no earlier name, no dot and no edge, if there is
    such a place. widths: of the names.
    """
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in dots]
    found = []
    for (x, y), width in zip(dots, widths, strict=True):
        ways = [
            (x + 8, y),
            (x - 8 - width, y),
            *((x - width * share, y + up) for up in (-14, 14) for share in (0, 0.5, 1)),
        ]
        boxes = [(left, middle - 7, left + width, middle + 7) for left, middle in ways]
        free = (
            box
            for box in boxes
            if LEFT < box[0]
            and box[2] < WIDTH - RIGHT
            and not any(box[0] < c and a < box[2] and box[1] < d and b < box[3] for a, b, c, d in taken)
        )
        box = next(free, boxes[0])
        taken.append(box)
        found.append((box[0], box[1] + 7))
    return found


def bars(rows: list[tuple[str, float, str]], unit: str) -> str:
    """Return rows (name, value, note) as horizontal bars in an SVG document; a value that is not finite has no bar."""
    names = LEFT + 7 * max(len(name) for name, _, _ in rows) - 30
    most = max([value for _, value, _ in rows if math.isfinite(value)], default=0) or 1
    room, step, height = WIDTH - names - 150, 26, 26 * len(rows) + 8
    lines = []
    for number, (name, value, note) in enumerate(rows):
        y, known = 4 + step * number, math.isfinite(value)
        length = room * value / most if known else 0
        lines.append(
            f'<text x="{names - 8}" y="{y + 17}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{names}" y="{y + 3}" width="{length:.1f}" height="{step - 6}" rx="2" fill="{COLOURS[0]}"/>'
            f'<text x="{names + length + 6:.1f}" y="{y + 17}">{f"{value:.2f} {unit}" if known else "unknown"}'
            f'<tspan opacity=".65">  {escape(note)}</tspan></text>'
        )
    return _document(height, lines)


def face_map(points: np.ndarray, values: np.ndarray, layout: Layout, unit: str) -> str:
    """Return values (N,) as discs at points (N, 2) of a layout, as an SVG document.
    Larger values are larger and redder.
    """
    low, high = np.nanmin(points, 0), np.nanmax(points, 0)
    scale = (WIDTH - 80) / max((high - low).max(), 1e-9)
    placed = (points - low) * scale + 40 + (WIDTH - 80 - (high - low) * scale) / 2 * (1, 0)
    height = round((high - low)[1] * scale + 110)
    most = np.nanmax(values, initial=0) or 1

    def disc(x: float, y: float, value: float) -> str:
        share = value / most
        return (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 + 11 * share:.1f}" fill="hsl({215 - 210 * share:.0f} 75% 50%)" '
            'fill-opacity=".8"'
        )

    lines = []
    for a, b in (pair for pair in layout.edges() if np.isfinite(placed[list(pair)]).all()):
        ends = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed[[a, b]])
        lines.append(f'<path d="M{ends}" stroke="currentColor" opacity=".35"/>')
    names = layout.point_names()
    for number in np.argsort(-np.nan_to_num(values)):  # draw small discs over large ones
        value = values[number]
        if math.isfinite(value):
            lines.append(
                f"{disc(*placed[number], value)}><title>{escape(names[number])}: {value:.2f} {unit}</title></circle>"
            )
    for number, share in enumerate((0.25, 0.5, 1.0)):
        x = WIDTH / 2 + (number - 1) * 130 - 30
        lines.append(
            f"{disc(x, height - 24, most * share)}/>"
            f'<text x="{x + 20}" y="{height - 20}">{most * share:.2f} {unit}</text>'
        )
    return _document(height, lines)
