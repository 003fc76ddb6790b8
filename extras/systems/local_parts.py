"""The local stage of DPR (Shao et al., TPAMI 2021): a small net for each part of the face finds its landmarks in a crop
of it.

From the landmarks of the whole face a small net predicts a map from the inner frame (spatial_transformer.py) to a crop
of the part. Another net finds the part's landmarks in that crop; they replace those of the whole face.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nets.backbones.dpr import Dense, SmallMobileNetV2
from nets.blocks import in_full, start_small
from nets.heads.coordinate import UNIT
from nets.labels import Labels, Prediction, move
from nets.losses import error_form
from nets.wrappers.affine import chain, inverse, length_scale, resample
from nets.wrappers.base import Wrapper
from nets.wrappers.spatial_transformer import THETA_SCALE, Reinit, SplitGradient, alignment_loss, outer, set_constant

SIZE = 128  # px, side of a part's crop
ROOM = 1.2  # side of a part's crop / longer side of the part's landmarks


def square_frame(points: np.ndarray) -> np.ndarray:
    """Return the (2, 3) map that brings points (N, 2) to the middle of [0, 1] with room around; both axes scale alike."""
    low, high = points.min(0), points.max(0)
    scale = 1 / (ROOM * max((high - low).max(), 1e-3))
    return np.column_stack([np.eye(2) * scale, 0.5 - scale * (low + high) / 2])


class Place(nn.Sequential):
    """Maps landmarks (B, N, 2) of the whole face to the map (B, 2, 3) of one part, which is `matrix` (2, 3) at first."""

    def __init__(self, count: int, matrix: np.ndarray):
        super().__init__(nn.Linear(2 * count, 128), nn.PReLU(), nn.Linear(128, 64), nn.PReLU(), nn.Linear(64, 6))
        set_constant(self[-1], torch.tensor(matrix))

    def forward(self, landmarks: Tensor) -> Tensor:
        return THETA_SCALE * super().forward(landmarks.flatten(1)).view(-1, 2, 3)


def part_alignment(truth: Tensor, weight: Tensor, matrix: Tensor, mean: Tensor) -> Tensor:
    """Return the `alignment_loss` of a part's landmarks (B, n, 2) from its mean places (n, 2).

    Distances are divided by the scale of the map. Otherwise, while the landmarks of the whole face are uncertain, the
    lowest loss is that of a map that shrinks the part until its crop shows nothing.
    """
    return alignment_loss(truth, weight / length_scale(matrix), matrix, mean)


class LocatedPart(NamedTuple):
    """One part: its landmarks (B, n, 2) in its crop, the map (B, 2, 3) from the outer frame to the crop, and the same
    map for the alignment term.
    """

    name: str
    landmarks: Tensor
    theta: Tensor
    aligned: Tensor


class LocalParts(Wrapper):
    """A re-initialised net, then the local stage.
    spec["local_parts"]: {name: its landmarks}, each landmark in one part at most.

    Landmarks of no part, all scores and sigma stay those of the whole face. Further terms: `local`, the error of the
    parts' landmarks in eighths of the outer crop; `local_alignment`, the distance of the labels from the mean part, in
    the outer frame.
    """

    net: Reinit
    joined: Tensor
    order: Tensor

    def __init__(self, net: Reinit):
        super().__init__(net)
        self.parts, face = net.spec["local_parts"], np.array(net.spec["meanface"])
        self.error = error_form(net.spec["head_options"].get("error", "l1"))
        self.places, self.regressors = nn.ModuleDict(), nn.ModuleDict()
        for name, ids in self.parts.items():
            matrix = square_frame(face[ids])
            self.places[name] = Place(len(face), matrix)
            regressor = nn.Sequential(SmallMobileNetV2(), Dense(1, 64), nn.Conv2d(64, 2 * len(ids), 1))
            start_small(regressor[-1])
            self.regressors[name] = regressor
            mean = torch.tensor(face[ids] @ matrix[:, :2].T + matrix[:, 2], dtype=torch.float32)
            self.register_buffer(f"mean_{name}", mean, persistent=False)
        joined = [i for ids in self.parts.values() for i in ids]
        self.register_buffer("joined", torch.tensor(joined), persistent=False)
        # the place of each landmark among those of the whole face, followed by those of all parts
        order = [len(face) + joined.index(i) if i in joined else i for i in range(len(face))]
        self.register_buffer("order", torch.tensor(order), persistent=False)

    @property
    def terms(self) -> dict[str, str]:
        return {**self.net.terms, "local": "reg", "local_alignment": "alignment"}

    def denominators(self, labels: Labels) -> dict[str, Tensor]:
        local = labels.weight[:, self.joined].sum()
        return {**self.net.denominators(labels), "local": local, "local_alignment": local}

    def locate(self, images: Tensor, face: Tensor, theta: Tensor) -> Iterator[LocatedPart]:
        """Yield each part; face (B, N, 2): landmarks in the inner frame of theta (B, 2, 3)."""
        size = self.spec["input_size"]
        for name in self.parts:
            with in_full(images):
                place = aligned = chain(theta, self.places[name](face.float()))
                if torch.is_grad_enabled():  # TorchScript cannot hold it
                    place, aligned = SplitGradient.apply(place)
                picture = resample(images, place, SIZE, size)
            moved = self.regressors[name](self.net.net.preprocess(picture)).flatten(1).float().unflatten(1, (-1, 2))
            yield LocatedPart(name, getattr(self, f"mean_{name}") + 0.5 * moved, place, aligned)

    def loss(self, images: Tensor, labels: Labels) -> dict[str, Tensor]:
        terms, outputs, theta = self.net.global_loss(images, labels)
        face = self.head.decode(outputs.maps).landmarks
        if outputs.moves is not None:
            face = face + outputs.moves
        sizes, local, alignment = [len(ids) for ids in self.parts.values()], [], []
        truths, weights = (values[:, self.joined].split(sizes, 1) for values in (labels.landmarks, labels.weight))
        for part, truth, weight in zip(self.locate(images, face, theta), truths, weights, strict=True):
            # an error in the outer frame is the error in the part's crop divided by the scale of its map; unlike an
            # inverse this is safe while the map is not trained yet
            error = self.error((part.landmarks - move(truth, part.theta)).abs() / UNIT).sum(-1)
            local.append((weight * (error / length_scale(part.theta))).sum())
            alignment.append(part_alignment(truth, weight, part.aligned, getattr(self, f"mean_{part.name}")))
        return {**terms, "local": sum(local), "local_alignment": sum(alignment)}

    def predict(self, images: Tensor) -> Prediction:
        inner, theta = self.net.inner(images)
        found = outer(inner, theta)
        parts = self.locate(images, inner.landmarks, theta)
        local = [move(part.landmarks, inverse(part.theta)) for part in parts]
        return found._replace(landmarks=torch.cat([found.landmarks, *local], 1)[:, self.order])
