"""Users' own sets whose labels are not what they seem, and sets that only look like such."""

import json

import archives
import numpy as np
import pytest
from archives import header, parse, picture, prepared
from conftest import LAYOUTS, load_split, refuses
from own_sets import (
    FIVE,
    NAMES,
    TABLES,
    points_of,
    write_coco,
    write_cvat,
    write_pairs,
    write_rows,
    write_set,
    write_studio,
)
from PIL import Image

from extras.datasets import DATASETS, infer, own
from extras.datasets.naming import identities, photograph
from extras.datasets.own_layout import check_names
from pipnet.images import read_image
from utils.data.prepared_set import read_meta
from utils.settings.layouts import Layouts

EXCHANGED = "width and height are exchanged.*EXIF"


def landmarks_of(folder):
    """The landmarks (M, N, 2) of the training faces of a prepared set."""
    return load_split(folder, "train")["landmarks"]


# ------------------------------------------------------------------------------------------------ the size of a picture
@pytest.mark.parametrize("kind", ["coco", "cvat", "label-studio"])
def test_the_stated_size_is_compared_with_the_picture(tmp_path, said, kind):
    origin, root = {"coco": 0.5}.get(kind, 0), tmp_path / "set"

    def write(size, share=1.0) -> None:
        """Labels as they are in a picture of that size; those of Label Studio are % of it."""
        share = 1.0 if kind == "label-studio" else share
        write_set(kind, root, [share * (FIVE + origin) - origin] * 2, size)

    for size, share in (((160, 120), 1), ((320, 240), 2)):
        write(size, share)
        assert np.allclose(parse(kind, root)["train"][1].landmarks - origin, FIVE, atol=0.01), "scaled to the picture"
    assert np.allclose(landmarks_of(prepared(kind, root, tmp_path / "data")) - origin, FIVE, atol=0.01)
    assert any("labels of 2 pictures are scaled to the size of the picture" in line for line in said)
    for size, fault in (((120, 160), EXCHANGED), ((240, 320), EXCHANGED), ((320, 120), "different factors")):
        write(size)
        refuses(fault, parse, kind, root)
    write((213, 160))  # 160 x 120 rounded from 213 x 160
    parse(kind, root)


@pytest.mark.parametrize("write", [write_rows, write_pairs])
def test_labels_of_larger_pictures_are_refused(tmp_path, write):
    faces = [FIVE + i for i in range(3)]
    root = write(tmp_path / "set", [2 * face for face in faces])
    refuses("160 x 120.*3 of 3", prepared, None, root, tmp_path / "data")
    cut = [face + (0, 45) for face in faces[:2]]  # the picture ends above the mouths
    assert prepared(None, write(tmp_path / "cut", [*faces[:2], *cut]), tmp_path / "data")


def test_a_size_that_says_nothing_is_no_size(tmp_path):
    for size in ((0, 0), (None, None), ("", "x"), (-1, 120), (float("nan"), 3), (160.0, "120")):
        assert np.allclose(parse("coco", write_coco(tmp_path / "set", [FIVE], size))["train"][0].landmarks, FIVE + 0.5)


@pytest.mark.parametrize(
    ("suffix", "kind", "turned"),
    [(".jpg", "exif", True), (".tif", "exif", True), (".png", "exif", True), (".jpg", "xmp", False)],
)
def test_the_size_of_a_picture_is_that_of_its_pixels(suffix, kind, turned, tmp_path):
    tag, file = Image.Exif(), tmp_path / f"a{suffix}"
    tag[0x0112] = 6
    xmp = (
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
        b"<rdf:Description xmlns:tiff='http://ns.adobe.com/tiff/1.0/' tiff:Orientation='6'/></rdf:RDF></x:xmpmeta>"
    )
    Image.new("RGB", (60, 40)).save(file, **{kind: tag if kind == "exif" else xmp})
    size = (40, 60) if turned else (60, 40)
    assert own.upright_size(file) == size == read_image(file).shape[1::-1]
    assert own.header(file) == ((60, 40), 6 if turned else 1)


