"""Drowsiness: eye and mouth aspect ratios, blinks, closed eyes and yawns in drawn faces whose lids and lips move."""

import numpy as np
import pytest
from conftest import LAYOUTS, mean_face, refuses

from extras.synthetic import render
from extras.synthetic.head import both_lids
from pipnet.geometry import box_of
from pipnet.landmarker import Landmarker
from pipnet.layout import Layout
from pipnet.video.drowsiness import ALARM_CLOSED, Drowsiness, ring_aspect


def lens(count: int, centre: tuple, width: float, height: float) -> np.ndarray:
    """(count, 2) a ring from its left corner over the top."""
    angle = np.pi + np.arange(count) * 2 * np.pi / count
    return np.column_stack([np.cos(angle) * width / 2, np.sin(angle) * height / 2]) + centre


def face(layout: Layout, eyes: float = 1.0, mouth: float = 0.0) -> np.ndarray:
    """(N, 2) px: eyes open 1, shut 0.1; mouth shut 0, yawning 1. Only the rings are where they are on a face."""
    landmarks = np.random.default_rng(0).uniform(0, 200, (layout.count, 2))
    for name, x in (("eye_left", 60), ("eye_right", 140)):
        landmarks[list(layout.groups[name])] = lens(len(layout.groups[name]), (x, 80), 36, 12 * eyes)
    if "lips_inner" in layout.groups:
        landmarks[list(layout.groups["lips_inner"])] = lens(
            len(layout.groups["lips_inner"]), (100, 150), 50, 2 + 48 * mouth
        )
    return landmarks


def play(
    name: str, seconds: float, eyes=lambda t: 1.0, mouth=lambda t: 0.0, rate: float = 30, noise: float = 0.1
) -> list[dict]:
    """States of each frame. eyes, mouth: functions of the time in s."""
    layout, rng = LAYOUTS.load(name), np.random.default_rng(0)
    drowsiness = Drowsiness(layout)
    return [
        drowsiness.update(3, face(layout, eyes(t), mouth(t)) + noise * rng.standard_normal((layout.count, 2)), t)
        for t in np.arange(round(seconds * rate)) / rate
    ]


def blinking(t: float) -> float:
    """A blink of 0.25 s every 2 s, the first after 1.5 s."""
    return 1 - 0.8 * np.interp(t % 2 - 1.5, [0, 0.08, 0.12, 0.25], [0, 1, 1, 0])


def test_aspect_of_a_ring():
    ring = tuple(range(6))
    points = np.array([(0, 0), (1, -1), (3, -1), (4, 0), (3, 1), (1, 1)], dtype=float)
    turn = np.array([(0.6, -0.8), (0.8, 0.6)]) * 7
    assert ring_aspect(points, ring) == pytest.approx(0.5)
    assert ring_aspect(points @ turn.T + 100, ring) == pytest.approx(0.5)


def test_the_rings_of_every_layout_begin_at_a_corner():
    parts = LAYOUTS.load("68").groups
    assert (
        0.3 < ring_aspect(mean_face(), parts["eye_left"]) < 0.8 and ring_aspect(mean_face(), parts["lips_inner"]) < 0.5
    )


@pytest.mark.parametrize("name", ["68", "98", "106", "12", "29"])
@pytest.mark.parametrize("rate", [15, 30, 60])
def test_blinks_are_counted(name, rate):
    said = play(name, 10, blinking, rate=rate)
    assert said[-1]["blinks"] == 5 and 0.1 < said[-1]["blink_seconds"] < 0.35
    assert said[int(1.4 * rate)]["blinks"] == 0 and said[2 * rate]["blinks"] == 1
    assert not any(one["alarm"] for one in said) and said[-1]["perclos"] < 0.15
    assert (said[-1]["mouth"] is None) == (name in ("12", "29"))


