"""What contradicts itself in a command, would lose something or give a wrong result; and which flags a run does not read.

Nothing here opens a file, so these refusals come before a set is prepared. A room of extras adds its own by `faults` in its
`faults.py`, and by READ_BY and `reader` in its `modes.py`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from loguru import logger

import nets
from pipnet.errors import UserError
from pipnet.flags import flag
from utils.settings import rooms
from utils.settings.command import Command
from utils.settings.config import Settings
from utils.settings.heads import HEADS
from utils.settings.modes import READ_BY, WORK
from utils.settings.rooms import added
from utils.settings.sections import ALL_STEPS, KEYS, ONLY_STEPS, SECTIONS, STEPS

PAGES = {"pipeline", "pipeline-int8", "web"}  # exports that hold a detector


class Trained(NamedTuple):
    """The trained run that a command resumes, tests or uses.

    values: its settings, without those that are not taken from a file of somebody else
    file: its checkpoint
    alone: whether it is a file without a run, which is tested on any sets
    published: whether the file is of another project, which does not say how training faces were cropped
    detector: the file of the detector that its checkpoint names
    """

    values: dict[str, Any]
    file: Path
    alone: bool = False
    published: bool = False
    detector: str | None = None


def refuse(found: Iterable[str]) -> None:
    """Raise UserError with the first of some faults, if there is one."""
    for fault in found:
        raise UserError(fault)


def faults(command: Command, settings: Settings | None = None, old: Trained | None = None) -> Iterator[str]:
    """Yield what is wrong with a command. settings: those of its run, None before they are known."""
    if not command.has(*WORK, *(name for room in added("modes").values() for name in room.WORK)):
        yield (
            "nothing to do: give --train, --test, --test-onnx, --predict PATH, --prepare, --show-data N, --audit or "
            "--list-nets (--help explains them)"
        )
    if command.has("compare") and not command.mode("compare"):
        yield f"--compare needs two runs: --compare {command.exp} RUN"
    if command.has("resume") and not command.trains:
        yield "--resume continues a --train or an --audit; give that too"
    exports, predicts = {*command.mode("export", ())}, command.has("predict")
    if command.has("out") and ((predicts and exports) or ("web" in exports and len(exports) > 1)):
        yield "--out says where the landmarks of --predict, the page of --export web or other exports go; give one of these"
    for room_faults in added("faults").values():
        yield from room_faults(command, settings, old)
    if settings and old:
        yield from _faults_of_trained(command, settings, old)
    elif settings:
        yield from _faults_of_new(command, settings)
    if settings and command.trains:
        train, milestones = settings.train, len(settings.train.milestones)
        if command.has("train") and settings.data.val == "none" and train.early_stop:
            yield "early_stop needs validation faces; give --val 0.1, or --early-stop 0"
        if not train.epochs and (train.semi or command.has("audit")):
            mode = f"--semi {train.semi}" if train.semi else "--audit"
            yield f"--epochs 0 trains nothing, and {mode} needs trained nets; give more"
        if train.schedule == "steps" and len(train.factors) not in (0, milestones):
            yield f"factors has {len(train.factors)} numbers for {milestones} milestones; give as many, or none"


def _faults_of_new(command: Command, settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the settings of a new training, or of a preparation. UserError for a missing room."""
    data, augment, net, loss = settings.data, settings.augment, settings.net, settings.loss
    if settings.train.task == "landmarks":
        yield from _faults_of_net(command, settings)
    else:
        rooms.detector.require()
    if "sides" in augment.steps and not augment.sides:
        yield "the step sides needs --sides, four shares of the face box; give them, or leave the step out"
    if settings.layouts.is_union(data.layout) and data.selected_index:
        yield (
            f"--selected-index is of one layout, not of several (--layout {data.layout}); leave it out, and give a set "
            "another layout in args.yaml"
        )
    if loss.openings > 0 and not net.refine:
        yield "openings is a loss term of the refiner; add --refine, or leave --openings out"
    if loss.visible > 0 and not net.refine:
        yield "visible is read from the refiner's patches; add --refine, or leave --visible out"


def _faults_of_net(command: Command, settings: Settings) -> Iterator[str]:
    """Yield what is wrong with a new landmark net. UserError for a missing room. (The heads say so themselves.)"""
    net = settings.net
    if settings.augment.steps or net.local_parts:
        rooms.systems.require()
    if settings.train.pixels == "device":
        rooms.gpu.require()
    if settings.train.teacher and (net.reinit or net.local_parts):
        yield (
            "--reinit and --local-parts make a crop of their own, in which two nets cannot be compared; leave out these "
            "or --teacher"
        )
    if net.weights.endswith(".onnx"):
        yield f"--weights {net.weights} is an exported file, which cannot be trained further; give the .pt of the run"
    if command.trains:
        try:  # loads torch, which the settings of a run need too
            nets.check_options(nets.NetOptions(net.net, net.head, net.stride, net.input_size, net.act), HEADS)
        except ValueError as error:
            yield str(error)


