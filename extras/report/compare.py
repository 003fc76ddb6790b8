"""--compare RUN RUN: tests runs on the same faces, and writes a table and a page of what differs between them."""

from itertools import groupby
from typing import Any

import numpy as np
import torch

from extras.report.page import PAGES, environment, is_whole, training_charts
from extras.report.plot import Style, chart
from pipnet.errors import UserError, lines
from pipnet.files import write_text
from utils.data.sets import distinct
from utils.evaluate import metric
from utils.evaluate.evaluate import Result
from utils.evaluate.tables import Case, Row, figures_of, markdown_table, with_numbers
from utils.settings.csv_files import write_csv
from utils.settings.sections import KEYS
from utils.train.checkpoint import about
from utils.train.run_folder import plain_name

RESAMPLES = 2000  # of the faces, for an interval
LARGEST = 100  # % NME that a curve shows; a net that has diverged has any
COVERED = 2.5, 97.5  # percentiles at which the interval ends


def compare(jobs: list[Any]) -> list[dict]:
    """Test runs on the same faces, write tables and a page below the first one, print the tables. Return the figures.

    jobs: a `utils.task.job.Job` of each run, with its sets. UserError for runs whose landmarks or faces differ.
    """
    names = distinct([job.run.folder.resolve().name for job in jobs])
    tests = [job.tests() for job in jobs]
    for name, other in zip(names[1:], tests[1:], strict=True):
        _check_alike(names[0], tests[0], name, other)
    cases = [list(one.cases()) for one in tests]
    models = [one.model(one.run.model, torch.get_num_threads()) for one in tests]
    results = [
        [one.evaluate(model, case) for case in own] for one, model, own in zip(tests, models, cases, strict=True)
    ]
    if not jobs[0].ranks.first:
        return []
    tested, thresholds = list(zip(cases[0], *results, strict=True)), jobs[0].settings.test.thresholds
    rows = [row for case, *found in tested for row in score_rows(names, case, found, thresholds)]
    scores = list(rows[0]), [list(row.values()) for row in rows]
    keys = ["key", *names], differing_keys([one.stored["args"] for one in tests])
    nets = [f"{name}: {about(one.run.weights, one.stored)}" for name, one in zip(names, tests, strict=True)]
    folder = jobs[0].run.folder / "compare" / "-".join(map(plain_name, names[1:]))
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "scores.csv", *scores)
    text = PAGES.get_template("compare.html").render(
        title=f"Compared: {', '.join(names)}",
        nets=nets,
        norm=jobs[0].settings.test.norm,
        scores=(*scores, 2, is_whole, _best(*scores)),
        curves=[(case.model(case.title), _curves(names, found)) for case, *found in tested],
        keys=(*keys, len(keys[0])),
        training=training_charts({name: job.run.folder for name, job in zip(names, jobs, strict=True)}),
        environment=environment(),
        resamples=RESAMPLES,
    )
    write_text(folder / "index.html", text + "\n")
    tables = [markdown_table(table[1], table[0]) for table in (keys, scores)]
    print(lines("\n\n".join(["", *tables, "\n".join([*nets, f"Files: {folder / 'index.html'}"])])))
    return with_numbers(rows)


def _check_alike(first: str, one: Any, name: str, other: Any) -> None:
    """Raise UserError unless two tests are of the same landmarks and faces. first, name: of the runs."""
    for mine, theirs in zip(one.comparisons, other.comparisons, strict=False):
        a, b = mine.layout, theirs.layout
        if (a.stored, a.selected) != (b.stored, b.selected):
            raise UserError(
                f"--compare: {name} is tested on the {b.count} landmarks of layout {b.name}, {first} on the {a.count} of "
                f"{a.name}; compare nets of the same landmarks"
            )
    files = [[list(split.set.read(split.name)["file"]) for split in tests.task_data.tested] for tests in (one, other)]
    if files[0] != files[1]:
        raise UserError(f"--compare: {name} is tested on other faces than {first}; name sets for all: --test-data")


def score_rows(names: list[str], case: Case, found: list[Result], thresholds: list[float]) -> list[Row]:
    """Return a row of each run for the whole set, each subset and each group of landmarks.

    names, found: of the runs. Differences and their intervals are in NME points, from the first run.
    """
    parts = {
        (case.model(case.title) if subset == "full" else f"  {subset}"): [one.nme[mask] for one in found]
        for subset, mask in case.subsets()
    }
    shared = [group for group in found[0].groups if all(group in one.groups for one in found)]
    parts |= {f"  landmarks {group}": [one.groups[group] for one in found] for group in shared}
    rows = []
    for part, values in parts.items():
        for name, nme in zip(names, values, strict=True):
            scores, apart = metric.summary(nme, thresholds), nme - values[0]
            apart = apart[np.isfinite(apart)]
            cells = [""] * 3
            if nme is not values[0] and len(apart):
                cells = [f"{value:+.3f}" for value in (apart.mean(), *interval(apart))]
            rows.append(
                {
                    "test set": part,
                    "run": name,
                    "faces": str(scores.faces - scores.left_out),
                    "NME %": f"{scores.nme:.3f}",
                    **figures_of(scores, thresholds),
                    **dict(zip(("minus first", "95 % from", "95 % to"), cells, strict=True)),
                }
            )
    return rows


def _best(header: list[str], rows: list[list[str]]) -> set[tuple[int, int]]:
    """Return (row, column) of the best figures of each part."""
    best = set()
    columns = [column for column, name in enumerate(header) if "NME" in name or "@" in name]
    for _, group in groupby(enumerate(rows), lambda row: row[1][0]):
        numbers, cells = zip(*group, strict=True)
        for column in columns:
            figures = np.array([float(row[column]) for row in cells])
            found = np.nanmax(figures) if "AUC" in header[column] else np.nanmin(figures)
            best |= {(numbers[place], column) for place in np.flatnonzero(figures == found)}
    return best


def interval(apart: np.ndarray) -> np.ndarray:
    """Return the ends of the 95 % interval of the mean of paired differences (M,): a bootstrap, always the same."""
    numbers = np.random.default_rng(0)
    return np.percentile([numbers.choice(apart, len(apart)).mean() for _ in range(RESAMPLES)], COVERED)


def _curves(names: list[str], found: list[Result]) -> str:
    """Return the CED of the runs, up to where all curves end, or to LARGEST."""
    finite = [one.nme[np.isfinite(one.nme)] for one in found]
    end = min(LARGEST, max(values.max() for values in finite))
    curves = {}
    for name, values in zip(names, finite, strict=True):
        grid, share = metric.cumulative(values, end)
        curves[name] = grid[::5], 100 * share[::5]
    return chart(curves, "NME, %", "share of faces, %", Style(top=100))


def differing_keys(args: list[dict[str, Any]]) -> list[list[str]]:
    """Return rows of the keys of args.yaml whose values differ between runs that know them, without those of tests and
    of the machine.

    args: {key: value} of each run. An exported file knows few keys.
    """
    trained = [key for key, row in KEYS.items() if row.change != "always" and key != "norm"]
    differ = [key for key in trained if len({str(values[key]) for values in args if key in values}) > 1]
    return [[key, *(str(values.get(key, "")) for values in args)] for key in differ]
