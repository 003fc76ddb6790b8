"""The landmark net that --exp means, without loading torch where an export of the run's weights is there."""
from pathlib import Path

from pipnet.checkout import from_checkout
from pipnet.files import checksum
from pipnet.landmarker import LandmarkNet, open_net
from pipnet.runtimes import stored_values
from utils.config import ROOT, read_defaults
from utils.formats import SOURCE, folder_of


def find_net(exp: str, threads: int = 0) -> LandmarkNet:
    """The landmark net that --exp means: of a run's id or folder, a file, or a name. UserError where there is none.

    An id or a folder stands for the export where there is one of these very weights.
    """
    if file := fresh_export(exp):
        return open_net(file, threads)
    return from_checkout("utils.tools.inference:find_weights", exp)(exp, threads)


def fresh_export(exp: str) -> Path | None:
    """The ONNX file of the run that an id or a folder names, if it was made from the run's weights, else None."""
    folder = folder_of(exp, Path(ROOT) / read_defaults().values["run_root"])
    weights, file = folder / "best.pt", folder / "best.onnx"
    fresh = weights.is_file() and file.is_file() and stored_values(file).get(SOURCE) == checksum(weights)
    return file if fresh else None
