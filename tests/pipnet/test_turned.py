"""When a picture is searched turned."""
import cv2
import numpy as np
import pytest
from conftest import ROOT

from pipnet.detector import Detector
from pipnet.landmarker import Landmarker


class Counting(Detector):
    """The shipped detector, which counts the pictures that it gets."""

    calls = 0

    def __call__(self, image):
        self.calls += 1
        return super().__call__(image)


@pytest.mark.parametrize("net", ["landmarks", "landmarks-fast"])
def test_a_picture_with_a_sure_face_is_not_searched_turned(net):
    detector, image = Counting(threads=1), cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))
    landmarker = Landmarker(net, detector, threads=1)
    landmarker(image)
    assert detector.calls == 1
    landmarker(np.zeros_like(image))
    assert detector.calls > 2
