"""Faces as samples, in two views: augmented for training, plain for tests. Only uint8 crops and labels are moved."""
import copy
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from nets.labels import Labels
from pipnet.errors import UserError
from utils.faces.augment import augment, augment_pose, generator
from utils.faces.faces import Faces
from utils.faces.steps import Crop


def evenly(count: int, most: int) -> list[int]:
    """Return up to `most` of the indices 0 ... count - 1, evenly spread from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).astype(int).tolist()


class Batch(NamedTuple):
    """images (B, S, S, 3) uint8 BGR, with the margin that the net needs; labels in [0, 1] of the nominal crop; index (B,)."""
    images: torch.Tensor
    labels: Labels
    index: torch.Tensor


class Sample(NamedTuple):
    """One face as the net gets it, landmarks in [0, 1] of the crop; pose and states are None if no set of the faces has them."""
    image: np.ndarray      # (S, S, 3) uint8 BGR
    landmarks: np.ndarray  # (N, 2) float32
    weight: np.ndarray     # (N,) float32
    index: int
    pose: np.ndarray | None = None    # (3,) float32 pitch, yaw, roll in radians, NaN where unknown
    states: np.ndarray | None = None  # (k,) float32 0 or 1, NaN where unknown
    level: int | None = None          # which terms it trains, see Labels


def plain(faces: Faces, index: int) -> Sample:
    """Return a face as the net gets it without augmentation."""
    pose, states = extras(faces, index)
    return Sample(faces.crops.plain(index), faces.nominal(index), faces["visible"][index].astype(np.float32), index, pose, states)


def extras(faces: Faces, index: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return (pose (3,), states (k,)) of a face, None where the faces have none."""
    pose, states = (faces[name][index] if name in faces else None for name in ("pose", "states"))
    return pose, states


def _partners(names: list[str]) -> list[int]:
    """Return for each state the index that it has in a mirror image: the words left and right of its name change places."""
    other = {"left": "right", "right": "left"}
    mirrored = ["_".join(other.get(word, word) for word in name.split("_")) for name in names]
    return [names.index(twin) if twin in names else place for place, twin in enumerate(mirrored)]


def crop_of(faces: Faces, index: int, shift: float) -> Crop:
    """Return the stored crop of a face, before augmentation. shift: of the labels, in [0, 1] of the crop."""
    return Crop(faces.crops[index], faces.nominal(index), faces["visible"][index].astype(np.float32), faces.crops.size,
                faces.crops.seen, shift, *faces.frame(index))


class Augmented(Dataset):
    """Training view of `Faces`: item (pass, index) is face `index` as augmented in that pass over all, in any process."""

    def __init__(self, faces: Faces, recipe, flip_index, seed: int):
        self.faces, self.recipe, self.flip_index, self.seed = faces, recipe, flip_index, seed

    def name(self, index: int) -> str:
        """Return the name of a face, for errors."""
        return self.faces["file"][index]

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        number, index = key
        faces = self.faces
        crop = crop_of(faces, index, faces.shift(index))
        image, landmarks, weight, matrix = augment(crop, self.recipe, self.flip_index, generator(self.seed, number, index))
        pose, states = extras(faces, index)
        if pose is not None:
            pose = augment_pose(pose, matrix).astype(np.float32)
        if states is not None and np.linalg.det(matrix[:, :2]) < 0:
            states = states[_partners(faces.facts["states"])]
        level = faces["level"][index] if "level" in faces else None
        return Sample(image, landmarks.astype(np.float32), weight, index, pose, states, level)


class Order:
    """Batches of (pass, index) for one rank: a shuffle keyed by (seed, pass), without the incomplete last global batch.

    The global batch is the same for every number of ranks that divides it. A set smaller than a batch is one small batch.
    An epoch is one pass or part of one, unless `lasting` gives it more batches than that: then its passes are counted on.
    """

    def __init__(self, count: int, batch_size: int, accumulate: int, seed: int, rank: int = 0, ranks: int = 1):
        if count < ranks:
            raise UserError(f"{count} training faces are too few for {ranks} processes")
        self.count, self.seed, self.rank, self.ranks, self.epoch = count, seed, rank, ranks, 0
        self.batch = min(batch_size, count // ranks)
        self.batches = count // (self.batch * ranks)
        if self.batches < accumulate:
            raise UserError(f"accumulate is {accumulate}, but an epoch has {self.batches} batches; lower one of them")
        self.batches -= self.batches % accumulate

    def __len__(self) -> int:
        return self.batches

    def lasting(self, batches: int) -> "Order":
        """Return the order with that many batches an epoch; faces are shuffled and augmented anew whenever all have come."""
        order = copy.copy(self)
        order.batches = batches
        return order

    def __iter__(self):
        step = self.batch * self.ranks
        whole = self.count // step
        passes = -(-self.batches // whole)
        for number in range(self.batches):
            turn, place = divmod(number, whole)
            if place == 0:
                drawn = self.epoch * passes + turn
                shuffled = np.random.default_rng((self.seed, drawn)).permutation(self.count)
            start = place * step
            yield [(drawn, index) for index in shuffled[start + self.rank:start + step:self.ranks].tolist()]


def collate(samples: list[Sample]) -> Batch:
    """Stack samples into a Batch."""
    image, landmarks, weight, index, pose, states, level = (None if column[0] is None else np.stack(column)
                                                            for column in zip(*samples, strict=True))
    return Batch(torch.from_numpy(image), Labels.pack(landmarks, weight, pose, states, level), torch.from_numpy(index))


def test_batches(faces: Faces, batch_size: int, rank: int = 0, ranks: int = 1):
    """Yield plain batches of this rank's share of the faces; over all ranks each face comes once.

    A thread makes the next batch while one is used.
    """
    mine, made = range(rank, len(faces), ranks), None

    def batch(start: int) -> Batch:
        return collate([plain(faces, index) for index in mine[start:start + batch_size]])

    with ThreadPoolExecutor(1) as pool:
        for start in range(0, len(mine), batch_size):
            following = pool.submit(batch, start)
            if made:
                yield made.result()
            made = following
        if made:
            yield made.result()
