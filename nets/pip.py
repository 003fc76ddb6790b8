"""The Pixel-in-Pixel head (PIPNet, section 3): score map, offset and neighbor regression on one feature map.

A landmark is found in three steps: the cell of its score map with the largest value, the offset of the landmark inside that
cell, and the mean with the places where the landmarks that count it among their K nearest on the meanface expect it.
"""
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nets.labels import Labels, Prediction


class Maps(NamedTuple):
    """Outputs for W x H cells: score, offset_x, offset_y (B, N, H, W); neighbor_x, neighbor_y (B, N * K, H, W), landmark-major.
    Offsets are in cells from the left upper corner of the cell."""
    score: Tensor
    offset_x: Tensor
    offset_y: Tensor
    neighbor_x: Tensor
    neighbor_y: Tensor


class Targets(NamedTuple):
    """What the maps should hold at the cell of each landmark (nothing else is trained but the score).

    cell (B, N) = y * W + x; offset (B, N, 2) and neighbor (B, N, K, 2) in cells; weight (B, N), neighbor_weight (B, N, K);
    grid (H, W) in cells
    """
    cell: Tensor
    offset: Tensor
    neighbor: Tensor
    weight: Tensor
    neighbor_weight: Tensor
    grid: tuple[int, int]


def nearest_neighbors(meanface: np.ndarray, num_nb: int) -> list[list[int]]:
    """For each landmark of `meanface` (N, 2) the `num_nb` nearest others, nearest first. Raises ValueError for num_nb >= N."""
    meanface = np.asarray(meanface, np.float64).reshape(-1, 2)
    count = len(meanface)
    if not 0 <= num_nb < count:
        raise ValueError(f"num_nb must be 0 to {count - 1} for {count} landmarks, not {num_nb}")
    distance = ((meanface[:, None] - meanface[None]) ** 2).sum(-1)
    np.fill_diagonal(distance, -1.0)  # the landmark itself comes first even if another coincides with it
    return np.argsort(distance, axis=1, kind="stable")[:, 1:num_nb + 1].tolist()


def voters(neighbor_index: list[list[int]]) -> list[list[tuple[int, int]]]:
    """For each landmark the (landmark, slot) pairs that predict it, in that order."""
    found: list[list[tuple[int, int]]] = [[] for _ in neighbor_index]
    for landmark, neighbors in enumerate(neighbor_index):
        for slot, neighbor in enumerate(neighbors):
            found[neighbor].append((landmark, slot))
    return found


def merge_index(neighbor_index: list[list[int]]) -> Tensor:
    """(N, 1 + R) positions among the N * (1 + K) candidates (own, then K neighbors, a landmark) whose mean is the landmark.

    Lists of voters are repeated cyclically to the longest, R, as published (so the mean is slightly uneven); a landmark
    that nobody predicts keeps its own value.
    """
    k = len(neighbor_index[0])
    lists = voters(neighbor_index)
    longest = max(len(votes) for votes in lists)
    rows = []
    for landmark, votes in enumerate(lists):
        own = landmark * (k + 1)
        places = [voter * (k + 1) + 1 + slot for voter, slot in votes] or [own]
        rows.append([own] + [places[i % len(places)] for i in range(longest)])
    return torch.tensor(rows)


