"""Repeat the step of a bad_batch.pt, which a training leaves whose loss was not finite: `python -m utils.tools.replay FILE`."""
import sys
from dataclasses import replace
from pathlib import Path

import torch

from nets import Labels, build_net
from nets.detectors.faceboxes import BoxTargets, FaceBoxesV2
from nets.labels import Form
from nets.wrappers.distillation import Shares
from pipnet.errors import UserError
from pipnet.layout import Layout
from utils.config import read_defaults, resolve
from utils.train import bad_batch, checkpoint
from utils.train.ranks import Ranks
from utils.train.solver import NonFinite, Solver
from utils.train.teacher import add_teacher


def replay(file: Path) -> str:
    """Return what the step gives on the CPU: its terms, the weights and gradients that are not finite, the samples at fault.

    UserError for a file of another kind.
    """
    stored = checkpoint.load(file)
    if "batches" not in stored:
        raise UserError(f"{file} holds no step to repeat; give the bad_batch.pt of a run whose loss was not finite")
    settings = resolve({}, read_defaults(), trained=stored["args"])
    train, loss, detects = settings.train, settings.loss, stored["args"]["task"] == "detect"
    net = FaceBoxesV2() if detects else build_net(stored["net"])
    if train.teacher and not detects:
        shares = Shares(loss.teacher_landmarks, loss.teacher_maps, loss.teacher_features)
        net, _ = add_teacher(net, Path(train.teacher), shares, Layout.from_dict(stored["layout"]), stored["protocol"])
    net.load_state_dict(stored["model"])
    amp = "bf16" if train.amp == "fp16" else train.amp
    solver = Solver(net, replace(train, compile=False, amp=amp), loss, 1, Ranks(0, 1, torch.device("cpu")))
    solver.begin()
    batches = [bad_batch.MicroBatch(one["images"], BoxTargets(one["labels"]) if detects else Labels(
        one["labels"], Form(*one["form"])), one["index"]) for one in stored["batches"]]
    lines = [f"epoch {stored['epoch'] + 1}, step {stored['bad_step']}"]
    weights = [name for name, p in net.named_parameters() if not p.isfinite().all()]
    lines.append(f"weights that are not finite: {', '.join(weights) or 'none'}")
    wrong = bad_batch.faults(solver, batches)
    for index in sorted(wrong):
        lines.append(f"sample {index} by itself: {', '.join(wrong[index])}")
    try:
        terms = solver.train_step(batches).read()
        lines.append(f"the whole step is finite here: {', '.join(f'{name} {value:g}' for name, value in terms.items())}")
    except NonFinite as error:
        lines.append(f"the whole step: {error}")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        if len(sys.argv) != 2:
            raise UserError("usage: python -m utils.tools.replay weights/EXP/bad_batch.pt")
        print(replay(Path(sys.argv[1])))
    except UserError as error:
        sys.exit(f"error: {error}")