# ------------------------------------------------------------------------------------------------------- names of points
@pytest.mark.parametrize(
    ("names", "layout", "fault"),
    [
        (["left_eye", "right_eye", "nose", "mouth_left", "mouth_right"], "5", ""),  # by the picture or by the subject
        (["Right Eye", "Left Eye", "nose-tip", "R_mouth", "L_mouth"], "5", ""),
        (["EyeL", "EyeR", "Nose", "LipL", "LipR"], "5", ""),
        (["leye", "reye", "nose", "lmouth", "rmouth"], "5", ""),
        (["Eyes-1", "EYES 2", "nose", "lips.1", "lips_2"], "5", ""),
        (["-", "_", ".", "?", "é"], "5", ""),
        (LAYOUTS.load("98").point_names(), "98", ""),
        (["left_eye", "mouth_left", "mouth_right", "nose", "right_eye"], "5", r"mirror images.*\[4, 2, 1, 3, 0\]"),
        (["leye", "lmouth", "nose", "reye", "rmouth"], "5", "'leye' and 'reye' are mirror images"),
        (["lmouth", "rmouth", "nose", "leye", "rmouth2"], "5", "point 0 is 'lmouth', where layout 5 has 'eyes_1'"),
        (["nose", "eye_a", "eye_b", "mouth_a", "mouth_b"], "5", "point 0 is 'nose', where layout 5 has 'eyes_1'"),
        ([f"Left_Eye_{i}" if i < 6 else f"x{i}" for i in range(68)], "68", "point 0 is 'Left_Eye_0'"),
    ],
)
def test_the_names_of_points_fit_the_layout(tmp_path, names, layout, fault):
    given = names, LAYOUTS.load(layout), tmp_path, archives.landmarks(len(names))[None]
    if fault:
        refuses(fault, check_names, *given)
    else:
        check_names(*given)


NINE = {
    "left_eye": (60, 40),
    "right_eye": (100, 42),
    "nose": (80, 60),
    "mouthLeft": (65, 80),
    "mouthRight": (95, 81),
    "lip_upper": (80, 78),
    "lip_lower": (80, 86),
    "chin": (80, 100),
    "brow_1": (55, 30),
    "brow_2": (105, 31),
}


@pytest.mark.parametrize("names", (list(NINE), list(reversed(NINE))))
def test_the_row_of_a_missing_layout_is_printed_whole(tmp_path, names):
    """It can be pasted: the set is prepared by it."""
    faces = [np.array([NINE[name] for name in names], float) + (i, 2 * i) for i in range(4)]
    root = write_coco(tmp_path / "set", faces, names=names)
    text = refuses("mirror image of brow_[12], brow_[12]", prepared, "coco", root, tmp_path / "data")
    (tmp_path / "row.yaml").write_text(text[text.index("mine:") :])
    name, layouts = LAYOUTS.with_file(str(tmp_path / "row.yaml"))
    layout = layouts.load(name)
    pairs = {"left_eye": "right_eye", "mouthLeft": "mouthRight"}
    other = pairs | {two: one for one, two in pairs.items()}
    assert [names[i] for i in layout.flip_index] == [other.get(name, name) for name in names] and "\n" not in text
    assert layout.point_names() == names and [names[i] for i in layout.interocular] == ["left_eye", "right_eye"]
    prepared("coco", root, tmp_path / "data", layout=name, layouts=layouts)


def test_a_layout_without_one_of_the_named_parts_is_another(tmp_path):
    """Even if it has as many points."""
    faces = [FIVE + i for i in range(3)]
    names = ["left_eye", "right_eye", "chin", "cheek_left", "cheek_right"]
    found = prepared("coco", write_coco(tmp_path / "dots", faces, names=names), tmp_path / "data")
    assert read_meta(found)["layout"] == "dots"
    one_sided = write_coco(tmp_path / "one", faces, names=["left_eye", "right_eye", "nose", "chin", "left_cheek"])
    refuses("with chin among them.*mirror image of left_cheek", prepared, "coco", one_sided, tmp_path / "data")


