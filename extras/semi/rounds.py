"""--semi gssl and self-training: in each round a net labels the unlabelled faces, and a new net learns from these
labels.

The first net is trained on labels only, in EXP/round0. The last one is the run's own. Pseudo-labels are in
EXP/pseudo_labels.
"""

from functools import partial
from pathlib import Path

import numpy as np
from loguru import logger

from extras.semi.semi import (
    COLUMNS,
    PseudoLabels,
    UnlabelledFaces,
    find_unlabelled,
    learnt_from,
    read_labels,
    semi_experiment,
)
from pipnet.draw import FOUND, TRUTH, sheet, tile
from pipnet.errors import UserError
from pipnet.geometry import to_image
from pipnet.images import write_image
from pipnet.layout import Layout
from utils.data.faces import Faces
from utils.evaluate.evaluate import predict_all, torch_predictor
from utils.settings.csv_files import read_csv, write_csv
from utils.settings.rules import ROUNDS
from utils.settings.sections import KEYS
from utils.task.experiment import check_collapse
from utils.task.task_data import TaskData
from utils.train import checkpoint
from utils.train.history import make_whole, resumable
from utils.train.loop import train
from utils.train.make_net import figure_of
from utils.train.ranks import Ranks
from utils.train.run_folder import Run

FOLDER = "pseudo_labels"
CHANGED, TILE = 40, 224  # faces that are drawn, px


def label_file(run: Run, number: int) -> Path:
    """Return the path of the pseudo-labels that a round learns from; the first such round is number 1."""
    return run.folder / FOLDER / f"round{number}.csv"


def train_semi(task_data: TaskData, ranks: Ranks, run: Run, resume: bool) -> None:
    """Train a landmark net with --semi; in several rounds if this is one of ROUNDS."""
    unlabelled = find_unlabelled(task_data, ranks)  # first of all, since it may fail
    if task_data.settings.train.semi in ROUNDS:
        train_rounds(task_data, ranks, unlabelled, run, resume)
    else:
        train(semi_experiment(task_data, ranks, unlabelled), run, ranks, resume)


def train_rounds(task_data: TaskData, ranks: Ranks, unlabelled: UnlabelledFaces, run: Run, resume: bool) -> None:
    """Train all rounds. A resumed run continues in the round where it was stopped.

    UserError if a net has collapsed, if the length of a resumed run differs, or if what a finished round has learnt
    from does.
    """
    settings, layout = task_data.settings, task_data.layout
    semi, epochs = str(settings.train.semi), settings.train.epochs
    runs = [*(run.part(f"round{number}") for number in range(len(ROUNDS[semi]))), run]
    begun_with = checkpoint.load(runs[0].last)["args"] if resume else settings.flat()
    for key in ("epochs", "early_stop"):
        if begun_with[key] != getattr(settings.train, key):
            raise UserError(
                f"{KEYS[key].flag} of a run with --semi {semi} stays {begun_with[key]}, since each round learns from "
                "the one before; leave it out, or train another run"
            )
    for number, one in enumerate(runs):
        pseudo = PseudoLabels(label_file(run, number), ROUNDS[semi][number - 1]) if number else None
        if pseudo and not pseudo.file.is_file():
            write_pseudo_labels(task_data, ranks, unlabelled.faces, run, number)
        if one.epochs == epochs:
            data = learnt_from(task_data.learnt_from(), unlabelled, pseudo)
            stored = resumable(one, {"layout": layout.to_dict(), "data": data}, task_data.sets.root)
            ranks.agree(partial(make_whole, one, figure_of(settings.flat()), stored))
            continue
        logger.info(f"round {number} of {len(runs) - 1}: {one.folder}")
        train(semi_experiment(task_data, ranks, unlabelled, pseudo), one, ranks, one.last.is_file())
    if ranks.first:
        draw_changed(unlabelled.faces, layout, label_file(run, 1), label_file(run, len(runs) - 1))
    ranks.wait()


def write_pseudo_labels(task_data: TaskData, ranks: Ranks, faces: Faces, run: Run, number: int) -> None:
    """Write the pseudo-labels for round `number`: the landmarks that the net of the previous round finds in unlabelled
    faces.
    """
    teacher, count, file = run.part(f"round{number - 1}"), task_data.layout.count, label_file(run, number)
    predict = torch_predictor(checkpoint.unpack(teacher.weights)[0], ranks.device)
    found = predict_all(predict, faces, task_data.layout, ranks=ranks)
    landmarks = found.landmarks.numpy()
    check_collapse(landmarks, f"the net of round {number - 1}")
    if ranks.first:
        before = label_file(run, number - 1)
        moved = np.full(len(faces), np.nan)
        if before.is_file():
            moved = np.linalg.norm(landmarks - read_labels(before, faces), axis=-1).mean(1)
        points = to_image(landmarks, faces["crop"]).reshape(len(faces), -1)
        sigma = np.full(len(faces), np.nan) if found.sigma is None else found.sigma.mean(1).numpy()
        figures = np.column_stack([found.score.mean(1).numpy(), 100 * sigma, 100 * moved])
        file.parent.mkdir(exist_ok=True)
        write_csv(
            file,
            [*COLUMNS, *(f"{axis}{index}" for index in range(count) for axis in "xy")],
            (
                [name, *(f"{value:.4f}" for value in (*row, *place))]
                for name, row, place in zip(faces["file"], figures, points, strict=True)
            ),
        )
    ranks.wait()


def draw_changed(faces: Faces, layout: Layout, first: Path, last: Path) -> None:
    """Draw the faces whose pseudo-labels changed most. Those of the first round are green, those of the last one red."""
    before, after = (read_labels(file, faces) for file in (first, last))
    change, files = np.linalg.norm(after - before, axis=-1).mean(1), faces["file"]
    order = np.argsort(-change, kind="stable")[:CHANGED].tolist()
    _draw(
        last.with_name("changed.jpg"),
        faces,
        layout,
        [(i, f"{100 * change[i]:.1f} % {files[i]}") for i in order],
        (before, after),
    )


def show_labels(task_data: TaskData, ranks: Ranks, run: Run, count: int) -> str:
    """Draw `count` faces with the pseudo-labels of each round, least certain first. Return what to print.

    All processes call this.
    """
    faces = find_unlabelled(task_data, ranks).faces
    return ranks.agree(lambda: _draw_least_certain(faces, task_data.layout, run, count))


def _draw_least_certain(faces: Faces, layout: Layout, run: Run, count: int) -> str:
    files, names = sorted((run.folder / FOLDER).glob("round*.csv")), faces["file"]
    for file in files:
        labels, score = read_labels(file, faces), np.array([row["score"] for row in read_csv(file, ["score"])])
        order = np.argsort(score, kind="stable")[:count].tolist()
        _draw(
            file.with_suffix(".jpg"),
            faces,
            layout,
            [(i, f"{score[i]:.2f} {names[i]}") for i in order],
            (None, labels),
        )
    places = ", ".join(str(file.with_suffix(".jpg")) for file in files)
    return f"Pseudo-labels, least certain first: {places}" if files else ""


def _draw(file: Path, faces: Faces, layout: Layout, titles: list[tuple[int, str]], labels: tuple) -> None:
    """Draw faces (index, title) with two sets of landmarks (M, N, 2) in [0, 1] of the crop; the first may be None."""
    colours = (TRUTH, FOUND)
    tiles = [
        tile(
            faces.nominal_crop(index),
            [(points[index], colour) for points, colour in zip(labels, colours, strict=True) if points is not None],
            layout,
            TILE,
            title,
        )
        for index, title in titles
    ]
    write_image(file, sheet(tiles, 8))
