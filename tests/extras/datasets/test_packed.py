"""Own sets that come as a ZIP, and those in formats that are not read."""

import json
import re
import zipfile

import pytest
from archives import picture
from conftest import made_in, refuses
from own_sets import FIVE, write_coco, write_cvat, write_pairs, write_rows

from extras.datasets import DATASETS, infer
from extras.datasets.packed import unpack
from main import main
from utils.data.prepared_set import read_meta

LABELME = json.dumps({"version": "5.2.1", "shapes": [{"label": "nose", "points": [[1, 2]]}], "imagePath": "0.jpg"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("0.json", LABELME),
        (
            "train.json",
            json.dumps([{"image_path": "0.jpg", "keypoints": [[1, 2]], "bbox": [0, 0, 1, 1], "attr": None}]),
        ),
        ("results.json", json.dumps([{"image_id": 1, "keypoints": [1, 2, 2], "score": 0.5}])),
        ("via.json", json.dumps({"_via_settings": {}, "_via_img_metadata": {}})),
        ("voc.xml", "<annotation><folder>a</folder></annotation>"),
        ("via.csv", "filename,file_size,file_attributes,region_count\n0.jpg,9,{},1\n"),
        ("dlib.xml", "<?xml version='1.0'?>\n<dataset><images><image file='0.jpg'></image></images></dataset>"),
        ("labels/0.txt", "0 0.5 0.5 0.2 0.3 0.41 0.52 2 0.6 0.52 2\n"),
    ],
)
def test_formats_that_are_not_read(tmp_path, name, text):
    picture(tmp_path / "0.jpg")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    text = refuses(str(tmp_path), DATASETS[infer(tmp_path)].load, tmp_path)
    formats = {
        "0.json": "labelme",
        "train.json": "Peppa",
        "results.json": "results",
        "via.json": "VIA",
        "dlib.xml": "dlib",
    }
    assert formats.get(name, "") in text and "CVAT" not in text.removesuffix("XML of CVAT")
    if name.endswith(".json"):
        (tmp_path / "1.json").write_text((tmp_path / name).read_text())
        refuses(formats[name], DATASETS[infer(tmp_path)].load, tmp_path)


def packed(folder, file, top=""):
    with zipfile.ZipFile(file, "w") as out:
        for path in folder.rglob("*"):
            out.write(path, f"{top}{path.relative_to(folder)}")
        out.writestr(f"{top}run.sh", "rm -rf /")
    return file


@pytest.mark.parametrize("top", ("", "mine/"))
@pytest.mark.parametrize("write", (write_pairs, write_rows, write_coco, write_cvat))
def test_a_zip_is_unpacked_once(tmp_path, write, top):
    file = packed(write(tmp_path / "raw", [FIVE, FIVE + 3]), tmp_path / "mine.zip", top)
    root = tmp_path / "data"
    folder = unpack(file, root)
    assert len(DATASETS[infer(folder)].load(folder)) == 2 and folder.name == "mine" and not (folder / "run.sh").exists()
    assert unpack(file, root) == folder and len([*(root / "unpacked").iterdir()]) == 1


def test_a_zip_is_named_in_the_place_of_a_folder(tmp_path, capsys):
    file = packed(write_rows(tmp_path / "raw", [FIVE + i for i in range(6)]), tmp_path / "mine.zip")
    flags = ["--prepare", "--dataset", str(file), "--data-root", str(tmp_path / "data"), "--target-size", "32"]
    main([*flags, "--layout", "5"])
    assert re.match(rf"[0-9:]{{8}} {file} is unpacked into ", capsys.readouterr().err)  # as all lines of a run begin
    assert read_meta(made_in(tmp_path / "data", "mine"))["found"] == {"all": 6}
    (tmp_path / "only").mkdir()
    file.rename(tmp_path / "only" / "mine.zip")
    refuses("mine.zip; unpack it there, or give the ZIP itself", DATASETS["points"].load, tmp_path / "only")


def test_what_a_refused_set_unpacked_is_removed(tmp_path):
    file = packed(write_rows(tmp_path / "raw", [FIVE + i for i in range(6)]), tmp_path / "mine.zip")
    flags = ["--prepare", "--dataset", str(file), "--data-root", str(tmp_path / "data"), "--target-size", "32"]
    refuses("mine", main, [*flags, "--layout", "68"])
    assert not [*(tmp_path / "data" / "unpacked").iterdir()]
    main([*flags, "--layout", "5"])
    refuses("", main, [*flags, "--layout", "68"])  # a prepared set needs it
    assert len([*(tmp_path / "data" / "unpacked").iterdir()]) == 1


@pytest.mark.parametrize("name", ("...zip", "..zip", "....zip"))
def test_the_name_of_a_zip_leads_nowhere_else(tmp_path, name):
    file = packed(write_pairs(tmp_path / "raw", [FIVE]), tmp_path / name)
    folder = unpack(file, tmp_path / "data")
    assert folder.resolve().parent.parent == tmp_path / "data" / "unpacked" and len([*folder.glob("*.pts")]) == 1


def test_a_small_zip_of_much_is_refused_before_anything_is_unpacked(tmp_path, monkeypatch):
    file, root = tmp_path / "mine.zip", tmp_path / "data"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name in ("a.csv", "b.csv"):
            out.writestr(name, bytes(2 << 20))
    monkeypatch.setattr("pipnet.bounds.FREELY", 3 << 20)
    refuses("mine.zip: .* unpack to 4,194,304", unpack, file, root)
    monkeypatch.setattr("pipnet.bounds.FREELY", 5 << 20)
    monkeypatch.setattr("pipnet.bounds.MOST_BYTES", 1 << 20)
    refuses("mine.zip: 'a.csv' in it", unpack, file, root)
    assert not [path for path in root.rglob("*") if path.is_file()]


def test_a_zip_that_cannot_be_unpacked(tmp_path, monkeypatch):
    file = tmp_path / "mine.zip"
    for name in ("../x.jpg", "/tmp/x.jpg", "a/../../x.jpg"):
        with zipfile.ZipFile(file, "w") as out:
            out.writestr(name, "x")
        refuses("mine.zip.*leads out", unpack, file, tmp_path / "data")
    for content in (b"", b"PK\3\4" + bytes(50)):
        file.write_bytes(content)
        refuses("mine.zip", unpack, file, tmp_path / "data")
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("notes.doc", "x")
    refuses("mine.zip: no picture", unpack, file, tmp_path / "data")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("x.jpg", bytes(1 << 20))
    locked = bytearray(file.read_bytes())
    locked[locked.index(b"PK\1\2") + 8] |= 1  # the flag of an encrypted file
    file.with_name("locked.zip").write_bytes(locked)
    refuses("locked.zip.*password", unpack, file.with_name("locked.zip"), tmp_path / "data")
    monkeypatch.setattr("extras.datasets.packed.SPARE", 1 << 60)
    refuses("mine.zip.*no room", unpack, file, tmp_path / "data")
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
