"""Exported detectors, their cards, and checkpoints."""

import cv2
import numpy as np
import onnx
import pytest
from conftest import (
    ROOT,
    detector_file,
)

from pipnet import Detector, Landmarker
from pipnet.detections import FaceBox
from pipnet.detector import DETECTORS, EXPORTED_FACE_BOX

ASTRONAUT = cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))


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
    # this detector answers in px of the image that it is given
    assert np.allclose(detect(scale=2)[0][:3], detect()[0] / 2)


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
