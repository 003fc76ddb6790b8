"""Detectors that others have published, in onnxruntime or OpenCV: each loader opens the file of one."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from pipnet.detections import Detections, Loaded, suppress
from pipnet.device import refuse_cuda
from pipnet.errors import UserError, one_line
from pipnet.images import OPENCV_LOG, SILENT, opencv_path
from pipnet.session import open_session

RFB320 = "version-RFB-320.onnx of github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB"
CANDIDATES = 200  # boxes of RFB-320 before suppression, as published


class Anchored(NamedTuple):
    """A published detector whose outputs are tables with a row for each anchor, and the input of its authors' code.

    source: where its file comes from. columns: those of its outputs, in any order; a graph may leave them open. The
    input is (picture - mean) / scale.
    limits: height and width in px into which an image is fitted; None: it keeps its size. letterbox: smaller images are
    enlarged too, the rest of the input is black, and the channels are RGB; otherwise images are only shrunk, and BGR.
    """

    name: str
    source: str
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

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of an input of any size for an image that is not resized any more."""
        if not (self.limits and self.letterbox):
            return height, width
        fits = height <= self.limits[0] and width <= self.limits[1]
        return self.limits if fits else (-(-height // 32) * 32, -(-width // 32) * 32)


SCRFD = Anchored(
    "scrfd",
    "scrfd_*.onnx or det_*.onnx of github.com/deepinsight/insightface",
    ([1, 4, 10] * 3, [1, 4] * 3),
    (127.5,) * 3,
    128,
    (640, 640),
    letterbox=True,
)
RETINAFACE = Anchored(
    "retinaface",
    "the ONNX file that convert_to_onnx.py of github.com/biubug6/Pytorch_Retinaface writes, or the command in "
    "docs/migration.md",
    ([4, 2, 10],),
    (104, 117, 123),
)
FACEBOXES_V1 = Anchored(
    "faceboxes-v1",
    "an ONNX file of the net of github.com/zisianw/FaceBoxes.PyTorch, with softmaxed scores; docs/migration.md has "
    "the command",
    ([4, 2],),
    (104, 117, 123),
    limits=(720, 1080),
)


def load_rfb320(file: Path, threads: int) -> Loaded:
    """Load Ultra-Light-Fast, version RFB-320, as published in ONNX: input of 320 x 240 px, scores and boxes in [0, 1]."""
    session = open_session(file, threads)
    inputs, outputs = session.native.get_inputs(), {output.name for output in session.native.get_outputs()}
    if [port.shape for port in inputs] != [[1, 3, 240, 320]] or outputs != {"scores", "boxes"}:
        raise UserError(
            f"{file} is not RFB-320, which has one input of 320x240 px and the outputs scores and boxes; give {RFB320}"
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
        scores, sides, points = (
            sorted((output for output in found if output.shape[1] == count), key=len) for count in (1, 4, 10)
        )
        parts = []
        for level, stride in enumerate((32, 16, 8)):
            centre, side = np.repeat(corners(height, width, stride), 2, 0), sides[level] * stride
            boxes = [centre - side[:, :2], centre + side[:, 2:]]
            five = [points[level] * stride + np.tile(centre, 5)] if points else []
            parts.append(np.concatenate([*boxes, scores[level], *five], 1))
        return _split(np.concatenate(parts))

    return _load_anchored(file, threads, SCRFD, decode)


def load_retinaface(file: Path, threads: int) -> Loaded:
    """Load RetinaFace of Pytorch_Retinaface in ONNX: offsets, softmaxed scores and points of its anchors."""

    def decode(found: list[np.ndarray], height: int, width: int) -> Detections:
        anchors = []
        for stride, sizes in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
            centre = corners(height, width, stride) + stride / 2
            anchors.append(np.column_stack([np.repeat(centre, 2, 0), np.tile(sizes, len(centre))]))
        return _of_anchors(np.concatenate(anchors), found)

    return _load_anchored(file, threads, RETINAFACE, decode)


def load_faceboxes_v1(file: Path, threads: int) -> Loaded:
    """Load FaceBoxes (Zhang et al., IJCB 2017) of FaceBoxes.PyTorch in ONNX: offsets and softmaxed scores of anchors."""

    def decode(found: list[np.ndarray], height: int, width: int) -> Detections:
        anchors = []
        for stride, sizes in ((32, ((32, 4), (64, 2), (128, 0))), (64, ((256, 0),)), (128, ((512, 0),))):
            cell = []
            for side, dense in sizes:
                shares = [step / dense for step in range(dense)] or [0.5]
                cell += [(x * stride, y * stride, side) for y in shares for x in shares]
            corner = np.pad(corners(height, width, stride), ((0, 0), (0, 1)))
            anchors.append((corner[:, None] + np.array(cell)).reshape(-1, 3))
        return _of_anchors(np.concatenate(anchors), found)

    return _load_anchored(file, threads, FACEBOXES_V1, decode)


def corners(height: int, width: int, stride: int) -> np.ndarray:
    """Return the upper left corners (K, 2) of cells of `stride` px that cover an input, row by row."""
    y, x = np.mgrid[: -(-height // stride), : -(-width // stride)] * stride
    return np.stack([x, y], -1).reshape(-1, 2)


def _of_anchors(anchors: np.ndarray, found: list[np.ndarray]) -> Detections:
    """Return detections from anchors (A, 3), centre and side, and outputs with 4, 2 and, for points, 10 columns."""
    by_width = {output.shape[1]: output for output in found}
    centre, side = anchors[:, :2], anchors[:, 2:]
    middle, half = centre + 0.1 * side * by_width[4][:, :2], side * np.exp(0.2 * by_width[4][:, 2:]) / 2
    points = [np.tile(centre, 5) + 0.1 * side * by_width[10]] if 10 in by_width else []
    return _split(np.concatenate([middle - half, middle + half, by_width[2][:, 1:], *points], 1))


def _split(rows: np.ndarray) -> Detections:
    """Return detections from rows (A, 5 or 15): box, score, five points if there are any."""
    points = rows[:, 5:].reshape(-1, 5, 2) if rows.shape[1] > 5 else None
    return Detections(rows[:, :4], rows[:, 4], points)


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
        f"{' or '.join(map(str, published.columns))} columns with a row for each anchor; give {published.source}"
    )
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or not rows:
        raise wrong
    high, wide = inputs[0].shape[2:]
    fixed = (high, wide) if isinstance(high, int) and isinstance(wide, int) else None
    limits = fixed or published.limits
    mean = np.array(published.mean, np.float32)
    empty = np.zeros(3, np.uint8) if published.letterbox else mean.astype(np.uint8)

    def find(image: np.ndarray, threshold: float, overlap: float) -> Detections:
        height, width = image.shape[:2]
        small = (height, width)
        if fixed and (height > fixed[0] or width > fixed[1]):
            small = published.fitted(height, width, fixed)
        sides = fixed or published.canvas(*small)
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
