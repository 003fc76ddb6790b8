"""Converts landmarks from one layout to another by weighted means of landmarks.

Layouts by name: 68 (300W), 98 (WFLW), 106 (LaPa, JD-landmark), 39 (Menpo's profile), 29 (COFW), 19 (AFLW), 5 (eyes,
nose, mouth corners).
"""

from typing import NamedTuple

import numpy as np

from pipnet.layout import Layout
from utils.settings.layouts import Layouts

Weights = dict[int, float]


def _mean(*landmarks: int) -> Weights:
    return {landmark: 1 / len(landmarks) for landmark in landmarks}


def _lid(near: int, middle: int) -> Weights:
    """Return the weights of a lid landmark: 68 has two per lid, 98 has three."""
    return {near: 2 / 3, middle: 1 / 3}


def _brow(upper: int, lower: int) -> tuple[Weights, Weights]:
    """Return the weights (x, y) of a brow landmark: 98 has both edges of a brow, 68 its middle."""
    return _mean(upper), _mean(upper, lower)


def _resampled(first: int, last: int, count: int) -> list[Weights]:
    """Return weights of `count` points evenly spaced along the line through `first`, ..., `last`."""
    places = np.linspace(first, last, count)
    return [{int(place): 1 - place % 1} | ({int(place) + 1: place % 1} if place % 1 else {}) for place in places]


# {(from, to): a rule for each landmark of `to`}. A rule is the index of the same landmark in `from`; or weights of
# landmarks of `from`; or (weights of x, weights of y) if these differ; or None for an unknown landmark.
# fmt: off
RULES: dict[tuple[str, str], list] = {
    ("98", "68"): [
        *range(0, 33, 2), 33, _brow(34, 41), _brow(35, 40), _brow(36, 39), _brow(37, 38),
        _brow(42, 50), _brow(43, 49), _brow(44, 48), _brow(45, 47), 46, *range(51, 60),
        60, _lid(61, 62), _lid(63, 62), 64, _lid(65, 66), _lid(67, 66),
        68, _lid(69, 70), _lid(71, 70), 72, _lid(73, 74), _lid(75, 74), *range(76, 96)],
    ("106", "98"): [*range(55), *range(58, 63), *range(66, 74), *range(75, 83), *range(84, 106)],
    ("68", "29"): [
        17, 26, 21, 22, 19, None, 24, None, 36, 45, 39, 42, _mean(37, 38), _mean(40, 41), _mean(43, 44), _mean(46, 47),
        _mean(*range(36, 42)), _mean(*range(42, 48)), 31, 35, 30, 33, 48, 54, 51, 62, 66, 57, 8],
    ("29", "19"): [
        0, _mean(4, 5), 2, 3, _mean(6, 7), 1, 8, 16, 10, 11, 17, 9, 18, 20, 19, 22, _mean(25, 26), 23, 28],
    ("68", "5"): [_mean(*range(36, 42)), _mean(*range(42, 48)), 30, 48, 54],
    ("39", "68"): [  # the half on the left of the image
        *_resampled(0, 9, 9), *(None,) * 8, *_resampled(12, 15, 5), *(None,) * 5, 16, 17, 18, 19, 21, None, 20, None, None,
        24, 23, 22, None, 26, 25, *(None,) * 6, 30, 29, 28, 27, *(None,) * 5, 33, 32, 31, 36, 35, 34, *(None,) * 3, 38, 37],
}
# fmt: on
# outer eye corner, nose tip, mouth corner: their order is clockwise if the left half is visible
HALF = {"39": (24, 20, 30)}


class Conversion(NamedTuple):
    """Weights x and y (H, N, M) float64 that convert M landmarks of one layout to N of another; a row of zeros means
    unknown.

    H is 1, or 2 if the first layout covers half a face: weights for the left and for the right half. half: three
    landmarks whose order tells which half is visible.
    """

    x: np.ndarray
    y: np.ndarray
    half: tuple[int, int, int] | None = None

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return points (..., M, 2) as points (..., N, 2); NaN where a landmark is unknown or computed from a NaN."""
        unknown = np.isnan(points).any(-1)
        known = np.where(unknown[..., None], 0.0, points)
        sides = [np.stack([known[..., 0] @ x.T, known[..., 1] @ y.T], -1) for x, y in zip(self.x, self.y, strict=True)]
        return self._shown(points, np.where(self._missing(unknown)[..., None], np.nan, sides))

    def flags(self, points: np.ndarray, visible: np.ndarray) -> np.ndarray:
        """Return (..., N) bool: whether a landmark is computed from `visible` (..., M) ones only. points (..., M, 2)."""
        return self._shown(points, ~self._missing(~visible))

    def after(self, first: "Conversion") -> "Conversion":
        """Return the conversion that applies `first`, then this one. This one must convert whole faces."""
        lost = self._missing(~first.has_rule)[0][..., None]
        return Conversion(np.where(lost, 0, self.x[0] @ first.x), np.where(lost, 0, self.y[0] @ first.y), first.half)

    @property
    def has_rule(self) -> np.ndarray:
        """Return (H, N) bool: the landmarks that have a rule."""
        return np.any(self.x, -1)

    def _missing(self, unknown: np.ndarray) -> np.ndarray:
        """Return (H, ..., N) bool: whether a landmark is unknown, if those marked in `unknown` (..., M) are."""
        uses = ((self.x > 0) | (self.y > 0)).astype(np.float64)
        return np.stack([(unknown @ use.T > 0) | ~use.any(1) for use in uses])

    def _shown(self, points: np.ndarray, sides: np.ndarray) -> np.ndarray:
        """Return the values (..., N) or (..., N, 2) of the visible half of each face, from values (H, ...) of all
        halves.
        """
        if self.half is None:
            return sides[0]
        eye, nose, mouth = (points[..., landmark, :] for landmark in self.half)
        one, two = nose - eye, mouth - eye
        right = one[..., 0] * two[..., 1] - one[..., 1] * two[..., 0] < 0
        return np.where(right.reshape(*right.shape, *(1,) * (sides[0].ndim - right.ndim)), sides[1], sides[0])


def _rule(source: str, target: str, layouts: dict[str, Layout]) -> Conversion:
    """Return a row of RULES as a `Conversion`."""
    x, y = np.zeros((2, layouts[target].count, layouts[source].count))
    for landmark, rule in enumerate(RULES[source, target]):
        pair = rule if isinstance(rule, tuple) else (rule, rule)
        for matrix, weights in zip((x, y), pair, strict=True):
            for other, weight in (
                {} if weights is None else {weights: 1.0} if isinstance(weights, int) else weights
            ).items():
                matrix[landmark, other] = weight
    if source not in HALF:
        return Conversion(x[None], y[None])
    mirrored = list(layouts[target].flip_index)
    return Conversion(np.stack([x, x[mirrored]]), np.stack([y, y[mirrored]]), HALF[source])


def conversion(source: str, target: str, layouts: Layouts) -> Conversion | None:
    """Return the conversion from layout `source` to `target`, through other layouts if necessary; None if RULES have no
    way.
    """
    known = {name: layouts.load(name) for rule in RULES for name in rule}
    ways: dict[str, Conversion] = {}
    edge = [source]
    while edge and target not in ways:
        here = edge.pop(0)
        for start, end in RULES:
            if start == here and end not in ways and end != source:
                step = _rule(start, end, known)
                ways[end] = step.after(ways[here]) if here in ways else step
                edge.append(end)
    return ways.get(target)
