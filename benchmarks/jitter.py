"""Smoothing against landmarks whose truth is known: `python benchmarks/jitter.py`.

A face of 200 px rests, jumps, swings, blinks or talks for 12 s at 15, 30 and 60 frames/s. The landmarks are the truth and noise
as strong as in clips of real faces, of each landmark and of all together. Errors and movements are root mean squares of the
coordinates in px, without the first second.
"""
from collections.abc import Callable
from itertools import chain

import numpy as np
from measure import eyes_open
from record import save

from pipnet.app.smooth import OneEuro
from pipnet.layout import EYES, opposite
from utils.config import read_defaults
from utils.synthetic import render

RATES, SECONDS, SIZE = (15, 30, 60), 12, 200
OWN, COMMON = 0.002 * SIZE, 0.001 * SIZE  # px; 0.0007 to 0.0024 of the face in three real clips at 128 px
LAYOUT = read_defaults().layouts.load("68")
CHIN_AND_LIP = [*range(5, 12), *range(55, 60), *range(65, 68)]
EVERY, SHUT = 2.0, ((0.5, 0.6, 0.65, 0.8), (0, 1, 1, 0))  # s between blinks; (s since its start, how far the lids are closed)


def shape() -> np.ndarray:
    """Return the landmarks (68, 2) in px of an upright face with open eyes."""
    landmarks = render(0, 1).landmarks.astype(np.float64)
    return (landmarks - landmarks.mean(0)) * (SIZE / np.ptp(landmarks, axis=0).max()) + 2 * SIZE


def swing(t: np.ndarray, rate: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * rate * t)[:, None, None] * SIZE * (1, 0.3)


def rest(t: np.ndarray, face: np.ndarray) -> np.ndarray:
    return np.repeat(face[None], len(t), 0)


def blink(t: np.ndarray, face: np.ndarray) -> np.ndarray:
    truth, closed = rest(t, face), np.interp(t % EVERY, *SHUT)[:, None]
    for upper, lower in chain.from_iterable(opposite(LAYOUT.ring(eye)) for eye in EYES):
        truth[:, upper] += 0.9 * closed * (truth[:, lower] - truth[:, upper])
    return truth


def talk(t: np.ndarray, face: np.ndarray) -> np.ndarray:
    truth = rest(t, face)
    truth[:, CHIN_AND_LIP, 1] += 0.03 * SIZE * (1 + np.sin(6 * np.pi * t))[:, None]
    return truth


MOTIONS = {
    "still": rest,
    "jumps by a fifth": lambda t, face: rest(t, face) + np.where(t % 2 < 1, 0, 0.2)[:, None, None] * SIZE,
    "swings slowly, 0.2 Hz": lambda t, face: rest(t, face) + swing(t, 0.2),
    "swings, 0.5 Hz": lambda t, face: rest(t, face) + swing(t, 0.5),
    "swings fast, 1.5 Hz": lambda t, face: rest(t, face) + swing(t, 1.5),
    "blinks, 0.3 s": blink,
    "talks, 3 Hz": talk,
}


def ear(landmarks: np.ndarray) -> np.ndarray:
    """Return the mean eye aspect ratio (T,) of landmarks (T, 68, 2)."""
    return np.array([eyes_open(LAYOUT, face) for face in landmarks])


def fall(ears: np.ndarray, begin: int, end: int) -> tuple[float, float]:
    """Return (how much the eye aspect ratio falls within some frames, the frame in which it has fallen by half of that)."""
    part, open_eye = ears[begin:end], np.median(ears)
    depth = open_eye - part.min()
    first = int(np.argmax(part < open_eye - depth / 2))
    return depth, first - (open_eye - depth / 2 - part[first]) / max(part[first - 1] - part[first], 1e-9)


def measure(motion: str, rate: int, face: np.ndarray) -> dict[str, float]:
    """Return the figures of one motion at one rate."""
    rng, t = np.random.default_rng(0), np.arange(SECONDS * rate) / rate
    truth, smooth = MOTIONS[motion](t, face), OneEuro()
    found = truth + OWN * rng.standard_normal(truth.shape) + COMMON * rng.standard_normal((len(t), 1, 2))
    smoothed = np.array([smooth({0: landmarks}, seconds)[0] for landmarks, seconds in zip(found, t, strict=True)])

    def rms(values: np.ndarray) -> float:
        return float(np.sqrt((values[rate:] ** 2).mean()))

    figures = {"error_px": rms(found - truth), "smoothed_error_px": rms(smoothed - truth),
               "movement_px": rms(np.diff(found, axis=0)), "smoothed_movement_px": rms(np.diff(smoothed, axis=0))}
    if motion.startswith("blinks"):
        spans = [(int((start + 0.3) * rate), int((start + 1.2) * rate)) for start in np.arange(EVERY, SECONDS - 1, EVERY)]
        falls = [(fall(ear(truth), *span), fall(ear(smoothed), *span)) for span in spans]
        figures["amplitude_kept"] = min(after[0] / before[0] for before, after in falls)
        figures["frames_late"] = max(after[1] - before[1] for before, after in falls)
    return {name: round(value, 4) for name, value in figures.items()}


def shown(motion: str, rates: list[dict[str, float]]) -> dict[str, str]:
    """Return the row of a motion; each cell holds the figures at all RATES."""
    def cell(form: str, figure: Callable[[dict], float], known: bool = True) -> str:
        return " / ".join(format(figure(rate), form) for rate in rates) if known else ""

    blinks = motion.startswith("blinks")
    return {"the face": motion, "error left, %": cell(".0f", lambda rate: 100 * rate["smoothed_error_px"] / rate["error_px"]),
            "jitter reduced by, times": cell(".1f", lambda rate: rate["movement_px"] / rate["smoothed_movement_px"],
                                             motion == "still"),
            "blink depth kept, %": cell(".0f", lambda rate: 100 * rate["amplitude_kept"], blinks),
            "frames late": cell(".1f", lambda rate: rate["frames_late"], blinks)}


if __name__ == "__main__":
    still_face = shape()
    save("jitter", "python benchmarks/jitter.py", 0, {
        "face_px": SIZE, "noise_px": [OWN, COMMON],
        "rows": [shown(motion, [measure(motion, rate, still_face) for rate in RATES]) for motion in MOTIONS]})
