"""What main.py asks of a task: data, net, validation, tests and export. train/loop.py and test/run_tests.py do the rest."""
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.data import Dataset

from utils.config import Defaults, Settings
from utils.data.sets import Sets
from utils.train.initialise import Started
from utils.train.ranks import Ranks
from utils.train.run_folder import Run
from utils.train.solver import Solver


class Training(NamedTuple):
    """Data of a training. samples: item (epoch, index), with `names` for errors; collate: samples -> batch; checksums: of the
    sets; words: for the log."""

    samples: Dataset
    collate: Callable
    checksums: list[str]
    words: str


class Tests(ABC):
    """Tests of one run's weights, case by case. agreement: by how much the figures of an export may differ from torch."""

    agreement: float

    @abstractmethod
    def torch_model(self) -> Any:
        """Return the net with the run's weights, in a form that `evaluate` takes."""

    @abstractmethod
    def onnx_model(self) -> Any:
        """Return the run's exported file in the same form."""

    @abstractmethod
    def export(self) -> None:
        """Write the run's ONNX file, unless it exists and is newer than the weights."""

    @abstractmethod
    def cases(self):
        """Yield what is evaluated, one case after the other."""

    @abstractmethod
    def evaluate(self, model, case) -> Any:
        """Return the result of a model on a case. With several processes each does its share; all get the result."""

    @abstractmethod
    def differences(self, case, one, two) -> list[float]:
        """Return the absolute differences of the figures of two results on a case."""

    @abstractmethod
    def add(self, case, model: str, result) -> None:
        """Add a result to the report."""

    @abstractmethod
    def close(self) -> str:
        """Write the report. Return the tables and where the files are."""


class Task(ABC):
    """Something to train. figure: the column of step.csv that picks best.pt, lower is better; says: how the log writes it;
    excludes: {mode of main.py that the task does not have: message}."""

    figure: str
    says: str
    excludes: dict[str, str] = {}

    def __init__(self, settings: Settings, defaults: Defaults, ranks: Ranks):
        self.settings, self.ranks = settings, ranks
        self.sets = Sets(settings, defaults)

    @property
    @abstractmethod
    def title(self) -> str:
        """Return the net, preset and size in words."""

    @abstractmethod
    def prepare(self) -> None:
        """Prepare the training sets."""

    @abstractmethod
    def prepare_tests(self) -> None:
        """Prepare the test sets. UserError if they cannot be tested on."""

    @abstractmethod
    def show(self, count: int) -> str:
        """Draw `count` training samples as the net gets them. Return what to print. All processes must call it."""

    @abstractmethod
    def training_data(self) -> Training:
        """Load the training and validation data."""

    @abstractmethod
    def make_net(self, resume: bool) -> tuple[nn.Module, Started]:
        """Return the net to train, and the origin of its weights. A resumed net gets its weights later."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Return the values of a checkpoint that inference needs beside the net; layout and protocol among them."""

    @abstractmethod
    def validate(self, solver: Solver) -> tuple[dict[str, Tensor], float]:
        """Return (the weights to keep, their validation figure; NaN without validation data)."""

    @abstractmethod
    def tests(self, run: Run, compare: list[Run]) -> Tests:
        """Return the tests of a run. compare: runs whose reports are shown beside."""
