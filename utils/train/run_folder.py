"""A run's folder weights/<exp>/: which one --exp means, what is in it, and the history that a training leaves there."""
import os
import re
import shutil
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

from torch.utils.tensorboard import SummaryWriter

from pipnet.errors import UserError
from pipnet.files import write_csv
from utils.formats import FORMATS, files_of
from utils.train import checkpoint
from utils.yaml_files import nearest

SUFFIXES = (".pt", ".onnx")
INITIALISATION = "initialisation.csv"


class Run(NamedTuple):
    """A run's folder, and the checkpoint in it that tests use."""

    folder: Path
    weights: Path

    @property
    def last(self) -> Path:
        """Return the checkpoint that a training resumes from."""
        return self.folder / "last.pt"

    def export(self, name: str) -> Path:
        """Return where the weights are exported to in a format of FORMATS."""
        return self.weights.with_suffix(FORMATS[name].suffix)

    @property
    def onnx(self) -> Path:
        """Return where the weights are exported to."""
        return self.export("onnx")

    @property
    def exported(self) -> bool:
        """Return whether the ONNX file exists and is not older than the weights."""
        return self.has("onnx")

    def has(self, name: str) -> bool:
        """Return whether the export in a format exists and is not older than the weights."""
        file = self.export(name)
        return file.is_file() and file.stat().st_mtime_ns >= self.weights.stat().st_mtime_ns

    @property
    def epochs(self) -> int:
        """Return the number of whole epochs that were trained."""
        return len(checkpoint.load(self.last).get("rows", ())) if self.last.is_file() else 0


def next_id(root: Path) -> str:
    """Return the three-digit id after the largest one below `root`."""
    used = [int(path.name) for path in root.glob("*") if re.fullmatch(r"\d{3,}", path.name)] if root.is_dir() else []
    return f"{max(used, default=-1) + 1:03d}"


def find(exp: str | None, root: Path, train: bool, resume: bool = False) -> Run:
    """Return the run that --exp means: an id below `root`, a folder, or a file.

    Without --exp it is the next free id to train, else the newest run. UserError if there is nothing to test.
    """
    if exp is None:
        if train and not resume:
            folder = root / next_id(root)
        else:
            runs = sorted(root.glob("*/last.pt" if resume else "*/best.pt"), key=lambda path: path.stat().st_mtime)
            if not runs:
                raise UserError(f"nothing is trained yet in {root}; train a net (--train) or name one (--exp)")
            folder = runs[-1].parent
    elif Path(exp).suffix in SUFFIXES:
        return _find_file(Path(exp), train)
    else:
        folder = Path(exp) if os.sep in exp else root / exp
    run = Run(folder, folder / "best.pt")
    if not train and not run.weights.is_file():
        names = sorted(path.parent.name for path in root.glob("*/best.pt")) if root.is_dir() else []
        known = f"there are: {', '.join(names[-10:])}" if names else "nothing is trained yet"
        raise UserError(f"no trained net in {folder} ({known}){nearest(exp or '', names)}")
    return run


def _find_file(file: Path, train: bool) -> Run:
    if train:
        raise UserError(f"--exp {file} is a file; give an id or a folder to train in (--weights {file} starts from it)")
    if not file.is_file():
        raise UserError(f"no file {file}")
    if file.suffix == ".onnx" and not file.with_suffix(".pt").is_file():
        raise UserError(f"{file} has no {file.with_suffix('.pt').name} beside it, which says what it was trained on")
    return Run(file.parent, file.with_suffix(".pt"))


def continue_after_restart(mode: Namespace, run: Run) -> None:
    """Set `resume` or `overwrite` if torchrun has restarted this process. UserError if the run has no name to be found by."""
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) and not mode.exp:
        raise UserError("MAX_RESTARTS needs --exp, by which a restarted training finds its run")
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)):
        mode.resume = run.last.is_file()
        mode.overwrite = not mode.resume


