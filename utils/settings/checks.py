"""The rules of keys on the command line: whether a run reads them, whether they fit together, and when they may change."""

from typing import Any

from nets.registry import HEADS
from pipnet.errors import UserError
from utils.settings.config import Settings
from utils.settings.extras import extra
from utils.settings.sections import KEYS, ONLY_STEPS, SECTIONS, STEPS


def check_given(given: dict[str, Any], trained: dict[str, Any], resume: bool) -> None:
    """Raise UserError if a given key differs from the trained run's value and may not be changed, see `Key.change`."""
    how = "resume" if resume else "test"
    for key, value in given.items():
        if trained.get(key) != value and KEYS[key].change not in (how, "always"):
            advice = "leave it out, or train another run" if resume else "other faces are tested with --test-data"
            if key in ("layout", "selected_index") and not resume:
                advice = "--test-data takes faces of any layout and converts them by itself"
            raise UserError(f"{KEYS[key].flag} belongs to a new training, this run has {trained.get(key)}; {advice}")


def check_read(given: dict[str, Any], settings: Settings) -> None:
    """Raise UserError for a given key that a run with these settings does not read."""
    steps = settings.augment.steps
    if "sides" in steps and not settings.augment.sides:
        raise UserError("the step sides needs --sides, four shares of the face box; give them, or leave the step out")
    for key in given:
        if why := why_unread(key, settings):
            raise UserError(f"{KEYS[key].flag} {why}")


def why_unread(key: str, settings: Settings) -> str:
    """Return why these settings do not read a key, and what to do; "" if they read it."""
    row, net, train, steps = KEYS[key], settings.net, settings.train, settings.augment.steps
    if row.task not in ("", train.task):
        return f"is not read by --task {train.task}; leave it out"
    if key in SECTIONS["augment"].keys:
        read = {name for step in steps for name in STEPS[step]} | {"steps", "fill", "interpolation", "misplaced"}
        if key not in read if steps else key in ONLY_STEPS:
            which = ", ".join(steps) or "there are none"
            return f"is read by none of the steps ({which}); give --steps with one that reads it, or leave it out"
    heads = [name for name, head in HEADS.items() if key in head.options or key in head.weights]
    if (
        heads
        and train.task == "landmarks"
        and net.head not in heads
        and not (key == "reg" and (net.local_parts or net.refine))
    ):
        return f"belongs to the head {' or '.join(heads)}, not to {net.head}; leave it out"
    if row.needs and not row.needs[0](settings):
        return row.needs[1].format(how=f"--semi {train.semi}" if train.semi else "a training without --semi")
    return ""


def check_rooms(settings: Settings) -> None:
    """Raise UserError if a new training needs a folder of extras that this checkout lacks. (The heads say so themselves.)"""
    train = settings.train
    needs = {
        "systems": settings.augment.steps or settings.net.local_parts,
        "gpu": train.pixels == "device",
        "detector": train.task == "detect",
    }
    for room in [room for room, needed in needs.items() if needed]:
        extra(room)
