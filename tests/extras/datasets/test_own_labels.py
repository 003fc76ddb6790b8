"""Users' own sets whose labels are not what they seem, and sets that only look like such."""

import json
import re

import archives
import numpy as np
import pytest
from archives import header, parse, picture, prepared
from conftest import LAYOUTS, load_split, refuses, spoilt
from loguru import logger
from own_sets import FIVE, NAMES, points_of, write_coco, write_cvat, write_pairs, write_rows, write_studio
from PIL import Image

from extras.datasets import DATASETS, infer, own
from extras.datasets.naming import identities, photograph
from extras.datasets.own_layout import check_names
from extras.datasets.row import require_complete
from pipnet.images import read_image
from utils.data.prepared_set import read_meta
from utils.settings.layouts import Layouts

EXCHANGED = "width and height are exchanged.*EXIF"


def studio_half(root, faces, size):
    return write_studio(
        root, [face * (0.5 if size == (320, 240) else 1) for face in faces], size
    )  # % of the stated size


@pytest.mark.parametrize(("name", "write"), [("coco", write_coco), ("cvat", write_cvat), ("label-studio", studio_half)])
def test_the_stated_size_is_compared_with_the_picture(tmp_path, said, name, write):
    origin = {"coco": 0.5}.get(name, 0)
    root = write(tmp_path / "set", [FIVE] * 2, (160, 120))
    assert np.allclose(parse(name, root)["train"][0].landmarks - origin, FIVE, atol=0.01)
    double = (2 * (FIVE + origin) - origin, 2 * FIVE)[name == "cvat"]
    write(root, [double] * 2, (320, 240))
    assert np.allclose(parse(name, root)["train"][1].landmarks - origin, FIVE, atol=0.01), "scaled to the picture"
    folder = prepared(name, root, tmp_path / "data")
    assert np.allclose(load_split(folder, "train")["landmarks"][:] - origin, FIVE, atol=0.01)
    assert any("labels of 2 pictures are scaled to the size of the picture" in line for line in said)
    for size, fault in (
        ((120, 160), EXCHANGED),
        ((240, 320), EXCHANGED),
        ((320, 120), "different factors"),
        ((200, 140), "different factors"),
    ):
        write(root, [FIVE] * 2, size)
        refuses(fault, parse, name, root)
    write(root, [FIVE] * 2, (213, 160))  # 160 x 120 rounded from 213 x 160
    parse(name, root)


@pytest.mark.parametrize("write", [write_rows, write_pairs])
def test_labels_of_larger_pictures_are_refused(tmp_path, write):
    faces = [FIVE + i for i in range(3)]
    root = write(tmp_path / "set", [2 * face for face in faces])
    refuses(
        "160 x 120.*3 of 3",
        prepared,
        None,
        root,
        tmp_path / "data",
    )
    cut = [face + (0, 45) for face in faces[:2]]  # the picture ends above the mouths
    assert prepared(None, write(tmp_path / "cut", [*faces[:2], *cut]), tmp_path / "data")


def test_a_size_that_says_nothing_is_no_size(tmp_path):
    for size in ((0, 0), (None, None), ("", "x"), (-1, 120), (float("nan"), 3), (160.0, "120")):
        assert np.allclose(parse("coco", write_coco(tmp_path / "set", [FIVE], size))["train"][0].landmarks, FIVE + 0.5)


def test_pictures_outside_of_the_splits_are_named(tmp_path):
    for folder in ("train", "dev"):
        write_pairs(tmp_path / "set" / folder, [FIVE] * 3)
    said = []
    number = logger.add(said.append, format="{message}")
    archive = DATASETS["points"].load(tmp_path / "set")
    logger.remove(number)
    assert len(archive) == 3 and "3 images outside of train are left out, such as dev/" in "".join(said)
    assert not any("pictures without a face" in line for line in archive.notes)
    (tmp_path / "more").mkdir()
    (tmp_path / "set" / "train" / "more").symlink_to(tmp_path / "set" / "dev")
    refuses("train/more.*link", parse, "points", tmp_path / "set")


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
    assert own.upright_size(file) == size == read_image(file).shape[1::-1] and own.header(file) == (
        (60, 40),
        6 if turned else 1,
    )


