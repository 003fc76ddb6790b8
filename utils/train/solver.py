"""The optimizer step: schedule, precision, accumulation, gradient clipping and averaged weights, over all processes."""
import math
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nets.onednn import make_careful
from nets.trainable import Trainable, batch_norms
from utils.train.ranks import Ranks


class Schedule(NamedTuple):
    """The learning rate as a pure function of the step, so that resuming needs no state. warmup, total, milestones: steps.

    factors: of the peak, before the first milestone and after each.
    """
    kind: str
    peak: float
    final: float
    warmup_start: float
    warmup: int
    total: int
    milestones: tuple[int, ...]
    factors: tuple[float, ...] = (1.0,)

    def __call__(self, step: int) -> float:
        """Return the learning rate of step 0, 1, ..."""
        if step < self.warmup:
            return self.warmup_start + (self.peak - self.warmup_start) * step / self.warmup
        if self.kind == "steps":
            return self.peak * self.factors[sum(step >= milestone for milestone in self.milestones)]
        share = (step - self.warmup) / max(self.total - self.warmup, 1)
        return self.final + 0.5 * (self.peak - self.final) * (1 + math.cos(math.pi * min(share, 1)))


def make_schedule(train, steps: int) -> Schedule:
    """Return the schedule of the settings' section `train`, with `steps` steps per epoch. ValueError for unequal lists."""
    factors = train.factors or [0.1 ** place for place in range(1, len(train.milestones) + 1)]
    if len(factors) != len(train.milestones):
        raise ValueError(f"factors has {len(factors)} numbers for {len(train.milestones)} milestones; give as many, or none")
    return Schedule(train.schedule, train.learning_rate, train.final_learning_rate, train.warmup_learning_rate,
                    round(train.warmup * steps), train.epochs * steps, tuple(round(epoch * steps) for epoch in train.milestones),
                    (1.0, *factors))


def make_optimizer(net: nn.Module, kind: str, weight_decay: float, norms: bool) -> torch.optim.Optimizer:
    """Return Adam or AdamW. norms: biases, norms and PReLU slopes are decayed too."""
    decayed = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in net.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": weight_decay * norms}]
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](groups, lr=0.0, fused=True)


class Average:
    """Exponential moving average of weights and buffers. The decay ramps up, so that the average forgets the first weights."""

    def __init__(self, net: nn.Module, decay: float, ramp: int):
        self.decay, self.ramp = decay, ramp
        self.state = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Update the average after step 0, 1, ..."""
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
    """Return the autocast type, or None. Raise ValueError for fp16 without CUDA."""
    if amp == "fp16" and device.type != "cuda":
        raise ValueError("amp fp16 needs a CUDA GPU; use bf16 or off")
    if amp == "auto":
        return torch.bfloat16 if (torch.cuda.is_bf16_supported(False) if device.type == "cuda" else _cpu_bf16()) else None
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[amp]


def _cpu_bf16() -> bool:
    """Return whether bf16 is faster than fp32 on this CPU: with AMX, or with AVX-512 BF16 of AMD. That of Intel is slower."""
    known = getattr(torch.cpu, "get_capabilities", dict)()  # recent versions only
    return bool(known.get("amx_bf16") or (known.get("avx512_bf16") and known.get("sse4a")))  # SSE4a: AMD's alone


class NonFinite(ArithmeticError):
    """A loss term or the gradient is NaN or infinite. Carries the step, the values and this process's micro-batches."""

    def __init__(self, step: int, terms: dict[str, float], batches: list):
        super().__init__(", ".join(f"{name} {value:g}" for name, value in terms.items()))
        self.step, self.terms, self.batches = step, terms, batches


class Losses:
    """The losses of one optimizer step, copied from the device while the next step runs, so that reading them does not stall.

    values: of `names`, then the norm of the gradient, and whether the step was refused.
    """

    def __init__(self, step: int, names: list[str], values: Tensor, batches: list):
        self.step, self.names, self.batches = step, names, batches
        self.values = values.to("cpu", non_blocking=True)  # from a GPU: to pinned memory
        self.arrived = torch.cuda.current_stream(values.device).record_event() if values.is_cuda else None

    def read(self) -> dict[str, float]:
        """Return each term and the weighted total. Raise NonFinite, in all processes alike."""
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


class Phases:
    """Parts of a step, for a profile to measure (train/profile.py); here nothing is measured."""

    def __call__(self, name: str):
        """Return a context round the phase `name`: data, forward, backward or optimiser."""
        return nullcontext()

    def end_step(self) -> None:
        """Note that a step has ended."""


def freeze(net: Trainable, part: str | None) -> list[nn.Module]:
    """Stop the training of a part of the net, the key `freeze`. Return the batch norms whose statistics have to stay."""
    if part is None:
        return []
    if part == "backbone":
        net.backbone.requires_grad_(False)
    return batch_norms(net.backbone if part == "backbone" else net)


