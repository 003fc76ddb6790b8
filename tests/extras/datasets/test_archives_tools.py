"""Exports of CVAT and Label Studio, and COCO files whose categories name the keypoints."""

import json
from dataclasses import replace

import numpy as np
import pytest
from archives import landmarks, parse, picture, prepared
from conftest import LAYOUTS, load_split, refuses
from own_sets import NAMES, points_of, write_coco

from extras.datasets import infer
from utils.data.prepared_set import PreparedSet, read_meta
from utils.settings.layouts import Layouts

MIXED = ["nose", "lips_2", "eyes_1", "lips_1", "eyes_2"]
META = "<label><name>face</name><type>skeleton</type></label>" + "".join(
    f"<label><name>{name}</name><type>points</type><parent>face</parent></label>" for name in MIXED
)


@pytest.fixture
def points(tmp_path) -> np.ndarray:
    """(2, 5, 2) landmarks of two faces; the pictures are a.jpg and, in images/, b.png, in tmp_path/set."""
    picture(tmp_path / "set" / "a.jpg")
    picture(tmp_path / "set" / "images" / "b.png")
    return np.array([landmarks(5), landmarks(5)])


# ---------------------------------------------------------------------------------------------------------------- CVAT
def cvat(images: dict[str, str], meta: str = META) -> str:
    """An export with the shapes of each image; a name may end in ':' and a subset."""
    rows = [
        f'<image id="{i}" name="{name.partition(":")[0]}" subset="{name.partition(":")[2]}" width="160" height="120">'
        f"{shapes}</image>"
        for i, (name, shapes) in enumerate(images.items())
    ]
    return f"<annotations><version>1.1</version><meta><task><labels>{meta}</labels></task></meta>{''.join(rows)}</annotations>"


def shape(label: str, points, **more: str) -> str:
    """A shape of one or several points."""
    more = "".join(f' {key}="{value}"' for key, value in more.items())
    places = ";".join(f"{x:.2f},{y:.2f}" for x, y in np.reshape(points, (-1, 2)))
    return f'<points label="{label}" source="manual" points="{places}"{more}></points>'


def skeleton(face, **more) -> str:
    """The skeleton of a face; more: attributes of a point by its name."""
    shapes = [shape(name, face[NAMES.index(name)], **more.get(name, {})) for name in reversed(MIXED)]
    return f'<skeleton label="face" z_order="0">{"".join(shapes)}</skeleton>'


def faces_of(root, text: str) -> list:
    """The training faces of an export of CVAT."""
    (root / "annotations.xml").write_text(text)
    return parse("cvat", root)["train"]


def same(faces, points) -> bool:
    return np.allclose([face.landmarks for face in faces], points, atol=0.006)


def test_cvat(points, tmp_path):
    root = tmp_path / "set"
    one = skeleton(points[0], nose={"outside": "1"}, lips_1={"occluded": "1"})
    first, second = faces_of(root, cvat({"a.jpg": one, "b.png": skeleton(points[1]), "gone.jpg": ""}))
    assert infer(root) == "cvat"
    assert np.allclose(first.landmarks[[0, 1, 3, 4]], points[0][[0, 1, 3, 4]], atol=0.006), "in the layout's order"
    assert np.isnan(first.landmarks[2]).all() and first.visible.tolist() == [True, True, False, False, True]
    assert same([second], points[1:]) and second.image == root / "images" / "b.png"
    folder = prepared("cvat", root, tmp_path / "data")
    assert PreparedSet(folder, LAYOUTS).mismatch() == "" and len(load_split(folder, "train"))
    assert (read_meta(folder)["layout"], read_meta(folder)["origin"]) == ("5", 0.5)
    other = {**LAYOUTS.rows["5"], "groups": {"eyes": [1, 0], "nose": [2], "lips": [3, 4]}}
    mismatch = PreparedSet(folder, Layouts({**LAYOUTS.rows, "5": other})).mismatch()
    assert "prepared with the points in another order" in mismatch

    grouped = [
        shape(name, face[NAMES.index(name)], group_id=str(group)) for name in MIXED for group, face in enumerate(points)
    ]
    assert same(faces_of(root, cvat({"a.jpg": "".join(grouped)})), points), "single points in groups"
    several = "".join(shape("face", face) for face in points)
    assert same(faces_of(root, cvat({"a.jpg": several})), points), "shapes of several points"
    (root / "images" / "Test").mkdir()
    (root / "images" / "b.png").rename(root / "images" / "Test" / "b.png")
    faces_of(root, cvat({"a.jpg": one, "b.png:Test": skeleton(points[1])}))
    splits = parse("cvat", root)
    assert [face.image.name for name in ("train", "test") for face in splits[name]] == ["a.jpg", "b.png"], "subsets"
    refuses("5 points.*68", parse, "cvat", root, count=68)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not an XML file"),
        ("<annotations>", "not an XML file"),
        ("<a/>", "CVAT for images 1.1"),
        ("<annotations><track/></annotations>", "CVAT for images 1.1"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "declares a DOCTYPE"),
        (cvat({"../a.jpg": shape("nose", (1, 2))}), "leads out of"),
        (cvat({"c.jpg": shape("nose", (1, 2))}), "no image c.jpg"),
        (cvat({}), "no annotated"),
        (cvat({"a.jpg": shape("nose", (1, 2)) * 2}), "two points are named 'nose'"),
        (cvat({"a.jpg": '<points label="a" points="1,x"/>'}), "'1,x' where"),
    ],
)
def test_faults_of_cvat(points, tmp_path, text, fault):
    refuses(fault, faces_of, tmp_path / "set", text)


