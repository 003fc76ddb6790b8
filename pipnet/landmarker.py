"""Faces in an OpenCV image: a detector, a landmark net, and the crop between them."""
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipnet.align import chip_matrix
from pipnet.detector import FACE_BOXES, OnnxDetector
from pipnet.errors import UserError
from pipnet.geometry import (
    Protocol,
    border_px,
    box_of,
    check_protocol,
    crop_box,
    cut,
    opencv_matrix,
    similarity,
    to_image,
    transform,
)
from pipnet.layout import Layout
from pipnet.session import metadata, open_session

MOST_FACES = 64  # in one call of the net, which bounds the memory
FILLED = 0.08  # of the crop, how far the mean face may be from filling it
HALFWAY = 0.4  # mean landmark score of a crop where face and background are as likely, of nets whose files name none
SQUARE = Protocol(1.2, 1.2, 0.0, "max", "real", "float")


def shipped(name: str) -> Path:
    """A file that comes with the project: in the installed package, or in weights/ of the checkout."""
    inside = Path(__file__).parent / "weights" / name
    return inside if inside.is_file() else Path(__file__).parent.parent / "weights" / name


class Face(NamedTuple):
    """One face of one frame, in continuous image px. What nobody asked for is None.

    box (4,): x1 y1 x2 y2, the tight box of the landmarks (brows to chin) that the net's crop was made from.
    score: the detector's, NaN where the box came from elsewhere. landmarks (N, 2); scores (N,) of each in [0, 1];
    sigma (N,): the error to expect of each. id: of a tracker. pose (3,): pitch, yaw, roll in degrees.
    """

    box: np.ndarray
    score: float
    landmarks: np.ndarray
    scores: np.ndarray
    sigma: np.ndarray | None = None
    id: int | None = None
    pose: np.ndarray | None = None
    drowsiness: dict[str, Any] | None = None


