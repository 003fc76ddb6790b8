"""The conditions of keys: what a value must be, and with which settings a key is read. See `utils.settings.keys.Key`."""

import re

# {--semi: the level of each round}. A level says which terms pseudo-labelled faces train, see nets.labels.Labels.level
ROUNDS = {"gssl": (2, 1, 0, 0, 0), "self-training": (0, 0, 0)}
MEAN_TEACHER = "mean-teacher"

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

UNREAD = "is not read by {how}; leave it out, or give another --semi"
FACE = (lambda settings: settings.loss.face, "is read by the output `face`; leave it out, or give --face 1")
SEMI = (lambda settings: settings.train.semi, UNREAD)
NO_ROUNDS = (lambda settings: settings.train.semi not in ROUNDS, UNREAD)
LOGS = (
    lambda names: all(re.fullmatch(r"csv|tensorboard|wandb|mlflow|[\w.]+:\w+", name) for name in names),
    "a list of csv, tensorboard, wandb, mlflow and module:Class",
)
SHARES = (
    lambda shares: (
        all(re.fullmatch(r".+=(\d+\.?\d*|\.\d+)", one) and float(one.rpartition("=")[2]) > 0 for one in shares)
        and len({one.rpartition("=")[0] for one in shares}) == len(shares)
    ),
    "a list of NAME=NUMBER, numbers above 0, each name once",
)
STEPPED = (
    lambda settings: settings.train.schedule == "steps",
    "is read by --schedule steps; give that, or leave it out",
)
COSINE = (
    lambda settings: settings.train.schedule in ("cosine", "epochs"),
    "is read by --schedule cosine and epochs; give one, or leave it out",
)
AVERAGED = (
    lambda settings: settings.train.ema,
    "is of the moving average of --ema, which is 0; leave it out, or give --ema",
)
MOVES = (
    lambda settings: settings.net.reinit or settings.net.local_parts,
    "weights a loss of --reinit and --local-parts; leave it out, or give one of these",
)
TAUGHT = (lambda settings: settings.train.teacher, "weights what is learnt from a --teacher; leave it out, or give one")
