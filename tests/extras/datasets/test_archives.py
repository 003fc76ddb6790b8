"""Small archives in the form of the releases: their faces come back, and faults are named by file and line."""

from collections.abc import Callable
from pathlib import Path

import archives
import numpy as np
import pytest
from archives import parse, picture, prepared
from conftest import refuses

from extras.datasets import DATASETS, infer
from extras.datasets.archive import Archive
from extras.datasets.row import require_complete
from utils.data.prepared_set import read_meta

MAKERS = {
    "wflw": archives.wflw,
    "lapa": archives.lapa,
    "jd106": archives.jd,
    "lmk": archives.lmk,
    "celeba": archives.celeba,
    "celeba-wild": archives.celeba,
    "mtfl": archives.mtfl,
    "300w-private": archives.private,
    "menpo": archives.menpo,
    "menpo-profile": archives.menpo,
    "300vw": archives.vw,
    "peppa": archives.peppa,
}
BOXES = {"Test_data/picture/t": (10.5, 20.5, 110.5, 100.5)}  # annotated, of JD-landmark


@pytest.mark.parametrize(
    ("name", "subsets", "identities"),
    [
        ("lapa", {"train": ["train"] * 2, "val": ["val"] * 2, "test": ["test"] * 2}, 5),
        ("jd106", {"train": ["train//AFW", "train//AFW", "train//HELEN"], "test": ["test"]}, 3),
        ("mtfl", {"train": ["train"] * 2, "test": ["test//frontal", "test//profile-right"]}, 4),
        ("300w-private", {"test": ["indoor", "indoor", "outdoor"]}, 3),
        ("menpo", {"train": ["train"] * 2, "test": ["test"]}, 3),
        ("menpo-profile", {"train": ["train"], "test": ["test"]}, 2),
    ],
)
def test_the_faces_of_an_archive(tmp_path, name, subsets, identities):
    root, points = MAKERS[name](tmp_path)
    row = DATASETS[name]
    assert not row.signs or infer(root) == name
    splits = parse(name, root, allow_partial=True)
    assert {split: [face.subset for face in faces] for split, faces in splits.items()} == subsets
    faces = sum(splits.values(), [])
    for face in faces:
        stem = face.image.relative_to(root).with_suffix("").as_posix()
        expected = points[stem] + 0.5 - row.origin
        assert np.allclose(face.landmarks, expected, atol=1e-4)
        assert np.allclose(face.box, BOXES.get(stem, [*expected.min(0), *expected.max(0)]), atol=1e-4)
    assert len({face.identity for face in faces}) == identities
    meta = read_meta(prepared(name, root, tmp_path / "data"))
    assert meta["layout"] == row.layout and meta["expected"] == row.expected
    text = refuses(row.title, parse, name, root)
    assert all(f" of {count} faces" in text for count in row.expected.values())


def test_300w_is_taken_where_another_set_lies_in_its_folder(tmp_path):
    for make in (archives.private, archives.lmk):
        root = make(tmp_path)[0]
        (root / "afw").mkdir()
        assert infer(root) == "300w"


def test_jd106_in_the_folders_of_later_releases(tmp_path):
    for split in ("train", "val", "test"):
        archives.write_106(tmp_path / f"JD/{split}/landmark/a.txt")
        picture(tmp_path / f"JD/{split}/picture_mask/a.jpg")
        (tmp_path / f"JD/{split}/bbox").mkdir()
        (tmp_path / f"JD/{split}/bbox/a.txt").write_text("10 20 110 100")
    splits = parse("jd106", tmp_path / "JD", allow_partial=True)
    boxes = {split: [face.box.tolist() for face in faces] for split, faces in splits.items()}
    assert boxes == dict.fromkeys(("train", "val", "test"), [[10.5, 20.5, 110.5, 100.5]])


# ---------------------------------------------------------------------------------------------------------------- faults
def word(line: int, place: int, new: str) -> Callable[[str], str]:
    """Return a function that replaces a word of a text; an empty one is left out."""

    def change(text: str) -> str:
        lines = text.splitlines()
        words = lines[line].split()
        words[place] = new
        lines[line] = " ".join(filter(None, words))
        return "\n".join(lines)

    return change


def whole(text: str) -> Callable[[str], str]:
    return lambda _: text


