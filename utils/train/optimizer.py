"""How weights are changed: the optimizer, frozen parts, averaged weights, and the precision of a step."""

import math
import re
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from nets.registry import MODULES
from nets.trainable import Trainable, batch_norms


def make_optimizer(
    net: nn.Module, kind: str, weight_decay: float, norms: bool, refused: Tensor | None = None
) -> torch.optim.Optimizer:
    """Return Adam or AdamW. kind: `adam` or `adamw`. norms: whether biases, norms and PReLU slopes are decayed too.
    refused (): a step leaves the weights as they are while this is 1.

    On a GPU the learning rate and the step counter are tensors on the device, so that a CUDA graph can hold a step.
    """
    device = next(net.parameters()).device
    on_gpu = device.type == "cuda"
    decayed = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in net.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": weight_decay * norms},
    ]
    optimizer: Any = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](
        groups, lr=torch.zeros((), device=device) if on_gpu else 0.0, fused=True, capturable=on_gpu
    )
    optimizer.found_inf = refused  # what fused optimizers read; a GradScaler puts its own in its place
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class Average:
    """The exponential moving average of weights and buffers, as the state dict `state`.

    The decay grows from 0, so that the average forgets the first weights. decay: its final value; ramp: steps after
    which it has reached 63 % of this value.
    """

    def __init__(self, net: nn.Module, decay: float, ramp: int):
        self.decay, self.ramp = decay, ramp
        current = net.state_dict()
        self.state = {name: tensor.clone() for name, tensor in current.items()}
        floats = [name for name, tensor in current.items() if tensor.is_floating_point()]
        counters = [name for name in current if name not in floats]
        self.floats = [self.state[name] for name in floats], [current[name] for name in floats]
        self.counters = [self.state[name] for name in counters], [current[name] for name in counters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after step number `step`, counted from 0."""
        decay = self.decay * (1 - math.exp(-(step + 1) / self.ramp))
        torch._foreach_lerp_(*self.floats, 1 - decay)
        if self.counters[0]:
            torch._foreach_copy_(*self.counters)


def precision(amp: str, device: torch.device) -> torch.dtype | None:
    """Return the autocast type, or None. Raise ValueError for fp16 without CUDA."""
    if amp == "fp16" and device.type != "cuda":
        raise ValueError("amp fp16 needs a CUDA GPU; use bf16 or off")
    if amp == "auto":
        is_faster = torch.cuda.is_bf16_supported(False) if device.type == "cuda" else _cpu_bf16()
        amp = "bf16" if is_faster else "off"
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[amp]


def _cpu_bf16() -> bool:
    """Return whether bf16 is faster than fp32 on this CPU: with AMX, or with AMD's AVX-512 BF16. Intel's is slower."""
    known = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch lack it
    # only AMD's CPUs have SSE4a
    return bool(known.get("amx_bf16") or (known.get("avx512_bf16") and known.get("sse4a")))


def freeze(net: Trainable, part: str | None, trained: Collection[str]) -> list[nn.Module]:
    """Freeze what `part`, the value of the key `freeze`, names.
    Return the batch norms whose statistics must not change.

    trained: outputs beside the landmarks whose loss has a weight; only these, and points of another layout, are trained with
    `landmarks` frozen.
    """
    if part is None:
        return []
    if part == "backbone":
        net.backbone.requires_grad_(False)
    if part == "landmarks":
        parts = ("points.", *(f"{MODULES[output]}." for output in trained))
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(re.sub(r"^(net\.)+", "", name).startswith(parts))
    return batch_norms(net.backbone if part == "backbone" else net)
