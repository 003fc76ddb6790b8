"""Tracking: who is who from frame to frame, and when the detector is asked."""

from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from conftest import LAYOUTS, ROOT, draw_face, mean_face, refuses
from hypothesis import given
from hypothesis import strategies as st

from pipnet.boxes import Boxes
from pipnet.chain import Chain
from pipnet.errors import UserError
from pipnet.face import Face
from pipnet.geometry import box_of, iou, opencv_matrix, transform, turn_about
from pipnet.landmarker import Landmarker
from pipnet.video.smooth import SMOOTH
from pipnet.video.track import HALFWAY, MEMORY, Tracker, match

IMAGE = np.zeros((480, 640, 3), np.uint8)


class Seen(NamedTuple):
    """A face of the scene: its middle, size in px, and whether the detector sees it."""

    x: float
    y: float = 240
    size: float = 100
    detected: bool = True

    def landmarks(self) -> np.ndarray:
        return (mean_face() - 0.5) * self.size + (self.x, self.y)


def known_net(face: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        face=face,
        face_limit=0.0,
        layout=LAYOUTS.load("68"),
        shows=lambda box, width, height: True,
        box_of=lambda landmarks: np.append(box_of(landmarks), 0),
    )


class Scene(Chain):
    """A landmarker that knows where the faces are: it finds one that a crop shares a fifth with, else background."""

    net, part, rgb, max_faces = known_net(), None, False, None
    is_face = staticmethod(lambda face: not face.score < 0.5)

    def __init__(self):
        self.faces: list[Seen] = []
        self.detections = 0

    def find(self, image):
        self.detections += 1
        boxes = [[*box_of(face.landmarks()), 0] for face in self.faces if face.detected]
        return Boxes.of(image, np.reshape(boxes, (-1, 5)), np.ones(len(boxes)))

    def confirmed(self, found):
        return [list(filter(self.is_face, self.read(boxes))) for boxes in found]

    def enhanced_faces(self, image):
        return []

    def read(self, boxes):
        found = []
        for box, score in zip(boxes.boxes[:, :4], boxes.scores, strict=True):
            shared = [iou(box[None], box_of(face.landmarks())[None])[0, 0] for face in self.faces]
            hit = bool(shared) and max(shared) > 0.2
            landmarks = (
                self.faces[int(np.argmax(shared))].landmarks() if hit else (mean_face() - 0.5) * 100 + box[:2] + 35
            )
            score = (0.9 if hit else 0.1) if self.net.face else score
            found.append(Face(box, score, landmarks, np.full(68, 0.85 if hit else HALFWAY - 0.05)))
        return found


def follow(scene: Scene, frames: list[list[Seen]], rate: float = 30, **options) -> list[dict[int, float]]:
    """{id: x of the face} of each frame."""
    tracker, seen = Tracker(scene, smooth="none", **options), []
    for i, scene.faces in enumerate(frames):
        faces = tracker.update(IMAGE, i / rate)
        seen.append(
            {
                face.id: float(face.landmarks.mean(0)[0] - mean_face().mean(0)[0] * face_size(face))
                + 0.5 * face_size(face)
                for face in faces
            }
        )
        assert all(0.5 <= face.score <= 1 for face in faces)
    return seen


def face_size(face) -> float:
    return float(np.ptp(face.landmarks[:, 0]) / np.ptp(mean_face()[:, 0]))


def test_ids_stay_while_faces_move_and_the_detector_rests():
    scene = Scene()
    seen = follow(scene, [[Seen(100 + 4 * i), Seen(500 - 3 * i, size=80)] for i in range(41)], detect_every=10)
    assert scene.detections == 5 and all(set(ids) == {0, 1} for ids in seen)
    assert seen[40] == pytest.approx({0: 260, 1: 380})


THREE = [[Seen(100), Seen(300), Seen(500)]] * 12