def test_a_face_of_several_shapes_in_cvat(points, tmp_path):
    """Shapes of one group are one face, in the order of the task's labels; without a group that is not known."""
    root, (one, other) = tmp_path / "set", points
    meta = "".join(f"<label><name>{name}</name></label>" for name in ("eyes", "mouth"))

    def text(second: str) -> str:
        first = shape("mouth", one[2:], group_id="1") + shape("eyes", one[:2], group_id="1")
        return cvat({"a.jpg": first, "b.png": second}, meta)

    both = shape("eyes", other[:2], group_id="4") + shape("mouth", other[2:], group_id="4")
    faces = faces_of(root, text(both + shape("eyes", one[:2], group_id="5")))
    assert same(faces[:2], points) and np.allclose(faces[2].landmarks[:2], one[:2], atol=0.006)
    assert np.isnan(faces[2].landmarks[2:]).all()
    eyes, group = other[:2], {"group_id": "1"}
    for second, fault in (
        (shape("eyes", eyes, group_id="0") + shape("mouth", other[2:]), ".*'eyes' and 'mouth'"),
        (shape("eyes", eyes), ".*'eyes' has no group"),
        (shape("eyes", eyes, **group) + shape("mouth", other[1:], **group), "4 points in the shape 'mouth'"),
    ):
        refuses(f"image b.png: {fault}", faces_of, root, text(second))
    mixed = cvat({"a.jpg": skeleton(one), "b.png": skeleton(other) + shape("mouth", other[3])})
    refuses("image b.png: .*'face' and 'mouth'", faces_of, root, mixed)


def test_names_without_an_ending_as_in_video_tasks_of_cvat(points, tmp_path):
    root = tmp_path / "set"
    (root / "a.jpg").rename(root / "frame_000001.PNG")
    text = cvat({"frame_000001": skeleton(points[0])})
    assert faces_of(root, text)[0].image == root / "frame_000001.PNG"
    picture(root / "frame_000001.jpg")
    refuses("frame_000001.PNG and frame_000001.jpg both fit", faces_of, root, text)


# -------------------------------------------------------------------------------------------------------- Label Studio
def task(name: str, *annotations, **more) -> dict:
    """A task; an annotation is its key points, or a dict."""
    made = [one if isinstance(one, dict) else {"result": one} for one in annotations]
    return {"data": {"img": name}, "annotations": made, **more}


def studio_faces(root, tasks) -> list:
    """The training faces of an export of Label Studio."""
    (root / "project.json").write_text(json.dumps(tasks))
    return parse("label-studio", root)["train"]


def test_label_studio(points, tmp_path, said):
    root = tmp_path / "set"
    without_nose = [one for one in points_of(points[0], NAMES) if one["value"]["keypointlabels"] != ["nose"]]
    many = [one | {"parentID": str(number)} for number, face in enumerate(points) for one in points_of(face, NAMES)]
    rectangle = {"id": "r", "original_width": 160, "original_height": 120, "value": {"x": 1, "y": 1}}
    cancelled = {"was_cancelled": True, "result": []}
    tasks = [
        task("/data/upload/3/1a2b3c4d-a.jpg", cancelled, without_nose),
        task("/data/local-files/?d=images/b.png", [rectangle, *many]),
    ]
    first, *others = studio_faces(root, tasks)
    assert infer(root) == "label-studio"
    assert first.image == root / "a.jpg" and np.isnan(first.landmarks[2]).all()
    assert np.allclose(first.landmarks[[0, 1, 3, 4]], points[0][[0, 1, 3, 4]])
    assert np.allclose([face.landmarks for face in others], points) and others[1].file == "images/b.png#2"
    meta = read_meta(prepared("label-studio", root, tmp_path / "data"))
    assert (meta["layout"], meta["origin"]) == ("5", 0.5)
    assert sum("faces without a landmark that others have: nose (1 of 3)" in line for line in said) == 1

    numbered = points_of(points[0], ["8", "9", "10", "11", "12"])
    flat = [{"original_width": 160, "original_height": 120, **one["value"]} for one in numbered]
    (face,) = studio_faces(root, [{"id": 1, "img": "/data/upload/1a2b3c4d-a.jpg", "kp": flat}])
    assert np.allclose(face.landmarks, points[0]), "JSON-MIN; 8, 9, 10 in this order"


