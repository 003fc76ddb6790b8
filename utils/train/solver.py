"""One optimizer step: schedule, precision, accumulation, gradient clipping, averaged weights, over all processes."""
import math
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nets.trainable import Trainable
from utils.train.ranks import Ranks


class Schedule(NamedTuple):
    """The learning rate as a pure function of the step, so that a resumed run needs no state."""
    kind: str
    peak: float
    final: float
    warmup_start: float
    warmup: int  # steps
    total: int  # steps
    milestones: tuple[int, ...]  # steps

    def __call__(self, step: int) -> float:
        """Learning rate of step 0, 1, ..."""
        if step < self.warmup:
            return self.warmup_start + (self.peak - self.warmup_start) * step / self.warmup
        if self.kind == "steps":
            return self.peak * 0.1 ** sum(step >= milestone for milestone in self.milestones)
        share = (step - self.warmup) / max(self.total - self.warmup, 1)
        return self.final + 0.5 * (self.peak - self.final) * (1 + math.cos(math.pi * min(share, 1)))


def schedule(args, steps: int) -> Schedule:
    """From the resolved args; `steps` an epoch."""
    return Schedule(args.schedule, args.learning_rate, args.final_learning_rate, args.warmup_learning_rate,
                    round(args.warmup * steps), args.epochs * steps, tuple(round(epoch * steps) for epoch in args.milestones))


def make_optimizer(net: nn.Module, kind: str, weight_decay: float) -> torch.optim.Optimizer:
    """adam or adamw; biases, norms and PReLU slopes are not decayed."""
    decayed = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in net.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](groups, lr=0.0, fused=True)


class Average:
    """Exponential moving average of weights and buffers; the decay ramps up so that early weights do not linger."""

    def __init__(self, net: nn.Module, decay: float, ramp: int):
        self.decay, self.ramp = decay, ramp
        self.state = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """After step 0, 1, ..."""
        decay = self.decay * (1 - math.exp(-(step + 1) / self.ramp))
        floats, values = [], []
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                floats.append(self.state[name])
                values.append(tensor.detach())
            else:
                self.state[name].copy_(tensor)
        torch._foreach_lerp_(floats, values, 1 - decay)


def precision(amp: str, device: torch.device) -> torch.dtype | None:
    """The autocast type, or None. Raises ValueError for fp16 without CUDA."""
    if amp == "fp16" and device.type != "cuda":
        raise ValueError("amp fp16 needs a CUDA GPU; use bf16 or off")
    if amp == "auto":
        return torch.bfloat16 if (torch.cuda.is_bf16_supported(False) if device.type == "cuda" else _cpu_bf16()) else None
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[amp]


def _cpu_bf16() -> bool:
    """Whether this CPU multiplies bf16 itself; elsewhere it is slower than fp32."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # recent versions only
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class NonFinite(ArithmeticError):
    """A loss term that is NaN or infinite; carries the step, the values and this process's face indices."""

    def __init__(self, step: int, terms: dict[str, float], indices: list[int]):
        super().__init__(", ".join(f"{name} {value:g}" for name, value in terms.items()))
        self.step, self.terms, self.indices = step, terms, indices


class Losses:
    """The losses of one optimizer step on their way from the device: read while the next step runs, they stall nothing."""

    def __init__(self, step: int, names: list[str], values: Tensor, indices: list[Tensor]):
        self.step, self.names, self.indices = step, names, indices
        self.values = values.to("cpu", non_blocking=True)  # from a GPU: to pinned memory
        self.arrived = torch.cuda.current_stream(values.device).record_event() if values.is_cuda else None

    def read(self) -> dict[str, float]:
        """Each term and the weighted total. Raises NonFinite, in all processes alike."""
        if self.arrived:
            self.arrived.synchronize()
        terms = dict(zip(self.names, self.values.tolist(), strict=True))
        if not all(map(math.isfinite, terms.values())):
            raise NonFinite(self.step, terms, torch.cat(self.indices).tolist())
        return terms


def one_behind(items: Iterator) -> Iterator:
    """The items, each once the next one has been made; the last at the end."""
    behind = list(islice(items, 1))
    for item in items:
        yield behind.pop()
        behind.append(item)
    yield from behind


