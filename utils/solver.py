"""One optimizer step: schedule, precision, accumulation, gradient clipping, averaged weights, and several processes."""
import atexit
import math
import os
from contextlib import nullcontext
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.errors import UserError


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Ranks(NamedTuple):
    """This process among all."""
    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            dist.barrier()

    def one_by_one(self, action):
        """The result of `action`, run by the node's first process, then by the others: they find what it made.

        A UserError of any process is raised in all.
        """
        result, leads = None, os.environ.get("LOCAL_RANK", "0") == "0"
        for mine in (leads, not leads):
            failed: list[str | None] = [None] * self.count
            error = None
            if mine:
                try:
                    result = action()
                except UserError as caught:
                    error = str(caught)
            if self.count > 1:
                dist.all_gather_object(failed, error)
            else:
                failed = [error]
            if texts := [text for text in failed if text is not None]:
                raise UserError(texts[0])
        return result

    def agree(self, action):
        """The first process's result of `action`, or its UserError, in all processes."""
        found = [None, None]
        if self.first:
            try:
                found[0] = action()
            except UserError as error:
                found[1] = str(error)
        if self.count > 1:
            dist.broadcast_object_list(found, device=self.device)
        if found[1] is not None:
            raise UserError(found[1])
        return found[0]

    def share(self, tensor: Tensor) -> Tensor:
        """The first process's values in all processes, in place."""
        if self.count > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor


def start_ranks() -> Ranks:
    """Joins the processes that torchrun started (NCCL on GPUs, gloo without), or none."""
    count, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    if cuda and here > torch.cuda.device_count():
        gpus = torch.cuda.device_count()
        raise UserError(f"{here} processes, but {gpus} GPUs here; start one process a GPU: bash main.sh {gpus} ...")
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if count > 1:
        # hours, since the first process may prepare a large set while the others wait
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(hours=12))
        atexit.register(dist.destroy_process_group)
    return Ranks(dist.get_rank() if count > 1 else 0, count, device)


def set_threads(threads: int, deterministic: bool) -> None:
    """CPU threads of this process (0: the node's cores shared by its processes), and whether kernels must be deterministic."""
    torch.set_num_threads(threads or max(cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1))
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def worker_count(wanted: int | None, ranks: Ranks) -> int:
    """Loader processes of this rank: what was wanted, else the node's other cores shared by its ranks, at most 8."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return wanted if wanted is not None else min(max(cores() // here - 1, 1), 8)


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
    """A loss term that is NaN or infinite; carries the values and the batch's face indices."""

    def __init__(self, terms: dict[str, float], indices: list[int]):
        super().__init__(", ".join(f"{name} {value:g}" for name, value in terms.items()))
        self.terms, self.indices = terms, indices


class Solver:
    """Everything that changes while training, and the one place where it does. `net` is the plain module, not DDP's wrapper."""

    def __init__(self, net: nn.Module, args, steps: int, ranks: Ranks):
        self.net, self.ranks, self.accumulate, self.clip = net, ranks, args.accumulate, args.clip
        self.weights = {term: getattr(args, key) for term, key in net.head.terms.items()}
        self.dtype = precision(args.amp, ranks.device)
        self.schedule = schedule(args, steps)
        self.optimizer = make_optimizer(net, args.optimizer, args.weight_decay)
        self.average = Average(net, args.ema, args.ema_ramp) if args.ema else None
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=self.dtype == torch.float16)
        self.step = 0
        self.runner: nn.Module = _Loss(net)
        if args.compile:
            self.runner = torch.compile(self.runner)
        if ranks.count > 1:
            ids = [ranks.device.index] if ranks.device.type == "cuda" else None
            unused = net.spec["net"].startswith("timm:")  # some have branches for strides that nobody asks for
            self.runner = nn.parallel.DistributedDataParallel(self.runner, device_ids=ids, find_unused_parameters=unused)

    def train_step(self, batches: list) -> dict[str, float]:
        """One optimizer step on the mean gradient of `batches` (micro-batches). Returns each term and the weighted total.

        Raises NonFinite before anything is changed.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule(self.step)
        shown: dict[str, float] = {}
        for number, batch in enumerate(batches):
            images, labels = batch.images.to(self.ranks.device, non_blocking=True), batch.labels.to(self.ranks.device)
            last = number == len(batches) - 1
            autocast = torch.autocast(self.ranks.device.type, self.dtype, enabled=self.dtype is not None)
            with _no_sync(self.runner, not last), autocast:
                terms = self.runner(images, labels)
            # counts over all processes, so that the loss is the global mean; DDP divides gradients by the number of processes
            counts = self.ranks.sum(torch.stack([count.detach().float() for _, count in terms.values()]))
            means = torch.stack([total for total, _ in terms.values()]) * self.ranks.count / counts.clamp(min=1e-9)
            weights = means.new_tensor([self.weights[name] for name in terms])
            values = (self.ranks.sum(means.detach().clone()) / self.ranks.count).tolist()
            if not all(map(math.isfinite, values)):
                self.optimizer.zero_grad(set_to_none=True)
                raise NonFinite(dict(zip(terms, values, strict=True)), batch.index.tolist())
            with _no_sync(self.runner, not last):
                self.scaler.scale((means * weights).sum() / len(batches)).backward()
            for name, value, weight in zip(terms, values, weights.tolist(), strict=True):
                shown[name] = shown.get(name, 0.0) + value / len(batches)
                shown["loss"] = shown.get("loss", 0.0) + weight * value / len(batches)
        self.scaler.unscale_(self.optimizer)
        if self.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.net, self.step)
        self.step += 1
        return shown

    def tested(self) -> dict[str, Tensor]:
        """The weights that are tested and kept: averaged where they are averaged. For all processes to call together."""
        state = self.average.state if self.average else self.net.state_dict()
        return {name: self.ranks.share(tensor) for name, tensor in state.items()}  # running means differ between CPU processes

    def state_dict(self) -> dict:
        """All that a resumed run needs beside the resolved args."""
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(),
                "average": self.average and self.average.state, "step": self.step}

    def load_state_dict(self, state: dict) -> None:
        """The inverse of `state_dict`; an average that was not kept starts from the weights."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
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

    def forward(self, images: Tensor, labels) -> dict[str, tuple[Tensor, Tensor]]:
        return self.net.loss(images, labels)


def _no_sync(module: nn.Module, wanted: bool):
    """Gradients stay local to this process for all but the last micro-batch."""
    return module.no_sync() if wanted and isinstance(module, nn.parallel.DistributedDataParallel) else nullcontext()
