"""Prove that a change of the code's structure changes no number.

`python benchmarks/golden.py save FILE.json` runs what COMMANDS lists, on one CPU thread, and writes the numbers that come of it.
`python benchmarks/golden.py compare FILE.json` does so again, on the same machine, and prints what differs. Its status is 1 if
anything does. Only main.py, demo.py and `Landmarker` are used. A flag that gets another name changes in COMMANDS.
"""
import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PHOTOGRAPH, PEOPLE = ROOT / "assets" / "astronaut.jpg", ROOT / "assets" / "faces.jpg"
PACKAGES = ("torch", "timm", "numpy", "onnxruntime", "onnxscript")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
PLACES = "--data-root {root}/data --run-root {root}/runs --threads 1"
DATA = PLACES + " --workers 0 --dataset synthetic --synthetic-train 64 --synthetic-test 12 --target-size 64"
SMALL = DATA + " --weights none --input-size 64 --batch-size 8 --epochs 2"
TINY = SMALL + " --net timm:test_efficientnet"
TESTED = "main.py --train --test --test-onnx "
COMMANDS = (
    TESTED + TINY + " --exp pip --refine",
    TESTED + TINY + " --exp reinit --reinit",
    TESTED + TINY + " --exp simcc --head simcc",
    TESTED + SMALL + " --exp slim --preset slim --flip-test --box true perturbed",
    TESTED + SMALL + " --exp detect --task detect --input-size 128 --crops 32",
    "main.py --train " + TINY + " --exp distilled --teacher {root}/runs/pip/best.pt",
    "main.py --audit " + TINY + " --exp audit",
    "main.py " + PLACES + " --exp pip --predict {people} --out {root}/runs/predicted.csv",
    "demo.py --source {root}/clip.avi --json {root}/clip.json --pose --drowsiness --threads 1",
)
LANDMARKERS = {  # arguments of Landmarker
    "the nets of the project": {},
    **{name: {"landmarks": f"{{root}}/runs/{name}/best.onnx"} for name in ("pip", "reinit", "simcc", "slim")},
    "detect": {"detector": {"weights": "{root}/runs/detect/best.onnx", "threshold": 0.01, "threads": 1}, "max_faces": 8},
}
PREDICT = """
import json, sys
import cv2
from pipnet import Detector, Landmarker
values, files = json.load(sys.stdin)
if "detector" in values:
    values["detector"] = Detector(**values["detector"])
landmarker = Landmarker(threads=1, **values)
for file in files:
    faces = landmarker(cv2.imread(file))
    print([[value.tolist() if hasattr(value, "tolist") else value for value in face if value is not None] for face in faces])
"""
FRAMES, RATE, WIDTH, HEIGHT = 30, 10, 320, 240  # of the clip


def draw_clip(file: Path) -> None:
    """Write a video that pans and zooms over the photograph."""
    image = cv2.imread(str(PHOTOGRAPH))
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (WIDTH, HEIGHT))
    for phase in np.linspace(0, 2 * np.pi, FRAMES):
        zoom = 0.9 + 0.3 * np.sin(phase)
        x, y = 0.45 * image.shape[1] + 30 * np.cos(2 * phase), 0.25 * image.shape[0] + 20 * np.sin(phase)
        matrix = np.array([[zoom, 0, WIDTH / 2 - zoom * x], [0, zoom, HEIGHT / 2 - zoom * y]])
        writer.write(cv2.warpAffine(image, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    writer.release()


def python(*words: str, given: str = "") -> str:
    """Run this interpreter in the checkout and return what it prints. A failure ends everything."""
    environment = os.environ | ENVIRONMENT
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, input=given, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(words)}\n{done.stderr[-3000:]}")
    return done.stdout


def predicted(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield what each landmarker finds in the photographs and in some of the rendered pictures, a line each."""
    files = [str(PHOTOGRAPH), str(PEOPLE), *map(str, sorted((root / "data").rglob("face*.jpg"))[::8])]
    for name, values in LANDMARKERS.items():
        given = json.dumps([values, files]).replace("{root}", str(root))
        yield f"predicted by {name}", python("-c", PREDICT, given=given).splitlines()


def collect(root: Path) -> dict[str, list[str]]:
    """Run everything in the folder `root` and return the lines of each table."""
    draw_clip(root / "clip.avi")
    for command in COMMANDS:
        print(command.split(" --exp ")[-1], file=sys.stderr)
        python(*command.format(root=root, people=PEOPLE).split())
    files = sorted(path for path in root.rglob("*") if path.suffix in (".csv", ".tsv") and path.name != "time.csv")
    found = {str(file.relative_to(root)): file.read_text(encoding="utf-8").splitlines() for file in [*files, root / "clip.json"]}
    pictures = sorted((root / "data").rglob("*.jpg"))
    found["pictures"] = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}, {file.relative_to(root)}" for file in pictures]
    found |= predicted(root)
    return {name: [line.replace(str(root), "ROOT") for line in lines] for name, lines in found.items()}


def measured() -> dict:
    """Return all that is collected, the commit and the versions."""
    with tempfile.TemporaryDirectory() as folder:
        values = collect(Path(folder).resolve())
    git = [subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
           for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))]
    versions = {"python": platform.python_version(), "opencv": cv2.__version__}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"commit": git[0] + ("-dirty" if git[1] else ""), "versions": versions, "values": values}


def differences(name: str, before: list[str], after: list[str]) -> tuple[list[str], list[str]]:
    """Return the differences of two tables and, apart from them, notes on their headers."""
    wrong, notes = [], []
    if len(before) != len(after):
        wrong.append(f"{name}: {len(before)} lines before, {len(after)} after")
    for number, lines in enumerate(zip(before, after, strict=False), 1):
        old, new = (re.split(r"[,\t]", line) for line in lines)
        cells = [f"{a.strip()} -> {b.strip()}" for a, b in zip(old, new, strict=False) if a != b]
        if len(old) != len(new):
            wrong.append(f"{name}, line {number}: {len(old)} cells -> {len(new)} cells: {lines[0][:99]} -> {lines[1][:99]}")
        elif cells and number == 1 and name.endswith((".csv", ".tsv")):
            notes.append(f"{name}: header changed: {'; '.join(cells)}")
        elif cells:
            wrong.append(f"{name}, line {number}: {cells[0]}" + (f" (and {len(cells) - 1} more cells)" if cells[1:] else ""))
    return wrong, notes


def compare(before: dict, after: dict) -> int:
    """Print what differs and return the exit status."""
    names = sorted(before["values"].keys() | after["values"].keys())
    pairs = [differences(name, *(one["values"].get(name, []) for one in (before, after))) for name in names]
    wrong, notes = (sum(parts, []) for parts in zip(*pairs, strict=True))
    if before["versions"] != after["versions"]:
        notes.append(f"other versions: {before['versions']} -> {after['versions']}")
    for line in (*wrong, *notes):
        print(line)
    lines, commits = sum(map(len, after["values"].values())), f"{before['commit']} and {after['commit']}"
    print(f"{len(wrong)} differences between {commits}" if wrong else f"equal: {lines} lines of {len(names)} tables, {commits}")
    return bool(wrong)


def main() -> int:
    """Save or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("save", "compare"))
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    before = json.loads(args.file.read_text(encoding="utf-8")) if args.mode == "compare" else None
    os.nice(5)
    after = measured()
    if before:
        return compare(before, after)
    args.file.write_text(json.dumps(after, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
