"""Landmark nets of runs, checkpoints and published files, in the form that pipnet's Landmarker expects."""
from functools import partial
from pathlib import Path

import numpy as np
import torch

from nets.build import NETS
from nets.convert.peppa import read_exported
from nets.stages.auxiliary import STATES
from pipnet.landmarker import LandmarkNet, open_net
from pipnet.runtimes import Opened
from utils.config import ROOT, read_defaults
from utils.test.detectors import prepare_torch
from utils.test.evaluate import torch_predictor
from utils.train import checkpoint, run_folder
from utils.train.make_net import state_names


def find_net(exp: str, threads: int = 0) -> LandmarkNet:
    """The landmark net of a run's id, folder or .pt. UserError where there is none.

    An id or a folder stands for the run's export where that exists and is not older than the weights; the rest runs in torch.
    """
    run = run_folder.find(exp, ROOT / read_defaults().values["run_root"], train=False)
    if not exp.endswith(".pt") and run.exported:
        return open_net(run.onnx, threads)
    device = prepare_torch(threads)
    net, _, stored = checkpoint.unpack(run.weights)
    predict = torch_predictor(net, device)

    def predict_arrays(images: np.ndarray) -> dict[str, np.ndarray]:
        prediction = predict(torch.from_numpy(images))._asdict()
        return {name: value.float().cpu().numpy() for name, value in prediction.items() if value is not None}

    values = {"input_size": net.spec["input_size"], "input_margin": net.input_margin, "pose": "pose" in net.auxiliary,
              "states": state_names(stored["args"])}
    return LandmarkNet.of(predict_arrays, {**stored, **values}, run.weights)


def peppa_net(opened: Opened, file: Path) -> LandmarkNet:
    """Return the net of Peppa's published ONNX or MNN file of Slim. Its crop is the one of Peppa's demo for such files."""
    defaults = read_defaults()
    values = {"layout": defaults.layouts.load("68").to_dict(), "protocol": defaults.protocols["slim_demo"],
              "input_size": NETS["slim"].input_size, "pose": True, "states": STATES}
    return LandmarkNet.of(partial(read_exported, opened.run), values, file)