@pytest.mark.parametrize(
    ("names", "layout", "fault"),
    [
        (["left_eye", "right_eye", "nose", "mouth_left", "mouth_right"], "5", ""),  # by the picture or by the subject
        (["Right Eye", "Left Eye", "nose-tip", "R_mouth", "L_mouth"], "5", ""),
        (["EyeL", "EyeR", "Nose", "LipL", "LipR"], "5", ""),
        (["a", "b", "c", "d", "e"], "5", ""),
        (["Eyes-1", "EYES 2", "nose", "lips.1", "lips_2"], "5", ""),
        (
            ["left_eye", "mouth_left", "mouth_right", "nose", "right_eye"],
            "5",
            r"'left_eye' and 'right_eye' .*\[4, 2, 1, 3, 0\]",
        ),
        (["nose", "leftEye", "rightEye", "mouthL", "mouthR"], "5", "'leftEye' and 'rightEye' are mirror images"),
        (["leye", "reye", "nose", "lmouth", "rmouth"], "5", ""),
        (["-", "_", ".", "?", "é"], "5", ""),
        (["lmouth", "rmouth", "nose", "leye", "rmouth2"], "5", "point 0 is 'lmouth', where layout 5 has 'eyes_1'"),
        (["leye", "lmouth", "nose", "reye", "rmouth"], "5", "'leye' and 'reye' are mirror images"),
        (["nose", "eye_a", "eye_b", "mouth_a", "mouth_b"], "5", "point 0 is 'nose', where layout 5 has 'eyes_1'"),
        (LAYOUTS.load("98").point_names(), "98", ""),
        (LAYOUTS.load("68").point_names(), "68", ""),
        ([f"Left_Eye_{i}" if i < 6 else f"x{i}" for i in range(68)], "68", "point 0 is 'Left_Eye_0'"),
    ],
)
def test_the_names_of_points_fit_the_layout(tmp_path, names, layout, fault):
    layout = LAYOUTS.load(layout)
    if not fault:
        return check_names(names, layout, tmp_path, archives.landmarks(len(names))[None])
    refuses(fault, check_names, names, layout, tmp_path, archives.landmarks(len(names))[None])


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
    text = refuses("", prepared, "coco", root, tmp_path / "data")
    text = text
    (tmp_path / "row.yaml").write_text(text[text.index("mine:") :])
    name, layouts = LAYOUTS.with_file(str(tmp_path / "row.yaml"))
    layout = layouts.load(name)
    pairs = [("left_eye", "right_eye"), ("mouthLeft", "mouthRight")]
    other = {one: two for pair in pairs for one, two in (pair, pair[::-1])}
    assert [names[i] for i in layout.flip_index] == [other.get(name, name) for name in names] and "\n" not in text
    assert layout.point_names() == names and [names[i] for i in layout.interocular] == ["left_eye", "right_eye"]
    prepared("coco", root, tmp_path / "data", layout=name, layouts=layouts)


def test_no_row_is_guessed_from_the_places_of_points(tmp_path):
    text = refuses(
        "9 landmarks.*flip_index",
        prepared,
        "points",
        write_pairs(tmp_path / "set", [np.array(list(NINE.values())[:9], float)]),
        tmp_path / "data",
    )
    assert "mine" not in text


