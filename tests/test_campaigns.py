"""The campaigns of tests/campaigns in their short form: each attacks a few runs and finds no fault."""

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("kills", 2), ("damage", 120), ("disks", 3)])
def test_a_short_campaign_finds_no_fault(name, count):
    command = [sys.executable, ROOT / "tests" / "campaigns", name, "--count", str(count)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
