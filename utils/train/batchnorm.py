"""Batch norm over the samples of all processes, for the CPU. torch's SyncBatchNorm needs GPUs."""

import torch
import torch.distributed as dist
from torch import Tensor, nn


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d with training statistics over the samples of all processes, which may have different numbers of
    samples.

    Parameters, buffers and their names are those of nn.BatchNorm2d. Running statistics are equal in all processes.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Normalise (B, C, H, W), keeping type and memory format. Raise ValueError for a single value per channel."""
        return self._normalise(features) if self.training else super().forward(features)

    @torch.compiler.disable  # torch.compile cannot trace a collective inside an autograd function
    def _normalise(self, features: Tensor) -> Tensor:
        normalised, mean, var, count = _Normalise.apply(features, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(var * (count / (count - 1)), share)
        return normalised


class GlobalBatchNormAct2d(GlobalBatchNorm2d):
    """The same for timm's BatchNormAct2d, which also drops and activates."""

    act: nn.Module
    drop: nn.Module

    def forward(self, features: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(features)))


class _Normalise(torch.autograd.Function):
    """Batch norm (Ioffe and Szegedy, 2015, algorithm 1) with means over all processes, on torch's own kernels.

    torch's backward kernel uses the means of the gradient over this process's samples. `backward` adds the difference
    to the global means, which is an affine function of the features.
    """

    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float):
        channels = features.shape[1]
        # float32 running statistics, which stay unused, so that bfloat16 gives float32 means
        unused = torch.zeros(channels), torch.ones(channels)
        mean, var = (part.double() for part in torch.batch_norm_update_stats(features, *unused, 0.0))
        own = features.numel() // channels
        # in double, since squares - mean^2 cancels in float32
        sums = torch.cat([own * mean, own * (var + mean.square()), mean.new_tensor([own])])
        dist.all_reduce(sums)
        count = int(sums[-1])
        if count < 2:
            raise ValueError(
                f"batch norm expects more than 1 value per channel when training, got {tuple(features.shape)}"
            )
        mean, squares = (sums[:-1] / count).split(channels)
        var = (squares - mean.square()).clamp(min=0)
        mean, var, inverse = mean.float(), var.float(), (var + eps).rsqrt().float()
        ctx.save_for_backward(features, weight, mean, inverse)
        ctx.count, ctx.eps = count, eps
        ctx.mark_non_differentiable(mean, var)
        return torch.batch_norm(features, weight, bias, mean, var, False, 0.0, eps, False), mean, var, count

    @staticmethod
    def backward(ctx, gradient: Tensor, *_):
        features, weight, mean, inverse = ctx.saved_tensors
        channels, own = features.shape[1], features.numel() // features.shape[1]
        last = features.is_contiguous(memory_format=torch.channels_last)
        gradient = gradient.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        result, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, features, weight, None, None, mean, inverse, True, ctx.eps, [True, True, True]
        )
        # sums of the gradient, and of gradient times normalised features
        sums = torch.cat([by_bias, by_weight]).float()
        shared = sums.clone()
        dist.all_reduce(shared)
        plain, slope = (sums / own - shared / ctx.count).split(channels)
        scale = inverse if weight is None else inverse * weight
        slope = scale * slope * inverse
        shift = scale * plain - slope * mean
        none, one = torch.zeros_like(mean), torch.ones_like(mean)
        result += torch.batch_norm(features, slope, shift, none, one, False, 0.0, 0.0, False)
        return result, None if weight is None else by_weight, None if weight is None else by_bias, None


def share_batch_norm(net: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm of `net` by one over all processes, keep tensors and names, and return the net.

    ValueError for an unknown kind of batch norm.
    """
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm  # torch's own converter loses the activation inside timm's norms

        return convert_sync_batchnorm(net)
    for name, module in net.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            activates = hasattr(module, "act") and hasattr(module, "drop")
            if not (activates or type(module) is nn.BatchNorm2d):
                raise ValueError(
                    f"{name} is a {type(module).__name__}, which several processes on the CPU cannot share"
                )
            # the same fields with another forward
            module.__class__ = GlobalBatchNormAct2d if activates else GlobalBatchNorm2d
    return net