def test_a_layout_is_made_from_the_names_of_points_in_every_format(tmp_path, said):
    names = ["left_eye", "mouth_left", "mouth_right", "nose", "right_eye"]
    face = FIVE[[0, 3, 4, 2, 1]]
    columns = ",".join(f"{name}_{axis}" for name in names for axis in "xy")
    csv, data = write_rows(tmp_path / "csv", [face]), tmp_path / "data"
    (csv / "labels.csv").write_text((csv / "labels.csv").read_text().replace(header(5)[5:], columns))
    for name, root in (
        ("coco", write_coco(tmp_path / "coco", [face], names=names)),
        ("csv", csv),
        ("label-studio", write_studio(tmp_path / "ls", [face], names=names)),
    ):
        meta = read_meta(prepared(name, root, data))
        assert (meta["layout"], meta["row"]["flip_index"]) == (root.name, [4, 2, 1, 3, 0]) and meta["points"] == names
        assert meta["row"]["interocular"] == [0, 4] and "left_eye - right_eye" in "".join(said)
        file = next(data.glob(f"{root.name}-*.yaml"))
        file.write_text(file.read_text().replace("[0, 4]", "[1, 2]"))
        folder = prepared(name, root, data)
        assert read_meta(folder)["row"]["interocular"] == [1, 2], "the edited file is read"
        assert np.allclose(
            load_split(folder, "train")["landmarks"][0] - (0 if name == "label-studio" else 0.5), face, atol=0.01
        )


def test_no_layout_is_made_where_a_name_has_a_side_or_a_number(tmp_path):
    for name in ("ear_left", "tip_2"):
        names = ["left_eye", "right_eye", "nose", name, "lips"]
        root = write_coco(tmp_path / name, [FIVE], names=names)
        layouts = Layouts({"68": LAYOUTS.rows["68"]})
        refuses(f"5 landmarks.*{name}", prepared, "coco", root, tmp_path / "data", layouts=layouts)


def test_one_of_several_files_of_labels_can_be_named(tmp_path):
    root = write_rows(tmp_path / "set", [FIVE, FIVE + 1])
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "more.csv").write_text("\n".join([lines[0], lines[2]]))
    assert infer(root / "more.csv") == "csv"
    refuses("labels.csv, more.csv", prepared, "csv", root, tmp_path / "data")
    faces = load_split(prepared("csv", root / "more.csv", tmp_path / "data"), "train")
    assert len(faces) == 1 and np.allclose(faces["landmarks"][0] - 0.5, FIVE + 1)
    refuses("0.jpg", infer, root / "0.jpg")


def test_a_test_split_of_whole_identities(tmp_path):
    root = write_rows(tmp_path / "set", [FIVE + i for i in range(10)])
    lines = (root / "labels.csv").read_text().splitlines()
    text = [f"{lines[0]},identity", *(f"{line},{i // 2}" for i, line in enumerate(lines[1:]))]
    (root / "labels.csv").write_text("\n".join(text))
    folder = prepared("csv", root, tmp_path / "data", test_split=0.4)
    test, train = (load_split(folder, name)["identity"] for name in ("test", "train"))
    assert len(test) == 4 and not {*test} & {*train}


def test_a_set_has_the_layout_with_the_name_of_its_folder(tmp_path):
    rows = {name: {"count": 5, "flip_index": [1, 0, 2, 4, 3]} for name in ("one", "set")}
    file = tmp_path / "rows.yaml"
    file.write_text(json.dumps(rows))
    layouts = LAYOUTS.with_rows_of(str(file))[1]
    folder = prepared("points", write_pairs(tmp_path / "set", [FIVE]), tmp_path / "data", layouts=layouts)
    assert read_meta(folder)["layout"] == "set" and read_meta(folder)["row"] == rows["set"]


def test_of_two_layouts_the_one_with_the_names_is_taken(tmp_path):
    row = {"count": 5, "flip_index": [0, 2, 1, 4, 3], "groups": {"nose": [0], "eyes": [1, 2], "lips": [3, 4]}}
    face = FIVE[[2, 0, 1, 3, 4]]
    root = write_coco(tmp_path / "same", [face], names=["nose", "eyes_1", "eyes_2", "lips_1", "lips_2"])
    for layout, points in ((None, FIVE), ("mine", face)):
        folder = prepared("coco", root, tmp_path / "data", layouts=LAYOUTS.with_rows({"mine": row}), layout=layout)
        assert np.allclose(load_split(folder, "train")["landmarks"][:], points + 0.5)
        assert read_meta(folder)["layout"] == (layout or "5")
    layouts = Layouts({"5": LAYOUTS.rows["5"], "mine": row | {"groups": {"tip": [0], "eyes": [1, 2], "lips": [3, 4]}}})
    root = write_coco(tmp_path / "set", [FIVE[[2, 0, 1, 3, 4]]], names=["Tip", "eyes_1", "eyes_2", "lips_1", "lips_2"])
    assert read_meta(prepared("coco", root, tmp_path / "data", layouts=layouts))["layout"] == "mine"


