"""Refusals of --task detect, see `utils.settings.faults`."""

from collections.abc import Iterator
from typing import Any

from utils.settings.command import Command
from utils.settings.config import Settings


def faults(command: Command, settings: Settings | None, old: Any) -> Iterator[str]:
    """Yield what only landmark nets have."""
    if settings is None or settings.train.task != "detect":
        return
    if command.has("audit"):
        yield "--audit judges landmarks; leave it out of --task detect"
    if command.has("predict"):
        yield "--predict is for landmark nets; demo.py --detector-weights shows what a detector finds"
    if command.has("compare"):
        yield "--compare is for landmark nets; leave it out of --task detect"
    if command.has("train") and settings.net.weights == "imagenet":
        yield "there are no ImageNet weights of a detector; give --weights none or a file"
