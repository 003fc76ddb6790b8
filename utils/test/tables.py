"""Rows of figures: a test set, its subsets, groups of landmarks, norms; and their text as a table."""
from typing import NamedTuple

import numpy as np

from pipnet.geometry import to_crop
from pipnet.layout import Layout
from utils.data.dataset import Faces
from utils.data.parsers import DATASETS
from utils.data.prepared_set import PreparedSet
from utils.test import metric
from utils.test.evaluate import Result, subset_rows


class Compared(NamedTuple):
    """NME of another run on the same M faces, in %; a report does not keep flicker, so it is NaN."""

    run: str
    nme: np.ndarray
    crop_nme: np.ndarray
    flicker: np.ndarray


class Case(NamedTuple):
    """A test set in one kind of box: what a net is evaluated on.

    set: the prepared set; title, file: its names in tables and in files; box: true, perturbed or detector; faces; layout: that
    errors are measured in; missed: faces that the detector did not find; compared: other runs on these faces.
    """

    set: PreparedSet
    title: str
    file: str
    box: str
    faces: Faces
    layout: Layout
    missed: int = 0
    compared: tuple[Compared, ...] = ()

    def model(self, name: str) -> str:
        """Return the name of a model in tables; boxes other than the true ones say so."""
        return name if self.box == "true" else f"{name}, {self.box} boxes"


def table(rows: list[list[str]], header: list[str]) -> str:
    """Return a Markdown table that also reads well in a terminal: two columns of text, then numbers.

    It is shorter than the use of a package that aligns columns this way.
    """
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [f"{cell: {'<' if i < 2 else '>'}{width}}" for i, (cell, width) in enumerate(zip(cells, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = "|" + "|".join("-" * (width + 2) if i < 2 else "-" * (width + 1) + ":" for i, width in enumerate(widths)) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def figure_header(thresholds) -> list[str]:
    """Return the names of the columns of `_figures`."""
    return [text for threshold in thresholds for text in (f"FR@{threshold:g} %", f"AUC@{threshold:g}")]


def score_header(thresholds) -> list[str]:
    """Return the names of the columns of `score_rows`."""
    return ["test set", "model", "faces", "NME %", "crop NME %", *figure_header(thresholds), "flicker %"]


def score_rows(case: Case, model: str, result: Result | Compared, thresholds) -> list[list[str]]:
    """Return a row for the whole set and one for each subset."""
    rows = []
    for subset, mask in subset_rows(case.faces.subsets, case.faces.rank).items():
        scores = metric.summary(result.nme[mask], thresholds)
        count, flicker, moving = str(scores.faces), "", result.flicker[mask]
        if scores.left_out:
            count += f" (-{scores.left_out})"
        if case.missed and subset == "full":
            count += f", {case.missed} missed"
        if np.isfinite(moving).any():
            flicker = f"{np.nanmean(moving):.3f}"
        crop_nme = metric.summary(result.crop_nme[mask], ()).nme
        name = case.title if subset == "full" else f"  {subset}"
        rows.append([name, model, count, f"{scores.nme:.3f}", f"{crop_nme:.3f}", *_figures(scores), flicker])
    return rows


def without_empty(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows without the columns that are empty in every row."""
    used = [place for place in range(len(header)) if any(row[place] for row in rows)]
    return [header[place] for place in used], [[row[place] for place in used] for row in rows]


def _figures(scores: metric.Scores) -> list[str]:
    return [text for fr, area in zip(scores.fr, scores.auc, strict=True) for text in (f"{fr:.2f}", f"{area:.4f}")]


def part_header(thresholds) -> list[str]:
    """Return the names of the columns of `part_rows`."""
    return ["test set", "model", "subset", "part", "NME %", *figure_header(thresholds)]


def part_rows(case: Case, model: str, result: Result, thresholds) -> list[list[str]]:
    """Return a row for each group of landmarks, in the whole set and in each subset."""
    rows = []
    for subset, mask in subset_rows(case.faces.subsets, case.faces.rank).items():
        for group, values in result.groups.items():
            scores = metric.summary(values[mask], thresholds)
            rows.append([case.title, model, subset, group, f"{scores.nme:.3f}", *_figures(scores)])
    return rows


def norm_header(thresholds) -> list[str]:
    """Return the names of the columns of `norm_rows`."""
    return ["test set", "model", "subset", "norm", "frame", "usual", "NME %", *figure_header(thresholds)]


def norm_rows(case: Case, model: str, result: Result, thresholds) -> list[list[str]]:
    """Return a row for each norm that the layout has, in px of the picture and in the frame of the crop, where PIPNet measures.

    Norms of published figures for the set are marked as usual.
    """
    faces, layout, usual = case.faces, case.layout, DATASETS[case.set.meta["dataset"]].norms
    inside = to_crop(result.landmarks, faces.crop), faces.nominal.astype(np.float64)
    unit = np.tile([0.0, 0.0, 1.0, 1.0], (len(faces), 1))
    frames = {"image": (result.errors, faces.landmarks, faces.box), "crop": (metric.point_errors(*inside), inside[1], unit)}
    rows = []
    for kind in metric.NORMS:
        for frame, (errors, truth, box) in frames.items():
            if layout.interocular is None and kind == "interocular" or layout.pupils is None and kind == "interpupil":
                continue
            if frame == "crop" and kind in ("diagonal", "size"):  # in the crop these equal the box norm
                continue
            values = metric.nme(errors, metric.norms(truth, layout, kind, box))
            for subset, mask in subset_rows(faces.subsets, faces.rank).items():
                scores = metric.summary(values[mask], thresholds)
                mark = "yes" if kind in usual else ""
                rows.append([case.title, model, subset, kind, frame, mark, f"{scores.nme:.3f}", *_figures(scores)])
    return rows


def part_table(rows: list[list[str]]) -> str:
    """Return the NME of each group (columns) in each whole test set (rows) as text. rows: of `part_rows`."""
    whole = [row for row in rows if row[2] == "full"]
    groups = list(dict.fromkeys(row[3] for row in whole))
    models = list(dict.fromkeys((row[0], row[1]) for row in whole))
    found = {(row[0], row[1], row[3]): row[4] for row in whole}
    cells = [[*key, *(found.get((*key, group), "") for group in groups)] for key in models]
    return table(cells, ["NME % of parts", "model", *groups])