def test_of_two_layouts_without_names_none_is_guessed(tmp_path):
    layouts = LAYOUTS.with_rows({"mine": {"count": 5, "flip_index": [0, 2, 1, 4, 3]}})
    root = write_pairs(tmp_path / "set", [FIVE + i for i in range(3)])
    refuses("layouts 5 and mine.*--layout", prepared, "points", root, tmp_path / "data", layouts=layouts)
    folder = prepared("points", root, tmp_path / "data", layouts=layouts, layout="mine")
    assert read_meta(folder)["layout"] == "mine"


def test_a_face_that_is_listed_twice_is_named(tmp_path):
    root = write_rows(tmp_path, [FIVE, FIVE + 1])
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([*lines, lines[1], lines[2].replace("1.jpg", "0.jpg")]))
    refuses("line 4.*labels.csv, line 2", parse, "csv", root)


def test_a_shape_without_all_its_points_is_named(tmp_path):
    root = write_cvat(tmp_path / "set", [FIVE, FIVE[[0, 2, 3, 4]], FIVE])
    refuses("1.jpg.*4 points", parse, "cvat", root)
    write_coco(tmp_path / "coco", [FIVE[:4]], names=NAMES)
    refuses("annotation 0.*4 points", parse, "coco", tmp_path / "coco")


def test_what_is_left_out_is_counted_in_one_line(tmp_path, said):
    root = write_studio(tmp_path / "set", [FIVE] * 3)
    tasks = json.loads((root / "project.json").read_text())
    tasks[0]["annotations"].insert(0, {"result": []})  # hides nothing
    tasks[1]["annotations"].append(tasks[1]["annotations"][0])
    tasks[2]["annotations"] = []
    (root / "project.json").write_text(json.dumps(tasks))
    assert len(parse("label-studio", root)["train"]) == 2
    prepared("label-studio", root, tmp_path / "data")
    text = "left out: tasks without key points (1), further annotations of a task (1), pictures without a face (1)"
    assert sum(text in line for line in said) == 1
    coco = write_coco(tmp_path / "coco", [FIVE, np.zeros((5, 2))])
    (coco / "labels.json").write_text((coco / "labels.json").read_text().replace("0.0, 0.0, 2.0", "0, 0, 0"))
    prepared("coco", coco, tmp_path / "data")
    text = "left out: annotations without a keypoint (1), pictures without a face (1)"
    assert sum(text in line for line in said) == 1, "although the set is read twice, to find its first pixel"


def marked(value, faces=3):
    found = np.array([FIVE + i for i in range(faces)])
    found[:, 3] = value
    return list(found)


@pytest.mark.parametrize("name", ["csv", "points", "coco"])
def test_marks_are_no_places(tmp_path, name):
    write = {"csv": write_rows, "points": write_pairs, "coco": write_coco}[name]
    half = FIVE.copy()
    half[[1, 4]] *= -1
    for number, (faces, fault) in enumerate(
        [
            (marked(-1), "-1 -1 is a mark and no place, in 3 of 3"),
            (marked(0), "0 0 is a mark"),
            (marked(-1, 1), "-1 -1 is a mark"),
            (marked(-999), "-999 -999 is a mark"),
            *(([*marked(one, 1), FIVE, FIVE + 3], f"{one} {one}.*1 of 3") for one in (-2, -32768, 9999, 65535)),
            ([*marked(0, 1), FIVE], "0 0 .*1 of 2"),
            ([half], "-100 -42 is a place with its signs turned"),
            ([FIVE / (160, 120)] * 2, "shares of the picture"),
            ([FIVE, FIVE / (160, 120)], "1.jpg|1.pts|line 3|annotation 1"),
            ([FIVE / 30], "its face is 1.4 px large"),
        ]
    ):
        root = write(tmp_path / str(number), faces)
        text = refuses(fault, parse, name, root)
        assert "\n" not in text


