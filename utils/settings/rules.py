"""Conditions of keys: what a value must be, and with which settings a key is read. See `utils.settings.keys.Key`."""

import re

# {--semi: the level of each round}. A level says which terms pseudo-labelled faces train, see nets.labels.Labels.level
ROUNDS = {"gssl": (2, 1, 0, 0, 0), "self-training": (0, 0, 0)}
MEAN_TEACHER = "mean-teacher"

NO_NET = ("none", "imagenet")  # values of `weights` that name no net

NAMES = (bool, "a name or a folder")
ONCE = (lambda boxes: boxes and len(set(boxes)) == len(boxes), "one or several of true, perturbed, detector, each once")
VAL = (lambda value: isinstance(value, str) or 0 < value < 1, "a share between 0 and 1, 'test' or 'none'")
REACH = (
    lambda sides: not sides or (len(sides) == 4 and 0 < sides[0] <= sides[1] and 0 < sides[2] <= sides[3]),
    "four shares of the face box, least and most of its width and of its height, or empty",
)
BELOW_ONE = (lambda value: value < 1, "below 1")
ABOVE_ZERO = (lambda value: value > 0, "above 0")
PERCENT = (lambda values: values and min(values) > 0, "one or several numbers above 0 %")
RISING = (lambda values: values == sorted(set(values)), "numbers in rising order")

LOGS = (
    lambda names: all(re.fullmatch(r"csv|tensorboard|wandb|[\w.]+:\w+", name) for name in names),
    "a list of csv, tensorboard, wandb and module:Class (docs/training.md has a class for MLflow)",
)
SHARES = (
    lambda shares: (
        all(re.fullmatch(r".+=(\d+\.?\d*|\.\d+)", one) and float(one.rpartition("=")[2]) > 0 for one in shares)
        and len({one.rpartition("=")[0] for one in shares}) == len(shares)
    ),
    "a list of NAME=NUMBER, numbers above 0, each name once",
)
# with which settings a key is read, and by which flags
FACE = (lambda settings: settings.loss.face, "--face")
SEMI = (lambda settings: settings.train.semi, "--semi")
NO_ROUNDS = (lambda settings: settings.train.semi not in ROUNDS, f"no --semi, or --semi {MEAN_TEACHER}")
STEPPED = (lambda settings: settings.train.schedule == "steps", "--schedule steps")
COSINE = (lambda settings: settings.train.schedule in ("cosine", "epochs"), "--schedule cosine or epochs")
AVERAGED = (lambda settings: settings.train.ema, "--ema")
MOVES = (lambda settings: settings.net.reinit or settings.net.local_parts, "--reinit or --local-parts")
BEGUN = (lambda settings: settings.net.weights not in NO_NET, "--weights NET")
TAUGHT = (lambda settings: settings.train.teacher, "--teacher")
# which rows of DATASETS read a key, and words for their sets
AMBIGUOUS = (lambda row: row.origin_is_ambiguous, "own .pts, CSV or COCO files")
VIDEOS = (lambda row: "frame_step" in row.options, "the videos of 300vw or peppa")
OWN = (lambda row: row.layout is None, "own sets")
OFFICIAL = (lambda row: row.layout is not None, "official archives")
