"""Fifty faces with eight own points: a fine-tuned net against one from random weights, same recipe and budget.

`python benchmarks/finetune.py` starts from weights/bench_default and weights/bench_synthetic_to_real, which benchmarks/runs.py
trains on rendered faces with 68 landmarks. Real faces: 50 of 300W's lfpw/trainset, tested on lfpw/testset. What is missing is
skipped with a message.
"""
import shutil
import tempfile
import time
from pathlib import Path

from photographs import PLACES, missing
from record import ROOT, save
from runs import run

from pipnet.files import read_csv
from utils.data.parsers import DATASETS, write_pts
from utils.data.synthetic.points import own_points, write

BASES = {"synthetic": ROOT / "weights/bench_default/best.pt", "real": ROOT / "weights/bench_synthetic_to_real/best.pt"}
LAYOUT = """mine:
  count: 8
  flip_index: [1, 0, 2, 4, 3, 5, 7, 6]
  interocular: [0, 1]
  same_as: {"68": {0: 36, 1: 45, 2: 30, 3: 48, 4: 54}}
"""
FLAGS = ("--train", "--test", "--protocol", "inner", "--preset", "finetune", "--input-size", "128")


def write_real(folder: Path, train: int = 50) -> None:
    """Copy photographs of lfpw with eight points: `train` of its training part and all of its tests."""
    splits = {split: [record for record in records if "lfpw" in record.subset]
              for split, records in DATASETS["300w"].parse(PLACES["300W"], allow_partial=True).items()}
    splits["train"] = splits["train"][::len(splits["train"]) // train][:train]
    for split, records in splits.items():
        (folder / split).mkdir(parents=True)
        for record in records:
            file = folder / split / record.file.name
            shutil.copy(record.file, file)
            write_pts(file.with_suffix(".pts"), own_points(record.landmarks) - 0.5)


def score(place: Path, exp: str, faces: str, weights: str) -> dict:
    """Train and test below `place`, as docs/finetuning.md says. Return NME, failure rate and minutes."""
    start = time.perf_counter()
    run(*FLAGS, "--layout", str(place / "mine.yaml"), "--dataset", str(place / faces), "--weights", weights,
        "--data-root", str(place / "data"), "--run-root", str(place / "runs"), "--exp", exp)
    row = read_csv(place / "runs" / exp / "report" / "scores.csv")[0]
    return {**{key: row[key] for key in ("faces", "NME %", "FR@10 %")}, "minutes": round((time.perf_counter() - start) / 60, 2)}


if __name__ == "__main__":
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "mine.yaml").write_text(LAYOUT, encoding="utf-8")
        for name, base in BASES.items():
            why = missing(["300W"]) if name == "real" else None
            if not base.is_file():
                why = f"no {base}; benchmarks/runs.py trains it"
            if why:
                print(f"{name} skipped: {why}")
                continue
            make = write if name == "synthetic" else write_real
            make(place / name)
            figures[name] = {"from": base.parent.name, "training_faces": 50,
                             "fine-tuned": score(place, f"{name}-tuned", name, str(base)),
                             "from_scratch": score(place, f"{name}-scratch", name, "none")}
    if figures:
        flags = " ".join(FLAGS)
        save("finetune", f"python benchmarks/finetune.py = python main.py {flags} --layout mine.yaml --dataset mine "
                         "--weights FILE|none", 0, figures)
