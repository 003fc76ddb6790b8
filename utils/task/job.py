"""The modes of main.py, one table of them, and the job that they share."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

from loguru import logger

from pipnet.errors import lines
from utils.data.sets import Sets, log_ready, log_unused, test_names
from utils.evaluate.tables import with_numbers
from utils.settings import rooms
from utils.settings.command import Command
from utils.settings.config import Settings
from utils.settings.csv_files import read_csv
from utils.settings.modes import TESTS
from utils.settings.sections import KEYS
from utils.task import landmarks
from utils.task.run_access import Runs
from utils.task.run_tests import run_tests
from utils.train import checkpoint
from utils.train.ranks import Ranks
from utils.train.run_folder import Run
from utils.train.settings import settings_of

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

    runs: the runs that the flags mean; run: the one that is written to, None for a preparation
    stored: the values of the run's checkpoint; None: they are read when they are needed, behind a training
    task_data: the sets of the run, as `task` prepares them
    """

    command: Command
    settings: Settings
    ranks: Ranks
    runs: Runs
    run: Run | None
    stored: dict[str, Any] | None
    task_data: Any = None

    @property
    def task(self) -> ModuleType:
        """Return the functions of --task, see `utils.task.landmarks`."""
        return rooms.detector.detect if self.settings.train.task == "detect" else landmarks

    @property
    def viewed(self) -> Run | None:
        """Return the run, with the exports in the layout of the settings."""
        return self.run and self.run.in_layout(self.settings.view, (self.stored or {}).get("layout", {}))

    def prepared(self) -> "Job":
        """Return the job with its sets, which are prepared if they are missing.

        Test sets are prepared before a training, so that one that cannot be used is found now.
        """
        command, settings = self.command, self.settings
        data, trains, prepares = settings.data, command.trains, command.has("prepare")
        if trains:
            logger.info(f"training data: {', '.join(data.training_sets)}")
        calibrates = "int8" in command.formats and not trains
        if calibrates and self.viewed:  # which opens the file
            calibrates = not self.viewed.keeps("int8")
        needs_training = prepares or trains or command.has("show_data") or calibrates
        validates = command.has("train") and data.val == "test"
        needs_tests = command.tests or validates or (prepares and data.test_data)
        if not (trains or prepares):  # nothing else learns from these pictures, which may be gone
            settings = settings._replace(data=replace(data, backgrounds=None))
        sets = Sets(settings, command.defaults, prepares and command.has("overwrite") and self.ranks.first)
        task_data = self.task.prepare(sets, self.ranks, needs_training, needs_tests)
        if prepares and self.ranks.first:
            log_ready(task_data.sets)
            log_unused(task_data.sets)
        return self._replace(task_data=task_data)

    def tests(self) -> Any:
        """Return the `Evaluation` of the run."""
        stored = self.stored if self.run and self.run.weights == self.run.settings_file else None
        return self.task.tests(self.task_data, self.ranks, self.run, stored)

    def beside(self, run: Run) -> "Job":
        """Return the job that tests another run on the same sets, in its own crops. UserError if it cannot be tested so."""
        same = {"test_data": test_names([split.set for split in self.task_data.tested]), **vars(self.settings.test)}
        if self.settings.view:
            same["layout"] = self.settings.view
        given = {key: value for key, value in self.command.given.items() if KEYS[key].change in ("test", "always")}
        modes = {"exp": str(run.folder), "compare": [str(self.run.folder)] if self.run else []}
        command = replace(self.command, modes=modes, given={**given, **same})
        stored = checkpoint.load(run.settings_file, command.defaults)
        settings = settings_of(command, run, stored)
        return self._replace(command=command, settings=settings, run=run, stored=stored).prepared()

    def figures(self, *names: str) -> Figures:
        """Return tables of the run's folder by their names in TABLES; none in processes other than the first."""
        return {
            name: with_numbers(read_csv(self.run.folder / TABLES[name]))
            for name in names
            if self.run and self.ranks.first
        }


def show_data(job: Job) -> Figures:
    """Draw training samples."""
    text = job.task.show(job.task_data, job.ranks, job.command.mode("show_data"), job.run)
    if job.ranks.first:
        print(lines(text))
    return {}


def train(job: Job) -> Figures:
    """Train in the run's folder."""
    job.task.train(job.task_data, job.ranks, job.run, job.command.has("resume"))
    return job.figures("train")


def export(job: Job) -> Figures:
    """Write the net for other runtimes."""
    formats, out, overwrite = job.command.mode("export"), job.command.mode("out"), job.command.has("overwrite")
    logger.info(job.ranks.agree(lambda: job.tests().export(formats, out, overwrite)))
    return {}


def test(job: Job) -> Figures:
    """Test the net and its exports."""
    formats = job.command.mode("test_formats", [])
    onnx = ["onnx"] * job.command.has("test_onnx")
    run_tests(job.tests(), job.ranks, formats or onnx, bool(formats))
    return job.figures("scores", "groups", *["formats"] * bool(formats))


def compare(job: Job) -> Figures:
    """Test the run and others on the same faces."""
    return {"compare": rooms.report.compare([job, *map(job.beside, job.runs.compare)])}


ALONE: dict[str, Callable[[Command], Figures]] = {  # modes that need no run
    "list_nets": lambda command: {"nets": rooms.tools.list_nets(command.mode("list_nets"))},
    "sweep": lambda command: {"sweep": rooms.tools.sweep(command)},
}
STEPS: dict[tuple[str, ...], Callable[[Job], Figures]] = {  # {flags that ask for it: what does it}; in this order
    ("show_data",): show_data,
    ("train",): train,
    ("audit",): lambda job: rooms.tools.audit(job),
    ("export",): export,
    TESTS: test,
    ("compare",): compare,
    ("predict",): lambda job: rooms.tools.run_prediction(job),
}