def test_no_row_is_guessed_from_the_places_of_points(tmp_path):
    root = write_pairs(tmp_path / "set", [np.array(list(NINE.values())[:9], float)])
    assert "mine" not in refuses("9 landmarks.*flip_index", prepared, "points", root, tmp_path / "data")


@pytest.mark.parametrize("kind", ["coco", "csv", "label-studio"])
def test_a_layout_is_made_from_the_names_of_points(tmp_path, said, kind):
    names = ["left_eye", "mouth_left", "mouth_right", "nose", "right_eye"]
    face, data = FIVE[[0, 3, 4, 2, 1]], tmp_path / "data"
    root = write_set(kind, tmp_path / "set", [face], names=names)
    if kind == "csv":
        columns = ",".join(f"{name}_{axis}" for name in names for axis in "xy")
        (root / "labels.csv").write_text((root / "labels.csv").read_text().replace(header(5)[5:], columns))
    meta = read_meta(prepared(kind, root, data))
    assert (meta["layout"], meta["row"]["flip_index"], meta["points"]) == ("set", [4, 2, 1, 3, 0], names)
    assert meta["row"]["interocular"] == [0, 4] and "left_eye - right_eye" in "".join(said)
    file = next(data.glob("set-*.yaml"))
    file.write_text(file.read_text().replace("[0, 4]", "[1, 2]"))
    folder = prepared(kind, root, data)
    assert read_meta(folder)["row"]["interocular"] == [1, 2], "the edited file is read"
    assert np.allclose(landmarks_of(folder)[0] - (0 if kind == "label-studio" else 0.5), face, atol=0.01)


@pytest.mark.parametrize("name", ["ear_left", "tip_2"])
def test_no_layout_is_made_where_a_name_has_a_side_or_a_number(tmp_path, name):
    root = write_coco(tmp_path / "set", [FIVE], names=["left_eye", "right_eye", "nose", name, "lips"])
    layouts = Layouts({"68": LAYOUTS.rows["68"]})
    refuses(f"5 landmarks.*{name}", prepared, "coco", root, tmp_path / "data", layouts=layouts)


def test_a_set_has_the_layout_with_the_name_of_its_folder(tmp_path):
    rows = {name: {"count": 5, "flip_index": [1, 0, 2, 4, 3]} for name in ("one", "set")}
    (tmp_path / "rows.yaml").write_text(json.dumps(rows))
    layouts = LAYOUTS.with_rows_of(str(tmp_path / "rows.yaml"))[1]
    meta = read_meta(prepared("points", write_pairs(tmp_path / "set", [FIVE]), tmp_path / "data", layouts=layouts))
    assert meta["layout"] == "set" and meta["row"] == rows["set"]


def test_of_two_layouts_the_one_with_the_names_is_taken(tmp_path):
    row = {"count": 5, "flip_index": [0, 2, 1, 4, 3], "groups": {"nose": [0], "eyes": [1, 2], "lips": [3, 4]}}
    face = FIVE[[2, 0, 1, 3, 4]]
    root = write_coco(tmp_path / "same", [face], names=["nose", "eyes_1", "eyes_2", "lips_1", "lips_2"])
    for layout, points in ((None, FIVE), ("mine", face)):
        folder = prepared("coco", root, tmp_path / "data", layouts=LAYOUTS.with_rows({"mine": row}), layout=layout)
        assert np.allclose(landmarks_of(folder), points + 0.5) and read_meta(folder)["layout"] == (layout or "5")
    layouts = Layouts({"5": LAYOUTS.rows["5"], "mine": row | {"groups": {"tip": [0], "eyes": [1, 2], "lips": [3, 4]}}})
    root = write_coco(tmp_path / "set", [face], names=["Tip", "eyes_1", "eyes_2", "lips_1", "lips_2"])
    assert read_meta(prepared("coco", root, tmp_path / "data", layouts=layouts))["layout"] == "mine"
    layouts = LAYOUTS.with_rows({"mine": {"count": 5, "flip_index": [0, 2, 1, 4, 3]}})
    given = "points", write_pairs(tmp_path / "bare", [FIVE]), tmp_path / "data"  # without names none is guessed
    refuses("layouts 5 and mine.*--layout", prepared, *given, layouts=layouts)
    assert read_meta(prepared(*given, layouts=layouts, layout="mine"))["layout"] == "mine"


