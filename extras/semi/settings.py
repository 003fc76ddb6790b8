"""The section `semi` of args.yaml, and the rules of --semi."""

from dataclasses import dataclass
from typing import Any

from pipnet.errors import UserError
from utils.settings.keys import key, section
from utils.settings.rules import BELOW_ONE, MEAN_TEACHER, SEMI, UNREAD

TEACHES = (lambda settings: settings.train.semi == MEAN_TEACHER, UNREAD)


@dataclass(frozen=True)
class SemiSettings:
    """Unlabelled faces in a training with --semi."""

    least_face_score: float = key("unlabelled pictures and videos: least detector score of a face", 0, 1, needs=SEMI)
    least_sharpness: float = key(
        "unlabelled pictures and videos: least variance of the Laplacian of a face's box at 128 px",
        0,
        needs=SEMI,
    )
    unlabelled_share: float = key(
        "mean-teacher: share of each batch that is unlabelled; its crops are always strongly augmented",
        0,
        1,
        valid=BELOW_ONE,
        needs=TEACHES,
        change="resume",
    )


SECTION = section(SemiSettings, "unlabelled faces", "landmarks")


def check(settings: Any) -> None:
    """Raise UserError for settings of a new training with --semi that do not fit together."""
    train, data, net = settings.train, settings.data, settings.net
    if not data.unlabelled and data.labelled_fraction == 1:
        raise UserError(
            f"--semi {train.semi} needs faces to learn from: --unlabelled NAMES, folders or videos, or a "
            "--labelled-fraction below 1"
        )
    if train.teacher:
        raise UserError(f"--semi {train.semi} makes its own teacher; leave out --teacher")
    if train.semi == "gssl" and net.head != "pip":
        raise UserError(
            f"--semi gssl trains score maps of the head pip; for --head {net.head} give --semi self-training"
        )
    if train.semi == MEAN_TEACHER and (net.reinit or net.local_parts):
        raise UserError(
            "--reinit and --local-parts make a crop of their own, to which pseudo-labels of the mean teacher do not "
            "belong; leave these out"
        )
