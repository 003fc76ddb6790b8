"""Faces in OpenCV images: the first and the second crop, chips, exported detectors, errors, the installed package."""

import copy
import json
import multiprocessing
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from conftest import (
    DEFAULTS,
    LAYOUTS,
    ROOT,
    SQUARE,
    detector_file,
    draw_face,
    known_file,
    mean_face,
    refuses,
    run,
    square_face,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import pipnet.openers
from pipnet import Detector, Face, Landmarker, UserError
from pipnet.align import FIVE, TEMPLATE, box_of_points, chip, five_points
from pipnet.detector import DETECTORS, EXPORTED_FACE_BOX, FaceBox, detection_scale
from pipnet.geometry import Protocol, box_of, crop_box, cut, invert, opencv_matrix, to_crop, transform, turn_about
from pipnet.images import as_bgr
from pipnet.landmark_net import LandmarkNet, open_net
from pipnet.landmarker import GATE, SURE
from pipnet.pose import head_pose
from pipnet.session import Session
from pipnet.video.drowsiness import Drowsiness
from pipnet.video.sources import Frame
from pipnet.video.track import Tracker
from utils.task.find import find_net
from utils.task.inference import open_landmark_net

ASTRONAUT = cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))


def blind(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A detector that finds nothing."""
    return np.zeros((0, 4)), np.zeros(0)


def geometric(mean: np.ndarray | None = None, protocol: str = "square", layout: str = "68", **options) -> Landmarker:
    """A landmarker for boxes and chips, whose net was trained on this mean face and is never called."""
    row = Protocol(**DEFAULTS.protocols[protocol])
    return Landmarker(LandmarkNet(None, LAYOUTS.load(layout), row, 64, mean), blind, **options)


def found_at(net: LandmarkNet, *boxes: np.ndarray, **options) -> Landmarker:
    """A landmarker whose detector finds these landmark boxes in every picture, with scores from 0.9 down."""
    scores = 0.9 - 0.1 * np.arange(len(boxes))
    landmarker = Landmarker(net, lambda image: (np.array(boxes), scores), **{"finder": "none", **options})
    landmarker.detector.face_box = FaceBox(0, 1, 1)
    return landmarker


def known_net(truth: np.ndarray, pull: float = 0.0) -> LandmarkNet:
    """A net that knows where the landmarks `truth` (68, 2) of `coded` are, but drifts by the share `pull` to the mean
    face.
    """

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        shades = images.reshape(len(images), -1, 3)[..., :2] * (3.0, 2.0) + (1.5, 1)  # x and y that each pixel shows
        sides = shades.std(1, keepdims=True) * 12**0.5
        found = (truth - shades.mean(1, keepdims=True)) / sides + 0.5
        found = (1 - pull) * found + pull * square_face()
        return {"landmarks": found.astype(np.float32), "score": np.full(found.shape[:2], 1.5, np.float32)}

    return LandmarkNet(predict, LAYOUTS.load("68"), SQUARE, 128, square_face())


def judging(net: LandmarkNet, score: Callable[[np.ndarray], np.ndarray] | float = 1.0) -> LandmarkNet:
    """A net with the output `face`: what `score` says of crops (B, S, S, 3), or a number."""

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        said = score(images) if callable(score) else np.full(len(images), score)
        return {**net.predict(images), "face": np.asarray(said, np.float32)}

    return replace(net, predict=predict, face=True)


def coded() -> np.ndarray:
    """(480, 640, 3): blue says x / 3, green y / 2."""
    y, x = np.mgrid[:480, :640]
    return np.dstack([x // 3, y // 2, np.zeros_like(x)]).astype(np.uint8)


def test_a_list_of_pictures_and_what_a_face_says():
    image = coded()
    landmarker = found_at(known_net(mean_face() * 100 + 200), [190, 190, 310, 310])
    none, faces = landmarker([image[:150], image])
    assert (
        faces and [repr(face) for face in landmarker(image)] == [repr(face) for face in faces] and landmarker([]) == []
    )
    face = faces[0]._replace(id=3, drowsiness={"ear_left": np.float32(0.25), "alarm": None}, states={"mouth_open": 0.5})
    assert re.fullmatch(r"Face\(id=3, box=\[[\d., ]+\], score=0.900, 68 landmarks, score 1.000\)", repr(face))
    values = json.loads(json.dumps(face.to_dict(), allow_nan=False))
    assert np.allclose(values["landmarks"], face.landmarks) and values["score"] == 0.9 and values["sigma"] is None
    assert values["ear_left"] == 0.25 and values["states"] == {"mouth_open": 0.5} and "states" not in faces[0].to_dict()
    assert face._replace(score=float("nan")).to_dict()["score"] is None


def test_a_face_equals_itself_only():
    """Tuples of arrays would compare the arrays, of which no single truth follows."""
    made = [Face(np.zeros(4), 0.5, np.zeros((68, 2)), np.ones(68)) for _ in range(3)]
    faces = made.copy()
    assert faces.index(made[1]) == 1 and made[2] in faces and faces.count(made[0]) == 1 and len(set(faces)) == 3
    faces.remove(made[1])
    assert faces == [made[0], made[2]] and made[0] != made[1] and copy.deepcopy(made[0]) != made[0]
    assert pickle.loads(pickle.dumps(made[0])).score == 0.5
    with pytest.raises(TypeError, match="not supported between instances of 'Face'"):
        max(made)
    frames = [Frame(ASTRONAUT, 0, None, name) for name in "ab"]
    assert frames.index(frames[1]) == 1


@pytest.mark.parametrize("name", ["landmarks", "landmarks-fast", "landmarks-open", "finder"])
@pytest.mark.parametrize("suffix", [".int8.onnx", ".onnx", ".pt"])
def test_a_batch_without_crops_has_no_landmarks(name, suffix):
    if suffix == ".pt":
        net = open_landmark_net(ROOT / "weights" / f"{name}.pt", DEFAULTS, 1)
    else:
        net = open_net(ROOT / "weights" / f"{name}{suffix}", 1)
    none, one = (net.seen_as().predict(np.zeros((count, *2 * [net.size], 3), np.uint8)) for count in (0, 1))
    assert {key: (values.shape[1:], values.dtype) for key, values in none.items()} == {
        key: (values.shape[1:], values.dtype) for key, values in one.items()
    }
    assert none["landmarks"].shape == (0, net.seen_as().layout.count, 2)


def test_an_exported_net_sees_the_crops_of_training(trained, tmp_path):
    landmarker = Landmarker(trained.folder / "best.onnx", detector=blind, threads=1)
    assert (
        landmarker.layout == LAYOUTS.load("68")
        and landmarker.net.size == 64
        and landmarker.net.meanface.shape == (68, 2)
    )
    image, landmarks = draw_face(np.random.default_rng(3), 96)
    crop = crop_box(box_of(landmarks), SQUARE, 96, 96)
    found = landmarker.net.predict(cut(image, crop, 64)[None])
    (face,) = landmarker.landmarks_of(image, box_of(landmarks)[None])
    assert np.allclose(face.landmarks, found["landmarks"][0] * (crop[2:] - crop[:2]) + crop[:2], atol=1e-3)
    assert (0 <= face.scores).all() and (face.scores <= 1).all() and np.isnan(face.score)
    assert np.allclose(face.sigma, found["sigma"][0] * (crop[2] - crop[0]))

    torch_net = find_net(str(trained.folder / "best.pt"))  # the same from the checkpoint, to half a pixel
    (other,) = Landmarker(torch_net, detector=blind).landmarks_of(image, box_of(landmarks)[None])
    assert np.abs(other.landmarks - face.landmarks).max() < 0.5 and np.allclose(other.scores, face.scores, atol=1e-3)
    net = find_net(str(trained.folder))  # a folder stands for its export, where that is not older
    assert np.allclose(net.predict(cut(image, crop, 64)[None])["landmarks"], found["landmarks"])


def test_forty_faces_at_once_are_the_forty_one_by_one(tmp_path):
    landmarker = Landmarker(known_file(tmp_path / "net.onnx", right=0.5), detector=blind, threads=1)
    image = np.concatenate(
        [np.concatenate([draw_face(np.random.default_rng([8, r, c]), 80)[0] for c in range(8)], 1) for r in range(5)]
    )
    boxes = np.array([[80 * c + 15, 80 * r + 15, 80 * c + 65, 80 * r + 65] for r in range(5) for c in range(8)], float)
    together = landmarker.landmarks_of(image, boxes, np.linspace(1, 0.5, 40))
    assert [face.score for face in together] == pytest.approx(np.linspace(1, 0.5, 40))
    for box, face in zip(boxes[::7], together[::7], strict=True):
        assert np.abs(landmarker.landmarks_of(image, box)[0].landmarks - face.landmarks).max() < 0.05
    assert landmarker.landmarks_of(image, np.zeros((0, 4))) == []
    assert landmarker.seconds["landmarks"] > 0 and landmarker.seconds["detect"] == 0


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

    still = replace(
        known_net(truth), predict=lambda images: looks_alike(len(images))
    )  # sees an upright face in any crop
    landmarker = found_at(still, box_of(truth), finder=judging(still, said))
    (face,) = landmarker(coded())
    assert seen == looks
    upright = face.landmarks[30, 1] > face.landmarks[27, 1]  # the tip of the nose is below its root
    assert upright == (len(looks) == 1)
    seen.clear()
    landmarker.any_roll = False
    assert landmarker(coded()) and seen == [1]


def looks_alike(count: int) -> dict[str, np.ndarray]:
    """Return what a net gives that sees the mean face in all crops."""
    return {"landmarks": np.tile(square_face(), (count, 1, 1)), "score": np.ones((count, 68), np.float32)}


@pytest.mark.parametrize(("score", "found"), [(GATE - 0.01, 0), (GATE + 0.01, 1)])
def test_what_the_finder_refuses_costs_no_landmark_net(score, found):
    truth, seen = mean_face() * 180 + (230, 130), []
    net = known_net(truth)
    counted = replace(net, predict=lambda images: seen.append(len(images)) or net.predict(images))
    landmarker = found_at(counted, box_of(truth), box_of(truth) - 90, finder=judging(known_net(truth), score))
    assert len(landmarker(coded())) == found and bool(seen) == bool(found)


def test_a_finder_needs_the_output_face():
    refuses("finder.*--face 1", Landmarker, known_net(mean_face()), blind, finder=known_net(mean_face()))


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


@settings(max_examples=50)
@given(st.floats(-180, 180), st.floats(0.2, 5), st.floats(-300, 300))
def test_the_box_of_five_points_goes_with_the_face(degrees, zoom, x):
    points = five_points(mean_face() * 100, LAYOUTS.load("68"))
    plain = box_of_points(points)
    turn = turn_about(np.array([50.0, 40]), np.radians(degrees), zoom)
    moved = box_of_points(transform(points, turn) + (x, 0))
    centres = [(box[:2] + box[2:4]) / 2 for box in (plain, moved)]
    assert np.allclose(transform(centres[0][None], turn)[0] + (x, 0), centres[1], atol=1e-6)
    assert np.allclose((plain[2:4] - plain[:2]) * zoom, moved[2:4] - moved[:2])
    assert abs((moved[4] - plain[4] - degrees + 180) % 360 - 180) < 1e-6
    off = np.abs(plain[:4] - box_of(mean_face() * 100)).max()
    assert off < 10  # of a face of 100 px


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


@settings(max_examples=50)
@given(
    st.floats(0.2, 5),
    st.floats(-3.1, 3.1),
    st.floats(-200, 200),
    st.floats(-200, 200),
    st.sampled_from(["square", "inner"]),
)
def test_the_next_box_gives_the_crop_of_the_training(scale, angle, x, y, protocol):
    part = square_face() * 0.6 + 0.1  # of a crop that was made of something else
    landmarker = geometric(part, protocol)
    turn = 100 * scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = transform(part, np.column_stack([turn, (x, y)]))
    box = landmarker.box_of(landmarks)
    crop = crop_box(box[:4], landmarker.net.protocol, 100, 100, np.radians(box[4]))
    assert np.allclose((crop[:2] + crop[2:]) / 2, turn @ (0.5, 0.5) + (x, y), atol=1e-6)
    assert np.allclose(crop[2:] - crop[:2], 100 * scale)
    assert abs((box[4] - np.degrees(angle) + 180) % 360 - 180) < 5.001  # the face is upright in it, but for LEVEL


def test_the_next_box_is_tight_where_the_trainings_were():
    landmarker = geometric(square_face())
    level = transform(square_face(), np.array([[70.0, -4, 60], [4, 70, 20]]))
    assert np.array_equal(landmarker.box_of(level), [*box_of(level), 0])
    x1, y1, x2, y2, roll = landmarker.box_of(
        transform(square_face(), turn_about(np.array([3.0, 4]), np.radians(95), 80.0))
    )
    assert np.isclose(roll, 90)
    leaning = transform(square_face(), turn_about(np.zeros(2), np.radians(5), 80.0))
    assert np.allclose((x2 - x1, y2 - y1), np.ptp(leaning, 0))


@pytest.mark.parametrize("protocol", ["square", "inner", "wflw"])
def test_the_second_crop_turns_with_the_face(protocol):
    """The net sees a turned face as one that leans by 5 degrees, and its landmarks return to their place in the
    picture.
    """
    image, truth = draw_face(np.random.default_rng(3), 200)
    mean, seen, middle = square_face(), [], truth.mean(0)

    def predict(images):
        seen.append(cv2.GaussianBlur(images[0], (0, 0), 1).astype(float))
        return {"landmarks": mean[None].astype(np.float32), "score": np.ones((1, 68), np.float32)}

    net = LandmarkNet(predict, LAYOUTS.load("68"), Protocol(**DEFAULTS.protocols[protocol]), 64, mean)
    landmarker, found = Landmarker(net, detector=blind), []
    start = mean * np.ptp(truth[:, 0]) / np.ptp(mean[:, 0])
    start += middle - start.mean(0)
    for angle in (5, 30, 90, 170):
        turn = turn_about(middle, np.radians(angle))
        picture = cv2.warpAffine(image, opencv_matrix(turn), (200, 200))
        (face,) = landmarker.landmarks_of(picture, landmarker.box_of(transform(start, turn)), [0.9])
        found.append(transform(face.landmarks, invert(turn)))
        assert face.score == 0.9 and np.abs(face.box.reshape(2, 2).mean(0) - middle).max() < 25
    assert np.allclose(found, found[:1], atol=0.5)
    assert max(np.abs(crop - seen[0]).mean() for crop in seen) < 6 < np.abs(seen[0] - seen[0][::-1]).mean()


def test_a_crop_that_is_not_square_follows_both_sides():
    landmarker = geometric(mean_face(), "wflw")
    crop = crop_box(landmarker.box_of(mean_face() * (60, 80) + (10, 5))[:4], landmarker.net.protocol, 200, 200)
    assert np.allclose(crop, (10, 5, 70, 85))
    assert np.allclose(geometric(None, "wflw").box_of(mean_face())[:4], box_of(mean_face()))


def test_the_detectors_box_becomes_that_of_the_landmarks():
    assert np.allclose(FaceBox(0.1, 0.5, 0.75)(np.array([[10, 20, 30, 60.0]])), [[15, 29, 25, 59]])
    whole = found_at(known_net(mean_face()), [100, 100, 200, 220])
    inner = Landmarker(replace(whole.net, protocol=Protocol(**DEFAULTS.protocols["inner"])), detector=whole.detector)
    image = np.zeros((300, 300, 3), np.uint8)
    crops = [crop_box(one.detect(image)[0][0], one.net.protocol, 300, 300) for one in (whole, inner)]
    assert np.allclose(*crops)  # a net for inner landmarks sees the face as large as a net for all


def test_a_detector_is_a_file(tmp_path, trained):
    boxes = np.array([[10, 10, 30, 30], [50, 50, 200, 200], [60, 20, 100, 60], [900, 900, 990, 990]])
    file = detector_file(tmp_path / "d.onnx", boxes, [0.99, 0.9, 0.7, 0.65])
    image = np.zeros((100, 100, 3), np.uint8)  # so small that there is no smaller picture with the large faces
    found, scores, points = Detector(weights=file, threads=1)(image)
    assert np.allclose(found, boxes) and scores == pytest.approx([0.99, 0.9, 0.7, 0.65]) and points is None

    def detect(**options):
        detector = Detector(weights=file, threads=1, **options)
        return Landmarker(trained.folder / "best.onnx", detector, threads=1).detect(image)

    assert detect()[1].tolist() == pytest.approx([0.99, 0.9, 0.7])  # without the box outside the image
    assert detect(threshold=0.8)[1].tolist() == pytest.approx([0.99, 0.9])
    assert np.allclose(
        detect(scale=2)[0][:3], detect()[0] / 2
    )  # this detector answers in px of the image that it is given


def test_values_in_a_detectors_file_replace_those_of_the_table(tmp_path):
    file = detector_file(tmp_path / "d.onnx", [[10, 10, 30, 30]], [0.99])
    row = DETECTORS["faceboxes"].card
    plain = Detector(weights=file)
    assert (plain.threshold, plain.overlap, plain.face_box) == (row.threshold, row.overlap, FaceBox(*EXPORTED_FACE_BOX))
    model = onnx.load(file)
    onnx.helper.set_model_props(model, {"threshold": "0.5", "overlap": "0.25", "face_box": "[0.1, 1, 0.9]"})
    onnx.save(model, file)
    stored = Detector(weights=file)
    assert (stored.threshold, stored.overlap, stored.face_box) == (0.5, 0.25, FaceBox(0.1, 1, 0.9))
    assert Detector(weights=file, threshold=0.7).threshold == 0.7


def test_a_checkpoint_of_a_detector_is_used_as_its_export():
    one, two = (Detector(weights=ROOT / "weights" / f"detector{suffix}", threads=1) for suffix in (".onnx", ".pt"))
    assert one.threshold == two.threshold and one.face_box == two.face_box
    assert np.allclose(one(ASTRONAUT).boxes, two(ASTRONAUT).boxes, atol=0.5)
    assert len(two.large(ASTRONAUT).boxes) == 1


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


def test_the_image_for_the_detector_has_bounds():
    assert detection_scale(480, 640, None) == 1 and detection_scale(1200, 1600, None) == 0.5
    assert detection_scale(480, 640, 2) == 2 and detection_scale(9000, 12000, 2) == pytest.approx(
        (2**23 / 1.08e8) ** 0.5
    )
    assert detection_scale(1, 1, 0.1) == 1


@settings(max_examples=50)
@given(st.floats(0.3, 4), st.floats(-3.1, 3.1), st.floats(-50, 50), st.floats(-50, 50), st.sampled_from([32, 112, 224]))
def test_chips_are_upright(scale, angle, x, y, size):
    landmarks = TEMPLATE @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * scale + (x, y)
    face = Face(box_of(landmarks), 1.0, landmarks, np.ones(5))
    low = np.floor(landmarks.min(0)).astype(int) - 8
    image = np.zeros((*(np.ceil(np.ptp(landmarks, 0)).astype(int) + 20)[::-1], 3), np.uint8)
    moved = face._replace(landmarks=landmarks - low)
    cv2.circle(
        image, np.round(moved.landmarks[2] - 0.5).astype(int).tolist(), max(2, round(2 * scale)), (255, 255, 255), -1
    )
    chip = geometric(layout="5").align(image, moved, size)
    assert chip.shape == (size, size, 3)
    tip = (
        np.array(np.unravel_index(cv2.GaussianBlur(chip[..., 0], (0, 0), size / 56).argmax(), (size, size)))[::-1] + 0.5
    )
    assert np.abs(tip - TEMPLATE[2] * size / 112).max() < max(1.5, 0.03 * size)


def test_a_chip_has_the_channels_of_its_image():
    image, landmarks = np.zeros((112, 112, 3), np.uint8) + np.uint8([10, 20, 200]), TEMPLATE
    face = Face(box_of(landmarks), 1.0, landmarks, np.ones(5))
    for rgb in (False, True):
        assert geometric(layout="5", rgb=rgb).align(image, face)[56, 56].tolist() == [10, 20, 200]


def test_a_part_of_a_layout_is_that_of_the_faces_that_the_whole_layout_finds():
    """The eyes alone would tell faces from background worse, and two crops of one face would not be joined."""
    crowd = np.hstack([ASTRONAUT, ASTRONAUT[:, ::-1]])
    whole, part = Landmarker(threads=1), Landmarker(threads=1, layout="12")
    assert part.layout.name == "12" and part.whole.layout.name == "68" and whole.whole is None
    refuses("layout 'faces68'.*68", Landmarker, layout="faces68")
    pairs = [*zip(whole(crowd), part(crowd), strict=True)]
    trackers = Tracker(whole), Tracker(part)
    for seconds in (0.0, 0.1):
        pairs += zip(*(tracker.update(crowd, seconds) for tracker in trackers), strict=True)
    assert len(pairs) == 6
    for one, two in pairs:
        assert np.array_equal(one.landmarks[36:48], two.landmarks) and np.array_equal(one.scores[36:48], two.scores)
        assert two.sigma.shape == (12,) and one.id == two.id


def test_the_five_points_of_each_layout():
    for name in FIVE:
        assert np.isfinite(
            five_points(np.random.default_rng(0).random((LAYOUTS.load(name).count, 2)), LAYOUTS.load(name))
        ).all()
    points = five_points(mean_face(), LAYOUTS.load("68"))
    assert points[0, 0] < points[2, 0] < points[1, 0] and points[3, 0] < points[4, 0]
    own = LAYOUTS.load("5")._replace(
        name="mine",
        stored="mine",
        count=6,
        selected=tuple(range(6)),
        same_as={"68": {0: 54, 1: 48, 2: 30, 3: 45, 4: 36, 5: 8}},
    )
    assert np.allclose(five_points(mean_face()[[54, 48, 30, 45, 36, 8]], own), mean_face()[[36, 45, 30, 48, 54]])
    for name in ("12", "39"):
        with pytest.raises(UserError, match=f"layout {name}"):
            five_points(np.zeros((LAYOUTS.load(name).count, 2)), LAYOUTS.load(name))


def test_a_panorama_is_no_obstacle():
    image = np.zeros((200, 33000, 3), np.uint8)
    image[:, -200:] = draw_face(np.random.default_rng(2), 200)[0]
    crop = np.array([32850.0, 40, 32950, 140])
    assert (cut(image, crop, 64) == cut(image[:, -200:], crop - (32800, 0, 32800, 0), 64)).all()


def test_wrong_files_and_images_are_one_line(tmp_path, trained):
    net = trained.folder / "best.onnx"
    foreign = detector_file(tmp_path / "d.onnx", [[0, 0, 1, 1]], [1])
    bare = onnx.load(net)
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    (tmp_path / "text.onnx").write_text("no")
    for file, message in (
        (tmp_path / "gone.onnx", "no file at .*gone.onnx"),
        (tmp_path / "text.onnx", "not an ONNX file"),
        (foreign, "is a face detector"),
        (tmp_path / "bare.onnx", "no usable metadata: layout is mis"),
    ):
        refuses(message, Landmarker, file, detector=blind)
    refuses("no detector of ours", Detector, weights=net)
    refuses("weights .no file", Detector, "mtcnn")
    refuses("gone.onnx", Detector, weights=tmp_path / "gone.onnx")
    refuses("max_faces.*not 0", Landmarker, net, detector=blind, max_faces=0)
    refuses(r"max_faces.*1\.5", Landmarker, net, detector=blind, max_faces=1.5)
    for threads in (-1, 1.0, 10**6):
        refuses("threads.*1024", Detector, threads=threads)
    refuses("'/d.onnx'", Landmarker, net, detector="/d.onnx")
    landmarker = Landmarker(net, detector=blind)
    for image in (np.zeros((9, 9, 2), np.uint8), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8), None):
        refuses("uint8", landmarker, image)
    assert landmarker(np.zeros((1, 1, 3), np.uint8)) == []
    refuses("null byte", landmarker, "a\0b")
    for size in (0, 112.0, None):
        refuses(
            f"chip.*{size}",
            landmarker.align,
            np.zeros((9, 9, 3), np.uint8),
            Face(np.zeros(4), 1.0, mean_face(), np.ones(68)),
            size,
        )


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[5, 5, 5, 5]], "leaves no crop"),
        ([[1000, 1000, 1100, 1100]], "lies outside the image of 90 x 90 px"),
        ([[-50, 10, 0, 60]], "outside"),
        ([[10, 10, 60, 60], [10, 95, 60, 145]], "outside"),
        ([[10, 10, 60, 60, np.nan]], "outside"),
        ([[-1e9, -1e9, 1e9, 1e9]], "leaves no crop"),
        ([[1e9, 1e9, 2e9, 2e9]], "leaves no crop"),
        ([[np.nan] * 4], "leaves no crop"),
        ([[1, 2, 3]], r"give boxes as numbers \(M, 4\).*\(1, 3\)"),
        *(
            (wrong, "give boxes as")
            for wrong in (np.zeros((2, 2, 4)), None, [[1, 2, 3, 4, 5, 6]], [[1, 2, 3, 4], [5]], "box")
        ),
    ],
)
def test_a_wrong_box_is_one_line(boxes, message):
    landmarker, image = Landmarker("landmarks-fast", blind, threads=1), np.zeros((90, 90, 3), np.uint8)
    with pytest.raises(UserError, match=message) as error:
        landmarker.landmarks_of(image, boxes)
    assert "\n" not in str(error.value)
    assert landmarker.landmarks_of(image, []) == [] and len(landmarker.landmarks_of(image, [-40, -40, 1, 1, 30])) == 1
    with pytest.raises(UserError, match="1 boxes.*2"):
        landmarker.landmarks_of(image, [[10, 10, 60, 60]], np.ones(2))


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


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(65000, 2), (2, 65000), (1, 60000), (300000, 3)])
def test_thin_pictures_take_little_time_and_memory(shape):
    """In a process with 3 GB, as the detector's boxes and given ones, upright and turned."""
    code = f"""if True:
        import resource, sys, numpy as np
        sys.path.insert(0, {str(ROOT)!r})
        from pipnet import Landmarker
        image = np.random.default_rng(0).integers(0, 256, (*{shape}, 3), dtype=np.uint8)
        whole = [0, 0, *image.shape[1::-1]]
        landmarker = Landmarker("landmarks-fast", lambda image: ([[0, 0, *image.shape[1::-1]]], [1.0]), threads=1)
        resource.setrlimit(resource.RLIMIT_AS, (3 * 2 ** 30,) * 2)
        landmarker(image), landmarker.landmarks_of(image, [whole + [0], whole + [40]])
        Landmarker("landmarks-fast", threads=1)(image)"""
    done = run("python", "-c", code, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_a_forked_child_opens_the_nets_anew(threads):
    code = f"""if True:
        import os, sys, cv2
        from pipnet import Landmarker
        landmarker, image = Landmarker(threads={threads}), cv2.imread("assets/astronaut.jpg")
        print(len(landmarker(image)))
        for used in (False, True):
            sys.stdout.flush()
            if not (child := os.fork()):
                if used:
                    print(len(landmarker(image)))
                sys.exit(0)
            print(os.waitpid(child, 0)[1])"""
    done = run("python", "-c", code, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["1", "0", "1", "0"]), done.stderr


def test_a_landmarker_is_pickled_as_its_arguments():
    given = {
        "landmarks": "landmarks-fast",
        "detector": Detector(threshold=0.7, threads=1),
        "max_faces": 2,
        "threads": 1,
    }
    copy = pickle.loads(pickle.dumps(Landmarker(**given, any_roll=False, rgb=True)))
    assert (copy.detector.threshold, copy.max_faces, copy.any_roll, copy.rgb) == (0.7, 2, False, True)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        ((face,),) = pool.map(Landmarker(**given), [ASTRONAUT])
    assert (face.landmarks == Landmarker(**given)(ASTRONAUT)[0].landmarks).all()


def test_a_pickled_landmarker_opens_its_files_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    for name in ("landmarks-fast.onnx", "finder.onnx", "detector.onnx"):
        (tmp_path / name).symlink_to(ROOT / "weights" / name)
    (tmp_path / "landmarks-fast").touch()  # hides no net that is given by name
    monkeypatch.chdir(tmp_path)
    first = Landmarker("landmarks-fast.onnx", Detector(weights=Path("detector.onnx"), threads=1), threads=1)
    named = Landmarker("landmarks-fast", first.detector, threads=1, finder="finder.onnx")
    monkeypatch.chdir("other")
    for landmarker in (first, named):
        assert pickle.loads(pickle.dumps(landmarker)).layout == landmarker.layout


def test_an_open_net_uses_no_net_that_has_seen_photographs(monkeypatch):
    opened = []
    monkeypatch.setattr(
        "pipnet.session.Session", lambda file, threads: opened.append(file.name) or Session(file, threads)
    )
    landmarker = Landmarker("landmarks-open", threads=1)
    assert landmarker.finder is None
    (face,) = landmarker(ASTRONAUT)
    (usual,) = Landmarker("landmarks", threads=1)(ASTRONAUT)
    assert np.linalg.norm(face.landmarks - usual.landmarks, axis=1).mean() < 0.1 * np.ptp(usual.landmarks[:, 0])
    assert opened[:2] == ["landmarks-open.int8.onnx", "detector-open.int8.onnx"]


@pytest.mark.parametrize(
    "landmarks", [np.zeros((5, 2)), np.zeros((2, 68)), np.zeros((68, 3)), np.zeros(136), None, "x"]
)
def test_landmarks_of_a_wrong_shape_are_one_line(landmarks):
    landmarker = Landmarker("landmarks-fast", threads=1)
    layout, image = landmarker.layout, np.zeros((9, 9, 3), np.uint8)
    face = Face(np.zeros(4), 1.0, landmarks, np.ones(68))
    for call in (
        lambda: Drowsiness(layout).update(0, landmarks, 0.0),
        lambda: head_pose(landmarks, layout, 9, 9),
        lambda: landmarker.align(image, face),
        lambda: landmarker.align(image, landmarks),
        lambda: landmarker.box_of(landmarks),
    ):
        refuses(r"landmarks of layout '68' are numbers \(68, 2\), not \(", call)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "not finite"), (7.0, "in one place")])
