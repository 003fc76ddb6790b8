"""Labelled and unlabelled faces in one training: faces with pseudo-labels beside others, or unlabelled views in each batch."""
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from nets.labels import Weak
from pipnet.geometry import compose, invert, to_image
from utils.faces.augment import augment, generator
from utils.faces.dataset import Augmented, Batch, Order, Sample, collate, crop_of
from utils.faces.faces import Faces, constant
from utils.faces.prepared_set import name_hash
from utils.faces.steps import Crop


def labelled_rows(identities: Iterable[str], fraction: float, seed: int) -> np.ndarray:
    """Return (M,) bool: which faces keep their labels, those of that share of the identities, at least of one."""
    drawn = np.array([int.from_bytes(name_hash(f"{seed}/labelled/{name}")[:8]) for name in identities], np.uint64)
    order = np.unique(drawn)  # of the identities
    return drawn <= order[max(round(fraction * len(order)), 1) - 1] if len(order) else np.zeros(0, bool)


def pseudo_labelled(faces: Faces, nominal: np.ndarray, shift: float, level: int) -> Faces:
    """Return the faces with pseudo-labels (M, N, 2) in [0, 1] of the crop.

    shift: how far these lie right of the true points, in [0, 1] of the crop. level: which terms they train, see `Labels`.
    """
    crop = faces["crop"][:]
    return of_level(faces, level).with_columns(
        landmarks=to_image(nominal.astype(np.float32).astype(np.float64), crop),
        visible=constant(np.ones(nominal.shape[1], bool), len(faces)), label_shift=shift * (crop[:, 2] - crop[:, 0]))


def of_level(faces: Faces, level: int) -> Faces:
    """Return the faces with that `level`; in a training all faces have one or none has."""
    return faces.with_columns(level=constant(level, len(faces)))


class Joined(Dataset):
    """Training views one after the other: item (pass, index)."""

    def __init__(self, parts: list[Dataset]):
        self.parts, self.starts = parts, np.cumsum([0, *map(len, parts)]).tolist()

    def name(self, index: int) -> str:
        """Return the name of a face, for errors."""
        place = bisect_right(self.starts, index) - 1
        return self.parts[place].name(index - self.starts[place])

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, key: tuple[int, int]):
        number, index = key
        place = bisect_right(self.starts, index) - 1
        return self.parts[place][number, index - self.starts[place]]._replace(index=index)


class Recipes(NamedTuple):
    """Sections `augment` of the two crops of an unlabelled face: the teacher labels the weak one, the net learns the other."""
    weak: Any
    strong: Any


def recipes(augment, rows: dict[str, dict[str, Any]]) -> Recipes:
    """Return both recipes for a section `augment` and the rows of `views` in args.yaml; published steps stay as published."""
    least = {key: max(value, getattr(augment, key)) for key, value in rows["strong"].items()}
    return Recipes(replace(augment, **rows["weak"]), augment if augment.steps else replace(augment, **least))


class View(NamedTuple):
    """One unlabelled face: its strongly augmented crop, and `Weak` from which the teacher labels it."""
    image: np.ndarray   # (S, S, 3) uint8 BGR
    weak: np.ndarray    # (S, S, 3) uint8 BGR
    matrix: np.ndarray  # (2, 3) from [0, 1] of the weak crop to [0, 1] of the strong one
    index: int


class Views(Augmented):
    """Unlabelled faces for a teacher: item (pass, index) is a `View`."""

    def __init__(self, faces: Faces, both: Recipes, flip_index, seed: int):
        super().__init__(faces, both.strong, flip_index, seed)
        self.weak = both.weak

    def crop(self, index: int) -> Crop:
        """Return the stored crop of a face, before augmentation."""
        return crop_of(self.faces, index, 0.0)

    def __getitem__(self, key: tuple[int, int]) -> View:
        number, index = key
        crop = self.crop(index)
        rng = generator(self.seed, number, index)
        weak, *_, before = augment(crop, self.weak, self.flip_index, rng)
        strong, *_, after = augment(crop, self.recipe, self.flip_index, rng)
        matrix = compose(invert(before), after) / [1, 1, crop.size]
        return View(strong, weak, matrix.astype(np.float32), index)


def collate_views(samples: list[Sample | View]) -> Batch:
    """Stack labelled samples, then unlabelled views, into a Batch; `labels.weak` holds what the latter are labelled from."""
    views = [sample for sample in samples if isinstance(sample, View)]
    batch = collate([sample for sample in samples if not isinstance(sample, View)])
    image, weak, matrix, index = (torch.from_numpy(np.stack(column)) for column in zip(*views, strict=True))
    labels = batch.labels._replace(weak=Weak(weak, matrix))
    return Batch(torch.cat([batch.images, image]), labels, torch.cat([batch.index, index]))


class Paired:
    """Batches of two orders joined: labelled samples first, then unlabelled ones, whose indices follow those of the labelled."""

    def __init__(self, labelled: Order, unlabelled: Order):
        self.labelled, self.unlabelled = labelled, unlabelled.lasting(len(labelled))
        self.batch, self.seed, self.rank, self.epoch = labelled.batch + unlabelled.batch, labelled.seed, labelled.rank, 0

    def __len__(self) -> int:
        return len(self.labelled)

    def __iter__(self):
        self.labelled.epoch = self.unlabelled.epoch = self.epoch
        for one, other in zip(self.labelled, self.unlabelled, strict=True):
            yield one + [(number, index + self.labelled.count) for number, index in other]

    def lasting(self, batches: int) -> "Paired":
        """Return the order with that many batches an epoch."""
        return Paired(self.labelled.lasting(batches), self.unlabelled)


Batches = Order | Paired


def make_order(count: int, labelled: int | None, train, rank: int, ranks: int) -> Batches:
    """Return the batches of `count` samples. train: section of the settings.

    labelled: only the first so many samples are labelled, and each batch has its share of both kinds; None: there is one kind.
    """
    def order(count: int, batch_size: int) -> Order:
        return Order(count, batch_size, train.accumulate, train.seed, rank, ranks)

    if labelled is None:
        found = order(count, train.batch_size)
    else:
        unlabelled = max(round(train.unlabelled_share * train.batch_size), 1)
        found = Paired(order(labelled, max(train.batch_size - unlabelled, 1)), order(count - labelled, unlabelled))
    return found.lasting(train.epoch_steps * train.accumulate) if train.epoch_steps else found
