"""Faces and their landmarks in OpenCV images. Needs numpy, OpenCV and onnxruntime only."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipnet.detector import Detector
    from pipnet.errors import UserError
    from pipnet.face import Face
    from pipnet.landmarker import Landmarker

__version__ = "0.1.0"
__all__ = ["Detector", "Face", "Landmarker", "UserError"]
MODULES = {"Detector": "detector", "Face": "face", "Landmarker": "landmarker", "UserError": "errors"}


def __getattr__(name: str) -> Any:
    """Import a class on first use: `python -m pipnet` first decides from where packages may be imported."""
    if name in MODULES:
        return getattr(import_module(f"pipnet.{MODULES[name]}"), name)
    raise AttributeError(f"module 'pipnet' has no attribute '{name}'")
