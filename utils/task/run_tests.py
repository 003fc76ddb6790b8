"""--test, --test-onnx and --test-formats of any net: tests of the saved weights in torch and of exported files."""

import time
from collections.abc import Callable

import numpy as np
import torch
from loguru import logger

from pipnet.cores import cores
from pipnet.errors import UserError, lines
from utils.evaluate.tables import markdown_table
from utils.export.card import write_card
from utils.settings.csv_files import write_csv
from utils.settings.formats import files_of

SHARE = 0.999  # share of the landmarks for which a format's bound in px must hold
LEAST, SECONDS = 20, 1.0  # a latency is measured over at least so many calls and seconds


def run_tests(tests, ranks, formats: list[str], timed: bool = False) -> None:
    """Evaluate each case with each model, write the report and print its tables. tests: see export/evaluation.py.

    formats: they are exported first if necessary. UserError if an export differs from torch by more than its bounds; an
    exported file that is tested by itself is not compared. timed: also write and print a table of the formats with
    their sizes, differences and latencies.
    """
    for name in formats:
        if tests.bounds.get(name, True) is None:
            raise UserError(f"--test-formats: the {name} file of this task is not tested; leave it out")
    alone = tests.run.model != "torch"
    if alone:
        formats = [tests.run.model]
    else:
        ranks.agree(lambda: tests.export(formats) if formats else None)
    models = {name: tests.model(name, torch.get_num_threads()) for name in (*["torch"] * (not alone), *formats)}
    apart: dict[str, list] = {name: [(0.0, np.zeros(1))] for name in formats if not alone}
    report, gaps = tests.report, {}
    for case in tests.cases():
        gap = "" if alone else tests.gap(case)
        if gap and formats:
            gaps[case.title] = gap
        covered = ["torch"] if gap else models
        results = {name: tests.evaluate(models[name], case) for name in covered}
        for name in apart.keys() & results:
            apart[name].append(tests.differences(case, results["torch"], results[name]))
        if ranks.first:
            for name, result in results.items():
                report = tests.with_result(report, case, name, result)
    if not ranks.first:
        return
    print(lines(tests.close(report)))
    for title, gap in gaps.items():
        logger.warning(f"{title}: {', '.join(formats)} not tested, {gap}")
    if formats and not alone:
        write_card(tests.run)  # with the new scores
    off = {
        name: (max(figure for figure, _ in found), np.concatenate([px for _, px in found])[1:])
        for name, found in apart.items()
    }
    if timed:
        print(lines(f"\n{format_table(tests, list(models), off)}"))
    for name, (figure, px) in off.items():
        bound, usual = tests.bounds[name], quantile(px)
        if not (figure <= bound.figure and (bound.px is None or usual <= bound.px)):
            text = f"{figure:.4f} (allowed: {bound.figure:g})"
            if bound.px is not None:
                text += f", and {SHARE:.1%} of its landmarks by up to {usual:.2f} px (allowed: {bound.px:g})"
            remedy = (
                "name other faces to calibrate it on: --train-data" if name == "int8" else "delete it and export again"
            )
            raise UserError(f"{tests.run.export_path(name)} differs from torch by {text}; {remedy}")


def quantile(px: np.ndarray) -> float:
    """Return the difference that SHARE of the landmarks do not exceed, 0 without landmarks.

    The others may differ more: rounding decides between two cells of a score map that are almost equal.
    """
    return float(np.quantile(px, SHARE)) if len(px) else 0.0


def format_table(tests, models: list[str], off: dict[str, tuple[float, np.ndarray]]) -> str:
    """Return the table of torch and the formats, and write it to report/formats.csv.
    off: {format: differences from torch}.
    """
    several = sorted({1, cores()})
    rows, header = [], []
    before = torch.get_num_threads()
    for name in models:
        figure, px = off.get(name, (0.0, np.zeros(0)))
        file = tests.run.weights if name == "torch" else tests.run.export_path(name)
        size = sum(path.stat().st_size for path in files_of(file) if path.is_file())
        row = {
            "file": file.name,
            "format": name,
            "MB": f"{size / 1e6:.2f}",
            "figure apart": f"{figure:.4f}",
            "px apart, mean": f"{px.mean():.3f}" if len(px) else "",
            f"{SHARE:.1%}": f"{quantile(px):.2f}" if len(px) else "",
            "largest": f"{px.max():.2f}" if len(px) else "",
        }
        for threads in several:
            torch.set_num_threads(threads)
            model = tests.model(name, threads)
            for pictures, call in tests.calls(model).items():
                middle, late = call_times(call)
                row[f"ms, {threads} core{'s' * (threads > 1)}, batch {pictures}"] = f"{middle:.1f}"
                row[f"p95, {threads}, {pictures}"] = f"{late:.1f}"
        header = list(row)
        rows.append(list(row.values()))
    torch.set_num_threads(before)
    write_csv(tests.run.folder / "report" / "formats.csv", header, rows)
    return markdown_table(rows, header)


def call_times(call: Callable[[], object]) -> tuple[float, float]:
    """Return the median and the 95th percentile of the ms that a call takes."""
    call()
    times: list[float] = []
    while len(times) < LEAST or sum(times) < SECONDS:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return tuple(1000 * np.percentile(times, (50, 95)))