@pytest.mark.parametrize(
    ("frames", "options", "ids", "runs"),
    [
        ([[Seen(100)]] * 3 + [[Seen(155)]] * 3, {"detect_every": 1000}, [{0}] * 6, 2),
        ([[Seen(300)]] * 5 + [[]] * 4 + [[Seen(300)]] * 10, {"detect_every": 1000}, [{0}] * 8, 4),
        ([[Seen(300)]] * 5 + [[]] * int(MEMORY * 30 + 10) + [[Seen(300)]] * 10, {"detect_every": 5}, [{1}], None),
        ([[Seen(300)]] + [[Seen(300, detected=False)]] * 30, {"detect_every": 5}, [{0}] * 31, None),
        ([[Seen(250), Seen(350)]] * 3 + [[Seen(300, size=160)]] * 10, {"detect_every": 4}, [{0}] * 10, None),
        (THREE, {"detect_every": 5, "max_faces": 2}, [{0, 1}] * 12, None),
        ([[Seen(560 + 10 * i)] if i < 14 else [] for i in range(30)], {"detect_every": 5}, [set()], None),
    ],
    ids=["leaves its crop", "behind something", "a long loss", "not detected", "two tracks", "at most 2", "walks out"],
)
def test_the_ids_of_the_last_frames(frames, options, ids, runs):
    scene = Scene()
    seen = follow(scene, frames, **options)
    assert seen[0] and [set(faces) for faces in seen[-len(ids) :]] == ids
    assert runs in (None, scene.detections)


def test_the_landmarker_s_number_of_faces_holds():
    scene = Scene()
    scene.max_faces = 2
    assert all(set(ids) == {0, 1} for ids in follow(scene, THREE, detect_every=5))


@pytest.mark.parametrize("every, runs", [(1, 30), (7, 5), (15, 2), (1000, 1)])
def test_detector_runs_every_k_frames(every, runs):
    scene = Scene()
    follow(scene, [[Seen(300)]] * 30, detect_every=every)
    assert scene.detections == runs


@pytest.mark.parametrize("other", [Seen(300, size=80), Seen(310, size=66)])
def test_what_is_found_on_the_head_of_a_known_face_is_that_face(other):
    """Another look at it, or a part of it."""
    seen = follow(Scene(), [[Seen(300)]] + [[Seen(300), other]] * 12, detect_every=1)
    assert all(set(ids) == {0} for ids in seen)


def test_background_is_dropped_and_a_short_loss_keeps_the_id():
    scene = Scene()
    gap = [[]] * 10
    seen = follow(scene, [[Seen(300)]] * 5 + gap + [[Seen(320)]] * 20, detect_every=5)
    assert not any(seen[5:15]) and seen[20] == pytest.approx({0: 320})
    assert scene.detections <= 9  # the fall of the score asks once, not in every frame without a face


def test_without_the_output_face_a_track_ends_with_its_landmark_scores():
    """Its score is that of the detector, which has found it once."""
    scene = Scene()
    scene.net = known_net(face=False)
    assert [*map(len, follow(scene, [[Seen(300)]] * 5 + [[]] * 10, detect_every=1000))] == [1] * 5 + [0] * 10
    scene.faces = [Seen(300)]
    assert Tracker(scene).update(IMAGE, 0.0)[0].score == 1


def test_new_faces_get_new_ids_and_ids_do_not_swap_when_faces_meet():
    frames = [[Seen(100 + 5 * i), *([Seen(540 - 5 * i)] if i >= 10 else [])] for i in range(40)]
    seen = follow(Scene(), frames, detect_every=3)
    assert set(seen[9]) == {0} and set(seen[12]) == {0, 1}
    assert seen[39] == pytest.approx({0: 295, 1: 345}, abs=1)


def test_an_image_is_what_the_landmarker_takes():
    portrait = cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))
    first = [
        Tracker(Landmarker("landmarks-fast", threads=1, rgb=rgb)).update(image, 0.0)[0].landmarks
        for image, rgb in (
            (portrait, False),
            (portrait[..., ::-1], True),
            (str(ROOT / "assets" / "astronaut.jpg"), False),
        )
    ]
    assert (first[0] == first[1]).all() and (first[0] == first[2]).all()
    assert Tracker(Landmarker("landmarks-fast", threads=1)).update(np.zeros((200, 200), np.uint8), 0.0) == []


