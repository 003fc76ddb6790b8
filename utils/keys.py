"""One row per key of args.yaml: its type, its range or choices, the task that reads it, and who may change it later."""
import re
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

from nets.registry import ACTS, HEADS
from pipnet.detector import DETECTORS
from pipnet.errors import UserError
from utils.yaml_files import nearest

WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
TASKS = ("landmarks", "detect")
LARGEST = 10 ** 6  # of numbers whose row has no `most`; far above it, sizes and steps no longer fit machine numbers
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # YAML 1.1 reads 1e-4 as text


class Key(NamedTuple):
    """One key of args.yaml. task and change: None takes the section's.

    many: the value is a list; null: it may be null; words: texts that are allowed in addition to the type; valid: (function that
    tests the whole value, what it must be in words).
    """

    kind: type
    many: bool = False
    null: bool = False
    least: float | None = None
    most: float | None = None
    choices: Collection | None = None
    words: tuple[str, ...] = ()
    valid: tuple[Callable[[Any], bool], str] | None = None
    task: str | None = None
    change: str | None = None


class Section(NamedTuple):
    """Keys of one section. task: the only task that reads it, "" for all. change: which runs may change it, see `check_given`."""

    keys: dict[str, Key]
    task: str = ""
    change: str = "never"


# published steps of the augmentation: the keys of `augment` that each reads, beside fill and interpolation
STEPS = {"sides": ("sides",), "translation": ("translation", "translation_prob"), "rotation": ("rotation", "rotation_prob"),
         "shear": ("shear",), "flip": ("flip",), "occlusion": ("occlusion", "occlusion_size"), "padding": ("padding",),
         "hsv": ("hue", "saturation", "brightness", "colour_prob"),
         "colour": ("hue", "saturation", "brightness", "contrast", "colour_prob"), "infrared": ("infrared",),
         "grayscale": ("grayscale",), "blur": ("blur", "blur_sigma"), "noise": ("noise", "noise_sigma")}
ONLY_STEPS = ("sides", "shear", "padding")  # keys that nothing else reads
# rounds of --semi: which terms pseudo-labelled faces train in each, see nets.labels.Labels.level; the first net sees labels only
ROUNDS = {"gssl": (2, 1, 0, 0, 0), "self-training": (0, 0, 0)}
MEAN_TEACHER = "mean-teacher"
SHARE = Key(float, least=0, most=1)
POSITIVE = Key(float, least=0)
FACTOR = Key(float, least=1)
OF_LANDMARKS = POSITIVE._replace(task="landmarks")
CHOSEN = OF_LANDMARKS._replace(change="never")  # 0 or not decides which tensors or terms the net has
NAMES = Key(str, many=True, null=True, valid=(bool, "a name or a folder"))
ONCE = (lambda boxes: boxes and len(set(boxes)) == len(boxes), "one or several of true, perturbed, detector, each once")
VAL = (lambda value: isinstance(value, str) or 0 < value < 1, "a share between 0 and 1, 'test' or 'none'")
REACH = (lambda sides: not sides or len(sides) == 4 and 0 < sides[0] <= sides[1] and 0 < sides[2] <= sides[3],
         "four shares of the face box, least and most of its width and of its height, or empty")
SIDES = (lambda sides: len(sides) == 2 and 1 <= sides[0] <= sides[1], "the least and the largest side in px")
BELOW_ONE = (lambda value: value < 1, "below 1")
OPTIONS = {key: Key(option.kind, least=option.least, most=option.most, choices=option.choices)
           for head in HEADS.values() for key, option in head.options.items()}
