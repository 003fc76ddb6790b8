"""The figures that the README shows: they are there, whole, and good enough."""
import json
import sys

import pytest
from conftest import ROOT

RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_every_figure_says_how_it_was_made(file):
    values = json.loads(file.read_text())
    assert {"command", "commit", "date", "seed", "machine"} <= values.keys() and "dirty" not in values["commit"]


def test_the_main_job_is_good_and_its_export_agrees():
    scores = json.loads((ROOT / "benchmarks" / "results" / "default.json").read_text())["scores"]
    figures = {row["model"]: float(row["NME %"]) for row in scores if row["test set"] == "synthetic faces"}
    assert figures["torch"] <= 5 and abs(figures["torch"] - figures["onnx"]) <= 0.01


def test_the_readme_shows_what_the_results_hold(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import tables

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.filled(text) == text, "python benchmarks/tables.py writes the tables"
    sys.modules.pop("tables")
