"""Prepared crops in memory and two views of them: augmented to train, plain to test. Only uint8 crops and labels travel."""
import copy
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from nets.labels import Labels
from pipnet.errors import UserError
from pipnet.geometry import Protocol, border_px, cut, to_crop
from pipnet.layout import Layout
from utils.cores import cores
from utils.data import label_weights
from utils.data.augment import Crop, Recipe, augment, generator, turn_pose
from utils.data.convert import conversion
from utils.data.prepared_set import Table, load_meta, load_split, read_image

GIB = 1 << 30


class Batch(NamedTuple):
    """images (B, S, S, 3) uint8 BGR, with the margin that the net asks for; labels in [0, 1] of the nominal crop; index (B,)."""
    images: torch.Tensor
    labels: Labels
    index: torch.Tensor


class Sample(NamedTuple):
    """A face as a net gets it. landmarks in [0, 1] of the crop; pose and states are None where no set of the faces has them."""
    image: np.ndarray      # (S, S, 3) uint8 BGR
    landmarks: np.ndarray  # (N, 2) float32
    weight: np.ndarray     # (N,) float32
    index: int
    pose: np.ndarray | None = None    # (3,) float32 pitch, yaw, roll in radians, NaN where unknown
    states: np.ndarray | None = None  # (k,) float32 0 or 1, NaN where unknown


