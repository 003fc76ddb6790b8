"""Finds and checks the runs that main.py works on, locks the one that it writes to, and opens its log."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from pipnet.errors import UserError
from pipnet.files import SHIPPED
from utils.settings.config import ROOT
from utils.settings.modes import TESTS
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
    compare: runs that a report shows too
    root: the folder of all runs
    """

    exp: str | None
    own: Run | None
    progress: Run | None
    compare: list[Run]
    root: Path


def find_runs(mode: Namespace, given: dict, root: Path, ranks: Ranks) -> tuple[Namespace, Runs]:
    """Return (mode, the runs that the flags mean). UserError if there is none, or if a training has no folder to begin in.

    After a restart by torchrun, the returned mode says how to go on.
    """
    trains, tests = mode.train or mode.audit, any(getattr(mode, name) for name in TESTS)
    exp, run = mode.exp or (None if trains or tests or mode.export else SHIPPED[0]), None
    if trains or tests or mode.export or mode.predict or (mode.show_data and mode.exp):
        run = ranks.agree(lambda: run_folder.find_run(exp, root, trains, mode.resume))
        if given.keys() & {"dataset", "data_dir", "train_data"}:  # these calibrate 8-bit numbers anew
            run = run._replace(given=tuple(file for file in run.given if file == run.fastest), anew=(*run.anew, "int8"))
    compare = ranks.agree(lambda: [run_folder.find_run(other, root, False) for other in mode.compare])
    progress = run.first(mode.audit) if trains else run
    runs = Runs(exp, run, progress, compare, root)
    if trains:
        mode = _after_restart(mode, progress)
        ranks.agree(lambda: _check_begin(mode, runs))
    return mode, runs


def _after_restart(mode: Namespace, progress: Run) -> Namespace:
    """Return the mode. If torchrun has restarted this process and there is a checkpoint, the training is resumed.

    UserError if the run has no name to be found by.
    """
    if variable("TORCHELASTIC_MAX_RESTARTS", 0) and not mode.exp:
        raise UserError("MAX_RESTARTS needs --exp, by which a restarted training finds its run")
    if variable("TORCHELASTIC_RESTART_COUNT", 0) and progress.last.is_file():
        return Namespace(**{**vars(mode), "resume": True, "overwrite": False})
    return mode


def _check_begin(mode: Namespace, runs: Runs) -> None:
    """Raise UserError if this training may not begin in its folder, or has nothing to resume there."""
    if not mode.resume:
        check_new(runs.own.folder, mode.overwrite, (ROOT, runs.root))
    elif not runs.progress.last.is_file():
        raise UserError(f"{runs.progress.folder} has no last.pt to resume; train without --resume")


@contextmanager
def opened(mode: Namespace, runs: Runs, ranks: Ranks) -> Iterator[Run | None]:
    """Lock the folder of the run that is written to, log into it, and yield the run.

    A training without --exp takes the next id that is free.
    """
    log_to_terminal(ranks.first)
    trains, run = mode.train or mode.audit, runs.own
    writes = run and (trains or mode.export or mode.show_data or any(getattr(mode, name) for name in TESTS))
    with ranks.connected(), ExitStack() as held:
        if writes:  # first of all, so that no other run takes the folder meanwhile
            new = trains and not mode.resume
            run = ranks.agree(lambda: held.enter_context(hold(run, new, mode.overwrite, bool(mode.exp))))
            if ranks.first:
                logger.add(log_to(run.folder / LOG), format="{time:YYYY-MM-DD HH:mm:ss} {level} {message}")
                if trains:
                    names_training(run.folder)
        yield run
