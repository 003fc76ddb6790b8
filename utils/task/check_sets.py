"""Errors and doubts about the sets of a training, which are reported before its first step."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.errors import UserError, one_line
from pipnet.geometry import similarity, transform
from pipnet.layout import Layout
from pipnet.shipped import checksum
from utils.data.faces import Faces
from utils.data.prepared_set import Split, source_picture, trained_splits
from utils.data.sets import check_same_protocol, with_checksums
from utils.evaluate.evaluate import face_norms
from utils.settings.conversion import HALF
from utils.settings.union import check_names, members_of
from utils.task.task_data import TaskData
from utils.train.initialise import ALIKE

APART = 0.3  # distance of two mean faces / size of the face; sets with the same order of points have 0.12 at most
MOST = 50_000  # faces of a split whose pictures are compared with those of others


def check_training(task_data: TaskData) -> None:
    """Raise UserError for a set that is given twice, and for a name in --shares or conventions that is of no set or
    several.
    """
    settings, sets = task_data.settings, task_data.training
    for place, one in enumerate(sets):
        if same := [other.folder for other in sets[:place] if other.checksum == one.checksum]:
            raise UserError(
                f"--train-data: {same[0]} and {one.folder} hold the same faces; leave one out, --shares takes a set "
                "more often"
            )
    names = [one.labelled.set_name for one in sets]
    check_names("--shares", (one.rpartition("=")[0] for one in settings.train.shares), names)
    if settings.layouts.is_union(layout := settings.data.layout):
        check_names(f"layout '{layout}': conventions", settings.layouts.conventions(layout), names)


def check_tests(task_data: TaskData) -> None:
    """Raise UserError, before the training, if the net could not be tested on a test set."""
    for split in task_data.tested:
        check_same_protocol(split.set, task_data.training[0].meta["protocol"])
        there = task_data.comparison(split).layout
        face_norms(task_data.crops([split], there), there, task_data.settings.test.norm)


def check_known(layout: Layout, faces: Faces) -> None:
    """Raise UserError, naming the landmarks, and the sets of a union of layouts, if no training face has some of them."""
    unknown = np.flatnonzero(np.isnan(faces.meanface()).any(1)).tolist()
    if unknown:
        names = layout.point_names()
        points = one_line(", ".join(f"{i} ({names[i]})" for i in unknown), 80)
        sets = [name for member in members_of(layout).values() if {*member.index} & {*unknown} for name in member.sets]
        raise UserError(
            f"no training face{' of ' * bool(sets)}{', '.join(sets)} has landmarks {points} of layout {layout.name}, so they "
            "cannot be learnt; give the --layout of a training set, leave the landmarks out by --selected-index, or leave "
            "out a set"
        )


def doubts(task_data: TaskData) -> Iterator[str]:
    """Yield a line for each doubt about the sets of a training that is no error for certain."""
    yield from _misplaced(task_data)
    trained = task_data.splits()
    held = [] if any(split.name == "val" for split in trained) else task_data.splits("val")
    yield from _seen_in_training([*task_data.tested, *held], trained)
    yield from _same_identities([*task_data.tested, *held], trained)


def doubts_about_tests(task_data: TaskData, stored: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each doubt about the test splits of a trained net. stored: the values of its checkpoint.

    Its training sets are the prepared sets with their checksums. A user's own set may have changed since the training.
    Nothing is yielded if this command has trained the net: `doubts` knew its sets.
    """
    names, known = stored["args"].get("train_data") or (), stored.get("data", ())
    if {one.checksum for one in task_data.training} & {*known}:
        return
    trained = [
        Split(one, name)
        for one in with_checksums(task_data.sets, known[: len(names)], known[len(names) :], stored["args"]["val"])
        for name in trained_splits(stored["args"]["val"])
        if name in one.splits
    ]
    yield from _seen_in_training(task_data.tested, trained)
    yield from _same_identities(task_data.tested, trained)
    for one in (split.set for split in task_data.tested):
        trained_on = {one.meta["source"], str(one.folder)} & {*names}
        if one.meta["own"] and trained_on and known and one.checksum not in known:
            yield (
                f"{one.folder} has changed since the training; if test faces of it were training faces then, the figures on "
                "them are too good"
            )


