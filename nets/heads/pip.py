"""The Pixel-in-Pixel head (PIPNet, section 3): score map, offset and neighbor regression on one feature map.

A landmark is found in three steps: the cell with the largest value of its score map; the offset inside that cell; the
mean of this place and of the predictions of other landmarks, namely those that have it among their K nearest on the
meanface.
"""

from math import ceil
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.blocks import start_small
from nets.heads.base import Head, from_cells, in_cells
from nets.heads.remap import Origins, remap
from nets.labels import Labels, Prediction
from nets.losses import bounded, error_form, laplace_loss

BEYOND = 0.3  # share of the neighbors that further sets label too


class PIPMaps(NamedTuple):
    """Outputs for W x H cells: score, offset_x, offset_y (B, N, H, W); neighbor_x, neighbor_y (B, N * K, H, W),
    landmark-major.

    Offsets are in cells from the upper left corner of the cell. log_scale (B, N * (1 + K), H, W): logarithm of the
    expected error in cells, of the offset first, then of each neighbor; None if the net does not predict it. coarser:
    score maps of the features after each further 2x2 max-pool, see `PIPHead.levels`.
    """

    score: Tensor
    offset_x: Tensor
    offset_y: Tensor
    neighbor_x: Tensor
    neighbor_y: Tensor
    log_scale: Tensor | None = None
    coarser: tuple[Tensor, ...] = ()


class PIPTargets(NamedTuple):
    """Targets at the cell of each landmark; all other cells train the score map only.

    cell (B, N) = y * W + x; place (B, N, 1 + K, 2): the landmark and its neighbors, in cells from the corner of that
    cell; weight (B, N, 1 + K); coarser: (cell, weight) of each coarser score map
    """

    cell: Tensor
    place: Tensor
    weight: Tensor
    coarser: tuple[tuple[Tensor, Tensor], ...] = ()


class Candidates(NamedTuple):
    """Predictions of the landmarks' best cells.

    score (B, N); place (B, N * (1 + K), 2) in cells, of each landmark and its neighbors; log_scale (B, N * (1 + K)),
    None if it is not predicted. `merge_index` says which of them are merged.
    """

    score: Tensor
    place: Tensor
    log_scale: Tensor | None


def nearest_neighbors(meanface: np.ndarray, num_nb: int) -> list[list[int]]:
    """Return for each landmark of `meanface` (N, 2) its `num_nb` nearest others, nearest first.
    ValueError for num_nb >= N.
    """
    meanface = np.asarray(meanface, np.float64).reshape(-1, 2)
    count = len(meanface)
    if not 0 <= num_nb < count:
        raise ValueError(f"num_nb must be 0 to {count - 1} for {count} landmarks, not {num_nb}")
    distance = ((meanface[:, None] - meanface[None]) ** 2).sum(-1)
    np.fill_diagonal(distance, -1.0)  # the landmark itself comes first even if another coincides with it
    return np.argsort(distance, axis=1, kind="stable")[:, 1 : num_nb + 1].tolist()


def neighbors_across(meanface: np.ndarray, num_nb: int, labelled: np.ndarray) -> list[list[int]]:
    """Return the neighbors of each landmark if sets label different landmarks: labelled (S, N) bool.

    A neighbor is learnt from faces that have both landmarks, so some set labels both. A share BEYOND of the neighbors,
    if there are so many, is also labelled by sets that do not label the landmark: in their faces these neighbors help
    to find it. If there are too few neighbors, they are repeated; a landmark without any is its own neighbor.
    """
    found, want = [], ceil(num_nb * BEYOND)
    for landmark, order in enumerate(nearest_neighbors(meanface, len(meanface) - 1)):
        mine = labelled[:, landmark]
        near = [other for other in order if (mine & labelled[:, other]).any()] or [landmark]
        beyond = [other for other in near if (labelled[:, other] & ~mine).any()][:want]
        others = [other for other in near if other not in beyond][: num_nb - len(beyond)]
        chosen = sorted([*beyond, *others], key=near.index)
        found.append([chosen[slot % len(chosen)] for slot in range(num_nb)])
    return found