# ----------------------------------------------------------------------------------------------------- files and faces
def test_pictures_outside_of_the_splits_are_named(tmp_path, said):
    for folder in ("train", "dev"):
        write_pairs(tmp_path / "set" / folder, [FIVE] * 3)
    archive = DATASETS["points"].load(tmp_path / "set")
    assert len(archive) == 3 and "3 images outside of train are left out, such as dev/" in "".join(said)
    assert not any("pictures without a face" in line for line in archive.notes)
    (tmp_path / "more").mkdir()
    (tmp_path / "set" / "train" / "more").symlink_to(tmp_path / "set" / "dev")
    refuses("train/more.*link", parse, "points", tmp_path / "set")


def test_one_of_several_files_of_labels_can_be_named(tmp_path):
    root = write_rows(tmp_path / "set", [FIVE, FIVE + 1])
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "more.csv").write_text("\n".join([lines[0], lines[2]]))
    assert infer(root / "more.csv") == "csv"
    refuses("labels.csv, more.csv", prepared, "csv", root, tmp_path / "data")
    faces = landmarks_of(prepared("csv", root / "more.csv", tmp_path / "data"))
    assert len(faces) == 1 and np.allclose(faces[0] - 0.5, FIVE + 1)
    refuses("0.jpg", infer, root / "0.jpg")


def test_a_test_split_of_whole_identities(tmp_path):
    root = write_rows(tmp_path / "set", [FIVE + i for i in range(10)])
    lines = (root / "labels.csv").read_text().splitlines()
    text = [f"{lines[0]},identity", *(f"{line},{i // 2}" for i, line in enumerate(lines[1:]))]
    (root / "labels.csv").write_text("\n".join(text))
    folder = prepared("csv", root, tmp_path / "data", test_split=0.4)
    test, train = (load_split(folder, name)["identity"] for name in ("test", "train"))
    assert len(test) == 4 and not {*test} & {*train}


def test_a_face_that_is_listed_twice_is_named(tmp_path):
    root = write_rows(tmp_path, [FIVE, FIVE + 1])
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([*lines, lines[1], lines[2].replace("1.jpg", "0.jpg")]))
    refuses("line 4.*labels.csv, line 2", parse, "csv", root)


def test_a_shape_without_all_its_points_is_named(tmp_path):
    refuses("1.jpg.*4 points", parse, "cvat", write_cvat(tmp_path / "set", [FIVE, FIVE[[0, 2, 3, 4]], FIVE]))
    refuses("annotation 0.*4 points", parse, "coco", write_coco(tmp_path / "coco", [FIVE[:4]], names=NAMES))


def test_what_is_left_out_is_counted_in_one_line(tmp_path, said):
    root = write_studio(tmp_path / "set", [FIVE] * 3)
    tasks = json.loads((root / "project.json").read_text())
    tasks[0]["annotations"].insert(0, {"result": []})  # hides nothing
    tasks[1]["annotations"] *= 2
    tasks[2]["annotations"] = []
    (root / "project.json").write_text(json.dumps(tasks))
    assert len(parse("label-studio", root)["train"]) == 2
    coco = write_coco(tmp_path / "coco", [FIVE, np.zeros((5, 2))])
    (coco / "labels.json").write_text((coco / "labels.json").read_text().replace("0.0, 0.0, 2.0", "0, 0, 0"))
    for kind, folder, text in (
        ("label-studio", root, "tasks without key points (1), further annotations of a task (1)"),
        ("coco", coco, "annotations without a keypoint (1)"),
    ):
        prepared(kind, folder, tmp_path / "data")
        found = [line for line in said if f"left out: {text}, pictures without a face (1), such as" in line]
        assert len(found) == 1, "although a set may be read twice, to find its first pixel"