def test_a_blink_is_over_when_the_eyes_are_half_open_again():
    """Eyes that stay narrower after a blink do not hide the next one, 0.6 s later."""
    said = play("68", 4, lambda t: blinking(t) * (1 - 0.07 * (t > 1.6)) - 0.6 * (2.2 < t < 2.35))
    assert said[-1]["blinks"] == 3


def test_an_eye_that_is_turned_away_counts_for_little():
    """Its corners lie together, so that its aspect ratio is any number."""
    layout, rng = LAYOUTS.load("68"), np.random.default_rng(0)
    drowsiness = Drowsiness(layout)
    for t in np.arange(300) / 30:
        landmarks = face(layout, blinking(t))
        landmarks[list(layout.groups["eye_left"])] = lens(6, (60, 80), 1, 5) + rng.uniform(-1, 1, (6, 2))
        said = drowsiness.update(0, landmarks, t)
    assert said["blinks"] == 5


def test_neither_noise_nor_a_slow_look_down_is_a_blink():
    assert play("68", 10, lambda t: 1 - 0.15 * np.sin(t) ** 2, noise=0.2)[-1]["blinks"] == 0


def test_eyes_that_fall_shut_alarm_and_are_no_blink():
    said = play("68", 8, lambda t: 0.3 if 4 <= t < 7 else 1.0)
    alarms = [i / 30 for i, one in enumerate(said) if one["alarm"] == "eyes closed"]
    assert alarms[0] == pytest.approx(4 + ALARM_CLOSED, abs=0.05) and alarms[-1] < 7 and said[-1]["blinks"] == 0
    assert said[-1]["perclos"] == pytest.approx(3 / 8, abs=0.02) and not said[-1]["closed"]


def test_a_net_that_predicts_closed_eyes_is_believed():
    """The landmarks show open lids, as nets draw them on shut eyes."""
    layout, drowsiness = LAYOUTS.load("68"), Drowsiness(LAYOUTS.load("68"))

    def update(seconds: float, left: float, right: float) -> dict:
        return drowsiness.update(0, face(layout), seconds, {"left_eye_closed": left, "right_eye_closed": right})

    assert not update(0, 0.1, 0.2)["closed"] and not update(0.1, 0.1, 0.8)["closed"]
    said = [update(0.2 + t, 0.9, 0.8) for t in np.arange(60) / 30]
    assert all(one["closed"] for one in said) and said[0]["alarm"] is None and said[-1]["alarm"] == "eyes closed"
    assert said[-1]["perclos"] == pytest.approx((59 / 30) / (0.2 + 59 / 30)) and said[-1]["open"] == pytest.approx(1)
    # lids decide without trained eyes
    assert not drowsiness.update(0, face(layout), 3.0, {"mouth_closed": 1.0})["closed"]
    assert not drowsiness.update(0, face(layout), 3.1)["closed"]


def test_perclos_alarms_when_the_eyes_are_often_closed():
    said = play("12", 40, lambda t: 0.3 if t % 3 < 1 else 1.0)
    assert said[-1]["perclos"] == pytest.approx(1 / 3, abs=0.04) and said[-1]["alarm"] == "perclos"
    assert said[-1]["blinks"] == 0 and not any(one["alarm"] for one in said[: 30 * 19])


@pytest.mark.parametrize(("open_rate", "shut_rate"), [(30, 30), (30, 5), (5, 30), (2, 60)])
def test_perclos_is_a_share_of_time_at_any_rate_of_frames(open_rate, shut_rate):
    layout = LAYOUTS.load("68")
    drowsiness, seconds, alarms = Drowsiness(layout), 0.0, []
    for _ in range(18):
        for rate, length, eyes in ((open_rate, 2.0, 1.0), (shut_rate, 1.4, 0.2)):
            for _ in range(round(rate * length)):
                said = drowsiness.update(0, face(layout, eyes), seconds)
                alarms += [seconds] * (said["alarm"] == "perclos")
                seconds += 1 / rate
    assert said["perclos"] == pytest.approx(1.4 / 3.4, abs=0.02) and alarms[0] == pytest.approx(20, abs=0.6)


