"""The local stage of DPR (Shao et al., TPAMI 2021): each part of the face is brought to its usual place and looked at by itself.

From the landmarks of the whole face a small net predicts a map from the inner frame (spatial_transformer.py) to a crop of
that part. A net of its own finds the part's landmarks there, and they replace those of the whole face.
"""
import numpy as np
import torch
from torch import Tensor, nn

from nets.backbones.dpr import Dense, SmallMobileNetV2
from nets.heads.coordinate import UNIT, CoordinateHead, Maps, SqueezeExcite
from nets.labels import Labels, Prediction
from nets.losses import ERRORS
from nets.net import Net
from nets.stages.spatial_transformer import CALM, Anchored, Reinit, begin_as, chain, determinant, inverse, known, outer, resample

SIZE = 128  # px of a part's crop
ROOM = 1.2  # a part's crop / the longer side of the part's landmarks


def square_frame(points: np.ndarray) -> np.ndarray:
    """(2, 3) map that brings points (N, 2) into the middle of [0, 1], with room around; both axes scale alike."""
    low, high = points.min(0), points.max(0)
    scale = 1 / (ROOM * max((high - low).max(), 1e-3))
    return np.column_stack([np.eye(2) * scale, 0.5 - scale * (low + high) / 2])


class Place(nn.Sequential):
    """Landmarks (B, 2 N), x and y by turns, of the whole face -> six numbers; CALM times them is a part's map, at first
    `matrix` (2, 3)."""

    def __init__(self, count: int, matrix: np.ndarray):
        super().__init__(nn.Linear(2 * count, 128), nn.PReLU(), nn.Linear(128, 64), nn.PReLU(), nn.Linear(64, 6))
        begin_as(self[-1], torch.tensor(matrix))


class Parts(Reinit):
    """`net` behind a map to its usual place, then the local stage. parts: {name: its landmarks}, which are in one part only.

    Landmarks of no part stay as the whole face has them; scores and sigma are always those of the whole face. Terms beside those
    of `Reinit`: `part`, the error of the parts' landmarks in eighths of the outer crop, and `part_frame`, the distance from the
    mean part of the labels in the part's crop.
    """

    def __init__(self, net: Net, meanface: list[list[float]], parts: dict[str, list[int]]):
        super().__init__(net, meanface)
        self.parts, face = {name: list(ids) for name, ids in parts.items()}, np.array(meanface)
        self.error = ERRORS[net.spec["options"].get("error", "l1")]
        self.places, self.regressors = nn.ModuleDict(), nn.ModuleDict()
        for name, ids in self.parts.items():
            matrix = square_frame(face[ids])
            self.places[name] = Place(len(face), matrix)
            self.regressors[name] = nn.Sequential(SmallMobileNetV2(), Dense(1, 64), nn.Conv2d(64, 2 * len(ids), 1))
            nn.init.normal_(self.regressors[name][-1].weight, std=0.001)
            nn.init.zeros_(self.regressors[name][-1].bias)
            mean = torch.tensor(face[ids] @ matrix[:, :2].T + matrix[:, 2], dtype=torch.float32)
            self.register_buffer(f"mean_{name}", mean, persistent=False)
        joined, order = [i for ids in self.parts.values() for i in ids], list(range(len(face)))
        for place, landmark in enumerate(joined):
            order[landmark] = len(face) + place
        self.register_buffer("order", torch.tensor(order), persistent=False)  # in: all of the whole face, then of the parts

    @property
    def terms(self) -> dict[str, str]:
        return {**super().terms, "part": "reg", "part_frame": "anchor"}

    def count(self, labels: Labels) -> dict[str, Tensor]:
        weight = labels.trainable()
        local = sum(weight[:, ids].sum() for ids in self.parts.values())
        return {**super().count(labels), "part": local, "part_frame": local}

    def place(self, name: str, face: Tensor) -> Tensor:
        """(B, 2, 3) maps from the inner frame to a part's crop; face (B, N, 2): landmarks in the inner frame."""
        return CALM * self.places[name](face.flatten(1)).view(-1, 2, 3)

    def local(self, images: Tensor, face: Tensor, matrix: Tensor):
        """Part by part: (name, landmarks (B, n, 2) in the part's crop, the map (B, 2, 3) from the outer frame to it, the same map
        for the term that anchors it).

        face (B, N, 2): landmarks in the inner frame of the maps `matrix` (B, 2, 3).
        """
        size = self.spec["input_size"]
        for name in self.parts:
            with torch.autocast(images.device.type, enabled=False):
                place, anchored = Anchored.apply(chain(matrix, self.place(name, face.float())))
                picture = resample(images, place, SIZE, size)
            moved = self.regressors[name](self.preprocess(picture)).flatten(1).float().unflatten(1, (-1, 2))
            yield name, getattr(self, f"mean_{name}") + 0.5 * moved, place, anchored

    def loss(self, images: Tensor, labels: Labels) -> dict[str, Tensor]:
        labels = known(labels)
        terms, maps, seen, matrix = self.global_loss(images, labels)
        face = self.decode(maps, seen).landmarks
        part, frame = [], []
        for name, points, place, anchored in self.local(images, face, matrix):
            truth, mean = labels.select(self.parts[name]), getattr(self, f"mean_{name}")
            weight = truth.trainable()
            # errors in the outer frame are those in the part's over its scale, also where a young map has no sane inverse
            apart = self.error((points - truth.warp(place).landmarks).abs() / UNIT).sum(-1) / determinant(place).sqrt()[:, None]
            part.append((weight * apart).sum())
            frame.append((weight * (truth.warp(anchored).landmarks - mean).abs().mean(-1)).sum())
        return {**terms, "part": sum(part), "part_frame": sum(frame)}

    def predict(self, images: Tensor) -> Prediction:
        whole, matrix = self.inner(images)
        found = outer(whole, matrix)
        parts = self.local(images, whole.landmarks, matrix)
        local = [Labels(points).warp(inverse(place)).landmarks for _, points, place, _ in parts]
        return found._replace(landmarks=torch.cat([found.landmarks, *local], 1)[:, self.order])


