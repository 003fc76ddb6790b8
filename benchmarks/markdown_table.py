"""Markdown tables from rows of values."""
from collections.abc import Callable, Iterable

import numpy as np

SETS = {"300w": "300W, lfpw/testset", "faces68": "FACES68", "synthetic faces": "synthetic, common and challenge"}
Value = str | Callable[[dict], object]


def table(rows: Iterable[dict], *columns: tuple[str, Value] | tuple[str, Value, str]) -> str:
    """Return a Markdown table. A column is its title, a key or function of the row, and for numbers a format such as `.2f`.

    Numbers are aligned to the right; None gives an empty cell.
    """
    lines = [[title for title, *_ in columns], ["--:" if form else "---" for _, _, *form in columns]]
    for row in rows:
        values = [(value(row) if callable(value) else row.get(value), *form) for _, value, *form in columns]
        lines.append(["" if value is None else format(value, *form).replace("|", r"\|") for value, *form in values])
    return "\n".join("|" + "|".join(cells) + "|" if i == 1 else f"| {' | '.join(cells)} |" for i, cells in enumerate(lines))


def text(values: list[float]) -> str:
    """Return the mean of some seeds, and their deviation."""
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values):.2f}" if len(values) > 1 else "")
