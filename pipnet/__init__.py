"""Faces and their landmarks in OpenCV images; numpy, OpenCV and onnxruntime only."""
from pipnet.errors import UserError
from pipnet.landmarker import Face, Landmarker

__all__ = ["Face", "Landmarker", "UserError"]
