"""The interface of a task: data, net, validation, tests and export. train/loop.py and test/run_tests.py use it."""
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipnet.errors import UserError
from utils.config import Defaults, Settings
from utils.export.card import write_card
from utils.export.files import known_exports, write_format, write_manifest
from utils.faces.sets import Sets
from utils.formats import FORMATS
from utils.train.loop import train
from utils.train.ranks import Ranks
from utils.train.run_folder import Run


def check_finite(state: dict[str, Tensor]) -> None:
    """Raise UserError for weights that are not finite."""
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise UserError("the weights are not finite: the net has diverged, lower --learning-rate")


class Training(NamedTuple):
    """Data of a training. samples: item (passes, indices) is a batch, with `name(index)` for errors; checksums: of the sets;
    words: for the log; labelled: only the first so many samples are labelled, None: there is one kind."""

    samples: Dataset
    checksums: list[str]
    words: str
    labelled: int | None = None


class Bounds(NamedTuple):
    """How far an export may be off: figure, of its figures from those of torch; px, of all but one landmark in a thousand, in px
    of the net's input; None where that is not limited."""

    figure: float
    px: float | None = None


class Tests:
    """Tests of one run's weights.

    bounds                    {format: Bounds} of the formats that the task can be exported to
    torch_model()             the net with the run's weights, as `evaluate` takes it
    export_onnx()             write the ONNX file unless it was made from these weights
    source()                  what other formats are made from
    open(file, threads)       an exported file, as `evaluate` takes it
    calls(model)              {pictures in a call: a call of the model}, to measure their time
    cases()                   yield what is evaluated, one case after the other
    evaluate(model, case)     the result; with several processes each does its share and all get it
    differences(case, a, b)   (largest absolute difference of the figures, px of the net's input of the landmarks) of two results
    add(case, name, result)   put a result into the report
    close()                   write the report; the tables and the places of the files as text
    """

    bounds: dict[str, Bounds]
    run: Run

    def export(self, formats: list[str], out: str | None = None, overwrite: bool = False) -> str:
        """Write the exports that are missing or of other weights, their checksums and a card; return which files these are.

        out: the folder of the format `web`, which only landmark nets have; overwrite: a page there. UserError for a
        format that the task does not have.
        """
        if unknown := [name for name in formats if name not in self.bounds]:
            raise UserError(f"this task is exported to {', '.join(self.bounds)}, not to {unknown[0]}; leave it out")
        known_exports(self.run.folder)  # a damaged manifest is an error before anything is made
        self.export_onnx()
        files, source = [self.run.export(name) for name in formats], None
        for name, file in zip(formats, files, strict=True):
            if not self.run.has(name) or FORMATS[name].code:
                source = source or self.source()
                write_format(name, source, file)
        write_manifest(self.run.folder, files)
        write_card(self.run)
        return f"exported to {', '.join(map(str, files))}"


class Task:
    """Something to train.

    figure                    column of step.csv that picks best.pt, lower is better; says: how the log writes it
    excludes                  {mode of main.py that the task does not have: message}
    title                     net, preset and size in words
    prepare(), prepare_tests() prepare the training sets; the test sets, UserError if they cannot be tested on
    show(count, run)          draw training samples as the net gets them; text to print. All processes call it
    training_data()           load training and validation data -> Training
    make_net(resume)          the net, and the origin of its weights (`Started`); a resumed net gets its weights later
    description()             what inference needs beside the net, layout and protocol among it, for the checkpoint
    limits                    what the last validation has measured for the checkpoint
    validate(solver)          (weights to keep, validation figure; NaN without validation data)
    calibration()             pictures of the training sets to calibrate 8-bit numbers on
    tests(run, compare)       `Tests` of a run; compare: runs whose reports are shown beside
    """

    figure: str
    says: str
    limits: dict[str, float] = {}
    excludes: dict[str, str] = {}

    def __init__(self, settings: Settings, defaults: Defaults, ranks: Ranks):
        self.settings, self.ranks = settings, ranks
        self.sets = Sets(settings, defaults)

    def train(self, run: Run, resume: bool) -> None:
        """Train in the run's folder."""
        train(self, run, self.ranks, resume)
