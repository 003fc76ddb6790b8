"""Faces and their landmarks in OpenCV images. Needs numpy, OpenCV and onnxruntime only."""

from pipnet.detector import Detector
from pipnet.errors import UserError
from pipnet.face import Face
from pipnet.landmarker import Landmarker

__version__ = "0.1.0"
__all__ = ["Detector", "Face", "Landmarker", "UserError"]
