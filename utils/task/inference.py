"""Landmark nets of runs, checkpoints and published files, in the form that pipnet's Landmarker expects."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from nets import Trainable
from pipnet.landmark_net import LandmarkNet, open_net
from pipnet.runtimes import RUNTIMES
from utils.evaluate.evaluate import Comparison, prepare_torch, torch_predictor
from utils.settings.config import ROOT, Defaults, read_defaults
from utils.settings.union import Union
from utils.train import checkpoint, run_folder


def find_weights(exp: str, threads: int = 0, layout: str | None = None) -> LandmarkNet:
    """Return the net of the weights that --exp means, or of the export beside them. UserError if there is none.

    layout: see `open_landmark_net`.
    """
    defaults = read_defaults()
    run = run_folder.find_run(exp, ROOT / defaults.values["run_root"], train=False)
    return open_landmark_net(run._replace(view=layout).fastest, defaults, threads, layout)


def load(exp: str) -> Trainable:
    """Return the net of torch that --exp means, on the CPU, in evaluation mode: a run, a file or a shipped net.

    Its `spec` holds the plain values from which `nets.build_net` makes it; `predict` takes images (B, S, S, 3) uint8 BGR and
    returns landmarks (B, N, 2) in [0, 1] of the crop. UserError if there is none.
    """
    defaults = read_defaults()
    run = run_folder.find_run(str(exp), ROOT / defaults.values["run_root"], train=False)
    return checkpoint.unpack(run.weights, defaults)[0].eval()


def open_landmark_net(file: Path, defaults: Defaults, threads: int = 0, layout: str | None = None) -> LandmarkNet:
    """Return the landmark net of a file. Exports run in their own runtime, other files in torch.
    UserError for a bad file.

    layout: one that the net has learnt, or a training set that has it; None: the first. For a part of another layout,
    such as the eyes, the whole one is given: its parts are in `LandmarkNet.layout`.
    """
    if file.suffix in RUNTIMES:
        net = open_net(file, threads)
        net.layout.part(layout)
        return net
    device = prepare_torch(threads)
    torch_net, learnt, stored = checkpoint.unpack(file, defaults)
    predict = torch_predictor(torch_net, device)
    if isinstance(learnt, Union):
        member = learnt.whole(learnt.chosen(layout))
        stored = checkpoint.in_layout(stored, member)
        predict = Comparison(member.layout, member.index)(predict)
    else:
        learnt.part(layout)

    def predict_arrays(images: np.ndarray) -> dict[str, np.ndarray]:
        prediction = predict(torch.from_numpy(images))._asdict()
        return {name: value.float().cpu().numpy() for name, value in prediction.items() if value is not None}

    return replace(checkpoint.described(torch_net, stored), predict=predict_arrays)
