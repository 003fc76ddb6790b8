"""Fifty faces with ten own points: a net that starts from a shipped one against one from random weights, same recipe and budget.

`python benchmarks/finetune.py [NET]` starts from the shipped net NET (landmarks). Rendered faces: 50 to train, 200 to test. Real
faces: 50 of 300W's lfpw/trainset, tested on lfpw/testset. The shipped net has seen these 50 with its own 68 landmarks, but no
face of the tests. What is missing is skipped with a message.
"""
import shutil
import sys
import tempfile
import time
from pathlib import Path

from photographs import PLACES, missing
from record import save
from runs import run

from pipnet.files import read_csv
from utils.faces.archives import DATASETS, image_of, write_pts
from utils.synthetic.points import own_points, write

LAYOUT = """mine:
  count: 10
  flip_index: [1, 0, 3, 2, 4, 6, 5, 7, 9, 8]
  interocular: [0, 1]
  same_as: {"68": {0: 36, 1: 45, 2: 39, 3: 42, 4: 30, 5: 48, 6: 54}}
"""
FLAGS = ("--train", "--test", "--protocol", "inner", "--preset", "finetune")


def write_real(folder: Path, train: int = 50) -> None:
    """Copy photographs of lfpw with ten points: `train` of its training part and all of its tests."""
    for split, table in DATASETS["300w"].parse(PLACES["300W"], allow_partial=True).items():
        rows = [row for row, subset in enumerate(table["subset"]) if "lfpw" in subset]
        (folder / split).mkdir(parents=True)
        for row in rows[::len(rows) // train][:train] if split == "train" else rows:
            source = image_of(PLACES["300W"], table["file"][row])
            file = folder / split / source.name
            shutil.copy(source, file)
            write_pts(file.with_suffix(".pts"), own_points(table["landmarks"][row]) - 0.5)


def score(place: Path, exp: str, faces: str, *flags: str) -> dict:
    """Train and test below `place`, as docs/finetuning.md says. Return NME, failure rate and minutes."""
    start = time.perf_counter()
    run(*FLAGS, "--layout", str(place / "mine.yaml"), "--dataset", str(place / faces), *flags, "--data-root", str(place / "data"),
        "--run-root", str(place / "runs"), "--exp", exp)
    row = read_csv(place / "runs" / exp / "report" / "scores.csv")[0]
    return {**{key: row[key] for key in ("faces", "NME %", "FR@10 %")}, "minutes": round((time.perf_counter() - start) / 60, 2)}


if __name__ == "__main__":
    base, figures = (sys.argv[1:] or ["landmarks"])[0], {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "mine.yaml").write_text(LAYOUT, encoding="utf-8")
        for name, make in {"synthetic": write, "real": write_real}.items():
            if why := missing(["300W"]) if name == "real" else None:
                print(f"{name} skipped: {why}")
                continue
            make(place / name)
            scratch = ("--net", "timm:resnet10t", "--input-size", "192", "--weights", "none")
            figures[name] = {"from": base, "training_faces": 50, "fine-tuned": score(place, "tuned", name, "--weights", base),
                             "from_scratch": score(place, "scratch", name, *scratch)}
            shutil.rmtree(place / "runs")
    save("finetune", f"python benchmarks/finetune.py = python main.py {' '.join(FLAGS)} --layout mine.yaml --dataset mine "
                     f"--weights {base}|none", 0, figures)
