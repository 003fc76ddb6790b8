"""A run's folder weights/<exp>/: which one --exp means, what is in it, and the history that a training leaves there."""
import hashlib
import os
import re
import secrets
import shlex
import shutil
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count, takewhile
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from pipnet.errors import UserError
from pipnet.files import SHIPPED, checksum, open_regular, shipped, shipped_net, write_atomic, write_csv
from pipnet.runtimes import RUNTIMES, stored_values
from utils.formats import FORMATS, SOURCE, folder_of
from utils.locks import LOCK, LOG, InUse, lock
from utils.train import checkpoint
from utils.train.own_files import is_ours
from utils.train.published import contents, split_files
from utils.train.ranks import variable
from utils.yaml_files import nearest

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:
    SummaryWriter = None

SUFFIXES = (".pt", ".pth", ".tar", *RUNTIMES)
FILES = "files"  # below the folder of the runs: results of files that are in no run's folder
INITIALISATION = "initialisation.csv"


class Run(NamedTuple):
    """A run's folder, and the file in it that tests use; or a file from elsewhere, and the folder of its results.

    given: the exported files that came with the weights or instead of them, that to predict with first; they are never written.
    """

    folder: Path
    weights: Path
    given: tuple[Path, ...] = ()

    @property
    def alone(self) -> bool:
        """Return whether the weights are a file in no run's folder."""
        return self.weights.parent != self.folder

    @property
    def model(self) -> str:
        """Return what the weights are: torch for a checkpoint, else a format of FORMATS."""
        fitting = [name for name, row in FORMATS.items() if self.weights.name.endswith(row.suffix)]
        return max(fitting, key=lambda name: len(FORMATS[name].suffix), default="torch")

    @property
    def settings(self) -> Path:
        """Return the file that says what was trained, and on what: in a run's folder a checkpoint."""
        return self.weights if self.alone else self.folder / f"{self.weights.name.partition('.')[0]}.pt"

    @property
    def last(self) -> Path:
        """Return the checkpoint that a training resumes from."""
        return self.folder / "last.pt"

    @property
    def flags(self) -> str:
        """Return the flags of a command that name this run."""
        if self.folder.parent.name != FILES:
            return f"--exp {shlex.quote(str(self.folder))}"
        name = self.folder.name if self.folder.name in SHIPPED else self.weights
        return f"--exp {shlex.quote(str(name))} --run-root {shlex.quote(str(self.folder.parent.parent))}"

    @property
    def bad_batch(self) -> Path:
        """Return where a step is kept whose loss was not finite."""
        return self.folder / "bad_batch.pt"

    def export(self, name: str) -> Path:
        """Return where the weights are exported to in a format of FORMATS."""
        suffix = FORMATS[name].suffix
        if self.model in ("torch", name) and (fitting := [file for file in self.given if file.name.endswith(suffix)]):
            return fitting[0]
        return self.folder / f"best{suffix}" if self.alone else self.settings.with_suffix(suffix)

    @property
    def onnx(self) -> Path:
        """Return where the weights are exported to."""
        return self.export("onnx")

    @property
    def exported(self) -> bool:
        """Return whether the ONNX file exists and was made from these weights."""
        return self.has("onnx")

    def has(self, name: str) -> bool:
        """Return whether the export in a format exists and was made from these weights, whatever their names and times."""
        file = self.export(name)
        return file in self.given or file.is_file() and stored_values(file).get(SOURCE) == self.source[SOURCE]

    @property
    def source(self) -> dict[str, str]:
        """Return the entry of an export's metadata that tells which weights it was made from."""
        return {SOURCE: _content(self.weights)}

    @property
    def fastest(self) -> Path:
        """Return the file to predict with: the exported one that came with the weights, else the weights."""
        return next(iter(self.given), self.weights)

    @property
    def epochs(self) -> int:
        """Return the number of whole epochs that were trained."""
        return len(checkpoint.load(self.last).get("rows", ())) if self.last.is_file() else 0


