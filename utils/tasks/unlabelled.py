"""Unlabelled faces of the task `landmarks`, and the samples that a training with --semi takes from them."""
import hashlib
from typing import NamedTuple

import numpy as np
import torch

from pipnet.errors import UserError
from utils.faces.batches import Batches, recipes
from utils.faces.faces import Faces, evenly
from utils.faces.mixed import labelled_rows, of_level, pseudo_labelled
from utils.faces.prepared_set import UNLABELLED, Split, load
from utils.faces.shards import Shards, shard_files
from utils.faces.unlabelled import check_apart, unlabelled_splits
from utils.keys import MEAN_TEACHER, ROUNDS
from utils.tasks.base import Training
from utils.tools.rounds import read_labels
from utils.train.make_net import input_margin


class Pool(NamedTuple):
    """Unlabelled faces of prepared sets and of identities without labels, None if there are only shards; checksums of both."""
    faces: Faces | None
    shards: Faces | None
    checksums: list[str]


def find_pool(task) -> Pool:
    """Return the unlabelled faces of a task `Landmarks`, prepared if need be; all processes call it.

    UserError for test pictures, and where there is no face.
    """
    settings, sets, ranks = task.settings, task.sets, task.ranks
    data, semi, margin = settings.data, settings.train.semi, input_margin(settings.net)
    names, shards, faces, checksums = data.unlabelled or [], None, None, []
    if files := [file for name in names for file in shard_files(name)]:
        if semi in ROUNDS:
            raise UserError(f"{files[0]} is read as a stream, which --semi {semi} cannot label; give a folder of pictures, or "
                            "--semi mean-teacher")
        stored = task.training[0].meta["margin"]
        tars = ranks.one_by_one(lambda: Shards(files, sets.root / UNLABELLED, settings.net.input_size, stored, margin))
        shards, checksums = tars.faces(), [tars.checksum]
    names = [name for name in names if not shard_files(name)]
    splits = ranks.one_by_one(lambda: unlabelled_splits(sets, task.training[0], names, settings.test))
    tested = task.tested or [Split(one, "test") for one in task.training if "test" in one.splits]
    ranks.agree(lambda: check_apart(splits, tested))
    rest = [split._replace(labelled=False) for split in task.training_splits() if data.labelled_fraction < 1]
    if splits or rest:
        faces = load([*splits, *rest], task.layout, settings.net.input_size, data.cache, input_margin=margin)
        others = sum(len(split.set.read(split.name)) for split in splits)
        rows = labelled_rows(faces["identity"][others:], data.labelled_fraction, settings.train.seed)
        faces = faces.only(np.flatnonzero(np.concatenate([np.ones(others, bool), ~rows])))
        if not len(faces):
            raise UserError(f"labelled_fraction {data.labelled_fraction:g} leaves no unlabelled face; give a smaller one")
    return Pool(faces, shards, [split.set.checksum for split in splits] + checksums)


def nominal_crops(pool: Pool, most: int) -> torch.Tensor:
    """Return up to `most` crops (M, S, S, 3) of unlabelled faces, evenly spread, as a net gets them in a test."""
    kinds = [faces.crops for faces in pool[:2] if faces is not None]
    return torch.from_numpy(np.stack([crops.plain(row) for crops in kinds for row in evenly(len(crops), most)]))


def with_unlabelled(task, training: Training) -> Training:
    """Return the training of a task `Landmarks` with the unlabelled faces of its round, or with views for a mean teacher."""
    settings, layout, (file, level) = task.settings, task.layout, task.round
    flip_index, seed = layout.flip_index, settings.train.seed
    faces, shards, checksums = task.unlabelled()
    if settings.train.semi == MEAN_TEACHER:
        count, whole = len(task.faces), Faces.join([part for part in (task.faces, faces, shards) if part is not None])
        batches = Batches(whole, settings.augment, flip_index, seed, count, recipes(settings.augment, settings.views))
        return training._replace(samples=batches, checksums=training.checksums + checksums, labelled=count,
                                 words=f"{training.words}; {len(whole) - count} unlabelled faces")
    if file is None:  # the first net
        return training
    told = pseudo_labelled(faces, read_labels(file, faces), float(task.faces.shift().mean()), level)
    batches = Batches(Faces.join([of_level(task.faces, 0), told]), settings.augment, flip_index, seed)
    checksums = [*training.checksums, *checksums, hashlib.sha256(file.read_bytes()).hexdigest()]
    return training._replace(samples=batches, checksums=checksums,
                             words=f"{training.words}; {len(faces)} unlabelled faces, pseudo-labelled in {file}")