@pytest.mark.parametrize(
    "faces",
    [
        [FIVE - (60, 0)] * 3,  # on the edge
        [(FIVE - (75, 50)).clip(0)] * 2,  # kept inside the picture by a tool
        [FIVE - (62, 42), FIVE - (64, 44.5)],  # beyond the corner
        [FIVE - (60, 40), FIVE],  # in the corner, once
        [np.where(np.arange(5)[:, None] == 1, np.nan, FIVE)] * 2,
    ],
)
def test_places_near_the_edges_are_places(tmp_path, faces):
    assert len(parse("csv", write_rows(tmp_path / "set", faces))["train"]) == len(faces)


def test_a_face_of_68_landmarks_beyond_the_corner(tmp_path):
    rng = np.random.default_rng(0)
    for offset in (5, 20, 40):
        face = rng.uniform(0, 80, (68, 2)).round() - offset
        assert parse("points", write_pairs(tmp_path / str(offset), [face]))["train"]


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
        ([f"{i:04d}.jpg" for i in range(9)], 9, "name"),
        ([*(f"a/{i}.jpg" for i in range(9)), "b/1.jpg"], 10, "name"),
        (["a (1).jpg", "a (2).jpg", "b-1.png", "b-2.png", "c.png"], 3, "name"),
        (["091_00a.jpg", "091_00b.jpg", "091_10a.jpg", "092_00a.jpg", "093_1a.jpg", "093_v.jpg"], 4, "name"),
    ],
)
def test_which_faces_are_of_one_identity(names, told, rule):
    found, used = identities(names)
    assert (len(set(found)), used) == (told, rule)
    assert len(set(identities(names, "picture")[0])) == len(names)


def test_identities_are_told_alike_in_every_format(tmp_path, said):
    """Frames of a clip are of one identity; a column of a CSV is before the names of the pictures."""
    files = [f"clip{i // 2}_{i}.jpg" for i in range(6)]
    faces = [FIVE + i for i in range(6)]
    wanted = ["clip0"] * 2 + ["clip1"] * 2 + ["clip2"] * 2
    writers = {
        "points": write_pairs,
        "csv": write_rows,
        "coco": write_coco,
        "cvat": write_cvat,
        "label-studio": write_studio,
    }
    for name, write in writers.items():
        root = write(tmp_path / name, faces)
        for table in root.iterdir():
            if table.suffix in (".csv", ".json", ".xml"):
                text = table.read_text()
                for i, file in enumerate(files):
                    text = re.sub(rf"\b{i}\.jpg", file, text)
                table.write_text(text)
        for i, file in enumerate(files):
            for end in (".jpg", ".pts") if name == "points" else (".jpg",):
                (root / f"{i}{end}").rename((root / file).with_suffix(end))
        assert [one.identity for one in parse(name, root)["train"]] == wanted
        assert [one.identity for one in parse(name, root, identity="folder")["train"]] == ["."] * 6
    table = tmp_path / "csv" / "labels.csv"
    head, *rows = table.read_text().split("\n")
    people = ("ann", "bob", "ann", "", "", "bob")
    table.write_text(
        "\n".join(
            [
                head.replace("file,", "file,Identity,"),
                *(row.replace(",", f",{one},", 1) for row, one in zip(rows, people, strict=True)),
            ]
        )
    )
    assert [one.identity for one in parse("csv", tmp_path / "csv")["train"]] == [
        "ann",
        "bob",
        "ann",
        "clip1",
        "clip2",
        "bob",
    ]


