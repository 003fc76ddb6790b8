"""Photographs with face boxes in the WIDER layout."""

import hypothesis
import numpy as np
import pytest
from conftest import write_wider
from hypothesis import strategies as st

from extras.detector.wider import divide, read_wider
from pipnet.errors import UserError

FACE = st.tuples(*[st.integers(-5, 500)] * 2, *[st.integers(0, 300)] * 2, *[st.integers(0, 1)] * 6).map(list)


@hypothesis.settings(max_examples=25)
@hypothesis.given(st.lists(st.lists(FACE, max_size=4), min_size=1, max_size=5))
def test_boxes_are_read_as_written(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("boxes")
    write_wider(folder, "train", {f"{index % 2}--e/{index}.jpg": faces for index, faces in enumerate(pictures)}, (4, 4))
    found = read_wider(folder, "train", ("1--e",))
    assert [picture.event for picture in found] == [f"{index % 2}--e" for index in range(len(pictures))]
    for picture, faces in zip(found, pictures, strict=True):
        values = np.array(faces).reshape(-1, 10)
        assert np.array_equal(picture.boxes, np.column_stack([values[:, :2], values[:, :2] + values[:, 2:4]]))
        assert np.array_equal(picture.ignored, (values[:, 7] == 1) | (values[:, 2:4] == 0).any(1))
        assert np.array_equal(picture.covered, values[:, 8] == 1) and picture.whole == (picture.event != "1--e")


def test_a_photograph_without_faces_may_have_a_line_of_zeros(tmp_path):
    write_wider(tmp_path, "val", {"a/1.jpg": [], "a/2.jpg": [[1, 2, 30, 40] + [0] * 6]})
    file = tmp_path / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    for text in (file.read_text(), file.read_text().replace("0 0 0 0 0 0 0 0 0 0 \n", "")):
        file.write_text(text)
        assert [len(picture.boxes) for picture in read_wider(tmp_path, "val")] == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/1.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n", "line 1: 2 faces are announced, but the list ends after 1"),
        ("a/1.jpg\n1\n1 2 x 4 0 0 0 0 0 0\n", "line 3: not a coordinate"),
        ("a/1.jpg\n1\n1 2 3\n", "line 3: a face is x y w h"),
        ("a/1.jpg\n1\n1 2 -3 4\n", "line 3: a face is x y w h"),
        ("a/gone.jpg\n0\n", "line 1: no image .*a/gone.jpg; complete the download"),
        ("../a.jpg\n0\n", "line 1: .*leads out of"),
        ("1 2 3 4\n1\n", "line 1: EVENT/NAME.jpg belongs here"),
        ("a/1.jpg\n", "line 1: EVENT/NAME.jpg belongs here"),
        ("", "lists no photograph"),
    ],
)
def test_a_wrong_list_is_one_line(tmp_path, text, message):
    write_wider(tmp_path, "train", {"a/1.jpg": []})
    (tmp_path / "wider_face_split" / "wider_face_train_bbx_gt.txt").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        read_wider(tmp_path, "train")
    assert "\n" not in str(raised.value)


def test_validation_is_a_share_of_each_event(wider):
    pictures = read_wider(wider, "train")
    train, val = divide(pictures, 0.2, 0)
    assert len(val) == 4 and {picture.event for picture in val} == {"0--event", "1--event"}
    assert {picture.file for picture in train} | {picture.file for picture in val} == {
        picture.file for picture in pictures
    }
    assert not divide(pictures, 0.0, 0)[1] and divide(pictures, 0.2, 1)[1] != val
