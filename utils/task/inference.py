"""Landmark nets of runs, checkpoints and published files, in the form that pipnet's Landmarker expects."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from extras.detector.loaders import prepare_torch
from extras.systems.published import description, graph_of
from nets.registry import import_named
from pipnet.landmark_net import LandmarkNet, open_net
from pipnet.runtimes import RUNTIMES, Opened
from utils.evaluate.evaluate import torch_predictor
from utils.settings.config import ROOT, Defaults, read_defaults
from utils.train import checkpoint, run_folder
from utils.train.make_net import state_names


def find_weights(exp: str, threads: int = 0) -> LandmarkNet:
    """Return the net of the weights that --exp means, or of the export beside them. UserError if there is none."""
    defaults = read_defaults()
    return open_landmark_net(
        run_folder.find_run(exp, ROOT / defaults.values["run_root"], train=False).fastest, defaults, threads
    )


def open_landmark_net(file: Path, defaults: Defaults, threads: int = 0) -> LandmarkNet:
    """Return the landmark net of a file. Exports run in their own runtime, other files in torch.
    UserError for a bad file.
    """
    if file.suffix in RUNTIMES:
        return open_net(file, threads)
    device = prepare_torch(threads)
    net, _, stored = checkpoint.unpack(file, defaults)
    predict = torch_predictor(net, device)

    def predict_arrays(images: np.ndarray) -> dict[str, np.ndarray]:
        prediction = predict(torch.from_numpy(images))._asdict()
        return {name: value.float().cpu().numpy() for name, value in prediction.items() if value is not None}

    return checkpoint.described(net, stored)._replace(predict=predict_arrays)


def published_net(opened: Opened, file: Path) -> LandmarkNet:
    """Return the landmark net of a published graph. UserError for an unknown graph."""
    system, settings, layout = graph_of(file, opened, read_defaults())
    values = {
        **description(settings, layout, {}),
        "input_size": settings.net.input_size,
        "pose": settings.loss.pose > 0,
        "states": state_names(vars(settings.loss)),
    }
    return LandmarkNet.of(partial(import_named(system.graph.read), opened), values)
