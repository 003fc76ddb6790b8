"""Trainings that are compared: `python benchmarks/experiments.py TABLE [ROW ...] [--seeds 0] [--net NAME] [--epochs N]
...`.

experiments.yaml holds the flags of main.py for each row. A row is trained, then measured:

- val: the best validation NME
- 300w, faces68: the NME on their test splits. With `flip`: the mean with the mirror image. `crop`: in the frame of the
  crop.

A complete run is not repeated and a killed one is continued, so a table can be made in several calls. A table's result
file keeps the figures of every seed, and the rows as they are shown. `runs NAME ...` are whole runs of main.py with a
result file each.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml
from photographs import missing, named
from record import COMMIT, ROOT, chosen, result, save
from shown import SETS, text

from pipnet.files import read_csv

OWN = Path(__file__).with_suffix(".yaml")


def read(file: Path = OWN) -> dict:
    """Return the sections of a file of experiments."""
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def flags_of(words: str, known: dict[str, str], **values) -> list[str]:
    """Return flags of main.py: `words`, with `known` lines and values in place of names in braces."""
    while "{" in words:
        words = re.sub(r"{(\w+)}", lambda name: str({**known, **values}[name[1]]), words)
    return words.split()


def run(*flags: str) -> None:
    """Run main.py. Stop this program if it fails."""
    if status := subprocess.run([sys.executable, "main.py", *named(list(flags))], cwd=ROOT).returncode:
        sys.exit(f"main.py {' '.join(flags)} failed with status {status}")


def whole_runs(names: list[str], rows: dict[str, dict], known: dict[str, str]) -> None:
    """Carry out the runs of these names, or all; say which ones lack data."""
    for name in chosen(rows, names):
        if why := missing(flags_of(rows[name]["flags"], known)):
            print(f"{name} skipped: {why}")
        else:
            whole_run(name, rows[name], known)


def whole_run(name: str, row: dict[str, str], known: dict[str, str]) -> None:
    """Run main.py in weights/bench_NAME and save its scores, minutes and images/s; of a detector, `measure.py detector`
    tells.
    """
    flags, start = flags_of(row["flags"], known), time.perf_counter()
    run(*flags, "--exp", f"bench_{name}", "--overwrite")
    minutes, folder = (time.perf_counter() - start) / 60, ROOT / "weights" / f"bench_{name}"
    speed = np.median([float(epoch["images_per_second"]) for epoch in read_csv(folder / "time.csv")])
    scores = read_csv(folder / "report" / "scores.csv")
    if "NME %" not in scores[0]:
        return
    save(
        name,
        "python " + " ".join(["main.py", *flags]),
        0,
        {
            "minutes": round(minutes, 2),
            "images_per_second": round(float(speed), 1),
            "scores": scores,
            "rows": score_rows(name, row["trained_on"], scores),
        },
    )


def score_rows(name: str, trained_on: str, scores: list[dict]) -> list[dict]:
    """Return the rows of a whole run, one for each test set."""
    by_model: dict[str, list[dict]] = {"torch": [], "onnx": []}
    for row in scores:
        if not row["test set"].startswith(" ") and row["model"] in by_model:  # not a subset
            by_model[row["model"]].append(row)
    rows = []
    for row, other in zip(*by_model.values(), strict=False):
        place = re.sub("-pipnet(-published)?$", "", row["test set"])
        rows.append(
            {
                "run": "" if rows else f"`{name}`",
                "trained on": "the same" if rows else trained_on,
                "tested on": SETS.get(place, place),
                "faces": row["faces"],
                "NME %": f"{float(row['NME %']):.2f}",
                "FR@10 %": f"{float(row['FR@10 %']):.1f}",
                "AUC@10": f"{float(row['AUC@10']):.3f}",
                "ONNX": f"{abs(float(other['NME %']) - float(row['NME %'])):.3f}",
            }
        )
    return rows


def row_flags(file: dict, name: str, row: str, given: argparse.Namespace) -> tuple[list[str], int]:
    """Return the flags of a row without --seed, and its epochs."""
    table = file["tables"][name]
    epochs = given.epochs or table.get("epochs", 30)
    words = f"{table['flags']} {table['rows'][row]}"
    return flags_of(words, file["flags"], size=given.size, net=given.net, epochs=epochs, **shares(epochs)), epochs


def shares(epochs: int) -> dict[str, int]:
    """Return the epochs at which PIPNet's recipe lowers the learning rate."""
    return {"half": epochs // 2, "five_sixths": epochs * 5 // 6}


def trained(file: dict, name: str, row: str, seed: int, given: argparse.Namespace) -> Path:
    """Return the folder of a row's run. Train it unless it is complete; continue a run that was killed."""
    flags, epochs = row_flags(file, name, row, given)
    words = re.sub("[^a-z0-9]+", "_", f"{name} {row} {given.net}".lower())
    folder = ROOT / "weights" / f"{words}_{epochs}_{given.size}_{seed}"
    if len(read_csv(folder / "step.csv")) < epochs:
        run(
            "--train", *["--resume"] * (folder / "last.pt").is_file(), "--exp", folder.name, "--seed", str(seed), *flags
        )
    return folder


def tested(folder: Path, flip: bool) -> Iterator[tuple[str, float]]:
    """Yield the NME on both test sets, in the picture and in the crop."""
    run("--exp", folder.name, "--test", "--test-data", "300w", "FACES68", "--allow-partial", *["--flip-test"] * flip)
    for row in read_csv(folder / "report" / "scores.csv"):
        if row["model"] == "torch" and not row["test set"].startswith(" "):
            place = row["test set"].split("-")[0] + " flip" * flip
            yield from ((place, float(row["NME %"])), (f"{place} crop", float(row["crop NME %"])))


def measure(folder: Path, figures: set[str]) -> dict[str, float]:
    """Return those of the figures that a finished run has."""
    found = {"val": min(float(epoch["val_nme"]) for epoch in read_csv(folder / "step.csv"))} if "val" in figures else {}
    for flip in (False, True):
        if any(figure.startswith(("300w", "faces68")) and ("flip" in figure) == flip for figure in figures):
            found |= tested(folder, flip)
    return {name: round(value, 4) for name, value in found.items()}


def shown(table: dict, found: dict[str, dict]) -> list[dict]:
    """Return the rows of a table as text: of each figure the mean over the seeds, and their deviation."""
    known = table["rows"]
    names = [*(name for name in known if name in found), *(name for name in found if name not in known)]

    def values(name: str, figure: str) -> list[float]:
        return [seed[figure] for seed in found[name]["seeds"].values() if seed.get(figure) is not None]

    def cell(name: str, column: str) -> str:
        figure, _, form = column.partition("|")
        if figure == "flags":
            return f"`{found[name]['flags']}`" if found[name]["flags"] else ""
        if figure == "name":
            return name if name in known else f"{name} (option removed)"
        own, first = values(name, figure), values(names[0], figure)
        if not own:
            return ""
        if form == "change" and name == names[0]:
            return f"{np.mean(own):.2f}"
        return f"{np.mean(own) - np.mean(first):+.2f}" if form else text(own)

    return [{title: cell(name, figure) for title, figure in table["columns"].items()} for name in names]


def main() -> None:
    file = read()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("runs", *file["tables"]))
    parser.add_argument("rows", nargs="*", metavar="ROW", help="without: all of the table")
    parser.add_argument("--epochs", type=int, help="without: those of the file, or 30")
    parser.add_argument("--size", type=int, default=128, help="px of the input")
    parser.add_argument("--net", default="resnet18")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    if given.table == "runs":
        whole_runs(given.rows, file["runs"], file["flags"])
        return
    name, table = given.table, file["tables"][given.table]
    figures = {figure.partition("|")[0].partition(",")[0] for figure in table["columns"].values()}
    by_net = any("val," in figure for figure in table["columns"].values())
    found = result(name).get("measured", {})
    for seed in given.seeds:
        for row in chosen(table["rows"], given.rows):
            flags, epochs = row_flags(file, name, row, given)
            if why := missing([*flags, "FACES68"]):
                print(f"{row} skipped: {why}")
                continue
            values = measure(trained(file, name, row, seed, given), figures)
            if by_net:
                values = {f"{figure}, {given.net}, {epochs}": value for figure, value in values.items()}
            own = flags_of(table["rows"][row], file["flags"], **shares(epochs))
            entry = found.setdefault(row, {"seeds": {}})
            entry["flags"] = " ".join(own)
            entry["seeds"].setdefault(str(seed), {}).update(commit=COMMIT, epochs=epochs, **values)
            how = " ".join(word if " " not in word else f'"{word}"' for word in sys.argv[1:])
            figures_of = {"measured": found, "rows": shown(table, found)}
            save(name, f"python benchmarks/experiments.py {how}", seed, figures_of)


if __name__ == "__main__":
    main()
