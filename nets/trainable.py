"""The interface of a net towards training, tests and export, and the base of the stages that wrap a net."""
from torch import Tensor, nn

from nets.labels import Labels, Prediction


class Trainable(nn.Module):
    """Everything that code outside nets/ asks of a net. A face detector has `detect` in place of `predict`.

    spec: the plain values from which `build_net` makes the same net
    terms: {term of the loss: the key of args.yaml that weighs it}
    input_margin: side of the pictures / side of the nominal crop
    moves_crop: whether the net resamples the crop before its head sees it
    leaves_unused: whether a training step leaves parameters without a gradient
    """

    spec: dict
    terms: dict[str, str]
    moves_crop = False
    leaves_unused = False

    @property
    def input_margin(self) -> float:
        return self.spec.get("input_margin", 1.0)

    def follow(self, average: dict[str, Tensor] | None) -> None:
        """Take the averaged weights, which the training updates in place, if the net learns from them; None without averaging."""

    def count(self, labels: Labels) -> dict[str, Tensor]:
        """Return {term: count}, the divisors of the sums of `loss`, without looking at pictures."""
        raise NotImplementedError

    def loss(self, images: Tensor, labels: Labels) -> dict[str, Tensor]:
        """Return {term: sum} of a batch; images uint8 BGR (B, S, S, 3). Divide by the `count` of all batches of a step."""
        raise NotImplementedError

    def predict(self, images: Tensor) -> Prediction:
        """Return the Prediction in the frame of the nominal crop; images uint8 BGR (B, S, S, 3)."""
        raise NotImplementedError

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps of the head by name, before they are decoded; images uint8 BGR (B, S, S, 3)."""
        raise NotImplementedError

    def reparameterized(self) -> "Trainable":
        """Return a copy for inference, with one convolution in place of each block of parallel branches (MobileOne, RepVGG)."""
        from timm.utils import reparameterize_model

        return reparameterize_model(self)


class Wrapper(Trainable):
    """A stage around `net`, which is the child module `net`.

    State dicts keep the names of the wrapped net's tensors: `backbone.conv1.weight`, not `net.backbone.conv1.weight`. So a
    checkpoint of the plain net starts the wrapped one and the reverse. A stage must not reuse the name of a child of its net.
    """

    def __init__(self, net: Trainable):
        super().__init__()
        self.net = net
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)

    # no attrgetter: torch.compile would break the graph at it
    spec = property(lambda self: self.net.spec)
    backbone = property(lambda self: self.net.backbone)
    head = property(lambda self: self.net.head)
    auxiliary = property(lambda self: self.net.auxiliary)
    leaves_unused = property(lambda self: self.net.leaves_unused)

    def predict(self, images: Tensor) -> Prediction:
        return self.net.predict(images)

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        return self.net.maps(images)


def imitated(prefix: str, terms: dict) -> dict:
    """Return {prefix + term: value} of what landmarks found by another net train: all landmark terms but their expected error."""
    return {f"{prefix}{term}": value for term, value in terms.items() if term != "log_scale"}


def batch_norms(net: nn.Module) -> list[nn.Module]:
    """Return all batch norms of a net, in order."""
    return [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def _without_prefix(module: Wrapper, state: dict, prefix: str, _metadata: dict) -> None:
    """Rename `net.x` of a state dict to `x`, in place and in order."""
    for name in list(state):
        inner = name.startswith(f"{prefix}net.")
        state[prefix + name.removeprefix(f"{prefix}net.") if inner else name] = state.pop(name)


def _with_prefix(module: Wrapper, state: dict, prefix: str, *_) -> None:
    """Rename `x` to `net.x` for every tensor that is not the stage's own: the inverse."""
    own = {name for name, _ in module.named_children()} - {"net"}
    for name in [name for name in state if name.startswith(prefix)]:
        rest = name.removeprefix(prefix)
        if rest.partition(".")[0] not in own:
            state[f"{prefix}net.{rest}"] = state.pop(name)
