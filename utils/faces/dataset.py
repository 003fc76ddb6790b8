"""Prepared crops in memory, with two views: augmented for training, plain for tests. Only uint8 crops and labels are moved."""
import copy
import math
import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from nets.labels import Labels
from pipnet.errors import UserError
from pipnet.geometry import border_px, cut, to_crop
from pipnet.layout import Layout
from utils.conversion import conversion
from utils.cores import cores
from utils.faces.augment import augment, augment_pose, generator
from utils.faces.prepared_set import Split, Table, read_image
from utils.faces.steps import Crop

GIB = 1 << 30


def reclaimable(*shape: int) -> np.ndarray:
    """Return an array of bytes in a temporary file without a name, whose memory the system can take back when others need it.

    Where there is no room for the file, and beyond Linux, the array is in memory.
    """
    if sys.platform == "linux" and min(shape):
        with suppress(OSError), tempfile.TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, math.prod(shape))  # a write to a mapped file on a full disk would be a SIGBUS
            return np.asarray(np.memmap(file, np.uint8, "w+", shape=shape))
    return np.empty(shape, np.uint8)


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


class Faces(Dataset):
    """Faces of several splits of prepared sets; `faces[i]` is the plain crop as the net gets it.

    Sets of another layout are converted to `layout` if convert.py has a rule. cache: GiB; input_margin: what the net sees / the
    nominal crop.
    Attributes: names (source files), sets (checksums), sources (raw archives), subsets, identities; sizes (M, 2) width and height
    of the source images; crop and box (M, 4), landmarks (M, N, 2) in px of the source image; nominal (M, N, 2) float32 in [0, 1]
    of the crop; visible (M, N) bool: landmarks to train; weight (M, N) float32: 1, or 0 where not visible; shift (M,): how far
    labels lie right of the true points, in [0, 1] of the crop; pose (M, 3) and states (M, k) float32 of `state_names`, NaN where
    a set does not say, None if no set does; rank: names of subsets in the order of the publications; previous (M,): index of the
    frame before this one in its video, else -1; level: which terms the faces train, see Labels.
    """

    level = None

    def __init__(self, splits: list[Split], layout: Layout, input_size: int, cache: float, train_hidden: bool = True,
                 input_margin: float = 1.0):
        tables, metas = [split.set.read(split.name) for split in splits], [split.set.meta for split in splits]
        tables = [table if split.labelled else table._replace(pose=None, states=None)
                  for split, table in zip(splits, tables, strict=True)]
        self.size, counts = input_size, [len(table.files) for table in tables]
        labels = [_labels(split, table, layout) for split, table in zip(splits, tables, strict=True)]
        for split in splits:
            if (split.set.protocol, split.set.meta["margin"]) != (splits[0].set.protocol, metas[0]["margin"]):
                raise UserError(f"{split.set.folder} was cut by another protocol or margin than {splits[0].set.folder}; prepare "
                                "both with the same")
        self.names = [name for table in tables for name in table.files]
        self.images = [image for table in tables for image in table.images]
        self.subsets = [subset for table in tables for subset in table.subsets]
        self.identities = [identity for table in tables for identity in table.identities]
        self.sets = [meta["checksum"] for meta, count in zip(metas, counts, strict=True) for _ in range(count)]
        self.sources = [source for meta, count in zip(metas, counts, strict=True) for source in [Path(meta["source"])] * count]
        self.crop, self.box, self.sizes = (np.concatenate([getattr(table, key) for table in tables])
                                           for key in ("crop", "box", "size"))
        self.landmarks, visible = (np.concatenate([label[kind] for label in labels]) for kind in (0, 1))
        known = np.isfinite(self.landmarks).all(-1)
        self.visible = known if train_hidden else visible & known
        self.weight = self.visible.astype(np.float32)
        self.nominal = to_crop(self.landmarks, self.crop).astype(np.float32)
        self.shift = np.repeat([split.label_shift for split in splits], counts) / (self.crop[:, 2] - self.crop[:, 0])
        self.pose, self.states, self.state_names = _extras(tables, metas)
        self.previous = _previous([(f"{number} {name}", metas[number].get("frame_step"))
                                   for number, table in enumerate(tables) for name in table.files])
        self.rank = list(dict.fromkeys(name for meta in metas for name in meta["expected"] or ()))
        self.target = np.repeat([meta["target_size"] for meta in metas], counts)
        # px of margin round the nominal crop: as stored, and as seen by the net
        self.border, self.input_border = (border_px(input_size, margin) for margin in (metas[0]["margin"], input_margin))
        if self.input_border > self.border:
            raise UserError(f"this net sees {input_margin} times the nominal crop, {splits[0].set.folder} holds "
                            f"{metas[0]['margin']}; prepare it with --margin {input_margin} or more")
        self.protocol = splits[0].set.protocol
        self._load(cache)

    def _load(self, cache: float) -> None:
        """Decode all crops if `cache` GiB can hold them."""
        side = self.size + 2 * self.border
        self.rows = np.arange(len(self))  # row of `crops` for each face
        self.crops = reclaimable(len(self), side, side, 3) if len(self) * side * side * 3 <= cache * GIB else None
        if self.crops is not None:
            with ThreadPoolExecutor(cores()) as pool:
                for index, crop in enumerate(pool.map(self._decode, range(len(self)))):
                    self.crops[index] = crop

    def __len__(self) -> int:
        return len(self.names)

    def meanface(self) -> np.ndarray:
        """Return the mean landmarks (N, 2) float64 in [0, 1] of the crop."""
        return np.nanmean(self.nominal, 0, dtype=np.float64)

    def picture(self, index: int) -> np.ndarray:
        """Return (S, S, 3) uint8 BGR: the nominal crop of `input_size` px with `border` px of real pixels round it."""
        return self._decode(index) if self.crops is None else self.crops[self.rows[index]]

    def nominal_crop(self, index: int) -> np.ndarray:
        """Return (S, S, 3) uint8 BGR, S = `input_size`: the crop without any margin."""
        return self.picture(index)[self.border:self.border + self.size, self.border:self.border + self.size]

    def __getitem__(self, index: int) -> Sample:
        begin, end = self.border - self.input_border, self.border + self.size + self.input_border
        return Sample(self.picture(index)[begin:end, begin:end], self.nominal[index], self.weight[index], index,
                      *self.extras(index))

    def frame(self, index: int) -> np.ndarray:
        """Return the corners (2, 2, 2) of the face box and of the source image in [0, 1] of the crop."""
        return to_crop(np.array([self.box[index].reshape(2, 2), [(0, 0), self.sizes[index]]]), self.crop[index])

    def extras(self, index: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return (pose (3,), states (k,)) of a face, None where the faces have none."""
        pose, states = (None if part is None else part[index] for part in (self.pose, self.states))
        return pose, states

    def only(self, rows: np.ndarray) -> "Faces":
        """Return some of the faces; decoded crops are shared."""
        view = copy.copy(self)
        for key in ("names", "sets", "sources", "images", "subsets", "identities"):
            setattr(view, key, [getattr(self, key)[row] for row in rows])
        for key in ("crop", "box", "sizes", "landmarks", "visible", "weight", "nominal", "shift", "target", "rows"):
            setattr(view, key, getattr(self, key)[rows])
        for key in ("pose", "states"):
            setattr(view, key, None if (values := getattr(self, key)) is None else values[rows])
        place = {row: new for new, row in enumerate(rows.tolist())}
        view.previous = np.array([place.get(before, -1) for before in self.previous[rows].tolist()], dtype=np.int64)
        return view

    def _decode(self, index: int) -> np.ndarray:
        stored, side = read_image(self.images[index]), self.size + 2 * self.border
        if len(stored) == side:
            return stored
        edge = (len(stored) - self.target[index]) / 2
        return cut(stored, np.array([edge, edge, len(stored) - edge, len(stored) - edge]), self.size, side / self.size)


def _labels(split: Split, table: Table, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return landmarks (M, N, 2) and visible (M, N) of a split in `layout`. UserError if its layout cannot be converted."""
    meta, landmarks, visible = split.set.meta, table.landmarks, table.visible
    if not split.labelled:
        shape = len(table.files), layout.count
        return np.full((*shape, 2), np.nan), np.zeros(shape, bool)
    if meta["layout"] != layout.stored:
        way = conversion(meta["layout"], layout.stored, split.set.layouts)
        if way is None:
            raise UserError(f"{split.set.folder} has {meta['count']} landmarks (layout {meta['layout']}), which a net of layout "
                            f"{layout.name} cannot use; give sets of layout {layout.stored} or another --layout")
        landmarks, visible = way(landmarks), way.flags(landmarks, visible)
    chosen = list(layout.selected)
    return landmarks[:, chosen], visible[:, chosen]


def _extras(tables: list[Table], metas: list[dict]) -> tuple[np.ndarray | None, np.ndarray | None, list[str]]:
    """Return (pose (M, 3), states (M, k), the k names) of the faces of several sets, NaN where a set does not say."""
    names = list(dict.fromkeys(name for meta in metas for name in meta.get("states", ())))
    poses, states = [], []
    for table, meta in zip(tables, metas, strict=True):
        poses.append(np.full((len(table.files), 3), np.nan, np.float32) if table.pose is None else table.pose.astype(np.float32))
        states.append(np.full((len(table.files), len(names)), np.nan, np.float32))
        if table.states is not None:
            states[-1][:, [names.index(name) for name in meta["states"]]] = table.states
    known = any(table.pose is not None for table in tables)
    return np.concatenate(poses) if known else None, np.concatenate(states) if names else None, names


def _previous(frames: list[tuple[str, int | None]]) -> np.ndarray:
    """Return (M,): for each (name, step) the index of the frame `step` before it, -1 if there is none.

    The name of a frame ends in its number. The step is None for faces that are not frames.
    """
    places = {name: place for place, (name, _) in enumerate(frames)}
    before = np.full(len(frames), -1)
    for place, (name, step) in enumerate(frames):
        if step and (number := re.search(r"(\d+)(\.\w+)?$", name)):
            digits, suffix = number[1], number[2] or ""
            before[place] = places.get(f"{name[:number.start()]}{int(digits) - step:0{len(digits)}d}{suffix}", -1)
    return before


def _partners(names: list[str]) -> list[int]:
    """Return for each state the index that it has in a mirror image: the words left and right of its name change places."""
    other = {"left": "right", "right": "left"}
    mirrored = ["_".join(other.get(word, word) for word in name.split("_")) for name in names]
    return [names.index(twin) if twin in names else place for place, twin in enumerate(mirrored)]


class Augmented(Dataset):
    """Training view of `Faces`: item (pass, index) is face `index` as augmented in that pass over all, in any process."""

    def __init__(self, faces: Faces, recipe, flip_index, seed: int):
        self.faces, self.recipe, self.flip_index, self.seed = faces, recipe, flip_index, seed

    def name(self, index: int) -> str:
        """Return the name of a face, for errors."""
        return self.faces.names[index]

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        number, index = key
        faces = self.faces
        crop = Crop(faces.picture(index), faces.nominal[index], faces.weight[index], faces.size, faces.input_border,
                    faces.shift[index], *faces.frame(index))
        image, landmarks, weight, matrix = augment(crop, self.recipe, self.flip_index, generator(self.seed, number, index))
        pose, states = faces.extras(index)
        if pose is not None:
            pose = augment_pose(pose, matrix).astype(np.float32)
        if states is not None and np.linalg.det(matrix[:, :2]) < 0:
            states = states[_partners(faces.state_names)]
        return Sample(image, landmarks.astype(np.float32), weight, index, pose, states, faces.level)


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
    with ThreadPoolExecutor(1) as pool:
        for start in range(0, len(mine), batch_size):
            following = pool.submit(lambda indices: collate([faces[index] for index in indices]), mine[start:start + batch_size])
            if made:
                yield made.result()
            made = following
        if made:
            yield made.result()
