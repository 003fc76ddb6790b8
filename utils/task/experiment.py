"""The training of a landmark net as an `Experiment`: its faces, its net with all stages, its validation."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger

from nets import Prediction, Trainable
from nets.registry import BESIDE
from nets.wrappers.distillation import without_teacher
from pipnet.errors import UserError
from pipnet.geometry import to_crop
from pipnet.layout import Layout
from utils.data import sets
from utils.data.changes import in_place
from utils.data.faces import Faces
from utils.evaluate import metric
from utils.evaluate.boxes import backgrounds
from utils.evaluate.evaluate import Predict, Result, calibration, evaluate, predict_all, torch_predictor
from utils.evaluate.pictures import worst_faces
from utils.settings import rooms
from utils.settings.rules import BEGUN, MEAN_TEACHER
from utils.settings.union import labelled_by, layout_of, members_of
from utils.task.check_sets import check_known, check_tests, check_training
from utils.task.own_points import has_own_points, net_with_points, outputs_beside
from utils.task.task_data import TaskData, ValidationPart, load_faces
from utils.train import checkpoint
from utils.train.experiment import Experiment, TrainingSet, ValidationResult, check_finite
from utils.train.initialise import RANDOM, InitialWeights, initialise, shared_landmarks
from utils.train.loop import train
from utils.train.make_net import auxiliary_outputs, build_net, figure_of, make_net
from utils.train.ranks import Ranks
from utils.train.run_folder import Run
from utils.train.solver import Solver
from utils.train.teacher import add_teacher
from utils.train.weight_files import load_weights

SAME = 0.002  # of the crop: landmarks that vary less than this between faces, or within a face, carry no information
FIGURES = {"val_nme": "NME {:.3f} %", "val_false": "false faces {:.2f} %"}  # of the validation, in the log
UNTRAINED = 100  # steps; until then a net may find the mean face everywhere without having collapsed


def landmark_experiment(task_data: TaskData, ranks: Ranks, apart: np.ndarray | None = None) -> Experiment:
    """Return the training of a landmark net on the sets in `task_data.training`. Their faces are loaded here.

    apart: the faces that validate, see `load_faces`.
    """
    check_training(task_data)
    check_tests(task_data)
    settings, layout = task_data.settings, task_data.layout
    net, data = settings.net, settings.data
    faces, held = load_faces(task_data, apart)
    check_known(layout, faces)
    words = (
        f"{len(faces)} faces of {', '.join(data.training_sets)}, {sum(len(part.faces) for part in held)} to validate"
    )
    if data.val == "test":
        words += " (the TEST set: --val test)"
    learnt, shares, negatives = faces, task_data.shares(faces), None
    if settings.loss.face:
        from utils.task.negatives import with_negatives

        learnt, negatives, added = with_negatives(task_data, faces, [part.faces for part in held])
        words, count = f"{words}; {added}", len(learnt) - len(faces)
        if shares:  # crops without a face keep their proportion
            shares = (*shares, (count, sum(share for _, share in shares) * count / len(faces)))
    samples = TrainingSet(task_data.batches(learnt), task_data.learnt_from(), words, shares=shares)
    figure = figure_of(settings.flat())
    return Experiment(
        settings,
        f"{net.net} ({settings.train.preset}), {layout.count} landmarks, {net.input_size} px",
        figure,
        FIGURES[figure],
        samples,
        partial(start_net, task_data, faces, ranks),
        describe(task_data, faces),
        partial(validator, task_data, faces, held, negatives, ranks),
    )


def train_landmarks(task_data: TaskData, ranks: Ranks, run: Run, resume: bool) -> None:
    """Train a landmark net in the run's folder."""
    settings = task_data.settings
    if not resume and rooms.tools and BEGUN[0](settings) and settings.train.freeze != "landmarks":
        task_data = rooms.tools.with_same_landmarks(task_data, ranks)
    if settings.train.semi:
        rooms.semi.train_semi(task_data, ranks, run, resume)
        return
    train(landmark_experiment(task_data, ranks), run, ranks, resume)


