"""Finds suspicious labels without a net, by a robust linear model of the set's own shapes.

Each face is aligned to the mean shape by a similarity. The score of a landmark is its distance from the place that all
other landmarks of the face predict, in standard deviations of the landmark. The modes of variation that predict it are
fitted with redescending weights, so that a wrong landmark hardly changes the scores of others.
"""

import warnings
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from pipnet.geometry import BOX_REACH, far_outside
from pipnet.layout import Layout
from utils.data.faces import evenly

THRESHOLD = 8.0  # robust standard deviations; a label with this score is an alarm
SURE = float("inf")  # score of a label that is wrong by itself, whatever the model says
FEWEST, LEARNT = 20, 20000  # faces that a model of shapes needs, and of how many it is learnt at most
BLOCK = 4096  # faces that are compared with it at once: a matrix each takes memory
REACH = {"box": BOX_REACH, "picture": 0.25}  # share of its sides; landmarks further outside are wrong
SLACK = 0.15  # share of the radius: error of an alignment that outliers may cause
FAR = 3.0  # multiple of the median distance from the mean; more distant shapes are not used for the model
FLOOR = 2e-3  # share of a face's radius: the smallest error that is assumed for a label


class Finding(NamedTuple):
    """A suspicion about a face."""

    face: int  # its index
    score: float  # robust standard deviations
    reason: str
    landmarks: tuple[int, ...]  # the suspicious ones


class Model(NamedTuple):
    """Shapes of N landmarks as mean + modes; the mean is centred and has root-mean-square radius 1."""

    mean: ndarray  # (2N,)
    modes: ndarray  # (2N, 4 + k): the four directions of a similarity, and k modes
    prior: ndarray  # (4 + k,) 1 / variance of each
    noise: ndarray  # (N,) standard deviation of a landmark from the place that the others predict


class Fit(NamedTuple):
    """M faces compared with a model."""

    shapes: ndarray  # (M, N, 2) aligned labels
    expected: ndarray  # (M, N, 2) places expected from the other landmarks
    z: ndarray  # (M, N) their distance in standard deviations of the landmark, NaN where unknown


def align(landmarks: ndarray, known: ndarray, mean: ndarray, rounds: int = 4) -> ndarray:
    """Return landmarks (M, N, 2), each face aligned to `mean` (N, 2) by a robust similarity.

    Unknown landmarks become the mean's.
    """
    points = np.where(known, landmarks @ (1, 1j), 0)
    target, weight = mean @ (1, 1j), known.astype(float)
    for _ in range(rounds):
        total = np.maximum(weight.sum(1, keepdims=True), 1e-9)
        centre, goal = (weight * points).sum(1, keepdims=True) / total, (weight * target).sum(1, keepdims=True) / total
        flat, aim = points - centre, target - goal
        turn = (weight * aim * flat.conj()).sum(1, keepdims=True)
        extent, wanted = ((weight * abs(part) ** 2).sum(1, keepdims=True) for part in (flat, aim))
        size = np.sqrt(wanted / np.maximum(extent, 1e-18))  # the mean's size: least squares would shrink a bad fit
        moved = size * turn / np.maximum(abs(turn), 1e-18) * flat + goal
        error = abs(moved - target)
        weight = known / (1 + (error / (2 * _scale(error, known)[:, None])) ** 2)
    moved = np.where(known, moved, target)
    return np.stack([moved.real, moved.imag], -1)


def _scale(error: ndarray, known: ndarray) -> ndarray:
    """Return the median (M,) of each row's known errors, never zero."""
    masked = np.where(known, error, np.nan)
    masked[~known.any(1)] = 1
    return np.maximum(np.nanmedian(masked, 1), 1e-6)


def _similarities(mean: ndarray) -> ndarray:
    """Return the unit directions (2N, 4) in which scale, rotation and two shifts move the mean (N, 2)."""
    x, y = mean.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    directions = np.stack([np.stack(pair, -1).ravel() for pair in ((x, y), (-y, x), (one, zero), (zero, one))], 1)
    return directions / np.linalg.norm(directions, axis=0)


