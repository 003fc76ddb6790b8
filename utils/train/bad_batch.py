"""A step whose loss or gradient is not finite: its samples, the terms at fault, and the file that repeats it."""
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipnet.errors import UserError
from utils.train import checkpoint
from utils.train.solver import NonFinite, Solver

SHOWN = 32  # names in an error


class MicroBatch(NamedTuple):
    """Samples of all processes, as a task's batches are. index: (B,)."""

    images: Tensor
    labels: Any
    index: Tensor


class BadBatch(UserError):
    """The error in words, with the micro-batches of all processes; without any, the step cannot be repeated."""

    def __init__(self, text: str, step: int, batches: list[MicroBatch]):
        super().__init__(text)
        self.step, self.batches = step, batches


def rows_of(labels, rows: list[int]):
    """Return some rows of labels, which are `Labels` or the `BoxTargets` of a detector."""
    return labels._replace(packed=labels.packed[rows])


def joined(batches: tuple[MicroBatch, ...]) -> MicroBatch:
    """Return one micro-batch of several."""
    images, packed, index = (torch.cat(parts) for parts in zip(*((one.images, one.labels.packed, one.index) for one in batches),
                                                               strict=True))
    return MicroBatch(images, batches[0].labels._replace(packed=packed), index)


def faults(solver: Solver, batches: list) -> dict[int, list[str]]:
    """Return {index of a sample: its terms that are not finite, or "gradient"}. All processes must call it.

    Each sample makes a batch of its own, twice in it, so that batch norm can be computed.
    """
    found, device = {}, solver.ranks.device
    parameters = [p for p in solver.net.parameters() if p.requires_grad]
    for batch in batches:
        for row, index in enumerate(batch.index.tolist()):
            labels = rows_of(batch.labels, [row, row]).to(device)
            with torch.autocast(device.type, solver.dtype, enabled=solver.dtype is not None):
                terms = solver.net.loss(batch.images[[row, row]].to(device), labels)
            gradients = torch.autograd.grad(sum(terms.values()), parameters, allow_unused=True)
            wrong = [name for name, term in terms.items() if not term.isfinite()]
            if not all(part.isfinite().all() for part in gradients if part is not None):
                wrong = wrong or ["gradient"]
            if wrong:
                found[index] = wrong
    return found


def explained(error: NonFinite, solver: Solver, epoch: int, name: Callable[[int], str]) -> BadBatch:
    """Return the error that names the samples at fault, of all processes, which must all call it.

    It holds no micro-batches of a mean teacher, whose samples mean nothing by themselves.
    """
    gathered = solver.ranks.gather([MicroBatch(*batch) for batch in error.batches])
    indices = [index for row in zip(*(torch.cat([batch.index for batch in own]).tolist() for own in gathered), strict=True)
               for index in row]
    alone = not any(getattr(batch.labels, "weak", None) for batch in error.batches)
    wrong = {index: terms for own in solver.ranks.gather(faults(solver, error.batches) if alone else {})
             for index, terms in own.items()}
    batches = [joined(some) for some in zip(*gathered, strict=True)] if alone else []
    few = 0 < len(wrong) < len(set(indices))
    said = [f"{name(index)} ({', '.join(wrong[index])})" for index in indices if index in wrong] if few else [
        name(index) for index in indices]
    more = f" and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
    advice = "look at their labels" if few else "lower --learning-rate or look at these"
    return BadBatch(f"the loss is not finite in epoch {epoch + 1}, step {error.step} ({error}); "
                    f"{'samples at fault' if few else 'samples'}: {', '.join(said[:SHOWN])}{more}; {advice}", error.step, batches)


def save(file: Path, error: BadBatch, packed: dict) -> None:
    """Write a checkpoint of the weights before the step, with the step's micro-batches."""
    batches = [{"images": batch.images, "labels": batch.labels.packed, "form": list(map(int, getattr(batch.labels, "form", ()))),
                "index": batch.index} for batch in error.batches]
    checkpoint.save(file, {**packed, "bad_step": error.step, "batches": batches})
