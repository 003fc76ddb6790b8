"""--sweep KEY=A,B,C or KEY=LOW..HIGH: trainings (and tests), each in its own processes and folder, and one table of all."""

import hashlib
import itertools
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from extras.tools.faults import faults
from extras.tools.trials import Range, load_optuna, propose, read_range
from pipnet.errors import UserError
from pipnet.files import set_aside, write_text
from pipnet.flags import flag
from utils.data.paths import import_outside, with_absolute_paths
from utils.evaluate.tables import markdown_table, with_numbers
from utils.settings.command import Command, flags_of, read_value
from utils.settings.config import ROOT, Settings, preset_values
from utils.settings.csv_files import read_csv, write_csv
from utils.settings.faults import refuse
from utils.settings.sections import KEYS, SECTIONS
from utils.settings.start import names_training
from utils.settings.yaml_files import nearest, read_yaml
from utils.train import run_folder
from utils.train.make_net import figure_of
from utils.train.ranks import variable
from utils.train.run_folder import Run
from utils.train.run_lock import check_new, hold, locked

RECORD, RESULT = "sweep.yaml", "sweep.csv"
FIGURES = {"val_nme": "val NME %", "val_false": "val false %"}  # of the validation, which pick the best epoch
TESTS = ("test", "test_onnx")  # modes of a sweep, beside the training
DONE = "done"
PLACES = ("data_root", "run_root")  # keys that say where files are written
TRIES = 50  # proposals, until one is new


def sweep(command: Command) -> list[dict]:
    """Train with every combination of the values of --sweep, or with --trials N proposed ones. Write the table and return
    its `figures`.

    A failed run does not stop the others; it is a UserError at the end. UserError before the first run for wrong keys
    or values.
    """
    keys, trials = read_keys(command.mode("sweep"), command.given), command.mode("trials", 0)
    ranges = [key for key, values in keys.items() if isinstance(values, Range)]
    if trials:
        load_optuna()  # or a line that says that it is missing
    elif ranges:
        raise UserError(f"--sweep {ranges[0]} has a range; say how many runs try values of it: --trials N")
    for name, least in (("GROUP_WORLD_SIZE", 1), ("TORCHELASTIC_MAX_RESTARTS", 0)):
        if variable(name, 0) > least:
            raise UserError(
                "a sweep starts its own processes on one node; leave NNODES and MAX_RESTARTS out (--resume goes on)"
            )
    command = with_absolute_paths(command)
    folder, given, defaults = sweep_folder(command), command.given, command.defaults
    tests = list(filter(command.has, TESTS))
    values = {**defaults.values, "presets": defaults.presets, **given}
    record = {
        "sweep": command.mode("sweep") if trials else list(keys),
        "tests": tests,
        "values": {key: value for key, value in values.items() if key not in keys},
    }
    again = command.has("resume") and differs_in_tests(folder, record)
    columns = [[values.low, values.high] if isinstance(values, Range) else values for values in keys.values()]
    combinations = [dict(zip(keys, chosen, strict=True)) for chosen in itertools.product(*columns)]
    for chosen in combinations:
        import_outside(replace(command, given=chosen, typed=frozenset(chosen)))
        wanted = {**given, **chosen}
        row = preset_values(wanted.get("preset"), wanted, defaults)
        refuse(faults(command, Settings.of(defaults, row, wanted)))
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return []  # the first process starts as many processes for each run
    new, overwrite = not command.has("resume"), command.has("overwrite")
    with hold(Run(folder, folder / "best.pt"), new, overwrite, command.exp is not None) as run:
        folder = run.folder
        if trials:
            combinations = record["trials"] = [] if new else read_yaml(folder / RECORD).get("trials", [])
        runs = {_folder(folder, chosen): chosen for chosen in combinations}
        if new:
            _make_way(runs, overwrite)
        if again:
            (folder / RESULT).unlink(missing_ok=True)  # then no run is done
        write_text(folder / RECORD, yaml.safe_dump(record, sort_keys=False))
        names_training(folder)
        proposals = _proposals(folder, keys, runs, trials, overwrite)
        failed = _train_all(command, runs, folder, proposals)
    if failed:
        raise UserError(
            f"{failed} of {len(runs)} runs failed, each of which has said why above; --resume tries them again"
        )
    return with_numbers(read_csv(folder / RESULT))


def _make_way(places: Iterable[Path], overwrite: bool) -> None:
    """Move aside what lies where runs are to be written. UserError if that is not wanted."""
    for place in places:
        check_new(place, overwrite)
    for place in filter(Path.exists, places):
        with locked(place):
            set_aside(place)


