"""Batch norm over the batches of all processes on the CPU, where torch's SyncBatchNorm refuses."""
import torch
import torch.distributed as dist
from torch import Tensor, nn


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d whose training statistics are of all processes' samples together, however many each has.

    Same parameters, buffers and names; equal running statistics in all processes. Raises ValueError for one value a channel.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) of any float type; memory format and type are kept, statistics are float32."""
        return self._normalise(features) if self.training else super().forward(features)

    @torch.compiler.disable  # a collective inside an autograd function
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
    """The same for timm's BatchNormAct2d, which drops and activates as well."""

    def forward(self, features: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(features)))


class _Normalise(torch.autograd.Function):
    """Batch norm as published (Ioffe and Szegedy, 2015, algorithm 1), each mean being over all processes.

    The passes over the features are torch's own kernels. Their backward takes the means of the gradient, which belong to the
    derivative, over this process's samples only; what those differ by from the global ones is an affine map of the features.
    """

    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float):
        channels = features.shape[1]
        unused = torch.zeros(channels), torch.ones(channels)  # float32 running statistics make float32 means of bfloat16
        mean, var = (part.double() for part in torch.batch_norm_update_stats(features, *unused, 0.0))
        own = features.numel() // channels
        # in double, where the difference of large squares is harmless
        sums = torch.cat([own * mean, own * (var + mean.square()), mean.new_tensor([own])])
        dist.all_reduce(sums)
        count = int(sums[-1])
        if count < 2:
            raise ValueError(f"batch norm expects more than 1 value per channel when training, got {tuple(features.shape)}")
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
        kept = {"memory_format": torch.channels_last} if features.is_contiguous(memory_format=torch.channels_last) else {}
        result, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradient.contiguous(**kept), features, weight, None, None, mean, inverse, True, ctx.eps, [True, True, True])
        sums = torch.cat([by_bias, by_weight]).float()  # of the gradient, and of it times the normalised features
        shared = sums.clone()
        dist.all_reduce(shared)
        plain, slope = (sums / own - shared / ctx.count).split(channels)
        scale = inverse if weight is None else inverse * weight
        slope = scale * slope * inverse
        result += torch.batch_norm(features, slope, scale * plain - slope * mean, torch.zeros_like(mean), torch.ones_like(mean),
                                   False, 0.0, 0.0, False)
        return result, None if weight is None else by_weight, None if weight is None else by_bias, None


def share_batch_norm(net: nn.Module, device: torch.device) -> nn.Module:
    """`net` with every batch norm over all processes; names and values of its tensors stay. ValueError for an unknown kind."""
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm  # torch's own would lose the activation inside timm's norms

        return convert_sync_batchnorm(net)
    for name, module in net.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            activates = hasattr(module, "act") and hasattr(module, "drop")
            if not (activates or type(module) is nn.BatchNorm2d):
                raise ValueError(f"{name} is a {type(module).__name__}, which several processes on the CPU cannot share")
            module.__class__ = GlobalBatchNormAct2d if activates else GlobalBatchNorm2d  # same fields, another forward
    return net
