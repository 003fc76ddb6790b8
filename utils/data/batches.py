"""Batches of faces, with random changes for training and plain for tests, and the order in which a training takes the
faces.

A batch is a pure function of (seed, pass, indices). So any process can make it, and a resumed training gets the same
batches.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from nets.labels import Labels, Weak
from pipnet.errors import UserError
from pipnet.geometry import compose, invert
from utils.data import changes
from utils.data.changes import (
    Change,
    exchanged,
    hashed,
    hidden,
    in_place,
    misplaced,
    mixed,
    moved,
    turned,
    uniforms,
    whole_matrix,
)
from utils.data.faces import CropGeometry, Faces
from utils.data.pixels import pixels
from utils.data.threads import Threads
from utils.settings import rooms
from utils.settings.sections import AugmentSettings, TrainSettings

ROUNDS = 8  # of the Feistel network that shuffles
BLOCK = 64  # batches whose faces are found at once
LIKELY = 0.9  # probability that a landmark is seen in a photograph whose labels do not say so
PLACED = 1  # key of the numbers of `misplaced`, so that these change no other draw
UNKNOWN = np.array([[[0, 0], [1, 1]], [[-np.inf] * 2, [np.inf] * 2]])  # frame of a face with an unknown source image
OUTPUTS = ("pose", "states", "visible")


class Batch(NamedTuple):
    """images (B, S, S, 3) uint8 BGR, with the net's margin, none before they are `finished`; labels in [0, 1] of the
    nominal crop; index (B,) of the faces.
    """

    images: torch.Tensor
    labels: Any
    index: torch.Tensor


# --------------------------------------------------------------------------------------------------------------- order
def permuted(places: np.ndarray, count: int, *key) -> np.ndarray:
    """Return the indices (B,), below `count`, at some places (B,) of a shuffle. It needs constant memory.

    key: non-negative integers that select the shuffle, or arrays (B,) of them with one for each place. A Feistel
    network shuffles the cells of a rectangle with at least `count` cells. An index of `count` or more is shuffled again
    until it is below.
    """
    width = np.uint64(ceil(count**0.5))
    height = np.uint64(ceil(count / int(width)))
    keys = np.broadcast_to(hashed(*key, np.arange(ROUNDS)[:, None]), (ROUNDS, len(places)))

    def shuffled(cells: np.ndarray, keys: np.ndarray) -> np.ndarray:
        row, column = np.divmod(cells.astype(np.uint64), width)
        for first, second in zip(keys[::2], keys[1::2], strict=True):
            row = (row + mixed(first + column) % height) % height
            column = (column + mixed(second + row) % width) % width
        return (row * width + column).astype(np.int64)

    found = shuffled(places, keys)
    while (beyond := found >= count).any():
        found[beyond] = shuffled(found[beyond], keys[:, beyond])
    return found


class Share(NamedTuple):
    """The faces from number `first` to `first + count - 1`; each batch of a rank has `batch` of them."""

    first: int
    count: int
    batch: int


@dataclass(frozen=True)
class Shuffle:
    """The batches of one rank as (passes (B,), indices (B,)): a shuffle keyed by (seed, pass), without an incomplete
    last batch.

    The batch over all ranks is the same for every number of ranks that divides it. parts: kinds of faces, in their
    order in each batch. batches: number of batches in an epoch. Each pass over the faces shuffles and changes them
    anew; pass numbers go on over epochs.
    """

    parts: tuple[Share, ...]
    batches: int
    seed: int
    rank: int = 0
    ranks: int = 1

    def __len__(self) -> int:
        return self.batches

    @property
    def batch(self) -> int:
        """Return the number of faces in a batch of this rank."""
        return sum(part.batch for part in self.parts)

    def epochs(self, first: int, last: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the batches of the epochs from `first` to `last - 1`."""
        for epoch in range(first, last):
            for start in range(0, self.batches, BLOCK):
                places = np.arange(start, min(start + BLOCK, self.batches))[:, None]
                shares = [self._share(part, epoch, places) for part in self.parts]
                yield from zip(*(np.concatenate(column, 1) for column in zip(*shares, strict=True)), strict=True)

    def _share(self, part: Share, epoch: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return passes and indices, each (K, B), of one kind of faces in the batches at `places` (K, 1) of an epoch."""
        step = part.batch * self.ranks
        whole = part.count // step
        turns, places = np.divmod(places, whole)
        numbers = np.repeat(epoch * -(-self.batches // whole) + turns, part.batch, 1)
        places = places * step + self.rank + self.ranks * np.arange(part.batch)
        found = permuted(places.ravel(), part.count, self.seed, numbers.ravel(), part.first)
        return numbers, part.first + found.reshape(places.shape)


def make_order(
    count: int,
    labelled: int | None,
    train: TrainSettings,
    rank: int = 0,
    ranks: int = 1,
    shares: Sequence[tuple[int, float]] = (),
    unlabelled_share: float = 0.0,
) -> Shuffle:
    """Return the order of the batches of `count` faces. Fewer faces than a batch make one small batch.

    labelled: number of labelled faces, which come first; each batch then has `unlabelled_share` of
    others. None: all are labelled.
    shares: (number of faces, share of the batches) of each set among the labelled faces, in order. The number of
    batches in an epoch stays the same, so a set with a large share comes several times.
    """
    kinds = [(0, count, train.batch_size)]
    if labelled is not None:
        unlabelled = max(round(unlabelled_share * train.batch_size), 1)
        kinds = [(0, labelled, max(train.batch_size - unlabelled, 1)), (labelled, count - labelled, unlabelled)]
    for _, faces, _ in kinds:
        if faces < ranks:
            raise UserError(f"{faces} training faces are too few for {ranks} processes")
    parts = tuple(Share(first, faces, min(batch, faces // ranks)) for first, faces, batch in kinds)
    whole = [part.count // (part.batch * ranks) for part in parts]
    if min(whole) < train.accumulate:
        raise UserError(f"accumulate is {train.accumulate}, but an epoch has {min(whole)} batches; lower one of them")
    batches = whole[0] - whole[0] % train.accumulate
    if shares:
        parts = (*_shared_parts(parts[0].batch, shares, ranks), *parts[1:])
    return Shuffle(
        parts, train.epoch_steps * train.accumulate if train.epoch_steps else batches, train.seed, rank, ranks
    )


def _shared_parts(batch: int, shares: Sequence[tuple[int, float]], ranks: int) -> tuple[Share, ...]:
    """Return the parts of a batch that mix sets of faces in given shares, see `make_order`.
    Each set gives at least one face.
    """
    weights = np.array([share for _, share in shares])
    wanted = weights / weights.sum() * batch
    sizes = np.maximum(np.floor(wanted), 1).astype(int)
    while sizes.sum() < batch:  # to those that lack most of their share
        sizes[np.argmax(wanted - sizes)] += 1
    while sizes.sum() > batch and sizes.max() > 1:
        sizes[np.argmax(np.where(sizes > 1, sizes - wanted, -np.inf))] -= 1
    starts = np.cumsum([0, *(faces for faces, _ in shares)]).tolist()
    if sizes.sum() > batch or any(faces < size * ranks for (faces, _), size in zip(shares, sizes, strict=True)):
        raise UserError(
            f"a batch of {batch} cannot mix sets of {', '.join(str(faces) for faces, _ in shares)} faces in these "
            "--shares; give others, or another --batch-size"
        )
    return tuple(Share(first, faces, int(size)) for first, (faces, _), size in zip(starts, shares, sizes, strict=False))


# ------------------------------------------------------------------------------------------------------------- batches
class Recipes(NamedTuple):
    """Sections `augment` for the two crops of an unlabelled face: the teacher labels `weak`, the net learns from
    `strong`.
    """

    weak: AugmentSettings
    strong: AugmentSettings


def recipes(augment: AugmentSettings, rows: dict[str, dict[str, Any]]) -> Recipes:
    """Return both recipes, made from a section `augment` and the rows of `views` in args.yaml.

    Published steps are not strengthened.
    """
    least = {key: max(value, getattr(augment, key)) for key, value in rows["strong"].items()}
    return Recipes(replace(augment, **rows["weak"]), augment if augment.steps else replace(augment, **least))


def drawn_changes(
    seed: int,
    numbers,
    indices: np.ndarray,
    frame: np.ndarray,
    recipe: AugmentSettings,
    geometry: CropGeometry,
    view: int = 0,
) -> list[Change]:
    """Return the changes of faces in their passes by a recipe, in the order in which they act.

    frame (B, 2, 2, 2): see `Faces`. view: number of a face's picture, from 0.
    """
    count = len(recipe.steps) * changes.STEP_DRAWS or changes.DRAWS
    u = uniforms(seed, numbers, indices, (view + 1) * count)[:, view * count :]
    frame = np.where(np.isnan(frame), UNKNOWN, frame) * geometry.size
    if recipe.steps:
        made = rooms.systems.in_steps(u, recipe, geometry, frame[:, 0])
    else:
        made = [changes.changes(u, recipe, geometry)]
    if recipe.fill == "grey":
        low, high = np.split(frame[:, 1].reshape(-1, 4) + geometry.border, 2, 1)
        if (ends := made[0].source) is not None:
            low, high = np.maximum(low, ends[:, :2]), np.minimum(high, ends[:, 2:])
        made[0] = made[0]._replace(source=np.concatenate([low, high], 1))
    return made


def label_rows(faces: Faces, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of some faces (B,) of which `labels_of` makes their labels."""
    learnt = faces.facts.get("outputs", OUTPUTS)
    return faces.read("nominal", "known", "shift", "frame", "level", "face", *learnt, rows=rows)


def labels_of(
    row: dict[str, np.ndarray],
    faces: Faces,
    made: Sequence[Change] = (),
    flip_index: Sequence[int] = (),
    lost: np.ndarray | None = None,
) -> Labels:
    """Return the labels of some of the faces after the changes `made`, if any. row: see `label_rows`.
    lost (B,) bool: faces whose landmarks are not trained, because they were `misplaced`.
    """
    landmarks, weight = row["nominal"], row["known"]
    pose, states, level, visible, face = map(row.get, ("pose", "states", "level", "visible", "face"))
    if made:
        if visible is not None:
            gone = hidden(landmarks, row["frame"][:, 1].reshape(-1, 4), made, faces.geometry.border)
            visible = np.where(gone, 0, np.where(np.isnan(visible), LIKELY, visible))
            visible = exchanged(np.where(weight, visible, np.nan), made, flip_index)
        landmarks = moved(landmarks.astype(np.float64), row["shift"], made, flip_index)
        weight = exchanged(weight, made, flip_index)
        pose = None if pose is None else turned(pose, whole_matrix(made))
        states = None if states is None else exchanged(states, made, _partners(faces.facts["states"]))
    if face is not None:
        face = np.where(face > 0, in_place(landmarks, weight, faces.facts["meanface"]), face)
    if lost is not None:
        weight = weight & ~lost[:, None]
        pose, states, visible = (
            None if part is None else np.where(lost[:, None], np.nan, part) for part in (pose, states, visible)
        )
    return Labels.pack(landmarks, weight, pose, states, level, visible, face)


def _partners(names: Sequence[str]) -> list[int]:
    """Return for each state its index in a mirror image: the words left and right in its name change places."""
    other = {"left": "right", "right": "left"}
    mirrored = ["_".join(other.get(word, word) for word in name.split("_")) for name in names]
    return [names.index(twin) if twin in names else place for place, twin in enumerate(mirrored)]


class Batches(Dataset):
    """Training batches: `batches[passes, indices]`, both (B,), is a `Batch` of these faces with random changes.

    recipe: section `augment`. labelled: faces from this number on have no labels; they come last in a batch. views: the
    recipes of their two crops; `labels.weak` holds those that a teacher labels.
    """

    def __init__(
        self,
        faces: Faces,
        recipe: AugmentSettings,
        flip_index: Sequence[int],
        seed: int,
        labelled: int | None = None,
        views: Recipes | None = None,
    ):
        self.faces, self.recipe, self.flip_index, self.seed = faces, recipe, flip_index, seed
        self.labelled, self.views = labelled, views

    def name(self, index: int) -> str:
        """Return the name of a face, for errors."""
        return self.faces.row(index)["file"]

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, key: tuple[np.ndarray, np.ndarray]) -> Batch:
        crops = [self.faces.crop(index) for index in key[1].tolist()]
        return finished(lambda some, made: torch.from_numpy(reduce(pixels, made, some)), crops, *self.drawn(key))

    def drawn(self, key: tuple[np.ndarray, np.ndarray]) -> tuple[list[list[Change]], Batch]:
        """Return (changes of the labelled pictures, and with views of the strong and of the weak pictures of unlabelled
        faces; the batch without pictures).
        """
        numbers, indices = key
        count = len(indices) if self.labelled is None else int((indices < self.labelled).sum())
        row = label_rows(self.faces, indices)
        frame, first = row["frame"], {name: values[:count] for name, values in row.items()}
        geometry, lost = self.faces.geometry, None
        made = drawn_changes(self.seed, numbers[:count], indices[:count], frame[:count], self.recipe, geometry)
        if self.recipe.misplaced and "face" in row:
            u = uniforms(self.seed, numbers[:count], indices[:count], 5, PLACED)
            lost = (u[:, 4] < self.recipe.misplaced) & (first["face"] == 1)
            made = misplaced(u, made, lost)
        labels = labels_of(first, self.faces, made, self.flip_index, lost)
        batch = Batch(torch.empty(0), labels, torch.from_numpy(indices))
        if not self.views:
            return [made], batch
        strong, weak = (
            drawn_changes(self.seed, numbers[count:], indices[count:], frame[count:], recipe, geometry, view)
            for view, recipe in ((0, self.views.strong), (1, self.views.weak))
        )
        maps = compose(invert(whole_matrix(weak)), whole_matrix(strong)) / [1, 1, geometry.size]
        labels = labels._replace(weak=Weak(torch.empty(0), torch.from_numpy(maps.astype(np.float32))))
        return [made, strong, weak], batch._replace(labels=labels)


