"""Recipe against recipe, and one change at a time: `python benchmarks/recipe.py recipes|ablation [ROW ...] [--epochs 30] ...`.

Trains on the part of 300W that FACES_300W names (see runs.py), 128 px, ResNet-18 (--net) from random weights; every row is
judged on the validation split. `recipes` are also tested, since they are final rows. A run that is whole is not repeated and one
that was killed goes on, so that a long table can be made in pieces.
"""
import argparse
import json
import re
import subprocess
import sys

import numpy as np
from record import COMMIT, RESULTS, ROOT, rows, save
from runs import FACES, REAL, skipped

DATA = REAL[:REAL.index("--test-data")]
RECIPES = {
    "default": ["--preset", "default"],
    "short": ["--preset", "short"],
    "short, not refined": ["--preset", "short", "--no-refine"],
    "pipnet": ["--preset", "pipnet", "--amp", "auto", "--weight-decay", "0.0005"],  # the decay of nets without pretrained weights
}
BASE = ["--preset", "short", "--rotation", "20", "--scale", "0.1", "--translation", "0.05", "--occlusion", "0.3", "--sigma", "0",
        "--no-refine"]
TEACHER = ROOT / "weights" / "recipe_recipes_short_12_128_0" / "best.pt"  # of `recipes short --epochs 12`
ABLATION = {  # against `base`; what was found so is `short`
    "base": [],
    "preset short": ["--rotation", "10", "--scale", "0.05", "--translation", "0.02", "--occlusion", "0.1", "--sigma", "0.5"],
    "predicted errors weigh the merge": ["--sigma", "0.5"],
    "no EMA": ["--ema", "0"],
    "EMA of 0.998": ["--ema", "0.998"],
    "no rotation, scale or shift": ["--rotation", "0", "--scale", "0", "--translation", "0"],
    "rotation, scale, shift of default": ["--rotation", "30", "--scale", "0.15", "--translation", "0.08"],
    "no colour, blur or noise": ["--colour-prob", "0", "--grayscale", "0", "--blur", "0", "--noise", "0"],
    "infrared look 0.1": ["--infrared", "0.1"],
    "no occlusion": ["--occlusion", "0"],
    "labels of 300W as they lie": ["--label-shift", "0"],
    "black round the crop": ["--fill", "black"],
    "protocol pipnet": ["--protocol", "pipnet"],
    "steps at 1/2 and 5/6": ["--schedule", "steps"],
    "weight decay 0.05": ["--weight-decay", "0.05"],
    "batch 32": ["--batch-size", "32"],
    "smooth L1": ["--error", "smooth-l1"],
    "stride 16": ["--stride", "16"],
    "stride 8": ["--stride", "8"],
    "refiner": ["--refine"],
    "teacher": ["--teacher", str(TEACHER.relative_to(ROOT))],
}
TABLES = {"recipes": RECIPES, "ablation": ABLATION}


def flags_of(table: str, row: str, epochs: int, size: int, net: str = "resnet18") -> list[str]:
    """What main.py is given for a row, but for the seed."""
    flags = [*DATA, "--weights", "none", "--input-size", str(size), "--epochs", str(epochs)]
    flags += ["--net", net] if net != "resnet18" else []
    flags += [*(BASE if table == "ablation" else []), *TABLES[table][row]]
    if "steps" in flags or TABLES[table][row][:2] == ["--preset", "pipnet"]:
        flags += ["--milestones", f"{epochs // 2},{epochs * 5 // 6}"]
    return flags


def small(name: str) -> str:
    """As part of a file's name."""
    return re.sub("[^a-z0-9]+", "_", name.lower())


def measure(table: str, row: str, epochs: int, size: int, seed: int, net: str) -> dict:
    """Trains one run, or goes on with the one that is there, and returns its figures in % NME."""
    exp = f"recipe_{table}_{small(row)}_{epochs}_{size}_{seed}" + (f"_{small(net)}" if net != "resnet18" else "")
    folder = ROOT / "weights" / exp
    main = [sys.executable, "main.py", "--exp", exp]
    if len(rows(folder / "step.csv")) < epochs:
        flags = [FACES.get(flag, flag) for flag in flags_of(table, row, epochs, size, net)]
        how = "--resume" if (folder / "last.pt").is_file() else "--overwrite"
        run([*main, "--train", how, "--seed", str(seed), *flags])
    steps, times = rows(folder / "step.csv"), rows(folder / "time.csv")
    figures = {"val": min(float(step["val_nme"]) for step in steps),
               "images_per_second": float(np.median([float(time["images_per_second"]) for time in times]))}
    if table == "recipes":
        for name, more in (("test", []), ("flip_test", ["--flip-test"])):
            run([*main, "--test", "--test-data", "300w", FACES["FACES68"], "--allow-partial", *more])
            scores = rows(folder / "report" / "scores.csv")
            figures[name] = {score["test set"].strip(): float(score["NME %"]) for score in scores if score["model"] == "torch"}
    return figures


def run(command: list[str]) -> None:
    """A command of the project, or the end of this one."""
    if (status := subprocess.run(command, cwd=ROOT).returncode):
        sys.exit(f"failed with status {status}: {' '.join(command)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="all of the table unless named")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--input-size", type=int, default=128)
    parser.add_argument("--net", default="resnet18")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    if unknown := set(given.rows) - set(TABLES[given.table]):
        sys.exit(f"no row {', '.join(unknown)} (there are: {', '.join(TABLES[given.table])})")
    if missing := skipped(REAL if given.table == "recipes" else DATA):
        sys.exit(f"skipped: no {missing}")
    name, net = f"recipe_{given.table}_{given.epochs}_{given.input_size}", ""
    if given.net != "resnet18":
        name, net = f"{name}_{small(given.net)}", f" --net {given.net}"
    file = RESULTS / f"{name}.json"
    done = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else {}
    for seed in given.seeds:
        for row in given.rows or TABLES[given.table]:
            if str(TEACHER.relative_to(ROOT)) in TABLES[given.table][row] and not TEACHER.is_file():
                print(f"{row} skipped: no {TEACHER}; `recipes short --epochs 12` makes it")
                continue
            figures = measure(given.table, row, given.epochs, given.input_size, seed, given.net)
            entry = done.setdefault(row, {"flags": " ".join(TABLES[given.table][row]), "seeds": {}})
            entry["seeds"][str(seed)] = {"commit": COMMIT, **figures}
            values = [found["val"] for found in entry["seeds"].values()]
            entry["val"] = [round(float(np.mean(values)), 3), round(float(np.std(values)), 3)]  # mean and deviation
            save(name, f"python benchmarks/recipe.py {given.table} --epochs {given.epochs} --input-size {given.input_size}{net}",
                 seed, {"rows": done})


if __name__ == "__main__":
    main()