def test_an_absence_is_no_time_with_closed_eyes():
    layout = LAYOUTS.load("68")
    drowsiness, states = Drowsiness(layout), {"left_eye_closed": 1.0, "right_eye_closed": 1.0}
    drowsiness.update(0, face(layout), 0.0, states)
    said = [drowsiness.update(0, face(layout), 25 + t) for t in np.arange(30) / 10]
    assert said[-1]["perclos"] == pytest.approx(1 / 3.9) and not any(one["alarm"] for one in said)


@pytest.mark.parametrize("lost", [slice(None), [36], slice(60, 68)])
def test_a_frame_that_is_not_finite_is_not_measured(lost):
    """The others are: blinks and yawns before and after it count, and eyes that stay shut alarm."""
    layout, drowsiness, said = LAYOUTS.load("68"), Drowsiness(LAYOUTS.load("68")), []
    for index, t in enumerate(np.arange(300) / 30):
        landmarks = face(layout, 0.2 if t > 8 else blinking(t), 0.9 if 5 < t < 7 else 0)
        if index % 50 == 20:
            landmarks[lost] = np.nan
        said.append(drowsiness.update(0, landmarks, t))
    assert (said[-1]["blinks"], said[-1]["yawns"], said[-1]["alarm"]) == (4, 1, "eyes closed")
    assert np.isnan(said[20]["open"]) == (lost != slice(60, 68)) and np.isfinite(said[21]["open"])
    assert (
        drowsiness.update(0, face(layout), 11, dict.fromkeys(("left_eye_closed", "right_eye_closed"), np.nan))["closed"]
        is False
    )
    assert drowsiness.update(1, landmarks * np.nan, 11)["perclos"] == 0


@pytest.mark.parametrize("name", ["68", "98", "106"])
def test_yawns_are_counted_once_and_talk_is_none(name):
    def mouth(t):
        return 0.9 if 3 <= t < 6 or 8 <= t < 10 else 0.3 * (np.sin(20 * t) > 0)

    said = play(name, 12, mouth=mouth)
    assert [said[i * 30]["yawns"] for i in (3, 5, 7)] == [0, 1, 1] and said[-1]["yawns"] == 2


def test_faces_are_told_apart_and_forgotten():
    layout = LAYOUTS.load("12")
    drowsiness = Drowsiness(layout)
    for t in np.arange(90) / 30:
        drowsiness.update(0, face(layout, blinking(t)), t)
        other = drowsiness.update(1, face(layout), t)
    assert other["blinks"] == 0 and drowsiness.update(0, face(layout), 3.0)["blinks"] == 1
    assert drowsiness.update(1, face(layout), 1000.0)["perclos"] == 0 and list(drowsiness.states) == [1]


@pytest.mark.parametrize("name", ["5", "19", "39"])
def test_a_layout_without_eyes_says_so(name):
    refuses(f"'{name}'.*eye_left", Drowsiness, LAYOUTS.load(name))


@pytest.mark.parametrize(("net", "share"), [("landmarks", 0.2), ("landmarks-fast", 0.4)])
def test_the_shipped_nets_draw_shut_eyes_shut(net, share):
    landmarker, heights = Landmarker(net, threads=1), {1.0: [], 0.0: []}
    for person in range(6):
        for openness, found in heights.items():
            lids = both_lids(openness, 0.8)
            drawn = render(2, person, angles=(0.0, np.radians(-17), 0.0), lids=lids)
            landmarks = landmarker.landmarks_of(drawn.image, box_of(drawn.landmarks)[None])[0].landmarks
            found += [ring_aspect(landmarks, tuple(range(start, start + 6))) for start in (36, 42)]
    assert np.mean(heights[0.0]) < share * np.mean(heights[1.0])