def test_more_faces_than_the_release_are_not_too_few(tmp_path):
    for stem in ("1_1", "1_1_mirror"):
        archives.annotated(tmp_path / "300W" / "afw" / f"{stem}.jpg", 68)
    refuses("300W", parse, "300w", tmp_path / "300W")
    more = ["afw: 674 of 337 faces, 337 more than the release has"]
    refuses(r"300W(.|\n)*674 of 337", require_complete, tmp_path, "300W", more, allow_partial=False)


def test_two_landmarks_on_a_level_line_and_one_with_a_box(tmp_path):
    layouts = LAYOUTS.with_rows({"2": {"count": 2, "flip_index": [1, 0]}, "1": {"count": 1, "flip_index": [0]}})
    level = FIVE[:2].copy()
    level[:, 1] = 40
    folder = prepared("points", write_pairs(tmp_path / "eyes", [level, FIVE[:2]]), tmp_path / "data", layouts=layouts)
    assert np.allclose(load_split(folder, "train")["landmarks"][0], level + 0.5) and read_meta(folder)["count"] == 2
    one = write_coco(tmp_path / "nose", [FIVE[2:3]], box=[50, 30, 60, 60])
    folder = prepared("coco", one, tmp_path / "data", layouts=layouts)
    assert np.allclose(load_split(folder, "train")["landmarks"][0], FIVE[2:3] + 0.5)
    refuses("face box", parse, "points", write_pairs(tmp_path / "bare", [FIVE[2:3]]))


# ---------------------------------------------------------------------------------------------------------------- boxes
def boxes(convention, wide, high=None, up=0.0):
    """Faces and, in a convention, boxes of `wide` x `high` times their tight ones, moved up by a share of these."""
    faces = [(FIVE - FIVE.mean(0)) * 0.8 + (60 + 8 * i, 70 - 4 * i) for i in range(5)]
    found = []
    for face in faces:
        (x, y), (w, h) = face.min(0) / 2 + face.max(0) / 2, np.ptp(face, axis=0) * (wide, high or wide)
        y -= up * h
        found.append(
            {
                "xyxy": [x - w / 2, y - h / 2, x + w / 2, y + h / 2],
                "cxcywh": [x, y, w, h],
                "xywh": [x - w / 2, y - h / 2, w, h],
            }[convention]
        )
    return faces, found


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
    refuses(
        f"annotation 0: bbox.*{name}.*[45] of 5",
        prepared,
        "coco",
        root,
        tmp_path / "data",
    )


def test_boxes_beside_the_landmarks(tmp_path, said):
    faces, box = boxes("xywh", 1.2)
    prepared("coco", write_coco(tmp_path / "0", faces, box=box), tmp_path / "data")
    assert not [line for line in said if "far outside" in line]
    for number in (1, 2, 3):
        beside = [[0, 0, 30, 30]] * number + box[number:]
        root = write_coco(tmp_path / str(number), faces, box=beside)
        if number < 3:
            prepared("coco", root, tmp_path / "data")
            assert [line for line in said if f"annotation 0: landmark 0 lies far outside bbox; {number} of 5" in line]
        else:
            refuses("annotation 0: landmark 0 lies far outside bbox; 3 of 5", prepared, "coco", root, tmp_path / "data")


# ------------------------------------------------------------------------------------------------------- names of files
def test_label_studio_cleans_the_names_of_files(tmp_path):
    root = write_studio(tmp_path / "set", [FIVE] * 3, files=["IMG_0_2.jpg", "Größe_1.jpg", "Große_2.jpg"])
    files = ["IMG 0 (2).jpg", "Gro\u0308ße 1.jpg", "Größe 2.jpg"]
    for number, name in enumerate(files):
        (root / f"{number}.jpg").rename(root / name)
    assert [record.image.name for record in parse("label-studio", root)["train"]] == files
    picture(root / "IMG 0 2.jpg")
    refuses("IMG_0_2.jpg", parse, "label-studio", root)


