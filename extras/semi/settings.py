"""The section `semi` of args.yaml."""

from dataclasses import dataclass

from utils.settings.keys import key, section
from utils.settings.rules import BELOW_ONE, MEAN_TEACHER, SEMI

TEACHES = (lambda settings: settings.train.semi == MEAN_TEACHER, f"--semi {MEAN_TEACHER}")


@dataclass(frozen=True)
class SemiSettings:
    """Unlabelled faces in a training with --semi."""

    least_face_score: float = key("unlabelled pictures and videos: least score of a face", 0, 1, read_by=SEMI)
    least_sharpness: float = key(
        "unlabelled pictures and videos: least variance of the Laplacian of a face's box at 128 px",
        0,
        read_by=SEMI,
    )
    unlabelled_share: float = key(
        "mean-teacher: share of each batch that is unlabelled; its crops are always strongly augmented",
        0,
        1,
        valid=BELOW_ONE,
        read_by=TEACHES,
        change="resume",
    )


SECTION = section(SemiSettings, "unlabelled faces", "landmarks")
