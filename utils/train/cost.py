"""Parameters and multiply-accumulates of a net."""

from typing import NamedTuple

import torch

from nets import Trainable, build_net


class Cost(NamedTuple):
    """Cost of one face, as exported.

    parameters: in millions
    macs: multiply-accumulates, in billions
    latency: ms of CPU time in onnxruntime with one thread; None if not measured
    """

    parameters: float
    macs: float
    latency: float | None = None


def refiner_cost(spec: dict) -> str:
    """Return in words what the refiner adds to the cost of a net.
    The cost is counted without --reinit and --local-parts.
    """
    kept = {key: value for key, value in spec.items() if key not in ("reinit", "local_parts")}
    with torch.device("meta"):
        net = build_net(kept).eval()
    whole = cost_of(net)
    net.refiner = None
    plain = cost_of(net)
    return (
        f"refiner: {whole.parameters - plain.parameters:.3f} M parameters and {1e3 * (whole.macs - plain.macs):.1f} M MACs "
        f"beside {plain.parameters:.2f} M and {1e3 * plain.macs:.0f} M"
    )


def counted_cost(spec: dict) -> Cost:
    """Return the cost of the net that `spec` describes, without latency. It is computed from shapes alone."""
    with torch.device("meta"):
        return cost_of(build_net(spec).eval())


def cost_of(net: Trainable) -> Cost:
    """Return the cost of a net on the device `meta`, without latency."""
    from torch.utils.flop_counter import FlopCounterMode

    net, side = net.reparameterized(), net.spec["input_size"]
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net.predict(torch.zeros(1, side, side, 3, dtype=torch.uint8))
    return Cost(sum(p.numel() for p in net.parameters()) / 1e6, counter.get_total_flops() / 2e9)
