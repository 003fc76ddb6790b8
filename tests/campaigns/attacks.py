"""Foreign files among ours, and ours from somebody else: `python tests/campaigns attacks --count 200`.

Each case places files, links or values where a command writes or removes, runs the command, and compares what is not
the project's own with what it was before. A fault is a file that has changed, gone or come, a control character in a
log, a traceback, or a hang.
"""

import hashlib
import os
import shlex
import shutil
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from victims import ROOT, TINY, Case, call, restore, trained

ROOTS = "--data-root {root}/data --run-root {root}/runs --threads 1"
TRAIN = f"main.py --train {ROOTS} {shlex.join(TINY)} --workers 0 --epochs 2"
PICTURE = ROOT / "assets/astronaut.jpg"
# names that the project gives to its own files, and some that it does not
# fmt: off
NAMES = ("report/index.html", "report/mine.txt", "events/mine.txt", "args.yaml", "card.md", "manifest.json", "best.onnx",
         "step.csv", "time.csv", "trace.json", "log.txt", ".lock", ".thesis.partial-12ab", "audit/labels.csv", "best.pt",
         "last.pt", "pseudo_labels/round1.csv", "round1/best.pt", "round10stuff/x", "fold0/last.pt", "meta.yaml", "train.tsv",
         "settings.json", "crops/a.jpg", "notes.txt", "bad_batch.pt", "predicted/a.pts", "web/settings.json", "a.pts", "out.csv",
         "train/mine.npy", "train/crops.jpegs", ".x.partial/y")
# fmt: on
PLACES = {  # commands that write to a folder {there}, which holds files of the user
    "train": f"{TRAIN} --exp {{there}}",
    "train, overwrite": f"{TRAIN} --exp {{there}} --overwrite",
    "audit": f"{TRAIN.replace('--train ', '--audit ')} --exp {{there}} --folds 2",
    "self-training": f"{TRAIN} --exp {{there}} --semi self-training --labelled-fraction 0.5",
    "resume": f"{TRAIN} --exp {{there}} --resume",
    "sweep": f"{TRAIN} --exp {{there}} --sweep seed=1,2",
    "test": f"main.py --test {ROOTS} --exp {{there}}",
    "data root": f"main.py --prepare --data-root {{there}} {shlex.join(TINY)}",
    "page": f"main.py --export web {ROOTS} --exp run --out {{there}}",
    "predict": f"main.py --predict {PICTURE} {ROOTS} --exp run --out {{there}}",
    "predict, overwrite": f"main.py --predict {PICTURE} {ROOTS} --exp run --out {{there}} --overwrite",
    "demo": f"demo.py --source {PICTURE} --save {{there}} --exp landmarks-fast --threads 1",
}
# fmt: off
LINKED = ("report", "report/index.html", "report/scores.csv", "events", "log.txt", ".lock", "step.csv", "best.onnx", "args.yaml",
          "manifest.json", "card.md", "last.pt", "predicted", "web", "trace.json", "initialisation.csv", ".best.pt.partial-1")
# fmt: on
IN_RUN = {  # commands on a run of somebody else
    "test": f"main.py --test {ROOTS} --exp run",
    "export": f"main.py --export onnx {ROOTS} --exp run",
    "resume": f"{TRAIN.replace('--epochs 2', '--epochs 3')} --exp run --resume",
    "overwrite": f"{TRAIN} --exp run --overwrite",
    "predict": f"main.py --predict {PICTURE} {ROOTS} --exp run",
}
# fmt: off
PATHS = ("data_root", "run_root", "data_dir", "detector_weights", "teacher", "weights", "meanface", "dataset", "train_data",
         "test_data", "unlabelled", "backgrounds", "protocol", "layout")
# fmt: on
# fmt: off
ODD = ("$(touch MARK)", "`touch MARK`", "a\nb", "\x1b[31mred", "=1+1", "<script>", "a;touch MARK", "-rf", "ä ö", "a\rb", "..")
# fmt: on