def describe(task_data: TaskData, faces: Faces) -> dict[str, Any]:
    """Return the values of a checkpoint that describe the faces: layout, crop protocol, mean face of the training
    faces.
    """
    layout, rows = task_data.layout, task_data.settings.layouts.rows
    used = (
        task_data.settings.data.layout,
        layout.stored,
        *(member.layout.stored for member in members_of(layout).values()),
    )
    return {
        "layout": layout.to_dict(),
        "protocol": task_data.training[0].meta["protocol"],
        "layouts": {name: row for name, row in rows.items() if name in used},
        "meanface": faces.meanface().tolist(),
    }


def start_net(task_data: TaskData, faces: Faces, ranks: Ranks, last: Path | None) -> tuple[Trainable, InitialWeights]:
    """Return the net of a training on `faces` with its initial weights, and their origin.

    last: see `Experiment`.
    """
    settings, layout = task_data.settings, task_data.layout
    train, begun_with = settings.train, str(last or settings.net.weights)
    if last:
        check_resumed(task_data, last)
    outputs = auxiliary_outputs(vars(settings.loss))
    if train.freeze == "landmarks" and has_own_points(layout, outputs, begun_with):
        net, started = net_with_points(layout, settings, faces, begun_with, ranks, bool(last))
    else:
        net, started = _mapped_net(task_data, faces, begun_with, bool(last))
    if train.teacher:
        net, words = add_teacher(
            net.to(ranks.device),
            Path(train.teacher),
            settings.loss.teacher_weight,
            layout,
            task_data.training[0].meta["protocol"],
            task_data.sets.defaults,
        )
        logger.info(words)
    return net, started


def _mapped_net(task_data: TaskData, faces: Faces, begun_with: str, resumed: bool) -> tuple[Trainable, InitialWeights]:
    """Return the net of the settings with initial weights, those of a trained net for the landmarks that both have."""
    settings, layout, freeze = task_data.settings, task_data.layout, task_data.settings.train.freeze
    meanface = sets.meanface(task_data.sets, settings.net.meanface, layout, faces)
    net = make_net(settings.net, settings.loss, layout, meanface, labelled_by(layout, settings.layouts))
    net = with_landmarks_of(net, begun_with) if freeze == "landmarks" else with_neighbors_of(net, begun_with, layout)
    if resumed:
        return net, InitialWeights("the checkpoint")
    known = layout if settings.net.same_as == "auto" else replace(layout, same_as={})
    started = initialise(net, begun_with, known, faces.meanface(), logger.warning, task_data.sets.defaults)
    if freeze == "backbone" and started == RANDOM:
        raise UserError("--freeze backbone would keep random weights; give --weights of a trained net")
    return net, started


def check_resumed(task_data: TaskData, last: Path) -> None:
    """Raise UserError, which names them, if other outputs or pictures without a face are learnt than in the run so far."""
    stored = checkpoint.load(last)
    before, now = (auxiliary_outputs(loss) for loss in (stored["args"], vars(task_data.settings.loss)))
    if before != now:
        raise UserError(
            f"{last} has trained {', '.join(before) or 'nothing'} beside the landmarks, not {', '.join(now) or 'nothing'}; "
            f"leave {', '.join(f'--{key}' for key in BESIDE)} out, or train a new run"
        )
    for one in task_data.backgrounds:
        if one.set.checksum not in stored["data"]:
            raise UserError(
                f"--backgrounds {one.set.meta['source']}: other pictures or another --detector than {last} was trained "
                "with; restore them, or train a new run"
            )


def with_landmarks_of(net: Trainable, weights: str) -> Trainable:
    """Return a net, with random weights, that has all outputs of the net in a file beside its own, and the neighbors and the
    mean face of that net, which has the same landmarks.
    """
    known = load_weights(weights)[1]
    kept = {key: known["net"][key] for key in ("neighbor_index", "meanface") if key in known["net"]}
    return build_net({**net.spec, **kept, **outputs_beside(known, net.spec["auxiliary"], net.spec["refine"])})


