"""Finds, checks and locks the runs that main.py works on, and opens their log."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from loguru import logger
from tqdm import tqdm

from extras.semi import rounds
from extras.tools import audit, predict
from pipnet.app.web import check_page
from pipnet.errors import UserError, printable
from pipnet.files import SHIPPED
from utils.data.locks import LOG
from utils.settings.config import ROOT, Settings
from utils.settings.modes import TESTS
from utils.settings.start import names_training
from utils.train import own_files, run_folder, run_lock
from utils.train.ranks import Ranks
from utils.train.run_folder import Run


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


def find_runs(mode: Namespace, given: dict, root: Path, ranks: Ranks) -> Runs:
    """Return the runs that the flags mean. UserError if there is none, or if a training would overwrite one.

    After a restart by torchrun, set `mode.resume` or `mode.overwrite`.
    """
    trains, tests = mode.train or mode.audit, any(getattr(mode, name) for name in TESTS)
    exp, run = mode.exp or (None if trains or tests or mode.export else SHIPPED[0]), None
    if trains or tests or mode.export or mode.predict or (mode.show_data and mode.exp):
        run = ranks.agree(lambda: run_folder.find_run(exp, root, trains, mode.resume))
        if given.keys() & {"dataset", "data_dir", "train_data"}:  # these calibrate 8-bit numbers anew
            run = run._replace(given=tuple(file for file in run.given if file == run.fastest), anew=(*run.anew, "int8"))
    compare = ranks.agree(lambda: [run_folder.find_run(other, root, False) for other in mode.compare])
    progress = audit.fold_runs(run, 1)[0] if mode.audit else rounds.begun(run) if trains else run
    runs = Runs(exp, run, progress, compare, root)
    if trains:
        run_lock.continue_after_restart(mode, progress)
        ranks.agree(lambda: check_folder(mode, runs))
    return runs


def check_folder(mode: Namespace, runs: Runs) -> None:
    """Raise UserError if this training may not start or resume in its folder."""
    if not mode.resume:
        marks = audit.MARKS if mode.audit else own_files.MARKS
        own_files.check_place(runs.own.folder, [ROOT, runs.root], marks)
    run_lock.check_free(runs.progress, mode.resume, mode.overwrite)


def check_excluded(mode: Namespace, runs: Runs, settings: Settings) -> None:
    """Raise UserError for outputs that may not be written to."""
    if mode.audit:
        audit.check_audit(runs.own, settings)
    if mode.out and "web" in mode.export:
        check_page(Path(mode.out), mode.overwrite)
    if mode.predict:
        if settings.test.detector == "none" and (mode.threshold, mode.detector_scale) != (None, None):
            raise UserError(
                "--threshold and --detector-scale are for a detector; leave out these, or leave out --detector none"
            )
        predict.target_of(mode, runs.own.folder)


@contextmanager
def opened(mode: Namespace, runs: Runs, ranks: Ranks) -> Iterator[Run | None]:
    """Lock the folder of the run that is written to, log into it, and yield the run.
    Another folder is taken if it is in use.
    """
    logger.remove()
    logger.configure(patcher=lambda record: record.update(message=printable(record["message"])))
    if ranks.first:
        logger.add(
            lambda line: tqdm.write(line, end="", file=sys.stderr), format="{time:HH:mm:ss} {message}", level="INFO"
        )
    trains, run = mode.train or mode.audit, runs.own
    writes = run and (
        not mode.out or trains or mode.export or mode.show_data or any(getattr(mode, name) for name in TESTS)
    )
    with ranks.connected(), ExitStack() as held:
        if writes:  # first of all, so that no other run takes the folder meanwhile
            new = trains and not (mode.exp or mode.resume)
            run = ranks.agree(lambda: held.enter_context(run_lock.hold(runs.own, new)))
            if ranks.first:
                if trains and not new:
                    check_folder(mode, runs)
                if trains:
                    names_training(run.folder)
                own_files.tidy(run.folder)
                logger.add(run_lock.log_to(run.folder / LOG), format="{time:YYYY-MM-DD HH:mm:ss} {level} {message}")
        yield run
