"""The interface of tests of a net and its exports, for all tasks. `run_tests` and --export use it."""

from collections.abc import Callable
from typing import NamedTuple

from pipnet.errors import UserError
from utils.export.card import write_card
from utils.export.files import Source, known_exports, write_format, write_manifest
from utils.train.run_folder import Run


class Bounds(NamedTuple):
    """Largest differences between an export and torch.

    figure: of their figures; px: of 99.9 % of the landmarks, in px of the net's input, None: no limit
    """

    figure: float
    px: float | None = None


class Evaluation:
    """Tests of one run's weights.

    bounds                    {format: Bounds} of the formats that the task can be exported to
    torch_model()             the net with the run's weights, as `evaluate` takes it
    export_onnx()             write the ONNX file unless it was made from these weights
    source()                  what other formats are made from
    open(file, threads, sha256)   an exported file, as `evaluate` takes it; sha256: of one that holds code, see `exported`
    calls(model)              {pictures in a call: a call of the model}, to measure their time
    cases()                   yield what is evaluated, one case after the other
    evaluate(model, case)     the result; with several processes each does its share, and all get the result
    differences(case, a, b)   (largest absolute difference of the figures, px of the net's input of the landmarks) of
    two results report                    a report without results
    with_result(report, case, name, result)   the report with that result
    close(report)             write the report; the tables and the places of the files as text
    """

    bounds: dict[str, Bounds]
    run: Run
    export_onnx: Callable[[], None]
    source: Callable[[], Source]

    def export(self, formats: list[str], out: str | None = None, overwrite: bool = False) -> str:
        """Write the exports that are missing or were made from other weights, checksums and a card.
        Return the files in words.

        out: the folder of the format `web`, which only landmark nets have; overwrite: replace a page there. UserError
        for a format that the task does not have.
        """
        if unknown := [name for name in formats if name not in self.bounds]:
            raise UserError(f"this task is exported to {', '.join(self.bounds)}, not to {unknown[0]}; leave it out")
        known_exports(self.run.folder)  # a damaged manifest is an error before anything is made
        self.export_onnx()
        files, source = [self.run.export_path(name) for name in formats], None
        for name, file in zip(formats, files, strict=True):
            if not self.run.keeps(name):
                source = source or self.source()
                write_format(name, source, file)
        write_manifest(self.run.folder, files)
        write_card(self.run)
        return f"exported to {', '.join(map(str, files))}"
