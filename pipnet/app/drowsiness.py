"""Drowsiness from landmarks: how open eyes and mouth are, blinks, yawns, and the share of time with closed eyes."""
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from pipnet.errors import UserError
from pipnet.layout import Layout

WINDOW = 60.0             # s over which PERCLOS and an eye's baseline are taken
BASELINE = 0.7            # quantile of an eye's aspect ratios in the window that counts as open
CLOSED = 0.75             # share of the baseline, mean of both eyes, below which they are closed
LEVEL = 1.0               # s whose median is the level that a blink falls from
DIP, NOISE = 0.2, 5.0     # share of the level by which a blink falls at least, also in changes between frames (their median)
BLINK = 0.05, 0.5         # s: what is shorter or longer is no blink
YAWN, YAWN_SECONDS = 0.45, 1.2           # mouth aspect ratio and how long it lasts; speech opens it less, or shorter
ALARM_CLOSED, ALARM_PERCLOS = 1.5, 0.25  # s of closed eyes; share of the window, once that is a third full
FORGET = 30.0             # s after which a face that is not seen is forgotten


def ring_aspect(landmarks: np.ndarray, ring: tuple[int, ...]) -> float:
    """Height over width of a ring of landmarks (N, 2): from a corner along the upper rim to the other and back along the lower.

    For six points the eye aspect ratio (EAR) of Soukupova & Cech, "Real-Time Eye Blink Detection using Facial Landmarks", 2016;
    for others the mean of as many heights as they have. Neither scale nor rotation matters.
    """
    half = len(ring) // 2
    upper, lower = landmarks[list(ring[1:half])], landmarks[list(ring[:half:-1])]
    return float(np.linalg.norm(upper - lower, axis=1).mean() / max(ring_width(landmarks, ring), 1e-9))


