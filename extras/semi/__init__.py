"""Learning from unlabelled faces: --semi gssl, self-training and mean-teacher."""

from typing import Any


def train(sources: Any, ranks: Any, run: Any, resume: bool) -> None:
    """Train a landmark net with --semi, see `extras.semi.rounds.train_semi`."""
    from extras.semi.rounds import train_semi

    train_semi(sources, ranks, run, resume)
