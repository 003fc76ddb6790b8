"""Rows of figures, for a test set, its subsets, groups of landmarks and norms, and tables of these rows as text."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from pipnet.geometry import to_crop
from utils.data.faces import Faces
from utils.data.prepared_set import PreparedSet
from utils.evaluate import metric
from utils.evaluate.evaluate import Comparison, Result, subset_rows

# columns that may look like numbers
NAMES = ("test set", "model", "file", "format", "run", "subset", "identity", "net", "set", "layout")
Row = dict[str, str]  # {column: cell}
HIDDEN = ("hidden %", "hidden AP %", f"hidden recall at {metric.PRECISION:.0%} precision, %")
TEST = "test.yaml"  # in the folder of a report: what was tested


class Case(NamedTuple):
    """A test set in one kind of box, on which a net is evaluated.

    set: the prepared set; title, file: its names in tables and in files; box: true, perturbed or detector
    faces: to evaluate; comparison: of a net with their labels; missed: number of faces that the detector did not find
    earlier: % NME of the nets of earlier rounds of --semi
    """

    set: PreparedSet
    title: str
    file: str
    box: str
    faces: Faces
    comparison: Comparison
    missed: int = 0
    earlier: tuple[float, ...] = ()

    def model(self, name: str) -> str:
        """Return the name of a model in tables; boxes other than the true ones say so."""
        return name if self.box == "true" else f"{name}, {self.box} boxes"

    def subsets(self) -> Iterable[tuple[str, np.ndarray]]:
        """Return (name, (M,) bool) of all faces, as `full`, and of each subset."""
        return subset_rows(self.faces["subset"], self.faces.facts["subsets"]).items()


def with_numbers(rows: Iterable[dict[str, str]]) -> list[dict[str, float | str | None]]:
    """Return the rows of a table with numbers in place of their texts, and None in place of empty cells."""

    def value(column: str, cell: str) -> float | str | None:
        try:
            return cell if column in NAMES else float(cell) if cell else None
        except ValueError:
            return cell

    return [{column: value(column, cell) for column, cell in row.items()} for row in rows]


def markdown_table(rows: list[list[str]], header: list[str]) -> str:
    """Return a Markdown table that also reads well in a terminal: two columns of text, then numbers."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [
            f"{cell: {'<' if i < 2 else '>'}{width}}" for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = (
        "|" + "|".join("-" * (width + 2) if i < 2 else "-" * (width + 1) + ":" for i, width in enumerate(widths)) + "|"
    )
    return "\n".join([line(header), rule, *map(line, rows)])


def figures_of(scores: metric.Scores, thresholds) -> Row:
    """Return failure rate and area of each threshold."""
    return {
        name: cell
        for at, fr, area in zip(thresholds, scores.fr, scores.auc, strict=True)
        for name, cell in ((f"FR@{at:g} %", f"{fr:.2f}"), (f"AUC@{at:g}", f"{area:.4f}"))
    }


def score_rows(case: Case, model: str, result: Result, thresholds) -> list[Row]:
    """Return a row for the whole set and one for each subset."""
    rows, seen = [], getattr(result, "visible", None)
    truth = None if seen is None else case.faces["visible"]
    for subset, mask in case.subsets():
        scores, moving = metric.summary(result.nme[mask], thresholds), result.flicker[mask]
        hidden = [""] * len(HIDDEN) if seen is None or truth is None else _hidden(seen[mask], truth[mask])
        missed = case.missed if subset == "full" else 0
        rows.append(
            {
                "test set": case.title if subset == "full" else f"  {subset}",
                "model": model,
                "faces": str(scores.faces),
                "without norm": str(scores.left_out or ""),
                "missed": str(missed or ""),
                "NME %": f"{scores.nme:.3f}",
                "crop NME %": f"{metric.summary(result.crop_nme[mask], ()).nme:.3f}",
                **figures_of(scores, thresholds),
                "flicker %": f"{np.nanmean(moving):.3f}" if np.isfinite(moving).any() else "",
                **dict(zip(HIDDEN, hidden, strict=True)),
            }
        )
    return rows


def _hidden(seen: np.ndarray, truth: np.ndarray) -> list[str]:
    """Return the cells HIDDEN of some faces, see `metric.hidden`; empty where the set does not tell what is hidden."""
    return [f"{100 * value:.1f}" if np.isfinite(value) else "" for value in metric.hidden(seen, truth)]


def group_rows(case: Case, model: str, result: Result, thresholds) -> list[Row]:
    """Return a row for each group of landmarks, in the whole set and in each subset."""
    return [
        _row(case, model, subset, {"group": group}, values[mask], thresholds)
        for subset, mask in case.subsets()
        for group, values in result.groups.items()
    ]


def _row(case: Case, model: str, subset: str, what: Row, nme: np.ndarray, thresholds) -> Row:
    """Return the row of some faces with these NME (M,) in %. what: the columns that say what was measured."""
    scores = metric.summary(nme, thresholds)
    return {
        "test set": case.title,
        "model": model,
        "subset": subset,
        **what,
        "NME %": f"{scores.nme:.3f}",
        **figures_of(scores, thresholds),
    }


def norm_rows(case: Case, model: str, result: Result, thresholds) -> list[Row]:
    """Return a row for each norm that the layout has, in px of the picture and in the frame of the crop, where PIPNet
    measures.

    The column `usual` marks the norms of published figures for the set.
    """
    faces, layout, usual = case.faces, case.comparison.layout, case.set.meta["norms"]
    inside = to_crop(result.landmarks, faces["crop"]), faces["nominal"].astype(np.float64)
    unit = np.tile([0.0, 0.0, 1.0, 1.0], (len(faces), 1))
    frames = {
        "image": (result.errors, faces["landmarks"], faces["box"]),
        "crop": (metric.point_errors(*inside), inside[1], unit),
    }
    rows = []
    for norm, frame in product(metric.NORMS, frames):
        if (layout.interocular is None and norm == "interocular") or (layout.pupils is None and norm == "interpupil"):
            continue
        if frame == "crop" and norm in ("diagonal", "size"):  # in the crop these equal the box norm
            continue
        errors, truth, box = frames[frame]
        values = metric.nme(errors, metric.norms(truth, layout, norm, box))
        what = {"norm": norm, "frame": frame, "usual": "yes" if norm in usual else ""}
        rows += [_row(case, model, subset, what, values[mask], thresholds) for subset, mask in case.subsets()]
    return rows


def group_table(rows: Sequence[Row]) -> str:
    """Return the NME of each group (columns) in each whole test set (rows) as text. rows: of `group_rows`."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row["subset"] == "full":
            found.setdefault((row["test set"], row["model"]), {})[row["group"]] = row["NME %"]
    groups = list(dict.fromkeys(group for cells in found.values() for group in cells))
    return markdown_table(
        [[*key, *(cells.get(group, "") for group in groups)] for key, cells in found.items()],
        ["NME % of groups", "model", *groups],
    )
