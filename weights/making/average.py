"""The mean of the weights of two nets, as a run: `python weights/making/make.py average FIRST SECOND SHARE EXP`.

FIRST is the best.pt of a landmark net or a detector's exported file; SECOND is a run that was trained from it. SHARE is
the weight of SECOND, 0 to 1. EXP becomes a copy of SECOND with the mean weights. They are often as good as FIRST on its
data and as robust as SECOND (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).

The batch norms of a landmark net take the mean of both statistics. Those of a detector are measured on unchanged
photographs, for FIRST and for the mean: statistics of training crops made the mean worse.
"""

import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from record import ROOT

from extras.detector.experiment import PictureSets, prepare
from extras.detector.loaders import weights_of
from extras.detector.scene_sources import portraits, resized
from extras.detector.wider import Picture, read_wider
from nets.trainable import batch_norms
from utils.data.prepared_set import Split
from utils.data.sets import SetFinder
from utils.settings.config import read_defaults
from utils.train import checkpoint, run_folder
from utils.train.ranks import Ranks
from utils.train.settings import read_settings, read_trained

State = dict[str, torch.Tensor]
CROWDS, PORTRAITS, SIDE, BATCH = (
    56,
    8,
    640,
    8,
)  # photographs that the batch norms are measured on, px, and how many at once


def shown(sources: PictureSets) -> list[Picture]:
    """Return training photographs of both kinds, evenly spread over their folders."""
    crowds = [picture for folder in sources.wider for picture in read_wider(folder, "train")]
    return [crowds[row] for row in np.linspace(0, len(crowds) - 1, CROWDS).astype(int)] + portraits(
        [Split(one, "train") for one in sources.sets], PORTRAITS
    )


def squares(pictures: list[Picture]) -> torch.Tensor:
    """Return the upper left squares (M, SIDE, SIDE, 3) of photographs."""
    images = [picture.read() for picture in pictures]
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


def mean_detector(first: Path, run: run_folder.Run, second: State, share: float) -> State:
    """Return the tensors of the mean of an exported detector and of a run, whose tensors are `second`."""
    defaults = read_defaults()
    mode = Namespace(
        exp=run.folder.name,
        resume=False,
        train=False,
        audit=False,
        test=False,
        test_onnx=False,
        export=[],
        test_formats=[],
        predict=None,
    )
    settings = read_settings({}, mode, run, defaults, read_trained(mode, run, defaults))
    images = squares(
        shown(prepare(settings, SetFinder(settings, defaults), Ranks(0, 1, torch.device("cpu")), True, False))
    )
    net = weights_of(first)
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
        model = mean_detector(first, run, stored["model"], share)
    else:
        model = mean(checkpoint.load(first)["model"], stored["model"], share)
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("last.pt", "*.onnx", "report", ".lock"))
    checkpoint.save(folder / "best.pt", {**stored, "model": model})
    print(f"{folder}: {share:g} of {second} and {1 - share:g} of {first}")