def voters(neighbor_index: list[list[int]]) -> list[list[tuple[int, int]]]:
    """Return for each landmark the (landmark, slot) pairs that predict it, in that order."""
    found: list[list[tuple[int, int]]] = [[] for _ in neighbor_index]
    for landmark, neighbors in enumerate(neighbor_index):
        for slot, neighbor in enumerate(neighbors):
            found[neighbor].append((landmark, slot))
    return found


def merge_index(neighbor_index: list[list[int]]) -> Tensor:
    """Return (N, 1 + R) positions among the N * (1 + K) candidates whose mean is the landmark.

    Each landmark has 1 + K candidates: its own place, then those of its K neighbors. As published, the lists of voters
    are repeated cyclically to the length R of the longest, so that some voters get more weight. A landmark without
    voters keeps its own place.
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


def landmark_channels(count: int, num_nb: int, sigma: bool) -> Tensor:
    """Return (N, M), the channels of each of `count` landmarks in the joined maps of `PIPMaps`.

    They are its score, x and y of its own place and of each neighbor's place, then its log scales.
    """
    widths = [1, 1, 1, num_nb, num_nb, (1 + num_nb) * sigma]
    score, x, y, neighbor_x, neighbor_y, scales = (
        part.view(count, -1) for part in torch.arange(count * sum(widths)).split([count * width for width in widths])
    )
    place = torch.stack([torch.cat([x, neighbor_x], 1), torch.cat([y, neighbor_y], 1)], 2)
    return torch.cat([score, place.flatten(1), scales], 1)


class PIPHead(Head):
    """Five 1x1 convolutions on a feature map of `channels`; K is the number of columns of spec["neighbor_index"] (N,
    K).

    error: form of the regression losses (a row of ERRORS). cls_error: form of the score loss, l2 or l1. sigma, beyond
    the paper: a sixth convolution that predicts the error of each offset and neighbor, with which the merge weighs them.
    The attribute `levels` is the number of score maps in training, 1 at first. 3 adds the score maps after one and after
    two 2x2 max-pools; samples of level 1 or 2 train only that map (the paper's self-training with curriculum). Inference
    does not need them.
    """

    neighbor_index: Tensor
    around: Tensor
    merge_index: Tensor
    channels: Tensor

    def __init__(
        self,
        channels: int,
        spec: dict,
        error: str = "l1",
        sigma: bool = False,
        cls_error: str = "l2",
    ):
        super().__init__()
        self.levels = 1
        neighbor_index = spec["neighbor_index"]
        self.error = error_form(error)
        self.cls_error = cls_error
        self.num_lms, self.num_nb = len(neighbor_index), len(neighbor_index[0])
        self.score = nn.Conv2d(channels, self.num_lms, 1)
        self.offset_x = nn.Conv2d(channels, self.num_lms, 1)
        self.offset_y = nn.Conv2d(channels, self.num_lms, 1)
        if self.num_nb:
            self.neighbor_x = nn.Conv2d(channels, self.num_lms * self.num_nb, 1)
            self.neighbor_y = nn.Conv2d(channels, self.num_lms * self.num_nb, 1)
        self.log_scale = nn.Conv2d(channels, self.num_lms * (1 + self.num_nb), 1) if sigma else None
        start_small(*self.children())
        index = torch.tensor(neighbor_index, dtype=torch.long).reshape(self.num_lms, -1)
        for name, values in {
            "neighbor_index": index,
            "around": torch.cat([torch.arange(self.num_lms)[:, None], index], 1),
            "merge_index": merge_index(neighbor_index),
            "channels": landmark_channels(self.num_lms, self.num_nb, sigma),
        }.items():
            self.register_buffer(name, values, persistent=False)

    @staticmethod
    def plan(meanface: np.ndarray, num_nb: int, labelled: np.ndarray | None = None) -> dict:
        """Return the neighbors, which follow from the meanface and from what the sets label."""
        near = nearest_neighbors(meanface, num_nb)  # also a check of num_nb
        return {"neighbor_index": near if labelled is None else neighbors_across(meanface, num_nb, labelled)}

    def forward(self, features: Tensor) -> PIPMaps:
        """Return maps from features (B, C, H, W)."""
        score = self.score(features)
        if self.num_nb:
            neighbor_x, neighbor_y = self.neighbor_x(features), self.neighbor_y(features)
        else:
            neighbor_x = neighbor_y = score[:, :0]
        log_scale = self.log_scale(features) if self.log_scale else None
        coarser, pooled = [], features
        for _ in range(self.levels - 1):
            pooled = F.max_pool2d(pooled, 2)
            coarser.append(self.score(pooled))
        return PIPMaps(
            score, self.offset_x(features), self.offset_y(features), neighbor_x, neighbor_y, log_scale, tuple(coarser)
        )

    def denominators(self, labels: Labels, grid: tuple[int, int]) -> dict[str, Tensor]:
        weight = labels.weight_of(0)
        own, others = weight.sum(), self._of_neighbors(weight).sum()
        counts = {"score": own, "offset_x": own, "offset_y": own}
        for level in self._coarse_levels(labels):
            share = (grid[0] >> level) * (grid[1] >> level) / (grid[0] * grid[1])  # of the cells of `grid`
            counts["score"] = counts["score"] + labels.weight_of(level).sum() * share
        if self.num_nb:
            counts |= {"neighbor_x": others, "neighbor_y": others}
        if self.log_scale:
            counts["log_scale"] = own + others
        return counts

    def encode(self, labels: Labels, grid: tuple[int, int]) -> PIPTargets:
        """Return targets on `grid` (H, W) cells.
        A landmark outside the crop takes the nearest cell, its offset unclamped.
        """
        position, weight, coarser = in_cells(labels.landmarks, grid), labels.weight_of(0), []
        column, row = (
            part.clamp(0, cells - 1) for part, cells in zip(position.floor().unbind(-1), grid[::-1], strict=True)
        )
        place = position[:, self.around] - torch.stack([column, row], -1)[:, :, None]
        for level in self._coarse_levels(labels):
            height, width = grid[0] >> level, grid[1] >> level
            # the cell whose pooled features hold those of the finer cell
            coarse = (row.long() >> level).clamp(max=height - 1) * width + (column.long() >> level).clamp(max=width - 1)
            coarser.append((coarse, labels.weight_of(level)))
        weights = torch.cat([weight[:, :, None], self._of_neighbors(weight)], 2)
        return PIPTargets((row * grid[1] + column).long(), place, weights, tuple(coarser))

    def loss(self, maps: PIPMaps, targets: PIPTargets) -> dict[str, Tensor]:
        """Return {term: sum}: mean error of the score's cells, errors at the landmark's cell (section 3.2)."""
        score, place, log_scale = self._at(maps, targets.cell)
        flat = maps.score.float().flatten(2)
        total = self._score_error(flat, score, targets.weight[:, :, 0])
        # without coarser targets all samples are of level 0
        for coarse, (cell, weight) in zip(maps.coarser, targets.coarser, strict=False):
            level = coarse.float().flatten(2)
            total = total + self._score_error(level, level.gather(2, cell[:, :, None]).squeeze(2), weight)
        errors = (place - targets.place).abs()  # (B, N, 1 + K, 2)
        weighted = targets.weight[..., None] * self.error(errors)
        own, neighbors = weighted.sum((0, 1)).split([1, self.num_nb])
        offset_x, offset_y = own.flatten().unbind()
        terms = {"score": total / flat.shape[2], "offset_x": offset_x, "offset_y": offset_y}
        if self.num_nb:
            terms["neighbor_x"], terms["neighbor_y"] = neighbors.sum(0).unbind()
        if log_scale is not None:
            terms["log_scale"] = laplace_loss(targets.weight, errors, log_scale)
        return terms

    def decode(self, maps: PIPMaps) -> Prediction:
        """Return landmarks in [0, 1] of the crop and the score at the chosen cell (section 3.3).

        With `log_scale`, candidates are weighted by the inverse square of their expected errors; sigma is the weighted
        mean of these errors.
        """
        return self._merge(self._candidates(maps), maps.score.shape[-2:])

    def decode_with_spread(self, maps: PIPMaps) -> tuple[Prediction, Tensor]:
        candidates, grid = self._candidates(maps), maps.score.shape[-2:]
        votes = candidates.place[:, self.merge_index]
        apart = from_cells(votes - votes.mean(2, keepdim=True), grid)
        return self._merge(candidates, grid), apart.square().sum(-1).mean(2).sqrt()

    def scores(self, maps: PIPMaps) -> Tensor:
        return maps.score.float() / (maps.score.shape[-2] * maps.score.shape[-1]) ** 0.5

    def remapped(self, state: dict[str, Tensor], old: dict, new: dict, origins: Origins, meanface: np.ndarray) -> dict:
        """Return the head's tensors, see `Head.remapped`; each landmark is also shifted from its origin to its own
        place.
        """
        cells = new["input_size"] / new["stride"]
        return remap(
            state,
            old["neighbor_index"],
            new["neighbor_index"],
            Origins(origins.landmark, origins.place * cells),
            meanface * cells,
        )

    def _coarse_levels(self, labels: Labels) -> range:
        """Return the levels beside 0 that samples may have."""
        return range(1, self.levels if "level" in labels.form else 1)

    def _of_neighbors(self, weight: Tensor) -> Tensor:
        """Return the weights (B, N, K) of the neighbors from those of the landmarks (B, N)."""
        return weight[:, :, None] * weight[:, self.neighbor_index]

    def _at(self, maps: PIPMaps, cell: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return float32 values at `cell` (B, N): score (B, N), places (B, N, 1 + K, 2) of the landmark and its
        neighbors, and log scales (B, N, 1 + K), None if these are not predicted.
        """
        joined = torch.cat([part for part in maps[:6] if part is not None], 1)
        # one gather for all maps, each cell with its channels: a training has them side by side in memory
        index = cell[:, :, None] * joined.shape[1] + self.channels
        found = joined.permute(0, 2, 3, 1).flatten(1).gather(1, index.flatten(1)).float().view(index.shape)
        score, place, log_scale = found.split([1, 2 + 2 * self.num_nb, index.shape[2] - 3 - 2 * self.num_nb], 2)
        return score.squeeze(2), place.unflatten(2, (-1, 2)), None if maps.log_scale is None else bounded(log_scale)

    def _score_error(self, maps: Tensor, score: Tensor, weight: Tensor) -> Tensor:
        """Return the weighted sum of the errors of all cells.
        maps (B, N, cells); score (B, N): their value in the cell with target 1; the target of all other cells is 0.
        """
        if self.cls_error == "l2":
            errors = maps.square().sum(2) - 2 * score + 1
        else:
            errors = maps.abs().sum(2) - score.abs() + (1 - score).abs()
        return (weight * errors).sum()

    def _candidates(self, maps: PIPMaps) -> Candidates:
        """Return what each landmark's best cell predicts."""
        width = maps.score.shape[-1]
        cell = maps.score.float().flatten(2).argmax(2)
        score, place, log_scale = self._at(maps, cell)
        row = cell.div(width, rounding_mode="floor")
        # converters may give the quotient as a float, so each part becomes one before they are stacked
        corner = torch.stack([(cell % width).float(), row.float()], -1)  # (B, N, 2) in cells
        return Candidates(
            score, (place + corner[:, :, None]).flatten(1, 2), None if log_scale is None else log_scale.flatten(1)
        )

    def _merge(self, candidates: Candidates, grid: tuple[int, ...]) -> Prediction:
        """Return the prediction on a `grid` (H, W)."""
        score, place, log_scale = candidates
        if log_scale is None:
            return Prediction(from_cells(place[:, self.merge_index].mean(2), grid), score.clamp(0, 1), None)
        trust, weighted = ((power * log_scale).exp()[..., None] for power in (-2, -1))
        # the sums of all weighted values in one step, which is faster in exports than a gather and a sum for each
        sums = torch.cat([trust * place, weighted, trust], 2)[:, self.merge_index].sum(2)
        merged, sigma = (sums[..., :3] / sums[..., 3:]).split([2, 1], -1)
        return Prediction(from_cells(merged, grid), score.clamp(0, 1), sigma.squeeze(-1) / (grid[1] * grid[0]) ** 0.5)
