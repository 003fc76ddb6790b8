"""The label check: planted errors come first, clean sets give no alarm, in every layout."""

import numpy as np
import pytest
from conftest import LAYOUTS, mean_face

from extras.tools.label_check import SURE, THRESHOLD, examine

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


def judged(landmarks, layout: str = "68", visible=None, **more):
    """Findings for landmarks of layout 68, of which `layout` has some."""
    layout = LAYOUTS.load(layout)
    chosen = landmarks[:, list(layout.selected)]
    seen = np.isfinite(chosen).all(-1) if visible is None else visible[:, list(layout.selected)]
    return examine(chosen, seen, layout, **more)


def swap(landmarks, face: int, first: list[int], second: list[int]) -> None:
    landmarks[face, first + second] = landmarks[face, second + first]


def alarms(found) -> list:
    return [finding for finding in found if finding.score >= THRESHOLD]


@pytest.mark.parametrize("layout", ("68", "12"))
def test_a_clean_set_has_no_alarms_and_every_face_a_rank(layout):
    found = judged(shapes(300), layout)
    assert not alarms(found)
    assert sorted(finding.face for finding in found) == list(range(300))
    scores = [finding.score for finding in found]
    assert scores == sorted(scores, reverse=True)


def test_planted_errors_come_first_and_are_named():
    landmarks = shapes(300)
    flip = list(LAYOUTS.load("68").flip_index)
    swap(landmarks, 7, list(range(36, 42)), [flip[i] for i in range(36, 42)])
    landmarks[20] = landmarks[20][flip]
    landmarks[33, 30] += (30, -25)
    swap(landmarks, 41, [4], [9])
    swap(landmarks, 55, [49], [53])
    landmarks[60, 8] = landmarks[60, 0]
    found = judged(landmarks)
    assert (
        {finding.face for finding in found[:6]}
        == {7, 20, 33, 41, 55, 60}
        == {finding.face for finding in alarms(found)}
    )
    by_face = {finding.face: finding for finding in found}
    assert by_face[7].reason == "left and right exchanged: eye_left, eye_right"
    assert set(by_face[7].landmarks) == set(range(36, 48))
    assert by_face[20].reason == "left and right exchanged: the whole face"
    assert (
        by_face[33].landmarks == (30,)
        and by_face[33].reason.startswith("30 is ")
        and by_face[33].reason.endswith(" px off")
    )
    assert abs(float(by_face[33].reason.split()[2]) - np.hypot(30, 25)) < 5
    assert by_face[41].reason == "4 and 9 exchanged" and by_face[55].reason == "49 and 53 exchanged"
    assert by_face[60].landmarks[0] == 8 and by_face[60].reason.endswith(", on 0")


def test_eyes_only_and_five_points():
    landmarks = shapes(200)
    landmarks[3, 38] += (25, 10)
    found = judged(landmarks, "12")
    assert [finding.face for finding in alarms(found)] == [3] and found[0].landmarks[0] == 2
    five = landmarks[:, [36, 45, 30, 48, 54]]
    five[9, [0, 1]] = five[9, [1, 0]]
    five[12] = five[12][[1, 0, 2, 4, 3]]
    found = examine(five, np.ones((200, 5), bool), LAYOUTS.load("5"))
    assert {finding.face for finding in found[:2]} == {9, 12} == {finding.face for finding in alarms(found)}


def test_missing_and_hidden_landmarks_are_not_judged():
    rng, landmarks = np.random.default_rng(1), shapes(200)
    visible = np.ones((200, 68), bool)
    landmarks[rng.random((200, 68)) < 0.1] = np.nan
    landmarks[:, 5] = np.nan  # never annotated
    landmarks[50, 40] = (0, 0)
    visible[50, 40] = False  # a mark for "unknown"
    landmarks[60, 45] = landmarks[60, 33] = np.nan
    landmarks[60, 27] = np.nanmean(landmarks[60], 0) + 70
    found = judged(landmarks, visible=visible & np.isfinite(landmarks).all(-1))
    assert [finding.face for finding in alarms(found)] == [60] and found[0].landmarks[0] == 27


def test_faults_that_need_no_model():
    landmarks = shapes(40)
    box = np.concatenate([landmarks.min(1), landmarks.max(1)], 1)
    size = np.full((40, 2), 5 * SIZE)
    landmarks[1, 45] = landmarks[1, 36]  # no distance between the eyes
    landmarks[2] = landmarks[2, 0]
    landmarks[3, 1:] = np.nan
    landmarks[4, 50] += 3 * SIZE
    landmarks[6] = landmarks[5]
    found = judged(landmarks, box=box, size=size)
    sure = {finding.face: finding.reason for finding in found if finding.score == SURE}
    assert sure == {
        1: "the eyes coincide",
        2: "all landmarks coincide",
        3: "1 landmarks are labelled",
        4: "far outside the box",
        6: "the same labels as face 5",
    }
    assert [finding.score for finding in found[:5]] == [SURE] * 5
    outside = judged(shapes(40), size=np.full((40, 2), SIZE))
    assert {finding.reason for finding in outside if finding.score == SURE} == {"far outside the picture"}


def test_few_faces_are_only_checked_for_plain_faults():
    landmarks = shapes(5)
    landmarks[3, 45] = landmarks[3, 36]
    assert [finding.face for finding in judged(landmarks)] == [3]
    assert not examine(np.zeros((0, 68, 2)), np.zeros((0, 68), bool), LAYOUTS.load("68"))
