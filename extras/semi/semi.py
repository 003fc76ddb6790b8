"""The trainings of --semi: a landmark training with unlabelled faces, which a teacher or pseudo-labels label."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from extras.semi.mean_teacher import MeanTeacher
from extras.semi.settings import SemiSettings
from extras.semi.unlabelled import check_apart, unlabelled_splits
from nets import Trainable
from pipnet.errors import UserError
from pipnet.geometry import to_crop, to_image
from pipnet.shipped import checksum
from utils.data.batches import Batches, recipes
from utils.data.faces import Faces
from utils.data.prepared_set import Split
from utils.settings.csv_files import each_row
from utils.settings.rules import MEAN_TEACHER
from utils.task.experiment import landmark_experiment
from utils.task.task_data import TaskData, labelled_rows
from utils.train.experiment import Experiment, TrainingSet
from utils.train.ranks import Ranks

COLUMNS = ["file", "score", "sigma", "moved"]  # of a file of pseudo-labels, before the landmarks


class UnlabelledFaces(NamedTuple):
    """The faces of --unlabelled and those whose labels --labelled-fraction hides; checksums: of their sets."""

    faces: Faces
    checksums: list[str]


class PseudoLabels(NamedTuple):
    """A file of landmarks that a net found in unlabelled faces. level: the loss terms that they train, see `Labels`."""

    file: Path
    level: int


def find_unlabelled(task_data: TaskData, ranks: Ranks) -> UnlabelledFaces:
    """Return the unlabelled faces that --unlabelled and --labelled-fraction mean. Prepare missing sets.
    All processes call this.

    UserError if test pictures are among them, and if there is no face.
    """
    settings, sets = task_data.settings, task_data.sets
    data = settings.data
    splits = ranks.one_by_one(lambda: unlabelled_splits(sets, task_data.training[0], data.unlabelled or []))
    tested = task_data.tested or [Split(one, "test") for one in task_data.training if "test" in one.splits]
    ranks.agree(lambda: check_apart(splits, tested))
    hidden = [split._replace(labelled=False) for split in task_data.splits() if data.labelled_fraction < 1]
    faces = task_data.crops([*splits, *hidden], cache=data.cache)
    others = sum(len(split.set.read(split.name)) for split in splits)
    rows = labelled_rows(faces["identity"][others:], data.labelled_fraction, settings.train.seed)
    faces = faces.only(np.concatenate([np.ones(others, bool), ~rows]))
    if not len(faces):
        raise UserError(f"labelled_fraction {data.labelled_fraction:g} leaves no unlabelled face; give a smaller one")
    return UnlabelledFaces(faces, [split.set.checksum for split in splits])


def semi_experiment(
    task_data: TaskData, ranks: Ranks, unlabelled: UnlabelledFaces, pseudo: PseudoLabels | None = None
) -> Experiment:
    """Return the training with a mean teacher, or of one round; pseudo: what the round learns from, None: labels only."""
    semi, plain = task_data.settings.train.semi, landmark_experiment(task_data, ranks)
    samples = plain.samples
    if semi == MEAN_TEACHER:
        samples = with_views(samples, task_data, unlabelled)
    elif pseudo:
        samples = with_pseudo_labels(samples, task_data, unlabelled, pseudo)

    def start_net(last: Path | None) -> tuple[Trainable, Any]:
        net, weights = plain.net(last)
        if semi == MEAN_TEACHER:
            net = MeanTeacher(net, task_data.layout, label_shift(plain.samples.batches.faces))
        elif semi == "gssl":
            net.head.levels = 3  # of score maps, see `PIPHead`
        return net, weights

    return plain._replace(samples=samples, net=start_net)


def label_shift(faces: Faces) -> float:
    """Return how far the labels lie right of the true points, in [0, 1] of the crop: the mean of those that have any."""
    return float(np.nanmean(faces["shift"]))


def with_views(samples: TrainingSet, task_data: TaskData, unlabelled: UnlabelledFaces) -> TrainingSet:
    """Return the samples, and behind them the unlabelled faces, with a weak and a strong crop for a mean teacher."""
    settings, labelled = task_data.settings, samples.batches.faces
    batches = Batches(
        Faces.join([labelled, unlabelled.faces]),
        settings.augment,
        task_data.layout.flip_index,
        settings.train.seed,
        len(labelled),
        recipes(settings.augment, settings.views),
    )
    return samples._replace(
        batches=batches,
        checksums=samples.checksums + unlabelled.checksums,
        labelled=len(labelled),
        unlabelled_share=settings.room(SemiSettings).unlabelled_share,
        words=f"{samples.words}; {len(unlabelled.faces)} unlabelled faces",
    )


def with_pseudo_labels(
    samples: TrainingSet, task_data: TaskData, unlabelled: UnlabelledFaces, pseudo: PseudoLabels
) -> TrainingSet:
    """Return the samples, and behind them the unlabelled faces with pseudo-labels."""
    labelled, faces = samples.batches.faces, unlabelled.faces
    learnt = pseudo_labelled(faces, read_labels(pseudo.file, faces), label_shift(labelled), pseudo.level)
    true = labelled.with_values(level=0)
    return TrainingSet(
        task_data.batches(Faces.join([true, learnt])),
        learnt_from(samples.checksums, unlabelled, pseudo),
        f"{samples.words}; {len(faces)} unlabelled faces, pseudo-labelled in {pseudo.file}",
    )


def learnt_from(labelled: list[str], unlabelled: UnlabelledFaces, pseudo: PseudoLabels | None) -> list[str]:
    """Return the checksums of what a round learns from; `labelled` are those of the labelled sets."""
    return [*labelled, *unlabelled.checksums, checksum(pseudo.file)] if pseudo else labelled


def pseudo_labelled(faces: Faces, nominal: np.ndarray, shift: float, level: int) -> Faces:
    """Return the faces with pseudo-labels (M, N, 2) in [0, 1] of the crop.

    shift: how far these lie right of the true points, in [0, 1] of the crop. level: which terms they train, see
    `Labels`.
    """
    crop = faces["crop"]
    landmarks = to_image(nominal.astype(np.float32).astype(np.float64), crop)
    return faces.with_values(level=level).with_columns(
        landmarks=landmarks, label_shift=shift * (crop[:, 2] - crop[:, 0])
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
    return to_crop(points.reshape(len(faces), -1, 2), faces["crop"])
