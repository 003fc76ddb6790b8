"""The past epochs of a training, and the files in the run's folder that are written after each."""

import secrets
import threading
from contextlib import suppress
from typing import Any

from loguru import logger

from pipnet.errors import UserError
from pipnet.files import write_csv
from utils.train import checkpoint
from utils.train.run_folder import Run

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:
    SummaryWriter = None

ONLY_LAST = ("solver", "rows", "times", "best")  # values of last.pt that best.pt lacks


class History:
    """Past epochs of a training: rows of step.csv and time.csv, and the best validation figure.

    figure: the column of step.csv by which epochs are compared; lower is better.
    """

    def __init__(
        self, figure: str, rows: list[dict] | None = None, times: list[dict] | None = None, best: float = float("inf")
    ):
        self.figure, self.rows, self.times, self.best = figure, rows or [], times or [], best

    @property
    def epochs(self) -> int:
        """Return the number of whole epochs."""
        return len(self.rows)

    def epochs_since_best(self) -> int:
        """Return the number of epochs after the one with the best validation figure."""
        return self.epochs - 1 - self.best_epoch()

    def best_epoch(self) -> int:
        """Return the number, from 0, of the epoch whose weights best.pt holds; without validation it is the last one."""
        return min((row["epoch"] for row in self.rows if row[self.figure] == self.best), default=self.epochs - 1)

    def diverged(self) -> bool:
        """Return whether the loss has risen since the first epoch, and the validation figure has not become better."""
        if not self.rows:
            return False
        first, last = self.rows[0], self.rows[-1]
        return (
            last["loss"] > first["loss"] and not last[self.figure] < first[self.figure]
        )  # the figure is NaN without validation

    def add(self, row: dict, times: dict) -> bool:
        """Add an epoch's figures. Return whether its validation figure is the best so far."""
        better = not row[self.figure] >= self.best  # it is NaN without validation: the last epoch is the best
        self.best = min(row[self.figure], self.best)
        self.rows.append({**row, "best": self.best})
        self.times.append(times)
        return better


def resumable(run: Run, expected: dict[str, Any]) -> dict[str, Any]:
    """Return a run's last checkpoint.
    UserError if it holds no training state, or differs in one of the `expected` values.
    """
    stored = checkpoint.load(run.last)
    if "solver" not in stored:
        raise UserError(f"{run.last} has no training state, only weights; start from them: --weights {run.last}")
    if any(stored[key] != value for key, value in expected.items()):
        raise UserError(
            f"{run.last} was trained with another net, layout, data or teacher than there is now; train a new run"
        )
    return stored


def make_whole(run: Run, figure: str, stored: dict[str, Any]) -> float:
    """Make best.pt and the tables of a run agree with its last.pt, which is `stored`. Return the best figure.

    A process may have been killed when it had written last.pt alone. A best.pt of an epoch that is trained again, with
    whatever values, is replaced too.
    """
    history = History(figure, stored["rows"], stored["times"], stored["best"])
    row, kept = history.rows[history.best_epoch()], {}
    with suppress(UserError):
        kept = checkpoint.load(run.weights)
    same = repr([kept.get("epoch"), kept.get(figure)]) == repr([row["epoch"], row[figure]])  # figures may be NaN
    if not same and run.weights != run.last:
        if row is not history.rows[-1]:
            logger.warning(
                f"{run.weights} is not of epoch {row['epoch'] + 1}, the best one of {run.last}, whose weights take its place"
            )
            history.rows[-1]["best"] = history.best = history.rows[-1][figure]
        checkpoint.save(run.weights, {key: value for key, value in stored.items() if key not in ONLY_LAST})
    write_tables(run, history.rows, history.times)
    return history.best


def _without_write_errors(failed) -> None:
    """Print an exception of a thread, except an OSError of TensorBoard's writer: its next call raises that error again."""
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)


class Keeper:
    """Writes a training's files. Each file is whole, whenever the process is killed."""

    def __init__(self, run: Run, history: History):
        self.run, self.history = run, history
        threading.excepthook = _without_write_errors
        self.events = SummaryWriter and SummaryWriter(
            run.folder / "events", purge_step=history.epochs + 1, filename_suffix=f".{secrets.token_hex(4)}"
        )  # nobody can foresee the name, and place a link at it
        if not self.events:
            logger.info(
                "no events for TensorBoard are written, because its package is missing: pip install tensorboard"
            )

    def save(self, inference: dict, solver: dict, better: bool) -> None:
        """Write the files of an epoch: last.pt, best.pt if it is `better`, the tables, TensorBoard's events."""
        state = (solver, self.history.rows, self.history.times, self.history.best)
        checkpoint.save(self.run.last, {**inference, **dict(zip(ONLY_LAST, state, strict=True))})
        # after last.pt, from which `make_whole` can make it; the nets of an audit are those of the last epoch
        if better and self.run.weights != self.run.last:
            checkpoint.save(self.run.weights, inference)
        write_tables(self.run, self.history.rows, self.history.times)
        if not self.events:
            return
        row, times = self.history.rows[-1], self.history.times[-1]
        try:
            for key, value in {**row, **{f"time/{key}": value for key, value in times.items()}}.items():
                if not key.endswith("epoch"):
                    self.events.add_scalar(key, value, row["epoch"] + 1)
            self.events.flush()
        except FileNotFoundError:
            raise UserError(f"{self.run.folder / 'events'} was moved or removed during the training") from None


def write_tables(run: Run, rows: list[dict], times: list[dict]) -> None:
    """Write step.csv and time.csv of a run, a row for each epoch."""
    for name, table in (("step.csv", rows), ("time.csv", times)):
        if table:
            write_csv(run.folder / name, list(table[0]), [row.values() for row in table])