def finished(carry: Callable[..., torch.Tensor], crops, made: Sequence[Any], batch: Batch) -> Batch:
    """Return a batch with its pictures. crops (B, S, S, 3) as stored; made: see `Batches.drawn`.
    carry(crops, changes): makes pictures.
    """
    count = len(batch.labels.packed)
    first, *views = [carry(crops[count:] if i else crops[:count], changes) for i, changes in enumerate(made)]
    if not views:
        return batch._replace(images=first)
    weak = batch.labels.weak._replace(images=views[1])
    return batch._replace(images=torch.cat([first, views[0]]), labels=batch.labels._replace(weak=weak))


def plain(faces: Faces, rows: np.ndarray) -> Batch:
    """Return a batch of some faces without random changes, as a net gets them in tests."""
    images = np.stack([faces.plain_crop(row) for row in rows.tolist()])
    return Batch(torch.from_numpy(images), labels_of(label_rows(faces, rows), faces), torch.from_numpy(rows))


def test_batches(faces: Faces, batch_size: int, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
    """Yield plain batches of this rank's share of the faces. Each face is in the batches of exactly one rank.

    A thread makes the next batch while one is used.
    """
    mine, made = np.arange(rank, len(faces), ranks), None
    with Threads(1) as pool:
        for start in range(0, len(mine), batch_size):
            following = pool.submit(plain, faces, mine[start : start + batch_size])
            if made:
                yield made.result()
            made = following
        if made:
            yield made.result()
