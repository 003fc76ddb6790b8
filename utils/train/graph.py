"""A training step as one CUDA graph: the host launches it as a whole, in place of hundreds of kernels one by one."""
import gc
from collections.abc import Callable
from typing import Any

import torch
from loguru import logger
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from utils.train.ranks import Ranks

EAGER = 3       # steps before the capture, in which kernels are chosen and the optimizer makes its state
TOLERANCE = 0.05  # relative difference of a step and its graph: in the change of the weights, and in each value


class Graph:
    """`step`, replayed as a CUDA graph from its call number EAGER on.

    step: a function of nested tuples of tensors that launches the same work at each call, whose tensors keep their shapes. It
    returns a tensor, which the next call overwrites. state(): the weights, and what else a step changes in place. The first
    replay is compared with `step` from the same state; if they differ, or there is no graph, all processes go on with `step`.
    """

    def __init__(self, step: Callable[[Any], Tensor], state: Callable[[], tuple[list[Tensor], list[Tensor]]], ranks: Ranks):
        self.step, self.state, self.ranks, self.calls = step, state, ranks, 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Any) -> Tensor:
        """Take a step."""
        if self.graph:
            torch._foreach_copy_(self.inputs, tensors(batch))
            self.graph.replay()
            return self.result
        self.calls += 1
        return self._first(batch) if self.calls == EAGER else self.step(batch)

    @torch.no_grad()
    def _first(self, batch: Any) -> Tensor:
        """Take a step both ways. Keep the graph if they agree."""
        weights, others = self.state()
        state = [*weights, *others]
        before, random = [tensor.clone() for tensor in state], torch.cuda.get_rng_state()
        with torch.enable_grad():
            expected = self.step(batch).clone()
        wanted = [tensor.clone() for tensor in state]
        torch._foreach_copy_(state, before)
        torch.cuda.set_rng_state(random)
        error = self._capture(batch)
        if not any(self.ranks.gather(error)):  # a replay meets those of the other processes in its sums
            self.graph.replay()
            change, wrong = (torch.stack(torch._foreach_norm(torch._foreach_sub(weights, other[:len(weights)]))).norm()
                             for other in (before, wanted))
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
        """Capture the step, which does not run it; return why that failed, or an empty text."""
        gc.collect()  # graphs of earlier trainings in this process keep their memory until then
        batch = tree_map_only(Tensor, Tensor.clone, batch)
        self.inputs, self.graph = tensors(batch), torch.cuda.CUDAGraph()
        try:
            # other threads go on with their own work on the device
            with torch.enable_grad(), torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.result = self.step(batch)
        except RuntimeError as error:
            return " ".join(str(error).split())[:200]
        return ""


def tensors(batch: Any) -> list[Tensor]:
    """Return the tensors in nested tuples and dicts, in order."""
    return [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
