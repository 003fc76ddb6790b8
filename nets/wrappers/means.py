"""Points of another layout as weighted means of a net's landmarks, which stay as they are."""

import torch
from torch import Tensor, nn

from nets.labels import Labels, Prediction
from nets.trainable import Trainable
from nets.wrappers.base import Wrapper


class WeightedMeans(nn.Module):
    """weight (N, K): of K landmarks in N points, each row with the sum 1. nearest (N,): the landmark that stands for a point
    in all that is said of it beside its place.
    """

    weight: Tensor
    nearest: Tensor

    def __init__(self, points: int, landmarks: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(points, landmarks))
        self.register_buffer("nearest", torch.zeros(points, dtype=torch.long))


class Means(Wrapper):
    """`net`, whose K landmarks predict N points; its tensors are named `means.*`, and are fitted, not trained
    (`utils.task.own_points`). What is trained are outputs of the net beside its landmarks.
    """

    def __init__(self, net: Trainable, points: int):
        super().__init__(net)
        self.means = WeightedMeans(points, net.head.num_lms)

    @property
    def terms(self) -> dict[str, str]:
        return self.net.terms

    def denominators(self, labels: Labels) -> dict[str, Tensor]:
        return self.net.denominators(self._of_net(labels))

    def loss(self, images: Tensor, labels: Labels) -> dict[str, Tensor]:
        return self.net.loss(images, self._of_net(labels))

    def predict(self, images: Tensor) -> Prediction:
        found, means = self.net.predict(images), self.means
        return found.select(means.nearest)._replace(landmarks=means.weight @ found.landmarks)

    def _of_net(self, labels: Labels) -> Labels:
        """Return the labels for the landmarks of the net: they have weight 0, and are as visible as the points nearest to."""
        zeros = labels.packed.new_zeros(len(labels.packed), self.means.weight.shape[1])
        fields = {"landmarks": zeros[..., None].expand(-1, -1, 2), "weight": zeros}
        for name in ("visible", "visible_weight"):
            if (values := labels.field(name)) is not None:
                fields[name] = zeros.index_copy(1, self.means.nearest, values)
        return labels.replace(**fields)
