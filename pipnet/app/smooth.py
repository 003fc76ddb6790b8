"""Steady landmarks in video: filters that tell the trembling of a net from the movement of a face.

A filter is called once a frame with the landmarks of all faces, {id: (N, 2) in image px}, and gives back the same, smoothed. What
it remembers is of the last frame: a face that is new, was lost or jumped (its box shares less than half with the last one)
starts anew with the landmarks as they were found.
"""
import math
from typing import NamedTuple

import cv2
import numpy as np

from pipnet.errors import UserError
from pipnet.geometry import box_of, iou, similarity, transform

Faces = dict[int, np.ndarray]
JUMP = 0.5  # IoU of the boxes of two frames


def _went_on(before: np.ndarray | None, now: np.ndarray) -> bool:
    """Whether landmarks (N, 2) are those of the same face a frame later."""
    if before is None or not np.isfinite(now).all():
        return False
    return bool(iou(box_of(before)[None], box_of(now)[None]) > JUMP)


def _gain(cutoff: np.ndarray | float, seconds: float) -> np.ndarray | float:
    """Share of the new value in a low-pass filter of `cutoff` Hz, `seconds` after the last one."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * seconds))


class _State(NamedTuple):
    """One face: landmarks as found and as smoothed (N, 2), px; speeds (N, 2) of whole face and of each landmark beside that,
    face sizes/s, low-passed; haste (N, 2): the highest recent size of both, decaying; noise: how far, in face sizes, most
    landmarks move in the face between frames, low-passed."""

    found: np.ndarray
    smooth: np.ndarray
    common: np.ndarray
    own: np.ndarray
    haste: np.ndarray
    noise: float


class OneEuro:
    """The One-Euro filter (Casiez, Roussel & Vogel, CHI 2012) for faces: cutoff = min_cutoff + beta * speed, from the seconds
    between frames, with speeds in face sizes (longer side of the landmarks' box) a second, so that any rate and resolution do.

    Beyond the paper, so that it neither trails behind a head nor swallows a blink: the movement that the whole face shares (a
    similarity) is filtered apart from that of each landmark in the face; off both speeds is taken what the net's trembling
    alone would make of them, judged by the landmark in the middle of all, since seldom half a face moves by itself; and a cutoff
    falls slowly, since what turns round stands still for a moment.
    """

    min_cutoff, beta, speed_cutoff = 0.6, 400.0, 2.0  # Hz, Hz per face size/s, Hz
    hold = 0.2                                        # s
    noise, noise_cutoff = 0.003, 0.3                  # face sizes to begin with, Hz
    floor = np.array([1.5, 1.7])                      # common and own: times the low-passed speed of that noise

    def __init__(self):
        self.states: dict[int, _State] = {}
        self.seconds = 0.0

    def __call__(self, faces: Faces, seconds: float, image: np.ndarray | None = None) -> Faces:
        """The landmarks of the frame at `seconds`, smoothed."""
        passed, self.seconds = max(seconds - self.seconds, 1e-3), seconds
        self.states = {id: self._next(self.states.get(id), np.asarray(landmarks, dtype=np.float64), passed)
                       for id, landmarks in faces.items()}
        return {id: state.smooth for id, state in self.states.items()}

    def _next(self, before: _State | None, found: np.ndarray, passed: float) -> _State:
        if before is None or not _went_on(before.found, found):
            rest = np.zeros_like(found)
            return _State(found, found, rest, rest, rest, self.noise)
        size, gain = np.ptp(found, axis=0).max(), _gain(self.speed_cutoff, passed)
        moved = _carried(before.found, found)
        common, own = (moved - before.found) / size, (found - moved) / size
        noise = before.noise + _gain(self.noise_cutoff, passed) * (np.median(np.linalg.norm(own, axis=1)) - before.noise)
        common = before.common + gain * (common / passed - before.common)
        own = before.own + gain * (own / passed - before.own)
        speed = np.stack([np.linalg.norm(common, axis=1), np.linalg.norm(own, axis=1)], 1) - self.floor * (noise * gain / passed)
        haste = np.maximum(speed, before.haste * math.exp(-passed / self.hold))
        shared, single = np.split(_gain(self.min_cutoff + self.beta * np.maximum(haste, 0), passed), 2, axis=1)
        moved = _carried(before.smooth, found)
        smooth = before.smooth + shared * (moved - before.smooth) + single * (found - moved)
        return _State(found, smooth, common, own, haste, noise)


def _carried(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Points (N, 2) moved as the face did: by the similarity that brings the steadier half of them onto `onto` (N, 2)."""
    apart = np.linalg.norm(transform(points, similarity(points, onto)) - onto, axis=1)
    steady = apart <= np.median(apart)
    return transform(points, similarity(points[steady], onto[steady]))


class Flow:
    """Peppa's tracker: landmarks followed by pyramidal Lucas-Kanade and blended with those found, then held still below a px.

    Its limits are px of the image, and nothing in it knows the time: made for faces of some 100 px at 25 to 30 frames/s.
    """

    window, levels, criteria = (40, 40), 8, (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 5, 0.1)
    near, near_eye = 10.0, 1.0  # px^2 between found and last: below, the flow weighs .8; above .15
    still = 1.0                 # px that count as no movement
    gain = _gain(1.0, 1.0)      # its One-Euro filter counts frames and knows no speed, so this is all of it

    def __init__(self, eyes: tuple[int, ...]):
        """eyes: the landmarks of both, where blinks matter."""
        self.eyes = list(eyes)
        self.blended: Faces = {}
        self.held: Faces = {}
        self.image: np.ndarray | None = None

    def __call__(self, faces: Faces, seconds: float, image: np.ndarray) -> Faces:
        """The landmarks found in the frame `image` (H, W, 3) uint8, smoothed."""
        known = [id for id, found in faces.items() if _went_on(self.blended.get(id), found)] if self._fits(image) else []
        flown = self._flow(known, image)
        blended = {id: self._blend(found, self.blended[id], flown[id]) if id in flown else np.asarray(found, dtype=np.float64)
                   for id, found in faces.items()}
        self.held = {id: self._hold(points, self.held[id]) if id in flown else points for id, points in blended.items()}
        self.blended, self.image = blended, image.copy()
        return self.held

    def _fits(self, image: np.ndarray) -> bool:
        return self.image is not None and self.image.shape == image.shape

    def _flow(self, ids: list[int], image: np.ndarray) -> Faces:
        """Where the last points of these faces are now; one call for all, since the pyramids cost more than the points."""
        if not ids:
            return {}
        last = np.concatenate([self.blended[id] for id in ids]).astype(np.float32)
        now = cv2.calcOpticalFlowPyrLK(self.image, image, last, None, winSize=self.window, maxLevel=self.levels,
                                       criteria=self.criteria)[0]
        return dict(zip(ids, np.split(now, len(ids)), strict=True))

    def _blend(self, found: np.ndarray, last: np.ndarray, flown: np.ndarray) -> np.ndarray:
        limit = np.full(len(found), self.near)
        limit[self.eyes] = self.near_eye
        near = (((found - last) ** 2).sum(1) < limit)[:, None]
        return np.where(near, 0.8 * flown + 0.2 * found, 0.15 * flown + 0.85 * found)

    def _hold(self, points: np.ndarray, last: np.ndarray) -> np.ndarray:
        moved = np.linalg.norm(points - last, axis=1)[:, None] >= self.still
        return np.where(moved, self.gain * points + (1 - self.gain) * last, last)


def plain(faces: Faces, seconds: float, image: np.ndarray | None = None) -> Faces:
    """The landmarks as they were found."""
    return faces


SMOOTH = {"one-euro": lambda layout: OneEuro(), "flow": lambda layout: Flow(eye_points(layout)), "none": lambda layout: plain}


def eye_points(layout) -> tuple[int, ...]:
    """The landmarks of both eyes' rims, none where a layout has no parts of that name."""
    return (*layout.groups.get("eye_left", ()), *layout.groups.get("eye_right", ()))


def make_smooth(name: str, layout):
    """The filter of that name for faces of `layout`: filter({id: landmarks}, seconds, image). UserError for an unknown name."""
    if name not in SMOOTH:
        raise UserError(f"no smoothing '{name}' (there are: {', '.join(SMOOTH)})")
    return SMOOTH[name](layout)
