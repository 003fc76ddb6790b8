"""The optimizer step, over all processes: batches -> losses -> gradients -> update -> average."""
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from nets.onednn import make_careful
from nets.trainable import Trainable
from utils.train.losses import Losses
from utils.train.optimizer import Average, freeze, make_optimizer, precision
from utils.train.ranks import Ranks
from utils.train.schedule import make_schedule


class Phases:
    """Parts of a step, for a profile to measure (train/profile.py); here nothing is measured."""

    def __call__(self, name: str):
        """Return a context round the phase `name`: data, forward, backward or optimiser."""
        return nullcontext()

    def end_step(self) -> None:
        """Note that a step has ended."""


class Solver:
    """The state of a training: the net, its optimizer, its averaged weights, the step. `net` is the plain module, not DDP's.

    train, loss: sections of the settings; steps: optimizer steps per epoch.
    """

    def __init__(self, net: Trainable, train, loss, steps: int, ranks: Ranks, phases: Phases | None = None):
        self.net, self.ranks, self.accumulate, self.clip, self.steps = net, ranks, train.accumulate, train.clip, steps
        self.fixed_norms = freeze(net, train.freeze)
        self.weights = {term: torch.tensor(float(getattr(loss, key))).to(ranks.device) for term, key in net.terms.items()}
        self.dtype, self.schedule = precision(train.amp, ranks.device), make_schedule(train, steps)
        if ranks.device.type == "cpu":
            make_careful(net)
        self.optimizer = make_optimizer(net, train.optimizer, train.weight_decay, train.decay_norms)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=self.dtype == torch.float16)
        self.phases = phases or Phases()
        self.step, self.refused = 0, torch.zeros((), device=ranks.device)  # 1 from the first step that is not finite
        self.runner: nn.Module = _Loss(net)
        if train.compile:
            self.runner = torch.compile(self.runner)
        if ranks.count > 1:
            ids = [ranks.device.index] if ranks.device.type == "cuda" else None
            self.runner = nn.parallel.DistributedDataParallel(self.runner, device_ids=ids,
                                                              find_unused_parameters=net.leaves_unused())
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
        labels = [part.to(device) for _, part, _ in batches]
        names, counts = self._counts(labels)
        weights, means = torch.stack([self.weights[name] for name in names]), torch.zeros_like(counts)
        for number, ((images, *_), part) in enumerate(zip(batches, labels, strict=True)):
            with _no_sync(self.runner, number < len(batches) - 1):
                with self.phases("forward"), torch.autocast(device.type, self.dtype, enabled=self.dtype is not None):
                    sums = self.runner(images.to(device, non_blocking=True), part)
                terms = torch.stack([sums[name] for name in names]) / counts
                with self.phases("backward"):  # DDP divides gradients by the number of processes
                    self.scaler.scale((terms * weights).sum() * self.ranks.count).backward()
            means += terms.detach()
        means = self.ranks.sum(means)
        total = (means * weights).sum()
        with self.phases("optimiser"):
            norm = self._update(total)
            if self.average:
                self.average.update(self.net, self.step)
        self.step += 1
        return Losses(self.step - 1, [*names, "loss"], torch.cat([means, torch.stack([total, norm, self.refused])]), batches)

    def _counts(self, labels: list) -> tuple[list[str], Tensor]:
        """Return (terms, their counts over the whole step), so that a landmark weighs alike in any micro-batch and process."""
        counted = [self.net.count(part) for part in labels]
        counts = torch.stack([torch.stack(list(part.values())) for part in counted]).sum(0)
        return list(counted[0]), self.ranks.sum(counts).clamp(min=1e-9)

    def _update(self, total: Tensor) -> Tensor:
        """Change the weights by the gradients of the loss `total`; return the norm of the gradient."""
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
