"""Points of an own layout as weighted means of the landmarks that a trained net finds: a fit to few labelled faces.

The weights are those of a ridge regression towards the nearest landmark, in the frame of the usual face. Faces that are left
out choose how strongly they are held there. A face and its mirror image count as two. A label that lies far off counts less.
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
from pipnet.geometry import similarity, transform
from pipnet.layout import Layout
from utils.data.faces import Faces
from utils.evaluate.evaluate import predict_all, torch_predictor
from utils.settings.union import Union, layout_of
from utils.train.initialise import InitialWeights, shared_landmarks, warn_of_size
from utils.train.make_net import build_net, trained_states
from utils.train.ranks import Ranks
from utils.train.weight_files import load_weights

STRENGTHS = (
    0.01,
    0.03,
    0.1,
    0.3,
    1.0,
    3.0,
    10.0,
    1000.0,
)  # of the ridge; with the last one a point stays at its landmark
FOLDS = 5
FEWEST = 4  # faces that label a point
WRONG = 0.15  # sizes of the usual face: error of a point that no landmark tells
ROUNDS, FAR = 4, 2.0  # of weights for labels; multiple of the median distance from which on a label counts less


class Fit(NamedTuple):
    """weight (N, K): of each landmark in each point; nearest (N,): the landmark nearest to each point; error (N,): mean
    distance of left-out labels from what the others predict, in sizes of the usual face.
    """

    weight: ndarray
    nearest: ndarray
    error: ndarray


def is_new(layout: Layout, weights: str) -> bool:
    """Return whether a layout is another one than that of the landmarks of the net in a file of ours."""
    known = load_weights(weights)[1]
    there = layout_of(known["layout"])
    return _chosen(layout, there) != [*range(there.count)] or "points" in known["net"]


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


def net_of_means(
    layout: Layout, outputs: Collection[str], faces: Faces, weights: str, ranks: Ranks, resumed: bool
) -> tuple[Trainable, InitialWeights]:
    """Return the net in a file with `layout` in place of its landmarks, and the origin of its weights: landmarks that are
    chosen, or points that are fitted to `faces`.

    outputs: beside the landmarks, which are trained. resumed: whether the file is the training's own, from which the weights
    come later.
    """
    tensors, known = load_weights(weights)
    there, names = layout_of(known["layout"]), layout.point_names()
    if isinstance(layout, Union):
        raise UserError("--freeze landmarks gives the points of one layout, not of several; give a plain --layout")
    net: Any = build_net(
        {**known["net"], **outputs_beside(known, outputs, known["net"]["refine"]), "points": layout.count}
    )
    if resumed:
        return net, InitialWeights("the checkpoint")
    chosen = _chosen(layout, there)
    if "points" in known["net"]:
        if chosen != [*range(there.count)]:
            raise UserError(
                f"{weights} has points that are means of another net's landmarks; give that net, or the same --layout"
            )
        net.load_state_dict(tensors, strict=False)
        return net, InitialWeights(f"{weights}, which keeps its landmarks")
    net.net.load_state_dict(tensors, strict=False)
    if chosen:
        fit = Fit(np.eye(there.count)[chosen], np.array(chosen), np.zeros(layout.count))
        words = f"{layout.count} of {there.count} are chosen"
    else:
        fit = _fitted(net.net, faces, layout, there, known, ranks)
        told = ", ".join(f"{name} {100 * error:.1f} %" for name, error in zip(names, fit.error, strict=True))
        words = f"each point is a weighted mean of these (distance of left-out labels in % of the face's size: {told})"
    net.means.weight.copy_(torch.from_numpy(fit.weight))
    net.means.nearest.copy_(torch.from_numpy(fit.nearest))
    if doubtful := [name for name, error in zip(names, fit.error, strict=True) if error > WRONG]:
        logger.warning(
            f"layout '{layout.name}': {', '.join(doubtful)} follow no landmark of {weights} as it sees the faces: x and y are "
            "exchanged, or the labels are of other pictures (look with --show-data); points that no landmark tells are learnt "
            "from more faces: --preset finetune"
        )
    return net, InitialWeights(f"{weights}, which keeps its landmarks; {words}")


def _fitted(net: Trainable, faces: Faces, layout: Layout, there: Layout, known: dict[str, Any], ranks: Ranks) -> Fit:
    """Return the fit to faces of what a net of layout `there` finds in them. known: its checkpoint."""
    found = predict_all(torch_predictor(net, ranks.device), faces, there, ranks=ranks).landmarks.numpy()
    if known.get("meanface"):
        larger = similarity(np.reshape(known["meanface"], (-1, 2)), np.median(found, 0))[:, :2]
        warn_of_size(float(np.sqrt(np.linalg.det(larger))), "--weights", logger.warning)
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
    folds = np.tile(np.arange(len(labels)) % FOLDS, 2)
    known = np.concatenate([known, known[:, layout.flip_index]])
    labels, found = (
        np.concatenate([faces, (faces * (-1, 1))[:, order]])
        for faces, order in ((labels, layout.flip_index), (found, there.flip_index))
    )
    nearest = np.nanmedian(np.linalg.norm(labels[:, :, None] - found[:, None], axis=-1), 0).argmin(1)
    centred = found - found.mean(1, keepdims=True)
    points = [
        (centred[rows], (labels[:, i] - found[:, nearest[i]])[rows], folds[rows]) for i, rows in enumerate(known.T)
    ]
    missed = np.array([[_left_out(*point, strength) for point in points] for strength in STRENGTHS])
    best = int(missed.mean(1).argmin())
    weight = np.stack([_ridge(inputs, wanted, STRENGTHS[best]) for inputs, wanted, _ in points])
    weight[np.arange(layout.count), nearest] += 1
    return Fit(weight, nearest, missed[best])


def _ridge(inputs: ndarray, wanted: ndarray, strength: float) -> ndarray:
    """Return the weights (K,) that take inputs (M, K, 2), whose mean over K is 0, to `wanted` (M, 2). Their sum is 0."""
    counts = np.ones((len(inputs), 1, 1))
    for _ in range(ROUNDS):
        weighted = (inputs * counts).transpose(0, 2, 1).reshape(-1, inputs.shape[1])
        rows, values = inputs.transpose(0, 2, 1).reshape(-1, inputs.shape[1]), wanted.reshape(-1)
        weights = np.linalg.solve(weighted.T @ rows + strength * np.eye(rows.shape[1]), weighted.T @ values)
        off = np.linalg.norm(weights @ inputs - wanted, axis=-1)[:, None, None]
        counts = np.minimum(1, FAR * np.median(off) / np.maximum(off, 1e-9))
    return weights


def _left_out(inputs: ndarray, wanted: ndarray, folds: ndarray, strength: float) -> float:
    """Return the mean distance from `wanted` of what the weights predict that were fitted to the other folds."""
    missed = np.empty(len(wanted))
    for fold in np.unique(folds):
        out = folds == fold
        missed[out] = np.linalg.norm(_ridge(inputs[~out], wanted[~out], strength) @ inputs[out] - wanted[out], axis=-1)
    return float(missed.mean())
