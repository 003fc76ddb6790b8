"""The losses of a step, read while the next one runs."""

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor


class NonFinite(ArithmeticError):
    """A loss term or the gradient is NaN or infinite. It holds the step, the values and this process's micro-batches."""

    def __init__(self, step: int, terms: dict[str, float], batches: list):
        super().__init__(", ".join(f"{name} {value:g}" for name, value in terms.items()))
        self.step, self.terms, self.batches = step, terms, batches


class StepValues:
    """The losses of one optimizer step.
    They are copied from the device while the next step runs, so that reading does not stall.

    values (names + 2,): one for each of `names`, then the norm of the gradient, then 1 if the step was refused, else 0.
    """

    def __init__(self, step: int, names: list[str], values: Tensor, batches: list):
        self.step, self.names, self.batches = step, names, batches
        self.values = values.to("cpu", non_blocking=True)  # from a GPU: to pinned memory
        self.arrived = torch.cuda.current_stream(values.device).record_event() if values.is_cuda else None

    def read(self) -> dict[str, float]:
        """Return {name: value} of each term and of the weighted total `loss`. Raise NonFinite, in all processes alike."""
        if self.arrived:
            self.arrived.synchronize()
        *values, norm, refused = self.values.tolist()
        terms = dict(zip(self.names, values, strict=True))
        if refused:
            raise NonFinite(self.step, {**terms, "gradient": norm}, self.batches)
        return terms


def one_behind(items: Iterator) -> Iterator:
    """Yield each item after the next one has been made; the last one at the end."""
    behind = list(islice(items, 1))
    for item in items:
        yield behind.pop()
        behind.append(item)
    yield from behind
