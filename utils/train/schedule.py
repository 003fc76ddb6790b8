"""The learning rate of each step."""

import math
from typing import NamedTuple

from utils.settings.sections import TrainSettings


class Schedule(NamedTuple):
    """The learning rate as a pure function of the step, so that resuming needs no state.

    peak, final, warmup_start: learning rates. warmup, total, milestones: steps. factors: learning rate / peak, before
    the first milestone and after each one.
    """

    kind: str
    peak: float
    final: float
    warmup_start: float
    warmup: int
    total: int
    milestones: tuple[int, ...]
    factors: tuple[float, ...] = (1.0,)
    epoch: int = 1  # steps of an epoch

    def __call__(self, step: int) -> float:
        """Return the learning rate of step number `step`, counted from 0.

        Kind `epochs` is the IRNet fork's: the rate is constant in an epoch, and the cosine after the warm-up is as long
        as the whole training, so that it does not reach its end.
        """
        if self.kind == "epochs":
            step -= step % self.epoch
        if step < self.warmup:
            return self.warmup_start + (self.peak - self.warmup_start) * step / self.warmup
        if self.kind == "steps":
            return self.peak * self.factors[sum(step >= milestone for milestone in self.milestones)]
        length = self.total if self.kind == "epochs" else self.total - self.warmup
        share = (step - self.warmup) / max(length, 1)
        return self.final + 0.5 * (self.peak - self.final) * (1 + math.cos(math.pi * min(share, 1)))


def make_schedule(train: TrainSettings, steps: int) -> Schedule:
    """Return the schedule of a training with `steps` optimizer steps per epoch. ValueError for unequal lists."""
    factors = train.factors or [0.1**place for place in range(1, len(train.milestones) + 1)]
    if len(factors) != len(train.milestones):
        raise ValueError(
            f"factors has {len(factors)} numbers for {len(train.milestones)} milestones; give as many, or none"
        )
    return Schedule(
        train.schedule,
        train.learning_rate,
        train.final_learning_rate,
        train.warmup_learning_rate,
        round(train.warmup * steps),
        train.epochs * steps,
        tuple(round(epoch * steps) for epoch in train.milestones),
        (1.0, *factors),
        steps,
    )