def test_two_landmarks_on_a_level_line_and_one_with_a_box(tmp_path):
    layouts = LAYOUTS.with_rows({"2": {"count": 2, "flip_index": [1, 0]}, "1": {"count": 1, "flip_index": [0]}})
    level, nose = np.array([(60.0, 40), (100, 40)]), FIVE[2:3]
    eyes = prepared("points", write_pairs(tmp_path / "eyes", [level, FIVE[:2]]), tmp_path / "data", layouts=layouts)
    assert np.allclose(landmarks_of(eyes)[0], level + 0.5) and read_meta(eyes)["count"] == 2
    one = write_coco(tmp_path / "nose", [nose], box=[50, 30, 60, 60])
    assert np.allclose(landmarks_of(prepared("coco", one, tmp_path / "data", layouts=layouts))[0], nose + 0.5)
    refuses("face box", parse, "points", write_pairs(tmp_path / "bare", [nose]))


# ----------------------------------------------------------------------------------------------------- marks and places
def marked(value, faces=3):
    found = np.array([FIVE + i for i in range(faces)])
    found[:, 3] = value
    return list(found)


@pytest.mark.parametrize("kind", ["csv", "points", "coco"])
@pytest.mark.parametrize(
    ("faces", "fault"),
    [
        (marked(-1), "-1 -1 is a mark and no place, in 3 of 3"),
        (marked(0), "0 0 is a mark"),
        (marked(-1, 1), "-1 -1 is a mark"),
        (marked(-999), "-999 -999 is a mark"),
        *(([*marked(one, 1), FIVE, FIVE + 3], f"{one} {one}.*1 of 3") for one in (-2, -32768, 9999, 65535)),
        ([*marked(0, 1), FIVE], "0 0 .*1 of 2"),
        ([FIVE * np.array([1, -1, 1, 1, -1])[:, None]], "-100 -42 is a place with its signs turned"),
        ([FIVE / (160, 120)] * 2, "shares of the picture"),
        ([FIVE, FIVE / (160, 120)], "1.jpg|1.pts|line 3|annotation 1"),
        ([FIVE / 30], "its face is 1.4 px large"),
    ],
)
def test_marks_are_no_places(tmp_path, kind, faces, fault):
    assert "\n" not in refuses(fault, parse, kind, write_set(kind, tmp_path, faces))


@pytest.mark.parametrize(
    "faces",
    [
        [FIVE - (60, 0)] * 3,  # on the edge
        [(FIVE - (75, 50)).clip(0)] * 2,  # kept inside the picture by a tool
        [FIVE - (62, 42), FIVE - (64, 44.5)],  # beyond the corner
        [FIVE - (60, 40), FIVE],  # in the corner, once
        [np.where(np.arange(5)[:, None] == 1, np.nan, FIVE)] * 2,
        *([np.random.default_rng(0).uniform(0, 80, (68, 2)).round() - offset] for offset in (5, 20, 40)),
    ],
)
def test_places_near_the_edges_are_places(tmp_path, faces):
    assert len(parse("csv", write_rows(tmp_path / "set", faces))["train"]) == len(faces)


# ------------------------------------------------------------------------------------------------------------ identities
def test_a_mirror_image_has_the_identity_of_its_picture():
    assert [photograph(stem) for stem in ("134212_1_mirror", "image_0001_mirror")] == ["134212", "image_0001"]
    names = ["a/b-flipped.png", "a/b.png", "a/x_jpg.rf.0123456789abcdef.jpg", "a/x.jpg", "a/a_b.jpg", "a/a_c.jpg"]
    assert identities(names)[0] == ["a/b"] * 2 + ["a/x"] * 2 + ["a/a_b", "a/a_c"]