@pytest.mark.parametrize("write", [write_rows, write_coco, write_cvat, write_pairs])
def test_names_in_both_forms_of_unicode(tmp_path, write):
    for number, (listed, there) in enumerate((("\u00e4", "a\u0308"), ("a\u0308", "\u00e4"))):
        root = write(tmp_path / str(number), [FIVE])
        for file in [*root.glob("*.csv"), *root.glob("*.json"), *root.glob("*.xml")]:
            file.write_text(file.read_text().replace("0.jpg", f"Gesicht_{listed}.jpg"), encoding="utf-8")
        for pts in root.glob("0.pts"):
            pts.rename(root / f"Gesicht_{listed}.pts")
        (root / "0.jpg").rename(root / f"Gesicht_{there}.jpg")
        assert parse(infer(root), root)["train"][0].image.name == f"Gesicht_{there}.jpg"


def test_labels_that_name_no_landmark(tmp_path):
    odd = ["eyes_1", "eyes_2", "Nose", "lips_1", "lips_2"]
    root = write_studio(tmp_path / "set", [FIVE] * 3)
    for names, fault in (
        (odd, "task 1: a point is labelled 'Nose'; other faces have 'nose' in its place"),
        (["eyes_1", "eyes_2", "noze", "lips_1", "lips_2"], "'noze'.* is it misspelt"),
        (["landmark"] * 5, "two points are named 'landmark', as are all 5; give each landmark a label"),
    ):
        tasks = json.loads((write_studio(root, [FIVE] * 3) / "project.json").read_text())
        tasks[0]["annotations"][0]["result"] = points_of(FIVE, names)
        spoilt(root / "project.json", json.dumps(tasks), fault, prepared, "label-studio", root, tmp_path / "data")


def test_points_that_few_faces_have_are_no_misspelling(tmp_path):
    root = write_studio(tmp_path / "set", [FIVE] * 2)
    tasks = json.loads((root / "project.json").read_text())
    for task, missing in zip(tasks, (0, 1), strict=True):
        del task["annotations"][0]["result"][missing]  # each face shows another eye
    (root / "project.json").write_text(json.dumps(tasks))
    found = parse("label-studio", root)["train"]
    assert [np.flatnonzero(np.isnan(record.landmarks[:, 0])).tolist() for record in found] == [[0], [1]]


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_coco, "_annotations.coco.json"),
        (write_rows, "labels.csv"),
        (write_cvat, "annotations.xml"),
        (write_studio, "project.json"),
    ],
)
def test_a_table_in_each_of_the_folders_of_the_splits(tmp_path, write, name):
    for number, split in enumerate(("train", "valid", "test")):
        root = write(tmp_path / "set" / split, [FIVE + number] * 2)
        if name.startswith("_"):
            (root / "labels.json").rename(root / name)
    root = tmp_path / "set"
    found = parse(infer(root), root)
    assert [split for split in found if len(found[split]) == 2] == ["train", "val", "test"]
    assert all(
        record.image.parent.name == {"val": "valid"}.get(split, split) for split in found for record in found[split]
    )
    folder = prepared(None, root, tmp_path / "data")
    assert list(load_split(folder, "val")["file"]) == ["valid/0.jpg", "valid/1.jpg"]


def test_a_folder_without_pts_is_not_blamed_for_it(tmp_path):
    write_coco(tmp_path / "set" / "export" / "1", [FIVE])
    for name, fault in (
        (None, "no .pts in it, but export/1/labels.json; .*give the folder .*export/1"),
        ("coco", "one JSON, or one"),
    ):
        refuses(fault, prepared, name, tmp_path / "set", tmp_path / "data")
    write_coco(tmp_path / "set" / "more" / "annotations", [FIVE])
    refuses("one of the folders .*export/1, .*set/more,", prepared, None, tmp_path / "set", tmp_path / "data")
    picture(tmp_path / "bare" / "a.jpg")
    refuses(".pts.*CSV, JSON", parse, "points", tmp_path / "bare")
    for split in ("val", "valid"):
        (tmp_path / "bare" / split).mkdir()
    refuses("val and valid", parse, "points", tmp_path / "bare")
