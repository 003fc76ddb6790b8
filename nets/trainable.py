"""The interface of a net towards training, tests and export."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nets.labels import Prediction


class Trainable(nn.Module):
    """The interface of a net to code outside nets/. A face detector has `detect` in place of `predict`.

    spec: the plain values from which `build_net` makes the same net
    terms: {term of the loss: the key of args.yaml that weighs it}
    input_margin: side of the pictures / side of the nominal crop

    A training step launches the same kernels for any batch of one shape, as a CUDA graph needs.
    """

    spec: dict
    backbone: Any
    head: Any

    @property
    def terms(self) -> dict[str, str]:
        raise NotImplementedError

    def weights(self, keys: Mapping[str, Any]) -> dict[str, float]:
        """Return {term: its weight}. keys: the section `loss` of args.yaml."""
        return {term: float(keys[key]) for term, key in self.terms.items()}

    @property
    def input_margin(self) -> float:
        return self.spec.get("input_margin", 1.0)

    def set_average(self, average: dict[str, Tensor] | None) -> None:
        """Take the averaged tensors, which are updated in place from now on; None without averaging. Called once."""

    def denominators(self, labels: Any) -> dict[str, Tensor]:
        """Return {term: count}, the divisors of the sums of `loss`, without looking at pictures."""
        raise NotImplementedError

    def loss(self, images: Tensor, labels: Any) -> dict[str, Tensor]:
        """Return {term: sum} of a batch; images uint8 BGR (B, S, S, 3); labels of a landmark net are `Labels`.

        Divide by the `count` of all batches of a step.
        """
        raise NotImplementedError

    def predict(self, images: Tensor) -> Prediction:
        """Return the Prediction in the frame of the nominal crop; images uint8 BGR (B, S, S, 3)."""
        raise NotImplementedError

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps of the head by name, before they are decoded; images uint8 BGR (B, S, S, 3)."""
        raise NotImplementedError

    def reparameterized(self) -> "Trainable":
        """Return a copy for inference, with one convolution in place of each block of parallel branches (MobileOne,
        RepVGG).
        """
        from timm.utils import reparameterize_model

        copied: Any = reparameterize_model(self)
        return copied


def batch_norms(net: nn.Module) -> list[nn.Module]:
    """Return all batch norms of a net, in order."""
    return [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
