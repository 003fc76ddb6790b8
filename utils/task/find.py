"""Finds the landmark net that --exp means, without torch if the run's weights have been exported."""

from pathlib import Path

from pipnet.landmark_net import LandmarkNet, open_net
from pipnet.runtimes import stored_values
from pipnet.shipped import checksum
from utils.settings.config import ROOT, read_defaults
from utils.settings.formats import SOURCE, folder_of


def find_net(exp: str, threads: int = 0, layout: str | None = None) -> LandmarkNet:
    """Return the landmark net that --exp means: an id or folder of a run, a file, or a name.
    UserError if there is none.

    For an id or a folder, the run's export is used if it was made from the run's weights. layout: one that the net has
    learnt, or a training set that has it, see `open_landmark_net`.
    """
    file = fresh_export(exp)
    if file and layout is None:
        return open_net(file, threads)
    from utils.task.inference import find_weights  # loads torch

    return find_weights(exp, threads, layout)


def fresh_export(exp: str) -> Path | None:
    """Return the ONNX file of the run that an id or a folder names; None if it was not made from the run's weights."""
    folder = folder_of(exp, ROOT / read_defaults().values["run_root"])
    weights, file = folder / "best.pt", folder / "best.onnx"
    fresh = weights.is_file() and file.is_file() and stored_values(file).get(SOURCE) == checksum(weights)
    return file if fresh else None
