"""The .pts text format of 300W and related sets."""

import re
from pathlib import Path

import numpy as np

from extras.shared.lists import numbered
from pipnet.errors import UserError

FIRST_PIXEL = "first_pixel"  # what a .pts, CSV or COCO file calls the coordinate of the first pixel's centre
ORIGIN = 0.0  # that coordinate in files of a user that do not state it, without --first-pixel
# what to do with labels of another layout than --layout; prepared sets are converted, raw ones are not
OTHER_LAYOUT = "choose the layout of that number, or --prepare the set without --layout first, then give data/NAME"

HEADER = {
    r"version:\d[\d.]*?(first_pixel:(?:0|0\.5|1))?": "version: 1",
    r"n_points:(\d{1,18})": "n_points: N",
    r"\{": "{",
}  # {pattern: what it means}
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?|nan", re.ASCII)


def read_pts(file: Path, count: int | None = None) -> np.ndarray:
    """Return the landmarks (N, 2) float64 of a .pts file in its own origin, see `read_counted_pts`."""
    return read_counted_pts(file, count)[0]


def read_counted_pts(file: Path, count: int | None = None) -> tuple[np.ndarray, str | None]:
    """Return the landmarks (N, 2) float64 of a .pts file in its own origin, NaN where it says nan, and the coordinate of
    the first pixel's centre that it states, None if it states none.

    Format: `version: 1`, perhaps `first_pixel: 0` in the same line, `n_points: N`, `{`, N lines `x y`, `}`. Raise
    UserError, with file and line, for other contents, and for N other than `count`.
    """
    rows = [(where, line.split()) for where, line in numbered(file, errors="replace")]
    if len(rows) < 3:
        raise UserError(f"{file}: not a .pts file; it must begin with the lines 'version: 1', 'n_points: N' and '{{'")
    for (where, words), (pattern, wanted) in zip(rows, HEADER.items(), strict=False):
        text = "".join(words)
        if not re.fullmatch(pattern, text, re.ASCII):
            raise UserError(f"{where}: '{text[:40]}' where '{wanted}' belongs")
    promised = int("".join(rows[1][1]).split(":")[1])
    end = next((i for i, (_, words) in enumerate(rows) if words == ["}"]), None)
    if end is None:
        raise UserError(f"{rows[-1][0]}: the closing brace is missing; the file may be cut short")
    if end + 1 < len(rows):
        raise UserError(f"{rows[end + 1][0]}: text after the closing brace")
    for where, words in rows[3:end]:
        if len(words) != 2:
            raise UserError(f"{where}: {len(words)} values where 'x y' belongs")
        for word in words:
            if not NUMBER.fullmatch(word) or abs(float(word)) >= 1e9:
                raise UserError(f"{where}: '{word[:40]}' is not a coordinate")
    if end - 3 != promised:
        raise UserError(f"{file}: n_points says {promised}, but {end - 3} points follow")
    landmarks = np.array([words for _, words in rows[3:end]], dtype=np.float64).reshape(-1, 2)
    half = np.flatnonzero(np.isnan(landmarks).sum(axis=1) == 1)
    if len(half):
        raise UserError(f"{rows[3 + half[0]][0]}: one coordinate is nan and the other is not")
    if count is not None and promised != count:
        raise UserError(f"{file}: {promised} points where {count} are expected; correct it, or {OTHER_LAYOUT}")
    return landmarks, "".join(rows[0][1]).partition("first_pixel:")[2] or None


def write_pts(file: Path, landmarks: np.ndarray, first_pixel: float | None = None) -> None:
    """Write landmarks (N, 2) as a .pts file without shifting them; `read_pts` returns them to 1e-6.

    first_pixel: coordinate of the first pixel's centre, which the file then states. It stands in the line of the version,
    which other programs skip.
    """
    first = "" if first_pixel is None else f" first_pixel: {first_pixel:g}"
    rows = "".join(f"{x:.6f} {y:.6f}\n" for x, y in np.asarray(landmarks, dtype=np.float64).tolist())
    Path(file).write_text(f"version: 1{first}\nn_points:  {len(landmarks)}\n{{\n{rows}}}\n", encoding="ascii")
