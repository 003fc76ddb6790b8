"""A landmark net: its crops, the box of the next crop, and its files."""

import json

import cv2
import numpy as np
import onnx
import pytest
from conftest import (
    DEFAULTS,
    LAYOUTS,
    ROOT,
    SQUARE,
    draw_face,
    known_file,
    mean_face,
    square_face,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from known_nets import blind, geometric

from pipnet import Landmarker, UserError
from pipnet.geometry import Protocol, box_of, crop_box, cut, invert, opencv_matrix, transform, turn_about
from pipnet.landmark_net import LandmarkNet, open_net
from utils.task.find import find_net
from utils.task.inference import open_landmark_net

ASTRONAUT = cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))


@pytest.mark.parametrize("name", ["landmarks", "landmarks-fast", "landmarks-open", "finder"])
@pytest.mark.parametrize("suffix", [".int8.onnx", ".onnx", ".pt"])
def test_a_batch_without_crops_has_no_landmarks(name, suffix):
    if suffix == ".pt":
        net = open_landmark_net(ROOT / "weights" / f"{name}.pt", DEFAULTS, 1)
    else:
        net = open_net(ROOT / "weights" / f"{name}{suffix}", 1)
    none, one = (net.predict(np.zeros((count, *2 * [net.size], 3), np.uint8)) for count in (0, 1))
    assert {key: (values.shape[1:], values.dtype) for key, values in none.items()} == {
        key: (values.shape[1:], values.dtype) for key, values in one.items()
    }
    assert none["landmarks"].shape == (0, net.layout.count, 2)


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
