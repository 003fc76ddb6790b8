"""Write tests/data/parity.npz anew: `python tests/data/make_parity.py`.

It needs the published outputs where conftest.py looks for them. It stores what the code gives now, so it first runs the
tests against those, and stops if one fails or is skipped.
Run it only after a change that is meant to change these numbers, and say in the commit message which ones and why.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))
from conftest import ROOT  # noqa: E402
from parity import CASES  # noqa: E402

FILES = [
    "nets/test_backbones.py",
    "nets/test_dpr.py",
    "nets/test_pip.py",
    "nets/test_slim.py",
    "extras/detector/test_loaders.py",
    "utils/evaluate/test_metric.py",
]

if __name__ == "__main__":
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "published"]
    done = subprocess.run([*command, *(TESTS / file for file in FILES)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode or "SKIPPED" in done.stdout:
        sys.exit(f"{done.stdout[-2000:]}\nthe tests against the published outputs must pass first; nothing was written")
    arrays = {f"{case}/{name}": array for case, make in CASES.items() for name, array in make().items()}
    np.savez_compressed(TESTS / "data/parity.npz", **arrays)
    print(f"{len(arrays)} arrays of {len(CASES)} cases")
