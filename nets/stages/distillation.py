"""Distillation: a net learns from the labels and from what another net, its teacher, says of the same crops.

Three kinds of terms: the net's own losses with the teacher's landmarks as labels; the distance of the score maps, where both have
the same; the angle between feature maps of one size, for which a 1x1 convolution (`adapter`) brings the net's to the teacher's
channels. Teacher and adapter are there while training only.
"""
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.labels import Labels
from nets.net import Net

UNSURE = 0.02  # of the crop: where the teacher expects to be this far off, it counts half


class Shares(NamedTuple):
    """What each kind of term weighs: landmarks as a factor of the net's own losses, the others by themselves. 0: none."""
    landmarks: float
    maps: float
    features: float


class Answer(NamedTuple):
    """What a teacher says: landmarks (B, N, 2) in [0, 1] of the crop, trust (B, N) in [0, 1], scores (B, N, ...) and features
    (B, C, H, W) where its head and size allow."""
    landmarks: Tensor
    trust: Tensor
    scores: Tensor | None
    features: Tensor


class Distil(Net):
    """`net` with the losses of a `teacher`, whose landmarks `chosen` are the net's; names of the net's tensors stay.

    The teacher is no part of the module: it is neither trained nor kept, nor known to other processes. Neither may move the crop
    (spatial_transformer.py). `compares`: which of maps and features are compared, None or why they are not.
    """

    def __init__(self, net: Net, teacher: Net, chosen: list[int], shares: Shares):
        super().__init__(net.backbone, net.neck, net.head, net.spec)
        self.others, self.refiner, self.shares = net.others, net.refiner, shares
        self.teacher = (teacher.eval().requires_grad_(False),)  # a module in a tuple is not registered
        device = next(teacher.parameters()).device
        self.register_buffer("chosen", torch.tensor(chosen, device=device), persistent=False)
        sides = [part.spec["input_size"] for part in (net, teacher)]
        with torch.no_grad():
            own = net.eval().see(torch.zeros(1, sides[0], sides[0], 3, dtype=torch.uint8, device=device)).features
            scores, told = self.head.scores(self.head(own)), self.ask(torch.zeros(1, sides[0], sides[0], 3, device=device))
        self.compares = {"maps": self._apart(net, teacher, scores, told.scores),
                         "features": _unlike(own.shape[2:], told.features.shape[2:])}
        wanted = shares.features and not self.compares["features"]
        self.adapter = nn.Conv2d(own.shape[1], told.features.shape[1], 1).to(device) if wanted else None

    @staticmethod
    def _apart(net: Net, teacher: Net, scores: Tensor | None, told: Tensor | None) -> str | None:
        """Why score maps are not compared."""
        heads = [part.spec["head"] for part in (net, teacher)]
        if heads[0] != heads[1]:
            return f"of head {heads[0]}, the teacher's of {heads[1]}"
        return f"head {heads[0]} has none" if scores is None else _unlike(scores.shape[2:], told.shape[2:])

    @property
    def terms(self) -> dict[str, str]:
        own = super().terms
        return {**own, **{f"teacher_{term}": key for term, key in own.items()}, "teacher_maps": "teacher_maps",
                "teacher_features": "teacher_features"}

    def count(self, labels: Labels) -> dict[str, Tensor]:
        counts = super().count(labels)
        if self.shares.landmarks:
            counts |= {f"teacher_{term}": counts[term] for term in self._imitated(counts)}
        if self._wants("maps"):
            counts["teacher_maps"] = labels.trainable().sum()
        if self._wants("features"):
            counts["teacher_features"] = labels.landmarks.new_full((), len(labels.landmarks))
        return counts

    def loss(self, images: Tensor, labels: Labels) -> dict[str, Tensor]:
        seen, told = self.see(images), self.ask(images.float())
        maps = self.head(seen.features)
        terms, weight = self.losses(maps, seen, labels), labels.trainable() * told.trust
        if self.shares.landmarks:
            taught = self.losses(maps, seen, Labels(told.landmarks, weight=weight))
            terms |= {f"teacher_{term}": self.shares.landmarks * taught[term] for term in self._imitated(taught)}
        if self._wants("maps"):
            squares = (self.head.scores(maps) - told.scores).square().flatten(2).sum(2)
            terms["teacher_maps"] = (weight * squares).sum()
        if self._wants("features"):
            alike = F.cosine_similarity(self.adapter(seen.features).float(), told.features.float(), dim=1)  # (B, H, W)
            terms["teacher_features"] = (1 - alike).mean((1, 2)).sum()
        return terms

    @torch.compiler.disable  # a module that is not registered
    @torch.no_grad()
    def ask(self, images: Tensor) -> Answer:
        """BGR (B, S, S, 3) float -> what the teacher says of the same crops at its own size."""
        teacher, = self.teacher
        side = teacher.spec["input_size"]
        if images.shape[1] != side:
            pictures = F.interpolate(images.permute(0, 3, 1, 2), (side, side), mode="bilinear", antialias=True)
            images = pictures.permute(0, 2, 3, 1)
        seen = teacher.see(images)
        maps = teacher.head(seen.features)
        found, scores = teacher.decode(maps, seen).select(self.chosen), teacher.head.scores(maps)
        trust = torch.ones_like(found.score) if found.sigma is None else 1 / (1 + (found.sigma / UNSURE).square())
        return Answer(found.landmarks.float(), trust.float(), None if scores is None else scores[:, self.chosen], seen.features)

    def _imitated(self, terms) -> list[str]:
        """The terms that the teacher's landmarks train: not the expected error, which would be that of the teacher."""
        own = (*self.head.terms, *(self.refiner.terms if self.refiner else ()))
        return [term for term in terms if term in own and term != "spread"]

    def _wants(self, kind: str) -> bool:
        return getattr(self.shares, kind) > 0 and not self.compares[kind]


def _unlike(own: torch.Size, told: torch.Size) -> str | None:
    """Why maps of these sizes are not compared."""
    one, two = (" x ".join(map(str, shape)) for shape in (own, told))
    return None if own == told else f"of {one} cells, the teacher's of {two}"


def untaught(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a net that was taught, without what only the teaching needed."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("adapter.")}