def ring_width(landmarks: np.ndarray, ring: tuple[int, ...]) -> float:
    """From one corner of a ring of landmarks (N, 2) to the other, px."""
    return float(np.linalg.norm(landmarks[ring[0]] - landmarks[ring[len(ring) // 2]]))


@dataclass
class _State:
    """What is remembered of one face."""

    seconds: float = -np.inf
    eyes: deque = field(default_factory=deque)     # (seconds, left, right, closed) of the window
    recent: deque = field(default_factory=deque)   # (seconds, EAR) of the last second
    baseline: np.ndarray = field(default_factory=lambda: np.ones(2))
    rebase: float = -np.inf                        # when the baseline is due
    shut: int = 0                                  # frames of the window with closed eyes
    closed_since: float | None = None
    dip: tuple[float, float, float] | None = None  # (when it began, the level that it fell from, the lowest EAR since)
    blinks: int = 0
    blink_seconds: float | None = None
    yawn_since: float | None = None
    yawned: bool = False
    yawns: int = 0


class Drowsiness:
    """update(id, landmarks, seconds) for each face of each frame, for any layout with rings of the eyes (68, 98, 106, 12, 29).

    UserError for a layout without them. Give landmarks that are smoothed little: blinks must survive.
    """

    def __init__(self, layout: Layout):
        self.eyes = [_ring(layout, name) for name in ("eye_left", "eye_right")]
        self.mouth = _ring(layout, "lips_inner")
        if None in self.eyes:
            raise UserError(f"layout '{layout.name}' has no rings eye_left and eye_right to see blinks with; "
                            "give a net of layout 68, 98, 106 or 12")
        self.states: dict[int, _State] = {}

    def update(self, id: int, landmarks: np.ndarray, seconds: float) -> dict:
        """State of face `id`, whose landmarks (N, 2) are of the moment `seconds`:

        ear_left, ear_right (eye aspect ratio, left of the image), mouth (aspect ratio of the inner lips, None without), open
        (EAR over that of open eyes, the wider eye counting for more), closed, perclos (share of the last minute with closed
        eyes), blinks (count), blink_seconds (of the last one), yawns (count), alarm (None, "eyes closed" or "perclos").
        """
        for other in [other for other, state in self.states.items() if seconds - state.seconds > FORGET]:
            del self.states[other]
        state = self.states.setdefault(id, _State())
        ears = np.array([ring_aspect(landmarks, ring) for ring in self.eyes])
        weights = np.array([ring_width(landmarks, ring) for ring in self.eyes]) ** 2  # of an eye turned away little is seen
        weights /= max(weights.sum(), 1e-9)
        mouth = None if self.mouth is None else ring_aspect(landmarks, self.mouth)
        state.seconds = seconds
        openness = _openness(state, ears, weights, seconds)
        _blink(state, float(ears @ weights), float(state.baseline @ weights), seconds)
        if mouth is not None:
            _yawn(state, mouth, seconds)
        perclos = state.shut / len(state.eyes)
        alarm = None
        if state.closed_since is not None and seconds - state.closed_since >= ALARM_CLOSED:
            alarm = "eyes closed"
        elif perclos >= ALARM_PERCLOS and seconds - state.eyes[0][0] >= WINDOW / 3:
            alarm = "perclos"
        return {"ear_left": float(ears[0]), "ear_right": float(ears[1]), "mouth": mouth, "open": openness,
                "closed": state.closed_since is not None, "perclos": perclos, "blinks": state.blinks,
                "blink_seconds": state.blink_seconds, "yawns": state.yawns, "alarm": alarm}


def _ring(layout: Layout, name: str) -> tuple[int, ...] | None:
    part = layout.groups.get(name, ())
    return part if name in layout.closed and len(part) >= 4 and len(part) % 2 == 0 else None


def _openness(state: _State, ears: np.ndarray, weights: np.ndarray, seconds: float) -> float:
    """Weighted mean EAR of both eyes over their baselines; keeps the window and when the eyes closed."""
    if seconds >= state.rebase:
        values = np.array([values[1:3] for values in state.eyes] + [ears])
        state.baseline, state.rebase = np.maximum(np.quantile(values, BASELINE, axis=0), 1e-6), seconds + 0.5
    openness = float(ears / state.baseline @ weights)
    closed = openness < CLOSED
    state.closed_since = (seconds if state.closed_since is None else state.closed_since) if closed else None
    state.eyes.append((seconds, *ears, closed))
    state.shut += closed
    while state.eyes[0][0] < seconds - WINDOW:
        state.shut -= state.eyes.popleft()[3]
    return openness


def _blink(state: _State, ear: float, usual: float, seconds: float) -> None:
    """A blink is a short dip: the EAR falls below its level of the last second, and half the way back within half a second.

    usual: the EAR of open eyes; what falls from closed eyes is none.
    """
    while state.recent and state.recent[0][0] < seconds - LEVEL:
        state.recent.popleft()
    values = np.array([value for _, value in state.recent])
    if state.dip is None and len(values) >= 3 and seconds - state.recent[0][0] > LEVEL / 3:
        level = float(np.median(values))
        fall = max(DIP * level, NOISE * float(np.median(np.abs(np.diff(values)))))
        if ear < level - fall and level > CLOSED * usual:
            state.dip = seconds, level, ear
    elif state.dip is not None:
        begun, level, lowest = state.dip
        state.dip = begun, level, min(lowest, ear)
        if seconds - begun > BLINK[1]:
            state.dip = None
            state.recent.clear()  # this is the level now
        elif ear > (level + lowest) / 2:
            state.dip = None
            if seconds - begun >= BLINK[0]:
                state.blinks, state.blink_seconds = state.blinks + 1, seconds - begun
    state.recent.append((seconds, ear))


def _yawn(state: _State, mouth: float, seconds: float) -> None:
    """A yawn is counted once, when the mouth has been wide open for long."""
    if mouth < YAWN:
        state.yawn_since, state.yawned = None, False
        return
    state.yawn_since = seconds if state.yawn_since is None else state.yawn_since
    if seconds - state.yawn_since >= YAWN_SECONDS and not state.yawned:
        state.yawned, state.yawns = True, state.yawns + 1
