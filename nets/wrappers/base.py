"""The base of the nets around a net."""

from typing import Any

from torch import Tensor

from nets.labels import Prediction
from nets.net import Net
from nets.trainable import Trainable


class Wrapper(Trainable):
    """A stage around `net`, which is the child module `net`.

    State dicts keep the names of the wrapped net's tensors: `backbone.conv1.weight`, not `net.backbone.conv1.weight`.
    So a checkpoint of the plain net starts the wrapped one and the reverse. A stage must not reuse the name of a child
    of its net.
    """

    net: Any

    def __init__(self, net: Trainable):
        super().__init__()
        self.net = net
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)

    # no attrgetter: torch.compile would break the graph at it
    spec = property(lambda self: self.net.spec)
    backbone = property(lambda self: self.net.backbone)
    head = property(lambda self: self.net.head)

    def predict(self, images: Tensor) -> Prediction:
        return self.net.predict(images)

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        return self.net.maps(images)


def imitated(prefix: str, net: Net, values: dict) -> dict:
    """Return {prefix + term: value} for the terms that another net's landmarks train: all landmark terms but log_scale."""
    wanted = net.landmark_terms.keys() - {"log_scale"}
    return {f"{prefix}{term}": value for term, value in values.items() if term in wanted}


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
