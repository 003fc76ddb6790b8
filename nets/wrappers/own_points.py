"""Points of another layout behind a net whose landmarks stay as they are: weighted means of these, and what is learnt on top."""

import torch
from torch import Tensor, nn

from nets.labels import Labels, Prediction
from nets.net import Features
from nets.stages.refiner import WIDTH
from nets.trainable import Trainable
from nets.wrappers.base import Wrapper


class Points(nn.Module):
    """weight (N, K): of K landmarks in N points, each row with the sum 1. nearest (N,): the landmark that stands for a point
    in all that is said of it beside its place. identity, move: see `Refiner.beside`; None if nothing is learnt.
    """

    weight: Tensor
    nearest: Tensor

    def __init__(self, points: int, landmarks: int, learnt: bool):
        super().__init__()
        self.register_buffer("weight", torch.zeros(points, landmarks))
        self.register_buffer("nearest", torch.zeros(points, dtype=torch.long))
        self.identity = nn.Parameter(torch.zeros(points, WIDTH)) if learnt else None
        self.move = nn.Parameter(torch.zeros(points, WIDTH, 2)) if learnt else None  # moves nothing yet


class OwnPoints(Wrapper):
    """`net`, whose K landmarks predict N points; its own tensors are named `points.*`. The means are fitted, not trained
    (`utils.task.own_points`). What is trained is how the net's refiner moves the points, if spec["learnt_points"], and outputs
    of the net beside its landmarks.
    """

    def __init__(self, net: Trainable):
        super().__init__(net)
        self.points = Points(net.spec["points"], net.head.num_lms, net.spec.get("learnt_points", False))

    @property
    def terms(self) -> dict[str, str]:
        return {**self.net.terms, **({} if self.points.move is None else {"points": "reg"})}

    def denominators(self, labels: Labels) -> dict[str, Tensor]:
        counts = self.net.denominators(self._of_net(labels))
        return counts if self.points.move is None else {**counts, "points": labels.weight.sum()}

    def loss(self, images: Tensor, labels: Labels) -> dict[str, Tensor]:
        net, of_net = self.net, self._of_net(labels)
        if self.points.move is None:
            return net.loss(images, of_net)
        outputs = net.run(net.extract(images))
        points = self._moved(outputs.start + outputs.moves, outputs.features)
        errors = ((points - labels.landmarks) / net.refiner.cell).abs().mean(-1)
        return {**net.losses(outputs, of_net), "points": (labels.weight * errors).sum()}

    def predict(self, images: Tensor) -> Prediction:
        net, own = self.net, self.points
        if own.move is None:
            found = net.predict(images)
            return found.select(own.nearest)._replace(landmarks=self._means(found.landmarks))
        features = net.extract(images)
        found = net.decode(net.head(features.coarse), features)
        return found.select(own.nearest)._replace(landmarks=self._moved(found.landmarks, features))

    def _means(self, landmarks: Tensor) -> Tensor:
        """Return points (B, N, 2) from the landmarks of the net (B, K, 2)."""
        # no matrix product: autocast would round it
        return (self.points.weight[:, :, None] * landmarks[:, None]).sum(2)

    def _moved(self, landmarks: Tensor, features: Features) -> Tensor:
        """Return the means, moved by the refiner of the net."""
        points, own = self._means(landmarks.detach()), self.points
        return points + self.net.refiner.beside(points, own.identity, own.move, landmarks, *features)

    def _of_net(self, labels: Labels) -> Labels:
        """Return the labels for the landmarks of the net: they have weight 0, and are as visible as the points nearest to."""
        zeros = labels.packed.new_zeros(len(labels.packed), self.points.weight.shape[1])
        fields = {"landmarks": zeros[..., None].expand(-1, -1, 2), "weight": zeros}
        for name in ("visible", "visible_weight"):
            if (values := labels.field(name)) is not None:
                fields[name] = zeros.index_copy(1, self.points.nearest, values)
        return labels.replace(**fields)
