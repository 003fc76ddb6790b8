"""The formats that a trained net is exported to, and where its run lies."""

import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Format(NamedTuple):
    """A format of exported nets.

    suffix: of the file, after the name of the checkpoint
    same: whether the file has the net's inputs and outputs and runs here, so that the net's tests run on it
    packages: those that the format needs in addition to ONNX, from which it is made
    """

    suffix: str
    same: bool = True
    packages: tuple[str, ...] = ()


OWN_PLACE = (
    "it needs an older torch, so give it an environment of its own: python3 -m venv ../litert && "
    "../litert/bin/pip install -r requirements.txt litert-torch, then run this command with ../litert/bin/python"
)
REMEDIES = {"litert_torch": OWN_PLACE}  # {package: what to do where it is missing}; others: pip install
FORMATS = {
    "onnx": Format(".onnx"),  # the others are made from it or beside it
    "int8": Format(".int8.onnx"),
    "mnn": Format(".mnn", packages=("MNN",)),
    "tflite": Format(".tflite", packages=("litert_torch",)),
    "coreml": Format(".mlpackage.zip", same=False, packages=("coremltools",)),  # runs on macOS and iOS only
    "pipeline": Format(".pipeline.onnx", same=False),
    "pipeline-int8": Format(".pipeline.int8.onnx", same=False),  # made from `int8`
    "raw": Format(".raw.onnx", same=False),
}
SOURCE = "weights_sha256"  # in the metadata of an export: the weights that it was made from
ONNX = ("onnx", "onnxruntime", "onnxscript")
TESTED = [name for name, row in FORMATS.items() if row.same]
# of --export; web: a folder, the page of pipnet/app/web.py with the ONNX file
EXPORTS = [*TESTED, "coreml", "pipeline", "pipeline-int8", "web"]


def files_of(export: Path) -> list[Path]:
    """Return the files that an export may consist of: the export itself and its metadata."""
    return [export, Path(f"{export}.json")]


def folder_of(exp: str, root: Path) -> Path:
    """Return the folder of the run that --exp names: an id below `root`, or a path."""
    return Path(exp) if os.sep in exp else root / exp


def lacking(names: Iterable[str], first: tuple[str, ...] = ONNX) -> str | None:
    """Return the first missing package that exports to formats `names` of EXPORTS need, None if all are installed.

    first: those that all of them need.
    """
    needed = [package for name in names for package in (*first, *(FORMATS[name].packages if name in FORMATS else ()))]
    return next((package for package in needed if not _installed(package)), None)


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:
        return False
