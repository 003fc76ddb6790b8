"""Exports of CVAT and Label Studio, and COCO files whose categories name the keypoints."""

import json

import numpy as np
import pytest
from archives import landmarks, parse, picture, prepared
from conftest import LAYOUTS, load_split, refuses, spoilt

from extras.datasets import infer
from pipnet.errors import UserError
from utils.data.prepared_set import PreparedSet, read_meta
from utils.settings.layouts import Layouts

NAMES = ["eyes_1", "eyes_2", "nose", "lips_1", "lips_2"]  # of layout 5
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


def cvat(*images: str, meta: str = META) -> str:
    return f"<annotations><version>1.1</version><meta><task><labels>{meta}</labels></task></meta>{''.join(images)}</annotations>"


def shape(name: str, point, **more: str) -> str:
    more = "".join(f' {key}="{value}"' for key, value in more.items())
    return f'<points label="{name}" source="manual" points="{point[0]:.2f},{point[1]:.2f}"{more}></points>'


def skeleton(face, **more) -> str:
    """The skeleton of a face; more: attributes of a point by its name."""
    shapes = [shape(name, face[NAMES.index(name)], **more.get(name, {})) for name in reversed(MIXED)]
    return f'<skeleton label="face" z_order="0">{"".join(shapes)}</skeleton>'


def test_cvat(points, tmp_path):
    root = tmp_path / "set"
    one = skeleton(points[0], nose={"outside": "1"}, lips_1={"occluded": "1"})
    image = '<image id="{}" name="{}" width="160" height="120">{}</image>'
    (root / "annotations.xml").write_text(
        cvat(
            image.format(0, "a.jpg", one),
            image.format(1, "b.png", skeleton(points[1])),
            image.format(2, "gone.jpg", ""),
        )
    )
    assert infer(root) == "cvat"
    first, second = parse("cvat", root)["train"]
    assert np.allclose(first.landmarks[[0, 1, 3, 4]], points[0][[0, 1, 3, 4]], atol=0.006), (
        "continuous px, in the layout's order"
    )
    assert np.isnan(first.landmarks[2]).all() and first.visible.tolist() == [True, True, False, False, True]
    assert np.allclose(second.landmarks, points[1], atol=0.006) and second.image == root / "images" / "b.png"
    folder = prepared("cvat", root, tmp_path / "data")
    assert PreparedSet(folder, LAYOUTS).mismatch() == ""
    other = {**LAYOUTS.rows["5"], "groups": {"eyes": [1, 0], "nose": [2], "lips": [3, 4]}}
    assert (
        "prepared with the points in another order"
        in PreparedSet(folder, Layouts({**LAYOUTS.rows, "5": other})).mismatch()
    )
    assert (
        read_meta(folder)["layout"] == "5" and read_meta(folder)["origin"] == 0.5 and len(load_split(folder, "train"))
    )

    loose = "".join(
        shape(name, face[NAMES.index(name)], group_id=str(group)) for name in MIXED for group, face in enumerate(points)
    )
    (root / "annotations.xml").write_text(cvat(image.format(0, "a.jpg", loose)))
    assert np.allclose([face.landmarks for face in parse("cvat", root)["train"]], points, atol=0.006), (
        "single points in groups"
    )
    lists = [";".join(f"{x:.2f},{y:.2f}" for x, y in face) for face in points]
    (root / "annotations.xml").write_text(
        cvat(image.format(0, "a.jpg", "".join(f'<points points="{one}"/>' for one in lists)))
    )
    assert np.allclose([face.landmarks for face in parse("cvat", root)["train"]], points, atol=0.006), (
        "shapes of several points"
    )

    (root / "images" / "Test").mkdir()
    (root / "images" / "b.png").rename(root / "images" / "Test" / "b.png")
    (root / "annotations.xml").write_text(
        cvat(image.format(0, "a.jpg", one), image.format(1, 'b.png" subset="Test', skeleton(points[1])))
    )
    splits = parse("cvat", root)
    assert [face.image.name for name in ("train", "test") for face in splits[name]] == ["a.jpg", "b.png"], (
        "subsets of CVAT"
    )
    for text, fault in (
        ("", "not an XML file"),
        ("<annotations>", "not an XML file"),
        ("<a/>", "CVAT for images 1.1"),
        ("<annotations><track/></annotations>", "CVAT for images 1.1"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "declares a DOCTYPE"),
        (cvat(image.format(0, "../a.jpg", one)), "leads out of"),
        (cvat(image.format(0, "c.jpg", one)), "no image c.jpg"),
        (cvat(), "no annotated"),
        (cvat(image.format(0, "a.jpg", shape("nose", (1, 2)) * 2)), "two points are named 'nose'"),
        (cvat(image.format(0, "a.jpg", '<points label="a" points="1,x"/>')), "'1,x' where"),
    ):
        spoilt(root / "annotations.xml", text, fault, parse, "cvat", root)
    with pytest.raises(UserError, match="5 points.*68"):
        (root / "annotations.xml").write_text(cvat(image.format(0, "a.jpg", one)))
        parse("cvat", root, count=68)
    (root / "annotations.xml").write_text(cvat(image.format(0, "c.jpg", one)))
    refuses("no image c.jpg", parse, "cvat", root, count=68)