def learn(landmarks: ndarray, known: ndarray, rounds: int = 4) -> Model:
    """Return the model of faces (M, N, 2), `known` (M, N).
    Landmarks that fit badly in one round get less weight in the next.
    """
    count, points = landmarks.shape[1], np.where(known[..., None], landmarks, np.nan)
    sides = np.nanmax(points, 1) - np.nanmin(points, 1)
    points = (points - np.nanmean(points, 1, keepdims=True)) / np.hypot(*sides.T)[:, None, None]
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # for a landmark that no face has
        mean = np.nan_to_num(np.nanmedian(points, 0))
    for _ in range(3):
        mean = mean - mean.mean(0)
        mean /= np.sqrt((mean**2).sum(1).mean())
        shapes = align(landmarks, known, mean)
        mean = np.median(shapes, 0)
    most = min(30, max((2 * count - 4) // 3, 1), len(landmarks) // 5)
    filled, similar = (shapes - mean).reshape(len(shapes), -1), _similarities(mean)
    for _ in range(rounds):
        filled = filled - filled @ similar @ np.linalg.pinv(similar)
        length = np.linalg.norm(filled - np.median(filled, 0), axis=1)
        usual = filled[length <= FAR * np.median(length)]  # else one unusual face would become a mode
        _, values, axes = np.linalg.svd(usual - usual.mean(0), full_matrices=False)
        variance = values**2 / len(usual)
        kept = min(int(np.searchsorted(np.cumsum(variance) / max(variance.sum(), 1e-18), 0.98)) + 1, most)
        rest = max(variance[kept:].sum() / (2 * count), 1e-8)
        prior = np.concatenate([np.full(4, 1 / (SLACK**2 * count)), 1 / np.maximum(variance[:kept], 1e-9)])
        modes = np.hstack([similar, axes[:kept].T])
        model = Model(mean.ravel() + usual.mean(0), modes, prior, np.full(count, rest**0.5))
        residual = np.linalg.norm(_explain(model, shapes, known)[0], axis=-1)
        model = model._replace(
            noise=np.array([_noise(values[mask]) for values, mask in zip(residual.T, known.T, strict=True)])
        )
        _, fitted, weight = _explain(model, shapes, known)
        weight = np.repeat(weight, 2, 1)
        filled = weight * (shapes.reshape(len(shapes), -1) - model.mean) + (1 - weight) * (fitted - model.mean)
    return model


def _noise(distance: ndarray) -> float:
    """Return the standard deviation per coordinate of distances (M,): from their median, or from the tail if that gives
    more.
    """
    if not len(distance):
        return 1.0
    # the divisors are the median and the 95 % quantile of distances with unit standard deviation per coordinate
    return max(np.median(distance) / 1.177, np.quantile(distance, 0.95) / 2.448, FLOOR)


def _explain(model: Model, shapes: ndarray, known: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Fit the modes to shapes (M, N, 2).
    Return leave-one-out residuals (M, N, 2), fitted shapes (M, 2N), weights (M, N).
    """
    parts = [
        _explain_block(model, shapes[start : start + BLOCK], known[start : start + BLOCK])
        for start in range(0, max(len(shapes), 1), BLOCK)
    ]
    residual, fitted, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    return residual, fitted, weight


def _explain_block(model: Model, shapes: ndarray, known: ndarray, rounds: int = 5) -> tuple[ndarray, ndarray, ndarray]:
    """Return the same as `_explain` for one block of faces."""
    faces, count = known.shape
    modes, size = model.modes, model.modes.shape[1]
    offset = shapes.reshape(faces, -1) - model.mean
    products = (modes[:, :, None] * modes[:, None, :]).reshape(2 * count, -1)
    precise = np.repeat(model.noise, 2) ** -2.0
    weight = known.astype(float)
    for _ in range(rounds):
        scaled = np.repeat(weight, 2, 1) * precise
        normal = (scaled @ products).reshape(faces, size, size) + np.diag(model.prior)
        inverse = np.linalg.inv(normal)
        coefficients = np.einsum("mij,mj->mi", inverse, (scaled * offset) @ modes)
        residual = (offset - coefficients @ modes.T).reshape(faces, count, 2)
        distance = np.linalg.norm(residual, axis=-1) / model.noise
        width = np.maximum(3.0, 2 * _scale(distance, known)[:, None])  # wider for a face that fits badly as a whole
        weight = known / (1 + (distance / width) ** 2) ** 2
    blocks = modes.reshape(count, 2, size)
    for start in range(0, faces, 512):  # remove each landmark's effect on its own fit: (I - H)^-1 r
        part = slice(start, start + 512)
        pull = np.einsum("nas,mst,nbt->mnab", blocks, inverse[part], blocks, optimize=True)
        pull = np.eye(2) - pull * (weight[part] / model.noise**2)[..., None, None]
        residual[part] = np.linalg.solve(pull, residual[part][..., None])[..., 0]
    return residual, coefficients @ modes.T + model.mean, weight


def fit(model: Model, landmarks: ndarray, known: ndarray) -> Fit:
    """Compare landmarks (M, N, 2) with the model."""
    shapes = align(landmarks, known, model.mean.reshape(-1, 2))
    residual = _explain(model, shapes, known)[0]
    return Fit(shapes, shapes - residual, np.where(known, np.linalg.norm(residual, axis=-1) / model.noise, np.nan))


def examine(
    landmarks: ndarray,
    visible: ndarray,
    layout: Layout,
    box: ndarray | None = None,
    size: ndarray | None = None,
    names: Any = None,
) -> list[Finding]:
    """Return all suspicions about landmarks (M, N, 2) in image px, worst first; a score from THRESHOLD up is an alarm.

    visible (M, N): landmarks to judge; NaN ones are never judged. If known: box (M, 4) and size (M, 2) of the images in
    px, and their names. Every face that the model covers has at least one finding, so the list ranks all of them.
    """
    known = visible & np.isfinite(landmarks).all(-1)
    found = _plain_faults(landmarks, known, layout, box, size)
    usable = np.flatnonzero(~np.isin(np.arange(len(known)), [finding.face for finding in found]) & (known.sum(1) >= 3))
    if len(usable) >= FEWEST and layout.count >= 3:
        found += [
            finding._replace(face=int(usable[finding.face]))
            for finding in _misfits(landmarks[usable].astype(np.float64), known[usable], layout)
        ]
    found += _copies(landmarks, known, names)
    return sorted(found, key=lambda finding: (-finding.score, finding.face))


def _plain_faults(landmarks: ndarray, known: ndarray, layout: Layout, box, size) -> list[Finding]:
    """Return the findings that need no model: too few landmarks, faces without extent, landmarks far outside."""
    found = []
    for face, (points, mask) in enumerate(zip(landmarks, known, strict=True)):
        if mask.sum() < min(3, layout.count):
            found.append(
                Finding(face, SURE, f"{mask.sum()} landmarks are labelled", tuple(np.flatnonzero(mask).tolist()))
            )
            continue
        extent = np.ptp(points[mask], axis=0).max() if layout.count > 1 else np.inf
        eyes = list(layout.interocular or ())
        if extent < 1e-6 or (eyes and mask[eyes].all() and np.linalg.norm(np.subtract(*points[eyes])) < 1e-3 * extent):
            found.append(
                Finding(face, SURE, "all landmarks coincide" if extent < 1e-6 else "the eyes coincide", tuple(eyes))
            )
            continue
        for name, frame in (("box", box), ("picture", size)):
            if frame is None:
                continue
            edges = frame[face] if name == "box" else np.concatenate([np.zeros(2), frame[face]])
            if (out := np.flatnonzero(mask & far_outside(points, edges, REACH[name]))).size:
                found.append(Finding(face, SURE, f"far outside the {name}", tuple(out.tolist())))
                break
    return found


def _copies(landmarks: ndarray, known: ndarray, names: Any) -> list[Finding]:
    """Return the faces whose labels equal those of an earlier face to 1/100 px."""
    first: dict[bytes, int] = {}
    found = []
    for face, points in enumerate(np.where(known[..., None], landmarks, np.nan).round(2) + 0.0):
        if known[face].any() and (other := first.setdefault(points.tobytes(), face)) != face:
            found.append(Finding(face, SURE, f"the same labels as {names[other] if names else f'face {other}'}", ()))
    return found


def _misfits(landmarks: ndarray, known: ndarray, layout: Layout) -> list[Finding]:
    """Return one finding per face: exchanged landmarks if they explain the misfit, else the worst landmarks."""
    some = evenly(len(landmarks), LEARNT)
    model = learn(landmarks[some], known[some])
    fitted = fit(model, landmarks, known)
    z = np.where(known, fitted.z, 0)
    typical = np.maximum(
        _scale(z, known) / 1.177, 1
    )  # a misfit of the whole face is removed from its landmarks' scores
    overall = np.log(typical)  # and becomes the score of the face
    overall = overall / max(np.median(overall[overall > 0]) if (overall > 0).any() else 1, 0.1)
    found = _exchanges(model, fitted, landmarks, known, layout)
    pixels = np.linalg.norm(
        np.where(known[..., None], landmarks - _centre(landmarks, known), 0), axis=(1, 2)
    ) / np.linalg.norm(np.where(known[..., None], fitted.shapes - _centre(fitted.shapes, known), 0), axis=(1, 2))
    for face in range(len(z)):
        if face in found:
            continue
        own = z[face] / typical[face]
        worst = int(own.argmax())
        marked = np.flatnonzero(own >= max(own[worst] / 2, 3))
        distance = pixels[face] * model.noise[worst] * z[face, worst]
        same = np.flatnonzero(
            known[face] & (np.linalg.norm(fitted.shapes[face] - fitted.shapes[face, worst], axis=-1) < 1e-6)
        )
        where = f", on {min(set(same.tolist()) - {worst})}" if len(same) > 1 else ""
        found[face] = Finding(
            face,
            float(own[worst]),
            f"{worst} is {distance:.1f} px off{where}",
            tuple(sorted(marked.tolist(), key=lambda i: -own[i])),
        )
        if overall[face] > own[worst]:
            found[face] = Finding(face, float(overall[face]), "no usual shape", tuple(np.argsort(-own)[:8].tolist()))
    return list(found.values())


def _centre(points: ndarray, known: ndarray) -> ndarray:
    """Return the mean (M, 1, 2) of the known points (M, N, 2)."""
    return np.where(known[..., None], points, 0).sum(1, keepdims=True) / known.sum(1)[:, None, None]


def _exchanges(model: Model, fitted: Fit, landmarks: ndarray, known: ndarray, layout: Layout) -> dict[int, Finding]:
    """Return {face: finding} of faces that fit clearly better if labels are exchanged: all mirrored, those of a part,
    or two.
    """
    found, flip = {}, np.array(layout.flip_index)
    groups = {tuple(range(layout.count)): "the whole face"}
    for name, part in layout.groups.items():
        group = tuple(sorted({*part, *flip[list(part)].tolist()}))
        groups[group] = f"{groups[group]}, {name}" if group in groups else name
    for group, name in sorted(groups.items(), key=lambda item: len(item[0])):  # small parts come first
        moved = [i for i in group if flip[i] != i]
        before = _misfit(fitted.z, moved)
        faces = np.flatnonzero(before > THRESHOLD / 2)
        if not moved or not len(faces):
            continue
        order = np.arange(layout.count)
        order[moved] = flip[moved]
        after = _misfit(fit(model, landmarks[faces][:, order], known[faces][:, order]).z, list(group))
        for face, was, now in zip(faces.tolist(), before[faces], after, strict=True):
            score = float(np.nanmax(fitted.z[face, moved]))
            if now < min(was, THRESHOLD) / 2 and face not in found:
                found[face] = Finding(face, score, f"left and right exchanged: {name}", tuple(moved))
    for face in np.flatnonzero(np.nanmax(fitted.z, 1) > THRESHOLD / 2).tolist():
        if face not in found and (pair := _pair(fitted.shapes[face], fitted.expected[face], fitted.z[face])):
            found[face] = Finding(
                face, float(max(fitted.z[face, list(pair)])), f"{pair[0]} and {pair[1]} exchanged", pair
            )
    return found


def _misfit(z: ndarray, group: list[int]) -> ndarray:
    """Return the root mean square (M,) of z over the known landmarks of a group, 0 without any."""
    chosen = z[:, group]
    return np.sqrt(np.nansum(chosen**2, 1) / np.maximum(np.isfinite(chosen).sum(1), 1))


def _pair(shape: ndarray, expected: ndarray, z: ndarray) -> tuple[int, int] | None:
    """Return two landmarks of which each lies where the other is expected, far from its own expected place; None
    without any.
    """
    for i, j in combinations(np.flatnonzero(z > THRESHOLD / 2).tolist(), 2):
        own = min(np.linalg.norm(shape[i] - expected[i]), np.linalg.norm(shape[j] - expected[j]))
        if max(np.linalg.norm(shape[i] - expected[j]), np.linalg.norm(shape[j] - expected[i])) < own / 3:
            return i, j
    return None
