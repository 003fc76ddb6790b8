"""The figures of a landmark test, and the tables of them that go into the folder of the report."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from pipnet.files import write_text
from utils.evaluate.evaluate import Result
from utils.evaluate.tables import TEST, Case, Row, group_rows, group_table, markdown_table, norm_rows, score_rows
from utils.settings.csv_files import write_csv


class Report(NamedTuple):
    """The figures of a test.
    model: the one whose faces and charts are shown on the page of the report.

    rounds: {test set: % NME of the net of each round of --semi}
    shown: what extras/report shows of each case; `file` is its name
    """

    folder: Path
    norm: str
    thresholds: list[float]
    model: str = "torch"
    scores: tuple[Row, ...] = ()
    groups: tuple[Row, ...] = ()
    norms: tuple[Row, ...] = ()
    rounds: dict[str, list[float]] = {}
    shown: tuple[Any, ...] = ()

    def with_result(self, case: Case, model: str, result: Result) -> "Report":
        """Return the report with the result of a model."""
        name, at = case.model(model), self.thresholds
        scores, rounds = score_rows(case, name, result, at), {}
        if model == self.model:
            if case.earlier:
                rounds = {case.title: [*case.earlier, float(np.nanmean(result.nme))]}
        return self._replace(
            scores=(*self.scores, *scores),
            groups=(*self.groups, *group_rows(case, name, result, at)),
            norms=(*self.norms, *norm_rows(case, name, result, at)),
            rounds=self.rounds | rounds,
        )

    def score_table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of the scores, without columns that are empty everywhere."""
        header = [name for name in self.scores[0] if any(row[name] for row in self.scores)]
        return header, [[row[name] for name in header] for row in self.scores]

    def protocol_table(self, mark: str = "") -> tuple[list[str], list[list[str]]]:
        """Return header and rows of all ways to measure, a row per set and subset.

        Columns: NME in each norm and frame; in other boxes, NME in the test's norm and in the norms of published
        figures; failure rate and area in the test's norm. `mark` is put behind cells in a norm of published figures.
        """
        rows = [row for row in self.norms if row["model"].startswith(self.model)]
        first = rows[0]["model"]  # the shown model in the set's own boxes
        columns: dict[str, dict[tuple[str, str], str]] = {}
        figures = {}
        for row in rows:
            key = row["test set"], row["subset"]
            in_image = row["frame"] == "image"
            if row["model"] == first or (in_image and (row["usual"] or row["norm"] == self.norm)):
                title = row["norm"] if in_image else f"{row['norm']}, {row['frame']}"
                column = columns.setdefault(title + row["model"].removeprefix(self.model), {})
                column[key] = row["NME %"] + (mark if row["usual"] else "")
            if in_image and (row["model"], row["norm"]) == (first, self.norm):
                figures[key] = [cell for name, cell in row.items() if "@" in name]
        header = ["test set", "subset", *columns, *(name for name in rows[0] if "@" in name)]
        return header, [
            [*key, *(column.get(key, "") for column in columns.values()), *cells] for key, cells in figures.items()
        ]

    def rounds_table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of the NME by round."""
        rounds = max(map(len, self.rounds.values()))
        return ["test set", *(f"round {number}, NME %" for number in range(rounds))], [
            [name, *(f"{value:.3f}" for value in values)] for name, values in self.rounds.items()
        ]

    def write(self, flip_test: bool, weights: str) -> str:
        """Write scores, groups, norms, protocols and rounds as .csv, and test.yaml, which describes the test. Remove the
        files of earlier tests. Return the tables to print.

        weights: checksum of the net's weights.
        """
        header, scores = self.score_table()
        self.folder.mkdir(exist_ok=True)
        write_csv(self.folder / "scores.csv", header, scores)
        for name, rows in (("groups", self.groups), ("norms", self.norms)):
            if rows:  # a layout may have no groups
                write_csv(self.folder / f"{name}.csv", list(rows[0]), [row.values() for row in rows])
        write_csv(self.folder / "protocols.csv", *self.protocol_table())
        if self.rounds:
            write_csv(self.folder / "rounds.csv", *self.rounds_table())
        kept = {"groups": self.groups, "rounds": self.rounds, **{shown.file: True for shown in self.shown}}
        for path in self.folder.iterdir():
            found = re.fullmatch(r"(?:faces_(.+)\.(?:csv|jpg)|sigma_(.+)\.svg|(groups|rounds)\.csv)", path.name)
            if found and not kept.get(found[found.lastindex or 0]):
                path.unlink()
        about = {"norm": self.norm, "flip_test": flip_test, "weights": weights}
        write_text(self.folder / TEST, yaml.safe_dump(about, sort_keys=False, allow_unicode=True))
        return f"{markdown_table(scores, header)}\n\n{group_table(self.groups)}"
