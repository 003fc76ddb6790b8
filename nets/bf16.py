"""bf16 on a CPU: convolutions whose filter gradients oneDNN gets wrong run in float32 (benchmarks/bf16.py finds their shapes)."""
import torch
from torch import Tensor, nn


def misses_taps(side: int, kernel: int, stride: int) -> bool:
    """Return whether bf16 gradients of filters may be wrong over maps of this side (height or width, in cells).

    Then some taps of the filter see only padding. oneDNN leaves their gradients as the memory was before.
    """
    return side < max(stride, kernel // 2)


class _Careful:
    """Mixed into a kind of nn.Conv2d: float32 over such maps, in spite of bf16 autocast on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if (x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
                and any(map(misses_taps, x.shape[-2:], self.kernel_size, self.stride))):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


def make_careful(net: nn.Module) -> None:
    """Change the class of each convolution of `net` that could get such maps. Tensors and their names stay."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and not isinstance(module, _Careful):
            if any(misses_taps(1, kernel, stride) for kernel, stride in zip(module.kernel_size, module.stride, strict=True)):
                kind = type(module)
                module.__class__ = type(kind.__name__, (_Careful, kind), {})  # timm has kinds of its own
