"""Trainings that are compared: `python benchmarks/experiments.py TABLE [ROW ...] [--seeds 0] [--net NAME] [--epochs N]
...`.

experiments.yaml holds the flags of main.py for each row. A row is trained, then measured:

- val: the best validation NME
- 300w, faces68: the NME on their test splits. With `flip`: the mean with the mirror image. `crop`: in the frame of the
  crop. `free`: without the mean offset of each landmark, which depends on labelling conventions.

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

from extras.tools.zoo import cpu_ms, exported_to_temporary
from pipnet.files import read_csv
from utils.data.prepared_set import PreparedSet, Split, load_splits
from utils.evaluate import metric
from utils.evaluate.evaluate import evaluate, torch_predictor
from utils.settings.config import read_defaults
from utils.settings.sections import MEAN_TEACHER, ROUNDS
from utils.train import checkpoint

OWN = Path(__file__).with_suffix(".yaml")
SOURCE, ALL = "labels only", "all labels"


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


def train(exp: str, flags: list[str]) -> Path:
    """Train weights/EXP unless it is complete; continue a run that was killed. Return its folder. flags: with --epochs."""
    folder, epochs = ROOT / "weights" / exp, int(flags[flags.index("--epochs") + 1])
    if len(read_csv(folder / "step.csv")) < epochs:
        how = "--resume" if any((folder / name).is_file() for name in ("last.pt", "round0/last.pt")) else "--overwrite"
        run("--train", how, "--exp", exp, *flags)
    return folder


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


def rows_of(table: dict) -> dict[str, dict]:
    """Return {row: its flags, and its epochs if they are not those of the table}."""
    if "rows" in table:
        return {name: row if isinstance(row, dict) else {"flags": row} for name, row in table["rows"].items()}
    rows = {}
    for setting, (labelled, unlabelled, everything) in table["settings"].items():
        share = " --unlabelled-share 0.75" * ("{START}" in labelled)  # the net has seen many labels
        ways = {
            SOURCE: labelled,
            **{way: f"{labelled} --semi {way} {unlabelled}" for way in ROUNDS},
            MEAN_TEACHER: f"{labelled} --semi {MEAN_TEACHER} {unlabelled}{share}",
            ALL: everything,
        }
        rows |= {
            f"{setting}: {way}": {"flags": flags, "nets": len(ROUNDS.get(way, ())) + 1} for way, flags in ways.items()
        }
    return rows


def scaled(flags: str, epochs: int) -> str:
    """Return the preset's milestones and warm-up in proportion to the epochs."""
    defaults, words = read_defaults(), flags.split()
    recipe = defaults.values | defaults.presets[words[words.index("--preset") + 1]]
    share = epochs / recipe["epochs"]
    moved = " ".join(f"{share * epoch:.3f}" for epoch in recipe["milestones"])
    return f"--warmup {share * recipe['warmup']:.3f}" + f" --milestones {moved}" * bool(moved)


