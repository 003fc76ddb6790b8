"""Filters that smooth landmarks in a video: they remove the net's jitter and keep the face's movement.

A filter is called once per frame with the landmarks of all faces, {id: (N, 2) in image px}, and returns them smoothed.
A face that is new, was absent from the last frame, or has jumped starts again with the landmarks as found.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np

from pipnet.errors import UserError
from pipnet.geometry import box_of, iou, similarity, transform
from pipnet.layout import Layout

Faces = dict[int, np.ndarray]
JUMP = 0.5  # a face has jumped if its boxes in two frames have no larger IoU


def _continues(before: np.ndarray | None, now: np.ndarray) -> bool:
    """Return whether landmarks (N, 2) continue those of the frame before."""
    if before is None or not (np.isfinite(before).all() and np.isfinite(now).all()):
        return False  # a filter that has seen NaN would return NaN from then on
    return bool(iou(box_of(before)[None], box_of(now)[None]) > JUMP)


def _gain(cutoff: np.ndarray | float, seconds: float) -> np.ndarray | float:
    """Return the weight of the new value in a low-pass filter of `cutoff` Hz, `seconds` after the last value."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * seconds))


class _State(NamedTuple):
    """Filter states of M faces; of a single one without the first axis.

    Distances are in face sizes; common, own and noise are low-passed.
    """

    found: np.ndarray  # (M, N, 2) landmarks as found, px
    smooth: np.ndarray  # (M, N, 2) landmarks as smoothed, px
    common: np.ndarray  # (M, N, 2) velocity of each landmark that the whole face shares, 1/s
    own: np.ndarray  # (M, N, 2) velocity of each landmark within the face, 1/s
    peak: np.ndarray  # (M, N, 2) recent maximum of both speeds, decaying, 1/s
    noise: np.ndarray  # (M,) median distance that landmarks move within the face between frames


class OneEuro:
    """The One-Euro filter (Casiez, Roussel & Vogel, CHI 2012): a low-pass filter with cutoff = min_cutoff + beta *
    speed.

    Speeds are in face sizes (longer side of the landmarks' box) per second, so the filter suits any frame rate and
    resolution. Three additions to the paper let it follow a moving head and keep blinks:

    - The movement that the whole face shares (a similarity) and the movement of each landmark within the face are
      filtered separately.
    - The speed that the net's jitter alone causes is subtracted from both. It is estimated from the median landmark,
      since half of a face rarely moves by itself.
    - The cutoff falls slowly, since a movement that reverses stops for a moment.
    """

    min_cutoff, beta, speed_cutoff = 0.6, 400.0, 2.0  # Hz, Hz per face size/s, Hz
    hold = 0.2  # s in which the peak speed falls to 1/e
    noise, noise_cutoff = 0.003, 0.3  # initial value in face sizes, Hz
    floor = np.array([1.5, 1.7])  # common, own: multiples of the jitter's speed that are subtracted

    def __init__(self) -> None:
        self.states: dict[int, _State] = {}
        self.seconds = 0.0

    def __call__(self, faces: Faces, seconds: float, image: np.ndarray | None = None) -> Faces:
        """Return the smoothed landmarks of the frame at `seconds`."""
        passed, self.seconds = max(seconds - self.seconds, 1e-3), seconds
        known = [id for id, found in faces.items() if id in self.states and _continues(self.states[id].found, found)]
        states = {id: self._first(np.asarray(found, dtype=np.float64)) for id, found in faces.items()}
        if known:  # all in one call: small arrays cost numpy as much as large ones
            before = _State(*map(np.stack, zip(*(self.states[id] for id in known), strict=True)))
            after = self._next(before, np.stack([states[id].found for id in known]), passed)
            states |= dict(zip(known, map(_State._make, zip(*after, strict=True)), strict=True))
        self.states = states
        return {id: state.smooth for id, state in states.items()}

    def _first(self, found: np.ndarray) -> _State:
        rest = np.zeros_like(found)
        return _State(found, found, rest, rest, rest, np.array(self.noise))

    def _next(self, before: _State, found: np.ndarray, passed: float) -> _State:
        size, gain = np.ptp(found, axis=1).max(1)[:, None, None], _gain(self.speed_cutoff, passed)
        moved = _carried(before.found, found)
        common, own = (moved - before.found) / size, (found - moved) / size
        jitter = np.median(np.linalg.norm(own, axis=-1), axis=1)
        noise = before.noise + _gain(self.noise_cutoff, passed) * (jitter - before.noise)
        common = before.common + gain * (common / passed - before.common)
        own = before.own + gain * (own / passed - before.own)
        speed = np.stack([np.linalg.norm(common, axis=-1), np.linalg.norm(own, axis=-1)], -1)
        speed -= self.floor * (noise * gain / passed)[:, None, None]
        peak = np.maximum(speed, before.peak * math.exp(-passed / self.hold))
        shared, single = np.split(_gain(self.min_cutoff + self.beta * np.maximum(peak, 0), passed), 2, axis=-1)
        moved = _carried(before.smooth, found)
        smooth = before.smooth + shared * (moved - before.smooth) + single * (found - moved)
        return _State(found, smooth, common, own, peak, noise)


