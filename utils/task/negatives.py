"""The crops from which the output `face` learns what is no face in its place.

Three kinds are joined to the training faces: cuts of the training pictures beside the labelled faces, drawn backgrounds,
and the pictures of --backgrounds. A fourth kind is drawn anew in every pass: `utils.data.changes.misplaced`. They have
no landmarks, so they train nothing but `face`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from utils.data.faces import Faces, Part, constant
from utils.evaluate.boxes import beside
from utils.settings import rooms
from utils.task.task_data import TaskData, labelled_rows

CUTS, DRAWN = 0.15, 0.05  # numbers of cuts beside faces and of drawn backgrounds, as shares of the number of faces
LEAST, MOST = 90, 4096  # crops of each of these two kinds
HELD_OUT = 0.1  # share of the pictures of --backgrounds that validates, unless --val names one
KEPT = ("file", "source", "set", "size", "crop", "identity")  # columns of a crop without a face


def with_negatives(task_data: TaskData, faces: Faces, held: list[Faces]) -> tuple[Faces, Faces, str]:
    """Return the training faces with crops without a face behind them, such crops to validate on, and words for the log.

    held: the validation faces, beside which crops are cut too; without them no picture of --backgrounds is held out.
    """
    data, seed, mean = task_data.settings.data, task_data.settings.train.seed, faces.meanface()
    train = _beside_and_drawn(faces, 0, data.cache)
    validation = [crops for key, one in enumerate(held, 1) for crops in _beside_and_drawn(one, key, data.cache)]
    if task_data.backgrounds:
        named = task_data.crops(task_data.backgrounds, cache=data.cache)
        share = data.val if isinstance(data.val, float) else HELD_OUT
        learnt = labelled_rows(named["identity"], 1 - share if held else 1, seed)
        train.append(named.only(learnt))
        validation.append(named.only(~learnt))
    negatives, held_out = ([_without_labels(part, mean) for part in parts] for parts in (train, validation))
    joined = Faces.join([faces.with_values(face=1.0).with_facts(meanface=mean), *negatives])
    words = f"{sum(map(len, negatives))} crops without a face, {sum(map(len, held_out))} to validate"
    return joined, Faces.join(held_out or [joined.only(slice(0))]), words


def _beside_and_drawn(faces: Faces, key: int, cache: float) -> list[Faces]:
    """Return crops beside faces, if there are any, and drawn backgrounds. key: others get other backgrounds."""
    cuts, count = (min(max(round(share * len(faces)), LEAST), MOST) for share in (CUTS, DRAWN))
    found = beside(faces, cuts, cache)
    return [*([] if found is None else [found]), drawn_backgrounds(faces, count, key, cache)]


def _without_labels(faces: Faces, mean: np.ndarray) -> Faces:
    """Return crops that show no face, without what belongs to the faces beside them. mean (N, 2): of the faces."""
    unknown = {"box": np.full(4, np.nan), "label_shift": np.nan, "landmarks": np.full(mean.shape, np.nan)}
    return faces.keeping(*KEPT).with_values(face=0.0, **unknown).with_facts(meanface=mean)


def drawn_backgrounds(like: Faces, count: int, key: int, cache: float) -> Faces:
    """Return `count` drawn backgrounds as crops of the size of those of `like`. key: others get other pictures."""
    side = like.geometry.stored
    picture = partial(_drawn_picture, side, key)
    names = np.array([f"background {index + 1}" for index in range(count)], object)
    same = {"source": Path(), "set": "drawn", "size": np.full(2, side), "crop": np.array([0.0, 0, side, side])}
    columns = {name: constant(value, count) for name, value in same.items()}
    part = Part({"file": names, "identity": names, **columns}, picture, partial(_encoded, picture))
    return Faces.of(part, like.geometry, like.facts).cached(cache)


def _drawn_picture(side: int, key: int, index: int) -> np.ndarray:
    light = rooms.shared.background(np.random.default_rng((key, index)), side)  # linear
    return (np.sqrt(np.minimum(light, 1)) * 255).astype(np.uint8)


def _encoded(picture: Callable[[int], np.ndarray], index: int) -> bytes:
    return cv2.imencode(".jpg", picture(index))[1].tobytes()
