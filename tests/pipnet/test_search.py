"""When a picture is searched again, turned and enhanced."""
import cv2
import numpy as np
import pytest
from conftest import ROOT

from pipnet.detector import Detector
from pipnet.images import enhanced
from pipnet.landmarker import Landmarker


class Counting(Detector):
    """The shipped detector, which counts the pictures that it gets."""

    calls = 0

    def __call__(self, image):
        self.calls += 1
        return super().__call__(image)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))


@pytest.mark.parametrize("net", ["landmarks", "landmarks-fast"])
def test_a_picture_with_a_sure_face_is_not_searched_again(net, portrait):
    detector, image = Counting(threads=1), portrait
    landmarker = Landmarker(net, detector, threads=1)
    landmarker(image)
    assert detector.calls == 1
    landmarker(np.zeros_like(image))
    assert detector.calls > 2


@pytest.mark.parametrize("net", ["landmarks", "landmarks-fast"])
@pytest.mark.parametrize("turn", [None, cv2.ROTATE_180])
def test_a_face_in_a_dark_and_grainy_picture_is_found(net, turn, portrait):
    truth = Landmarker(net, threads=1)(portrait)[0].landmarks
    grain = np.random.default_rng(0).normal(0, 10, portrait.shape)
    image = np.clip(portrait / 4 + grain, 0, 255).astype(np.uint8)
    if turn is not None:
        image, truth = cv2.rotate(image, turn), portrait.shape[1::-1] - truth
    face, = Landmarker(net, threads=1)(image)
    assert np.linalg.norm(face.landmarks - truth, axis=1).mean() < 0.06 * np.linalg.norm(truth[36] - truth[45])
    assert not Landmarker(net, threads=1, any_roll=False)(image)


def test_an_enhanced_picture_has_no_grain_and_the_usual_brightness(portrait):
    assert np.abs(enhanced(np.full((40, 30, 3), 150, np.uint8)).astype(int) - 150).max() == 0
    assert enhanced(np.zeros((1, 1, 3), np.uint8)).tolist() == [[[0, 0, 0]]]
    dark = np.clip(portrait / 4, 0, 255).astype(np.uint8)
    assert dark.mean() < 50 < 80 < enhanced(dark).mean() < 110
    grey = np.clip(np.random.default_rng(0).normal(128, 10, (100, 100, 3)), 0, 255).astype(np.uint8)
    assert enhanced(grey).std() < 3
