"""Smoothing: still faces rest, moving ones are not held back, blinks survive, and the published flow to the bit."""

import numpy as np
import pytest
from conftest import LAYOUTS, mean_face, refuses

from pipnet.video.smooth import Flow, OneEuro, make_smooth

SHAPE = (mean_face() - 0.5) * 280  # px: a face of 200


def smoothed(found: np.ndarray, rate: float, scale: float = 1.0) -> np.ndarray:
    smooth = OneEuro()
    return np.array([smooth({7: landmarks * scale}, i / rate)[7] for i, landmarks in enumerate(found)]) / scale


def noise(frames: int, points: int = 68) -> np.ndarray:
    return 0.4 * np.random.default_rng(0).standard_normal((frames, points, 2))


def movement(landmarks: np.ndarray) -> float:
    return float(np.sqrt((np.diff(landmarks, axis=0) ** 2).mean()))


@pytest.mark.parametrize("rate", [15, 30, 60])
def test_a_still_face_rests_and_a_blink_survives(rate):
    t = np.arange(4 * rate) / rate
    truth = np.repeat(SHAPE[None], len(t), 0)
    closed = np.interp(t - 3, [0, 0.1, 0.15, 0.3], [0, 1, 1, 0])
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        truth[:, upper] += 0.9 * closed[:, None] * (truth[:, lower] - truth[:, upper])
    found = truth + noise(len(t))
    calm = smoothed(found, rate)
    rest = slice(rate, 3 * rate)
    assert movement(calm[rest]) * 3 < movement(found[rest])
    assert np.sqrt(((calm - truth)[rest] ** 2).mean()) < 0.6 * np.sqrt(((found - truth)[rest] ** 2).mean())
    gap, true_gap = (np.linalg.norm(face[:, 38] - face[:, 40], axis=1) for face in (calm, truth))
    assert true_gap[0] - gap[3 * rate :].min() > 0.9 * (true_gap[0] - true_gap.min())
    assert abs(int(gap.argmin()) - int(true_gap.argmin())) <= 1 + rate // 20  # lids stay shut for 0.05 s


def test_a_swinging_head_is_not_held_back():
    t = np.arange(90) / 30
    truth = SHAPE + 60 * np.sin(2 * np.pi * t)[:, None, None]
    found = truth + noise(len(t))
    assert np.abs(smoothed(found, 30) - truth).mean() < 0.8 * np.abs(found - truth).mean()


def test_resolution_does_not_matter_and_time_does():
    found = SHAPE + noise(60)
    calm = smoothed(found, 30)
    np.testing.assert_allclose(smoothed(found, 30, scale=10), calm, atol=1e-6)
    assert movement(smoothed(found, 120)[20:]) < movement(calm[20:]) < movement(smoothed(found, 5)[20:])


def test_faces_do_not_influence_each_other():
    """One face comes late, one leaves, sizes differ."""
    smooth, found = OneEuro(), {id: (1 + id) * (SHAPE + noise(20 + id)[id:]) for id in range(3)}
    for i in range(20):
        faces = {id: one[i] for id, one in found.items() if (id, i < 5) != (1, True) and (id, i > 12) != (2, True)}
        together = smooth(faces, i / 30)
        for id in faces:
            start = 5 if id == 1 else 0
            np.testing.assert_allclose(together[id], smoothed(found[id][start : i + 1], 30)[-1], atol=1e-9)


@pytest.mark.parametrize("name", ["one-euro", "flow", "none"])
def test_new_faces_and_jumps_start_anew(name):
    smooth = make_smooth(name, LAYOUTS.load("68"))
    frames = np.random.default_rng(0).integers(0, 255, (5, 240, 320, 3), dtype=np.uint8)
    first = SHAPE * 0.4 + (80, 120)
    smooth({0: first}, 0.0, frames[0])
    both = smooth({0: first + 1, 1: first + (120, 0)}, 0.1, frames[1])
    np.testing.assert_array_equal(both[1], first + (120, 0))  # as it was found
    np.testing.assert_array_equal(smooth({0: first + (90, 0)}, 0.2, frames[2])[0], first + (90, 0))
    assert smooth({}, 0.3, frames[3]) == {}
    np.testing.assert_array_equal(smooth({0: first + (92, 0)}, 0.4, frames[4])[0], first + (92, 0))  # it was away


def test_frames_of_another_size_start_the_flow_anew():
    smooth = Flow(())
    for size in (200, 240):
        found = SHAPE * 0.4 + size / 2 + size / 100
        np.testing.assert_array_equal(smooth({0: found}, 0.0, np.zeros((size, size, 3), np.uint8))[0], found)


def test_few_landmarks_and_a_clock_that_stands_still():
    calm = OneEuro()
    for i, found in enumerate(SHAPE[36:48] + noise(20, 12)):
        assert np.isfinite(calm({0: found}, i // 2 / 30)[0]).all()


def test_published_tracker(reference):
    with np.load(reference / "slim.npz") as arrays:
        frames, found, published, blended = (
            arrays[f"trk_{name}"] for name in ("frames", "detected", "full_output", "lk_only_output")
        )
    smooth = make_smooth("flow", LAYOUTS.load("68"))
    for i, image in enumerate(frames):
        np.testing.assert_allclose(smooth({0: found[i]}, i / 30, image)[0], published[i], atol=1e-9)
        np.testing.assert_allclose(smooth.blended[0], blended[i], atol=1e-9)


def test_unknown_smoothing():
    refuses("'kalman'", make_smooth, "kalman", LAYOUTS.load("68"))