class Faces(Dataset):
    """Splits of prepared folders, `parts` = [(folder, split)]; `faces[i]` is the plain crop as the net sees it.

    Sets of other layouts than `layout` are converted to it where utils/data/convert.py knows how.
    Attributes: names (source files), sets (checksums), sources (their archives), subsets, identities; sizes (M, 2) width and
    height of the source images; crop and box (M, 4), landmarks (M, N, 2) in px of the source image; nominal (M, N, 2) float32
    in [0, 1] of the crop; visible (M, N) bool: landmarks to train;
    weight (M, N) float32: how much, from an audit's file `weights`, one without it; zero where not visible;
    shift (M,) in [0, 1] of the crop: how far labels lie to the right of what they mark, `label_shifts` px for each part;
    pose (M, 3) and states (M, k) float32 of `state_names`, NaN where a set does not say, None where none of them does;
    rank (names of subsets in the order of the publications); previous (M,) the frame before this one in its video, else -1.
    """

    def __init__(self, parts: list[tuple[Path, str]], layout: Layout, input_size: int, cache: float, train_hidden: bool = True,
                 weights: str | None = None, input_margin: float = 1.0, label_shifts: list[float] | None = None):
        tables, metas = [load_split(folder, split) for folder, split in parts], [load_meta(folder) for folder, _ in parts]
        ways = [None if meta["layout"] == layout.stored else conversion(meta["layout"], layout.stored) for meta in metas]
        for (folder, _), meta, way in zip(parts, metas, ways, strict=True):
            if meta["layout"] != layout.stored and way is None:
                raise UserError(f"{folder} has {meta['count']} landmarks (layout {meta['layout']}), which a net of layout "
                                f"{layout.name} cannot use; give sets of layout {layout.stored} or another --layout")
            if (meta["protocol"], meta["margin"]) != (metas[0]["protocol"], metas[0]["margin"]):
                raise UserError(f"{folder} was cut by another protocol or margin than {parts[0][0]}; prepare both with the same")
        self.size = input_size
        self.names = [name for table in tables for name in table.files]
        self.sets = [meta["checksum"] for table, meta in zip(tables, metas, strict=True) for _ in table.files]
        self.sources = [Path(meta["source"]) for table, meta in zip(tables, metas, strict=True) for _ in table.files]
        self.images = [image for table in tables for image in table.images]
        self.subsets = [subset for table in tables for subset in table.subsets]
        self.identities = [identity for table in tables for identity in table.identities]
        fields = ("crop", "box", "size")
        self.crop, self.box, self.sizes = (np.concatenate([getattr(table, key) for table in tables]) for key in fields)
        chosen = list(layout.selected)
        labels = [(way(table.landmarks), way.flags(table.landmarks, table.visible)) if way else (table.landmarks, table.visible)
                  for table, way in zip(tables, ways, strict=True)]
        self.landmarks, visible = (np.concatenate([label[kind][:, chosen] for label in labels]) for kind in (0, 1))
        known = np.isfinite(self.landmarks).all(-1)
        self.visible = known if train_hidden else visible & known
        self.weight = self.visible.astype(np.float32)
        if weights:
            self.weight *= label_weights.read(Path(weights), self.sets, self.names, layout)
        self.nominal = to_crop(self.landmarks, self.crop).astype(np.float32)
        shifts = np.repeat(label_shifts or [0.0] * len(parts), [len(table.files) for table in tables])
        self.shift = shifts / (self.crop[:, 2] - self.crop[:, 0])
        self.pose, self.states, self.state_names = _extras(tables, metas)
        self.previous = _previous([(f"{number} {name}", metas[number].get("frame_step"))
                                   for number, table in enumerate(tables) for name in table.files])
        self.rank = list(dict.fromkeys(name for meta in metas for name in meta["expected"] or ()))
        self.target = np.repeat([meta["target_size"] for meta in metas], [len(table.files) for table in tables])
        # px of margin round the nominal crop: stored, and of that seen by the net
        self.border, self.input_border = (border_px(input_size, margin) for margin in (metas[0]["margin"], input_margin))
        if self.input_border > self.border:
            raise UserError(f"this net sees {input_margin} times the nominal crop, {parts[0][0]} holds {metas[0]['margin']}; "
                            f"prepare it with --margin {input_margin} or more")
        self.protocol = Protocol(**metas[0]["protocol"])
        self._load(cache)

    def _load(self, cache: float) -> None:
        """Decodes all crops into memory where `cache` GiB hold them."""
        side = self.size + 2 * self.border
        self.rows = np.arange(len(self))  # of `crops`
        self.crops = np.empty((len(self), side, side, 3), np.uint8) if len(self) * side * side * 3 <= cache * GIB else None
        if self.crops is not None:
            with ThreadPoolExecutor(cores()) as pool:
                for index, crop in enumerate(pool.map(self._decode, range(len(self)))):
                    self.crops[index] = crop

    def __len__(self) -> int:
        return len(self.names)

    def meanface(self) -> np.ndarray:
        """(N, 2) float64: mean landmarks in [0, 1] of the crop."""
        return np.nanmean(self.nominal, 0, dtype=np.float64)

    def picture(self, index: int) -> np.ndarray:
        """(S, S, 3) uint8 BGR: the nominal crop of `input_size` px with `border` px of real pixels round it."""
        return self._decode(index) if self.crops is None else self.crops[self.rows[index]]

    def nominal_crop(self, index: int) -> np.ndarray:
        """(S, S, 3) uint8 BGR, S = `input_size`: without any margin, whatever the net sees."""
        return self.picture(index)[self.border:self.border + self.size, self.border:self.border + self.size]

    def __getitem__(self, index: int) -> Sample:
        begin, end = self.border - self.input_border, self.border + self.size + self.input_border
        pose, states = (None if part is None else part[index] for part in (self.pose, self.states))
        return Sample(self.picture(index)[begin:end, begin:end], self.nominal[index], self.weight[index], index, pose, states)

    def only(self, rows: np.ndarray) -> "Faces":
        """Some of the faces; the decoded crops are shared."""
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


