"""The prepared sets of a landmark net, and the faces in them on which it is trained and validated."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from loguru import logger

from pipnet.errors import UserError
from pipnet.layout import Layout
from utils.data.batches import Batches
from utils.data.faces import Faces
from utils.data.paths import is_unlabelled_set
from utils.data.prepared_set import PreparedSet, Split, load_splits, name_hash, trained_splits
from utils.data.sets import Sets, test_splits
from utils.evaluate.evaluate import Comparison, comparison_of, face_norms
from utils.settings import rooms
from utils.settings.config import Settings
from utils.settings.conversion import conversion
from utils.settings.union import Union, described, unite
from utils.task.face_states import balanced, complete
from utils.train.make_net import auxiliary_outputs, input_margin
from utils.train.ranks import Ranks


@dataclass(frozen=True)
class TaskData:
    """The sets that a run's modes need: those to train on, the splits to test on, and those of --backgrounds."""

    sets: Sets
    training: list[PreparedSet]
    tested: list[Split]
    backgrounds: list[Split] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """Return the settings of the run, with the layouts of its sets."""
        return self.sets.settings

    @cached_property
    def layout(self) -> Layout:
        """Return the layout of the net: --layout, which may be a union of those of all sets, else that of the first
        set.
        """
        data, layouts, wanted = self.settings.data, self.settings.layouts, self.settings.net.num_lms
        if layouts.is_union(data.layout):
            layout = unite(data.layout, [one.labelled for one in self.training], layouts)
        else:
            layout = self.layout_of(self.training[0])
        if wanted not in (None, layout.count):
            raise UserError(
                f"num_lms is {wanted}, but layout {layout.name} has {layout.count} landmarks; choose another "
                "--layout or --selected-index"
            )
        return layout

    def layout_of(self, one: PreparedSet) -> Layout:
        """Return --layout, restricted to --selected-index, or without it, and for a union, the layout of a set."""
        data, layouts = self.settings.data, self.settings.layouts
        return layouts.load(layouts.plain(data.layout) or one.meta["layout"], data.selected_index)

    def label_shifts(self) -> list[float]:
        """Return the label shift of each training set, in px: --label-shift, else that of the dataset."""
        shifts, count = self.settings.data.label_shift, len(self.training)
        if shifts is None:
            return [one.meta["label_shift"] for one in self.training]
        if len(shifts) not in (1, count):
            raise UserError(f"label_shift has {len(shifts)} numbers for {count} training sets; give one or as many")
        return shifts if len(shifts) == count else shifts * count

    def shares(self, faces: Faces) -> tuple[tuple[int, float], ...]:
        """Return (faces, share) of each training set in the order of the training faces; empty without --shares."""
        given = dict(one.rpartition("=")[::2] for one in self.settings.train.shares)
        if not given:
            return ()
        counts = Counter(faces["set"])
        return tuple(
            (count, float(given.get(one.labelled.set_name, 1)))
            for one in self.training
            if (count := counts[one.checksum])
        )

    def splits(self, *names: str) -> list[Split]:
        """Return splits of the training sets.

        Default: those that are trained on, which are train, and val unless it validates.
        """
        names = names or trained_splits(self.settings.data.val)
        return [
            Split(one, name, shift)
            for one, shift in zip(self.training, self.label_shifts(), strict=True)
            for name in names
        ]

    def crops(self, splits: list[Split], layout: Layout | None = None, cache: float = 0) -> Faces:
        """Return the faces of some splits as the net gets them. cache: GiB."""
        net = self.settings.net
        return load_splits(splits, layout or self.layout, net.input_size, cache, input_margin(net))

    def load(self, splits: list[Split], layout: Layout | None = None) -> Faces:
        """Return the faces of some splits with the labels that the net's outputs need. layout: of these, see `comparison_of`."""
        layout = layout or self.layout
        faces = self.crops(splits, layout, self.settings.data.cache)
        return complete(faces, layout, auxiliary_outputs(vars(self.settings.loss))) if layout is self.layout else faces

    def validation(self, splits: list[Split]) -> "list[ValidationPart]":
        """Return the faces of some splits to validate on: a part for each layout in which the net is compared."""
        ways = [self.comparison(split) for split in splits]
        firsts: dict[str, Comparison] = {}
        for way in ways:
            firsts.setdefault(way.layout.name, way)
        parts = []
        for name, way in firsts.items():
            alike = [split for split, other in zip(splits, ways, strict=True) if other.layout.name == name]
            parts.append(ValidationPart(self.load(alike, way.layout), way))
        return [part for part in parts if len(part.faces)]

    def comparison(self, split: Split, layout: Layout | None = None) -> Comparison:
        """Return how a net of `layout`, by default the one that is trained, is compared with the labels of a split. If no
        rule relates the two, `load_splits` says so.
        """
        layout = layout or self.layout
        return comparison_of(layout, split.set.labelled, self.settings.layouts) or Comparison(layout)

    def learnt_from(self) -> list[str]:
        """Return the checksums of what a training learns from, the labels of the training sets first."""
        states = [state for one in self.training for state in one.state(self.settings.data.val)]
        return [*(one.checksum for one in self.training), *states, *(one.set.checksum for one in self.backgrounds)]

    def batches(self, faces: Faces, layout: Layout | None = None) -> Batches:
        """Return training batches of some faces."""
        settings = self.settings
        return Batches(faces, settings.augment, (layout or self.layout).flip_index, settings.train.seed)