def _faults_of_trained(command: Command, settings: Settings, old: Trained) -> Iterator[str]:
    """Yield what a trained run cannot be given."""
    given, resumes, test_data = command.given, command.has("resume"), command.given.get("test_data")
    advice = "leave it out, or train another run"
    if not resumes:
        advice = "leave it out; --test-data tests other faces, and converts those of another layout"
    free = _free_keys(command, old)
    for key, value in given.items():
        if old.values.get(key) != value and key not in free:
            yield f"{KEYS[key].flag} belongs to a new training, this run has {old.values.get(key)}; {advice}"
    if resumes and old.values["val"] == "test" and test_data not in (None, old.values.get("test_data")):
        yield (
            "--test-data picks the best epoch of this run (--val test), so --resume keeps it; leave it out, and test on "
            "other faces later: --test --test-data"
        )
    log = old.values.get("log") or []
    if resumes and "log" not in given and (foreign := [name for name in log if ":" in name]):
        yield (
            f"{old.file} was logged by {foreign[0]}, and a checkpoint imports nothing; type it again: "
            f"--log {' '.join(log)}"
        )
    if command.tests and given.get("first_pixel") not in (None, old.values.get("first_pixel")) and not test_data:
        yield (
            "--first-pixel would change the labels that this run was trained on; leave it out, train a new run, or name "
            "other faces: --test-data"
        )
    if PAGES & command.formats and settings.test.detector != "faceboxes":
        yield (
            f"--export pipeline and web take a detector faceboxes, not {settings.test.detector}; give --detector "
            "faceboxes, and --detector-weights for a file of yours"
        )
    if _detects(command, settings) and old.detector and not settings.test.detector_weights:
        yield (
            f"{old.file} names the file of a detector, and it lies outside of --run-root, so that file is not opened; "
            "name it: --detector-weights FILE"
        )


def _free_keys(command: Command, old: Trained) -> set[str]:
    """Return the keys that may differ from those of a trained run."""
    resumes = command.has("resume")
    free = {key for key, row in KEYS.items() if row.change in ("resume" if resumes else "test", "always")}
    if command.has("audit"):
        free.add("norm")  # an audit picks no epoch
    if old.published:
        free.add("protocol")
    if old.alone:
        free.add("dataset")
    if "int8" in command.formats and not resumes:
        free |= {"dataset", "data_dir", "train_data", "label_shift"}  # other faces may calibrate the 8-bit net
    return free


def _detects(command: Command, settings: Settings) -> bool:
    """Return whether a command finds faces with a detector, or exports one."""
    return command.has("predict") or "detector" in settings.test.box or bool(PAGES & command.formats)


# --------------------------------------------------------------------------------------------------------------- unread
def unread(command: Command, settings: Settings | None = None) -> dict[str, str]:
    """Return {mode or key that the command gives and does not read: with what it is read}.

    Who reads a flag is said where it is declared: a mode in READ_BY of its file of modes, a key at its field (task,
    read_by, sets), an option or a weight of a head in the row of the head, a key of the augmentation in STEPS.
    `utils.train.settings` adds the keys that the sets of the run do not read, for which it opens these.
    settings: None for a command without a run.
    """
    return {name: why for name in (*command.modes, *command.given) if (why := reader(name, command, settings))}


def log_unread(command: Command, found: dict[str, str]) -> None:
    """Log one line for flags that are not read, see `unread`, and one for what is not taken from a --config file.
    A flag with the value of args.yaml's section asks for nothing, so it is not named.
    """
    if command.untaken:
        logger.info(f"{command.mode('config')}: {', '.join(command.untaken)} not taken; give them as flags")
    usual = {key for key, value in command.given.items() if value == command.defaults.values[key]}
    typed = {*command.modes, *command.typed} - usual
    if said := [f"{flag(name)} (needs {why})" for name, why in found.items() if name in typed]:
        logger.warning(f"not read by this run: {', '.join(said)}")


def reader(name: str, command: Command, settings: Settings | None = None) -> str:
    """Return with what a flag is read; "" if this command reads it."""
    rooms_modes = added("modes").values()
    for read_by in (READ_BY, *(room.READ_BY for room in rooms_modes)):
        if name in read_by and not command.has(*read_by[name]):
            return " or ".join(map(flag, read_by[name]))
    for room in rooms_modes:
        if why := room.reader(name, command, settings):
            return why
    if settings is None or name not in KEYS:
        return ""
    if name in ("detector", "detector_weights") and not (command.trains or _detects(command, settings)):
        return "--box detector"
    key, net, steps = KEYS[name], settings.net, settings.augment.steps
    if key.task not in ("", settings.train.task):
        return f"--task {key.task}"
    if name in SECTIONS["augment"].keys:
        read = {one for step in steps for one in STEPS[step]}
        if name not in (*read, *ALL_STEPS) if steps else name in ONLY_STEPS:
            return "other --steps"
    rows = {**HEADS, net.head: HEADS[net.head]}
    heads = [head for head, row in rows.items() if name in row.options or name in row.weights]
    of_stage = name == "reg" and (net.refine or net.local_parts)
    if heads and settings.train.task == "landmarks" and net.head not in heads and not of_stage:
        return f"--head {' or '.join(heads)}"
    if key.read_by and not key.read_by[0](settings):
        return key.read_by[1]
    return ""
