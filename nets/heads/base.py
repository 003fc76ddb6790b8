"""What every head is: four verbs, and what a net must know to put it on a backbone."""
import math

import numpy as np
from torch import Tensor, nn

from nets.convert.transplant import Sources
from nets.labels import Labels, Prediction
from nets.necks import Neck


class Head(nn.Module):
    """encode -> forward -> loss, and decode; `decode(head.ideal(head.encode(labels, grid)))` gives the labels back.

    strides: px of the input a cell of its feature map may cover, its own first; keys: the options of args.yaml that it takes;
    terms: {term of the loss: the key of args.yaml that weighs it}; rows: {module: outputs a landmark}, in the order of landmarks.
    A head whose `spread` predicts the logarithm of its errors gives sigma.
    """

    strides: tuple[int, ...] = (32,)
    keys: tuple[str, ...] = ()
    terms: dict[str, str] = {}
    rows: dict[str, int] = {}

    @staticmethod
    def neck(channels: dict[int, int], stride: int) -> nn.Module:
        """What makes of a backbone's {stride: map}, with these channels, the head's feature map; knows its `channels`."""
        return Neck(channels[32], stride)

    @staticmethod
    def plan(meanface: np.ndarray, num_nb: int) -> dict:
        """What the spec of a net with this head holds of the landmarks; plain values. meanface (N, 2) in [0, 1] of the crop."""
        return {"meanface": np.asarray(meanface, np.float64).tolist()}

    @classmethod
    def of(cls, channels: int, spec: dict) -> "Head":
        """The head on a feature map of `channels` from the spec of its net."""
        raise NotImplementedError

    def encode(self, labels: Labels, grid: tuple[int, int]):
        """Targets for a feature map of `grid` (H, W) cells."""
        raise NotImplementedError

    def count(self, labels: Labels) -> dict[str, Tensor]:
        """{term: count}, what divides the sums of `loss`; known before the net has seen a picture."""
        raise NotImplementedError

    def loss(self, maps, targets) -> dict[str, Tensor]:
        """{term: sum} over the batch."""
        raise NotImplementedError

    def decode(self, maps) -> Prediction:
        """Landmarks in [0, 1] of the crop."""
        raise NotImplementedError

    def scores(self, maps) -> Tensor | None:
        """(B, N, ...) score maps, so scaled that the squares of a landmark sum to what `loss` counts; None: the head has none."""
        return None

    def ideal(self, targets):
        """Maps that decode to exactly the landmarks that `targets` were made of."""
        raise NotImplementedError

    def calibrated(self, state: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
        """A net's `state` whose predicted sigma is `factor` times as large; nothing else changes."""
        name = "head.spread.bias"
        return {**state, name: state[name] + math.log(factor)}

    def grafted(self, state: dict[str, Tensor], old: dict, new: dict, sources: Sources, meanface: np.ndarray) -> dict:
        """Tensors for the net of spec `new` and its meanface (N, 2), in [0, 1], from `state`, a head of the net of spec `old`.

        Each landmark starts as its source. Raises ValueError where `state` is not what `old` says.
        """
        made = dict(state)
        for name, tensor in state.items():
            many = next((many for part, many in self.rows.items() if name.startswith(f"{part}.")), 0)
            if many and tensor.ndim:
                if len(tensor) != many * len(old["meanface"]):
                    raise ValueError(f"{name} is not of {len(old['meanface'])} landmarks")
                made[name] = tensor.unflatten(0, (-1, many))[sources.landmark].flatten(0, 1)
        return made