def with_neighbors_of(net: Trainable, weights: str, layout: Layout) -> Trainable:
    """Return a net, with random weights, whose landmarks have the neighbors of the net in a file, if both have the same
    landmarks and numbers of neighbors: another mean face would order them otherwise, and the mean of both nets would be
    of no use.
    """
    known = load_weights(weights)[1]
    own, kept = net.spec.get("neighbor_index"), known.get("net", {}).get("neighbor_index")
    if not own or not kept or np.shape(own) != np.shape(kept):
        return net
    if shared_landmarks(layout, layout_of(known["layout"])) != {i: i for i in range(layout.count)}:
        return net
    return build_net({**net.spec, "neighbor_index": kept})


def validator(
    task_data: TaskData,
    faces: Faces,
    held: list[ValidationPart],
    negatives: Faces | None,
    ranks: Ranks,
    solver: Solver,
) -> Callable[[], ValidationResult]:
    """Return a function that validates the weights of `solver` on the faces `held`.
    The error is the mean over their layouts.

    faces: for training; a net without the output `face` is also measured on background beside them.
    negatives: crops without a face, from which the output `face` shall tell the faces; None: the net has none.
    """
    train, test = task_data.settings.train, task_data.settings.test
    net = build_net(solver.net.spec).to(ranks.device) if held else None
    beside = backgrounds(faces) if held and negatives is None else None

    def validate() -> ValidationResult:
        state, figures = without_teacher(solver.averaged()), {"val_nme": math.nan}
        if negatives is not None:
            figures["val_false"] = math.nan
        if net is None:
            check_finite(state)
            return ValidationResult(state, figures)
        net.load_state_dict(state)
        predict = torch_predictor(net, ranks.device)
        results = [evaluate(way(predict), part, way.layout, test.norm, ranks=ranks) for part, way in held]
        if train.semi == MEAN_TEACHER and solver.step > max(solver.schedule.total / 4, UNTRAINED):
            for part, result in zip(held, results, strict=True):
                check_collapse(to_crop(result.landmarks, part.faces["crop"]), "the net")
        factor = calibration(results)
        if train.freeze == "landmarks":
            factor = 1.0  # sigma stays as it is
        elif factor is not None:
            state = solver.net.head.calibrated(state, factor)
        told: dict[str, Any] = {}
        if beside:
            scores = [
                predict_all(way(predict), beside, way.layout, ranks=ranks).score.mean(1).numpy() for _, way in held
            ]
            told["face_limit"] = min(map(Result.face_limit, results, scores))
        shown = zip(held, results, strict=True) if ranks.first else ()
        figures["val_nme"] = float(np.mean([np.nanmean(result.nme) for result in results]))
        if negatives is not None:
            ways: list[Predict] = [partial(turned, predict, quarters) for quarters in (1, 2, 3)]
            crops = [(predict, negatives), *((way, part) for way in ways for part, _ in held)]
            said = [predict_all(way, some, task_data.layout, ranks=ranks).face for way, some in crops]
            figures["val_false"], told["face_reliability"] = tell_apart(
                held, results, np.concatenate([face.numpy() for face in said if face is not None])
            )
        return ValidationResult(
            state,
            figures,
            told,
            {f"worst/{way.layout.name}": worst_faces(part, result, way.layout) for (part, way), result in shown},
        )

    return validate


def turned(predict: Predict, quarters: int, images: torch.Tensor) -> Prediction:
    """Return the prediction for crops (B, S, S, 3) that are turned by quarters of a turn, which show no upright face."""
    return predict(images.rot90(quarters, (1, 2)))


def tell_apart(held: list[ValidationPart], results: list[Result], false: np.ndarray) -> tuple[float, list]:
    """Return `false_faces` and `reliability` of the output `face` for validation faces in their place, with their
    results, and for crops without a face in its place. false (M,): what it says of these.
    """
    rows = [part.faces.read("nominal", "known") for part in held]
    placed = [in_place(*row.values(), part.faces.meanface()) for row, part in zip(rows, held, strict=True)]
    true = np.concatenate(
        [result.face[kept == 1] for result, kept in zip(results, placed, strict=True) if result.face is not None]
    )
    both, truth = np.concatenate([true, false]), np.repeat([1.0, 0.0], [len(true), len(false)])
    return metric.false_faces(true, false), metric.reliability(both, truth)


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