@pytest.mark.parametrize("smooth", SMOOTH)
def test_in_frames_of_another_size_faces_are_found_anew(smooth):
    """A phone is turned: the last place would be a wrong one, and smoothing would draw the landmarks there."""
    scene = Scene()
    tracker = Tracker(scene, smooth=smooth)
    for i in range(4):
        scene.faces = [Seen(300 if i < 2 else 280)]
        (face,) = tracker.update(IMAGE if i < 2 else np.zeros((640, 480, 3), np.uint8), i / 30)
        np.testing.assert_allclose(face.landmarks, scene.faces[0].landmarks(), atol=1e-6)
    assert scene.detections == 2 and face.id == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"detect_every": 0}, "detect_every is 0"),
        ({"max_faces": 0}, "max_faces is 0"),
        ({"detect_every": "3"}, "detect_every is '3'"),
        ({"max_faces": 1.5}, "whole number"),
        ({"smooth": "much"}, "no smoothing 'much'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        Tracker(Scene(), **options)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_wrong_time_costs_one_frame(wrong):
    scene = Scene()
    scene.faces, tracker = [Seen(300)], Tracker(scene)
    (first,) = tracker.update(IMAGE, 0.0)
    refuses("(nan|inf)", tracker.update, IMAGE, wrong)
    (again,) = tracker.update(IMAGE, 0.1)
    assert again.id == first.id and np.isfinite(again.landmarks).all()


BOXES = st.lists(st.tuples(*[st.floats(0, 50)] * 2, *[st.floats(1, 50)] * 2), max_size=6)


@given(BOXES, BOXES)
def test_matching_uses_each_box_once_and_leaves_no_pair_that_both_want(one, other):
    one, other = (np.array([(x, y, x + w, y + h) for x, y, w, h in boxes]).reshape(-1, 4) for boxes in (one, other))
    pairs, shared = match(one, other, 0.3), iou(one, other)
    left, right = [i for i, _ in pairs], [j for _, j in pairs]
    assert len(set(left)) == len(left) and len(set(right)) == len(right) and all(shared[pair] >= 0.3 for pair in pairs)
    for i, j in zip(*np.nonzero(shared >= 0.3), strict=True):
        assert any(shared[pair] >= shared[i, j] for pair in pairs if pair[0] == i or pair[1] == j)


@pytest.mark.parametrize("smooth", ["one-euro", "flow", "none"])
def test_a_head_that_rolls_keeps_its_id(smooth):
    """A drawn head turns once round in the plane, found by the shipped nets; the detector runs every few frames."""
    image, truth = draw_face(np.random.default_rng(3), 200)
    tracker = Tracker(Landmarker(threads=1), detect_every=5, smooth=smooth)
    for frame in range(31):
        turn = turn_about(np.full(2, 100.0), np.radians(12 * frame))
        # the drawing's background may pass for a second face in a frame
        face = tracker.update(cv2.warpAffine(image, opencv_matrix(turn), (200, 200)), frame / 30)[0]
        apart = np.linalg.norm(face.landmarks - transform(truth, turn), axis=1).mean() / np.linalg.norm(
            truth[36] - truth[45]
        )
        assert face.id == 0 and face.score > 0.9 and apart < 0.15, frame


def test_the_enhanced_frame_gives_as_many_faces_as_are_tracked():
    scene, found = Scene(), [Seen(300), Seen(100, size=80), Seen(500, size=90)]
    faces = [Face(box_of(face.landmarks()), 0.9, face.landmarks(), np.full(68, 0.85)) for face in found]
    scene.enhanced_faces = lambda image: faces
    assert len(Tracker(scene).update(IMAGE, 0.0)) == 3
    (face,) = Tracker(scene, max_faces=1).update(IMAGE, 0.0)
    assert np.array_equal(face.landmarks, found[0].landmarks())


def test_no_frame_without_a_face_takes_much_longer():
    """The detector also looks at the enhanced frame if it finds nothing."""
    runs = []

    def blind(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        runs.append(picture.shape)
        return np.zeros((0, 4)), np.zeros(0)

    tracker = Tracker(Landmarker(detector=blind, threads=1), detect_every=10)
    for frame in range(12):
        before = len(runs)
        assert not tracker.update(IMAGE, frame / 30) and len(runs) - before in (0, 2)
    assert len(runs) == 8
