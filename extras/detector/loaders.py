"""Loads face detectors that run in torch."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from extras.detector.faceboxes import FaceBoxesV2
from extras.detector.mtcnn import MTCNN
from pipnet.bounds import MOST_ARRAYS, unpacked_size
from pipnet.detections import Detections, Find, Loaded
from pipnet.detector import exported_card
from pipnet.errors import UserError, one_line
from utils.evaluate.evaluate import prepare_torch
from utils.train.weight_files import load_weights

EARLIER = (0.6, 0.7)  # published thresholds of MTCNN's P-Net and R-Net


def load_faceboxes(file: Path, threads: int) -> Loaded:
    """Load FaceBoxesV2 with published weights or ours, from a state dict or a checkpoint."""
    known = load_weights(file)[1]
    card = exported_card({key: known[key] for key in ("threshold", "overlap", "face_box") if key in known}, file)
    return Loaded(faceboxes_finder(weights_of(file), prepare_torch(threads)), card if known else None)


def faceboxes_finder(net: FaceBoxesV2, device: torch.device) -> Find:
    """Return a function that detects faces with a net in fp32."""
    net = net.fused().to(device)

    def find(image: np.ndarray, threshold: float, overlap: float) -> Detections:
        boxes, scores = net.detect(torch.from_numpy(image)[None].to(device), threshold, overlap)[0]
        return Detections(boxes.cpu().numpy(), scores.cpu().numpy())

    return find


def weights_of(file: Path) -> FaceBoxesV2:
    """Return FaceBoxesV2 with the weights of our checkpoint or export, or with published ones.
    UserError for other files.
    """
    net = FaceBoxesV2()
    return _fill(net, _exported_state(net, file) if file.suffix == ".onnx" else load_weights(file)[0], file)


def load_mtcnn(file: Path, threads: int) -> Loaded:
    """Load MTCNN from an .npz or a state dict. Names are the published ones with the prefix pnet., rnet. or onet."""
    if file.suffix == ".npy":
        raise UserError(f"{file} is a pickle of one of MTCNN's nets; write the three as an .npz (docs/migration.md)")
    device = prepare_torch(threads)
    net = _fill(MTCNN(), _arrays(file) if file.suffix == ".npz" else load_weights(file)[0], file).to(device)

    def find(image: np.ndarray, threshold: float, overlap: float) -> Detections:
        return Detections(*(part.cpu().numpy() for part in net.detect(image, (*EARLIER, threshold), overlap)))

    return Loaded(find)


def _fill(net: torch.nn.Module, state: dict[str, torch.Tensor], file: Path) -> Any:
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{file} does not fit {type(net).__name__} ({one_line(error)})") from None
    return net.eval()


def _exported_state(net: FaceBoxesV2, file: Path) -> dict[str, torch.Tensor]:
    """Return a state dict for `net` from an export, in which each batch norm is folded into its convolution.

    Batch norms of the result only add biases; their other tensors are neutral.
    """
    import onnx  # takes seconds to import, and only this function needs it

    try:
        stored = onnx.load(file).graph.initializer
        arrays = {
            tensor.name.removeprefix("net.").removesuffix("_half"): onnx.numpy_helper.to_array(tensor)
            for tensor in stored
        }
    except Exception as error:  # a damaged file makes the parser raise anything
        raise UserError(f"{file} is not a readable ONNX file ({one_line(error)})") from None
    state = {}
    for name, tensor in net.state_dict().items():
        source = name.replace(".bn.bias", ".conv.bias")
        if source in arrays:
            state[name] = torch.from_numpy(arrays[source].astype(np.float32))
        elif name.endswith(".bn.running_var"):
            state[name] = tensor - net.conv1.bn.eps  # so that running_var + eps is 1
        elif ".bn." in name:
            state[name] = tensor
    return state


def _arrays(file: Path) -> dict[str, torch.Tensor]:
    try:
        if (size := unpacked_size(file)) > MOST_ARRAYS:
            raise ValueError(f"it unpacks to {size:,} bytes")
        with np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except Exception as error:  # not a zip, damaged, or with objects or text in it
        raise UserError(f"{file} is not a readable .npz of arrays ({one_line(error)})") from None
