"""Graphs that are changed before they become 8-bit ones."""

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from extras.runtimes.fusion import fold_pools, read_blocks
from extras.runtimes.quantize import FLOATS, fold_normalisation
from pipnet.shipped import shipped
from tests.conftest import ROOT
from utils.export.files import folded


def session(model) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def changed(name: str) -> tuple:
    """Return sessions of a shipped net whose first convolution normalises the image, before and after the other
    changes.
    """
    model = folded(onnx.load(shipped(name)))
    level, before = fold_normalisation(model), session(model)
    kinds = [node.op_type for node in model.graph.node]
    fold_pools(model.graph)
    read_blocks(model.graph, FLOATS, level)
    return before, session(model), kinds, [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("height, width", [(160, 224), (161, 222), (99, 101), (5, 6)])
def test_a_detector_finds_the_same_boxes(height, width):
    before, after, kinds, others = changed("detector.onnx")
    assert "AveragePool" in kinds and "AveragePool" not in others and "Pad" in others
    image = cv2.resize(cv2.imread(str(ROOT / "assets" / "astronaut.jpg")), (width, height))
    exact = height % 4 == width % 4 == 0  # else the right and the lower edge differ, and scores near the threshold
    feed = {
        "image": image,
        "threshold": np.array(0.1 if exact else 0.5, np.float32),
        "overlap": np.array(0.3, np.float32),
    }
    (boxes, scores), (moved, other) = before.run(None, feed), after.run(None, feed)
    assert len(boxes) == len(moved) and (len(boxes) or height < 10)
    sure = slice(None) if exact else scores > 0.5
    np.testing.assert_allclose(moved[sure], boxes[sure], atol=0.01 if exact else 2)
    np.testing.assert_allclose(other[sure], scores[sure], atol=1e-4 if exact else 0.05)
    np.testing.assert_allclose(other, scores, atol=1e-4 if exact else 0.1)


@pytest.mark.parametrize("name, side", [("landmarks", 192), ("landmarks-fast", 128)])
def test_a_landmark_net_gives_the_same_landmarks(name, side):
    before, after, _, others = changed(f"{name}.onnx")
    assert "Pad" in others and "AveragePool" not in others
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    for one, other in zip(before.run(None, {"image": images}), after.run(None, {"image": images}), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-3)


def test_a_net_whose_second_convolution_has_stride_1_stays():
    model = folded(onnx.load(shipped("landmarks.onnx")))
    level = fold_normalisation(model)
    second = [node for node in model.graph.node if node.op_type == "Conv"][1]
    (strides,) = (value for value in second.attribute if value.name == "strides")
    strides.ints[:] = 1, 1
    before = model.SerializeToString()
    read_blocks(model.graph, FLOATS, level)
    assert model.SerializeToString() == before