def _extras(tables: list[Table], metas: list[dict]) -> tuple[np.ndarray | None, np.ndarray | None, list[str]]:
    """(pose (M, 3), states (M, k), the k names) of the faces of several sets, NaN where a set does not say."""
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
    """(M,) the face `step` frames before each of (name, step), -1 where there is none. The name of a frame ends in its number;
    the step is None where faces are no frames."""
    places = {name: place for place, (name, _) in enumerate(frames)}
    before = np.full(len(frames), -1)
    for place, (name, step) in enumerate(frames):
        if step and (number := re.search(r"(\d+)(\.\w+)?$", name)):
            digits, suffix = number[1], number[2] or ""
            before[place] = places.get(f"{name[:number.start()]}{int(digits) - step:0{len(digits)}d}{suffix}", -1)
    return before


def _partners(names: list[str]) -> list[int]:
    """The state that each becomes in a mirror image: left and right, as words of the name, change places."""
    other = {"left": "right", "right": "left"}
    mirrored = ["_".join(other.get(word, word) for word in name.split("_")) for name in names]
    return [names.index(twin) if twin in names else place for place, twin in enumerate(mirrored)]


class Augmented(Dataset):
    """Training view of `Faces`: item (epoch, index) is the sample `index` as epoch `epoch` sees it, whoever asks."""

    def __init__(self, faces: Faces, recipe: Recipe, flip_index, seed: int):
        self.faces, self.recipe, self.flip_index, self.seed = faces, recipe, flip_index, seed

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        faces = self.faces
        crop = Crop(faces.picture(index), faces.nominal[index], faces.weight[index], faces.size, faces.input_border,
                    faces.shift[index])
        image, landmarks, weight, matrix = augment(crop, self.recipe, self.flip_index, generator(self.seed, epoch, index))
        pose, states = (None if part is None else part[index] for part in (faces.pose, faces.states))
        if pose is not None:
            pose = turn_pose(pose, matrix).astype(np.float32)
        if states is not None and np.linalg.det(matrix[:, :2]) < 0:
            states = states[_partners(faces.state_names)]
        return Sample(image, landmarks.astype(np.float32), weight, index, pose, states)


class Order:
    """Batches of (epoch, index) for one rank: a shuffle keyed by (seed, epoch), the incomplete last global batch dropped.

    The global batch is the same for every number of ranks that divides it. A set smaller than a batch is one small batch.
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

    def __iter__(self):
        shuffled = np.random.default_rng((self.seed, self.epoch)).permutation(self.count).tolist()
        step = self.batch * self.ranks
        for start in range(0, self.batches * step, step):
            yield [(self.epoch, index) for index in shuffled[start + self.rank:start + step:self.ranks]]


def collate(samples: list[Sample]) -> Batch:
    """Samples -> Batch."""
    image, landmarks, weight, index, pose, states = (None if column[0] is None else np.stack(column)
                                                     for column in zip(*samples, strict=True))
    weights = torch.from_numpy(weight)
    extras = (None if part is None else torch.from_numpy(part) for part in (pose, states))
    return Batch(torch.from_numpy(image), Labels(torch.from_numpy(landmarks), weights > 0, weights, *extras),
                 torch.from_numpy(index))


def _single_thread(_worker: int) -> None:
    cv2.setNumThreads(0)


def train_loader(dataset: Dataset, order: Order, workers: int, pin: bool, collate=collate) -> DataLoader:
    """Batches in `order`, made ahead by `workers` processes (0: in this one) and put together by `collate`."""
    # forked workers share the decoded crops; other ways of starting them would send each a copy
    start = "fork" if workers and sys.platform == "linux" else None
    return DataLoader(dataset, batch_sampler=order, num_workers=workers, collate_fn=collate, pin_memory=pin,
                      worker_init_fn=_single_thread, multiprocessing_context=start, persistent_workers=workers > 0,
                      prefetch_factor=4 if workers else None)


def test_batches(faces: Faces, batch_size: int, rank: int = 0, ranks: int = 1):
    """Plain batches of this rank's share of the faces: every face once over all ranks."""
    mine = range(rank, len(faces), ranks)
    for start in range(0, len(mine), batch_size):
        yield collate([faces[index] for index in mine[start:start + batch_size]])
