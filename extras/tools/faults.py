"""Refusals of the commands beside the main job, see `utils.settings.faults`."""

from collections.abc import Iterator
from typing import Any

from extras.tools.modes import WORK
from utils.settings.command import Command
from utils.settings.config import Settings
from utils.settings.modes import TESTS
from utils.settings.modes import WORK as MAIN_JOB

OTHERS = {*MAIN_JOB, *WORK, "sweep", "resume", "overwrite"} - {"list_nets"}


def faults(command: Command, settings: Settings | None, old: Any = None) -> Iterator[str]:
    """Yield what is wrong with --list-nets, --predict, --audit, --sweep and --show-data."""
    has, count = command.has, command.mode("show_data", 1)
    if has("list_nets") and has(*OTHERS):
        yield "--list-nets only lists; leave the other modes out"
    if has("predict") and has("sweep", "audit"):
        yield "--predict uses one trained net; leave --sweep and --audit out"
    if has("audit") and has("train", *TESTS, "compare", "export", "sweep"):
        yield "--audit trains nets of its own; leave --train, --test, --sweep out"
    if has("sweep") and (not has("train") or has("show_data", "export", "test_formats", "compare")):
        yield "--sweep goes with --train, and with --test or --test-onnx; leave other modes out"
    if has("trials") and not has("sweep"):
        yield "--trials is the number of runs of a --sweep; give that too"
    if command.mode("trials", 1) < 1:
        yield f"--trials needs at least 1 run, not {command.mode('trials')}"
    if count < 1:
        yield f"--show-data needs the number of faces to draw, at least 1, not {count}"
    if has("audit") and has("resume") and not command.exp:
        yield "--audit --resume needs the name of the audit: --exp"
    if settings and has("sweep") and settings.train.task == "detect":
        yield "--sweep compares landmark nets; train detectors one by one"
    if settings and has("trials") and settings.data.val == "none":
        yield "--trials proposes values by the validation figure; give --val 0.1 instead of none"
    if settings and has("audit"):
        yield from _faults_of_audit(settings)


def _faults_of_audit(settings: Settings) -> Iterator[str]:
    """Yield the settings that would use the labels to be judged."""
    if settings.layouts.is_union(settings.data.layout):
        yield (
            f"--audit compares the labels of one layout; leave out --layout {settings.data.layout}, and audit the sets of "
            "each layout by themselves"
        )
    if settings.data.labelled_fraction < 1:
        yield "--labelled-fraction hides labels that are to be judged; leave it out of --audit"
    if settings.train.early_stop:
        yield "--early-stop would pick an epoch on the labels that are judged; leave it out of --audit"
    if settings.train.semi:
        yield "--semi learns from further faces; leave it out of --audit"
    if settings.train.teacher:
        yield "a --teacher may have seen the labels that are judged; leave it out of --audit"
