"""A user's own annotation as a CSV: a line per face."""

import csv
import re
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np

from extras.datasets.archive import Archive
from extras.datasets.listed import SLOW, find_image, places_of, split_files
from extras.shared.lists import decoded, floats
from extras.shared.pts import FIRST_PIXEL
from pipnet.errors import UserError
from pipnet.files import read_bytes, unreadable
from utils.settings.csv_files import from_cell
from utils.settings.layouts import normalised
from utils.settings.progress import progress

IDENTITY = "identity"
OTHER_COLUMNS = (IDENTITY, FIRST_PIXEL)  # beside the file and the points
NAME = re.compile(r"(?:(.+?)[ _.-]?x|x[ _.-]?(.+))", re.IGNORECASE)  # of a point, in the header of its x


class Columns(NamedTuple):
    """Places of the columns of a CSV, and the names of its points."""

    file: int
    others: dict[str, int]
    points: list[int]
    names: list[str]


def parse_csv(archive: Archive) -> None:
    """Add the faces of CSV files: a header `file,x0,y0,x1,y1,...`, or with names `file,nose_x,nose_y,...`, then a line
    per face. Other columns: `identity` of the person or clip, and `first_pixel`, see `Archive.counted`.

    The columns `file`, `identity` and `first_pixel` may be anywhere. Two empty or nan cells are a landmark that is not
    annotated. Images are beside the file, below the folder or its images/.
    """
    for split, file in split_files(archive, ("*.csv",), "CSV"):
        rows, encoding, decimal = _read_rows(file)
        if encoding != "utf-8":
            archive.notes.append(f"{file} is not UTF-8; it is read as {encoding}")
        header = [cell.strip() for cell in rows[0][1]] if rows else []
        columns = _columns(header, f"{file}, line 1")
        for number, row in progress(rows[1:], desc=file.name, unit="face", delay=SLOW):
            where = f"{file}, line {number}"
            with archive.checked():
                if len(row) != len(header):
                    raise UserError(f"{where}: {len(row)} cells where the header has {len(header)}")
                points = _points([row[place] for place in columns.points], decimal, where)
                others = {name: from_cell(row[place].strip()) for name, place in columns.others.items()}
                points = points[places_of(archive, columns.names, where)]
                first = others.get(FIRST_PIXEL, "").replace(decimal, ".")
                points = archive.counted(points, first or None, where)
                names = _spellings(from_cell(row[columns.file].strip()), encoding)
                image = find_image(archive, names, file, where, split)
                archive.add_own(split, image, points, where, others.get(IDENTITY, ""))


def _spellings(name: str, encoding: str) -> list[str]:
    """Return the names that a picture of a table in that encoding may have on the disk: also with the table's bytes."""
    if encoding != "cp1252":
        return [name]
    return [name, name.encode(encoding, "surrogateescape").decode("utf-8", "surrogateescape")]


def _read_rows(file: Path) -> tuple[list[tuple[int, list[str]]], str, str]:
    """Return (number of the line, cells) of the lines of a CSV file that are not blank, its encoding, and the mark before
    the decimals of its numbers. Blank cells beyond the last column are left out, as of a comma that ends each line.

    Spreadsheets separate cells by semicolons where the comma is in numbers, and by tabs in UTF-16. UserError for
    another file.
    """
    try:
        text, encoding = decoded(read_bytes(file))
        lines = text.splitlines()
        first = next(filter(str.strip, lines), "")
        mark = next((mark for mark in ",;\t" if mark in first), ",")
        rows = [
            (number, row) for number, row in enumerate(csv.reader(lines, delimiter=mark), 1) if any(map(str.strip, row))
        ]
    except OSError as error:
        raise unreadable(file, error) from None
    except csv.Error as error:
        raise UserError(f"{file}: not a CSV file ({error})") from None
    decimal = "." if mark == "," else ","
    width = max((place for place, name in enumerate(rows[0][1], 1) if name.strip()), default=0) if rows else 0
    rows = [(number, row if any(map(str.strip, row[width:])) else row[:width]) for number, row in rows]
    return rows, encoding, decimal


def _columns(header: list[str], where: str) -> Columns:
    """Return the columns of a CSV; points without names have their numbers. Raise UserError for another header."""
    low = [cell.lower() for cell in header]
    file = low.index("file") if "file" in low else 0
    others = {name: place for place, name in enumerate(low) if place != file and name in OTHER_COLUMNS}
    points = [place for place in range(len(header)) if place not in (file, *others.values())]
    cells = [header[place] for place in points]
    numbers = list(map(str, range(len(cells) // 2)))
    names = [next(filter(None, match.groups())) for x in cells[::2] if (match := NAME.fullmatch(x))]
    if [cell.lower() for cell in cells] == [f"{axis}{i}" for i in numbers for axis in "xy"]:
        names = numbers
    elif any(name.isdecimal() for name in names):
        names = []
    odd = _odd_column(cells)
    distinct = len(set(map(normalised, names))) == len(cells) // 2
    if odd is not None or "file" not in low or not names or not distinct:
        column = f"the column {odd[:40]!r} is" if odd and "file" in low else f"'{','.join(low)[:40]}' is"
        raise UserError(
            f"{where}: {column} not as in the header file,x0,y0,x1,y1,..., or with names of points file,nose_x,nose_y,...; "
            f"there may be columns {' and '.join(OTHER_COLUMNS)} too; remove others"
        )
    return Columns(file, others, points, names)


def _odd_column(cells: list[str]) -> str | None:
    """Return the first column that is not of an x with its y behind it; None if there is none."""
    for x, y in zip_longest(cells[::2], cells[1::2], fillvalue=""):
        same = x != y and re.sub("[xX]", "y", x) == re.sub("[xXY]", "y", y)
        if not (same and NAME.fullmatch(x)):
            return x
    return None


def _points(cells: list[str], decimal: str, where: str) -> np.ndarray:
    """Return the points (N, 2) of a line's cells. decimal: the mark before the decimals of a number."""
    try:
        points = floats(cell.strip().replace(decimal, ".") or "nan" for cell in cells).reshape(-1, 2)
    except ValueError:
        raise UserError(f"{where}: a cell is not a number") from None
    if (np.abs(points) >= 1e9).any():
        raise UserError(f"{where}: not a coordinate where one belongs")
    if (np.isnan(points).sum(axis=1) == 1).any():
        raise UserError(f"{where}: one coordinate of a point is missing and the other is not")
    return points
