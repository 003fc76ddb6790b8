"""The steps of a landmarker: find, aim, read, again, distinct."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import (
    DEFAULTS,
    LAYOUTS,
    ROOT,
    SQUARE,
    mean_face,
    refuses,
    square_face,
)
from known_nets import blind, coded, found_at, judging, known_net, looks_alike

from pipnet import Landmarker
from pipnet.align import five_points
from pipnet.chain import GATE, SURE
from pipnet.detections import FaceBox
from pipnet.geometry import Protocol, box_of, crop_box, to_crop, transform, turn_about
from pipnet.video.track import Tracker

ASTRONAUT = cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))


def test_with_a_second_crop_the_detectors_box_matters_little():
    image, truth = coded(), mean_face() * 180 + (230, 130)
    rng, side = np.random.default_rng(0), np.ptp(truth, 0)
    once, twice = [], []
    for _ in range(40):
        box = (
            box_of(truth)
            + np.tile(side * rng.uniform(-0.2, 0.2, 2), 2)
            + np.repeat([-0.5, 0.5], 2) * np.tile(side, 2) * (rng.uniform(-0.2, 0.2))
        )
        landmarker = found_at(known_net(truth, pull=0.2), box)
        for errors, second in ((once, False), (twice, True)):
            errors.append(
                np.linalg.norm(landmarker(image, second_crop=second)[0].landmarks - truth, axis=1).mean() / side[0]
            )
    assert np.mean(twice) < np.mean(once) / 3 and np.max(twice) < 0.02


@pytest.mark.parametrize(
    ("shift", "grown", "roll", "crops"),
    [(0, 1, 0, 1), (0.045, 1, 0, 1), (0.1, 1, 0, 2), (0, 1.08, 0, 1), (0, 0.8, 0, 2), (0, 1, 12, 1), (0, 1, 20, 2)],
)
def test_only_a_crop_that_lies_elsewhere_than_the_landmarks_is_made_again(shift, grown, roll, crops):
    """Shift and growth of the detector's box as shares of its side; a face may lean by 15 degrees in its first crop."""
    truth = transform(square_face(), turn_about(np.full(2, 0.5), np.radians(roll), 180.0)) + (200, 150)
    low, high = np.split(box_of(truth), 2)
    centre, half = (low + high) / 2 + shift * (high - low).max() * SQUARE.scale_x, grown * (high - low) / 2
    net, seen = known_net(truth), []

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(len(images))
        if len(seen) == 1:
            return net.predict(images)
        upright = transform(truth, turn_about(truth.mean(0), -net.roll_of(truth)))  # as the later crops show it
        points = to_crop(upright, crop_box(landmarker.box_of(truth)[:4], SQUARE, 640, 480))
        return {"landmarks": points[None], "score": np.ones((1, 68), np.float32)}

    landmarker = found_at(replace(net, predict=predict), np.concatenate([centre - half, centre + half]))
    assert len(landmarker(coded())) == 1 and seen == [1] * crops


def test_the_finder_makes_the_first_crop():
    """The net sees a face once, where the finder has found it, however far the detector's box is off."""
    image, truth = coded(), mean_face() * 180 + (230, 130)
    net, seen = known_net(truth), []
    counted = replace(net, predict=lambda images: seen.append(len(images)) or net.predict(images))
    for box in (box_of(truth) + 40, box_of(truth) + (-60, -60, 60, 60)):
        landmarker = found_at(counted, box, finder=judging(known_net(truth, pull=0.05)))
        seen.clear()
        (face,) = landmarker(image)
        assert seen == [1] and np.abs(face.landmarks - truth).max() < 1
        assert np.abs(face.box - box_of(truth)).max() < 10
        (once,) = landmarker(image, second_crop=False)
        assert np.abs(once.box - box).max() < 1e-6
    assert len(found_at(counted, box_of(truth) + 40, box_of(truth) - 40)(image)) == 1  # two boxes on one face


