"""The label check: planted errors come first, clean sets give no alarm, in every layout."""

import numpy as np
import pytest
from conftest import LAYOUTS, mean_face

from extras.tools.label_check import SURE, beside, examine

SIZE = 200.0


def shapes(count: int, seed: int = 0) -> np.ndarray:
    """(count, 68, 2) px: faces that turn, open the mouth and lift the brows, in any place and size, labelled to 1 % or
    so.
    """
    rng, base = np.random.default_rng(seed), mean_face() - 0.5
    faces = []
    for turn, mouth, brows, angle, size in zip(
        *rng.normal(0, 1, (3, count)), *rng.uniform((-0.5, 0.6), (0.5, 1.6), (count, 2)).T, strict=True
    ):
        face = base * (1, rng.uniform(0.9, 1.1))
        face[:, 0] += 0.08 * turn * (face[:, 0] ** 2 - 0.05)
        face[54:60, 1] += 0.02 * abs(mouth)
        face[17:27, 1] += 0.01 * brows
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        faces.append((face + rng.normal(0, 0.005, face.shape)) @ rotation.T * size + rng.uniform(1, 2, 2))
    return np.array(faces) * SIZE


def judged(landmarks, layout: str = "68", truth=None):
    """Findings for labels of layout 68, of which `layout` has some. A net sees the true landmarks, to 1 % or so."""
    layout, truth = LAYOUTS.load(layout), shapes(len(landmarks)) if truth is None else truth
    found = truth + np.random.default_rng(1).normal(0, 0.007 * SIZE, truth.shape)
    names = [f"{i}.jpg" for i in range(len(landmarks))]
    return examine(landmarks[:, list(layout.selected)], found, layout, names)


def alarms(found) -> list[int]:
    return [finding.face for finding in found if finding.score >= 1]


@pytest.mark.parametrize("count", (30, 300))
@pytest.mark.parametrize("layout", ("68", "12"))
def test_a_clean_set_has_no_alarms_and_every_face_a_rank(layout, count):
    found = judged(shapes(count), layout)
    assert not alarms(found) and sorted(finding.face for finding in found) == list(range(count))
    scores = [finding.score for finding in found]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("count", (30, 300))
def test_planted_errors_come_first_and_are_named(count):
    landmarks, flip = shapes(count), list(LAYOUTS.load("68").flip_index)
    eyes = [*range(36, 48)]
    landmarks[7, eyes] = landmarks[7, [flip[i] for i in eyes]]
    landmarks[20] = landmarks[20][flip]
    landmarks[13, 8] += (0, 76)
    landmarks[25] += (40, 0)
    landmarks[28, [5, 6]] = np.nan
    found = judged(landmarks)
    assert set(alarms(found)) == {7, 13, 20, 25} == {finding.face for finding in found[:4]}
    says = {finding.face: finding for finding in found}
    assert says[7].reason == "left and right exchanged: eye_left, eye_right" and set(says[7].landmarks) == set(eyes)
    assert says[20].reason == "left and right exchanged: the whole face"
    assert says[13].landmarks == (8,) and says[13].reason.startswith("8 (jaw_9) is 0.")
    assert says[25].reason.startswith("the whole face is 0.")


def test_a_layout_that_the_net_does_not_know():
    """Points between those of the net, whose habits are no faults, and one that is off."""
    landmarks = shapes(30)
    five = landmarks[:, [36, 45, 30, 48, 54]] * 0.8 + landmarks[:, [39, 42, 33, 57, 57]] * 0.2
    five[9, [0, 1]] = five[9, [1, 0]]
    five[12, 2] += (0, 40)
    found = examine(five, landmarks + 1, LAYOUTS.load("5"), [str(i) for i in range(30)])
    assert {finding.face for finding in found[:2]} == {9, 12} == set(alarms(found))


def test_where_own_points_lie_beside_those_of_a_net():
    """An unsteady point, one that is 0.2 of the way from one landmark to another, and one that no face has."""
    landmarks = shapes(30)
    own = landmarks[:, [30, 30, 8]]
    own[:, 0] += np.random.default_rng(2).normal(0, 8, (30, 2))
    own[:, 1] += 0.2 * (landmarks[:, 8] - landmarks[:, 30])
    own[:, 2] = np.nan
    usual, spread = beside(own, landmarks)
    assert spread[1].argmin() == 30 and spread[1, 30] < 0.02 < spread[0].min() and np.isinf(spread[2]).all()
    assert abs(usual[1, 30, 0]) < 0.02 and 0.05 < usual[1, 30, 1] < 0.2


def test_faults_that_need_no_net():
    landmarks = shapes(6)
    landmarks[3, 1:] = np.nan
    landmarks[5] = landmarks[4]
    found = judged(landmarks)
    assert [(finding.face, finding.reason, finding.score) for finding in found] == [
        (3, "1 landmarks are labelled", SURE),
        (5, "the same labels as 4.jpg", SURE),
    ]
    assert not examine(np.zeros((0, 68, 2)), np.zeros((0, 68, 2)), LAYOUTS.load("68"), [])
