"""Drowsiness from landmarks: how open eyes and mouth are, blinks, yawns, and the share of time with closed eyes."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pipnet.errors import UserError, as_text, is_number
from pipnet.layout import EYES, INNER_LIPS, Layout, opposite

WINDOW = 60.0  # s over which PERCLOS and an eye's baseline are computed
BASELINE = 0.7  # the baseline, that of the open eye, is this quantile of an eye's aspect ratios in the window
REBASE = 0.5  # s between updates of the baseline
CLOSED = 0.55  # share of the baseline below which the mean of both eyes means closed
EYE_STATES = "left_eye_closed", "right_eye_closed"  # of a net, left of the image first; they replace CLOSED
LEVEL = 1.0  # s whose median aspect ratio is the level from which a blink falls
# a blink falls by this share of the level, and by this multiple of the median change between frames
DIP, NOISE = 0.4, 5.0
BLINK = 0.05, 0.5  # s: shortest and longest blink
YAWN, YAWN_SECONDS = 0.45, 1.2  # least aspect ratio of the mouth, and for how long; speech is narrower or shorter
# s of closed eyes; share of the window with closed eyes, once a third of it has passed
ALARM_CLOSED, ALARM_PERCLOS = 1.5, 0.25
FORGET = 30.0  # s after which an absent face is forgotten
GAP = 1.0  # s for which a frame counts at most; between two that lie farther apart, nobody saw the eyes


def ring_aspect(landmarks: np.ndarray, ring: tuple[int, ...]) -> float:
    """Return height / width of a closed group of landmarks (N, 2). ring: see `Layout.ring`.

    With six points this is the eye aspect ratio (EAR) of Soukupova & Cech, "Real-Time Eye Blink Detection using Facial
    Landmarks", 2016; with more points, the height is the mean over the pairs. Scale and rotation do not change it.
    """
    upper, lower = landmarks[np.transpose(opposite(ring))]
    return float(np.linalg.norm(upper - lower, axis=1).mean() / max(ring_width(landmarks, ring), 1e-9))


def ring_width(landmarks: np.ndarray, ring: tuple[int, ...]) -> float:
    """Return the distance of the two corners of a closed group of landmarks (N, 2), px."""
    return float(np.linalg.norm(landmarks[ring[0]] - landmarks[ring[len(ring) // 2]]))


class _Seen(NamedTuple):
    """The eyes in a frame."""

    seconds: float
    ears: np.ndarray  # (2,) left and right
    watched: float  # s up to this frame in which the face was seen
    shut: float  # s of these with closed eyes


@dataclass
class _State:
    """Memory of one face."""

    seconds: float = -np.inf  # when it was last seen
    eyes: deque[_Seen] = field(default_factory=deque)  # each frame of the window
    recent: deque[tuple[float, float]] = field(default_factory=deque)  # (seconds, EAR) of the last second
    baseline: np.ndarray = field(default_factory=lambda: np.ones(2))  # EAR of the open eyes, left and right
    rebase: float = -np.inf  # when the baseline is to be updated
    closed_since: float | None = None
    # when a fall of the EAR began, the level before it, the lowest EAR since
    dip: tuple[float, float, float] | None = None
    blinks: int = 0
    blink_seconds: float | None = None  # of the last blink
    yawn_since: float | None = None
    yawned: bool = False  # whether the present yawn is counted
    yawns: int = 0


class Drowsiness:
    """Measures how open eyes and mouth are, and counts blinks and yawns. Call `update` for each face of each frame.

    Landmarks should be smoothed little, so that blinks survive. The layout needs the eyes as closed groups (68, 98,
    106, 12, 29); UserError without these.
    """

    def __init__(self, layout: Layout):
        self.layout = layout
        self.eyes = [ring for ring in map(layout.ring, EYES) if ring]
        self.mouth = layout.ring(INNER_LIPS)
        if len(self.eyes) < len(EYES):
            raise UserError(
                f"layout '{layout.name}' has no rings eye_left and eye_right to see blinks with; "
                "give a net of layout 68, 98, 106, 12 or 29"
            )
        self.states: dict[int | None, _State] = {}

    def update(
        self, id: int | None, landmarks: np.ndarray, seconds: float, states: dict[str, float] | None = None
    ) -> dict[str, Any]:
        """Return the state of face `id` at `seconds`, from its landmarks (N, 2) and, if the net predicts them, its
        `states`.

        - `ear_left`, `ear_right`: eye aspect ratios (EAR), left of the image first; `mouth`: that of the inner lips,
          None without these
        - `open`: EAR relative to open eyes, a mean of both eyes; the wider eye has more weight
        - `closed`: whether the eyes are closed, by the net's probabilities if it has them, else by `open`
        - `perclos`: share of the time in the window with closed eyes
        - `blinks`, `yawns`: numbers so far, counted from aspect ratios; `blink_seconds`: length of the last blink
        - `alarm`: None, "eyes closed" or "perclos"

        A frame whose eyes are not finite is not measured: its aspect ratios and `open` are NaN, the rest stays.
        UserError for landmarks of another shape, and for a time that is no number.
        """
        landmarks = self.layout.checked(landmarks)
        if not is_number(seconds):
            raise UserError(
                f"the time of a frame is a number of seconds, not {as_text(seconds)}; give that of its video"
            )
        self.states = {key: state for key, state in self.states.items() if seconds - state.seconds <= FORGET}
        state = self.states.setdefault(id, _State())
        ears = np.array([ring_aspect(landmarks, ring) for ring in self.eyes])
        # an eye seen at a steep angle gets less
        weights = np.array([ring_width(landmarks, ring) for ring in self.eyes]) ** 2
        weights /= max(weights.sum(), 1e-9)
        mouth = None if self.mouth is None else ring_aspect(landmarks, self.mouth)
        state.seconds = seconds
        openness = np.nan
        if np.isfinite(ears).all():
            _watch(state, ears, seconds)
            openness = float(ears / state.baseline @ weights)
            closed = openness < CLOSED
            if states and all(np.isfinite(states.get(name, np.nan)) for name in EYE_STATES):
                closed = bool(weights @ [states[name] for name in EYE_STATES] > 0.5)
            if not closed:
                state.closed_since = None
            elif state.closed_since is None:
                state.closed_since = seconds
            _count_blinks(state, float(ears @ weights), float(state.baseline @ weights), seconds)
        if mouth is not None and np.isfinite(mouth):
            _count_yawns(state, mouth, seconds)
        watched, perclos = _perclos(state)
        alarm = None
        if state.closed_since is not None and seconds - state.closed_since >= ALARM_CLOSED:
            alarm = "eyes closed"
        elif perclos >= ALARM_PERCLOS and watched >= WINDOW / 3:
            alarm = "perclos"
        return {
            "ear_left": float(ears[0]),
            "ear_right": float(ears[1]),
            "mouth": mouth,
            "open": openness,
            "closed": state.closed_since is not None,
            "perclos": perclos,
            "blinks": state.blinks,
            "blink_seconds": state.blink_seconds,
            "yawns": state.yawns,
            "alarm": alarm,
        }


def _watch(state: _State, ears: np.ndarray, seconds: float) -> None:
    """Add a frame to the window, and update the baselines. The frame before lasts until this one."""
    watched = shut = 0.0
    if state.eyes:
        last = state.eyes[-1]
        step = min(max(seconds - last.seconds, 0.0), GAP)
        watched = last.watched + step
        shut = last.shut + step * (state.closed_since is not None)
    state.eyes.append(_Seen(seconds, ears, watched, shut))
    while state.eyes[0].seconds < seconds - WINDOW:
        state.eyes.popleft()
    if seconds >= state.rebase:
        values = np.array([seen.ears for seen in state.eyes])
        steps = np.diff([seen.watched for seen in state.eyes])
        weights = np.append(steps, steps[-1:] if len(steps) else 1.0)
        baseline = [_quantile(column, weights, BASELINE) for column in values.T]
        state.baseline, state.rebase = np.maximum(baseline, 1e-6), seconds + REBASE


def _quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """Return the quantile of values (M,) with weights (M,); with equal weights, that of np.quantile."""
    order = np.argsort(values)
    weights = np.maximum(weights[order], 1e-6)  # frames with one time stamp weigh nothing
    places = np.cumsum(weights) - weights / 2
    return float(np.interp(places[0] + share * (places[-1] - places[0]), places, values[order]))


def _perclos(state: _State) -> tuple[float, float]:
    """Return (s of the window in which the face was seen, share of these with closed eyes)."""
    if not state.eyes:
        return 0.0, 0.0
    first, last = state.eyes[0], state.eyes[-1]
    watched = last.watched - first.watched
    return watched, (last.shut - first.shut) / watched if watched else float(state.closed_since is not None)


def _count_blinks(state: _State, ear: float, open_ear: float, seconds: float) -> None:
    """Count a blink when the EAR falls below its level of the last second and recovers half of the fall within half a
    second.

    open_ear: EAR of the open eyes; a fall from the level of closed eyes is no blink.
    """
    while state.recent and state.recent[0][0] < seconds - LEVEL:
        state.recent.popleft()
    values = np.array([value for _, value in state.recent])
    if state.dip is None and len(values) >= 3 and seconds - state.recent[0][0] > LEVEL / 3:
        level = float(np.median(values))
        fall = max(DIP * level, NOISE * float(np.median(np.abs(np.diff(values)))))
        if ear < level - fall and level > CLOSED * open_ear:
            state.dip = seconds, level, ear
    elif state.dip is not None:
        start, level, lowest = state.dip
        state.dip = start, level, min(lowest, ear)
        if seconds - start > BLINK[1]:  # too long for a blink: a new level
            state.dip = None
            state.recent.clear()
        elif ear > (level + lowest) / 2:
            state.dip = None
            if seconds - start >= BLINK[0]:
                state.blinks, state.blink_seconds = state.blinks + 1, seconds - start
    state.recent.append((seconds, ear))


def _count_yawns(state: _State, mouth: float, seconds: float) -> None:
    """Count a yawn once the mouth has been wide open for long enough."""
    if mouth < YAWN:
        state.yawn_since, state.yawned = None, False
        return
    if state.yawn_since is None:
        state.yawn_since = seconds
    if seconds - state.yawn_since >= YAWN_SECONDS and not state.yawned:
        state.yawned, state.yawns = True, state.yawns + 1
