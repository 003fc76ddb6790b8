"""Own sets in one file, a CSV or COCO's JSON."""

import json
import os
import shutil

import archives
import numpy as np
import pytest
from archives import coco, header, parse, picture, prepared, write_csv
from conftest import LAYOUTS, load_split, refuses, spoilt
from own_sets import FIVE

from extras.datasets import DATASETS, infer, own
from extras.datasets.own_layout import layout_of
from utils.data.prepared_set import read_meta

table = pytest.fixture(archives.table)


def test_csv(table, tmp_path):
    root, faces = table
    faces["train"][0][1][3] = np.nan
    for split, rows in faces.items():
        write_csv(root / f"{split}.csv", rows)
    assert infer(root) == "csv"
    splits = parse("csv", root)
    for split, rows in faces.items():
        for record, (name, points) in zip(splits[split], rows, strict=True):
            assert np.allclose(record.landmarks, points + 0.5, equal_nan=True) and not hasattr(record, "visible")
            assert np.allclose(record.box, [*np.nanmin(points + 0.5, 0), *np.nanmax(points + 0.5, 0)])
            assert record.image in (root / name, root / "images" / name)
    folder = prepared("csv", root, tmp_path / "data")
    assert np.isnan(load_split(folder, "train")["landmarks"][..., 0]).sum() == 1
    assert list(load_split(folder, "test")["file"]) == ["c.jpg", "c.jpg#2"] and read_meta(folder)["layout"] == "5"


@pytest.mark.parametrize(
    ("cells", "fault"),
    [
        ("a 1.jpg,1,2", "line 2: 3 cells"),
        ("none.jpg" + 10 * ",1", "line 2: no image none.jpg"),
        ("../x.jpg" + 10 * ",1", "leads out of"),
        ("a 1.jpg,,2" + 8 * ",1", "line 2: one coordinate"),
        ("a 1.jpg" + 10 * ",x", "not a number"),
        ("a 1.jpg" + 10 * ",1_0", "not a number"),
        ("a 1.jpg" + 10 * ",٣", "not a number"),
        ("a 1.jpg" + 10 * ",inf", "not a coordinate"),
        ("a 1.jpg" + 10 * ",", "none of its points"),
        ("", "no annotated face"),
        (f'"{"a" * 200_000}', "not a CSV file"),
    ],
)
def test_faults_of_a_csv(table, cells, fault):
    (table[0] / "faces.csv").write_text(f"{header(5)}\n{cells}")
    assert "\n" not in refuses(fault, parse, "csv", table[0])


def test_the_header_and_the_name_of_a_csv(table):
    root, faces = table
    file = root / "faces.csv"
    for text, fault in (("", "line 1: ''"), ("a 1.jpg,1,2\n", "line 1")):
        spoilt(file, text, fault, parse, "csv", root)
    write_csv(file, faces["train"])
    refuses("5 points.*68", parse, "csv", root, count=68)
    file = file.rename(root / "latest.csv")
    assert list(parse("csv", root)) == ["train"]  # which is not test.csv
    shutil.copy(file, root / "more.csv")
    refuses("latest.csv.*more.csv", parse, "csv", root)


def test_coco(table, tmp_path):
    root, faces = table
    (root / "annotations").mkdir()
    for split, rows in faces.items():
        (root / "annotations" / f"person_keypoints_{split}2017.json").write_text(json.dumps(coco(rows)))
    assert infer(root) == "coco"
    splits = parse("coco", root)
    for split, rows in faces.items():
        for index, (record, (_, points)) in enumerate(zip(splits[split], rows, strict=True)):
            assert np.allclose(record.landmarks[[0, 1, 2, 4]], points[[0, 1, 2, 4]] + 0.5)
            assert np.isnan(record.landmarks[3]).all() == (index == 0)  # v = 0
            assert record.visible.tolist() == [True, False, True, index == 1, True]
            assert record.box.tolist() == [20 + index, 10, 130 + index, 110]
    folder = prepared("coco", root, tmp_path / "data")
    assert np.array_equal(load_split(folder, "train")["visible"][0], [1, 0, 1, np.nan, 1], equal_nan=True)
    assert read_meta(folder)["name"] == "own set"


GONE = {"id": 1, "file_name": "c.jpg"}
KEYS = {"image_id": 0, "keypoints": [1, 2, 2]}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"images": []}, "annotation 0: keypoints"),
        ({"annotations": []}, "no annotated face"),
        ({"images": 3}, "not COCO keypoints"),
        ({"annotations": [3]}, "not COCO keypoints"),
        ({"categories": [{"keypoints": 3}]}, "not COCO keypoints"),
        ({"images": [{"id": 0, "file_name": "/etc/passwd"}, GONE]}, "leads out of"),
        ({"images": [{"id": 0, "file_name": "z.jpg"}, GONE]}, "no image z.jpg"),
        ({"images": [{"id": 0, "file_name": "\ud800.jpg"}, GONE]}, "cannot be the name of a file"),
        ({"images": [{"id": 0, "file_name": "x/c.jpg"}, GONE]}, "but c.jpg; list it by that name"),
        ({"annotations": [{**KEYS, "keypoints": [1, 2]}]}, "annotation 1: keypoints"),
        ({"annotations": [{**KEYS, "keypoints": [1, 2, 7]}]}, "v 0, 1 or 2"),
        ({"annotations": [{**KEYS, "keypoints": [10**400, 2, 2]}]}, "annotation 1: keypoints"),
        ({"annotations": [{**KEYS, "image_id": []}]}, "annotation 1: keypoints"),
        ({"annotations": [{**KEYS, "category_id": []}]}, "annotation 1: keypoints"),
        ({"annotations": [{**KEYS, "keypoints": [40, 40, 2] * 5, "bbox": [1, 2, 0, 5]}]}, "its face box is empty"),
    ],
)
def test_faults_of_coco(table, change, fault):
    root, faces = table
    (root / "faces.json").write_text(json.dumps(coco(faces["train"]) | change))
    assert infer(root) == "coco"
    refuses(fault, parse, "coco", root)