def test_landmarks_without_an_extent_give_no_pose_and_no_chip(value, message):
    layout, landmarks, image = LAYOUTS.load("68"), np.full((68, 2), value), np.zeros((9, 9, 3), np.uint8)
    for size in ((), (9, 9)):
        assert np.isnan(head_pose(landmarks, layout, *size)).all()
    refuses(message, chip, image, landmarks, layout, 112)
    refuses("size of a chip", chip, image, landmarks, layout, 10**6)
    for seconds in (None, np.nan, "1"):
        refuses("number of seconds", Drowsiness(layout).update, 0, landmarks, seconds)


def test_a_graph_that_fails_is_one_line(tmp_path):
    """It loads, and fails where it runs: the text of its constant is no number, its reshape does not fit, it gives NaN."""
    values = {"layout": LAYOUTS.load("5").to_dict(), "protocol": SQUARE._asdict(), "input_size": 64}
    points = "landmarks = Constant <value = float[1, 5, 2] {nan, 0, 0, 0, 0, 0, 0, 0, 0, 0}> ()"
    for body, message in (
        (
            "shape = Constant <value_ints = [7]> () flat = Cast<to = 1>(image) landmarks = Reshape(flat, shape)",
            "onnxruntime cannot run .*net.onnx",
        ),
        (points, "finite numbers .1, 5, 2. are needed"),
        ("landmarks = Constant <value = float[1, 2] {0, 0}> ()", r"gives landmarks \(1, 2\)"),
    ):
        model = onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["" : 18]> net (uint8[batch, 64, 64, 3] image) => (float[a, b, c] landmarks, '
            f"float[d, e] score) {{ {body} score = Constant <value = float[1, 5] {{1, 1, 1, 1, 1}}> () }}"
        )
        onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in values.items()})
        onnx.save(model, tmp_path / "net.onnx")
        with pytest.raises(UserError, match=message) as error:
            Landmarker(tmp_path / "net.onnx", lambda image: ([[10, 10, 60, 60]], [1.0]), finder="none")(
                np.zeros((90, 90, 3), np.uint8)
            )
        assert "\n" not in str(error.value)


