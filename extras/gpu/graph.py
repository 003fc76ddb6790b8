"""A training step as one CUDA graph: the host launches the graph once instead of hundreds of kernels one by one."""

import gc
from collections.abc import Callable
from typing import Any

import torch
from loguru import logger
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from pipnet.errors import one_line
from utils.train.ranks import Ranks

EAGER = 3  # number of the call that captures the graph; in those before, kernels are chosen and the optimizer makes its state
# largest relative difference between a step and its graph: in the change of the weights, and in each value
TOLERANCE = 0.05


class Graph:
    """Calls `step` until call number EAGER, which captures a CUDA graph of it; later calls replay that graph.

    step: a function of nested tuples of tensors, which returns a tensor. All calls must launch the same kernels on
    tensors of the same shapes. The result is overwritten by the next call. state(): the weights, and the other tensors
    that a step changes in place. The first replay is compared with `step` from the same state. If they differ, or if
    the capture fails, all processes go on with `step`.
    """

    def __init__(
        self, step: Callable[[Any], Tensor], state: Callable[[], tuple[list[Tensor], list[Tensor]]], ranks: Ranks
    ):
        self.step, self.state, self.ranks, self.calls = step, state, ranks, 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Any) -> Tensor:
        """Return what `step` returns for the batch."""
        if self.graph:
            torch._foreach_copy_(self.inputs, tensors(batch))
            self.graph.replay()
            return self.result
        self.calls += 1
        return self._first(batch) if self.calls == EAGER else self.step(batch)

    @torch.no_grad()
    def _first(self, batch: Any) -> Tensor:
        """Take one step with `step` and with its graph. Keep the graph if both agree. Return the result."""
        weights, others = self.state()
        state = [*weights, *others]
        before, random = [tensor.clone() for tensor in state], torch.cuda.get_rng_state()
        with torch.enable_grad():
            expected = self.step(batch).clone()
        wanted = [tensor.clone() for tensor in state]
        torch._foreach_copy_(state, before)
        torch.cuda.set_rng_state(random)
        error = self._capture(batch)
        # a replay sums over all processes, so that all of them must replay
        if not any(self.ranks.gather(error)) and self.graph:
            self.graph.replay()
            change, wrong = (
                torch.stack(torch._foreach_norm(torch._foreach_sub(weights, other[: len(weights)]))).norm()
                for other in (before, wanted)
            )
            values = (self.result - expected).abs() / expected.abs().clamp(min=1e-3)
            apart = max((wrong / change.clamp(min=1e-12)).item(), values.max().item())
            error = "" if apart < TOLERANCE else f"its graph differs from it by {apart:.2g}"
        if any(self.ranks.gather(error)):
            logger.warning(f"the training step is launched kernel by kernel: {error or 'another process has no graph'}")
            self.graph = None
            torch._foreach_copy_(state, wanted)
            return expected
        return self.result

    def _capture(self, batch: Any) -> str:
        """Capture the step without running it. Return why the capture failed, or an empty text."""
        gc.collect()  # frees the memory of graphs of earlier trainings in this process
        batch = tree_map_only(Tensor, Tensor.clone, batch)
        self.inputs, self.graph = tensors(batch), torch.cuda.CUDAGraph()
        try:
            # thread_local: other threads may use the device meanwhile
            with torch.enable_grad(), torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.result = self.step(batch)
        except RuntimeError as error:
            return one_line(error, 200)
        return ""


def tensors(batch: Any) -> list[Tensor]:
    """Return the tensors in nested tuples and dicts, in order."""
    return [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
