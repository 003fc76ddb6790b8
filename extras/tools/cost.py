"""Parameters and multiply-accumulates of a net."""

from typing import NamedTuple

import torch

from utils.train.make_net import build_net


class Cost(NamedTuple):
    """Cost of one face, as exported.

    parameters: in millions
    macs: multiply-accumulates, in billions
    latency: ms of CPU time in onnxruntime with one thread; None if not measured
    """

    parameters: float
    macs: float
    latency: float | None = None


def counted_cost(spec: dict) -> Cost:
    """Return the cost of the net that `spec` describes, without latency. It is computed from shapes alone."""
    from torch.utils.flop_counter import FlopCounterMode

    side = spec["input_size"]
    with torch.device("meta"):
        net = build_net(spec).eval().reparameterized()
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            net.predict(torch.zeros(1, side, side, 3, dtype=torch.uint8))
    return Cost(sum(p.numel() for p in net.parameters()) / 1e6, counter.get_total_flops() / 2e9)
