"""Users' own sets whose labels belong to pictures that were turned."""

import numpy as np
import pytest
from archives import picture, prepared
from conftest import LAYOUTS, load_split, refuses
from own_sets import FIVE, write_coco, write_pairs, write_rows
from PIL import Image

FACES = [FIVE + np.random.default_rng(i).normal(0, 1, (5, 2)) for i in range(4)]
WRONG = "the face lies as in the picture before its EXIF tag turns it, as {} of {} faces with such a tag do"


def tagged(root, tag: int, numbers=range(4)):
    exif = Image.Exif()
    exif[0x0112] = tag
    for file in (root / f"{number}.jpg" for number in numbers):
        Image.open(file).save(file, exif=exif)
    return root


def turned(tag: int, face=FIVE, size=(160, 120)):
    """A face of an upright picture of this size, in continuous px of the picture before the tag turns it."""
    (x, y), (width, height) = face.T, size
    return np.column_stack({3: (width - x, height - y), 6: (y, width - x), 8: (height - y, x)}[tag])


@pytest.mark.parametrize("tag", [3, 6, 8])
@pytest.mark.parametrize("write", [write_rows, write_pairs, write_coco])
def test_labels_of_the_picture_before_its_tag_turns_it(tmp_path, write, tag):
    upright = (160, 120) if tag == 3 else (120, 160)
    stated = {"size": upright} if write is write_coco else {}
    root = tagged(write(tmp_path / "right", FACES, **stated), tag)
    folder = prepared(None, root, tmp_path / "data")
    assert len(load_split(folder, "train")) == 4, "labels of the upright picture"
    root = tagged(write(tmp_path / "wrong", [turned(tag, face, upright) for face in FACES]), tag)
    refuses("width and height" if stated and tag > 4 else WRONG.format(4, 4), prepared, None, root, tmp_path / "data")


def test_of_some_pictures_with_a_tag(tmp_path):
    faces = [turned(3, face) if i < 2 else face for i, face in enumerate(FACES)]
    root = tagged(write_rows(tmp_path / "two", faces), 3, (0, 1))
    refuses(r"line 2: " + WRONG.format(2, 2) + ".*and 1 more", prepared, "csv", root, tmp_path / "data")
    layouts = LAYOUTS.with_rows({"own": {"count": 5, "flip_index": [1, 0, 2, 4, 3]}})
    assert prepared("csv", root, tmp_path / "data", layout="own", layouts=layouts), "without eyes nothing tells"
    root = tagged(write_rows(tmp_path / "one", [turned(3), *FACES[1:]]), 3, (0,))
    assert prepared("csv", root, tmp_path / "data"), "one face may lie on its head"
    many = [turned(3, face) if i < 4 else face + i for i, face in enumerate(FACES + 2 * FACES)]
    assert prepared("csv", tagged(write_rows(tmp_path / "few", many), 3, range(12)), tmp_path / "data")


def test_an_exchange_by_one_pixel_is_no_scale(tmp_path):
    root = write_coco(tmp_path / "set", FACES, size=(120, 121))
    for number in range(4):
        picture(root / f"{number}.jpg", 120, 121)
    assert prepared("coco", root, tmp_path / "data")
    refuses("width and height", prepared, "coco", tagged(root, 6), tmp_path / "data")