SECTIONS = {
    "data": Section({
        "dataset": Key(str), "data_dir": Key(str, null=True, change="test"), "train_data": NAMES,
        "test_data": NAMES._replace(change="always"),
        "layout": Key(str, null=True), "selected_index": Key(int, many=True, null=True, task="landmarks"),
        "protocol": Key(str, null=True), "labels": Key(str, choices=("exact", "published"), task="landmarks"),
        "val": Key(float, words=("test", "none"), valid=VAL),
        "allow_partial": Key(bool, change="always"), "data_root": Key(str, change="always"),
        "run_root": Key(str, change="always"), "target_size": Key(int, least=32, most=8192),
        "margin": Key(float, least=1, most=4),
        "frame_step": Key(int, least=1, change="test"), "first_pixel": Key(float, null=True, choices=(0, 0.5, 1), change="test"),
        "cache": POSITIVE._replace(change="always"),
        "train_hidden": Key(bool, task="landmarks"), "label_shift": Key(float, many=True, null=True, task="landmarks"),
        "balance": Key(bool, task="landmarks"), "least_box": POSITIVE._replace(task="landmarks"),
        "labelled_fraction": SHARE._replace(task="landmarks", valid=(lambda value: value > 0, "above 0")),
        "unlabelled": NAMES._replace(task="landmarks"), "least_face_score": SHARE._replace(task="landmarks"),
        "least_sharpness": POSITIVE._replace(task="landmarks"), "folds": Key(int, least=2, task="landmarks"),
        "synthetic_train": Key(int, least=8), "synthetic_test": Key(int, least=3)}),
    "net": Section({
        "net": Key(str), "head": Key(str, choices=HEADS),
        "stride": Key(int, null=True, choices=sorted({stride for head in HEADS.values() for stride in head.strides})),
        **{key: row for key, row in OPTIONS.items() if key != "error"}, "num_lms": Key(int, null=True),
        "input_size": Key(int, least=32, most=8192, task=""),
        "meanface": Key(str, null=True), "act": Key(str, null=True, choices=ACTS), "weights": Key(str, task=""),
        "refine": Key(bool), "reinit": Key(bool), "local_parts": Key(bool)}, task="landmarks"),
    "train": Section({
        "task": Key(str, choices=TASKS, change="never"), "preset": Key(str, null=True, change="never"),
        "epochs": Key(int, least=1), "batch_size": Key(int, least=1), "accumulate": Key(int, least=1),
        "optimizer": Key(str, choices=("adam", "adamw")), "learning_rate": POSITIVE, "final_learning_rate": POSITIVE,
        "warmup": POSITIVE, "warmup_learning_rate": POSITIVE, "schedule": Key(str, choices=("cosine", "steps")),
        "milestones": Key(float, many=True), "factors": Key(float, many=True, least=0), "weight_decay": POSITIVE,
        "decay_norms": Key(bool), "clip": POSITIVE, "ema": SHARE._replace(valid=BELOW_ONE),
        "ema_ramp": Key(int, least=1), "amp": Key(str, choices=("auto", "bf16", "fp16", "off")), "compile": Key(bool),
        "graph": Key(bool, change="always"),
        "seed": Key(int, least=0, most=2 ** 63 - 1, change="never"), "deterministic": Key(bool, change="always"),
        "profile": Key(bool, change="always"), "threads": Key(int, least=0, most=1024, change="always"),
        "workers": Key(int, null=True, least=0, most=1024, change="always"),
        "pixels": Key(str, choices=("auto", "cpu", "device"), task="landmarks"),
        "rank_timeout": Key(float, least=1, change="always"),
        "early_stop": Key(int, least=0), "epoch_steps": Key(int, null=True, least=1),
        "freeze": Key(str, null=True, choices=("norms", "backbone"), task="landmarks", change="never"),
        "semi": Key(str, null=True, choices=(*ROUNDS, MEAN_TEACHER), task="landmarks", change="never"),
        "unlabelled_share": SHARE._replace(task="landmarks", valid=BELOW_ONE),
        "target_norms": Key(bool, task="landmarks"),
        "teacher": Key(str, null=True, change="never")}, change="resume"),
    "loss": Section({
        "cls": POSITIVE, "reg": POSITIVE, "error": OPTIONS["error"]._replace(task="landmarks", change="never"), "sigma": CHOSEN,
        "alignment": OF_LANDMARKS, "hard_landmarks": CHOSEN, "openings": CHOSEN, "pose": OF_LANDMARKS,
        "eyes": OF_LANDMARKS, "mouth": OF_LANDMARKS, "pseudo_labels": OF_LANDMARKS, "teacher_landmarks": CHOSEN,
        "teacher_maps": CHOSEN, "teacher_features": CHOSEN},
        change="resume"),
    "augment": Section({
        "flip": SHARE, "rotation": POSITIVE, "rotation_prob": SHARE._replace(task="landmarks"), "roll_prob": SHARE,
        "scale": SHARE._replace(valid=BELOW_ONE, task="landmarks"), "translation": SHARE._replace(task="landmarks"),
        "translation_prob": SHARE._replace(task="landmarks"), "brightness": SHARE, "contrast": SHARE, "saturation": SHARE,
        "hue": POSITIVE, "colour_prob": SHARE, "gamma": FACTOR, "grayscale": SHARE, "infrared": SHARE, "blur": SHARE,
        "blur_sigma": POSITIVE, "noise": SHARE, "noise_sigma": POSITIVE, "noise_size": FACTOR, "occlusion": SHARE,
        "occlusion_size": SHARE,
        "fill": Key(str, choices=("real", "black", "grey"), task="landmarks"),
        "interpolation": Key(str, choices=("nearest", "linear", "cubic", "lanczos", "random"), task="landmarks"),
        "steps": Key(str, many=True, choices=STEPS, task="landmarks"),
        "sides": Key(float, many=True, valid=REACH, task="landmarks"), "shear": SHARE._replace(task="landmarks"),
        "padding": SHARE._replace(task="landmarks")},
        change="resume"),
    "test": Section({
        "norm": Key(str, choices=("interocular", "interpupil", "box", "diagonal", "size"), change="test"),
        "thresholds": Key(float, many=True, valid=(lambda values: all(value > 0 for value in values), "above 0 %")),
        "flip_test": Key(bool), "test_batch_size": Key(int, least=1),
        "box": Key(str, many=True, choices=("true", "perturbed", "detector"), valid=ONCE), "box_jitter": SHARE,
        "detector": Key(str, choices=(*DETECTORS, "none")), "detector_weights": Key(str, null=True)},
        task="landmarks", change="always"),
    "detect": Section({
        "partial_events": Key(str, many=True, change="test"), "crops": Key(int, least=1), "mosaic": SHARE,
        "pasted": Key(int, least=0), "face_sides": Key(float, many=True, valid=SIDES),
        "scales": Key(float, many=True, change="test", valid=(lambda scales: scales and min(scales) > 0, "factors above 0"))},
        task="detect"),
}
ONLY_TESTS = ("norm", "thresholds", "test_batch_size", "box_jitter")  # keys of the section test that --predict does not read
KEYS = {key: row._replace(task=section.task if row.task is None else row.task, change=row.change or section.change)
        for section in SECTIONS.values() for key, row in section.keys.items()}