@pytest.mark.parametrize(
    ("names", "told", "rule"),
    [
        ([f"clip{i // 3}_{i:04d}.jpg" for i in range(9)], 3, "name"),
        ([f"p{i // 3}/images/{i % 3}.jpg" for i in range(9)], 3, "folder"),
        ([f"all/p{i // 3}/day{i % 3}/front{i}.jpg" for i in range(9)], 3, "folder"),
        ([f"IMG_{i:04d}.jpg" for i in range(9)], 9, "name"),
        ([*(f"a/{i}.jpg" for i in range(9)), "b/1.jpg"], 10, "name"),
        (["a (1).jpg", "a (2).jpg", "b-1.png", "b-2.png", "c.png"], 3, "name"),
        (["091_00a.jpg", "091_00b.jpg", "091_10a.jpg", "092_00a.jpg", "093_1a.jpg", "093_v.jpg"], 4, "name"),
    ],
)
def test_which_faces_are_of_one_identity(names, told, rule):
    found, used = identities(names)
    assert (len(set(found)), used) == (told, rule)
    assert len(set(identities(names, "picture")[0])) == len(names)


def test_identities_are_told_alike_in_every_format(tmp_path):
    """Frames of a clip are of one identity; a column of a CSV is before the names of the pictures."""
    faces, files = [FIVE + i for i in range(6)], [f"clip{i // 2}_{i}.jpg" for i in range(6)]
    for name in ("points", *TABLES):
        root = write_set(name, tmp_path / name, faces, files=files)
        assert [one.identity for one in parse(name, root)["train"]] == sorted(["clip0", "clip1", "clip2"] * 2)
        assert [one.identity for one in parse(name, root, identity="folder")["train"]] == ["."] * 6
    table = tmp_path / "csv" / "labels.csv"
    lines = table.read_text().split("\n")
    people = ("Identity", "ann", "bob", "ann", "", "", "bob")
    lines = [line.replace(",", f",{one},", 1) for line, one in zip(lines, people, strict=True)]
    table.write_text("\n".join(lines))
    told = [one.identity for one in parse("csv", tmp_path / "csv")["train"]]
    assert told == ["ann", "bob", "ann", "clip1", "clip2", "bob"]


# ---------------------------------------------------------------------------------------------------------------- boxes
def boxes(convention, wide):
    """Faces and, in a convention, boxes of `wide` times their tight ones."""
    faces = [(FIVE - FIVE.mean(0)) * 0.8 + (60 + 8 * i, 70 - 4 * i) for i in range(5)]
    middles = np.array([(face.min(0) + face.max(0)) / 2 for face in faces])
    sides = wide * np.array([np.ptp(face, axis=0) for face in faces])
    low, high = middles - sides / 2, middles + sides / 2
    columns = {"xyxy": (low, high), "cxcywh": (middles, sides), "xywh": (low, sides)}[convention]
    return faces, np.hstack(columns).tolist()


@pytest.mark.parametrize(
    ("convention", "wide", "name"),
    [
        ("xyxy", 1.1, "x1 y1 x2 y2"),
        ("xyxy", 1.8, "x1 y1 x2 y2"),
        ("cxcywh", 1.0, "cx cy w h"),
        ("cxcywh", 2, "cx cy w h"),
    ],
)
def test_boxes_in_another_convention_are_refused(tmp_path, convention, wide, name):
    faces, box = boxes(convention, wide)
    root = write_coco(tmp_path / "set", faces, box=box)
    refuses(f"annotation 0: bbox.*{name}.*[45] of 5", prepared, "coco", root, tmp_path / "data")


@pytest.mark.parametrize("number", range(4))
def test_boxes_beside_the_landmarks(tmp_path, said, number):
    faces, box = boxes("xywh", 1.2)
    root = write_coco(tmp_path / "set", faces, box=[[0, 0, 30, 30]] * number + box[number:])
    text = f"annotation 0: landmark 0 lies far outside bbox; {number} of 5"
    if number == 3:
        refuses(text, prepared, "coco", root, tmp_path / "data")
    else:
        prepared("coco", root, tmp_path / "data")
        assert [text in line for line in said if "far outside" in line] == [True] * (number > 0)


