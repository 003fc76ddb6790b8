"""Finds the samples that make the loss or the gradient of a step non-finite."""

from collections.abc import Callable
from typing import Any

import torch

from utils.train.solver import Solver
from utils.train.step_values import NonFinite

SHOWN = 32  # names in an error


def error_with_samples(error: NonFinite, solver: Solver, epoch: int, name: Callable[[int], str]) -> str:
    """Return the error in words, with the samples at fault in all processes. All processes must call this.

    name(index): the name of a sample. With a mean teacher no sample can be tested alone, so all samples of the step are
    named.
    """
    own = torch.cat([index for *_, index in error.batches]).tolist()
    indices = [index for row in zip(*solver.ranks.gather(own), strict=True) for index in row]
    alone = not any(getattr(labels, "weak", None) for _, labels, _ in error.batches)
    wrong = {
        index: terms
        for some in solver.ranks.gather(_faults(solver, error.batches) if alone else {})
        for index, terms in some.items()
    }
    few = 0 < len(wrong) < len(set(indices))
    said = (
        [f"{name(index)} ({', '.join(wrong[index])})" for index in indices if index in wrong]
        if few
        else [name(index) for index in indices]
    )
    more = f" and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
    advice = "look at their labels" if few else "lower --learning-rate or look at these"
    again = f"; --resume goes on from epoch {epoch}" if epoch else ""
    return (
        f"the loss is not finite in epoch {epoch + 1}, step {error.step} ({error}); "
        f"{'samples at fault' if few else 'samples'}: {', '.join(said[:SHOWN])}{more}; {advice}{again}"
    )


def _faults(solver: Solver, batches: list) -> dict[int, list[str]]:
    """Return {index of a sample: its non-finite terms, or ["gradient"]}. All processes must call this.

    Each sample is tested in a batch that holds it twice, so that batch norm can be computed.
    """
    found, device = {}, solver.ranks.device
    parameters = [p for p in solver.net.parameters() if p.requires_grad]
    for images, labels, indices in batches:
        for row, index in enumerate(indices.tolist()):
            twice = labels._replace(packed=labels.packed[[row, row]]).to(device)
            with torch.autocast(device.type, solver.dtype, enabled=solver.dtype is not None):
                terms = solver.net.loss(images[[row, row]].to(device), twice)
            total: Any = sum(terms.values())
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
            wrong = [name for name, term in terms.items() if not term.isfinite()]
            if not all(part.isfinite().all() for part in gradients if part is not None):
                wrong = wrong or ["gradient"]
            if wrong:
                found[index] = wrong
    return found