@pytest.mark.parametrize("text", ["", "[", "[]", "[" * 100_000, '{"images": 3'])
def test_a_damaged_json(table, text):
    (table[0] / "faces.json").write_text(text)
    refuses("faces.json", parse, "coco", table[0])


def test_csv_as_spreadsheets_write_it(table, said):
    """UTF-16 with tabs, cp1252 with semicolons and decimal commas; names on the disk in UTF-8 or in the table's bytes."""
    root, faces = table
    _, points = faces["train"][0]
    name = "Größe.jpg"
    shutil.copy(root / faces["train"][0][0], root / name)
    file = root / "faces.csv"
    plain = f"{header(5)}\n{name},{','.join(map(str, points.ravel()))}\n"
    commas = plain.replace(",", ";").replace(".", ",").replace(",jpg", ".jpg")
    for text, encoding in (
        (plain, "cp1252"),
        (commas, "cp1252"),
        (plain.replace(",", "\t"), "utf-16"),
        (plain, "utf-16-le"),
    ):
        file.write_bytes(text.encode(encoding))
        assert np.allclose(parse("csv", root)["train"][0].landmarks, points + 0.5)
    file.write_bytes(plain.encode("cp1252"))
    (root / name).rename(root / os.fsdecode(name.encode("cp1252")))
    assert len(parse("csv", root)["train"]) == 1
    prepared("csv", root, root.parent / "data", layout="5")
    assert "faces.csv is not UTF-8; it is read as cp1252" in "".join(said)


def test_a_column_that_is_no_point_is_named(table):
    root, faces = table
    name, points = faces["train"][0]
    cells = list(map(str, points.ravel()))
    head = header(5).split(",")
    for place in (1, 3, 11):
        rows = ([*head[:place], "width", *head[place:]], [name, *cells[: place - 1], "9", *cells[place - 1 :]])
        (root / "faces.csv").write_text("\n".join(map(",".join, rows)))
        refuses("line 1: the column 'width'", parse, "csv", root)


@pytest.mark.parametrize("mark", (",", ";", "\t"))
def test_csv_with_columns_in_another_order(table, mark):
    """`file` is not the first column, and a comma ends each line, or some."""
    root, faces = table
    lines = []
    for name, points in faces["train"]:
        cells = [f"{value:.2f}".replace(".", "," if mark == ";" else ".") for value in points.ravel()]
        lines.append([*cells[:3], "1", *cells[3:], name, ""])
    head = header(5).split(",")
    lines.insert(0, [*head[1:4], "first_pixel", *head[4:], "File", ""])
    for ends in (slice(0, 99), slice(0, -1)):
        text = [mark.join(line) for line in (lines[0], *(line[ends] for line in lines[1:]))]
        (root / "faces.csv").write_text("\n".join(text))
        found = parse("csv", root)["train"]
        for record, (name, points) in zip(found, faces["train"], strict=True):
            assert np.allclose(record.landmarks, points - 0.5, atol=0.006) and record.image.name == name.split("/")[-1]
    (root / "faces.csv").write_text("\n".join([mark.join(lines[0]), mark.join([*lines[1], "7"])]))
    refuses("line 2: 14 cells", parse, "csv", root)
    (root / "faces.csv").write_text("\n".join(mark.join(line) for line in lines).replace("File", "picture"))
    refuses("line 1: 'x0,y0.*file,x0,y0", parse, "csv", root)


def test_coco_with_many_faces_in_a_picture(tmp_path, monkeypatch):
    """The header of a picture is read as often as with one face; numbers are held as arrays."""
    opened = []
    monkeypatch.setattr(own.Image, "open", lambda file, inner=own.Image.open: opened.append(file) or inner(file))
    picture(tmp_path / "set" / "0.jpg")
    faces = [("0.jpg", FIVE + i / 10) for i in range(400)]
    content = coco(faces)
    for row in content["annotations"]:
        row["bbox"] = [20, 10, 120, 100]
    (tmp_path / "set" / "faces.json").write_text(json.dumps(content))
    archive = DATASETS["coco"].load(tmp_path / "set", layouts=LAYOUTS)
    layout_of(archive, LAYOUTS.load("5"))
    assert len(archive) == 400 and 0 < len(opened) < 10
