"""The interface of tests of a net and its exports, for all tasks. `run_tests` and --export use it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipnet.errors import UserError
from utils.export.card import write_card
from utils.export.files import Source, check_copies, known_exports, write_copies, write_format, write_manifest
from utils.train.run_folder import Run


class Bounds(NamedTuple):
    """Largest differences between an export and torch.

    figure: of their figures; px: of 99.9 % of the landmarks, in px of the net's input, None: no limit
    """

    figure: float
    px: float | None = None


class Evaluation:
    """Tests of one run's weights.

    - bounds: {format: Bounds} of the formats that the task can be exported to; None: they are not tested
    - torch_model(): the net with the run's weights, as `evaluate` takes it
    - export_onnx(): write the ONNX file unless it was made from these weights
    - source(): what other formats are made from
    - open(file, threads): an exported file, as `evaluate` takes it
    - calls(model): {pictures in a call: a call of the model}, to measure their time
    - cases(): yield what is evaluated, one case after the other
    - evaluate(model, case): the result; with several processes each does its share, and all get the result
    - differences(case, one, two): of two results, the largest absolute difference of the figures, and the distances of
      the landmarks in px of the net's input
    - report: a report without results
    - with_result(report, case, name, result): the report with that result
    - close(report): write the report; the tables and the places of the files as text
    """

    bounds: Mapping[str, Bounds | None]
    run: Run
    export_onnx: Callable[[], None]
    torch_model: Callable[[], Any]
    open: Callable[[Any, int], Any]
    source: Callable[[], Source]

    def model(self, name: str, threads: int) -> Any:
        """Return the net (torch) or its export in a format, as `evaluate` takes it."""
        return self.torch_model() if name == "torch" else self.open(self.run.export_path(name), threads)

    def gap(self, case: Any) -> str:
        """Return why the exports do not give what a case compares, and the remedy; "" if they do."""
        return ""

    def export(self, formats: list[str], out: str | None = None, overwrite: bool = False) -> str:
        """Write the exports that are missing or were made from other weights, checksums and a card.
        Return the files in words.

        out: a folder that gets a copy of the files, None: they stay with the run; overwrite: move aside what has their
        names there. UserError for a format that the task does not have.
        """
        if unknown := [name for name in formats if name not in self.bounds]:
            raise UserError(f"this task is exported to {', '.join(self.bounds)}, not to {unknown[0]}; leave it out")
        known_exports(self.run.folder)  # a damaged manifest is an error before anything is made
        files, source = [self.run.export_path(name) for name in formats], None
        if out:
            check_copies(files, Path(out), overwrite)
        self.export_onnx()
        for name, file in zip(formats, files, strict=True):
            if not self.run.keeps(name):
                source = source or self.source()
                write_format(name, source, file)
        write_manifest(self.run.folder, files)
        write_card(self.run)
        if out:
            files = write_copies(files, Path(out))
        return f"exported to {', '.join(map(str, files))}"