def check(key: str, value: Any) -> Any:
    """Return `value` in the type of the key. Raise UserError, naming both, if it has another type or is out of range."""
    row = KEYS[key]
    if value is None and row.null:
        return None
    if row.many and not isinstance(value, list):
        value = [value]
    if not row.many:
        value = _one(key, row, value)
    else:
        value = [_one(key, row, item) for item in value]
    if row.valid and not row.valid[0](value):
        raise UserError(f"{key} must be {row.valid[1]}, not {value!r}")
    return value


def _one(key: str, row: Key, value: Any) -> Any:
    """Return one value of the key's type, in its range and among its choices."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if row.kind is float and isinstance(value, str) and EXPONENT.fullmatch(value) or whole and row.kind is float:
        value = float(value)
    elif whole and row.kind is str:
        value = str(value)  # --layout 68
    if type(value) is not row.kind and value not in row.words:
        wanted = " or ".join([WORDS[row.kind], *map(repr, row.words)])
        raise UserError(f"{key} must be {wanted}, not {value!r}")
    if isinstance(value, float) and not np.isfinite(value):
        raise UserError(f"{key} must be finite, not {value!r}")
    if row.choices is not None and value not in row.choices:
        raise UserError(f"{key} must be one of {', '.join(map(str, row.choices))}, not {value!r}{nearest(value, row.choices)}")
    if row.most is None and row.kind in (int, float) and not isinstance(value, str) and abs(value) > LARGEST:
        raise UserError(f"{key} must be at most {LARGEST}, not {value!r}")
    if row.most is not None and not row.least <= value <= row.most:
        raise UserError(f"{key} must lie between {row.least} and {row.most}, not {value!r}")
    if row.least is not None and value < row.least:
        raise UserError(f"{key} must be at least {row.least}, not {value!r}")
    return value


def check_given(given: dict[str, Any], trained: dict[str, Any], resume: bool) -> None:
    """Raise UserError if a given key differs from the trained run's value and may not be changed.

    A key's `change` says when it may: never, when training is resumed (resume), in tests (test), or always.
    """
    how = "resume" if resume else "test"
    for key, value in given.items():
        if trained.get(key) != value and KEYS[key].change not in (how, "always"):
            advice = "leave it out, or train another run" if resume else "other faces are tested with --test-data"
            if key in ("layout", "selected_index") and not resume:
                advice = "--test-data takes faces of any layout and converts them by itself"
            raise UserError(f"--{key.replace('_', '-')} belongs to a new training, this run has {trained.get(key)}; {advice}")


def check_prediction(given: dict[str, Any]) -> None:
    """Raise UserError for a key of the tests, or a kind of box, that --predict does not read."""
    names = [f"--{key.replace('_', '-')}" for key in ONLY_TESTS if key in given]
    names += ["--box perturbed"] if "perturbed" in given.get("box", ()) else []
    if names:
        raise UserError(f"{names[0]} is not read by --predict; leave it out, or give --test too")


def check_task(given: dict[str, Any], task: str) -> None:
    """Raise UserError for a key that only another task reads."""
    for key in given:
        if KEYS[key].task not in ("", task):
            raise UserError(f"--{key.replace('_', '-')} is not read by --task {task}; leave it out")


def check_steps(given: dict[str, Any], augment) -> None:
    """Raise UserError for a given key that the published steps, or without them our warp, do not read. augment: the section."""
    steps = augment.steps
    if "sides" in steps and not augment.sides:
        raise UserError("the step sides needs --sides, four shares of the face box; give them, or leave the step out")
    read = {key for name in steps for key in STEPS[name]} | {"steps", "fill", "interpolation"}
    for key in given.keys() & SECTIONS["augment"].keys.keys():
        if key not in read if steps else key in ONLY_STEPS:
            raise UserError(f"--{key.replace('_', '-')} is read by none of the steps ({', '.join(steps) or 'there are none'}); "
                            "give --steps with one that reads it, or leave it out")


def check_head(given: dict[str, Any], net, teacher: str | None) -> None:
    """Raise UserError for options and loss weights that the chosen head or stages do not have. net: the settings' section."""
    for key in given:
        heads = [name for name, row in HEADS.items() if key in row.options or key in row.weights]
        if heads and net.head not in heads and not (key == "reg" and (net.local_parts or net.refine)):
            raise UserError(f"--{key.replace('_', '-')} belongs to the head {' or '.join(heads)}, not to {net.head}; leave it "
                            "out")
    if "alignment" in given and not (net.reinit or net.local_parts):
        raise UserError("--alignment weights a loss of --reinit and --local-parts; leave it out, or give one of these")
    if not teacher and (weights := [key for key in given if key.startswith("teacher_")]):
        raise UserError(f"--{weights[0].replace('_', '-')} weights what is learnt from a --teacher; leave it out, or give one")