ONE = points_of([(1, 2)], ["a"])[0]


@pytest.mark.parametrize(
    ("tasks", "fault"),
    [
        ([task("x/c.jpg", [ONE])], "no image x/c.jpg"),
        ([task("a.jpg", [ONE, ONE])], "two points are named 'a'"),
        ([task("a.jpg", [ONE | {"image_rotation": 90}])], "was rotated"),
        ([3], "not a task of Label Studio"),
        ([task("a.jpg", [ONE], data={})], "not a task"),
        ([], "no annotated"),
    ],
)
def test_faults_of_label_studio(points, tmp_path, tasks, fault):
    refuses(fault, studio_faces, tmp_path / "set", tasks)


@pytest.mark.parametrize(
    "name",
    [
        "https://x.blob.core.windows.net/faces/a.jpg?sv=2024&sig=a%2Fb.c%3D",
        "s3://bucket/some/a.jpg?X-Amz-Signature=1.2#top",
        "/data/local-files/?d=a.jpg&t=1",
    ],
)
def test_a_signed_address_is_a_name(points, tmp_path, name):
    root = tmp_path / "set"
    assert studio_faces(root, [task(name, points_of(points[0], NAMES))])[0].image == root / "a.jpg"


def test_which_annotation_of_a_task_counts(points, tmp_path, said):
    root = tmp_path / "set"
    one, other = (points_of(face, NAMES) for face in points)
    tasks = [task("a.jpg", {"result": one, "ground_truth": False}, {"result": other, "ground_truth": True})]
    assert np.allclose(studio_faces(root, tasks)[0].landmarks, points[1])
    predicted = task("b.png", predictions=[{"result": one}])
    studio_faces(root, [*tasks, predicted])
    prepared("label-studio", root, tmp_path / "data")
    assert sum("tasks with predictions only" in line and "(1)" in line for line in said) == 1
    refuses("no annotated face.*predictions only.*(1)", studio_faces, root, [predicted])


# ---------------------------------------------------------------------------------------------------------------- COCO
def test_coco_with_named_keypoints(tmp_path):
    root, faces = tmp_path / "set", np.array([landmarks(5), landmarks(5)])
    order = [NAMES.index(name) for name in MIXED]
    write_coco(root, [faces[0][order]], names=MIXED, table="train.json")
    write_coco(root, faces[1:], names=NAMES, table="test.json", files=["b.png"])
    splits = parse("coco", root)
    assert np.allclose([splits[name][0].landmarks - 0.5 for name in ("train", "test")], faces)
    for name in ("train", "test"):  # names of no layout: as the first file lists them
        text = (root / f"{name}.json").read_text().replace("lips_1", "jaw")
        (root / f"{name}.json").write_text(text)
    splits = parse("coco", root)
    assert np.allclose([splits[name][0].landmarks - 0.5 for name in ("train", "test")], faces[:, order])
    for old, new, fault in (
        ("jaw", "chin", "a keypoint is named 'chin', which no other category has"),
        ('"category_id": 1', '"category_id": 0', "annotation 0: its category_id 0 is in no category"),
        ('"keypoints": ["', '"names": ["', "test.json, annotation 0: its category does not name the points"),
        ('"eyes_2"', '"eyes_1"', "test.json, annotation 0: its category does not name the points"),
        ('"images": [', '"images": [{"id": 0, "file_name": "a.jpg"}, ', "two images have the id 0"),
    ):
        (root / "test.json").write_text(text.replace(old, new, 1))
        refuses(fault, parse, "coco", root)


def test_the_names_of_points():
    assert LAYOUTS.load("5").point_names() == NAMES
    assert LAYOUTS.load("29").point_names()[28] == "chin" and len(set(LAYOUTS.load("68").point_names())) == 68
    assert replace(LAYOUTS.load("5"), groups={}).point_names() == list("01234")