def state(folder: Path) -> dict[str, str]:
    """Return {file, link or folder below a folder: its content}."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def place_files(root: Path, rng: np.random.Generator) -> tuple[str, list[str], Path]:
    """Put files of the user where a command writes; return (command, names that must stay, the folder)."""
    there = root / "user" / "folder"
    names = [*rng.choice(NAMES, rng.integers(1, 5), replace=False)]
    for name in names:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(f"mine: {rng.integers(10**9)}\n")
    command = list(PLACES)[rng.integers(len(PLACES))]
    return PLACES[command].format(root=root, there=there), names, there


def place_links(root: Path, rng: np.random.Generator) -> tuple[str, list[str], Path]:
    """Put links to files of the user into a run; return (command, names that must stay, their folder)."""
    there, run = root / "user", root / "runs" / "run"
    (there / "folder").mkdir(parents=True)
    (there / "file").write_text("precious\n")
    (there / "folder" / "inside").write_text("precious\n")
    for name in rng.choice(LINKED, rng.integers(1, 4), replace=False):
        place = run / name
        if place.parent.is_symlink():
            continue
        place.parent.mkdir(exist_ok=True)
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        target = there / (
            "folder" if name in ("report", "events", "predicted", "web") else rng.choice(["file", "none"])
        )
        if rng.random() < 0.2 and target.is_file():
            os.link(target, place)
        else:
            place.symlink_to(target)
    command = list(IN_RUN)[rng.integers(len(IN_RUN))]
    return IN_RUN[command].format(root=root), ["file", "folder", "folder/inside"], there


def place_values(root: Path, rng: np.random.Generator) -> tuple[str, list[str], Path]:
    """Let the checkpoints of a run name folders of the user; return (command, names that must stay, their folder)."""
    import torch

    there, run = root / "user", root / "runs" / "run"
    (there / "folder").mkdir(parents=True)
    (there / "folder" / "inside").write_text("precious\n")
    keys = rng.choice(PATHS, rng.integers(1, 4), replace=False)
    for name in ("best.pt", "last.pt"):
        values = torch.load(run / name, weights_only=True)
        for key in keys:
            text = str(there / "folder") if rng.random() < 0.7 else str(rng.choice(ODD))
            values["args"][key] = [text] if key in ("train_data", "test_data", "unlabelled", "backgrounds") else text
        torch.save(values, run / name)
    command = [*IN_RUN][rng.integers(len(IN_RUN))]
    return IN_RUN[command].format(root=root), ["folder", "folder/inside"], there


def place_names(root: Path, rng: np.random.Generator) -> tuple[str, list[str], Path]:
    """Give a test set's folder and its pictures odd names; return (command, names that must stay, the folder)."""
    there = root / "user"
    name, stem = (str(rng.choice([odd for odd in ODD if odd != ".."])) for _ in range(2))
    folder = there / name
    folder.mkdir(parents=True)
    sample = next((root / "data").rglob("*.pts"))
    for number in range(3):
        shutil.copy(sample.with_suffix(".jpg"), folder / f"{stem}{number}.jpg")
        shutil.copy(sample, folder / f"{stem}{number}.pts")
    names = [str(path.relative_to(there)) for path in there.rglob("*")]
    words = f"main.py --test {ROOTS} --exp run".format(root=root)
    return f"{words} --test-data {shlex.quote(str(folder))}", names, there


KINDS = {
    "foreign files": place_files,
    "links": place_links,
    "paths in a checkpoint": place_values,
    "odd names": place_names,
}
COUNT = 200


def attack(kind: str, root: Path, rng: np.random.Generator) -> tuple[str, list[str]]:
    """Return (the command, what is wrong after it)."""
    command, names, there = KINDS[kind](root, rng)
    before = state(there)
    try:
        done = call(shlex.split(command), root / "output")
    except TimeoutError as error:
        return command, [str(error)]
    after, wrong = state(there), []
    aside = next(there.parent.glob(f"{there.name}-*"), there)  # --overwrite moves the files of the user there
    kept = state(aside)
    wrong += [f"{name} has changed or gone" for name in names if kept.get(name) != before[name]]
    if kind != "foreign files":  # there a command may add its own files
        wrong += [f"{name} has come" for name in after if name not in before]
    if done.status not in (0, 1) or "Traceback" in done.text:
        wrong.append(f"status {done.status}: {done.text[-600:]}")
    if list(root.rglob("MARK")) or (ROOT / "MARK").exists():
        wrong.append("a name ran as a command")
    for log in (root / "runs").rglob("log.txt"):
        if not log.is_symlink() and log.is_file() and set(log.read_bytes()) & {0x1B, 0x0D, 0x00}:
            wrong.append(f"{log}: control characters")
    return command, wrong


def cases(args: Namespace, kinds: list[str], root: Path, _figures: dict) -> Iterator[Case]:
    trained(f"{TRAIN} --exp run", root)
    for index in range(args.count):
        kind = kinds[index % len(kinds)]
        restore(root)
        shutil.rmtree(root / "user", ignore_errors=True)
        command, wrong = attack(kind, root, np.random.default_rng([args.seed, list(KINDS).index(kind), index]))
        yield Case(kind, wrong, what={"case": index, "command": command})