class PartsHead(CoordinateHead):
    """Coordinates part by part (the IRNet fork's PHA-REGR): each part has its own gate, 1x1 convolution and linear map.

    groups: landmarks of each part, every landmark in one of them.
    """

    keys = ("error",)
    terms = {"coordinate": "reg"}
    width = 128

    def __init__(self, channels: int, meanface: list[list[float]], groups: list[list[int]], error: str = "l1"):
        nn.Module.__init__(self)
        self.error, self.num_lms, self.spread = ERRORS[error], len(meanface), None
        self.branches = nn.ModuleList(nn.Sequential(
            SqueezeExcite(channels), nn.Conv2d(channels, self.width, 1, bias=False), nn.BatchNorm2d(self.width), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(self.width, 2 * len(ids), 1)) for ids in groups)
        for branch in self.branches:
            nn.init.normal_(branch[-1].weight, std=0.001)
            nn.init.zeros_(branch[-1].bias)
        order = torch.tensor([i for ids in groups for i in ids]).argsort()  # in: part by part
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("meanface", torch.tensor(meanface, dtype=torch.float32), persistent=False)

    @classmethod
    def of(cls, channels: int, spec: dict) -> "PartsHead":
        """From the spec of a net."""
        return cls(channels, spec["meanface"], spec.get("groups") or [list(range(len(spec["meanface"])))], **spec["options"])

    def forward(self, features: Tensor) -> Maps:
        """features (B, C, H, W)."""
        moved = torch.cat([branch(features).flatten(1).unflatten(1, (-1, 2)) for branch in self.branches], 1).float()
        return Maps(self.meanface + UNIT * moved[:, self.order])

    def grafted(self, *_args) -> dict[str, Tensor]:
        """Branches belong to their parts: no other layout's can start them."""
        raise ValueError("the branches of a head of parts fit no other landmarks; start from a net with another head")