def _carried(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Return points (M, N, 2), moved by the similarity that fits the calmer half of each face's points to `onto` (M, N,
    2).
    """
    apart = np.linalg.norm(transform(points, similarity(points, onto)) - onto, axis=-1)
    order = np.argsort(apart, axis=1, kind="stable")  # of equals the first comes first, as in smooth.js
    steady = order[:, : max((apart.shape[1] + 1) // 2, 2), None]  # a similarity needs two points
    half, goal = (np.take_along_axis(some, steady, 1) for some in (points, onto))
    return transform(points, similarity(half, goal))


class Flow:
    """Peppa's filter: it blends landmarks that pyramidal Lucas-Kanade tracks with those found, and damps movements
    below 1 px.

    Its limits are in image px per frame. They suit faces of some 100 px at 25 to 30 frames/s.
    """

    window, levels, criteria = (40, 40), 8, (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 5, 0.1)
    near, near_eye = 10.0, 1.0  # squared px between found and last: below, the flow has weight 0.8; above, 0.15
    still = 1.0  # px: smaller movements are damped
    gain = _gain(1.0, 1.0)  # Peppa's One-Euro filter has a fixed cutoff and one frame as its unit of time

    def __init__(self, eyes: tuple[int, ...]):
        """eyes: landmarks of both eyes, which follow what is found more closely, so that blinks survive."""
        self.eyes = list(eyes)
        self.blended: Faces = {}
        self.held: Faces = {}
        self.image: np.ndarray | None = None

    def __call__(self, faces: Faces, seconds: float, image: np.ndarray) -> Faces:
        """Return the smoothed landmarks of the frame `image` (H, W, 3) uint8."""
        comparable = self.image is not None and self.image.shape == image.shape
        known = [id for id, found in faces.items() if comparable and _continues(self.blended.get(id), found)]
        flown = self._flow(known, image)
        blended = {
            id: self._blend(found, self.blended[id], flown[id]) if id in flown else np.asarray(found, dtype=np.float64)
            for id, found in faces.items()
        }
        self.held = {id: self._hold(points, self.held[id]) if id in flown else points for id, points in blended.items()}
        self.blended, self.image = blended, image.copy()
        return self.held

    def _flow(self, ids: list[int], image: np.ndarray) -> Faces:
        """Return the last points of these faces, moved by optical flow.

        One call serves all, since the pyramids cost more than the points.
        """
        if self.image is None or not ids:
            return {}
        last = np.concatenate([self.blended[id] for id in ids]).astype(np.float32)
        now = cv2.calcOpticalFlowPyrLK(
            self.image,
            image,
            last,
            np.empty_like(last),
            winSize=self.window,
            maxLevel=self.levels,
            criteria=self.criteria,
        )[0]
        return dict(zip(ids, np.split(now, len(ids)), strict=True))

    def _blend(self, found: np.ndarray, last: np.ndarray, flown: np.ndarray) -> np.ndarray:
        limit = np.full(len(found), self.near)
        limit[self.eyes] = self.near_eye
        near = (((found - last) ** 2).sum(1) < limit)[:, None]
        return np.where(near, 0.8 * flown + 0.2 * found, 0.15 * flown + 0.85 * found)

    def _hold(self, points: np.ndarray, last: np.ndarray) -> np.ndarray:
        moved = np.linalg.norm(points - last, axis=1)[:, None] >= self.still
        return np.where(moved, self.gain * points + (1 - self.gain) * last, last)


def unsmoothed(faces: Faces, seconds: float, image: np.ndarray | None = None) -> Faces:
    """Return the landmarks as they were found."""
    return faces


Smooth = Literal["one-euro", "flow", "none"]
SMOOTH = get_args(Smooth)


def make_smooth(name: Smooth, layout: Layout) -> Callable[[Faces, float, np.ndarray], Faces]:
    """Return the filter of that name, to be called with ({id: landmarks}, seconds, image).
    UserError for an unknown name.
    """
    if name not in SMOOTH:
        raise UserError(f"no smoothing '{name}' (there are: {', '.join(SMOOTH)})")
    if name == "flow":
        return Flow((*layout.groups.get("eye_left", ()), *layout.groups.get("eye_right", ())))
    return OneEuro() if name == "one-euro" else unsmoothed