def next_id(root: Path) -> str:
    """Return the three-digit id after the largest one below `root`."""
    used = [int(path.name) for path in root.glob("*") if re.fullmatch(r"\d{3,}", path.name)] if root.is_dir() else []
    return f"{max(used, default=-1) + 1:03d}"


def find(exp: str | None, root: Path, train: bool, resume: bool = False) -> Run:
    """Return the run that --exp means: an id below `root`, a folder, a file, or the name of a shipped net.

    Without --exp it is the next free id to train, else the newest run. UserError if there is nothing to test.
    """
    is_file = exp is not None and (Path(exp).suffix in SUFFIXES or Path(exp).is_file() or "," in exp)
    if train and (exp in SHIPPED or is_file):
        kind = "a file" if is_file else "a shipped net"
        raise UserError(f"--exp {exp} is {kind}; give an id or a folder to train in (--weights {exp} starts from it)")
    if exp in SHIPPED:
        given = (shipped(f"{exp}{FORMATS[name].suffix}") for name in ("onnx", "int8"))
        return Run(root / FILES / exp, shipped_net(exp, ".pt", ".onnx"), tuple(takewhile(Path.is_file, given)))
    if is_file:
        return _find_file(exp, root)
    if exp is None:
        if train and not resume:
            folder = root / next_id(root)
        else:
            runs = sorted(root.glob("*/last.pt" if resume else "*/best.pt"), key=lambda path: path.stat().st_mtime)
            if not runs:
                raise UserError(f"nothing is trained yet in {root}; train a net (--train) or name one (--exp)")
            folder = runs[-1].parent
    else:
        folder = folder_of(exp, root)
    run = Run(folder, folder / "best.pt")
    if not train and not run.weights.is_file():
        names = sorted(path.parent.name for path in root.glob("*/best.pt")) if root.is_dir() else []
        known = f"there are: {', '.join(names[-10:])}" if names else "nothing is trained yet"
        near = nearest(exp or "", [*names, *SHIPPED])
        raise UserError(f"no trained net in {folder} ({known}; shipped: {', '.join(SHIPPED)}){near}")
    return run


def _find_file(exp: str, root: Path) -> Run:
    """Return a checkpoint or an ONNX file in its run's folder; others with a folder for their results below `root`."""
    weights, mean = split_files(exp)
    for file in [*weights, *([mean] if mean else [])]:
        if not file.is_file():
            raise UserError(f"no file {file}; give an id, a folder, a file or one of {', '.join(SHIPPED)}")
    first = weights[0]
    run = Run(first.parent, first, (first,) if first.suffix in RUNTIMES else ())
    if "," not in exp and is_ours(run.folder / "args.yaml") and run.settings.is_file():
        return run
    # many files share a name, such as best.pt, so the folder is named after the content too
    name = f"{first.name.replace('.', '-')[:100]}-{_content(exp)[:8]}"
    return run._replace(folder=root / FILES / name, weights=Path(exp))


def _content(weights: Path | str) -> str:
    """Return the checksum of a file, or of all files that a net of others consists of."""
    sums = [checksum(file) for file in contents(weights)]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def continue_after_restart(mode: Namespace, run: Run) -> None:
    """Set `resume` or `overwrite` if torchrun has restarted this process. UserError if the run has no name to be found by."""
    if variable("TORCHELASTIC_MAX_RESTARTS", 0) and not mode.exp:
        raise UserError("MAX_RESTARTS needs --exp, by which a restarted training finds its run")
    if variable("TORCHELASTIC_RESTART_COUNT", 0):
        mode.resume = run.last.is_file()
        mode.overwrite = not mode.resume


def check_free(run: Run, resume: bool, overwrite: bool) -> None:
    """Raise UserError if a training would destroy another run, or has nothing to resume."""
    if resume and not run.last.is_file():
        raise UserError(f"{run.folder} has no last.pt to resume; train without --resume")
    if not resume and not overwrite and (run.last.is_file() or run.weights.is_file()):
        raise UserError(f"{run.folder} already holds a run; give --resume to go on, --overwrite to replace it, or another --exp")


