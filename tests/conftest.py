"""What the tests share: where things lie, small faces, and the commands as a user types them."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT.parent / "shared" / "reference"
sys.path.insert(0, str(ROOT))


@pytest.fixture
def reference() -> Path:
    """The folder of published outputs; the test is skipped where it is absent."""
    if not REFERENCE.is_dir():
        pytest.skip(f"no reference outputs at {REFERENCE}")
    return REFERENCE


def run(*command: str, timeout: float = 300, **env: str) -> subprocess.CompletedProcess:
    """A command in the project's folder, as a user types it; `python` is this interpreter."""
    command = [sys.executable if part == "python" else part for part in command]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=timeout)