class ValidationPart(NamedTuple):
    """Faces to validate on, and how the net is compared with their labels."""

    faces: Faces
    comparison: Comparison


def prepare(sets: Sets, ranks: Ranks, train: bool, test: bool) -> TaskData:
    """Return the sets of a run, to train on and to test on. Prepare missing ones. All processes call this."""
    data = sets.data
    more: list[str] = []
    if train:
        sets = ranks.one_by_one(lambda: sets.with_sets(data.training_sets))
    if test:
        if not data.test_data:
            more = [name for name in data.unlabelled or () if is_unlabelled_set(name, sets.root)]
        named = [*(data.test_data or data.training_sets), *more]
        sets = ranks.one_by_one(lambda: sets.with_sets(named, test=True))
    task_data = TaskData(sets, [], [])
    if train:
        task_data = replace(task_data, training=[sets[name] for name in data.training_sets])
        net, most, usual = sets.settings.net, task_data.layout.count - 1, sets.defaults.values["num_nb"]
        if net.head == "pip" and net.num_nb == usual and net.num_nb > most:  # another number is an error
            sets = replace(sets, settings=sets.settings._replace(net=replace(net, num_nb=most)))
            task_data = replace(task_data, sets=sets)
            logger.info(f"num_nb is {most}, not {net.num_nb}: there are {most + 1} landmarks")
        if isinstance(task_data.layout, Union):
            for line in described(task_data.layout, sets.layouts):
                logger.info(line)
        if data.backgrounds:
            cut = rooms.semi.background_splits
            found = ranks.one_by_one(lambda: cut(sets, task_data.training[0], data.backgrounds))
            task_data = replace(task_data, backgrounds=found)
    if test:
        tested = test_splits(sets)
        task_data = replace(task_data, tested=tested + unlabelled_tests(sets, tested[0].set, more))
    return task_data


def unlabelled_tests(sets: Sets, like: PreparedSet, names: list[str]) -> list[Split]:
    """Return the test splits of those sets whose layout can be converted to or from that of the set `like`."""
    found = []
    for one in (sets[name] for name in names):
        pair = one.meta["layout"], like.meta["layout"]
        alike = pair[0] == pair[1] or conversion(*pair, sets.layouts) or conversion(*pair[::-1], sets.layouts)
        if "test" in one.splits and alike and one.folder != like.folder:
            found.append(Split(one, "test"))
    return found


def labelled_rows(identities: Iterable[str], fraction: float, seed: int) -> np.ndarray:
    """Return (M,) bool: whether each face keeps its labels.
    A share `fraction` of the identities does, at least one of them.
    """
    drawn = np.array([int.from_bytes(name_hash(f"{seed}/labelled/{name}")[:8]) for name in identities], np.uint64)
    order = np.unique(drawn)  # of the identities
    return drawn <= order[max(round(fraction * len(order)), 1) - 1] if len(order) else np.zeros(0, bool)


def load_faces(task_data: TaskData, apart: np.ndarray | None = None) -> tuple[Faces, list[ValidationPart]]:
    """Return the faces to train on, and those to validate on, if any.

    apart: (M,) bool, whether each face of the splits train and val validates; None: --val decides.
    """
    settings, layout = task_data.settings, task_data.layout
    data, seed, held = settings.data, settings.train.seed, None
    names = () if apart is None else ("train", "val")
    faces = task_data.load(task_data.splits(*names))
    if data.labelled_fraction < 1:
        faces = faces.only(labelled_rows(faces["identity"], data.labelled_fraction, seed))
    if apart is not None:
        faces, held = faces.only(~apart), faces.only(apart)
    if data.least_box:
        box = faces["box"]
        sides = box[:, 2:] - box[:, :2]
        faces = faces.only(sides.min(1) >= data.least_box)
        if not len(faces):
            raise UserError(f"least_box {data.least_box:g} leaves no training face; give a smaller one")
    if data.balance:
        faces = balanced(faces, layout)
    if held is not None:
        return faces, [ValidationPart(held, Comparison(layout))]
    if data.val == "none":
        return faces, []
    parts = task_data.validation(
        task_data.tested if data.val == "test" else [Split(one, "val") for one in task_data.training]
    )
    if not any(len(part.faces) for part in parts):
        folders = ", ".join(str(one.folder) for one in task_data.training)
        metas, remedy = [one.meta for one in task_data.training], ""
        if not any(meta["val"] for meta in metas):
            remedy = "its raw folder, to prepare it with this share, "
        elif len({*faces["identity"]}) == 1 and all(meta["own"] and not meta.get("identities") for meta in metas):
            remedy = "--identity picture, as all its faces are of one identity, "
        raise UserError(
            f"{folders} has no validation faces with --val {data.val}; give {remedy}--val test, or --val none to keep "
            "the last epoch"
        )
    for part in parts:
        face_norms(part.faces, part.comparison.layout, settings.test.norm)
    return faces, parts