class LandmarkNet(NamedTuple):
    """A landmark net and how its crops are made. predict: uint8 BGR (B, S, S, 3) -> landmarks (B, N, 2) in [0, 1] of the crop,
    score (B, N) and, where the net has it, sigma (B, N), by name. S is `size` px, or that with a margin for nets that see
    `margin` times the crop. meanface (N, 2): mean landmarks in [0, 1] of the crop. face_limit: mean score of the landmarks of a
    crop where face and background are as likely; face_least: below it what a detector finds is no face."""

    predict: Callable[[np.ndarray], dict[str, np.ndarray]]
    layout: Layout
    protocol: Protocol
    size: int
    meanface: np.ndarray | None
    margin: float = 1.0
    face_limit: float = HALFWAY
    face_least: float = 0.0

    @property
    def tight(self) -> bool:
        """Whether the crops of the training were made of tight boxes of these landmarks: then the mean face fills its own so."""
        if self.meanface is None:
            return True
        inside = self.protocol._replace(border="real", rounding="float")
        return bool(np.abs(crop_box(box_of(self.meanface), inside, 1, 1) - (0, 0, 1, 1)).max() < FILLED)

    @classmethod
    def of(cls, predict, values: dict[str, Any], name) -> "LandmarkNet":
        """From the plain values that describe an export. UserError, naming the file, where they don't."""
        try:
            meanface = values.get("meanface")
            meanface = None if meanface is None else np.reshape(np.asarray(meanface, np.float64), (-1, 2))
            return cls(predict, Layout.from_dict(values["layout"]), check_protocol(Protocol(**values["protocol"])),
                       int(values["input_size"]), meanface, float(values.get("input_margin", 1)),
                       float(values.get("face_limit", HALFWAY)), float(values.get("face_least", 0)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{name} does not say its layout, protocol and input_size ({error}), as landmark nets that "
                            "`main.py --test-onnx` exports do") from None


def open_net(file: Path | str, threads: int = 0, remedy: str = "export a trained net with main.py --test-onnx") -> LandmarkNet:
    """The landmark net in an exported file. UserError where it is missing or none of ours."""
    session = open_session(file, threads, remedy)
    names = [output.name for output in session.get_outputs()]
    if [port.name for port in session.get_inputs()] != ["image"] or not {"landmarks", "score"} <= set(names):
        raise UserError(f"{file} is no landmark net of ours: it must turn image into landmarks and score")
    return LandmarkNet.of(lambda images: dict(zip(names, session.run(names, {"image": images}), strict=True)),
                          metadata(session), file)


class Landmarker:
    """landmarker(image uint8 BGR (H, W, 3)) -> list of `Face`, best first.

    landmarks: an exported .onnx (or a `LandmarkNet`); detector: a function image -> (boxes (M, 4), scores (M,), ...), or None for
    the one in the file detector_weights. Both files come with the project. threshold: least score of a face, None for the
    detector's own; detector_scale: the image is resized by this before detection, so 2 finds smaller faces, None shrinks a short
    side above 600 px to that. max_faces: the largest ones. threads: of each net, 0 takes all cores.
    UserError for what cannot be loaded. `seconds`: time spent so far by what was done.
    """

    def __init__(self, landmarks: Path | str | LandmarkNet | None = None, detector: Callable | None = None,
                 detector_weights: Path | str | None = None, threshold: float | None = None, detector_scale: float | None = None,
                 max_faces: int | None = None, threads: int = 0):
        if threshold is not None and not 0 <= threshold <= 1:
            raise UserError(f"threshold is a score from 0 to 1, not {threshold}")
        if detector_scale is not None and not 0 < detector_scale < float("inf"):
            raise UserError(f"detector_scale must be above 0, not {detector_scale}")
        if max_faces is not None and max_faces < 1:
            raise UserError(f"max_faces must be at least 1, not {max_faces}")
        remedy = "it comes with the project: fetch that again, or name another file with {}"
        if detector is None:
            detector = OnnxDetector(Path(detector_weights or shipped("detector.onnx")), threshold, detector_scale, threads,
                                    remedy.format("detector_weights (--detector-weights)"))
        if not isinstance(landmarks, LandmarkNet):
            landmarks = open_net(landmarks or shipped("landmarks.onnx"), threads, remedy.format("landmarks (--exp)"))
        self.net, self.detector, self.threshold, self.max_faces = landmarks, detector, threshold, max_faces
        self.seconds = {"detect": 0.0, "landmarks": 0.0}

    @property
    def layout(self) -> Layout:
        """Which landmarks are found."""
        return self.net.layout

    @property
    def size(self) -> int:
        """Side of the net's input in px."""
        return self.net.size

    def __call__(self, image: np.ndarray, refine: bool = True) -> list[Face]:
        """refine: a second pass cuts the crop round the landmarks of the first, so that the detector's box matters little."""
        boxes, scores = self.detect(image)
        faces = self.landmarks_of(image, boxes, scores)
        return [face for face in (self.second_look(image, faces) if refine else faces) if self.is_face(face)]

    def second_look(self, image: np.ndarray, faces: list[Face]) -> list[Face]:
        """The same faces, from crops round their landmarks."""
        height, width = image.shape[:2]
        boxes = [self.box_of(face.landmarks) for face in faces]
        boxes = [box if self._crop(box, width, height) is not None else face.box for box, face in zip(boxes, faces, strict=True)]
        return self.landmarks_of(image, np.array(boxes), np.array([face.score for face in faces])) if faces else []

    def is_face(self, face: Face) -> bool:
        """Whether the landmarks bear out what the detector has found."""
        return bool(face.scores.mean() >= self.net.face_least)

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(boxes (M, 4) in image px, scores (M,)), best first. The boxes are those of the landmarks: brows to chin."""
        _check(image)
        start, (height, width) = time.perf_counter(), image.shape[:2]
        boxes, scores = (np.asarray(part, np.float64) for part in self.detector(image)[:2])
        usual = FACE_BOXES.get(getattr(self.detector, "name", None), FACE_BOXES["faceboxes"])
        face_box = getattr(self.detector, "face_box", usual)
        boxes = self._own(face_box(boxes.reshape(-1, 4)))
        keep = np.array([self._crop(box, width, height) is not None for box in boxes], bool)
        keep &= scores >= (0 if self.threshold is None else self.threshold)
        boxes, scores = boxes[keep], scores[keep]
        if self.max_faces is not None and len(boxes) > self.max_faces:
            largest = np.sort(np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], 1), kind="stable")[:self.max_faces])
            boxes, scores = boxes[largest], scores[largest]
        self.seconds["detect"] += time.perf_counter() - start
        return boxes, scores

    def landmarks_of(self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray | None = None) -> list[Face]:
        """Faces of landmark boxes (M, 4) in image px, as `detect` and `box_of` give them; all crops go through the net together.

        scores: the detector's, to be handed on. UserError for a box that leaves nothing of the image.
        """
        _check(image)
        start, (height, width), net = time.perf_counter(), image.shape[:2], self.net
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        scores = np.full(len(boxes), np.nan) if scores is None else scores
        crops = np.array([crop_box(box, net.protocol, width, height) for box in boxes]).reshape(-1, 4)
        faces = []
        for first in range(0, len(boxes), MOST_FACES):
            part = slice(first, first + MOST_FACES)
            margin = 1 + 2 * border_px(net.size, net.margin) / net.size
            images = np.stack([cut(image, crop, net.size, margin, net.protocol.border) for crop in crops[part]])
            found = net.predict(images)
            points = to_image(found["landmarks"].astype(np.float64), crops[part])
            trust = np.clip(found["score"], 0, 1)
            sides = np.sqrt(np.prod(crops[part, 2:] - crops[part, :2], 1))
            sigma = found["sigma"] * sides[:, None] if "sigma" in found else [None] * len(points)
            faces += map(Face, boxes[part], map(float, scores[part]), points, trust, sigma)
        self.seconds["landmarks"] += time.perf_counter() - start
        return faces

    def box_of(self, landmarks: np.ndarray) -> np.ndarray:
        """Box (4,) for the next look at a face with these landmarks (N, 2), both in image px.

        Their tight box, as in training. Where the training's boxes were others, of more landmarks or of the data set, the crop
        lies round them as those crops lay round the mean face.
        """
        if self.net.tight:
            return box_of(landmarks)
        meanface, protocol = self.net.meanface, self.net.protocol
        if protocol.square == "no":
            side = landmarks.std(0) / meanface.std(0)  # of the crop
            centre = (0.5 - meanface.mean(0)) * side + landmarks.mean(0)
        else:
            matrix = similarity(meanface, landmarks)
            side, centre = np.sqrt(np.linalg.det(matrix[:, :2])), transform(np.full((1, 2), 0.5), matrix)[0]
        return self._box(centre, side)

    def align(self, image: np.ndarray, face: Face, size: int = 112) -> np.ndarray:
        """(size, size, 3): the face upright, eyes, nose and mouth where nets for recognition expect them (ArcFace's template).

        UserError for a layout without those five points.
        """
        _check(image)
        matrix = opencv_matrix(chip_matrix(face.landmarks, self.layout, size))
        return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)

    def _crop(self, box: np.ndarray, width: int, height: int) -> np.ndarray | None:
        """The crop of a box, None where it leaves nothing of the image."""
        inside = (box[:2] < (width, height)).all() and (box[2:] > 0).all()
        try:
            return crop_box(box, self.net.protocol, width, height) if inside else None
        except UserError:
            return None

    def _own(self, boxes: np.ndarray) -> np.ndarray:
        """Tight boxes of 68 landmarks (M, 4) -> those from which the net's protocol cuts what `square` cuts from them.

        Only a protocol for inner landmarks makes both sides of the crop almost twice those of the box; the others take the face.
        """
        if min(self.net.protocol.scale_x, self.net.protocol.scale_y) < 1.8:
            return boxes
        side = (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True) * SQUARE.scale_x
        return self._box((boxes[:, :2] + boxes[:, 2:]) / 2, side)

    def _box(self, centre: np.ndarray, side: np.ndarray) -> np.ndarray:
        """The box (..., 4) from which the net's protocol cuts a crop with this centre (..., 2) and side, image px."""
        protocol = self.net.protocol
        half = side / (2 * np.array([protocol.scale_x, protocol.scale_y]))
        centre = centre - side * np.array([0, protocol.shift_y / protocol.scale_y])
        return np.concatenate([centre - half, centre + half], -1)


def _check(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"an image is uint8 (H, W, 3) BGR, as cv2.imread gives it, not {kind}")
