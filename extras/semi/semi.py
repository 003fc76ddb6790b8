"""Unlabelled faces for --semi, their pseudo-labels, and the samples that a training takes from them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from extras.semi.shards import Shards, shard_files
from extras.semi.unlabelled import check_apart, unlabelled_splits
from pipnet.errors import UserError
from pipnet.files import checksum, each_row
from pipnet.geometry import to_crop, to_image
from utils.data.batches import Batches, recipes
from utils.data.faces import Faces, constant
from utils.data.prepared_set import UNLABELLED, Split
from utils.settings.sections import MEAN_TEACHER, ROUNDS
from utils.task.sources import Sources, labelled_rows
from utils.train.experiment import Samples
from utils.train.make_net import input_margin
from utils.train.ranks import Ranks

COLUMNS = ["file", "score", "sigma", "moved"]  # of a file of pseudo-labels, before the landmarks
SAME = 0.002  # of the crop: landmarks that vary less than this between faces, or within a face, carry no information


class Pool(NamedTuple):
    """Unlabelled faces.

    faces: those of prepared sets and those whose labels --labelled-fraction hides; shards: those of tar files. None:
    there are none. checksums: of all these sets.
    """

    faces: Faces | None
    shards: Faces | None
    checksums: list[str]


class Told(NamedTuple):
    """Pseudo-labels of a pool's faces. level: the loss terms that they train, see `Labels`."""

    file: Path
    level: int


def find_pool(sources: Sources, ranks: Ranks) -> Pool:
    """Return the unlabelled faces that --unlabelled and --labelled-fraction mean. Prepare missing sets.
    All processes call this.

    UserError if test pictures are among them, and if there is no face.
    """
    settings, sets, first = sources.settings, sources.sets, sources.training[0]
    data, semi, margin = settings.data, settings.train.semi, input_margin(settings.net)
    names, shards, faces, checksums = data.unlabelled or [], None, None, []
    if files := [file for name in names for file in shard_files(name)]:
        if semi in ROUNDS:
            raise UserError(
                f"{files[0]} is read as a stream, which --semi {semi} cannot label; give a folder of pictures, or "
                "--semi mean-teacher"
            )
        stored = first.meta["margin"]
        tars = ranks.one_by_one(lambda: Shards(files, sets.root / UNLABELLED, settings.net.input_size, stored, margin))
        shards, checksums = tars.faces(), [tars.checksum]
    names = [name for name in names if not shard_files(name)]
    splits = ranks.one_by_one(lambda: unlabelled_splits(sets, first, names, settings.test))
    tested = sources.tested or [Split(one, "test") for one in sources.training if "test" in one.splits]
    ranks.agree(lambda: check_apart(splits, tested))
    rest = [split._replace(labelled=False) for split in sources.splits() if data.labelled_fraction < 1]
    if splits or rest:
        faces = sources.crops([*splits, *rest], cache=data.cache)
        others = sum(len(split.set.read(split.name)) for split in splits)
        rows = labelled_rows(faces["identity"][others:], data.labelled_fraction, settings.train.seed)
        faces = faces.only(np.flatnonzero(np.concatenate([np.ones(others, bool), ~rows])))
        if not len(faces):
            raise UserError(
                f"labelled_fraction {data.labelled_fraction:g} leaves no unlabelled face; give a smaller one"
            )
    return Pool(faces, shards, [split.set.checksum for split in splits] + checksums)


def with_unlabelled(samples: Samples, sources: Sources, labelled: Faces, pool: Pool, told: Told | None) -> Samples:
    """Return the samples, and behind them the unlabelled faces of `pool`: with pseudo-labels `told`, or with views for
    a teacher.

    samples: those of the faces `labelled`. In a first round nothing is added.
    """
    settings, (faces, shards, checksums), count = sources.settings, pool, len(labelled)
    if settings.train.semi == MEAN_TEACHER:
        whole = Faces.join([part for part in (labelled, faces, shards) if part is not None])
        batches = Batches(
            whole,
            settings.augment,
            sources.layout.flip_index,
            settings.train.seed,
            count,
            recipes(settings.augment, settings.views),
        )
        return samples._replace(
            batches=batches,
            checksums=samples.checksums + checksums,
            labelled=count,
            words=f"{samples.words}; {len(whole) - count} unlabelled faces",
        )
    if told is None:
        return samples
    learnt = pseudo_labelled(faces, read_labels(told.file, faces), float(labelled.shift().mean()), told.level)
    true = labelled.with_columns(level=constant(0, count))
    return Samples(
        sources.batches(Faces.join([true, learnt])),
        learnt_from(samples.checksums, pool, told),
        f"{samples.words}; {len(faces)} unlabelled faces, pseudo-labelled in {told.file}",
    )


def learnt_from(labelled: list[str], pool: Pool, told: Told | None) -> list[str]:
    """Return the checksums of what a round learns from; `labelled` are those of the labelled sets."""
    return [*labelled, *pool.checksums, checksum(told.file)] if told else labelled


def pseudo_labelled(faces: Faces, nominal: np.ndarray, shift: float, level: int) -> Faces:
    """Return the faces with pseudo-labels (M, N, 2) in [0, 1] of the crop.

    shift: how far these lie right of the true points, in [0, 1] of the crop. level: which terms they train, see
    `Labels`.
    """
    crop, count = faces["crop"][:], len(faces)
    return faces.with_columns(
        level=constant(level, count),
        landmarks=to_image(nominal.astype(np.float32).astype(np.float64), crop),
        visible=constant(np.ones(nominal.shape[1], bool), count),
        label_shift=shift * (crop[:, 2] - crop[:, 0]),
    )


def read_labels(file: Path, faces: Faces) -> np.ndarray:
    """Return pseudo-labels (M, N, 2) in [0, 1] of the faces' crops. UserError if the file was made for other faces."""
    other = UserError(f"{file} is of other unlabelled faces than there are now; train another run")
    names, points, count = list(faces["file"]), np.zeros((0, 0)), 0
    for row in each_row(file) if file.is_file() else ():  # one by one, since there may be millions
        if count == len(names) or row.get("file") != names[count]:
            raise other
        try:
            values = np.array(list(row.values())[len(COLUMNS) :], np.float64)
        except ValueError as error:
            raise UserError(f"{file} is damaged ({error}); train another run") from None
        points = points if count else np.empty((len(names), len(values)))
        points[count] = values
        count += 1
    if count < len(names):
        raise other
    return to_crop(points.reshape(len(faces), -1, 2), faces["crop"][:])


def check_collapse(nominal: np.ndarray, who: str) -> None:
    """Raise UserError if landmarks (M, N, 2) in [0, 1] of the crop hardly differ between faces, or between each other
    in most.
    """
    across, within = nominal.std(0).mean() if len(nominal) > 1 else 1.0, np.median(nominal.std(1).mean(1))
    if not min(across, within) > SAME:
        what = "the same landmarks in every face" if within > SAME else "all landmarks of a face at one place"
        raise UserError(
            f"{who} finds {what}: it has collapsed, and its pseudo-labels would teach nothing; lower "
            "--learning-rate, give more --epochs or more labelled faces, and look at the faces with --show-data"
        )
