"""Face detectors as ONNX files: anchors, decode and suppression are inside the graph."""
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from pipnet.errors import UserError
from pipnet.session import metadata, open_session

SHORT_SIDE = 600  # px, the published size for FaceBoxesV2 where no scale is given
MOST_PIXELS = 2 ** 23  # larger images are shrunk to this, which bounds the memory; faces of 1/200 of their width are still found
THRESHOLD, OVERLAP = 0.6, 0.3  # where the file names no others


class FaceBox(NamedTuple):
    """Where a detector's box (centre, width, height) has the tight box of the face's 68 landmarks, brows to chin.

    down: its centre lies this share of the box's height below the box's centre; wide, high: its sides / the box's.
    """

    down: float
    wide: float
    high: float

    def __call__(self, boxes: np.ndarray) -> np.ndarray:
        """Detector's boxes (M, 4) -> landmark boxes (M, 4), image px."""
        low, high = boxes[..., :2], boxes[..., 2:]
        centre, half = (low + high) / 2, (high - low) / 2
        centre = centre + 2 * half * (0, self.down)
        return np.concatenate([centre - half * (self.wide, self.high), centre + half * (self.wide, self.high)], -1)


# medians over photographs for training, by benchmarks/face_boxes.py; of yunet, whose file is not at hand, those of its like
FACE_BOXES = {
    "ours": FaceBox(0.094, 1.09, 0.866),  # weights/detector.onnx
    "faceboxes": FaceBox(0.135, 1.043, 0.768),
    "rfb320": FaceBox(0.133, 1.040, 0.753),
    "mtcnn": FaceBox(0.145, 1.047, 0.772),
    "yunet": FaceBox(0.135, 1.043, 0.768),
}


def detection_scale(height: int, width: int, scale: float | None) -> float:
    """What an image is resized by before detection: `scale`, None for a short side of at most 600 px; at most 8 megapixels."""
    short = min(height, width)
    wanted = min(1.0, SHORT_SIDE / short) if scale is None else scale
    return max(min(wanted, (MOST_PIXELS / (height * width)) ** 0.5), 1 / short)  # at least one px remains


class OnnxDetector:
    """detector(image uint8 BGR (H, W, 3)) -> (boxes (M, 4) image px, scores (M,) in [0, 1]), best first.

    threshold: least score, None for the file's own. scale: as in `detection_scale`. UserError for a missing or foreign file.
    """

    name = "ours"

    def __init__(self, file: Path, threshold: float | None = None, scale: float | None = None, threads: int = 0,
                 remedy: str = "export one"):
        self._session = open_session(file, threads, remedy)
        names = [{port.name for port in ports} for ports in (self._session.get_inputs(), self._session.get_outputs())]
        if names != [{"image", "threshold", "overlap"}, {"boxes", "scores"}]:
            raise UserError(f"{file} is no detector of ours: it must turn image, threshold and overlap into boxes and scores")
        values = metadata(self._session)
        self.scale = scale
        self.threshold = values.get("threshold", THRESHOLD) if threshold is None else threshold
        self.overlap = values.get("overlap", OVERLAP)
        self.face_box = FaceBox(*values["face_box"]) if "face_box" in values else FACE_BOXES["ours"]

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = np.float32(detection_scale(*image.shape[:2], self.scale))
        if scale != 1:  # by the factor, not to a size, which is a rounded one
            image = cv2.resize(image, None, fx=float(scale), fy=float(scale), interpolation=cv2.INTER_LINEAR)
        boxes, scores = self._session.run(["boxes", "scores"], {
            "image": np.ascontiguousarray(image), "threshold": np.array(self.threshold, np.float32),
            "overlap": np.array(self.overlap, np.float32)})
        return boxes / scale, scores


DETECTORS = ("faceboxes", "rfb320", "mtcnn", "yunet")