class PIPHead(nn.Module):
    """Five 1x1 convolutions on a feature map of `channels`; K = number of columns of `neighbor_index` (N, K)."""

    # the key of args.yaml that weighs each term of the loss
    terms = {"score": "cls", "offset_x": "reg", "offset_y": "reg", "neighbor_x": "reg", "neighbor_y": "reg"}

    def __init__(self, channels: int, neighbor_index: list[list[int]]):
        super().__init__()
        self.num_lms, self.num_nb = len(neighbor_index), len(neighbor_index[0])
        self.score = nn.Conv2d(channels, self.num_lms, 1)
        self.offset_x = nn.Conv2d(channels, self.num_lms, 1)
        self.offset_y = nn.Conv2d(channels, self.num_lms, 1)
        if self.num_nb:
            self.neighbor_x = nn.Conv2d(channels, self.num_lms * self.num_nb, 1)
            self.neighbor_y = nn.Conv2d(channels, self.num_lms * self.num_nb, 1)
        for conv in self.children():
            nn.init.normal_(conv.weight, std=0.001)
            nn.init.zeros_(conv.bias)
        index = torch.tensor(neighbor_index, dtype=torch.long).reshape(self.num_lms, -1)
        self.register_buffer("neighbor_index", index, persistent=False)
        self.register_buffer("merge_index", merge_index(neighbor_index), persistent=False)

    def forward(self, features: Tensor) -> Maps:
        """features (B, C, H, W)."""
        score = self.score(features)
        if self.num_nb:
            neighbor_x, neighbor_y = self.neighbor_x(features), self.neighbor_y(features)
        else:
            neighbor_x = neighbor_y = score[:, :0]
        return Maps(score, self.offset_x(features), self.offset_y(features), neighbor_x, neighbor_y)

    def encode(self, labels: Labels, grid: tuple[int, int]) -> Targets:
        """Targets on `grid` (H, W) cells. A landmark outside the crop belongs to the nearest cell, its offset unclamped."""
        weight = labels.trainable()
        size = labels.landmarks.new_tensor([grid[1], grid[0]])
        position = torch.nan_to_num(labels.landmarks, nan=0.5, posinf=0.5, neginf=0.5) * size  # (B, N, 2) in cells
        cell = torch.minimum(position.floor().clamp(min=0), size - 1)
        neighbor = position[:, self.neighbor_index] - cell[:, :, None]
        neighbor_weight = weight[:, :, None] * weight[:, self.neighbor_index]
        flat = (cell[..., 1] * grid[1] + cell[..., 0]).long()
        return Targets(flat, position - cell, neighbor, weight, neighbor_weight, grid)

    def loss(self, maps: Maps, targets: Targets) -> dict[str, tuple[Tensor, Tensor]]:
        """{term: (sum, count)}: squared error of the score over all cells, absolute errors at the landmark's cell (3.2)."""
        score, offset, neighbor = self._at(maps, targets.cell)
        flat = maps.score.float().flatten(2)
        # sum over cells of (map - one-hot target)^2, without making the dense target
        squares = flat.square().sum(2) - 2 * score + 1
        terms = {"score": ((targets.weight * squares).sum(), targets.weight.sum() * flat.shape[2])}
        for axis, name in enumerate("xy"):
            error = (offset[..., axis] - targets.offset[..., axis]).abs()
            terms[f"offset_{name}"] = ((targets.weight * error).sum(), targets.weight.sum())
        if self.num_nb:
            for axis, name in enumerate("xy"):
                error = (neighbor[..., axis] - targets.neighbor[..., axis]).abs()
                terms[f"neighbor_{name}"] = ((targets.neighbor_weight * error).sum(), targets.neighbor_weight.sum())
        return terms

    def decode(self, maps: Maps) -> Prediction:
        """Landmarks in [0, 1] of the crop and the score at the chosen cell (section 3.3)."""
        height, width = maps.score.shape[-2:]
        cell = maps.score.float().flatten(2).argmax(2)
        score, offset, neighbor = self._at(maps, cell)
        corner = torch.stack([cell % width, cell.div(width, rounding_mode="floor")], -1).float()  # (B, N, 2) in cells
        candidates = torch.cat([offset[:, :, None], neighbor], 2) + corner[:, :, None]  # (B, N, 1 + K, 2)
        merged = candidates.flatten(1, 2)[:, self.merge_index].mean(2)
        return Prediction(merged / merged.new_tensor([width, height]), score.clamp(0, 1))

    def ideal(self, targets: Targets) -> Maps:
        """Maps that decode to exactly the landmarks that `targets` were made of."""
        (batch, count), (height, width) = targets.cell.shape, targets.grid

        def put(values: Tensor) -> Tensor:  # (B, N, M) at the landmarks' cells of (B, N * M, H, W)
            maps = values.new_zeros(batch, count, values.shape[2], height * width)
            places = targets.cell[:, :, None, None].expand(-1, -1, values.shape[2], 1)
            return maps.scatter(3, places, values[..., None]).reshape(batch, -1, height, width)

        return Maps(put(torch.ones_like(targets.offset[..., :1])), put(targets.offset[..., :1]), put(targets.offset[..., 1:]),
                    put(targets.neighbor[..., 0]), put(targets.neighbor[..., 1]))

    def _at(self, maps: Maps, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values at `cell` (B, N), in float32: score (B, N), offset (B, N, 2), neighbor (B, N, K, 2)."""
        def pick(values: Tensor, many: int) -> Tensor:
            values = values.reshape(-1, self.num_lms, many, maps.score.shape[-2] * maps.score.shape[-1])
            return values.gather(3, cell[:, :, None, None].expand(-1, -1, many, 1)).squeeze(3).float()

        score = pick(maps.score, 1).squeeze(2)
        offset = torch.cat([pick(maps.offset_x, 1), pick(maps.offset_y, 1)], 2)
        if not self.num_nb:
            return score, offset, offset[:, :, None][:, :, :0]
        return score, offset, torch.stack([pick(maps.neighbor_x, self.num_nb), pick(maps.neighbor_y, self.num_nb)], -1)


class Neck(nn.Module):
    """Brings a stride-32 feature map to the head's stride: transposed convolutions below 32, strided ones above (PIPNet, 4.5.2).

    Published for stride 16, 64 and 128; stride 8 doubles the step of 16.
    """

    width = 512

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.channels = channels if stride == 32 else self.width
        self.steps: list[tuple[str, str]] = []
        below = {32: 0, 16: 1, 8: 2}.get(stride, 0)
        above = {32: 0, 64: 1, 128: 2}.get(stride, 0)
        for i in range(below + above):
            source = channels if i == 0 else self.width
            if below:
                conv, names = nn.ConvTranspose2d(source, self.width, 4, 2, 1, bias=False), (f"deconv{i + 1}", f"bn_deconv{i + 1}")
            else:
                conv, names = nn.Conv2d(source, self.width, 3, 2, 1), (f"layer{i + 5}", f"bn{i + 5}")
            nn.init.normal_(conv.weight, std=0.001)
            self.add_module(names[0], conv)
            self.add_module(names[1], nn.BatchNorm2d(self.width))
            self.steps.append(names)

    def forward(self, pyramid: dict[int, Tensor]) -> Tensor:
        """{stride: (B, C, H, W)} -> (B, channels, H', W') at the head's stride."""
        features = pyramid[32]
        for conv, norm in self.steps:
            features = torch.relu(getattr(self, norm)(getattr(self, conv)(features)))
        return features
