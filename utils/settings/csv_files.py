"""CSV files, which spreadsheets may open."""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipnet.errors import UserError
from pipnet.files import write_text

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet takes text that begins with these for a formula


def read_csv(file: Path, numbers: Iterable[str] = (), texts: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return the rows of a CSV file with a header, [] without a file. The rest is as in `each_row`."""
    return list(each_row(file, numbers, texts)) if file.is_file() else []


def each_row(file: Path, numbers: Iterable[str] = (), texts: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV file with a header. numbers: columns that it must have, as floats; texts: as they are.

    UserError, naming the line, for a damaged table.
    """
    try:
        with open(file, newline="", encoding="utf-8", errors="surrogateescape") as handle:
            reader = csv.DictReader(handle)
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError("another number of cells than the header has")
                if lacking := [name for name in (*numbers, *texts) if name not in row]:
                    raise ValueError(f"no column {lacking[0]}")
                row = {name: from_cell(cell) for name, cell in row.items()}
                yield {**row, **{name: float(row[name]) for name in numbers}}
    except (ValueError, csv.Error) as error:
        raise UserError(f"{file} is damaged in line {reader.line_num} ({error}); remove it, or make it anew") from None


def write_csv(file: Path, header: list[str], rows) -> None:
    """Replace a CSV file as `write_atomic` does."""
    text = io.StringIO()
    csv.writer(text).writerows([map(to_cell, row) for row in (header, *rows)])
    write_text(file, text.getvalue())


def to_cell(value: Any) -> Any:
    """Return a value as it is written to a CSV file: text that a spreadsheet would run as a formula gets an apostrophe."""
    if not isinstance(value, str) or not value.lstrip("'").startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def from_cell(text: str) -> str:
    """Return the text from which `to_cell` made a cell: the inverse."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULA) else text
