"""The mean of the weights of two runs, as a run: `python benchmarks/average.py FIRST SECOND SHARE EXP`.

SECOND was trained from FIRST. Their mean is often as good as FIRST on its data and as robust as SECOND (Wortsman et al., "Robust
fine-tuning of zero-shot models", CVPR 2022). SHARE is the weight of SECOND, 0 to 1. The statistics of the batch norms are
measured again on training crops of SECOND. EXP becomes a copy of SECOND with these weights.
"""
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from record import ROOT
from torch import nn

from nets import build_net
from pipnet.layout import Layout
from utils.config import read_defaults
from utils.tasks import task_class
from utils.tasks.settings import read_settings
from utils.test.detectors import weights_of
from utils.train import checkpoint, run_folder
from utils.train.initialise import initialise
from utils.train.ranks import Ranks

SAMPLES, BATCH = 512, 32  # training crops that the batch norms are measured on


def fitted(file: Path, stored: dict) -> nn.Module:
    """Return a net like that of the checkpoint `stored`, with the weights of another checkpoint."""
    if stored["args"]["task"] == "detect":
        return weights_of(file)
    net = build_net(stored["net"])
    initialise(net, str(file), Layout.from_dict(stored["layout"]), np.reshape(stored["meanface"], (-1, 2)), print)
    return net


def measure_norms(net: nn.Module, task) -> None:
    """Set the statistics of all batch norms to the means over training crops."""
    task.prepare()
    samples, collate = task.training_data()[:2]
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None
    net.train()
    for start in range(0, SAMPLES, BATCH):
        keys = [(0, index % len(samples)) for index in range(start, start + BATCH)]
        with torch.no_grad():
            batch = collate([samples[key] for key in keys])
            net.loss(batch[0], batch[1])
    net.eval()


def main(first: Path, second: str, share: float, exp: str) -> None:
    """Write the run weights/EXP."""
    run, defaults = run_folder.find(second, ROOT / "weights", False), read_defaults()
    stored = checkpoint.load(run.weights)
    mode = Namespace(exp=second, resume=False, train=False, audit=False, test=False, test_onnx=False, export=[], test_formats=[])
    settings = read_settings({}, mode, run, defaults)
    net = fitted(first, stored)
    net.load_state_dict({name: tensor + share * (stored["model"][name] - tensor) if tensor.is_floating_point() else tensor
                         for name, tensor in net.state_dict().items()})
    measure_norms(net, task_class(settings.train.task)(settings, defaults, Ranks(0, 1, torch.device("cpu"))))
    folder = ROOT / "weights" / exp
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("last.pt", "*.onnx", "report", ".lock"))
    checkpoint.save(folder / "best.pt", {**stored, "model": net.state_dict()})
    print(f"{folder}: {share:g} of {second} and {1 - share:g} of {first}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("usage: python benchmarks/average.py FIRST.pt SECOND SHARE EXP")
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4])
