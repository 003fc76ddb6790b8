"""Finds and checks the runs that main.py works on, locks the one that it writes to, and opens its log."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from pipnet.errors import UserError
from pipnet.shipped import SHIPPED
from utils.settings import rooms
from utils.settings.command import Command
from utils.settings.config import ROOT
from utils.settings.progress import log_to_terminal
from utils.settings.start import names_training
from utils.train import run_folder
from utils.train.ranks import Ranks, variable
from utils.train.run_folder import Run
from utils.train.run_lock import LOG, check_new, hold, log_to


class Runs(NamedTuple):
    """The runs of a command.

    exp: the text that names `own`; None: the default run
    own: the run that is trained, tested or exported; None for a preparation
    progress: the run whose files show how far a training has come, such as its first fold or round
    compare: runs with which it is compared
    """

    exp: str | None
    own: Run | None
    progress: Run | None
    compare: list[Run]


def find_runs(command: Command, ranks: Ranks) -> tuple[Command, Runs]:
    """Return (command, the runs that it means). UserError if there is none, if a training has no folder to begin in, or
    if results would be written to a place that is in use.

    After a restart by torchrun, the returned command says how to go on.
    """
    root, trains = command.folder("run_root"), command.trains
    uses = trains or command.tests or command.has("export")
    exp, run = command.exp or (None if uses else SHIPPED[0]), None
    if uses or command.has("predict") or (command.has("show_data") and command.exp):
        run = ranks.agree(lambda: run_folder.find_run(exp, root, trains, command.has("resume")))
        # other faces calibrate the 8-bit net, so it is written anew, and what came with the weights is not that net
        if command.given.keys() & {"dataset", "data_dir", "train_data"}:
            run = run._replace(given=tuple(file for file in run.given if file == run.fastest), anew=(*run.anew, "int8"))
    compare = ranks.agree(lambda: [run_folder.find_run(other, root, False) for other in command.mode("compare", ())])
    if compare:
        rooms.report.require()  # or one line that says that it is missing
    progress = run.first(command.has("audit")) if run and trains else run
    runs = Runs(exp, run, progress, compare)
    if run and progress and trains:
        command = _after_restart(command, progress)
        ranks.agree(lambda: _check_begin(command, run, progress, root))
    ranks.agree(lambda: _check_out(command, run))
    return command, runs


def _after_restart(command: Command, progress: Run) -> Command:
    """Return the command. If torchrun has restarted this process and there is a checkpoint, the training is resumed.

    UserError if the run has no name to be found by.
    """
    if variable("TORCHELASTIC_MAX_RESTARTS", 0) and not command.exp:
        raise UserError("MAX_RESTARTS needs --exp, by which a restarted training finds its run")
    if variable("TORCHELASTIC_RESTART_COUNT", 0) and progress.last.is_file():
        modes = {name: value for name, value in command.modes.items() if name != "overwrite"}
        return replace(command, modes={**modes, "resume": True})
    return command


def _check_begin(command: Command, run: Run, progress: Run, root: Path) -> None:
    """Raise UserError if this training may not begin in its folder, or has nothing to resume there."""
    if not command.has("resume"):
        check_new(run.folder, command.has("overwrite"), (ROOT, root))
    elif not progress.last.is_file():
        raise UserError(f"{progress.folder} has no last.pt to resume; train without --resume")


def _check_out(command: Command, run: Run | None) -> None:
    """Raise UserError if --predict or --export web would write to a place that is in use."""
    if run and command.has("predict"):
        rooms.tools.target_of(command, run.folder)
    if command.has("out") and "web" in command.formats:
        rooms.runtimes.check_page(Path(command.mode("out")), command.has("overwrite"))


@contextmanager
def opened(command: Command, runs: Runs, ranks: Ranks) -> Iterator[Run | None]:
    """Lock the folder of the run that is written to, log into it, and yield the run.

    A training without --exp takes the next id that is free.
    """
    log_to_terminal(ranks.first)
    own = run = runs.own
    with ranks.connected(), ExitStack() as held:
        # first of all, so that no other run takes the folder meanwhile
        if own and (command.trains or command.tests or command.has("export", "show_data")):
            new = command.trains and not command.has("resume")
            overwrite, named = command.has("overwrite"), command.exp is not None
            run = ranks.agree(lambda: held.enter_context(hold(own, new, overwrite, named)))
            if ranks.first:
                logger.add(log_to(run.folder / LOG), format="{time:YYYY-MM-DD HH:mm:ss} {level} {message}")
                if command.trains:
                    names_training(run.folder)
        yield run