def check_semi(given: dict[str, Any], settings) -> None:
    """Raise UserError for options of --semi that do not fit together."""
    train, data = settings.train, settings.data
    used = {"unlabelled", "least_face_score", "least_sharpness", "target_norms"} if train.semi else set()
    if train.semi == MEAN_TEACHER:
        used |= {"unlabelled_share", "pseudo_labels"}
    for key in ("unlabelled", "least_face_score", "least_sharpness", "target_norms", "unlabelled_share", "pseudo_labels"):
        if key in given and key not in used:
            how = f"--semi {train.semi}" if train.semi else "a training without --semi"
            raise UserError(f"--{key.replace('_', '-')} is not read by {how}; leave it out, or give another --semi")
    if not train.semi:
        return
    if not data.unlabelled and data.labelled_fraction == 1:
        raise UserError(f"--semi {train.semi} needs faces to learn from: --unlabelled NAMES, folders or videos, or a "
                        "--labelled-fraction below 1")
    if train.teacher:
        raise UserError(f"--semi {train.semi} makes its own teacher; leave out --teacher")
    if train.semi == "gssl" and settings.net.head != "pip":
        raise UserError(f"--semi gssl trains score maps of the head pip; for --head {settings.net.head} give "
                        "--semi self-training")
    if train.semi == MEAN_TEACHER and (settings.net.reinit or settings.net.local_parts):
        raise UserError("--reinit and --local-parts make a crop of their own, to which pseudo-labels of the mean teacher do not "
                        "belong; leave these out")
