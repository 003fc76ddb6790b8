"""The optimizer step, over all processes: batches -> losses -> gradients -> update -> average."""

from contextlib import nullcontext
from functools import reduce

import torch
from loguru import logger
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from nets.onednn import patch_convolutions
from nets.trainable import Trainable
from pipnet.errors import one_line
from utils.settings import rooms
from utils.settings.sections import LossSettings, TrainSettings
from utils.train.make_net import auxiliary_outputs
from utils.train.optimizer import Average, freeze, make_optimizer, precision, set_rate
from utils.train.ranks import Ranks
from utils.train.schedule import Schedule
from utils.train.step_values import StepValues


class Phases:
    """The phases of a step as contexts. This class measures nothing; `Profile` (train/profile.py) measures their time."""

    def __call__(self, name: str):
        """Return the context of a phase: data, forward, backward or optimiser."""
        return nullcontext()

    def end_step(self) -> None:
        """Note that a step has ended."""

    def close(self) -> None:
        """Note that the training has ended."""


class Solver:
    """The state of a training: the net, its optimizer, its averaged weights, the number of the step.

    Gradients are summed over the processes once a step. epoch_steps: optimizer steps in an epoch.
    """

    def __init__(
        self,
        net: Trainable,
        train: TrainSettings,
        loss: LossSettings,
        epoch_steps: int,
        ranks: Ranks,
        phases: Phases | None = None,
    ):
        self.net, self.ranks = net, ranks
        self.accumulate, self.clip = train.accumulate, train.clip
        self.fixed_norms = freeze(net, train.freeze, auxiliary_outputs(vars(loss)))
        self.factors = net.weights(vars(loss))
        self.names: list[str] = []  # of the terms, in the order of the net's counts: known from the first step on
        self.weights = torch.empty(0)  # (terms,) their factors
        self.dtype = precision(train.amp, ranks.device)
        self.schedule = Schedule(train, epoch_steps)
        if ranks.device.type == "cpu":
            patch_convolutions(net)
        self.refused = torch.zeros((), device=ranks.device)  # 1 from the first step on that is not finite
        self.optimizer = make_optimizer(net, train.optimizer, train.weight_decay, train.decay_norms, self.refused)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=self.dtype == torch.float16)
        self.phases = phases or Phases()
        self.step = 0
        self.loss = torch.compile(net.loss) if train.compile else net.loss
        self.copies = torch.cuda.Stream() if ranks.device.type == "cuda" else None
        ranks.broadcast([*net.parameters(), *net.buffers()])
        self.take = (
            rooms.gpu.Graph(self._step, self._state, ranks) if self._can_be_captured(train.graph) else self._step
        )
        # created after the weights have been made equal in all processes
        self.average = Average(net, train.ema, train.ema_ramp) if train.ema else None
        net.set_average(self.average.state if self.average else None)

    def begin(self) -> None:
        """Make the net ready for training steps, after a validation too."""
        self.net.train()
        for norm in self.fixed_norms:
            norm.eval()

    def train_step(self, batches: list) -> StepValues:
        """Take one optimizer step on the mean loss over all samples of `batches` (micro-batches) and of all processes.

        Return the losses; they are copied from the device while the next step runs. A step that is not finite changes
        no weight, nor does any later step; `StepValues.read` then raises NonFinite. fp16 differs in two ways. A gradient
        that overflows only lowers the loss scale; it is an error once the scale is 1. A loss that is not finite refuses
        its own step only.
        """
        set_rate(self.optimizer, self.schedule(self.step))
        values = self.take([self._moved(*batch[:2]) for batch in batches])
        if self.average:
            with self.phases("optimiser"):
                self.average.update(self.step)
        self.step += 1
        return StepValues(self.step - 1, [*self.names, "loss"], values, batches)

    def _moved(self, images: Tensor, labels) -> tuple:
        """Return images and labels on the device. On a GPU they are copied while the step before still runs."""
        if not self.copies:
            return images, labels.to(self.ranks.device)
        with torch.cuda.stream(self.copies):
            moved = images.to(self.ranks.device, non_blocking=True), labels.to(self.ranks.device)
        torch.cuda.current_stream().wait_stream(self.copies)
        for leaf in tree_leaves(moved):
            if isinstance(leaf, Tensor):
                leaf.record_stream(torch.cuda.current_stream())
        return moved

    def _step(self, batches: list[tuple]) -> Tensor:
        """Change the weights once. Return (terms + 3,): means of the loss terms, their weighted sum, the gradient norm,
        refused.

        batches: images and labels of each micro-batch, on the device. Nothing here waits for the device.
        """
        counts = self._counts([labels for _, labels in batches])
        means = []
        for images, labels in batches:
            autocast = torch.autocast(self.ranks.device.type, self.dtype, enabled=self.dtype is not None)
            with self.phases("forward"), autocast:
                sums = self.loss(images, labels)
            terms = torch.stack([sums[name] for name in self.names]) / counts
            with self.phases("backward"):
                self.scaler.scale((terms * self.weights).sum()).backward()
            means.append(terms.detach())
        mean = self.ranks.sum(reduce(torch.add, means))
        self.ranks.sum_each([p.grad for p in self.net.parameters() if p.grad is not None])
        total = (mean * self.weights).sum()
        with self.phases("optimiser"):
            norm = self._update(total)
        return torch.cat([mean, torch.stack([total, norm, self.refused])])

    def _state(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the weights, and the other tensors that `_step` changes in place."""
        moments = [tensor for one in self.optimizer.state.values() for tensor in one.values()]
        return list(self.net.parameters()), [*self.net.buffers(), *moments, self.refused]

    def _can_be_captured(self, wanted: bool) -> bool:
        """Return whether a step can be one CUDA graph; log why not on a GPU."""
        if self.ranks.device.type != "cuda":
            return False
        against = {
            "--no-graph": not wanted,
            "the missing folder extras/gpu": not rooms.gpu,
            "a loss scale (--amp fp16)": self.scaler.is_enabled(),
            "--profile": type(self.phases) is not Phases,
        }
        if reasons := [reason for reason, holds in against.items() if holds]:
            logger.info(f"training steps are launched kernel by kernel, because of {' and '.join(reasons)}")
        return not reasons

    def _counts(self, labels: list) -> Tensor:
        """Return the counts (terms,) of the terms over all micro-batches and processes of the step.

        Sums are divided by these counts, so that a landmark has the same weight in any micro-batch and process.
        """
        counted = [self.net.denominators(part) for part in labels]
        counts = reduce(torch.add, [torch.stack(list(part.values())) for part in counted])
        if not self.names:
            self.names = list(counted[0])
            self.weights = torch.tensor([self.factors[name] for name in self.names]).to(self.ranks.device)
        return self.ranks.sum(counts).clamp(min=1e-9)

    def _update(self, total: Tensor) -> Tensor:
        """Change the weights by the gradients of the loss `total`; return the norm of the gradient."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.net.parameters() if p.grad is not None])
        if self.clip:
            nn.utils.clip_grads_with_norm_(self.net.parameters(), self.clip, norm)
        finite = norm.isfinite()
        if self.scaler.is_enabled():  # a gradient that overflows only lowers the loss scale
            finite |= self.scaler.scale(torch.ones_like(norm)) > 1
        self.refused.masked_fill_(~(finite & total.isfinite()), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def averaged(self) -> dict[str, Tensor]:
        """Return the state dict that is tested and saved: the averaged weights, if any.
        It is the same in all processes.
        """
        return self.average.state if self.average else self.net.state_dict()

    def state_dict(self) -> dict:
        """Return everything that a resumed run needs except its settings."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average and self.average.state,
            "step": self.step,
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned. If no average was stored, it starts from the weights.

        ValueError for a state that does not fit the net.
        """
        # the current weight decay; torch would restore the stored one
        groups = self.optimizer.state_dict()["param_groups"]
        moments = state["optimizer"]["state"]
        shapes = [p.shape for group in self.optimizer.param_groups for p in group["params"]]
        fits = all(
            0 <= place < len(shapes) and all(tensor.shape in ((), shapes[place]) for tensor in one.values())
            for place, one in moments.items()
        )
        if not fits or (state["step"] and not moments):
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
            raise ValueError(f"the solver's state does not fit the net ({one_line(error)})") from None
        self.step = state["step"]
