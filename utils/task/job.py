"""The modes of main.py, one table of them, and the job that they share."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from loguru import logger

from pipnet.app.web import check_page
from pipnet.errors import lines
from pipnet.files import read_csv
from utils.data.sets import SetFinder
from utils.evaluate.tables import with_numbers
from utils.settings.config import Defaults, Settings
from utils.settings.extras import extra
from utils.settings.modes import TESTS
from utils.task import landmarks
from utils.task.run_access import Runs
from utils.task.run_tests import run_tests
from utils.train.ranks import Ranks
from utils.train.run_folder import Run

TABLES = {  # figures that a run's folder keeps
    "train": "step.csv",
    "audit": "audit/labels.csv",
    "scores": "report/scores.csv",
    "groups": "report/groups.csv",
    "formats": "report/formats.csv",
}
Figures = dict[str, list[dict]]  # {name of a table: its rows}


class Job(NamedTuple):
    """Settings, sets and run of one command, which its modes share. All processes have one.

    mode: the modes and their flags; given: the keys on the command line
    task: the functions of --task, see `utils.task.landmarks`
    runs: the runs that the flags mean; run: the one that is written to, None for a preparation
    stored: the values of the run's checkpoint; None: they are read when they are needed, behind a training
    task_data: the sets of the run, as `task` prepares them
    """

    mode: Namespace
    given: dict[str, Any]
    settings: Settings
    task: ModuleType
    ranks: Ranks
    runs: Runs
    run: Run | None
    stored: dict[str, Any] | None
    task_data: Any = None

    def prepared(self, defaults: Defaults) -> "Job":
        """Return the job with its sets, which are prepared if they are missing.

        Test sets are prepared before a training, so that one that cannot be used is found now.
        """
        mode, data = self.mode, self.settings.data
        trains, tests = mode.train or mode.audit, any(getattr(mode, name) for name in TESTS)
        if trains:
            logger.info(f"training data: {', '.join(data.train_data)}")
        calibrates = "int8" in {*mode.export, *mode.test_formats} and not trains
        calibrates = calibrates and not self.run._replace(view=self.settings.view).keeps("int8")  # which opens the file
        needs_training = mode.prepare or trains or mode.show_data or calibrates
        needs_tests = tests or (mode.train and data.val == "test") or (mode.prepare and data.test_data)
        settings = self.settings
        if not (trains or mode.prepare):  # nothing else learns from these pictures, which may be gone
            settings = settings._replace(data=replace(data, backgrounds=None))
        sets = SetFinder(settings, defaults, mode.prepare and mode.overwrite and self.ranks.first)
        task_data = self.task.prepare(settings, sets, self.ranks, needs_training, needs_tests)
        if mode.prepare and self.ranks.first:
            sets.log_ready()
            sets.log_unused()
        return self._replace(task_data=task_data)

    def tests(self) -> Any:
        """Return the `Evaluation` of the run."""
        stored = self.stored if self.run.weights == self.run.settings_file else None
        return self.task.tests(self.task_data, self.ranks, self.run, self.runs.compare, stored)

    def figures(self, *names: str) -> Figures:
        """Return tables of the run's folder by their names in TABLES; none in processes other than the first."""
        return {name: with_numbers(read_csv(self.run.folder / TABLES[name])) for name in names if self.ranks.first}


def task_of(mode: Namespace, settings: Settings, runs: Runs) -> ModuleType:
    """Return the functions of --task. UserError for modes that the task does not have, or whose flags do not fit it."""
    task: ModuleType = landmarks
    if settings.train.task == "detect":
        task = extra("detector", "detect")
        task.check(mode)
    if mode.audit:
        extra("tools", "audit").check_audit(settings)
    if mode.predict:
        extra("tools", "predict").check_flags(mode, settings, runs.own.folder)
    if mode.out and "web" in mode.export:
        check_page(Path(mode.out), mode.overwrite)
    return task


def show_data(job: Job) -> Figures:
    """Draw training samples."""
    text = job.task.show(job.task_data, job.ranks, job.mode.show_data, job.run)
    if job.ranks.first:
        print(lines(text))
    return {}


def train(job: Job) -> Figures:
    """Train in the run's folder."""
    job.task.train(job.task_data, job.ranks, job.run, job.mode.resume)
    return job.figures("train")


def export(job: Job) -> Figures:
    """Write the net for other runtimes."""
    mode = job.mode
    logger.info(job.ranks.agree(lambda: job.tests().export(mode.export, mode.out, mode.overwrite)))
    return {}


def test(job: Job) -> Figures:
    """Test the net and its exports."""
    formats = job.mode.test_formats
    run_tests(job.tests(), job.ranks, formats or ["onnx"] * job.mode.test_onnx, bool(formats))
    return job.figures("scores", "groups", *["formats"] * bool(formats))


ALONE: dict[str, Callable[[Namespace, dict[str, Any], Defaults], Figures]] = {  # modes that need no run
    "list_nets": lambda mode, given, defaults: {"nets": extra("tools").list_nets(mode.list_nets)},
    "sweep": lambda mode, given, defaults: {"sweep": extra("tools", "sweep").sweep(mode, given, defaults)},
}
STEPS: dict[tuple[str, ...], Callable[[Job], Figures]] = {  # {flags that ask for it: what does it}; in this order
    ("show_data",): show_data,
    ("train",): train,
    ("audit",): lambda job: extra("tools").run_audit(job),
    ("export",): export,
    TESTS: test,
    ("predict",): lambda job: extra("tools").run_prediction(job),
}