class Solver:
    """The net, optimizer and averages of a training. `net` is the plain module, not DDP's wrapper.

    train, loss: sections of the settings; steps: optimizer steps per epoch.
    """

    def __init__(self, net: Trainable, train, loss, steps: int, ranks: Ranks):
        self.fixed_norms = freeze(net, train.freeze)
        self.net, self.ranks, self.accumulate, self.clip, self.steps = net, ranks, train.accumulate, train.clip, steps
        self.weights = {term: torch.tensor(float(getattr(loss, key))).to(ranks.device) for term, key in net.terms.items()}
        self.dtype = precision(train.amp, ranks.device)
        if ranks.device.type == "cpu":
            make_careful(net)
        self.schedule = make_schedule(train, steps)
        self.optimizer = make_optimizer(net, train.optimizer, train.weight_decay, train.decay_norms)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=self.dtype == torch.float16)
        self.phases = Phases()
        self.step, self.refused = 0, torch.zeros((), device=ranks.device)  # 1 from the first step that is not finite
        self.runner: nn.Module = _Loss(net)
        if train.compile:
            self.runner = torch.compile(self.runner)
        if ranks.count > 1:
            ids = [ranks.device.index] if ranks.device.type == "cuda" else None
            self.runner = nn.parallel.DistributedDataParallel(self.runner, device_ids=ids,
                                                              find_unused_parameters=net.leaves_unused)
        # created after DDP has made the weights equal in all processes
        self.average = Average(net, train.ema, train.ema_ramp) if train.ema else None
        net.follow(self.average and self.average.state)

    def begin(self) -> None:
        """Make the net ready for training steps, after a validation too."""
        self.net.train()
        for norm in self.fixed_norms:
            norm.eval()

    def train_step(self, batches: list) -> Losses:
        """Take one optimizer step on the mean loss over all samples of `batches` (micro-batches) and of all processes.

        If the loss or the gradient is not finite, reading the returned Losses raises NonFinite. The weights are then those before
        this step: the device refuses it and all later ones. In fp16, a gradient that overflows only lowers the loss scale; it is
        an error once the scale is 1. A loss that is not finite refuses this step alone there.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule(self.step)
        device = self.ranks.device
        labels = [batch.labels.to(device) for batch in batches]
        counted = [self.net.count(part) for part in labels]
        # counts of the whole step, so that each landmark has the same weight in any micro-batch and process
        counts = self.ranks.sum(torch.stack([torch.stack(list(part.values())) for part in counted]).sum(0)).clamp(min=1e-9)
        names = list(counted[0])
        weights = torch.stack([self.weights[name] for name in names])
        means = torch.zeros_like(counts)
        for number, (batch, part) in enumerate(zip(batches, labels, strict=True)):
            images = batch.images.to(device, non_blocking=True)
            with _no_sync(self.runner, number < len(batches) - 1):
                with self.phases("forward"), torch.autocast(device.type, self.dtype, enabled=self.dtype is not None):
                    sums = self.runner(images, part)
                terms = torch.stack([sums[name] for name in names]) / counts
                with self.phases("backward"):  # DDP divides gradients by the number of processes
                    self.scaler.scale((terms * weights).sum() * self.ranks.count).backward()
            means += terms.detach()
        means = self.ranks.sum(means)
        total = (means * weights).sum()
        with self.phases("optimiser"):
            norm = self._update(total)
        self.step += 1
        values = torch.cat([means, torch.stack([total, norm, self.refused])])
        return Losses(self.step - 1, [*names, "loss"], values, batches)

    def _update(self, total: Tensor) -> Tensor:
        """Change the weights and their average by the gradients of the loss `total`; return the norm of the gradient."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.net.parameters() if p.grad is not None])
        if self.clip:
            nn.utils.clip_grads_with_norm_(self.net.parameters(), self.clip, norm)
        may_overflow = self.scaler.scale(torch.ones_like(norm)) > 1  # the loss scale of fp16
        self.refused = torch.where(total.isfinite() & (norm.isfinite() | may_overflow), self.refused, 1.0)
        self.optimizer.found_inf = self.refused  # the fused optimizers then leave the weights; GradScaler sets its own
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.net, self.step)
        return norm

    def averaged(self) -> dict[str, Tensor]:
        """Return the weights that are tested and kept: the averaged ones, if any. They are the same in all processes."""
        return self.average.state if self.average else self.net.state_dict()

    def state_dict(self) -> dict:
        """Return all that a resumed run needs beside its settings."""
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(),
                "average": self.average and self.average.state, "step": self.step}

    def load_state_dict(self, state: dict) -> None:
        """Restore `state_dict`. An average that was not stored starts from the weights. ValueError where it does not fit."""
        groups = self.optimizer.state_dict()["param_groups"]  # the current weight decay; torch would restore the stored one
        moments, shapes = state["optimizer"]["state"], [p.shape for group in self.optimizer.param_groups for p in group["params"]]
        fits = all(0 <= place < len(shapes) and all(tensor.shape in ((), shapes[place]) for tensor in one.values())
                   for place, one in moments.items())
        if not fits or state["step"] and not moments:
            raise ValueError("the optimizer's state does not fit the net's parameters")
        if self.average and state["average"] and state["average"].keys() != self.average.state.keys():
            raise ValueError("the averaged weights are not those of the net")
        try:
            self.net.load_state_dict(state["net"])
            self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
            if state["scaler"]:  # of a run in fp16
                self.scaler.load_state_dict(state["scaler"])
            if self.average:
                for name, tensor in (state["average"] or state["net"]).items():
                    self.average.state[name].copy_(tensor)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"the solver's state does not fit the net ({' '.join(str(error).split())[:160]})") from None
        self.step = state["step"]


class _Loss(nn.Module):
    """The net's loss as a forward pass, for DDP and torch.compile."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor, labels) -> dict[str, Tensor]:
        return self.net.loss(images, labels)


def _no_sync(module: nn.Module, wanted: bool):
    """Return a context that keeps gradients local to this process if `wanted`: for all but the last micro-batch."""
    return module.no_sync() if wanted and isinstance(module, nn.parallel.DistributedDataParallel) else nullcontext()
