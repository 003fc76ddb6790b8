"""The list and the sheet of suspicious labels, of --show-data and --audit."""

from pathlib import Path

import numpy as np

from extras.tools.label_check import FEWEST, Finding
from pipnet.draw import FOUND, RED, WHITE, draw_circle, draw_line, draw_numbers, draw_text, group_colours, sheet, tile
from pipnet.geometry import to_crop
from pipnet.images import write_image
from pipnet.layout import Layout
from utils.data.faces import Faces
from utils.evaluate.tables import markdown_table
from utils.settings.csv_files import write_csv

HEADER = ["file", "why", "landmarks", "score"]
LISTED, PICTURED, COLUMNS, SIZE = 10, 20, 5, 384  # faces in the printed table, in the sheet, in its rows; px of a tile


def write_suspects(
    table: Path,
    picture: Path,
    faces: Faces,
    findings: list[Finding],
    layout: Layout,
    found: np.ndarray | None = None,
    more: dict[str, list] | None = None,
) -> str:
    """Write a table of findings about faces, and a picture of the worst. Return the number of alarms and the worst, as text.

    found: where a net sees the landmarks of the layout (M, N, 2), px of the source images. more: further columns, with a
    value for each face.
    """
    more, files = more or {}, list(faces["file"])
    rows = [[files[one.face], one.reason, " ".join(map(str, one.landmarks)), f"{one.score:.1f}"] for one in findings]
    further = [[column[one.face] for column in more.values()] for one in findings]
    write_csv(table, [*HEADER, *more], [row + rest for row, rest in zip(rows, further, strict=True)])
    picture.unlink(missing_ok=True)
    if tiles := [_suspect(faces, one, layout, found) for one in findings[:PICTURED]]:
        write_image(picture, sheet(tiles, COLUMNS))
    alarms = sum(one.score >= 1 for one in findings)
    few = f" (labels are compared from {FEWEST} faces on)" if len(faces) < FEWEST else ""
    text = f"{alarms} of {len(faces)} training and validation labels are suspicious{few}"
    for row in rows:
        row[2] = row[2] if len(row[2]) <= 24 else f"{row[2][:24].rsplit(' ', 1)[0]} ..."
    return f"{text}\n{markdown_table(rows[: min(alarms, LISTED)], HEADER)}" if alarms else text


def _suspect(faces: Faces, finding: Finding, layout: Layout, found: np.ndarray | None) -> np.ndarray:
    """Draw a suspicious face. Landmarks in doubt are ringed and numbered; a red point is where the net sees them."""
    whole, row = faces.crop(finding.face), faces.row(finding.face)

    def place(points: np.ndarray) -> np.ndarray:
        return (points * faces.geometry.size + faces.geometry.border) / len(whole)

    landmarks = place(row["nominal"])
    picture = tile(whole, [(landmarks, group_colours(layout))], layout, SIZE, "")
    seen = None if found is None else place(to_crop(found[finding.face], row["crop"]))
    for i in finding.landmarks:
        if np.isfinite(landmarks[i]).all():
            draw_circle(picture, landmarks[i] * SIZE, RED, 6)
            if seen is not None:
                draw_line(picture, landmarks[i] * SIZE, seen[i] * SIZE, WHITE)
                draw_circle(picture, seen[i] * SIZE, FOUND, 2)
    draw_numbers(picture, landmarks * SIZE, layout, [WHITE] * layout.count, finding.landmarks[:12])
    draw_text(picture, f"{finding.score:.1f}  {Path(row['file']).name}", (4, SIZE - 22), 0.42)
    draw_text(picture, finding.reason, (4, SIZE - 6), 0.42)
    return picture
