"""Each room of extras can be deleted. A copy of the checkout without it prepares, trains, tests, exports and runs the demo,
with the figures of the whole checkout, and the command that needs the room says in one line that the folder is missing.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, slow

from utils.settings.rooms import ROOMS

ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
RENDERED = "--dataset synthetic --synthetic-train 12 --synthetic-test 4 --target-size 64"
RECIPE = "--preset quick --net timm:test_efficientnet --weights none --input-size 64 --batch-size 4 --epochs 2"
NEEDS = {  # {room: flags of main.py that need it}
    "datasets": "--prepare --dataset 300w --data-dir assets",
    "detector": "--train --task detect",
    "gpu": "--train --pixels device",
    "heads": "--train --head heatmap --stride 8",
    "report": "--test --exp run --compare run",
    "runtimes": "--export int8 --exp run",
    "semi": "--train --semi mean-teacher --labelled-fraction 0.5",
    "synthetic": "--prepare --dataset synthetic",
    "systems": "--train --steps flip",
    "tools": "--predict assets/astronaut.jpg",
}
KEY_OF = {  # {room: flags of main.py with one of its keys, typed or in a preset}
    "detector": ("--train --crops 8", "--train --preset detect-quick"),
    "semi": ("--train --unlabelled-share 0.5",),
    "tools": ("--train --folds 2",),
}
QUICK = "heads"


def command(checkout: Path, script: str, flags: str) -> subprocess.CompletedProcess:
    """Run a script of a checkout, as a user types it."""
    line = [sys.executable, script, *flags.split(), "--threads", "1"]
    return subprocess.run(line, cwd=checkout, env=ALONE, capture_output=True, text=True, timeout=600)


def places(folder: Path) -> str:
    return f"--data-root {folder}/data --run-root {folder}/runs --workers 0 "


def figures(checkout: Path, folder: Path, sets: str) -> list[str]:
    """Do the main job with a checkout in a folder. Return what it writes, without times."""
    modes = "--prepare --train --test --test-onnx --export onnx --exp run "
    done = command(checkout, "main.py", f"{modes}{places(folder)}{RECIPE} {sets}")
    assert done.returncode == 0, done.stderr
    run, faces = folder / "runs" / "run", folder / "faces.json"
    seen = command(checkout, "demo.py", f"--source assets/astronaut.jpg --json {faces} --exp {run}/best.onnx")
    assert seen.returncode == 0, seen.stderr
    return [file.read_text() for file in (run / "report" / "scores.csv", run / "step.csv", faces)]


def test_what_the_core_calls_is_what_the_rooms_add():
    called = set()
    for file in (ROOT / "utils").rglob("*.py"):
        called |= {*re.findall(r"rooms\.([a-z]+)\.(\w+)", file.read_text(encoding="utf-8"))}
    added = {(room.name, name) for room in ROOMS.values() for name in room.places}
    assert {(room, name) for room, name in called if room in ROOMS} <= added | {(room, "require") for room in ROOMS}
    assert all(getattr(ROOMS[room], name) is not None for room, name in added)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of the main job with the whole checkout, and its figures."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, figures(ROOT, folder, RENDERED)


@pytest.mark.parametrize("room", [QUICK, *slow(*sorted(ROOMS.keys() - {QUICK}))])
def test_a_checkout_without_a_room_does_the_main_job(room, whole, tmp_path):
    listing = "git ls-files -co --exclude-standard -- *.py args.yaml pipnet extras weights assets"
    listed = subprocess.run(listing.split(), cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.split("\n"):
        if name and not name.startswith(("tests/", f"extras/{room}/")) and (ROOT / name).is_file():
            (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(ROOT / name, tmp_path / "copy" / name)
    folder, expected = whole
    (meta,) = (folder / "data").glob("synthetic*/meta.yaml")
    sets = f"--train-data {meta.parent}" if room == "synthetic" else RENDERED
    assert figures(tmp_path / "copy", tmp_path, sets) == expected
    for flags in (NEEDS[room], *KEY_OF.get(room, ())):
        done = command(tmp_path / "copy", "main.py", f"{flags} {places(tmp_path)}")
        assert done.returncode != 0 and "Traceback" not in done.stderr
        assert done.stderr.count("error: ") == 1 and f"extras/{room}" in done.stderr.strip().split("\n")[-1], (
            done.stderr
        )