# ------------------------------------------------------------------------------------------------------- names of files
def test_label_studio_cleans_the_names_of_files(tmp_path):
    listed, files = ["IMG_0_2.jpg", "Größe_1.jpg", "Große_2.jpg"], ["IMG 0 (2).jpg", "Gro\u0308ße 1.jpg", "Größe 2.jpg"]
    root = write_studio(tmp_path / "set", [FIVE] * 3, files=listed)
    project = root / "project.json"
    project.write_text(project.read_text().replace("local-files/?d=", "upload/1/1a2b3c4d-"))
    for old, new in zip(listed, files, strict=True):
        (root / old).rename(root / new)
    assert [face.image.name for face in parse("label-studio", root)["train"]] == files
    picture(root / "IMG 0 2.jpg")
    refuses("IMG_0_2.jpg", parse, "label-studio", root)


@pytest.mark.parametrize("kind", ["points", *TABLES])
def test_names_in_both_forms_of_unicode(tmp_path, kind):
    for number, (listed, there) in enumerate((("\u00e4", "a\u0308"), ("a\u0308", "\u00e4"))):
        root = write_set(kind, tmp_path / str(number), [FIVE], files=[f"Gesicht_{listed}.jpg"])
        (root / f"Gesicht_{listed}.jpg").rename(root / f"Gesicht_{there}.jpg")
        assert parse(kind, root)["train"][0].image.name == f"Gesicht_{there}.jpg"


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (
            ["eyes_1", "eyes_2", "Nose", "lips_1", "lips_2"],
            "task 1: a point is labelled 'Nose'; other faces have 'nose'",
        ),
        (["eyes_1", "eyes_2", "noze", "lips_1", "lips_2"], "'noze'.* is it misspelt"),
        (["landmark"] * 5, "two points are named 'landmark', as are all 5; give each landmark a label"),
    ],
)
def test_labels_that_name_no_landmark(tmp_path, names, fault):
    root = write_studio(tmp_path / "set", [FIVE] * 3)
    tasks = json.loads((root / "project.json").read_text())
    tasks[0]["annotations"][0]["result"] = points_of(FIVE, names)
    (root / "project.json").write_text(json.dumps(tasks))
    refuses(fault, prepared, "label-studio", root, tmp_path / "data")


def test_points_that_few_faces_have_are_no_misspelling(tmp_path):
    root = write_studio(tmp_path / "set", [FIVE] * 2)
    tasks = json.loads((root / "project.json").read_text())
    for missing, task in enumerate(tasks):
        del task["annotations"][0]["result"][missing]  # each face shows another eye
    (root / "project.json").write_text(json.dumps(tasks))
    found = parse("label-studio", root)["train"]
    assert [np.flatnonzero(np.isnan(face.landmarks[:, 0])).tolist() for face in found] == [[0], [1]]


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_in_each_of_the_folders_of_the_splits(tmp_path, kind):
    root, folders = tmp_path / "set", {"train": "train", "val": "valid", "test": "test"}
    for number, split in enumerate(folders.values()):
        write_set(kind, root / split, [FIVE + number] * 2, table="_annotations.coco.json" if kind == "coco" else "")
    found = parse(infer(root), root)
    files = {split: [face.file for face in faces] for split, faces in found.items()}
    assert files == {split: [f"{folder}/0.jpg", f"{folder}/1.jpg"] for split, folder in folders.items()}
    assert list(load_split(prepared(None, root, tmp_path / "data"), "val")["file"]) == ["valid/0.jpg", "valid/1.jpg"]


def test_a_folder_without_pts_is_not_blamed_for_it(tmp_path):
    root, data, bare = tmp_path / "set", tmp_path / "data", tmp_path / "bare"
    write_coco(root / "export" / "1", [FIVE])
    refuses("no .pts in it, but export/1/labels.json; .*give the folder .*export/1", prepared, None, root, data)
    refuses("one JSON, or one", prepared, "coco", root, data)
    write_coco(root / "more" / "annotations", [FIVE])
    refuses("one of the folders .*export/1, .*set/more,", prepared, None, root, data)
    picture(bare / "a.jpg")
    refuses(".pts.*CSV, JSON", parse, "points", bare)
    for split in ("val", "valid"):
        (bare / split).mkdir()
    refuses("val and valid", parse, "points", bare)
