"""A mean teacher: a net learns from labels, and from the landmarks that the average of its own weights finds in unlabelled faces.

The teacher (Tarvainen and Valpola, NeurIPS 2017) sees a weakly augmented crop and its mirror image, the net a strongly augmented
one (as in FixMatch, Sohn et al., NeurIPS 2020). Each landmark weighs by how far the teacher agrees with itself. The teacher's
tensors are those of the average, so it exists during training only and costs no memory.

Its batch norms take the statistics of its crops, as those of the net do. With running averages the teacher finds landmarks a
little above or below those of the net in training. The net follows, and with it the teacher: the landmarks drift. Sideways
drift is no danger, since it cancels in the mean of crop and mirror image.
"""
import copy

import torch
from torch import Tensor

from nets.labels import Labels
from nets.net import Net
from nets.trainable import Wrapper, batch_norms

UNSURE = 0.02  # of the crop: a landmark whose expected error and disagreements are of this size counts half


class MeanTeacher(Wrapper):
    """`net` with additional losses on the unlabelled crops of a batch, see `Labels.weak`. The net may not move the crop.

    layout: has the flip_index. shift: how far the labels lie right of the true points, in [0, 1] of the crop, in mirrored crops
    too. share: weight of the additional losses.
    """

    def __init__(self, net: Net, layout, shift: float, share: float):
        super().__init__(net)
        self.layout, self.shift, self.share = layout, shift, share

    @property
    def terms(self) -> dict[str, str]:
        own = self.net.terms
        return {**own, **{f"pseudo_{term}": own[term] for term in self._imitated(own)}}

    def follow(self, average: dict[str, Tensor] | None) -> None:
        if average is None:
            raise ValueError("the mean teacher is the average of the weights; give --ema above 0")
        teacher = copy.deepcopy(self.net).eval()  # only now, since the net has been moved and its batch norms shared since
        teacher.load_state_dict(average, assign=True)
        for norm in batch_norms(teacher):
            norm.track_running_stats = False  # those of the average stay as they are
        self.teacher = (teacher.requires_grad_(False),)  # a module in a tuple is not registered

    def count(self, labels: Labels) -> dict[str, Tensor]:
        unlabelled = Labels(labels.landmarks.new_zeros(len(labels.weak.images), *labels.landmarks.shape[1:]))
        counts = self.net.count(unlabelled)
        return {**self.net.count(labels), **{f"pseudo_{term}": counts[term] for term in self._imitated(counts)}}

    def loss(self, images: Tensor, labels: Labels) -> dict[str, Tensor]:
        features = self.net.extract(images)
        maps = self.net.head(features.coarse)
        landmarks, trust = self.ask(labels.weak.images, labels.weak.matrix)
        unlabelled, labelled = len(landmarks), len(labels.landmarks)
        weight = labels.trainable()
        known = Labels(_grown(labels.landmarks, after=unlabelled), weight=_grown(weight, after=unlabelled).nan_to_num(0),
                       pose=_grown(labels.pose, after=unlabelled), states=_grown(labels.states, after=unlabelled))
        told = Labels(_grown(landmarks, before=labelled), weight=_grown(trust, before=labelled).nan_to_num(0))
        terms, imitation = self.net.losses(maps, features, known), self.net.losses(maps, features, told)
        return {**terms, **{f"pseudo_{term}": self.share * imitation[term] for term in self._imitated(imitation)}}

    @torch.compiler.disable  # a module that is not registered
    @torch.no_grad()
    def ask(self, images: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's landmarks (U, N, 2) in the frame that `matrix` (U, 2, 3) leads to, and trust (U, N) in [0, 1].

        Trust falls with the mean square of the errors that can be told: the predicted one, the distance of the predictions for a
        crop and its mirror image, that of the votes for a landmark, and that which the refiner moves it.
        """
        teacher, = self.teacher
        for norm, own in zip(batch_norms(teacher), batch_norms(self.net), strict=True):
            norm.training = own.training  # frozen norms keep their statistics in both nets
        features = teacher.extract(torch.cat([images, images.flip(2)]))
        maps = teacher.head(features.coarse)
        found, plain = teacher.decode(maps, features), teacher.head.decode(maps).landmarks
        errors = [found.sigma, teacher.head.spread(maps), (found.landmarks - plain).norm(dim=-1) if teacher.refiner else None]
        one, other = found.landmarks.float().chunk(2)
        other, order = Labels(other).flip(self.layout).landmarks, list(self.layout.flip_index)
        right = one.new_tensor([self.shift, 0.0])
        squares = [(one - other - 2 * right).square().sum(-1)]
        for error in errors:
            if error is not None:
                plain, mirrored = error.float().square().chunk(2)
                squares.append((plain + mirrored[:, order]) / 2)
        trust = 1 / (1 + torch.stack(squares).mean(0) / UNSURE ** 2)
        side = torch.linalg.det(matrix[:, :, :2]).sign()[:, None, None]  # in a mirrored crop labels lie right of the points too
        told = Labels((one + other) / 2 + side * right).warp(matrix)
        mirrored = side[:, :, 0] < 0
        return (torch.where(mirrored[:, :, None], told.landmarks[:, order], told.landmarks),
                torch.where(mirrored, trust[:, order], trust))

    def _imitated(self, terms: dict) -> list[str]:
        """Return the terms that pseudo-labels train: all about landmarks but their expected error."""
        return [term for term in terms if term in self.net.landmark_terms and term != "log_scale"]


def _grown(values: Tensor | None, before: int = 0, after: int = 0) -> Tensor | None:
    """Return values (B, ...) with that many rows of NaN before and after them."""
    if values is None:
        return None
    rows = [values.new_full((count, *values.shape[1:]), torch.nan) for count in (before, after)]
    return torch.cat([rows[0], values, rows[1]])
