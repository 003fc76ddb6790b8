"""Points of an own layout behind a trained net: weighted means of the landmarks that it finds, fitted to few labelled faces.

The weights are those of a ridge regression towards the nearest landmark, in the frame of the usual face. Faces that are left
out choose how strongly they are held there. A face and its mirror image count as two, but for a point of one side without a
partner. A label that lies far off counts less.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from loguru import logger
from numpy import ndarray

from nets import Trainable
from nets.registry import TERMS
from pipnet.errors import UserError
from pipnet.flags import flag
from pipnet.geometry import similarity, transform
from pipnet.layout import Layout
from utils.data.faces import Faces, evenly
from utils.evaluate.evaluate import predict_all, torch_predictor
from utils.settings.config import Settings
from utils.settings.union import Union, layout_of
from utils.train.checkpoint import STRUCTURE
from utils.train.initialise import InitialWeights, shared_landmarks
from utils.train.make_net import auxiliary_outputs, build_net, trained_states
from utils.train.ranks import Ranks
from utils.train.weight_files import load_weights

# of the ridge; with the last one a point stays at its landmark
STRENGTHS = 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 1000.0
FOLDS, MOST = 5, 300  # folds of so many faces at most, which choose the strength
FEWEST = 4  # faces that label a point
ASIDE = 0.1  # sizes of the usual face: distance from its middle
WRONG = 0.08  # sizes of the usual face: error of a point that no landmark tells
ROUNDS, FAR = 4, 2.0  # of weights for labels; multiple of the median distance from which on a label counts less


class Fit(NamedTuple):
    """weight (N, K): of each landmark in each point; nearest (N,): the landmark nearest to each point; error (N,): mean
    distance of left-out labels from what the others predict, in sizes of the usual face.
    """

    weight: ndarray
    nearest: ndarray
    error: ndarray


def has_own_points(layout: Layout, outputs: Collection[str], weights: str) -> bool:
    """Return whether a training that keeps the landmarks of the net in a file of ours gives points of `layout` in their place:
    to learn these, or because that net has others. outputs: beside the landmarks, which are trained.
    """
    known = load_weights(weights)[1]
    there = layout_of(known["layout"])
    return not outputs or "points" in known["net"] or _chosen(layout, there) != [*range(there.count)]


def _chosen(layout: Layout, there: Layout) -> list[int]:
    """Return the landmarks of layout `there` that those of `layout` are; [] if it has others, or names them by `same_as`."""
    shared = shared_landmarks(replace(layout, same_as={}), there)
    return [shared[i] for i in range(layout.count)] if len(shared) == layout.count else []


def outputs_beside(known: dict[str, Any], own: Collection[str], refined: bool) -> dict[str, Any]:
    """Return values for the spec of a net: `own` outputs beside the landmarks, and those of the net in a checkpoint.

    refined: whether the net has the refiner, which `visible` needs.
    """
    there = {*known["net"]["auxiliary"]} - {*["visible"] * (not refined)}
    outputs: dict[str, Any] = {"auxiliary": [name for name in TERMS if name in {*own, *there}]}
    if "states" in there and "states" not in own:
        outputs["states"] = trained_states(known)
    return outputs


def net_with_points(
    layout: Layout, settings: Settings, faces: Faces, weights: str, ranks: Ranks, resumed: bool
) -> tuple[Trainable, InitialWeights]:
    """Return the net in a file with points of `layout` in place of its landmarks, and the origin of its weights.

    The points are landmarks that are chosen, if outputs beside the landmarks are all that is trained and the net has these
    landmarks. Others are fitted to `faces`, and learnt if there are epochs. resumed: whether the file is the training's own,
    from which the weights come later.
    """
    outputs, epochs = auxiliary_outputs(vars(settings.loss)), settings.train.epochs
    tensors, known = load_weights(weights)
    spec, there = known["net"], layout_of(known["layout"])
    if isinstance(layout, Union):
        raise UserError("--freeze landmarks gives the points of one layout, not of several; give a plain --layout")
    for key in STRUCTURE:
        if key in spec and getattr(settings.net, key) not in (None, spec[key]):
            raise UserError(
                f"--freeze landmarks keeps the net of {weights}, which has {key} {spec[key]}; leave {flag(key)} out, or give "
                "--freeze backbone"
            )
    chosen = _chosen(layout, there)
    again = "points" in spec and (resumed or bool(outputs))
    if "points" in spec and not (again and chosen == [*range(there.count)]):
        raise UserError(
            f"{weights} has points that were fitted to another net's landmarks, and cannot be trained; give that net"
        )
    learns = epochs > 0 and not (chosen and outputs)
    if learns and not again and not (spec["refine"] and not spec.get("reinit")):
        raise UserError(
            f"{weights} has no refiner to learn points with; give --freeze backbone, or --epochs 0 to fit them only"
        )
    own = {} if again else {"points": layout.count, "learnt_points": learns}
    net: Any = build_net({**spec, **outputs_beside(known, outputs, spec["refine"]), **own})
    if again:
        net.load_state_dict(tensors, strict=False)
        return net, InitialWeights("the checkpoint" if resumed else f"{weights}, which keeps its landmarks")
    net.net.load_state_dict(tensors, strict=False)
    if chosen and outputs:
        fit = Fit(np.eye(there.count)[chosen], np.array(chosen), np.zeros(layout.count))
        words = f"{layout.count} of {there.count} are chosen"
    else:
        fit = _fitted(net.net, faces, layout, there, ranks)
        words = _in_words(fit, layout, weights)
    net.points.weight.copy_(torch.from_numpy(fit.weight))
    net.points.nearest.copy_(torch.from_numpy(fit.nearest))
    if learns:
        net.points.identity.data.copy_(net.net.refiner.identity[net.points.nearest])
        words += ", and is learnt from there"
    return net, InitialWeights(f"{weights}, which keeps its landmarks; {words}")


def _in_words(fit: Fit, layout: Layout, weights: str) -> str:
    """Return the errors of a fit in words. Log a warning about points that no landmark tells."""
    errors = dict(zip(layout.point_names(), fit.error, strict=True))
    if doubtful := [name for name, error in errors.items() if error > WRONG]:
        logger.warning(
            f"layout '{layout.name}': {', '.join(doubtful)} follow no landmark of {weights} as it sees the faces: are x and y "
            "exchanged, or are the labels of other pictures (look with --show-data)? Points that no landmark tells are learnt "
            "from more faces: --preset finetune"
        )
    told = ", ".join(f"{name} {100 * error:.1f} %" for name, error in errors.items())
    return f"each point is a weighted mean of these (distance of left-out labels in % of the face's size: {told})"


def _fitted(net: Trainable, faces: Faces, layout: Layout, there: Layout, ranks: Ranks) -> Fit:
    """Return the fit to faces of what a net of layout `there` finds in them."""
    found = predict_all(torch_predictor(net, ranks.device), faces, there, ranks=ranks).landmarks.numpy()
    row = faces.read("nominal", "known")
    labels = np.where(row["known"][..., None], row["nominal"], np.nan).astype(np.float64)
    return fit_means(labels, found, layout, there)


def fit_means(labels: ndarray, found: ndarray, layout: Layout, there: Layout) -> Fit:
    """Return the weights by which the landmarks `found` (M, K, 2) of layout `there` predict `labels` (M, N, 2) of `layout`,
    NaN where unknown, both in one frame. UserError for a point that too few faces label.
    """
    usual = np.median(found, 0)
    size = np.sqrt(np.prod(np.ptp(usual, axis=0)))
    upright = [similarity(face, usual) for face in found]
    labels, found = (
        np.stack([transform(face, way) for face, way in zip(faces, upright, strict=True)]) / size
        for faces in (labels, found)
    )
    known = np.isfinite(labels).all(-1)
    if few := np.flatnonzero(known.sum(0) < FEWEST).tolist():
        raise UserError(
            f"layout '{layout.name}': {known[:, few[0]].sum()} training faces label {layout.point_names()[few[0]]}, and "
            f"{FEWEST} or more are needed; label it in more faces, or leave the point out"
        )
    ids = np.tile(np.arange(len(labels)), 2)
    partner = np.array(layout.flip_index)
    aside = np.abs(np.nanmedian(labels[..., 0] - found[..., 0].mean(1, keepdims=True), 0)) > ASIDE
    known = np.concatenate([known, known[:, partner] & ~(aside & (partner == np.arange(layout.count)))])
    labels, found = (
        np.concatenate([faces, (faces * (-1, 1))[:, order]])
        for faces, order in ((labels, layout.flip_index), (found, there.flip_index))
    )
    nearest = np.nanmedian(np.linalg.norm(labels[:, :, None] - found[:, None], axis=-1), 0).argmin(1)
    centred = found - found.mean(1, keepdims=True)
    points = [(centred[rows], (labels[:, i] - found[:, nearest[i]])[rows], ids[rows]) for i, rows in enumerate(known.T)]
    missed = np.array([[_left_out(*point, strength) for point in points] for strength in STRENGTHS])
    best = int(missed.mean(1).argmin())
    weight = np.stack([_ridge(inputs, wanted, STRENGTHS[best]) for inputs, wanted, _ in points])
    weight[np.arange(layout.count), nearest] += 1
    return Fit(weight, nearest, missed[best])


def _ridge(inputs: ndarray, wanted: ndarray, strength: float) -> ndarray:
    """Return the weights (K,) that take inputs (M, K, 2), whose mean over K is 0, to `wanted` (M, 2). Their sum is 0."""
    rows, values = inputs.transpose(0, 2, 1).reshape(-1, inputs.shape[1]), wanted.reshape(-1)  # x and y of each face
    held, counts = strength * np.eye(rows.shape[1]), np.ones(len(inputs))
    for _ in range(ROUNDS):
        weighted = rows * counts.repeat(2)[:, None]
        weights = np.linalg.solve(weighted.T @ rows + held, weighted.T @ values)
        off = np.linalg.norm(weights @ inputs - wanted, axis=-1)
        counts = np.minimum(1, FAR * np.median(off) / np.maximum(off, 1e-9))
    return weights


def _left_out(inputs: ndarray, wanted: ndarray, ids: ndarray, strength: float) -> float:
    """Return the mean distance from `wanted` (M, 2) of what weights predict that were fitted to other faces.
    ids (M,): of the faces.
    """
    chosen = np.unique(ids)
    chosen, missed = chosen[evenly(len(chosen), MOST)], []
    for fold in range(FOLDS):
        out, rest = np.isin(ids, chosen[fold::FOLDS]), np.isin(ids, np.delete(chosen, np.s_[fold::FOLDS]))
        missed += [np.linalg.norm(_ridge(inputs[rest], wanted[rest], strength) @ inputs[out] - wanted[out], axis=-1)]
    return float(np.concatenate(missed).mean())