def test_onnxruntime_sends_no_reports():
    done = run(
        "python",
        "-c",
        "import os, sys, pipnet; assert 'onnxruntime' not in sys.modules\nprint(os.environ['ORT_DISABLE_TELEMETRY'])",
    )
    assert done.stdout == "1\n", done.stderr


def test_images_of_every_kind(tmp_path):
    image = draw_face(np.random.default_rng(5), 160)[0]
    grey, file = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), tmp_path / "face.png"
    cv2.imwrite(str(file), image)
    net = known_file(tmp_path / "net.onnx", right=0.5)

    def found(image, **options) -> np.ndarray:
        seen = []
        landmarker = Landmarker(
            net,
            lambda image: (seen.append(image), ([[30, 20, 130, 140]], [1]))[1],
            threads=1,
            any_roll=False,
            **options,
        )
        (face,) = landmarker(image)
        boxes, scores = landmarker.detect(image)
        assert (landmarker.landmarks_of(image, boxes, scores)[0].box == boxes[0, :4]).all()
        assert landmarker.align(image, face).shape == (112, 112, 3) and seen[0].shape == (160, 160, 3)
        return face.landmarks

    usual, shades = found(image), found(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    rgb, opaque = image[..., ::-1], np.dstack([image, np.full((160, 160), 255, np.uint8)])
    same = [
        found(file),
        found(str(file)),
        found(Image.open(file)),
        found(opaque),
        found(rgb, rgb=True),
        found(file, rgb=True),
        found(Image.fromarray(opaque[..., [2, 1, 0, 3]]), rgb=True),
    ]
    assert all((landmarks == usual).all() for landmarks in same) and not (found(rgb) == usual).all()
    assert all((found(one) == shades).all() for one in (grey, grey[..., None], Image.fromarray(grey)))
    detections = Detector(weights=detector_file(tmp_path / "d.onnx", [[1, 2, 3, 4]], [1]))
    assert all((detections(one).boxes == [[1, 2, 3, 4]]).all() for one in (grey, file, Image.open(file)))


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", ".png"),
        ("RGB", ".jpg"),
        ("L", ".jpg"),
        ("L", ".png"),
        ("1", ".png"),
        ("RGBA", ".png"),
        ("LA", ".png"),
        ("P", ".png"),
        ("PA", ".png"),
        ("I;16", ".png"),
        ("I;16", ".tif"),
        ("RGBA", ".webp"),
        ("EXIF", ".jpg"),
    ],
)
def test_a_picture_of_pillow_is_read_as_its_file(mode, suffix, tmp_path):
    """Half of each row of the transparent ones is so; PA: a palette with a transparent colour."""
    image, file, options = Image.fromarray(draw_face(np.random.default_rng(5), 160)[0]), tmp_path / f"face{suffix}", {}
    if mode.startswith("I"):
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(np.tile(np.uint8(np.arange(160) * 1.5), (160, 1))))
        image, options = image.convert(mode), {"lossless": True} if suffix == ".webp" else {}
    elif mode == "PA":
        image, options = image.quantize(16), {"transparency": 3}
    elif mode == "EXIF":
        options = {"exif": Image.Exif()}
        options["exif"][0x0112] = 6
        image = image.crop((0, 0, 160, 100))
    else:
        image = image.convert(mode)
    image.save(file, **options)
    with Image.open(file) as opened:
        assert np.array_equal(as_bgr(opened), as_bgr(file)) and as_bgr(file).std() > 10
        if mode == "I;16":
            assert np.array_equal(as_bgr(opened.convert("I")), as_bgr(file))
        if mode == "EXIF":
            assert as_bgr(opened).shape == (160, 100, 3) and as_bgr(opened.rotate(0)).shape == (100, 160, 3)
    if suffix == ".png" and mode == "RGBA":
        array = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        for one, rgb in ((array, False), (array[..., [2, 1, 0, 3]], True)):
            assert np.array_equal(as_bgr(one, rgb), as_bgr(file))


