"""The page of a run for the browser: --export web."""

import shutil
from pathlib import Path

from pipnet.app.web import Options, check_page, write_page
from utils.train.run_folder import Run

__all__ = ["check_page", "export_page"]


def export_page(run: Run, out: str | None, overwrite: bool, detector: str | None) -> Path:
    """Write the page of a run's ONNX file into the folder `out`, None: that of the run. Return the folder.

    overwrite: move aside a page that is there; detector: weights, None: the shipped one. UserError if it cannot be written.
    """
    folder = Path(out or run.folder / "web")
    int8 = run.export_path("int8") if run.has("int8") else None
    aside = write_page(folder, Options(run.onnx, int8, Path(detector) if detector else None), overwrite or not out)
    if aside and not out:  # in the run's own folder it is an export like the others, which are replaced
        shutil.rmtree(aside)
    return folder