def _proposals(
    folder: Path, keys: dict[str, list | Range], runs: dict[Path, dict], trials: int, overwrite: bool
) -> Iterator[tuple[Path, dict]]:
    """Yield (folder, values) of further runs until `runs`, to which they are added, has `trials`, or no value is new."""
    record = read_yaml(folder / RECORD)
    while len(runs) < trials:
        figures = [(chosen, _figures(place)) for place, chosen in runs.items()]
        judged = [(chosen, row[name]) for chosen, row in figures for name in FIGURES.values() if row.get(name)]
        done = [(chosen, float(figure)) for chosen, figure in judged]
        tried = (propose(keys, done, len(runs) * TRIES + number) for number in range(TRIES))
        chosen = next((one for one in tried if _folder(folder, one) not in runs), None)
        if chosen is None:
            return
        place = _folder(folder, chosen)
        _make_way([place], overwrite)
        runs[place] = chosen
        write_text(folder / RECORD, yaml.safe_dump({**record, "trials": list(runs.values())}, sort_keys=False))
        yield place, chosen


def read_keys(texts: list[str], given: dict[str, Any]) -> dict[str, list | Range]:
    """Return {key: checked values, or their range} of texts like "reg=1,2" and "reg=1..2".
    given: keys that are also given as flags; UserError for these.
    """
    keys: dict[str, list | Range] = {}
    for text in texts:
        name, _, values = text.partition("=")
        key = {"backbone": "net"}.get(name, name.replace("-", "_"))
        if key not in KEYS:
            raise UserError(f"--sweep {text}: unknown key '{name}'{nearest(name, KEYS)}")
        if not all(values.split(",")):
            raise UserError(f"--sweep {text}: a value is missing; give --sweep {name}=A,B,C")
        if key in PLACES:
            raise UserError(
                f"--sweep {key}: the runs of a sweep lie side by side and share their sets; give {KEYS[key].flag} once"
            )
        if key in keys or key in given:
            raise UserError(
                f"--sweep {text}: {key} is given twice; give all its values in one --sweep and no --{name} beside it"
            )
        found = read_range(key, values)
        if found:
            keys[key] = found
            continue
        several = [read_value(key, [value] if KEYS[key].many else value) for value in values.split(",")]
        for i, value in enumerate(several):
            if value in several[:i]:
                raise UserError(f"--sweep {text}: {_shown(value)} is there twice")
        keys[key] = several
    return keys


def sweep_folder(command: Command) -> Path:
    """Return the sweep's folder: --exp, else the newest sweep to resume, else the next free id.
    UserError if it is unusable.
    """
    root, resumes = command.folder("run_root"), command.has("resume")
    if resumes and not command.exp:
        plans = sorted(root.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime)
        if not plans:
            raise UserError(f"no sweep to resume in {root}; start one without --resume")
        return plans[-1].parent
    folder = run_folder.find_run(command.exp, root, True).folder
    if not resumes:
        check_new(folder, command.has("overwrite"), (ROOT, root))
    elif not (folder / RECORD).is_file():
        raise UserError(f"{folder} holds no sweep to resume; start one without --resume")
    return folder


def differs_in_tests(folder: Path, record: dict[str, Any]) -> bool:
    """Return whether the runs of the sweep in `folder` were tested in another way than `record` says. All are tested
    again then, so that the table compares like with like.

    UserError for another sweep, and if a value differs with which the runs were trained, typed or of args.yaml.
    """
    old, new = read_yaml(folder / RECORD), yaml.safe_load(yaml.safe_dump(record))
    if old.get("sweep") != new["sweep"] or not isinstance(old.get("values"), dict):
        raise UserError(f"{folder} is a sweep of {old.get('sweep')}, not of {new['sweep']}; give --exp, or no --resume")
    free = {*PLACES, *(key for key, row in KEYS.items() if row.change == "always")}
    changed = {key for key in {**old["values"], **new["values"]} if old["values"].get(key) != new["values"].get(key)}
    if fixed := sorted(changed - free, key=str):
        raise UserError(
            f"{fixed[0]} is not what it was when {folder} began, so its runs could not be compared; give it as before, "
            "or start a new sweep"
        )
    changed_tests = old.get("tests") != new["tests"] or {"test_data", *SECTIONS["test"].keys} & changed
    return bool(new["tests"] and changed_tests)


def _shown(value) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value).removesuffix(".0")


def _folder(folder: Path, chosen: dict[str, Any]) -> Path:
    """Return the folder of one run: beside that of the sweep, named after the values."""
    words = [f"{key}={_shown(value)}" for key, value in chosen.items()]
    name = re.sub(r"[^\w.=+-]", "_", "-".join(words))[:100]
    # two paths must not share a folder, and --exp takes a.pt for a file
    if name != "-".join(words) or Path(name).suffix in run_folder.SUFFIXES:
        name += "-" + hashlib.sha256("-".join(words).encode()).hexdigest()[:6]
    return folder.with_name(f"{folder.name}-{name}")


