"""The prepared sets of a landmark net, and the faces in them on which it is trained and validated."""
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from loguru import logger

from pipnet.errors import UserError
from pipnet.layout import Layout
from utils.config import Settings
from utils.evaluate.evaluate import convert_predictor, face_norms
from utils.faces.archives import DATASETS
from utils.faces.batches import Batches
from utils.faces.face_states import balanced, complete
from utils.faces.faces import Faces
from utils.faces.prepared_set import PreparedSet, Split, load_splits, name_hash, trained_splits
from utils.faces.sets import Sets, check_same_protocol
from utils.faces.unlabelled import unlabelled_tests
from utils.train.make_net import auxiliary_outputs, input_margin
from utils.train.ranks import Ranks


class Sources(NamedTuple):
    """The sets that a run's modes need: those to train on, and the splits to test on."""

    settings: Settings
    sets: Sets
    training: list[PreparedSet]
    tested: list[Split]

    @property
    def layout(self) -> Layout:
        """Return the layout of the net: --layout, else that of the first training set."""
        layout, wanted = self.layout_of(self.training[0]), self.settings.net.num_lms
        if wanted not in (None, layout.count):
            raise UserError(f"num_lms is {wanted}, but layout {layout.name} has {layout.count} landmarks; choose another "
                            "--layout or --selected-index")
        return layout

    def layout_of(self, one: PreparedSet) -> Layout:
        """Return --layout, restricted to --selected-index, or without it the layout of a set."""
        data = self.settings.data
        return self.settings.layouts.load(data.layout or one.meta["layout"], data.selected_index)

    def label_shifts(self) -> list[float]:
        """Return the label shift of each training set, in px: --label-shift, else that of the dataset."""
        shifts, count = self.settings.data.label_shift, len(self.training)
        if shifts is None:
            return [DATASETS[one.meta["dataset"]].label_shift for one in self.training]
        if len(shifts) not in (1, count):
            raise UserError(f"label_shift has {len(shifts)} numbers for {count} training sets; give one or as many")
        return shifts if len(shifts) == count else shifts * count

    def splits(self, *names: str) -> list[Split]:
        """Return splits of the training sets.

        Default: those that are trained on, which are train, and val unless it validates.
        """
        names = names or trained_splits(self.settings.data.val)
        return [Split(one, name, shift) for one, shift in zip(self.training, self.label_shifts(), strict=True) for name in names]

    def crops(self, splits: list[Split], layout: Layout | None = None, cache: float = 0) -> Faces:
        """Return the faces of some splits as the net gets them. cache: GiB."""
        net = self.settings.net
        return load_splits(splits, layout or self.layout, net.input_size, cache, input_margin(net))

    def load(self, splits: list[Split]) -> Faces:
        """Return the faces of some splits with the labels that the net's outputs need."""
        data, layout = self.settings.data, self.layout
        faces = self.crops(splits, layout, data.cache)
        return complete(faces, layout, auxiliary_outputs(self.settings.loss))

    def batches(self, faces: Faces, layout: Layout | None = None) -> Batches:
        """Return training batches of some faces."""
        settings = self.settings
        return Batches(faces, settings.augment, (layout or self.layout).flip_index, settings.train.seed)


def prepare(settings: Settings, sets: Sets, ranks: Ranks, train: bool, test: bool) -> Sources:
    """Return the sets of a run, to train on and to test on. Prepare missing ones. All processes call this."""
    sources, data = Sources(settings, sets, [], []), settings.data
    if train:
        sources = sources._replace(training=ranks.one_by_one(sets.training))
        net, most, usual = settings.net, sources.layout.count - 1, sets.defaults.values["num_nb"]
        if net.head == "pip" and net.num_nb == usual and net.num_nb > most:  # a number that was given is an error
            sources = sources._replace(settings=settings._replace(net=replace(net, num_nb=most)))
            logger.info(f"num_nb is {most}, not {net.num_nb}: there are {most + 1} landmarks")
    if test:
        tested = ranks.one_by_one(sets.test_splits)
        if data.unlabelled and not data.test_data:
            tested = tested + ranks.one_by_one(lambda: unlabelled_tests(sets, tested[0].set, data.unlabelled))
        sources = sources._replace(tested=tested)
    return sources


def check_tests(sources: Sources) -> None:
    """Raise UserError, before the training, if the net could not be tested on a test set."""
    for split in sources.tested:
        check_same_protocol(split.set, sources.training[0].meta["protocol"])
        there, _ = convert_predictor(sources.layout, split.set.meta["layout"], sources.settings.layouts)
        face_norms(sources.crops([split], there), there, sources.settings.test.norm)


def labelled_rows(identities: Iterable[str], fraction: float, seed: int) -> np.ndarray:
    """Return (M,) bool: whether each face keeps its labels. A share `fraction` of the identities does, at least one of them."""
    drawn = np.array([int.from_bytes(name_hash(f"{seed}/labelled/{name}")[:8]) for name in identities], np.uint64)
    order = np.unique(drawn)  # of the identities
    return drawn <= order[max(round(fraction * len(order)), 1) - 1] if len(order) else np.zeros(0, bool)


def load_faces(sources: Sources, fold: int | None = None) -> tuple[Faces, Faces | None]:
    """Return the faces to train on, and those to validate on or None. fold: number of the audit's fold that is held out."""
    settings, layout = sources.settings, sources.layout
    data, seed, held = settings.data, settings.train.seed, None
    faces = sources.load(sources.splits())
    if data.labelled_fraction < 1:
        faces = faces.only(np.flatnonzero(labelled_rows(faces["identity"], data.labelled_fraction, seed)))
    if fold is not None:  # before rare faces are repeated, which would change the folds
        apart = fold_of(faces["identity"], data.folds, seed) == fold
        faces, held = faces.only(np.flatnonzero(~apart)), faces.only(np.flatnonzero(apart))
    if data.least_box:
        box = faces["box"][:]
        sides = box[:, 2:] - box[:, :2]
        faces = faces.only(np.flatnonzero(sides.min(1) >= data.least_box))
        if not len(faces):
            raise UserError(f"least_box {data.least_box:g} leaves no training face; give a smaller one")
    if data.balance:
        faces = balanced(faces, layout)
    if held is not None:
        return faces, held
    if data.val == "none":
        if settings.train.early_stop:
            raise UserError("early_stop needs validation faces; give --val 0.1, or --early-stop 0")
        return faces, None
    held = sources.load(sources.tested if data.val == "test" else [Split(one, "val") for one in sources.training])
    if not len(held):
        folders = ", ".join(str(one.folder) for one in sources.training)
        raise UserError(f"{folders} has no validation faces with --val {data.val}; give a larger share, "
                        "--val test, or --val none to keep the last epoch")
    face_norms(held, layout, settings.test.norm)
    return faces, held


def fold_of(identities: Iterable[str], folds: int, seed: int) -> np.ndarray:
    """Return the fold (M,) of each face. All faces of an identity are in one fold.

    Identities are taken in the order of a hash, and each goes to the fold that has the fewest faces so far.
    """
    faces = Counter(identities)
    if len(faces) < folds:
        raise UserError(f"{len(faces)} identities cannot be divided into {folds} folds; lower --folds")
    size, fold = np.zeros(folds, int), {}
    for name in sorted(faces, key=lambda name: name_hash(f"{seed}/fold/{name}")):
        fold[name] = int(size.argmin())
        size[fold[name]] += faces[name]
    return np.array([fold[name] for name in identities])
