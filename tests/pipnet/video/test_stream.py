"""`Landmarker.stream` and `Landmarker.draw` as programs use them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, refuses

from pipnet import chain
from pipnet.chain import batches
from pipnet.draw import STYLES
from pipnet.landmarker import Landmarker
from pipnet.shipped import shipped
from pipnet.video.sources import open_source
from pipnet.video.track import Tracker


@pytest.fixture(scope="module")
def landmarker() -> Landmarker:
    return Landmarker(threads=1, device="cpu")


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch) -> np.ndarray:
    """A portrait, twice, and a video of it, in the current folder. Return the portrait."""
    monkeypatch.chdir(tmp_path)
    image = cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))[:300, 100:400]
    for name in ("in/a.png", "in/b.png"):
        Path(name).parent.mkdir(exist_ok=True)
        cv2.imwrite(name, image)
    writer = cv2.VideoWriter("talk.avi", cv2.VideoWriter.fourcc(*"MJPG"), 20, (300, 300))
    for _ in range(3):
        writer.write(image)
    writer.release()
    return image


def test_a_stream_tracks_in_videos_and_finds_anew_in_pictures(landmarker):
    found = list(landmarker.stream(["in/*.png", Path("talk.avi")], pose=True))
    assert [frame.name for frame, _ in found] == ["in/a.png", "in/b.png", *["talk.avi"] * 3]
    assert [frame.seconds for frame, _ in found] == pytest.approx([None, None, 0, 0.05, 0.1])
    assert [face.id for _, faces in found for face in faces] == [None, None, 0, 0, 0]
    assert all(np.isfinite(face.pose).all() for _, faces in found for face in faces)
    assert landmarker(["in/a.png"], pose=True)[0][0].pose == pytest.approx(found[0][1][0].pose, abs=1e-3)
    assert landmarker("in/a.png")[0].pose is None
    faces = [face for _, (face,) in landmarker.stream("talk.avi", drowsiness=True, smooth="none")]
    assert faces[-1].drowsiness["blinks"] == 0
    (again,) = list(landmarker.stream(open_source("talk.avi")))[0][1]
    np.testing.assert_array_equal(again.landmarks, faces[0].landmarks)
    assert landmarker.seconds["decode"] > 0 and landmarker.seconds["track"] > 0


def test_options_and_sources_are_checked_before_the_first_frame(landmarker):
    refuses("gone.avi", landmarker.stream, "gone.avi")
    refuses("drowsiness", landmarker.stream, "in", drowsiness=True)
    refuses("detect_every", landmarker.stream, "talk.avi", detect_every=0)
    assert Landmarker(threshold=1.0, threads=1, any_roll=False)("in/a.png") == []


def test_pixels_are_no_source_and_none_is_printed(landmarker):
    """str() of an array gives pages of numbers, which would be looked for as a file."""
    image = cv2.imread("in/a.png")
    for wrong in ([image, image], image, (one for one in [image])):
        said = refuses(r"uint8 \(\d+, \d+, 3\).*landmarker\(\[image, image\]\).*Tracker", landmarker.stream, wrong)
        assert "\n" not in said and "[[" not in said
    refuses(r"uint8 \(\d+, \d+, 3\)", Tracker(landmarker).update, image, image)  # time and image exchanged
    refuses(r"uint8 \(\d+, \d+, 3\)", Landmarker, image)
    (first, *_) = landmarker.stream(Path("in").glob("a.png"))
    assert first[0].name == "a.png"


def test_few_pictures_of_a_long_list_are_held_at_a_time(monkeypatch):
    """Those of a batch, which go through the nets together and give what each gives alone, in 32 bits."""
    landmarker = Landmarker(shipped("landmarks.onnx"), threads=1, device="cpu", finder=shipped("finder.onnx"))
    (alone,) = landmarker("in/a.png")
    monkeypatch.setattr(chain, "MOST_IMAGES", 3)
    for (face,) in landmarker(["in/a.png", "in/b.png"] * 2):
        np.testing.assert_allclose(face.landmarks, alone.landmarks, atol=0.01)
    images = iter([np.zeros((2, 2, 3))] * 7)
    assert len(next(batches(images, np.asarray))) == 3 and len(list(images)) == 4
    monkeypatch.setattr(chain, "MOST_PIXELS", 4)
    assert {len(batch) for batch in batches([np.zeros((2, 2, 3))] * 7, np.asarray)} == {1}


def test_drawn_faces_are_those_of_the_demo(landmarker, files):
    faces = landmarker(files)
    changed = {style: (landmarker.draw(files, faces, style) != files).any(2).sum() for style in STYLES}
    assert changed["edges"] > changed["points"] > 100 and changed["numbers"] > 1000 and changed["nothing"] == 0
    rgb = Landmarker(threads=1, rgb=True)
    frame, found = next(rgb.stream("in/a.png"))
    np.testing.assert_array_equal(frame.image, files[..., ::-1])
    np.testing.assert_array_equal(rgb.draw(frame.image, found), landmarker.draw(files, found)[..., ::-1])
    refuses("style 'dots'", landmarker.draw, files, faces, "dots")