def _train_all(command: Command, runs: dict[Path, dict], folder: Path, proposals: Iterator[tuple[Path, dict]]) -> int:
    """Train and test the runs, {folder: its values}, that are not done yet, then those that are proposed and added to
    them. Return the number of runs that failed.
    """
    before = read_csv(folder / RESULT, texts=("run", "state"))
    states = {row["run"]: row["state"] for row in before}
    tests = list(filter(command.has, TESTS))
    needed = "report/scores.csv" if tests else "last.pt"
    for count, (place, chosen) in enumerate(itertools.chain(list(runs.items()), proposals), 1):
        if states.get(place.name) == DONE and (place / needed).is_file():
            continue
        text = ", ".join(f"{key}={_shown(value)}" for key, value in chosen.items())
        total = max(len(runs), command.mode("trials", 0))
        print(f"sweep, run {count} of {total}: {text}, in {place}", file=sys.stderr, flush=True)
        typed = {key: value for key, value in command.given.items() if key in command.typed}
        status = _start([*_flags(command, tests, place), *flags_of({**typed, **chosen})])
        states[place.name] = DONE if status == 0 else f"failed ({status})"
        _write(folder, runs, states)
    header, rows = _write(folder, runs, states)
    shown = markdown_table(rows, header)
    column = next(header.index(name) for name in FIGURES.values() if name in header)
    good = [(float(figure), row[-2]) for row in rows if row[-1] == DONE and (figure := row[column])]
    of = f", of the {len(good)} runs that have it" if len(good) < len(rows) else ""
    best = f"\nBest:  {min(good)[1]} (by validation{of})" if len(good) > 1 else ""
    print(f"\n{shown}\n{best}\nFiles: {folder / RESULT}; the folders of the runs: {folder}-...", flush=True)
    return sum(states.get(place.name) != DONE for place in runs)


def _flags(command: Command, tests: list[str], place: Path) -> list[str]:
    """Return the command line of one run."""
    flags = ["--train", "--exp", str(place)]
    flags += map(flag, [*["prepare"] * command.has("prepare"), *tests])
    if file := command.mode("config"):
        flags += ["--config", str(Path(file).resolve())]
    if Run(place, place / "best.pt").first().last.is_file():
        flags.append("--resume")
    return flags


def _start(flags: list[str]) -> int:
    """Run main.py with `flags`, on as many processes as this one was started with. Return its exit status."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    ours = re.compile(r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_.*")
    env = {name: value for name, value in os.environ.items() if not ours.fullmatch(name)}
    env["PIPNET_SWEEP"] = "1"  # this process says for the run that it was stopped
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    launch = (
        ["-P", "-m", "utils.train.launch", "--standalone", "--nproc-per-node", processes, "--"]
        if processes != "1"
        else []
    )
    child = subprocess.Popen([sys.executable, *launch, str(ROOT / "main.py"), *flags], env=env)
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise


# --------------------------------------------------------------------------------------------------------------- table
def _write(folder: Path, runs: dict[Path, dict], states: dict[str, str]) -> tuple[list[str], list[list[str]]]:
    """Write sweep.csv from the files of the runs. Return (header, rows)."""
    figures = {place: _figures(place) for place in runs}
    names = [name for row in figures.values() for name in row if name != "minutes"]
    judged = [name for name in FIGURES.values() if name in names] or [*FIGURES.values()][:1]
    columns = [*dict.fromkeys(["best epoch", *judged, *names]), "minutes"]
    header = [*next(iter(runs.values())), *columns, "run", "state"]
    rows = []
    for place, chosen in runs.items():
        cells = [figures[place].get(name, "") for name in columns]
        rows.append([*map(_shown, chosen.values()), *cells, place.name, states.get(place.name, "")])
    write_csv(folder / RESULT, header, rows)
    return header, rows


def _figures(place: Path) -> dict[str, str]:
    """Return {column: text} of one run: best epoch, figures of each whole test set, minutes of training."""
    if not (place / "step.csv").is_file():
        return {}
    args = read_yaml(place / "args.yaml")
    figure = figure_of({**args["train"], **args.get("loss", {})})
    steps = read_csv(place / "step.csv", ("epoch", figure))
    if not steps:
        return {}
    judged = [row for row in steps if not math.isnan(row[figure])]  # with --val none the last epoch is kept
    best = min(judged, key=lambda row: row[figure], default=steps[-1])
    figures = {
        "best epoch": str(int(best["epoch"]) + 1),
        FIGURES[figure]: f"{best[figure]:.3f}" if judged else "",
    }
    scores = read_csv(place / "report" / "scores.csv", texts=("test set", "model"))
    whole = [row for row in scores if row["model"].startswith("torch") and row["test set"][:1] != " "]
    several = len({row["test set"] for row in whole}) > 1
    for row in whole:
        names = [name for name in row if name == "NME %" or "@" in name][:3]  # of the first threshold only
        title, boxes = row["test set"] if several else "test", row["model"].removeprefix("torch")
        figures |= {f"{title} {name}{boxes}": row[name] for name in names}
    figures["minutes"] = f"{sum(row['seconds'] for row in read_csv(place / 'time.csv', ['seconds'])) / 60:.1f}"
    return figures