def check_free(run: Run, resume: bool, overwrite: bool) -> None:
    """Raise UserError if a training would destroy another run, or has nothing to resume."""
    if resume and not run.last.is_file():
        raise UserError(f"{run.folder} has no last.pt to resume; train without --resume")
    if not resume and not overwrite and (run.last.is_file() or run.weights.is_file()):
        raise UserError(f"{run.folder} already holds a run; give --resume to go on, --overwrite to replace it, or another --exp")


def clear(run: Run) -> None:
    """Make the folder and remove the files of an earlier training; other files and the log stay."""
    run.folder.mkdir(exist_ok=True)
    exports = [path for name in FORMATS for path in files_of(run.export(name))]
    for name in ("best.pt", "last.pt", "step.csv", "time.csv", "args.yaml", "manifest.json", INITIALISATION, *exports):
        (run.folder / name).unlink(missing_ok=True)
    for name in ("report", "events"):
        shutil.rmtree(run.folder / name, ignore_errors=True)


class History:
    """Past epochs of a training: rows of step.csv and time.csv, the best validation figure, the solver's state.

    figure: the column of step.csv by which epochs are compared; lower is better.
    """

    def __init__(self, figure: str, stored: dict | None = None):
        stored = stored or {"rows": [], "times": [], "best": float("inf"), "solver": None}
        self.rows, self.times, self.best, self.solver = (stored[key] for key in ("rows", "times", "best", "solver"))
        self.figure = figure

    @classmethod
    def load(cls, run: Run, figure: str, expected: dict) -> "History":
        """Return the history in a run's last checkpoint. UserError if that differs in one of the `expected` values."""
        stored = checkpoint.load(run.last)
        if "solver" not in stored:
            raise UserError(f"{run.last} has no training state, only weights; start from them: --weights {run.last}")
        if any(stored[key] != value for key, value in expected.items()):
            raise UserError(f"{run.last} was trained with another net, layout, data or teacher than there is now; train a new "
                            "run")
        return cls(figure, stored)

    @property
    def epochs(self) -> int:
        """Return the number of whole epochs."""
        return len(self.rows)

    def epochs_since_best(self) -> int:
        """Return the number of epochs after the one with the best validation figure."""
        last = self.epochs - 1
        return last - min((row["epoch"] for row in self.rows if row[self.figure] == self.best), default=last)

    def add(self, row: dict, times: dict) -> bool:
        """Add an epoch's figures. Return whether its validation figure is the best so far."""
        better = not row[self.figure] >= self.best  # it is NaN without validation: the last epoch is the best
        self.best = min(row[self.figure], self.best)
        self.rows.append({**row, "best": self.best})
        self.times.append(times)
        return better


class Keeper:
    """Writes a training's files. Each file is whole, whenever the process is killed."""

    def __init__(self, run: Run, history: History):
        self.run, self.history = run, history
        self.events = SummaryWriter(run.folder / "events", purge_step=history.epochs + 1)
        self._write_tables()  # the process may have been killed between the last checkpoint and its rows

    def save(self, inference: dict, solver: dict, better: bool) -> None:
        """Write the files of an epoch: best.pt if it is `better`, last.pt, the tables, TensorBoard's events."""
        if better:
            checkpoint.save(self.run.weights, inference)
        checkpoint.save(self.run.last, {**inference, "solver": solver, "rows": self.history.rows, "times": self.history.times,
                                        "best": self.history.best})
        self._write_tables()
        row, times = self.history.rows[-1], self.history.times[-1]
        for key, value in {**row, **{f"time/{key}": value for key, value in times.items()}}.items():
            if not key.endswith("epoch"):
                self.events.add_scalar(key, value, row["epoch"] + 1)
        self.events.flush()

    def _write_tables(self) -> None:
        for name, rows in (("step.csv", self.history.rows), ("time.csv", self.history.times)):
            if rows:
                write_csv(self.run.folder / name, list(rows[0]), [row.values() for row in rows])