def _misplaced(task_data: TaskData) -> Iterator[str]:
    """Yield a line for each training set whose mean face does not fit that of an earlier set at the landmarks of both.

    It has another shape, or another size than in the crops of the first set. A set of profiles has no mean face.
    """
    splits = [split for split in task_data.splits("train") if split.set.meta["layout"] not in HALF]
    faces = [task_data.crops([split]).meanface() for split in splits if len(splits) > 1]
    for place, one in enumerate(faces):
        for split, other in zip(splits, faces[:place], strict=False):
            both = np.isfinite(one + other).all(1)
            if both.sum() < 2 or not np.ptp(one[both], axis=0).any():
                continue
            matrix, goal = similarity(one[both], other[both]), other[both]
            apart = np.linalg.norm(transform(one[both], matrix) - goal, axis=1)
            if (
                np.sqrt((apart**2).mean()) > APART * np.sqrt(((goal - goal.mean(0)) ** 2).sum(1).mean())
                or matrix[0, 0] < 0
            ):
                yield (
                    f"the {both.sum()} landmarks that {split.set.folder} and {splits[place].set.folder} share lie at other "
                    "places in one than in the other: does one have its points in another order, or is same_as wrong?"
                )
                break
            size = 1 / np.hypot(*matrix[:, 0])
            if other is faces[0] and not 1 / ALIKE < size < ALIKE:
                yield (
                    f"faces are {size:.2f} times as large in the crops of {splits[place].set.folder} as in those of "
                    f"{split.set.folder}, because crops are made around the landmarks of a set, or its boxes; the net learns "
                    "both sizes"
                )


def _seen_in_training(splits: list[Split], trained: list[Split]) -> Iterator[str]:
    """Yield a line for each test or validation split with pictures that are trained on, whatever their labels."""
    known_pictures = [(split, _pictures(split)) for split in trained]
    for split in splits:
        mine = _pictures(split)
        for other, theirs in known_pictures:
            sizes = set(mine.values()) & set(theirs.values())
            known = {checksum(file) for file, size in theirs.items() if size in sizes}
            if count := sum(size in sizes and checksum(file) in known for file, size in mine.items()):
                what = "validation" if split.name == "val" else "test"
                yield (
                    f"{count} of {len(mine)} {what} pictures of {split.set.folder} are training pictures of "
                    f"{other.set.folder} too, so the figures on them are too good"
                )


def _same_identities(splits: list[Split], trained: list[Split]) -> Iterator[str]:
    """Yield a line for each test or validation split with faces of identities that are trained on, where the files of
    that set state them.
    """
    for split in splits:
        source = split.set.meta["source"]
        same = [other for other in trained if other.set.meta["source"] == source and split.set.meta.get("identities")]
        known = {name for other in same for name in other.set.read(other.name)["identity"]}
        mine = split.set.read(split.name)["identity"]
        if shared := [name for name in mine if name in known]:
            what = "validation" if split.name == "val" else "test"
            yield (
                f"{len(shared)} of {len(mine)} {what} faces of {split.set.folder} are of {len({*shared})} identities, such as "
                f"'{shared[0]}', that are trained on too, so the figures on them are too good"
            )


def _pictures(split: Split) -> dict[Path, int]:
    """Return {picture of a split: its size in bytes}; none of a split of more than MOST faces, or of pictures that are
    gone.
    """
    faces, source = split.set.read(split.name), Path(split.set.meta["source"])
    files = {source_picture(source, name) for name in faces["file"]} if len(faces) <= MOST else ()
    return {file: file.stat().st_size for file in files if file and file.is_file()}