WFLW = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_train.txt"
WFLW_BLUR = "WFLW_annotations/list_98pt_test/list_98pt_test_blur.txt"
LAPA, JD, RECT = "test/landmarks/24_0.txt", "Test_data/landmark/t.txt", "Test_data/rect/t.jpg.rect"
CELEBA, PARTS = "Anno/list_landmarks_align_celeba.txt", "Eval/list_eval_partition.txt"
FAULTS = [
    ("wflw", WFLW, word(0, 0, ""), "line 1: 206 values"),
    ("wflw", WFLW, word(0, 200, "2"), "line 1: an attribute"),
    ("wflw", WFLW, word(0, 196, "a"), "line 1: not a coordinate"),
    ("wflw", WFLW, word(0, 0, "inf"), "line 1: not a coordinate"),
    ("wflw", WFLW, word(0, 198, "30"), "line 1: its face box is empty"),
    ("wflw", WFLW, word(0, -1, "../../secret.jpg"), "line 1: '../../secret.jpg' leads out of"),
    ("wflw", WFLW_BLUR, word(0, 0, "7"), "line 1: no face of"),
    ("lapa", LAPA, word(0, 0, "105"), "line 1: '105' where 106"),
    ("lapa", LAPA, lambda text: text[:200], "points where 106"),
    ("lapa", LAPA, word(1, 1, ""), "line 2: 1 values"),
    ("jd106", RECT, whole("1 2 3"), "3 values"),
    ("lmk", "train.txt", word(0, 1, ""), "line 1: 136 words where the path of a crop and 136"),
    ("lmk", "train.txt", word(0, 1, "nan"), "line 1: not a coord"),
    ("lmk", "train.txt", whole("afw_1_1.jpg" + 136 * " 0.5"), "line 1: its points span no area"),
    ("celeba", CELEBA, lambda text: text[:80], "line 1: the number of images"),
    ("celeba", CELEBA, word(0, 0, "4"), "line 1: the number"),
    ("celeba", CELEBA, word(3, 0, "000002.jpg 7"), "line 4: 12 words where a name and 10 values"),
    ("celeba", PARTS, word(1, 1, "7"), "its part in"),
    ("mtfl", "training.txt", lambda text: text[:60], "line 1: . words"),
    ("mtfl", "training.txt", word(0, -1, "6"), "line 1: pose 6"),
    ("mtfl", "training.txt", word(0, 0, "C:\\a.jpg"), "leads out of"),
    ("300vw", "001/annot/000002.pts", whole("version: 1\nn_points: 1\n{\n1 2\n}\n"), "1 points where 68"),
    ("menpo", "menpo_test_release/d.pts", whole("version: 1\nn_points: 1\n{\n1 2\n}\n"), "1 points where 68 or 39"),
]


@pytest.mark.parametrize(("name", "file", "change", "fault"), FAULTS)
def test_faults_are_named(tmp_path, name, file, change, fault):
    root = MAKERS[name](tmp_path)[0]
    (root / file).write_text(change((root / file).read_text()))
    place = "" if file == PARTS else f"{Path(file).name}.*"
    refuses(f"{place}{fault}", parse, name, root, allow_partial=True)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("wflw", "WFLW_images/0--Event/a_0.jpg"),
        ("lapa", "val/images/22_0.jpg"),
        ("lmk", "images/test/ibug_image_09 _01.jpg"),
        ("jd106", "Training_data/HELEN/picture/HELEN_2_1_0.jpg"),
        ("mtfl", "net_7876/0_0.jpg"),
        ("menpo", "menpo_test_release/d.jpg"),
        ("celeba", PARTS),
        ("300vw", "001/vid.avi"),
        ("peppa", "300VW"),
    ],
)
def test_what_is_missing_is_named(tmp_path, name, file):
    root = MAKERS[name](tmp_path)[0]
    (root / file).rename(tmp_path / "moved")
    refuses(rf"(.|\n)*{Path(file).stem}", parse, name, root)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("wflw", "WFLW_images/0--Event/a_0.jpg"),
        ("wflw", "WFLW_images"),
        ("lapa", LAPA),
        ("lmk", "images/train/afw_1_1.jpg"),
        ("jd106", JD),
        ("jd106", "Test_data/picture/t.jpg"),
        ("300w-private", "01_Indoor/indoor_001.png"),
        ("menpo", "menpo_test_release/d.pts"),
        ("300vw", "001/vid.avi"),
    ],
)
def test_a_link_out_of_the_archive_is_refused(tmp_path, name, file):
    root = MAKERS[name](tmp_path)[0]
    (root / file).rename(tmp_path / "moved")
    (root / file).symlink_to(tmp_path / "moved")
    refuses("link", parse, name, root, allow_partial=True)


def test_more_faces_than_the_release_are_not_too_few(tmp_path):
    for stem in ("1_1", "1_1_mirror"):
        archives.annotated(tmp_path / "300W" / "afw" / f"{stem}.jpg", 68)
    refuses("300W", parse, "300w", tmp_path / "300W")
    more = ["afw: 674 of 337 faces, 337 more than the release has"]
    refuses(r"300W(.|\n)*674 of 337", require_complete, tmp_path, "300W", more, allow_partial=False)


# -------------------------------------------------------------------------------------------------------------- columns
def test_what_a_parser_knows_becomes_a_column(tmp_path):
    archive = Archive(tmp_path, 1.0, 5, ("train", "val"))
    points = archives.landmarks(5)
    archive.add("train", tmp_path / "a.jpg", "all", "a", points)
    archive.add("test", tmp_path / "a.jpg", "all", "a", points, glasses=1.0, visible=np.zeros(5, bool))
    archive.add("train", tmp_path / "b.jpg", "all", "b", points, glasses=None, pose=np.ones(3))
    tables = archive.tables()
    files = {split: table["file"] for split, table in tables.items()}
    assert files == {"train": ["a.jpg", "b.jpg"], "val": [], "test": ["a.jpg#2"]}
    assert all(table.keys() == tables["train"].keys() for table in tables.values())
    assert tables["val"]["landmarks"].shape == (0, 5, 2) and np.allclose(tables["train"]["landmarks"], points - 0.5)
    assert np.isnan(tables["train"]["glasses"]).all() and tables["test"]["glasses"] == 1
    assert tables["train"]["visible"].all() and not tables["test"]["visible"].any()  # flags stay flags
    assert np.isnan(tables["train"]["pose"]).tolist() == [[True] * 3, [False] * 3]
