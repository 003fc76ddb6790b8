"""Distillation: a net learns from the labels and from another net, its teacher, on the same crops.

There are three kinds of terms. The net's own losses, with the teacher's landmarks as labels. The distance of the score
maps, if both have the same head and size. The angle between the feature maps, if both have one size, after a 1x1
convolution (`adapter`) from the net's channels to the teacher's. Teacher and adapter exist during training only.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.labels import Labels
from nets.net import Net
from nets.wrappers.base import Wrapper, imitated

MAPS = 10.0  # factor of the distance of the score maps
UNSURE = 0.02  # of the crop: where the teacher expects an error of this size, it counts half


class TeacherOutput(NamedTuple):
    """landmarks (B, N, 2) in [0, 1] of the crop, trust (B, N) in [0, 1], scores (B, N, ...) or None, features (B, C, H,
    W).
    """

    landmarks: Tensor
    trust: Tensor
    scores: Tensor | None
    features: Tensor


class Distillation(Wrapper):
    """`net` with additional losses that a `teacher` gives. Neither net may move the crop.

    chosen: for each landmark of the net, that of the teacher. weight: factor of all additional losses. The attribute
    `compares` is {"maps": reason, "features": reason}: why these are not compared, None if they are. The teacher is not
    registered as a module, so it is not trained, saved or synchronised between processes.
    """

    net: Net
    chosen: Tensor

    def __init__(self, net: Net, teacher: Net, chosen: list[int], weight: float):
        super().__init__(net)
        self.weight = weight
        self.teacher = (teacher.eval().requires_grad_(False),)  # a module in a tuple is not registered
        device = next(teacher.parameters()).device
        self.register_buffer("chosen", torch.tensor(chosen, device=device), persistent=False)
        side = net.spec["input_size"]
        with torch.no_grad():
            own = net.eval().extract(torch.zeros(1, side, side, 3, dtype=torch.uint8, device=device)).coarse
            scores, told = self.head.scores(self.head(own)), self.ask(torch.zeros(1, side, side, 3, device=device))
        heads = net.spec["head"], teacher.spec["head"]
        if heads[0] != heads[1]:
            apart = f"of head {heads[0]}, the teacher's of {heads[1]}"
        else:
            apart = f"head {heads[0]} has none" if scores is None else _sizes_differ(scores, told.scores)
        self.compares = {"maps": apart, "features": _sizes_differ(own, told.features)}
        alike = not self.compares["features"]
        self.adapter = nn.Conv2d(own.shape[1], told.features.shape[1], 1).to(device) if alike else None

    @property
    def terms(self) -> dict[str, str]:
        return {
            **self.net.terms,
            **imitated("teacher_", self.net, self.net.terms),
            "teacher_maps": "teacher_weight",
            "teacher_features": "teacher_weight",
        }

    def weights(self, keys: Mapping[str, Any]) -> dict[str, float]:
        weights = super().weights(keys)
        return {**weights, "teacher_maps": MAPS * weights["teacher_maps"]}

    def denominators(self, labels: Labels) -> dict[str, Tensor]:
        counts = self.net.denominators(labels)
        counts |= imitated("teacher_", self.net, counts)
        if not self.compares["maps"]:
            counts["teacher_maps"] = labels.weight.sum()
        if not self.compares["features"]:
            counts["teacher_features"] = labels.packed.new_full((), len(labels.packed))
        return counts

    def loss(self, images: Tensor, labels: Labels) -> dict[str, Tensor]:
        outputs, told = self.net.run(self.net.extract(images)), self.ask(images.float())
        terms, weight = self.net.losses(outputs, labels), labels.weight * told.trust
        imitation = self.net.landmark_losses(outputs, Labels.pack(told.landmarks, weight))
        terms |= {term: self.weight * value for term, value in imitated("teacher_", self.net, imitation).items()}
        if not self.compares["maps"]:
            squares = (self.head.scores(outputs.maps) - told.scores).square().flatten(2).sum(2)
            terms["teacher_maps"] = (weight * squares).sum()
        if not self.compares["features"]:
            adapted = self.adapter(outputs.features.coarse).float()
            similarity = F.cosine_similarity(adapted, told.features.float(), dim=1)  # (B, H, W)
            terms["teacher_features"] = (1 - similarity).mean((1, 2)).sum()
        return terms

    @torch.compiler.disable  # a module that is not registered
    @torch.no_grad()
    def ask(self, images: Tensor) -> TeacherOutput:
        """Return the teacher's answer to crops BGR (B, S, S, 3) float, resized to its own input."""
        (teacher,) = self.teacher
        side = teacher.spec["input_size"]
        if images.shape[1] != side:
            pictures = F.interpolate(images.permute(0, 3, 1, 2), (side, side), mode="bilinear", antialias=True)
            images = pictures.permute(0, 2, 3, 1)
        features = teacher.extract(images)
        maps = teacher.head(features.coarse)
        found, scores = teacher.decode(maps, features).select(self.chosen), teacher.head.scores(maps)
        trust = torch.ones_like(found.score) if found.sigma is None else 1 / (1 + (found.sigma / UNSURE).square())
        scores = None if scores is None else scores[:, self.chosen]
        return TeacherOutput(found.landmarks.float(), trust.float(), scores, features.coarse)


def _sizes_differ(own: Tensor, told: Tensor) -> str | None:
    """Return why maps (B, C, ...) are not compared, or None."""
    one, two = (" x ".join(map(str, maps.shape[2:])) for maps in (own, told))
    return None if one == two else f"of {one} cells, the teacher's of {two}"


def without_teacher(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without the tensors that only distillation needs."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("adapter.")}
