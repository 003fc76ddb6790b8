"""Callbacks, which take the figures and pictures of a training: what --log names.

`CALLBACKS` is the table of ours. Any other class is named by its module: `--log my_package.logs:Slack`.
"""

import secrets
import threading
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from loguru import logger

from pipnet.errors import UserError, one_line
from pipnet.files import write_text
from utils.train.history import History


class Callback(Protocol):
    """A class that --log names, made without arguments, in the first process only."""

    def start(self, folder: Path, settings: dict[str, Any], history: History) -> None:
        """Begin. folder: of the run; settings: {key: value}; history: the epochs, those of a resumed run to begin with."""

    def epoch(self, values: dict[str, float], pictures: dict[str, np.ndarray]) -> None:
        """Take an epoch whose checkpoint is written.

        values: {column of step.csv, or time/ and a column of time.csv: value}; epoch counts from 0
        pictures: {name: BGR uint8 (H, W, 3)}, such as the worst validation faces
        """

    def end(self, failed: bool) -> None:
        """End. failed: whether an error has stopped the training."""


class Tables:
    """step.csv and time.csv, a row for each epoch."""

    def start(self, folder: Path, settings: dict[str, Any], history: History) -> None:
        self.folder, self.history = folder, history

    def epoch(self, values: dict[str, float], pictures: dict[str, np.ndarray]) -> None:
        self.history.write_tables(self.folder)

    def end(self, failed: bool) -> None:
        """Nothing is left to do."""


class TensorBoard:
    """Event files in the run's folder; a line in the log if the package is missing."""

    def start(self, folder: Path, settings: dict[str, Any], history: History) -> None:
        self.folder, self.events = folder / "events", None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.info(
                "no events for TensorBoard are written, because its package is missing: pip install tensorboard"
            )
            return
        threading.excepthook = _without_write_errors
        suffix = f".{secrets.token_hex(4)}"  # nobody can foresee the name, and place a link at it
        self.events = SummaryWriter(self.folder, purge_step=history.epochs + 1, filename_suffix=suffix)

    def epoch(self, values: dict[str, float], pictures: dict[str, np.ndarray]) -> None:
        if not self.events:
            return
        number = values["epoch"] + 1
        try:
            for name, value in values.items():
                if name != "epoch":
                    self.events.add_scalar(name, value, number)
            for name, picture in pictures.items():
                self.events.add_image(name, picture[..., ::-1], number, dataformats="HWC")
            self.events.flush()
        except FileNotFoundError:
            raise UserError(f"{self.folder} was moved or removed during the training") from None

    def end(self, failed: bool) -> None:
        if self.events:
            self.events.close()


def _without_write_errors(failed) -> None:
    """Print an exception of a thread, except an OSError of TensorBoard's writer: its next call raises that error again."""
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)


class Wandb:
    """Weights & Biases. Its project and mode are set by its own variables, such as WANDB_PROJECT and WANDB_MODE.

    Its files go to the current folder or WANDB_DIR, not to that of the run, because there are links among them.
    """

    def __init__(self) -> None:
        self.wandb = import_module("wandb")

    def start(self, folder: Path, settings: dict[str, Any], history: History) -> None:
        number = folder / "wandb.txt"  # the tracker's name of the run
        resumed = number.read_text() if history.epochs and number.is_file() else None
        self.run = self.wandb.init(id=resumed, resume="allow", name=folder.name, config=settings)
        write_text(number, self.run.id)

    def epoch(self, values: dict[str, float], pictures: dict[str, np.ndarray]) -> None:
        images = {name: self.wandb.Image(picture[..., ::-1]) for name, picture in pictures.items()}
        self.run.log({**values, **images}, step=values["epoch"] + 1)

    def end(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


CALLBACKS: dict[str, type[Callback]] = {"csv": Tables, "tensorboard": TensorBoard, "wandb": Wandb}


class Callbacks:
    """The callbacks of a training, called in turn. As a context, it ends them.

    An error of one is a UserError, and its traceback is in the run's log.txt. csv is always among them, because step.csv
    is read by other commands.
    """

    def __init__(self, names: Sequence[str]):
        self.made = {name: make_callback(name) for name in dict.fromkeys(["csv", *names])}
        self.started: list[str] = []

    def start(self, folder: Path, settings: dict[str, Any], history: History) -> None:
        for name in self.made:
            self._call(name, "start", folder, settings, history)
            self.started.append(name)

    def epoch(self, values: dict[str, float], pictures: dict[str, np.ndarray]) -> None:
        for name in self.made:
            self._call(name, "epoch", values, pictures)

    def __enter__(self) -> "Callbacks":
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        for name in self.started:
            with suppress(UserError) if kind else nullcontext():  # the first error is the one to tell
                self._call(name, "end", kind is not None)

    def _call(self, name: str, method: str, *values: Any) -> None:
        try:
            getattr(self.made[name], method)(*values)
        except UserError:
            raise
        except Exception as error:
            logger.opt(exception=True).debug(f"--log {name}")
            raise UserError(f"--log {name}: {type(error).__name__} in {method}: {one_line(error)}") from None


def make_callback(name: str) -> Callback:
    """Return a callback from its row in CALLBACKS, or from `module:Class`. UserError if it cannot be made."""
    module, _, kind = name.partition(":")
    try:
        made = CALLBACKS[name]() if name in CALLBACKS else getattr(import_module(module), kind)()
    except ModuleNotFoundError as error:
        own = kind and f"{module}.".startswith(f"{error.name}.")
        how = "install it, or put its folder into PYTHONPATH" if own else f"pip install {error.name}"
        raise UserError(f"--log {name}: the module {error.name} is missing; {how}") from None
    except Exception as error:
        raise UserError(f"--log {name}: {type(error).__name__}: {one_line(error)}") from None
    missing = [method for method in ("start", "epoch", "end") if not hasattr(made, method)]
    if missing:
        raise UserError(f"--log {name} has no method {missing[0]}; write start, epoch and end (docs/training.md)")
    return made