def region(name: str, point, **more) -> dict:
    value = {"x": point[0] / 1.6, "y": point[1] / 1.2, "width": 0.5, "keypointlabels": [name]}
    return {"type": "keypointlabels", "original_width": 160, "original_height": 120, "value": value, **more}


def test_label_studio(points, tmp_path):
    root, file = tmp_path / "set", tmp_path / "set" / "project-1.json"
    many = [
        region(name, face[NAMES.index(name)], parentID=str(number))
        for number, face in enumerate(points)
        for name in NAMES
    ]
    tasks = [
        {
            "id": 7,
            "data": {"img": "/data/upload/3/1a2b3c4d-a.jpg"},
            "annotations": [
                {"was_cancelled": True, "result": []},
                {"result": [region(name, points[0][NAMES.index(name)]) for name in MIXED if name != "nose"]},
            ],
        },
        {
            "id": 8,
            "data": {"img": "/data/local-files/?d=images/b.png"},
            "annotations": [
                {
                    "result": [
                        {
                            "id": "r",
                            "type": "rectanglelabels",
                            "original_width": 160,
                            "original_height": 120,
                            "value": {"x": 1, "y": 1},
                        },
                        *many,
                    ]
                }
            ],
        },
    ]
    file.write_text(json.dumps(tasks))
    assert infer(root) == "label-studio"
    first, *others = parse("label-studio", root)["train"]
    assert first.image == root / "a.jpg" and np.isnan(first.landmarks[2]).all()
    assert np.allclose(first.landmarks[[0, 1, 3, 4]], points[0][[0, 1, 3, 4]])
    assert np.allclose([face.landmarks for face in others], points) and others[1].file == "images/b.png#2"
    folder = prepared("label-studio", root, tmp_path / "data")
    assert read_meta(folder)["layout"] == "5" and read_meta(folder)["origin"] == 0.5

    regions = [region(str(8 + number), point) for number, point in enumerate(points[0])]
    flat = [{"original_width": 160, "original_height": 120, **one["value"]} for one in regions]
    file.write_text(json.dumps([{"id": 1, "img": "/data/upload/1a2b3c4d-a.jpg", "kp": flat}]))
    assert np.allclose(parse("label-studio", root)["train"][0].landmarks, points[0]), "JSON-MIN; 8, 9, 10 in this order"
    for change, fault in (
        ([{**tasks[1], "data": {"img": "x/c.jpg"}}], "no image x/c.jpg"),
        ([{**tasks[0], "annotations": [{"result": [region("a", (1, 2))] * 2}]}], "two points are named 'a'"),
        ([{**tasks[0], "annotations": [{"result": [region("a", (1, 2), image_rotation=90)]}]}], "was rotated"),
        ([3], "not a task of Label Studio"),
        ([{**tasks[0], "data": {}}], "not a task"),
        ([], "no annotated"),
    ):
        spoilt(file, json.dumps(change), fault, parse, "label-studio", root)


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
    face = [region(one, points[0][NAMES.index(one)]) for one in NAMES]
    (root / "project.json").write_text(json.dumps([{"data": {"img": name}, "annotations": [{"result": face}]}]))
    assert parse("label-studio", root)["train"][0].image == root / "a.jpg"


def test_which_annotation_of_a_task_counts(points, tmp_path, said):
    root, file = tmp_path / "set", tmp_path / "set" / "project.json"
    one, other = ([region(name, face[NAMES.index(name)]) for name in NAMES] for face in points)
    truth = {"result": other, "ground_truth": True}
    tasks = [{"data": {"img": "a.jpg"}, "annotations": [{"result": one, "ground_truth": False}, truth]}]
    file.write_text(json.dumps(tasks))
    assert np.allclose(parse("label-studio", root)["train"][0].landmarks, points[1])
    tasks.append({"data": {"img": "b.png"}, "annotations": [], "predictions": [{"result": one}]})
    file.write_text(json.dumps(tasks))
    prepared("label-studio", root, tmp_path / "data")
    assert sum("tasks with predictions only" in line and "(1)" in line for line in said) == 1
    file.write_text(json.dumps(tasks[1:]))
    refuses("no annotated face.*predictions only.*(1)", parse, "label-studio", root)


