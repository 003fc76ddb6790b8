"""Shapes of convolutions whose gradients are wrong in bf16 on this CPU: `python benchmarks/bf16.py [minutes]`.

Random convolutions run in bf16 and, on the same numbers, in float32. Free memory is filled with NaN before, so that a gradient
which is not written shows. `nets/onednn.py` names the shapes to avoid; no other one may be wrong.
"""
import sys
import time
from collections import Counter
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from record import save
from torch import Tensor

from nets.onednn import misses_taps

SEED, MINUTES, BOUND = 0, 5.0, 0.05  # BOUND: error relative to the largest value; correct ones are below 0.01
NAMES = ("output", "gradient of the input", "gradient of the filter")


class Shape(NamedTuple):
    """A convolution and its input."""

    batch: int
    channels: int
    outputs: int
    groups: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: int
    channels_last: bool

    @property
    def avoided(self) -> bool:
        """Whether `nets/onednn.py` runs it in float32."""
        return any(map(misses_taps, self.size, self.kernel, self.stride))


def drawn(rng: np.random.Generator) -> Shape | None:
    """Return a random shape, None where the filter is larger than the padded map."""
    def pair(values: tuple[int, ...]) -> tuple[int, int]:
        one, other = rng.choice(values, 2).tolist()
        return (one, one) if rng.random() < 0.6 else (one, other)

    channels, dilation = int(rng.choice((3, 8, 10, 24, 64, 96, 144, 256))), int(rng.choice((1, 1, 1, 2)))
    depthwise, kernel, size = rng.random() < 0.5, pair((1, 3, 5, 7)), pair((1, 2, 3, 4, 5, 6, 8, 13))
    padding = tuple(dilation * (side // 2) for side in kernel) if rng.random() < 0.8 else pair((0, 1, 2))
    if any(cells + 2 * edge <= dilation * (side - 1) for cells, edge, side in zip(size, padding, kernel, strict=True)):
        return None
    outputs = channels if depthwise else int(rng.choice((8, 24, 64, 130, 256)))
    return Shape(int(rng.choice((1, 2, 8, 32))), channels, outputs, channels if depthwise else 1, size, kernel,
                 pair((1, 2, 3, 4)), padding, dilation, bool(rng.random() < 0.6))


def fill_free_memory(count: int) -> None:
    """Leave NaN in blocks of the sizes that tensors of `count` values take next."""
    blocks = [torch.full((count,), torch.nan, dtype=kind) for kind in (torch.float32, torch.bfloat16) for _ in range(8)]
    del blocks


def run(shape: Shape, x: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    """Return output and both gradients, float32; `gradient` is that of the output."""
    x, weight = (part.detach().clone(memory_format=torch.preserve_format).requires_grad_() for part in (x, weight))
    out = F.conv2d(x, weight, None, shape.stride, shape.padding, shape.dilation, shape.groups)
    fill_free_memory(weight.numel())
    out.backward(gradient.to(out.dtype))
    return out.detach().float(), x.grad.float(), weight.grad.float()


def wrong(shape: Shape) -> list[str]:
    """Return which of NAMES are wrong in bf16."""
    x = torch.randn(shape.batch, shape.channels, *shape.size).bfloat16()
    weight = 0.1 * torch.randn(shape.outputs, shape.channels // shape.groups, *shape.kernel).bfloat16()
    if shape.channels_last:
        x, weight = (part.to(memory_format=torch.channels_last) for part in (x, weight))
    out = F.conv2d(x.float(), weight.float(), None, shape.stride, shape.padding, shape.dilation, shape.groups)
    gradient = torch.randn_like(out).bfloat16()
    true, found = run(shape, x.float(), weight.float(), gradient), run(shape, x, weight, gradient)
    worst = [(a - b).abs().max() / b.abs().max().clamp(min=1e-6) for a, b in zip(found, true, strict=True)]
    return [name for name, error in zip(NAMES, worst, strict=True) if not error <= BOUND]  # NaN too


def search(minutes: float) -> dict:
    """Return counts of shapes by what is wrong, for those that nets/onednn.py avoids and for the others."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    rng, end, counts, examples = np.random.default_rng(SEED), time.monotonic() + 60 * minutes, Counter(), {}
    while time.monotonic() < end:
        if shape := drawn(rng):
            key = "avoided" if shape.avoided else "others", ", ".join(wrong(shape)) or "right"
            counts[key] += 1
            examples.setdefault(key, shape._asdict())
    table: dict[str, dict] = {"avoided": {}, "others": {}}
    for (kind, what), count in sorted(counts.items()):
        table[kind][what] = count
    return {"shapes": sum(counts.values()), **table,
            "examples": {f"{kind}: {what}": shape for (kind, what), shape in examples.items() if what != "right"}}


if __name__ == "__main__":
    minutes = sys.argv[1:2]
    save("bf16", " ".join(["python benchmarks/bf16.py", *minutes]), SEED, search(float(minutes[0]) if minutes else MINUTES))
