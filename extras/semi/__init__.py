"""Learning from unlabelled faces: --semi gssl, self-training and mean-teacher."""

from typing import Any

from extras.semi.settings import check

__all__ = ["check", "show_labels", "train"]


def train(task_data: Any, ranks: Any, run: Any, resume: bool) -> None:
    """Train a landmark net with --semi, see `extras.semi.rounds.train_semi`."""
    from extras.semi.rounds import train_semi

    train_semi(task_data, ranks, run, resume)


def show_labels(task_data: Any, ranks: Any, run: Any, count: int) -> str:
    """Draw faces with their pseudo-labels, see `extras.semi.rounds.show_labels`."""
    from extras.semi import rounds

    return rounds.show_labels(task_data, ranks, run, count)
