"""Rows of tables as they are shown: text in columns."""

import re
from collections.abc import Callable, Iterable

import numpy as np

SETS = {"300w": "300W, lfpw/testset", "faces68": "FACES68", "synthetic faces": "synthetic, common and challenge"}
NUMBER = re.compile(r"[+-]?[\d.,]+([+]\d+)?%?( ± [\d.]+)?( / [\d.]+(, [\d.]+ / [\d.]+)?)*")
Value = str | Callable[[dict], object]


def rows_of(rows: Iterable[dict], *columns: tuple[str, Value] | tuple[str, Value, str]) -> list[dict[str, str]]:
    """Return the rows as text. A column is its title, a key or function of the row, and a format such as `.2f`; None is
    empty.
    """
    found = []
    for row in rows:
        values = ((title, value(row) if callable(value) else row.get(value), form) for title, value, *form in columns)
        found.append({title: "" if value is None else format(value, *form) for title, value, form in values})
    return found


def markdown(rows: list[dict[str, str]], *titles: str) -> str:
    """Return the rows as a Markdown table, with columns of numbers aligned to the right.
    titles: where there may be no row.
    """
    titles = titles or tuple(dict.fromkeys(title for row in rows for title in row))
    cells = [[str(row.get(title, "")).replace("|", r"\|") for title in titles] for row in rows]
    numbers = [
        any(column) and all(NUMBER.fullmatch(cell) for cell in column if cell) for column in zip(*cells, strict=True)
    ]
    lines = [titles, ["--:" if number else "---" for number in numbers or len(titles) * [False]], *cells]
    return "\n".join(
        "|" + "|".join(line) + "|" if i == 1 else f"| {' | '.join(line)} |" for i, line in enumerate(lines)
    )


def text(values: list[float]) -> str:
    """Return the mean of some seeds, and their deviation."""
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values):.2f}" if len(values) > 1 else "")
