"""Whole recipes, and one change at a time: `python benchmarks/recipe.py recipes|ablation|pipnet [ROW ...] [--epochs 30] ...`.

Each row trains ResNet-18 (or --net) from random weights on 300W at 128 px and is compared on the validation split. `recipes` are
tested as well. `pipnet` trains on all faces, as its authors do, and tells by tests which of their steps makes which difference. A
complete run is not repeated and a killed one is continued, so a long table can be made in pieces.
"""
import argparse
import re

import numpy as np
from photographs import require
from record import COMMIT, ROOT, chosen, found_rows, save
from runs import REAL, run, train

from pipnet.files import read_csv

DATA = REAL[:REAL.index("--test-data")]
PIPNET = ["--preset", "pipnet", "--amp", "auto", "--weight-decay", "0.0005"]  # decay: no weights are pretrained
RECIPES = {
    "default": ["--preset", "default"],
    "short": ["--preset", "short"],
    "short, not refined": ["--preset", "short", "--no-refine"],
    "pipnet": [*PIPNET, "--val", "0.1"],
}
BASE = ["--preset", "short", "--rotation", "20", "--scale", "0.1", "--translation", "0.05", "--occlusion", "0.3", "--sigma", "0",
        "--no-refine"]
TEACHER = "weights/recipe_recipes_short_12_128_0/best.pt"  # `recipes short --epochs 12` trains it
ABLATION = {  # changes of `base`; the preset `short` holds those that helped
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
    "stride 16": ["--stride", "16"],
    "stride 8": ["--stride", "8"],
    "refiner": ["--refine"],
    "teacher": ["--teacher", TEACHER],
}
STEPS = {"as published": [], "labels in continuous px": ["--labels", "exact"], "one warp, then colour": ["--steps"],
         "real pixels in the corners": ["--fill", "real"]}
TABLES = {"recipes": RECIPES, "ablation": ABLATION, "pipnet": {row: [*PIPNET, *flags] for row, flags in STEPS.items()}}


def flags_of(table: str, row: str, epochs: int, size: int, net: str = "resnet18") -> list[str]:
    """Return the flags of main.py for a row, without --seed."""
    flags = [*DATA, "--weights", "none", "--input-size", str(size), "--epochs", str(epochs)]
    if net != "resnet18":
        flags += ["--net", net]
    if table == "ablation":
        flags += BASE
    flags += TABLES[table][row]
    if "steps" in flags or TABLES[table][row][:2] == ["--preset", "pipnet"]:
        flags += ["--milestones", f"{epochs // 2},{epochs * 5 // 6}"]
    return flags


def file_name(text: str) -> str:
    """Return the text as part of a file's name."""
    return re.sub("[^a-z0-9]+", "_", text.lower())


def measure(given: argparse.Namespace, row: str, seed: int) -> dict:
    """Return the figures of a row in % NME; train its net first if it is not there."""
    table, epochs, size = given.table, given.epochs, given.input_size
    exp = f"recipe_{table}_{file_name(row)}_{epochs}_{size}_{seed}"
    if given.net != "resnet18":
        exp += f"_{file_name(given.net)}"
    folder = train(exp, ["--seed", str(seed), *flags_of(table, row, epochs, size, given.net)])
    steps, times = read_csv(folder / "step.csv"), read_csv(folder / "time.csv")
    figures = {"val": min(float(step["val_nme"]) for step in steps) if table != "pipnet" else None,
               "images_per_second": float(np.median([float(time["images_per_second"]) for time in times]))}
    if table != "ablation":
        for name, more in (("test", []), ("flip_test", ["--flip-test"])):
            run("--exp", exp, "--test", "--test-data", "300w", "FACES68", "--allow-partial", *more)
            scores = [score for score in read_csv(folder / "report" / "scores.csv") if score["model"] == "torch"]
            for way, title in ((name, "NME %"), (f"{name}, crop", "crop NME %")):
                figures[way] = {score["test set"].strip(): float(score[title]) for score in scores}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="without: all of the table")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--input-size", type=int, default=128)
    parser.add_argument("--net", default="resnet18")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    wanted = chosen(TABLES[given.table], given.rows)
    require(*(DATA if given.table == "ablation" else REAL))
    name, net = f"recipe_{given.table}_{given.epochs}_{given.input_size}", ""
    if given.net != "resnet18":
        name, net = f"{name}_{file_name(given.net)}", f" --net {given.net}"
    done = found_rows(name)
    for seed in given.seeds:
        for row in wanted:
            flags = TABLES[given.table][row]
            if TEACHER in flags and not (ROOT / TEACHER).is_file():
                print(f"{row} skipped: no {TEACHER}; `python benchmarks/recipe.py recipes short --epochs 12` makes it")
                continue
            entry = done.setdefault(row, {"flags": " ".join(flags), "seeds": {}})
            entry["seeds"][str(seed)] = {"commit": COMMIT, **measure(given, row, seed)}
            if given.table != "pipnet":
                values = [found["val"] for found in entry["seeds"].values()]
                entry["val"] = [round(float(np.mean(values)), 3), round(float(np.std(values)), 3)]  # mean and deviation
            save(name, f"python benchmarks/recipe.py {given.table} --epochs {given.epochs} --input-size {given.input_size}{net}",
                 seed, {"rows": done})


if __name__ == "__main__":
    main()