def test_coco_with_named_keypoints(points, tmp_path):
    root = tmp_path / "set"

    def write(split: str, name: str, names: list[str], face: np.ndarray) -> None:
        keypoints = np.column_stack([face[[NAMES.index(one) for one in names]], np.full(5, 2)]).ravel().tolist()
        (root / f"{split}.json").write_text(
            json.dumps(
                {
                    "images": [{"id": 1, "file_name": name}],
                    "categories": [{"id": 4, "name": "face", "keypoints": names}],
                    "annotations": [{"id": 1, "image_id": 1, "category_id": 4, "keypoints": keypoints}],
                }
            )
        )

    write("train", "a.jpg", MIXED, points[0])
    write("test", "b.png", NAMES, points[1])
    splits = parse("coco", root)
    assert np.allclose([splits[name][0].landmarks - 0.5 for name in ("train", "test")], points)
    for name in ("train", "test"):
        text = (
            (root / f"{name}.json").read_text().replace("lips_1", "jaw")
        )  # names of no layout: as the first file lists them
        (root / f"{name}.json").write_text(text)
    splits = parse("coco", root)
    order = [MIXED.index(name) for name in NAMES]
    assert np.allclose([splits[name][0].landmarks[order] - 0.5 for name in ("train", "test")], points)
    text = (root / "test.json").read_text()
    for old, new, fault in (
        ("jaw", "chin", "a keypoint is named 'chin', which no other category has"),
        ('"category_id": 4', '"category_id": 0', "annotation 1: its category_id 0 is in no category"),
        ('"keypoints": ["', '"names": ["', "test.json, annotation 1: its category does not name the points"),
        ('"eyes_2"', '"eyes_1"', "test.json, annotation 1: its category does not name the points"),
        ('"images": [', '"images": [{"id": 1, "file_name": "a.jpg"}, ', "two images have the id 1"),
    ):
        spoilt(root / "test.json", text.replace(old, new, 1), fault, parse, "coco", root)


def test_the_names_of_points():
    assert LAYOUTS.load("5").point_names() == NAMES
    assert LAYOUTS.load("29").point_names()[28] == "chin" and len(set(LAYOUTS.load("68").point_names())) == 68
    assert LAYOUTS.load("5")._replace(groups={}).point_names() == list("01234")


def part(label: str, face, **more: str) -> str:
    attributes = "".join(f' {key}="{value}"' for key, value in more.items())
    return f'<points label="{label}"{attributes} points="{";".join(f"{x:.2f},{y:.2f}" for x, y in face)}"/>'


def test_a_face_of_several_shapes_in_cvat(points, tmp_path):
    """Shapes of one group are one face, in the order of the task's labels; without a group that is not known."""
    root, image = tmp_path / "set", '<image id="{}" name="{}" width="160" height="120">{}</image>'
    file, meta = root / "annotations.xml", "".join(f"<label><name>{name}</name></label>" for name in ("eyes", "mouth"))

    def write(first: str, second: str) -> None:
        file.write_text(cvat(image.format(0, "a.jpg", first), image.format(1, "b.png", second), meta=meta))

    one, other = points
    two = (part("mouth", one[2:], group_id="1"), part("eyes", one[:2], group_id="1"))
    three = "".join(
        (
            part("eyes", other[:2], group_id="4"),
            part("mouth", other[2:], group_id="4"),
            part("eyes", one[:2], group_id="5"),
        )
    )
    write("".join(two), three)
    faces = parse("cvat", root)["train"]
    assert np.allclose([face.landmarks for face in faces[:2]], points, atol=0.006)
    assert np.allclose(faces[2].landmarks[:2], one[:2], atol=0.006) and np.isnan(faces[2].landmarks[2:]).all()
    write("".join(two), part("eyes", other[:2], group_id="0") + part("mouth", other[2:]))
    refuses("image b.png: .*'eyes' and 'mouth'", parse, "cvat", root)
    write("".join(two), part("eyes", other[:2]))
    refuses("image b.png: .*'eyes' has no group", parse, "cvat", root)
    write("".join(two), part("eyes", other[:2], group_id="1") + part("mouth", other[1:], group_id="1"))
    refuses("image b.png: 4 points in the shape 'mouth'", parse, "cvat", root)
    write(skeleton(one), skeleton(other) + shape("mouth", other[3]))
    refuses("image b.png: .*'face' and 'mouth'", parse, "cvat", root)


def test_names_without_an_ending_as_in_video_tasks_of_cvat(points, tmp_path):
    root = tmp_path / "set"
    (root / "a.jpg").rename(root / "frame_000001.PNG")
    image = f'<image id="1" name="frame_000001" width="160" height="120">{skeleton(points[0])}</image>'
    (root / "annotations.xml").write_text(cvat(image))
    assert parse("cvat", root)["train"][0].image == root / "frame_000001.PNG"
    picture(root / "frame_000001.jpg")
    refuses("frame_000001.PNG and frame_000001.jpg both fit", parse, "cvat", root)
