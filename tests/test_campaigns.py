"""The campaigns of benchmarks/campaigns in their short form: each attacks a few runs and finds no fault."""
from importlib import import_module

import pytest
from conftest import ROOT


@pytest.mark.parametrize(("name", "argv"), [
    ("kills", ["--phases", "save", "--count", "1"]), ("signals", ["training", "--count", "1"]),
    ("files", ["layout file", "mean face", "--count", "60"]), ("options", ["--count", "1"]),
    ("disks", ["run folder", "--troubles", "limit"])])
def test_a_short_campaign_finds_no_fault(monkeypatch, name, argv):
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "campaigns")
    assert import_module(name).main(argv) == 0
