"""Fifty faces with eight own points: a net fine-tuned to them against one from random weights, with the same recipe and budget.

`python benchmarks/finetune.py`. Nets to start from: weights/bench_default and weights/bench_synthetic_to_real, which
benchmarks/runs.py trains; both have seen rendered faces with 68 landmarks only. Real faces: 50 of 300W's lfpw/trainset, tested on
lfpw/testset, in the folder named by FACES_300W. What is absent is skipped, saying so.
"""
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import ROOT, rows, save
from runs import FACES

from utils.data.parsers import DATASETS, write_pts
from utils.data.synthetic.points import own_points, write

FACES_300W = ROOT / FACES["300W"]
BASES = {"synthetic": ROOT / "weights/bench_default/best.pt", "real": ROOT / "weights/bench_synthetic_to_real/best.pt"}
LAYOUT = """mine:
  count: 8
  flip_index: [1, 0, 2, 4, 3, 5, 7, 6]
  interocular: [0, 1]
  same_as: {"68": {0: 36, 1: 45, 2: 30, 3: 48, 4: 54}}
"""
FLAGS = ("--train", "--test", "--layout", "mine.yaml", "--protocol", "inner", "--preset", "finetune", "--input-size", "128")


def write_real(folder: Path, train: int = 50) -> None:
    """Copies photographs of lfpw with the eight points of `utils.synthetic.points`: `train` of its training part, all tests."""
    splits = {split: [record for record in records if "lfpw" in record.subset]
              for split, records in DATASETS["300w"].parse(FACES_300W, allow_partial=True).items()}
    splits["train"] = splits["train"][::len(splits["train"]) // train][:train]
    for split, records in splits.items():
        (folder / split).mkdir(parents=True)
        for record in records:
            file = folder / split / record.file.name
            shutil.copy(record.file, file)
            write_pts(file.with_suffix(".pts"), own_points(record.landmarks) - 0.5)


def score(place: Path, exp: str, faces: str, weights: str) -> dict:
    """Trains and tests below `place`, the way the README says; NME, failure rate and minutes."""
    roots = ("--data-root", str(place / "data"), "--run-root", str(place / "runs"), "--exp", exp)
    start = time.perf_counter()
    command = [sys.executable, str(ROOT / "main.py"), *FLAGS, "--dataset", str(place / faces), "--weights", weights, *roots]
    subprocess.run(command, cwd=place, check=True)
    row = rows(place / "runs" / exp / "report" / "scores.csv")[0]
    return {**{key: row[key] for key in ("faces", "NME %", "FR@10 %")}, "minutes": round((time.perf_counter() - start) / 60, 2)}


if __name__ == "__main__":
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "mine.yaml").write_text(LAYOUT, encoding="utf-8")
        for name, base in BASES.items():
            missing = next((need for need in (base, *[FACES_300W] * (name == "real")) if not need.exists()), None)
            if missing:
                print(f"{name} skipped: no {missing}")
                continue
            (write if name == "synthetic" else write_real)(place / name)
            figures[name] = {"from": base.parent.name, "training_faces": 50,
                             "fine-tuned": score(place, f"{name}-tuned", name, str(base)),
                             "from_scratch": score(place, f"{name}-scratch", name, "none")}
    if figures:
        flags = " ".join(FLAGS)
        save("finetune", f"python benchmarks/finetune.py = python main.py {flags} --dataset mine --weights FILE|none", 0, figures)