@contextmanager
def hold(run: Run, new: bool = False) -> Iterator[Run]:
    """Hold the folder of a run, and yield the run. InUse if another process holds it, and the folder was asked for.

    Otherwise the next one is taken: by a `new` training without --exp that of the next id, for results of a file a numbered one.
    """
    for place in _places(run, new):
        with ExitStack() as held:
            try:
                held.enter_context(lock(place.folder))
                if new and {path.name for path in place.folder.iterdir()} - {LOCK, LOG}:
                    raise InUse(f"{place.folder} was trained in meanwhile")
            except InUse:
                if not (new or run.alone):
                    raise
                continue
            if place != run:
                logger.info(f"{run.folder} is in use by another process; this one takes {place.folder}")
            yield place
            return


def _places(run: Run, new: bool) -> Iterator[Run]:
    """Yield a run in its folder, then in others that it may take instead."""
    yield run
    for number in count(2):
        root = run.folder.parent
        folder = root / (next_id(root) if new else f"{run.folder.name}-{number}")
        yield run._replace(folder=folder, weights=folder / run.weights.name if new else run.weights)


class History:
    """Past epochs of a training: rows of step.csv and time.csv, the best validation figure, the solver's state, CPU threads.

    figure: the column of step.csv by which epochs are compared; lower is better.
    """

    def __init__(self, figure: str, stored: dict | None = None):
        stored = stored or {"rows": [], "times": [], "best": float("inf"), "solver": None}
        self.threads = stored.get("threads", 0)
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


def _without_write_errors(failed) -> None:
    """Print what has failed in a thread, except TensorBoard's writing, whose next call raises the error again."""
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)


def log_to(file: Path):
    """Return a sink for the logger. A line that cannot be written is dropped: the next checkpoint says that the disk is full.

    UserError for a link, a pipe or a device, which could lead anywhere.
    """
    def opened() -> int:
        return open_regular(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(line: str) -> None:
        with suppress(OSError), open(opened(), "a", encoding="utf-8", errors="surrogateescape") as log:
            log.write(line)

    if os.path.lexists(file):
        try:
            links = os.fstat(descriptor := opened()).st_nlink
            os.close(descriptor)
        except OSError as error:
            raise UserError(f"{file} cannot be written to ({error.strerror}); remove it or give another --exp") from None
        if links > 1:  # its other name may be outside, or in a copy that was made with links
            write_atomic(file, lambda path: shutil.copyfile(file, path))

    return write


class Keeper:
    """Writes a training's files. Each file is whole, whenever the process is killed."""

    def __init__(self, run: Run, history: History):
        self.run, self.history = run, history
        threading.excepthook = _without_write_errors
        self.events = SummaryWriter and SummaryWriter(
            run.folder / "events", purge_step=history.epochs + 1,
            filename_suffix=f".{secrets.token_hex(4)}")  # nobody can foresee the name, and place a link at it
        if not self.events:
            logger.info("no events for TensorBoard are written, because its package is missing: pip install tensorboard")
        write_tables(run, history.rows, history.times)  # a kill may have come between the last checkpoint and its rows

    def save(self, inference: dict, solver: dict, better: bool) -> None:
        """Write the files of an epoch: best.pt if it is `better`, last.pt, the tables, TensorBoard's events."""
        if better:
            checkpoint.save(self.run.weights, inference)
        checkpoint.save(self.run.last, {**inference, "solver": solver, "rows": self.history.rows, "times": self.history.times,
                                        "best": self.history.best})
        write_tables(self.run, self.history.rows, self.history.times)
        if not self.events:
            return
        row, times = self.history.rows[-1], self.history.times[-1]
        for key, value in {**row, **{f"time/{key}": value for key, value in times.items()}}.items():
            if not key.endswith("epoch"):
                self.events.add_scalar(key, value, row["epoch"] + 1)
        self.events.flush()


def write_tables(run: Run, rows: list[dict], times: list[dict]) -> None:
    """Write step.csv and time.csv of a run, a row for each epoch."""
    for name, table in (("step.csv", rows), ("time.csv", times)):
        if table:
            write_csv(run.folder / name, list(table[0]), [row.values() for row in table])
