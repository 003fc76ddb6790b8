"""Learning from unlabelled faces, row by row: `python benchmarks/semi.py [SETTING ...] [--epochs 60] [--size 128] ...`.

synthetic: synthetic faces with labels, 300W and FACES68 without. faces68: 300W with labels, FACES68 without. identities: a
twentieth of the identities of FACES68 with labels, the others without. adapted, start: as synthetic and identities, but each net
starts from one that was trained on synthetic faces first, and learns at a third of the rate. All rows of a setting train on
equally many pictures with the same keys of the section `augment`; the nets of the rounds share the epochs. A complete run is not
repeated and a killed one goes on, so the table can be made in pieces. Without the mean offset of each landmark, the error does
not count labelling conventions.
"""
import argparse
from pathlib import Path

import numpy as np
import torch
from photographs import require
from recipe import file_name
from record import COMMIT, ROOT, chosen, found_rows, save
from runs import run, train

from pipnet.files import read_csv
from utils.config import read_defaults
from utils.evaluate import metric
from utils.evaluate.evaluate import evaluate, torch_predictor
from utils.faces.prepared_set import PreparedSet, Split, load_splits
from utils.keys import MEAN_TEACHER, ROUNDS
from utils.train import checkpoint
from utils.train.ranks import set_threads

RECIPE = ["--preset", "short", "--no-refine", "--weights", "none", "--val", "none", "--allow-partial", "--roll-prob", "0.05"]
W300, FACES = ["--dataset", "300w", "--data-dir", "300W"], ["--dataset", "FACES68", "--label-shift", "1.2"]
SYNTHETIC = ["--dataset", "synthetic", "--synthetic-train", "6000", "--data-dir", "300W"]
FEW = ["--labelled-fraction", "0.05"]
# START stands for the net that was trained on synthetic faces with the same seed; at a lower rate it loses less of what it knows
START = ["--weights", "START", "--learning-rate", "0.0003"]
SOURCE, ALL = "labels only", "all labels"
ROWS = (SOURCE, *ROUNDS, MEAN_TEACHER, ALL)
TARGETS = ["--unlabelled", "300w", "faces68"]
THREE = [*SYNTHETIC, "--train-data", "synthetic", "300w", "FACES68", "--label-shift", "0", "0.75", "1.2"]
SETTINGS = {  # labelled, unlabelled, all with their labels
    "synthetic": (SYNTHETIC, TARGETS, THREE),
    "adapted": ([*SYNTHETIC, *START], TARGETS, [*THREE, *START]),
    "faces68": (W300, ["--unlabelled", "faces68"], [*W300, "--train-data", "300w", "FACES68", "--label-shift", "0.75", "1.2"]),
    "identities": ([*FACES, *FEW], [], FACES),
    "start": ([*FACES, *FEW, *START], [], [*FACES, *START]),
}


def starts(setting: str) -> bool:
    """Return whether the nets of a setting start from one that was trained on synthetic faces."""
    return START[1] in SETTINGS[setting][0]


def flags_of(setting: str, row: str, given: argparse.Namespace) -> list[str]:
    """Return the flags of main.py for a row, without --seed."""
    labelled, unlabelled, everything = SETTINGS[setting]
    flags = budget(given, len(ROUNDS.get(row, ())) + 1)
    if row == ALL:
        return [*flags, *everything]
    if row == SOURCE:
        return [*flags, *labelled]
    share = ["--unlabelled-share", "0.75"] if row == MEAN_TEACHER and starts(setting) else []  # the net has seen many labels
    return [*flags, *labelled, "--semi", row, *unlabelled, *share]


