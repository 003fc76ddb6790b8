"""What demo.py takes from the checkout: nets that run in torch, in the form that pipnet's Landmarker expects."""
from pathlib import Path

import cv2
import numpy as np
import torch

from pipnet.landmarker import LandmarkNet, open_net
from utils.config import read_defaults
from utils.test.detectors import Detector
from utils.test.evaluate import torch_predictor
from utils.train import checkpoint, run_folder


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def limit(threads: int) -> None:
    """CPU threads of what runs in torch and OpenCV; 0: as they are."""
    if threads:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)


def find_net(exp: str, root: str, threads: int = 0) -> LandmarkNet:
    """The landmark net of a run's id, folder or .pt: its export where that is there and not older, else in torch. UserError."""
    here = run_folder.find(exp, Path(root) / read_defaults().values["run_root"], train=False)
    if not exp.endswith(".pt") and here.exported:
        return open_net(here.onnx, threads)
    limit(threads)
    net, _, stored = checkpoint.unpack(here.weights)
    predict = torch_predictor(net, device())

    def run_net(images: np.ndarray) -> dict[str, np.ndarray]:
        prediction = predict(torch.from_numpy(images))._asdict()
        return {name: value.float().cpu().numpy() for name, value in prediction.items() if value is not None}

    seen = {"input_size": net.spec["input_size"], "input_margin": net.input_margin}
    return LandmarkNet.of(run_net, {**stored, **seen}, here.weights)


def find_detector(name: str, weights: str, threshold: float | None, scale: float | None, threads: int = 0) -> Detector:
    """A detector by name (see utils.detection)."""
    limit(threads)
    return Detector(name, weights, threshold, scale=1.0 if scale is None and name == "rfb320" else scale, device=device())
