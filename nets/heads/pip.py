"""The Pixel-in-Pixel head (PIPNet, section 3): score map, offset and neighbor regression on one feature map.

A landmark is found in three steps: the cell of its score map with the largest value, the offset of the landmark inside that
cell, and the mean with the places where the landmarks that count it among their K nearest on the meanface expect it.
"""
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nets.convert.transplant import Sources, transplant
from nets.heads.base import Head
from nets.labels import Labels, Prediction
from nets.losses import ERRORS


class Maps(NamedTuple):
    """Outputs for W x H cells: score, offset_x, offset_y (B, N, H, W); neighbor_x, neighbor_y (B, N * K, H, W), landmark-major.

    Offsets are in cells from the left upper corner of the cell. spread (B, N * (1 + K), H, W): logarithm of the error to expect
    of the offset (first) and of each neighbor, in cells; None where the net does not predict it.
    """
    score: Tensor
    offset_x: Tensor
    offset_y: Tensor
    neighbor_x: Tensor
    neighbor_y: Tensor
    spread: Tensor | None = None


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


class PIPHead(Head):
    """Five 1x1 convolutions on a feature map of `channels`; K = number of columns of `neighbor_index` (N, K).

    Beyond the paper, where asked for: error, the form of the regression losses (a name in nets/losses.py); score_width, the
    standard deviation in cells of a Gaussian score target (0: one cell); sigma: a sixth convolution predicts how far off each
    offset and neighbor is (Laplace likelihood), and the merge trusts them accordingly.
    """

    strides = (32, 16, 8, 64, 128)
    keys = ("num_nb", "error", "score_width", "sigma")
    terms = {"score": "cls", "offset_x": "reg", "offset_y": "reg", "neighbor_x": "reg", "neighbor_y": "reg", "spread": "sigma"}

    def __init__(self, channels: int, neighbor_index: list[list[int]], error: str = "l1", score_width: float = 0.0,
                 sigma: bool = False):
        super().__init__()
        self.error, self.score_width = ERRORS[error], score_width
        self.num_lms, self.num_nb = len(neighbor_index), len(neighbor_index[0])
        self.score = nn.Conv2d(channels, self.num_lms, 1)
        self.offset_x = nn.Conv2d(channels, self.num_lms, 1)
        self.offset_y = nn.Conv2d(channels, self.num_lms, 1)
        if self.num_nb:
            self.neighbor_x = nn.Conv2d(channels, self.num_lms * self.num_nb, 1)
            self.neighbor_y = nn.Conv2d(channels, self.num_lms * self.num_nb, 1)
        self.spread = nn.Conv2d(channels, self.num_lms * (1 + self.num_nb), 1) if sigma else None
        for conv in self.children():
            nn.init.normal_(conv.weight, std=0.001)
            nn.init.zeros_(conv.bias)
        index = torch.tensor(neighbor_index, dtype=torch.long).reshape(self.num_lms, -1)
        self.register_buffer("neighbor_index", index, persistent=False)
        self.register_buffer("merge_index", merge_index(neighbor_index), persistent=False)

    @staticmethod
    def plan(meanface: np.ndarray, num_nb: int) -> dict:
        """The meanface decides the neighbors."""
        return {"neighbor_index": nearest_neighbors(meanface, num_nb)}

    @classmethod
    def of(cls, channels: int, spec: dict) -> "PIPHead":
        """From the spec of a net."""
        return cls(channels, spec["neighbor_index"], **spec.get("options", {}))

    def grafted(self, state: dict[str, Tensor], old: dict, new: dict, sources: Sources, meanface: np.ndarray) -> dict:
        """As every head's; a landmark that is only near its source goes the rest of the way too."""
        cells = new["input_size"] / new["stride"]
        return transplant(state, old["neighbor_index"], new["neighbor_index"], Sources(sources.landmark, sources.place * cells),
                          meanface * cells)

    def forward(self, features: Tensor) -> Maps:
        """features (B, C, H, W)."""
        score = self.score(features)
        if self.num_nb:
            neighbor_x, neighbor_y = self.neighbor_x(features), self.neighbor_y(features)
        else:
            neighbor_x = neighbor_y = score[:, :0]
        spread = self.spread(features) if self.spread else None
        return Maps(score, self.offset_x(features), self.offset_y(features), neighbor_x, neighbor_y, spread)

    def encode(self, labels: Labels, grid: tuple[int, int]) -> Targets:
        """Targets on `grid` (H, W) cells. A landmark outside the crop belongs to the nearest cell, its offset unclamped."""
        weight, neighbor_weight = self._weights(labels)
        known = torch.nan_to_num(labels.landmarks, nan=0.5, posinf=0.5, neginf=0.5)
        # (B, N, 2) in cells; by axis, since a tensor made of numbers would have to wait for a GPU
        position = torch.stack([known[..., axis] * grid[1 - axis] for axis in (0, 1)], -1)
        cell = torch.stack([position[..., axis].floor().clamp(0, grid[1 - axis] - 1) for axis in (0, 1)], -1)
        neighbor = position[:, self.neighbor_index] - cell[:, :, None]
        flat = (cell[..., 1] * grid[1] + cell[..., 0]).long()
        return Targets(flat, position - cell, neighbor, weight, neighbor_weight, grid)

    def count(self, labels: Labels) -> dict[str, Tensor]:
        """{term: count}, what divides the sums of `loss`; known before the net has seen a picture."""
        weight, neighbor_weight = (part.sum() for part in self._weights(labels))
        counts = {"score": weight, "offset_x": weight, "offset_y": weight}
        if self.num_nb:
            counts |= {"neighbor_x": neighbor_weight, "neighbor_y": neighbor_weight}
        return {**counts, "spread": weight + neighbor_weight} if self.spread else counts

    def loss(self, maps: Maps, targets: Targets) -> dict[str, Tensor]:
        """{term: sum}: mean squared error of the score's cells, absolute errors at the landmark's cell (3.2)."""
        score, offset, neighbor = self._at(maps, targets.cell)
        flat = maps.score.float().flatten(2)
        # sum over cells of (map - target)^2, without making the dense target
        correlation, energy = self._gaussian(maps.score.float(), targets) if self.score_width else (score, 1.0)
        squares = flat.square().sum(2) - 2 * correlation + energy
        terms = {"score": (targets.weight * squares).sum() / flat.shape[2]}
        # the offset is candidate 0 of a landmark, its neighbors follow
        errors = torch.cat([(offset - targets.offset)[:, :, None], neighbor - targets.neighbor], 2).abs()  # (B, N, 1 + K, 2)
        weight = torch.cat([targets.weight[:, :, None], targets.neighbor_weight], 2)
        for name, part in [("offset", slice(1)), ("neighbor", slice(1, None))][:1 + (self.num_nb > 0)]:
            for axis in range(2):
                terms[f"{name}_{'xy'[axis]}"] = (weight[:, :, part] * self.error(errors[:, :, part, axis])).sum()
        if maps.spread is not None:
            # -log of a Laplace density with the predicted scale, times that scale: otherwise the easy landmarks' gradients,
            # divided by their small scales, would drown the others'; its only minimum is the mean error
            spread = self._spread_at(maps, targets.cell)
            scale = spread.exp()
            terms["spread"] = (weight * scale.detach() * (errors.detach().mean(-1) / scale + spread)).sum()
        return terms

    def decode(self, maps: Maps) -> Prediction:
        """Landmarks in [0, 1] of the crop and the score at the chosen cell (section 3.3).

        With `spread`, candidates weigh by the inverse square of their expected errors, and sigma is the weighted mean of these.
        """
        height, width = maps.score.shape[-2:]
        cell = maps.score.float().flatten(2).argmax(2)
        score, offset, neighbor = self._at(maps, cell)
        corner = torch.stack([cell % width, cell.div(width, rounding_mode="floor")], -1).float()  # (B, N, 2) in cells
        candidates = torch.cat([offset[:, :, None], neighbor], 2) + corner[:, :, None]  # (B, N, 1 + K, 2)
        votes, sigma = candidates.flatten(1, 2)[:, self.merge_index], None
        if maps.spread is None:
            merged = votes.mean(2)
        else:
            scale = self._spread_at(maps, cell).exp().flatten(1)[:, self.merge_index]
            trust = scale.pow(-2)
            trust = trust / trust.sum(2, keepdim=True)
            merged, sigma = (trust[..., None] * votes).sum(2), (trust * scale).sum(2) / (width * height) ** 0.5
        return Prediction(merged / merged.new_tensor([width, height]), score.clamp(0, 1), sigma)

    def scores(self, maps: Maps) -> Tensor:
        """(B, N, H, W)."""
        return maps.score.float() / (maps.score.shape[-2] * maps.score.shape[-1]) ** 0.5

    def ideal(self, targets: Targets) -> Maps:
        """Maps that decode to exactly the landmarks that `targets` were made of."""
        (batch, count), (height, width) = targets.cell.shape, targets.grid

        def put(values: Tensor) -> Tensor:  # (B, N, M) at the landmarks' cells of (B, N * M, H, W)
            maps = values.new_zeros(batch, count, values.shape[2], height * width)
            places = targets.cell[:, :, None, None].expand(-1, -1, values.shape[2], 1)
            return maps.scatter(3, places, values[..., None]).reshape(batch, -1, height, width)

        return Maps(put(torch.ones_like(targets.offset[..., :1])), put(targets.offset[..., :1]), put(targets.offset[..., 1:]),
                    put(targets.neighbor[..., 0]), put(targets.neighbor[..., 1]),
                    targets.offset.new_zeros(batch, count * (1 + self.num_nb), height, width) if self.spread else None)

    def _gaussian(self, score: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Of Gaussians at the landmarks, one at their peaks: (B, N) sum of map times Gaussian, (B, N) sum of its square."""
        height, width = targets.grid
        place = torch.stack([targets.cell % width, targets.cell.div(width, rounding_mode="floor")], -1) + targets.offset

        def profile(axis: int, cells: int) -> Tensor:
            distance = torch.arange(cells, device=score.device) + 0.5 - place[..., axis, None]
            return torch.exp(-0.5 * (distance / self.score_width).square())

        across, down = profile(0, width), profile(1, height)
        # not einsum, a matrix product, which autocast would round to 16 bits: the terms of the square nearly cancel
        correlation = ((score * across[:, :, None]).sum(3) * down).sum(2)
        return correlation, across.square().sum(2) * down.square().sum(2)

    def _weights(self, labels: Labels) -> tuple[Tensor, Tensor]:
        """What each landmark (B, N) and each of its neighbors (B, N, K) counts in the loss."""
        weight = labels.trainable()
        return weight, weight[:, :, None] * weight[:, self.neighbor_index]

    def _at(self, maps: Maps, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values at `cell` (B, N), in float32: score (B, N), offset (B, N, 2), neighbor (B, N, K, 2)."""
        score = self._pick(maps.score, cell).squeeze(2)
        offset = torch.cat([self._pick(maps.offset_x, cell), self._pick(maps.offset_y, cell)], 2)
        if not self.num_nb:
            return score, offset, offset[:, :, None][:, :, :0]
        return score, offset, torch.stack([self._pick(maps.neighbor_x, cell), self._pick(maps.neighbor_y, cell)], -1)

    def _spread_at(self, maps: Maps, cell: Tensor) -> Tensor:
        """(B, N, 1 + K) float32, within what a float can be raised to."""
        return self._pick(maps.spread, cell).clamp(-8, 4)

    def _pick(self, values: Tensor, cell: Tensor) -> Tensor:
        """(B, N * M, H, W) at `cell` (B, N) -> (B, N, M) float32."""
        many = values.shape[1] // self.num_lms
        values = values.reshape(-1, self.num_lms, many, values.shape[-2] * values.shape[-1])
        return values.gather(3, cell[:, :, None, None].expand(-1, -1, many, 1)).squeeze(3).float()