def budget(given: argparse.Namespace, nets: int = 1) -> list[str]:
    """Return the flags that all rows share, for one of several nets of a row."""
    return [*RECIPE, "--net", given.net, "--input-size", str(given.size), "--epochs", str(max(given.epochs // nets, 1)),
            "--epoch-steps", str(given.limit)]


def errors(folder: Path) -> dict[str, dict[str, float]]:
    """Return {test set: NME % as labelled, and without the mean offset of each landmark}."""
    net, layout, stored = checkpoint.unpack(folder / "best.pt")
    predict, found = torch_predictor(net, torch.device("cuda" if torch.cuda.is_available() else "cpu")), {}
    for name in ("300w", "faces68"):
        one = PreparedSet(ROOT / stored["args"]["data_root"] / name, read_defaults().layouts)
        faces = load_splits([Split(one, "test")], layout, net.spec["input_size"], 0)
        result = evaluate(predict, faces, layout, "interocular", 64)
        norms = metric.norms(faces["landmarks"][:], layout)[:, None]
        offsets = (result.landmarks - faces["landmarks"][:]) / norms[..., None]
        apart = 100 * np.linalg.norm(offsets - np.nanmean(offsets, 0), axis=-1)
        found[name] = {"NME %": float(np.nanmean(result.nme)), "without offsets": float(np.nanmean(apart))}
    return found


def name_of(setting: str, given: argparse.Namespace) -> str:
    """Return the name of a setting's result file."""
    net = "" if given.net == "resnet18" else f"_{file_name(given.net)}"
    epochs = f"{given.start_epochs}+{given.epochs}" if starts(setting) else given.epochs
    return f"semi_{setting}_{epochs}_{given.limit}_{given.size}{net}"


def trained(setting: str, row: str, seed: int, given: argparse.Namespace) -> Path:
    """Return the folder of a row's run. Train it, and the net that it starts from, if they are not there."""
    flags = flags_of(setting, row, given)
    if starts(setting):
        start = trained("synthetic", SOURCE, seed, argparse.Namespace(**{**vars(given), "epochs": given.start_epochs}))
        flags = [str(start / "best.pt") if word == START[1] else word for word in flags]
    return train(f"{name_of(setting, given)}_{file_name(row)}_{seed}", ["--seed", str(seed), *flags])


def measure(setting: str, row: str, seed: int, given: argparse.Namespace) -> dict:
    """Return the errors of a row and the images/s of its last net; train it first if it is not there."""
    folder = trained(setting, row, seed, given)
    times = read_csv(folder / "time.csv")
    return {"errors": errors(folder), "images_per_second": float(np.median([float(time["images_per_second"]) for time in times]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", metavar="SETTING", help=f"of {', '.join(SETTINGS)}; without: all")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--epochs", type=int, default=60, help="of all nets of a row together")
    parser.add_argument("--start-epochs", type=int, help="of the net that the rows start from; without: as many")
    parser.add_argument("--limit", type=int, default=200, help="steps of 16 pictures in an epoch")
    parser.add_argument("--net", default="resnet18")
    parser.add_argument("--size", type=int, default=128, help="px of the input")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args()
    given.start_epochs = given.start_epochs or given.epochs
    wanted = chosen(SETTINGS, given.settings)
    require("300W", "FACES68")
    set_threads(0, False)
    run("--prepare", *W300, "--allow-partial", "--val", "none")
    run("--prepare", "--dataset", "FACES68", "--val", "none")
    for seed in given.seeds:
        for setting in wanted:
            name = name_of(setting, given)
            done = found_rows(name)
            for row in given.rows:
                entry = done.setdefault(row, {"flags": " ".join(flags_of(setting, row, given)), "seeds": {}})
                entry["seeds"][str(seed)] = {"commit": COMMIT, **measure(setting, row, seed, given)}
                start = f"--start-epochs {given.start_epochs} " if given.start_epochs != given.epochs else ""
                how = f"--net {given.net} {start}--epochs {given.epochs} --limit {given.limit} --size {given.size}"
                save(name, f"python benchmarks/semi.py {setting} {how}", seed, {"rows": done})


if __name__ == "__main__":
    main()
