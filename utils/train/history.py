"""The past epochs of a training, and what is written after each: its checkpoints and tables."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from loguru import logger

from pipnet.errors import UserError
from utils.data.paths import prepared_folders
from utils.data.prepared_set import read_meta
from utils.settings.csv_files import write_csv
from utils.train import checkpoint
from utils.train.run_folder import Run

RISEN = 0.05  # share of the first loss; less is noise
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
        """Return the number, from 0, of the epoch whose weights best.pt holds: the first one with the best figure.

        It is the last one without validation, and if all figures are the same, as with --freeze landmarks.
        """
        best = [row["epoch"] for row in self.rows if row[self.figure] == self.best]
        return best[0] if 0 < len(best) < self.epochs else self.epochs - 1

    def add(self, row: dict, times: dict) -> bool:
        """Add an epoch's figures. Return whether its validation figure is the best so far."""
        self.best = min(row[self.figure], self.best)  # NaN without validation
        self.rows.append({**row, "best": self.best})
        self.times.append(times)
        return self.best_epoch() == self.epochs - 1

    def last_epoch(self) -> dict[str, float]:
        """Return the last rows of both tables, the columns of time.csv as time/NAME."""
        return {**self.rows[-1], **{f"time/{name}": value for name, value in self.times[-1].items() if name != "epoch"}}

    def diverged(self) -> bool:
        """Return whether the loss has risen since the first epoch, and the validation figure has not become better."""
        if not self.rows:
            return False
        first, last = self.rows[0], self.rows[-1]
        # the figure is NaN without validation
        return last["loss"] - first["loss"] > RISEN * abs(first["loss"]) and not last[self.figure] < first[self.figure]

    def write_tables(self, folder: Path) -> None:
        """Write step.csv and time.csv to a run's folder, a row for each epoch."""
        for name, table in (("step.csv", self.rows), ("time.csv", self.times)):
            if table:
                write_csv(folder / name, list(table[0]), [[row[column] for column in table[0]] for row in table])


def resumable(run: Run, expected: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return a run's last checkpoint. root: folder of the prepared sets.
    UserError if it holds no training state, or differs in one of the `expected` values, which it names.
    """
    stored = checkpoint.load(run.last)
    if "solver" not in stored:
        raise UserError(f"{run.last} has no training state, only weights; start from them: --weights {run.last}")
    if other := [key for key, value in expected.items() if stored.get(key) != value]:
        kept = _folders_of({*stored["data"]} - {*expected["data"]}, root)
        remedy = f"train a new run, or as before on {' and '.join(kept)}: --train-data" if kept else "train a new run"
        raise UserError(
            f"{run.last} was trained with another {' and another '.join(other)} than there is now; {remedy}"
        )
    return stored


def _folders_of(checksums: set[str], root: Path) -> list[str]:
    """Return the prepared sets in `root` that have one of these checksums."""
    found = []
    for folder in prepared_folders(root):
        with suppress(UserError):
            if read_meta(folder)["checksum"] in checksums:
                found.append(str(folder))
    return found


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
    history.write_tables(run.folder)
    return history.best


def save(run: Run, history: History, inference: dict, solver: dict, better: bool) -> None:
    """Write last.pt, and best.pt if the epoch is `better`. Each is whole, whenever the process is killed.

    inference: what both files hold. solver: the state of the training.
    """
    state = {"solver": solver, "rows": history.rows, "times": history.times, "best": history.best}
    checkpoint.save(run.last, {**inference, **state})
    # after last.pt, from which `make_whole` can make it; the nets of an audit are those of the last epoch
    if better and run.weights != run.last:
        checkpoint.save(run.weights, inference)