class Solver:
    """Everything that changes while training, and the one place where it does. `net` is the plain module, not DDP's wrapper."""

    def __init__(self, net: Trainable, args, steps: int, ranks: Ranks):
        self.net, self.ranks, self.accumulate, self.clip = net, ranks, args.accumulate, args.clip
        self.weights = {term: torch.tensor(float(getattr(args, key))).to(ranks.device) for term, key in net.terms.items()}
        self.dtype = precision(args.amp, ranks.device)
        self.schedule = schedule(args, steps)
        self.optimizer = make_optimizer(net, args.optimizer, args.weight_decay)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=self.dtype == torch.float16)
        self.step = 0
        self.runner: nn.Module = _Loss(net)
        if args.compile:
            self.runner = torch.compile(self.runner)
        if ranks.count > 1:
            ids = [ranks.device.index] if ranks.device.type == "cuda" else None
            self.runner = nn.parallel.DistributedDataParallel(self.runner, device_ids=ids,
                                                              find_unused_parameters=net.may_leave_unused)
        self.average = Average(net, args.ema, args.ema_ramp) if args.ema else None  # of what DDP has made alike in all processes

    def train_step(self, batches: list) -> Losses:
        """One optimizer step on the mean loss over all samples of `batches` (micro-batches) and of all processes.

        Where the loss is not finite, reading it says so, and the weights are lost.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule(self.step)
        device = self.ranks.device
        labels = [batch.labels.to(device) for batch in batches]
        counted = [self.net.count(part) for part in labels]
        # of the whole step, so that each landmark weighs the same wherever it is
        counts = self.ranks.sum(torch.stack([torch.stack(list(part.values())) for part in counted]).sum(0)).clamp(min=1e-9)
        names = list(counted[0])
        weights = torch.stack([self.weights[name] for name in names])
        means = torch.zeros_like(counts)
        for number, (batch, part) in enumerate(zip(batches, labels, strict=True)):
            images = batch.images.to(device, non_blocking=True)
            with _no_sync(self.runner, number < len(batches) - 1):
                with torch.autocast(device.type, self.dtype, enabled=self.dtype is not None):
                    sums = self.runner(images, part)
                terms = torch.stack([sums[name] for name in names]) / counts
                # DDP divides gradients by the number of processes
                self.scaler.scale((terms * weights).sum() * self.ranks.count).backward()
            means += terms.detach()
        means = self.ranks.sum(means)
        losses = Losses(self.step, [*names, "loss"], torch.cat([means, (means * weights).sum()[None]]),
                        [batch.index for batch in batches])
        self.scaler.unscale_(self.optimizer)
        if self.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.net, self.step)
        self.step += 1
        return losses

    def tested(self) -> dict[str, Tensor]:
        """The weights that are tested and kept: averaged where they are averaged. They are the same in all processes."""
        return self.average.state if self.average else self.net.state_dict()

    def state_dict(self) -> dict:
        """All that a resumed run needs beside the resolved args."""
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(),
                "average": self.average and self.average.state, "step": self.step}

    def load_state_dict(self, state: dict) -> None:
        """The inverse of `state_dict`; an average that was not kept starts from the weights."""
        self.net.load_state_dict(state["net"])
        groups = self.optimizer.state_dict()["param_groups"]  # with the decay of now; torch would bring back that of then
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        if state["scaler"]:  # of a run in fp16
            self.scaler.load_state_dict(state["scaler"])
        if self.average:
            for name, tensor in (state["average"] or state["net"]).items():
                self.average.state[name].copy_(tensor)
        self.step = state["step"]


class _Loss(nn.Module):
    """The net's loss as a forward, so that DDP and compile see one module."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor, labels) -> dict[str, Tensor]:
        return self.net.loss(images, labels)


def _no_sync(module: nn.Module, wanted: bool):
    """Gradients stay local to this process for all but the last micro-batch."""
    return module.no_sync() if wanted and isinstance(module, nn.parallel.DistributedDataParallel) else nullcontext()
