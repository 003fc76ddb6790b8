"""The mean of the weights of two nets, as a run: `python weights/making/make.py average FIRST SECOND SHARE EXP`.

FIRST is the best.pt of a landmark net or a detector's exported file; SECOND is a run that was trained from it. SHARE is
the weight of SECOND, 0 to 1. EXP becomes a copy of SECOND with the mean weights. They are often as good as FIRST on its
data and as robust as SECOND (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).

The batch norms of a landmark net take the mean of both statistics. Those of a detector are measured on unchanged
photographs, for FIRST and for the mean: statistics of training crops made the mean worse.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from photographs import photographs, require
from record import ROOT

from extras.detector.loaders import weights_of
from extras.detector.scene_sources import resized
from extras.detector.wider import read_wider
from nets.trainable import batch_norms
from pipnet.images import read_image
from utils.train import checkpoint, run_folder

State = dict[str, torch.Tensor]
CROWDS, PORTRAITS = 56, 8  # photographs that the batch norms are measured on
SIDE, BATCH = 640, 8  # px of their squares; how many at once


def squares() -> torch.Tensor:
    """Return the upper left squares (M, SIDE, SIDE, 3) of training photographs, evenly spread over their folders."""
    faceboxes, _ = require("FACEBOXES", "FACES68")
    crowds = read_wider(faceboxes, "train")
    files = [crowds[row].file for row in np.linspace(0, len(crowds) - 1, CROWDS).astype(int)]
    files += [record.file for record in photographs("FACES68", "train", PORTRAITS)]
    images = [read_image(file) for file in files]
    return torch.from_numpy(np.stack([resized(image, np.zeros(2), min(image.shape[:2]), SIDE) for image in images]))


def mean(first: State, second: State, share: float) -> State:
    """Return the mean of two nets' tensors. Whole numbers, such as a norm's number of batches, are those of `first`."""
    return {
        name: tensor + share * (second[name] - tensor) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }


def measure_norms(net: torch.nn.Module, images: torch.Tensor) -> None:
    """Set the statistics of all batch norms of `net` to those of images (M, S, S, 3)."""
    norms = batch_norms(net)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
    with torch.no_grad():
        for part in images.split(BATCH):
            net(part)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum


def mean_detector(first: Path, second: State, share: float) -> State:
    """Return the tensors of the mean of an exported detector and of a run, whose tensors are `second`."""
    images, net = squares(), weights_of(first)
    net.measure_norms(images)
    net.load_state_dict(mean(net.state_dict(), second, share))
    measure_norms(net, images)
    return net.state_dict()


def main(file: str, second: str, part: str, exp: str) -> None:
    """Write the run weights/EXP."""
    first, share = Path(file), float(part)
    run = run_folder.find_run(second, ROOT / "weights", False)
    stored, folder = checkpoint.load(run.weights), ROOT / "weights" / exp
    if first.suffix == ".onnx":
        model = mean_detector(first, stored["model"], share)
    else:
        model = mean(checkpoint.load(first)["model"], stored["model"], share)
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("last.pt", "*.onnx", "report", ".lock"))
    checkpoint.save(folder / "best.pt", {**stored, "model": model})
    print(f"{folder}: {share:g} of {second} and {1 - share:g} of {first}")
