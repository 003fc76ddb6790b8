"""The learning rate of each step."""

import math
from typing import NamedTuple

from utils.settings.sections import TrainSettings


class Schedule(NamedTuple):
    """The learning rate as a pure function of the step, so that resuming needs no state. steps: of the optimizer, in an
    epoch.
    """

    train: TrainSettings
    steps: int

    @property
    def total(self) -> int:
        """Return the number of steps of the training."""
        return self.train.epochs * self.steps

    def __call__(self, step: int) -> float:
        """Return the learning rate of step number `step`, counted from 0.

        Schedule `epochs` is the IRNet fork's: the rate is constant in an epoch, and the cosine after the warm-up is as
        long as the whole training, so that it does not reach its end.
        """
        train, peak, warmup = self.train, self.train.learning_rate, round(self.train.warmup * self.steps)
        if train.schedule == "epochs":
            step -= step % self.steps
        if step < warmup:
            return train.warmup_learning_rate + (peak - train.warmup_learning_rate) * step / warmup
        if train.schedule == "steps":
            passed = sum(step >= round(epoch * self.steps) for epoch in train.milestones)
            return peak * ((1.0, *train.factors)[passed] if train.factors else 0.1**passed)
        length = self.total if train.schedule == "epochs" else self.total - warmup
        share, final = (step - warmup) / max(length, 1), train.final_learning_rate
        return final + 0.5 * (peak - final) * (1 + math.cos(math.pi * min(share, 1)))
