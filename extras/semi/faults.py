"""Refusals of --semi, see `utils.settings.faults`."""

from collections.abc import Iterator
from typing import Any

from utils.settings.command import Command
from utils.settings.config import Settings
from utils.settings.heads import HEADS
from utils.settings.rules import MEAN_TEACHER


def faults(command: Command, settings: Settings | None, old: Any) -> Iterator[str]:
    """Yield what is wrong with the settings of a training with --semi."""
    if settings is None or not settings.train.semi:
        return
    train, data, net = settings.train, settings.data, settings.net
    if train.semi == MEAN_TEACHER and not train.ema:
        yield "the mean teacher is the average of the weights; give --ema above 0"
    if old:
        return
    if not data.unlabelled and data.labelled_fraction == 1:
        yield (
            f"--semi {train.semi} needs faces to learn from: --unlabelled NAMES, folders or videos, or a "
            "--labelled-fraction below 1"
        )
    if train.teacher:
        yield f"--semi {train.semi} makes its own teacher; leave out --teacher"
    if train.semi == "gssl" and net.head != "pip":
        yield f"--semi gssl trains score maps of the head pip; for --head {net.head} give --semi self-training"
    if train.semi == "gssl" and -(-net.input_size // (net.stride or HEADS["pip"].strides[0])) < 4:
        yield (
            "gssl pools the feature map twice, which needs 4 x 4 cells at least; give a larger --input-size or a "
            "smaller --stride"
        )
    if train.semi == MEAN_TEACHER and (net.reinit or net.local_parts):
        yield (
            "--reinit and --local-parts make a crop of their own, to which pseudo-labels of the mean teacher do not "
            "belong; leave these out"
        )