@pytest.mark.parametrize(("score", "looks"), [(SURE - 0.01, [1, 3, 1]), (SURE + 0.01, [1])])
def test_a_finder_that_is_not_sure_looks_again(score, looks):
    """At the face turned by 90, 180 and 270 degrees, then at what it has found in the look with the highest score."""
    truth, seen = mean_face() * 180 + (230, 130), []

    def said(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return np.array([score] if len(seen) == 1 else [0.2, 0.98, 0.3] if len(images) == 3 else [0.97])

    # sees an upright face in any crop
    still = replace(known_net(truth), predict=lambda images: looks_alike(len(images)))
    landmarker = found_at(still, box_of(truth), finder=judging(still, said))
    (face,) = landmarker(coded())
    assert seen == looks
    upright = face.landmarks[30, 1] > face.landmarks[27, 1]  # the tip of the nose is below its root
    assert upright == (len(looks) == 1)
    seen.clear()
    landmarker.any_roll = False
    assert landmarker(coded()) and seen == [1]


@pytest.mark.parametrize(("score", "found"), [(GATE - 0.01, 0), (GATE + 0.01, 1)])
def test_what_the_finder_refuses_costs_no_landmark_net(score, found):
    truth, seen = mean_face() * 180 + (230, 130), []
    net = known_net(truth)
    counted = replace(net, predict=lambda images: seen.append(len(images)) or net.predict(images))
    landmarker = found_at(counted, box_of(truth), box_of(truth) - 90, finder=judging(known_net(truth), score))
    assert len(landmarker(coded())) == found and bool(seen) == bool(found)


def test_the_points_of_a_detector_turn_the_first_crop():
    """No finder is asked, and the net sees the face once: upright but for the roll that is not corrected."""
    truth = transform(mean_face() * 150, turn_about(np.full(2, 75.0), np.radians(100))) + (230, 130)
    image, net, seen = coded(), known_net(truth), []

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(len(images))
        return {
            "landmarks": np.tile(square_face(), (len(images), 1, 1)),
            "score": np.ones((len(images), 68), np.float32),
        }

    found = box_of(truth)[None], np.ones(1), five_points(truth, LAYOUTS.load("68"))[None]
    finder = replace(net, predict=None, face=True)
    landmarker = Landmarker(replace(net, predict=predict), lambda image: found, finder=finder)
    (face,) = landmarker(image)
    errors = np.linalg.norm(face.landmarks - truth, axis=1)
    assert seen == [1] and errors.mean() < 0.1 * 150
    boxes, _ = landmarker.detect(image)
    assert abs(boxes[0, 4] - 100) < 3


@pytest.mark.parametrize(("threshold", "found"), [(None, [0.9, 0.5]), (0.51, [0.9]), (0.0, [0.9, 0.5, 0.49]), (1, [])])
def test_the_score_of_a_face_is_the_net_s_and_its_threshold_holds_with_any_detector(threshold, found):
    """Three faces, of which the detector says 0.9, 0.8, 0.7. In a video it is the same."""
    truth = mean_face() * 100
    places, scores = [(20, 20), (240, 20), (460, 20)], np.array([0.5, 0.9, 0.49])

    def said(images: np.ndarray) -> np.ndarray:
        x = images[..., 0].reshape(len(images), -1).mean(1) * 3  # the middle of each crop
        return scores[np.abs(x[:, None] - [70, 290, 510]).argmin(1)]

    net = replace(known_net(truth), predict=lambda images: looks_alike(len(images)))
    boxes = [box_of(truth + place) for place in places]
    landmarker = found_at(judging(net, said), *boxes, threshold=threshold, any_roll=False)
    assert [face.score for face in landmarker(coded())] == pytest.approx(found)
    faces = Tracker(landmarker).update(coded(), 0.0)
    assert sorted(face.score for face in faces) == pytest.approx(sorted(found))
    refuses("threshold.*1.5", Landmarker, net, blind, threshold=1.5)


def test_without_the_output_face_the_detector_s_score_and_the_landmark_scores_decide():
    image, truth = coded(), mean_face() * 180 + (230, 130)
    landmarker = found_at(known_net(truth), box_of(truth))  # landmark scores of 1, clipped
    assert [face.score for face in landmarker(image)] == [0.9] and landmarker.threshold == 0
    assert not found_at(known_net(truth), box_of(truth), threshold=0.95)(image)
    landmarker.net = replace(landmarker.net, face_limit=1.1)
    assert not landmarker(image) and len(landmarker.landmarks_of(image, box_of(truth)[None])) == 1
    assert not Tracker(landmarker).update(image, 0.0)


def test_the_detectors_box_becomes_that_of_the_landmarks():
    assert np.allclose(FaceBox(0.1, 0.5, 0.75)(np.array([[10, 20, 30, 60.0]])), [[15, 29, 25, 59]])
    whole = found_at(known_net(mean_face()), [100, 100, 200, 220])
    inner = Landmarker(replace(whole.net, protocol=Protocol(**DEFAULTS.protocols["inner"])), detector=whole.detector)
    image = np.zeros((300, 300, 3), np.uint8)
    crops = [crop_box(one.detect(image)[0][0], one.net.protocol, 300, 300) for one in (whole, inner)]
    assert np.allclose(*crops)  # a net for inner landmarks sees the face as large as a net for all


def test_the_largest_boxes_may_show_no_faces():
    """At the right and the bottom of the picture there is none; of three copies of the face, the smallest one is at the
    left.
    """
    face, image = ASTRONAUT[40:240, 120:320], np.full((800, 1200, 3), 90, np.uint8)
    boxes, scores = [[800, 10, 1190, 400], [300, 410, 680, 790]], [0.99, 0.7]
    for place, side in enumerate((100, 200, 160)):
        image[10 : 10 + side, 250 * place : 250 * place + side] = cv2.resize(
            face, (side, side), interpolation=cv2.INTER_AREA
        )
        boxes.append((np.array([0.3, 0.2, 0.78, 0.72]) * side + (250 * place, 10) * 2).tolist())
        scores.append(0.9 - 0.1 * place)

    def find(image):
        return np.array(boxes), np.array(scores)

    find.face_box = FaceBox(0, 1, 1)
    for most, left in ((1, [250]), (2, [250, 500]), (3, [0, 250, 500]), (9, [0, 250, 500]), (None, [0, 250, 500])):
        found = Landmarker("landmarks-fast", find, most, threads=1, any_roll=False)(image)
        assert sorted(250 * int(one.box[0] // 250) for one in found) == left, most
        tracker = Tracker(Landmarker("landmarks-fast", find, most, threads=1, any_roll=False), max_faces=most)
        assert sorted(250 * int(one.landmarks[:, 0].min() // 250) for one in tracker.update(image, 0)) == left, most


def test_a_part_of_a_layout_is_that_of_the_faces_that_the_whole_layout_finds():
    """The eyes alone would tell faces from background worse, and two crops of one face would not be joined."""
    crowd = np.hstack([ASTRONAUT, ASTRONAUT[:, ::-1]])
    whole, part = Landmarker(threads=1), Landmarker(threads=1, layout="12")
    assert part.layout.name == "12" and part.net.layout.name == "68" == whole.layout.name
    refuses("layout '68', not 'faces68'; choose one of 68, 12", Landmarker, layout="faces68")
    pairs = [*zip(whole(crowd), part(crowd), strict=True)]
    trackers = Tracker(whole), Tracker(part)
    for seconds in (0.0, 0.1):
        pairs += zip(*(tracker.update(crowd, seconds) for tracker in trackers), strict=True)
    assert len(pairs) == 6
    for one, two in pairs:
        assert np.array_equal(one.landmarks[36:48], two.landmarks) and np.array_equal(one.scores[36:48], two.scores)
        assert two.sigma.shape == (12,) and one.id == two.id and (two.group("eye_left") == one.group("eye_left")).all()
    refuses("layout '12' has 4 of the points", part, crowd, pose=True)


@pytest.mark.parametrize(
    ("boxes", "scores"), [([[-1e9, -1e9, 1e9, 1e9], [1e9, 1e9, 2e9, 2e9]], [1, 1]), ([[np.nan] * 4], [1])]
)
def test_impossible_boxes_of_a_detector_are_no_faces(boxes, scores):
    landmarker = Landmarker("landmarks-fast", lambda image: (boxes, scores), threads=1)
    image = np.zeros((90, 90, 3), np.uint8)
    assert landmarker(image) == [] and Tracker(landmarker).update(image, 0.0) == []
    landmarker.detector = lambda image: ([[1, 2, 3]], [1])
    refuses("the detector gives boxes", landmarker, image)
    landmarker.detector = lambda image: None
    refuses("the detector must return boxes", landmarker, image)