def test_a_damaged_picture_of_pillow_is_one_line(tmp_path):
    Image.fromarray(draw_face(np.random.default_rng(5), 160)[0]).save(tmp_path / "face.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "face.png").read_bytes()[:3000])
    with Image.open(tmp_path / "cut.png") as opened, pytest.raises(UserError, match="Pillow"):
        as_bgr(opened)


def test_other_detectors_are_taken_as_they_are(reference):
    detector = Detector("faceboxes", reference / "FaceBoxesV2.pth", 0.7)
    landmarker = Landmarker(known_net(mean_face()), detector=detector)
    assert landmarker(np.zeros((64, 64, 3), np.uint8)) == []
    refuses("its weights", Detector, "yunet", "gone.onnx")


def imports_torch(*_):
    raise ModuleNotFoundError(name="torch")


def test_files_for_torch_need_the_checkout(monkeypatch, tmp_path):
    (tmp_path / "net.pt").touch()
    for kinds in ({}, {"landmark net": imports_torch, "detector": imports_torch}):  # installed; without torch
        monkeypatch.setattr(pipnet.openers, "_openers", kinds)
        for name in ("018", "landmark"):
            refuses(f"no file {name}", Landmarker, name)
        refuses("net.pt.*demo.py", Landmarker, tmp_path / "net.pt")
        for name in ("faceboxes", "mtcnn"):
            refuses("net.pt", Detector, name, tmp_path / "net.pt")


def test_a_detector_is_no_landmark_net():
    """With and without torch."""
    for name in ("detector", ROOT / "weights" / "detector.onnx", ROOT / "weights" / "detector.pt"):
        refuses(
            r"detector(\.int8)?\.(onnx|pt)",
            Landmarker,
            name,
        )


def test_inference_loads_no_torch():
    done = run(
        "python",
        "-c",
        "import pipnet, pipnet.app.demo, sys; from pipnet.detector import DETECTORS\n"
        "pipnet.Landmarker(threads=1); assert {'rfb320', 'yunet', 'scrfd'} <= set(DETECTORS)\n"
        "assert not {'torch', 'scipy', 'PIL', 'yaml', 'utils', 'extras', 'nets'} & set(sys.modules)",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_package_is_installed_with_its_weights(tmp_path):
    source, target = tmp_path / "source", tmp_path / "site"
    shutil.copytree(ROOT / "pipnet", source / "pipnet", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "weights" / "000").mkdir(parents=True)
    (source / "weights" / "000" / "best.onnx").write_text("a run is no part of it")
    (source / "weights" / "manifest.json").write_text("{}")
    for name in ("landmarks", "landmarks-fast", "finder"):
        known_file(source / "weights" / f"{name}.onnx")
    detector_file(source / "weights" / "detector.onnx", [[20, 20, 80, 80]], [0.9])
    words = "-m pip install --quiet --no-deps --no-build-isolation --no-index --target"
    subprocess.run([sys.executable, *words.split(), target, source], check=True, cwd=tmp_path)
    assert sorted(path.name for path in (target / "pipnet" / "weights").iterdir()) == [
        "detector.onnx",
        "finder.onnx",
        "landmarks-fast.onnx",
        "landmarks.onnx",
        "manifest.json",
    ]
    assert (target / "bin" / "pipnet").is_file() and not (target / "utils").exists()
    assert (target / "pipnet" / "py.typed").is_file()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import numpy as np; from pipnet import Landmarker\n"
        "faces = Landmarker(threads=1, finder='none')(np.zeros((96, 96, 3), np.uint8))\n"
        "assert faces[0].landmarks.shape == (68, 2)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert open_net(target / "pipnet" / "weights" / "landmarks.onnx").size == 64