def row_flags(file: dict, name: str, row: str, given: argparse.Namespace) -> tuple[list[str], int]:
    """Return the flags of a row without --seed, and its epochs. {start} stays where a row starts from another net."""
    table = file["tables"][name]
    made = rows_of(table)[row]
    epochs = max((given.epochs or made.get("epochs") or table.get("epochs", 30)) // made.get("nets", 1), 1)
    words = f"{table['flags']} {made['flags']}"
    presets = flags_of(made["flags"], {**file["flags"], "start": ""}, half=0, five_sixths=0)
    return flags_of(
        words,
        file["flags"],
        epochs=epochs,
        size=given.size,
        net=given.net,
        half=epochs // 2,
        start="START",
        five_sixths=epochs * 5 // 6,
        scaled=scaled(" ".join(presets), epochs) if "{scaled}" in words else "",
    ), epochs


def trained(file: dict, name: str, row: str, seed: int, given: argparse.Namespace) -> Path:
    """Return the folder of a row's run. Train it, and the net that it starts from, if they are not there."""
    flags, epochs = row_flags(file, name, row, given)
    if "START" in flags:
        before = argparse.Namespace(**{**vars(given), "epochs": given.start_epochs or given.epochs})
        start = trained(file, name, f"synthetic: {SOURCE}", seed, before) / "best.pt"
        flags = [str(start) if word == "START" else word for word in flags]
        epochs = f"{before.epochs or 30}+{epochs}"
    words = re.sub("[^a-z0-9]+", "_", f"{name} {row} {given.net}".lower())
    return train(f"{words}_{epochs}_{given.size}_{seed}", ["--seed", str(seed), *flags])


def tested(folder: Path, flip: bool) -> Iterator[tuple[str, float]]:
    """Yield the NME on both test sets, in the picture and in the crop."""
    run("--exp", folder.name, "--test", "--test-data", "300w", "FACES68", "--allow-partial", *["--flip-test"] * flip)
    for row in read_csv(folder / "report" / "scores.csv"):
        if row["model"] == "torch" and not row["test set"].startswith(" "):
            place = row["test set"].split("-")[0] + " flip" * flip
            yield from ((place, float(row["NME %"])), (f"{place} crop", float(row["crop NME %"])))


def without_offsets(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the NME on both test sets without the mean offset of each landmark."""
    net, layout, stored = checkpoint.unpack(folder / "best.pt")
    layouts, root = read_defaults().layouts.with_rows(stored["layouts"]), ROOT / stored["args"]["data_root"]
    predict = torch_predictor(net, "cpu")
    for name in ("300w", "faces68"):
        faces = load_splits([Split(PreparedSet(root / name, layouts), "test")], layout, net.spec["input_size"], 0)
        truth = faces["landmarks"][:]
        found = evaluate(predict, faces, layout, "interocular", 64).landmarks
        offsets = (found - truth) / metric.norms(truth, layout)[:, None, None]
        yield f"{name} free", 100 * float(np.nanmean(np.linalg.norm(offsets - np.nanmean(offsets, 0), axis=-1)))


def cost(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the parameters in millions and the ms of the exported net for one face."""
    net = checkpoint.unpack(folder / "best.pt")[0].eval().reparameterized()
    yield "parameters", sum(parameter.numel() for parameter in net.parameters()) / 1e6
    with exported_to_temporary(net) as file:
        yield "ms", cpu_ms(file, round(net.spec["input_size"] * net.input_margin))


def measure(folder: Path, figures: set[str]) -> dict[str, float]:
    """Return those of the figures that a finished run has."""
    names, found = " ".join(sorted(figures)), {}
    if re.search(r"\bval\b", names):
        found["val"] = min(float(epoch["val_nme"]) for epoch in read_csv(folder / "step.csv"))
    if re.search("(300w|faces68)(?! free)", names):
        found |= tested(folder, False)
    if "flip" in names:
        found |= tested(folder, True)
    if "free" in names:
        found |= without_offsets(folder)
    if "ms" in figures:
        found |= cost(folder)
    return {name: round(value, 4) for name, value in found.items()}


def shown(table: dict, found: dict[str, dict]) -> list[dict]:
    """Return the rows of a table as text: of each figure the mean over the seeds, and their deviation."""
    known = rows_of(table)
    names = [*(name for name in known if name in found), *(name for name in found if name not in known)]

    def mean(name: str, figure: str) -> float | None:
        values = [
            seed[figure] for seed in found.get(name, {"seeds": {}})["seeds"].values() if seed.get(figure) is not None
        ]
        return float(np.mean(values)) if values else None

    def cell(name: str, figure: str) -> str | None:
        row, (figure, _, form) = found[name], figure.partition("|")
        value, first = mean(name, figure), mean(names[0], figure)
        if figure in row or figure == "name":
            words = row.get(figure, name if name in known or "settings" in table else f"{name} (option removed)")
            return f"`{words}`" if figure == "flags" and words else str(words)
        if value is None:
            return ""
        if form == "gap":
            few, many = (mean(f"{row['setting']}: {way}, {row['epochs']}", figure) for way in (SOURCE, ALL))
            inside = row["way"] not in (SOURCE, ALL) and few and many and many < few
            return f"{(few - value) / (few - many):.0%}" if inside else ""
        if form in ("difference", "change"):
            return f"{value:.2f}" if form == "change" and name == names[0] else f"{value - first:+.2f}"
        return format(value, form) if form else text([seed[figure] for seed in row["seeds"].values() if figure in seed])

    return [{title: cell(name, figure) for title, figure in table["columns"].items()} for name in names]


def main() -> None:
    file = read()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("runs", *file["tables"]))
    parser.add_argument("rows", nargs="*", metavar="ROW", help="without: all of the table")
    parser.add_argument("--epochs", type=int, help="of all nets of a row together; without: those of the file, or 30")
    parser.add_argument("--start-epochs", type=int, help="of the net that some rows start from; without: as many")
    parser.add_argument("--size", type=int, default=128, help="px of the input")
    parser.add_argument("--net", default="resnet18")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    if given.table == "runs":
        for name in chosen(file["runs"], given.rows):
            if why := missing(flags_of(file["runs"][name]["flags"], file["flags"])):
                print(f"{name} skipped: {why}")
            else:
                whole_run(name, file["runs"][name], file["flags"])
        return
    table, name = file["tables"][given.table], given.table
    figures = {figure.partition("|")[0].partition(",")[0] for figure in table["columns"].values()}
    found = result(name).get("measured", {})
    for seed in given.seeds:
        for row in chosen(rows_of(table), given.rows):
            flags, epochs = row_flags(file, name, row, given)
            if why := missing([*flags, "FACES68"]):
                print(f"{row} skipped: {why}")
                continue
            values = measure(trained(file, name, row, seed, given), figures)
            own = flags_of(
                rows_of(table)[row]["flags"],
                file["flags"],
                half=epochs // 2,
                five_sixths=epochs * 5 // 6,
                start="START",
            )
            key, entry = row, {"flags": " ".join(own)}
            if "settings" in table:
                setting, way = row.split(": ")
                count = given.epochs or 30
                count = f"{given.start_epochs or count}+{count}" if "START" in flags else str(count)
                key, entry = f"{row}, {count}", {**entry, "setting": setting, "way": way, "epochs": count}
            if any("val," in figure for figure in table["columns"].values()):
                values = {f"{figure}, {given.net}, {epochs}": value for figure, value in values.items()}
            values |= {"epochs": epochs} if "settings" not in table else {}
            entry = {**entry, "seeds": found.get(key, {}).get("seeds", {})}
            entry["seeds"][str(seed)] = {**entry["seeds"].get(str(seed), {}), "commit": COMMIT, **values}
            found[key] = entry
            how = " ".join(word if " " not in word else f'"{word}"' for word in sys.argv[1:])
            save(
                name, f"python benchmarks/experiments.py {how}", seed, {"measured": found, "rows": shown(table, found)}
            )


if __name__ == "__main__":
    main()
