"""The face detector: its pictures, scenes, metric and exports."""

from pathlib import Path

from pipnet.detections import Loaded


def open_detector(file: Path, name: str, threads: int) -> Loaded:
    """Return a detector of `pipnet.detector.DETECTORS` that runs in torch. UserError for a file that is not its own."""
    from extras.detector.loaders import load_faceboxes, load_mtcnn

    return (load_faceboxes if name == "faceboxes" else load_mtcnn)(file, threads)
