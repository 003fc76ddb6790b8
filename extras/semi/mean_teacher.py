"""A mean teacher: a net learns from labels, and from the landmarks that its own averaged weights predict for unlabelled
faces.

The teacher (Tarvainen and Valpola, NeurIPS 2017) sees a weakly augmented crop and its mirror image, the net a strongly
augmented one (as in FixMatch, Sohn et al., NeurIPS 2020). Each landmark weighs by how far the teacher agrees with
itself. The teacher's tensors are those of the average, so it exists during training only and costs no memory.

Its batch norms use the statistics of the batch, as those of the net in training do. With running averages, the
teacher's landmarks would lie a little above or below those of the net. The net would follow them, then the teacher the
net, and the landmarks would drift. Drift to the side is no danger: it cancels in the mean of crop and mirror image.
"""

import copy
from operator import itemgetter

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from nets.labels import Labels, mirror, move
from nets.net import Net
from nets.trainable import batch_norms
from nets.wrappers.affine import determinant
from nets.wrappers.base import Wrapper, imitated

UNSURE = 0.02  # of the crop: a landmark whose expected error and disagreements are of this size counts half


class MeanTeacher(Wrapper):
    """`net` with additional losses on the unlabelled crops of a batch, see `Labels.weak`.
    The net may not move the crop.

    layout: gives the flip_index. shift: how far the labels lie right of the true points, in [0, 1] of the crop; it is
    the same in mirrored crops.
    """

    net: Net
    order: Tensor
    right: Tensor
    teacher: tuple[Net]

    def __init__(self, net: Net, layout, shift: float):
        super().__init__(net)
        # of landmarks in a mirrored crop
        self.register_buffer("order", torch.tensor(layout.flip_index), persistent=False)
        self.register_buffer("right", torch.tensor([shift, 0.0]), persistent=False)

    @property
    def terms(self) -> dict[str, str]:
        return {**self.net.terms, **imitated("pseudo_", self.net, self.net.terms)}

    def set_average(self, average: dict[str, Tensor] | None) -> None:
        assert average, "--ema 0 is refused in faults.py"
        # not in __init__: only later is the net moved to its device, and are its batch norms replaced by shared ones
        teacher = copy.deepcopy(self.net).eval()
        teacher.load_state_dict(average, assign=True)
        for norm in batch_norms(teacher):
            norm.track_running_stats = False  # those of the average stay as they are
        self.teacher = (teacher.requires_grad_(False),)  # a module in a tuple is not registered

    def denominators(self, labels: Labels) -> dict[str, Tensor]:
        assert labels.weak
        unlabelled = Labels.pack(labels.packed.new_zeros(len(labels.weak.images), *labels.landmarks.shape[1:]))
        return {**self.net.denominators(labels), **imitated("pseudo_", self.net, self.net.denominators(unlabelled))}

    def loss(self, images: Tensor, labels: Labels) -> dict[str, Tensor]:
        outputs, count = self.net.run(self.net.extract(images)), len(labels.packed)
        labelled, unlabelled = (
            tree_map_only(Tensor, itemgetter(rows), outputs) for rows in (slice(count), slice(count, None))
        )
        assert labels.weak
        told = Labels.pack(*self.ask(labels.weak.images, labels.weak.matrix))
        imitation = imitated("pseudo_", self.net, self.net.landmark_losses(unlabelled, told))
        return {**self.net.losses(labelled, labels), **imitation}

    @torch.compiler.disable  # a module that is not registered
    @torch.no_grad()
    def ask(self, images: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's landmarks (U, N, 2) in the frame that `matrix` (U, 2, 3) leads to, and trust (U, N) in
        [0, 1].

        Trust falls with the mean square of all error estimates: the predicted error, the distance between the
        predictions for a crop and its mirror image, the spread of the votes for a landmark, and the length of the
        refiner's move.
        """
        (teacher,) = self.teacher
        for norm, own in zip(batch_norms(teacher), batch_norms(self.net), strict=True):
            norm.training = own.training  # frozen norms keep their statistics in both nets
        features = teacher.extract(torch.cat([images, images.flip(2)]))
        maps = teacher.head(features.coarse)
        found, spread = teacher.head.decode_with_spread(maps)
        moves = teacher.refiner(found.landmarks, *features) if teacher.refiner else torch.zeros_like(found.landmarks)
        one, other = (found.landmarks + moves).float().chunk(2)
        other = mirror(other[:, self.order])
        squares = [(one - other - 2 * self.right).square().sum(-1)]
        for error in (found.sigma, spread, moves.norm(dim=-1) if teacher.refiner else None):
            if error is not None:
                plain, mirrored = error.float().square().chunk(2)
                squares.append((plain + mirrored[:, self.order]) / 2)
        trust = 1 / (1 + torch.stack(squares).mean(0) / UNSURE**2)
        side = determinant(matrix).sign()[:, None, None]  # in a mirrored crop labels lie right of the points too
        told, mirrored = move((one + other) / 2 + side * self.right, matrix), side < 0
        return torch.where(mirrored, told[:, self.order], told), torch.where(
            mirrored[:, :, 0], trust[:, self.order], trust
        )
