"""The campaigns of tests/campaigns in their short form: each attacks a few runs and finds no fault."""

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("kills", ["save", "--count", "1"]),
        ("signals", ["training", "--count", "1"]),
        ("files", ["layout file", "mean face", "--count", "60"]),
        ("options", ["--count", "1"]),
        ("disks", ["run folder", "--troubles", "limit"]),
        ("attacks", ["--count", "4"]),
        ("files", ["--values", "value beside MNN", "value of meta.yaml", "--count", "20"]),
    ],
)
def test_a_short_campaign_finds_no_fault(name, argv):
    done = subprocess.run([sys.executable, ROOT / "tests" / "campaigns", name, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
