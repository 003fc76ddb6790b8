"""Which split a face of a user's own set is in: the word of its list, or the folder of its picture, in every format."""

import re
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from archives import parse, prepared
from conftest import LAYOUTS, fails, load_split, refuses, works
from own_sets import FIVE, TABLES, write_pairs, write_rows, write_set

from extras.datasets import infer
from extras.datasets.naming import split_of
from extras.datasets.packed import unpack
from utils.data.prepare import DataGenerator
from utils.data.prepared_set import PreparedSet, Split, read_meta
from utils.task.check_sets import doubts

FORMATS = ("points", *TABLES)
ALL = {"train": 4, "val": 2, "test": 3}


def listed(kind, root, names, table=""):
    """Pictures of these names, each with a face of its own, and one list of all in a format."""
    table = f"{table}{Path(TABLES[kind]).suffix}" if table else ""
    return write_set(kind, root, [FIVE + i / 4 for i in range(len(names))], files=names, table=table)


def found(root):
    """{split: number of its faces}, each in a folder that the split is named by."""
    return {split: len(faces) for split, faces in parse(infer(root), root).items()}


def names_in(*folders, counts=(4, 2, 3)):
    return [f"{folder}/{i}.jpg" for folder, count in zip(folders, counts, strict=True) for i in range(count)]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "folders",
    [
        ("train", "val", "test"),
        ("TRAIN", "Valid", "Test"),
        ("trainset", "validation", "testset"),
        ("training", "val", "testing"),
        ("set/mine/train", "set/mine/val", "set/mine/test"),
        ("images/train", "images/val", "images/test"),
        ("train2017", "val2017", "test2017"),
        ("Train_images", "val-images", "TestImages"),
        ("train/images", "valid/images", "test/images"),
        ("a/train", "b/val", "b/test"),
    ],
)
def test_folders_are_splits_in_every_format(tmp_path, kind, folders):
    root = listed(kind, tmp_path / "set", names_in(*folders))
    assert infer(root) == kind
    assert found(root) == ALL


@pytest.mark.parametrize("kind", FORMATS)
def test_folders_are_splits_in_a_zip(tmp_path, kind):
    raw = listed(kind, tmp_path / "raw", names_in("mine/Train", "mine/val", "mine/testset"))
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as out:
        for path in raw.rglob("*"):
            out.write(path, f"top/{path.relative_to(raw)}")
    assert found(unpack(tmp_path / "own.zip", tmp_path / "data")) == ALL


@pytest.mark.parametrize("kind", FORMATS)
def test_faces_in_no_folder_of_a_split(tmp_path, kind, said):
    """They are training faces, unless others are in a folder of these."""
    root = listed(kind, tmp_path / "one", [*names_in("test", "val", "more", counts=(3, 2, 2)), "a.jpg", "b.jpg"])
    assert found(root) == ALL
    root = listed(kind, tmp_path / "two", [*names_in("train", "val", "test"), "a.jpg", "more/b.jpg"])
    assert found(root) == ALL
    assert "2 images outside of train, val, test are left out, such as a.jpg" in "".join(said)
    root = listed(kind, tmp_path / "three", ["a.jpg", "latest/b.jpg", "Val Smith/c.jpg", "attest/d.jpg"])
    assert found(root) == {"train": 4}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("folder", ("tests", "testpersons", "my/Test 3 old"))
def test_a_folder_of_test_faces_is_not_trained_on(tmp_path, kind, folder):
    root = listed(kind, tmp_path / "set", [f"{folder}/a.jpg", "others/b.jpg"])
    refuses(f"a.jpg would be trained on, but.*{folder.split('/')[-1]}", parse, kind, root)
    root = listed(kind, tmp_path / "contrary", ["train/x/test/a.jpg", "train/b.jpg"])
    refuses("train/x/test/a.jpg would be trained on", parse, kind, root)
    root = listed(kind, tmp_path / "person", ["train/testperson/a.jpg", "train/b.jpg"])
    assert found(root) == {"train": 2}


def test_a_list_of_training_faces_names_no_test_face(tmp_path):
    for number, kind in enumerate(FORMATS[1:]):
        root = listed(kind, tmp_path / str(number), ["train/a.jpg", "test/b.jpg"], "my_train")
        refuses("test/b.jpg would be trained on.*folder test", parse, kind, root)
        root = listed(kind, tmp_path / f"{number}-", ["images/a.jpg"], "train")
        listed(kind, root, ["images/b.jpg", "train/c.jpg"], "test")
        assert found(root) == {"train": 1, "test": 2}, "the word of a list is before the folder"
        root = listed(kind, tmp_path / f"{number}+", ["train/a.jpg", "test/b.jpg"], "train_test")
        assert found(root) == {"train": 1, "test": 1}


def test_lists_in_the_folders_of_splits_one_deeper(tmp_path):
    for split, count in ALL.items():
        write_rows(tmp_path / "set" / "mine" / split, [FIVE + i for i in range(count)])
    assert infer(tmp_path / "set") == "csv" and found(tmp_path / "set") == ALL


def test_the_subset_of_a_face_is_the_folder_below_its_split(tmp_path):
    root = tmp_path / "set"
    write_pairs(root / "mine" / "test" / "dark" / "x", [FIVE])
    write_pairs(root / "mine" / "train", [FIVE + 1])
    splits = parse("points", root)
    assert [splits[split][0].subset for split in ("train", "test")] == ["all", "dark"]
    assert list(load_split(prepared("points", root, tmp_path / "data"), "test")["file"]) == ["mine/test/dark/x/0.jpg"]


@pytest.mark.parametrize("kind", ("coco", "label-studio"))
def test_pictures_of_equal_names_in_several_splits(tmp_path, kind):
    """A list finds those of its own split; a hint names all that may be meant."""
    root = tmp_path / "set"
    for split in ("train", "test"):
        listed(kind, root, ["0.jpg", "1.jpg"], split)
        (root / split).mkdir()
        for name in ("0.jpg", "1.jpg"):
            (root / name).rename(root / split / name)
    splits = parse(kind, root)
    assert {split: [face.file for face in faces] for split, faces in splits.items()} == {
        split: [f"{split}/0.jpg", f"{split}/1.jpg"] for split in ("train", "test")
    }
    (root / "test.json").unlink()
    (root / "train.json").rename(root / "labels.json")
    refuses("test/0.jpg and train/0.jpg", parse, kind, root)


def test_the_words_of_splits():
    words = {"train_val": "train", "person_keypoints_val2017": "val", "LabelsTest": "test", "latest": None}
    assert {name: split_of(name) for name in words} == words
    folders = {"Test_data": "test", "Val_Smith": None, "training 2": "train", "crash_test": None, "valentina": None}
    assert {name: split_of(name, folder=True) for name in folders} == folders


def test_an_identity_in_train_and_test_is_said(tmp_path, said):
    root = tmp_path / "set"
    for split, people in (("train", "aabbcd"), ("val", "de"), ("test", "axbe")):
        rows = (write_rows(root / split, [FIVE + i for i in range(len(people))]) / "labels.csv").read_text().split("\n")
        rows = [f"{row},{name}" for row, name in zip(rows, ["identity", *people], strict=True)]
        (root / split / "labels.csv").write_text("\n".join(rows))
    one = PreparedSet(prepared("csv", root, tmp_path / "data"), LAYOUTS)

    def lines(one, *trained):
        splits = {name: [Split(one, name)] for name in one.splits}
        chosen = [split for name in trained for split in splits[name]]
        training = SimpleNamespace(tested=splits["test"], splits=lambda name="": splits[name] if name else chosen)
        return [line for line in doubts(training) if "identities" in line]

    first, second = lines(one, "train")
    assert first.startswith("2 of 4 test") and "2 identities, such as 'a'" in first
    assert second.startswith("1 of 2 validation")
    assert [line.split(" faces")[0] for line in lines(one, "train", "val")] == ["3 of 4 test"]
    for split in ("train", "val", "test"):
        write_rows(tmp_path / "told" / split, [FIVE])
    told = PreparedSet(prepared("csv", tmp_path / "told", tmp_path / "data"), LAYOUTS)
    assert not lines(told, "train"), "names of pictures tell no person"


def test_a_share_that_identities_do_not_allow_is_said(tmp_path, said):
    names = [*(f"IMG_{i:04d}.jpg" for i in range(6)), *(f"DSC{i:04d}.jpg" for i in range(4))]
    root = listed("csv", tmp_path / "set", names)

    def line(**options):
        said.clear()
        DataGenerator(root, 32, "csv", out=tmp_path / "data", workers=1, layout="5", **options).run()
        return [text for text in said if "identities, which are not divided" in text]

    found = line(val=0.1)
    assert len(found) == 1 and re.search(
        r"[46] of 10 .*[46]0%, not 10%.*split val.*2 identities.*--identity picture", found[0]
    )
    assert not line(val=0.3), "40 or 60 % is less than twice the share"
    assert not line(val=0.1, identity="picture")
    found = line(val=0.1, identity="folder", test_split=0.2)
    assert len(found) == 2 and all("0 of 10" in text and "--identity picture" in text for text in found)
    for name in names[2:]:
        (root / name).unlink()
    table = (root / "labels.csv").read_text().split("\n")
    (root / "labels.csv").write_text("\n".join(table[:3]))
    found = line(val=0.1, identity="picture")
    assert len(found) == 1 and "1 of 2" in found[0] and "--identity" not in found[0], "no flag can help"


def test_what_helps_where_there_are_no_validation_faces(cli, tmp_path):
    root = write_rows(tmp_path / "one", [FIVE + i for i in range(4)])
    flags = ("--layout 5 --num-nb 4 --target-size 32 --input-size 64 --preset quick --data-root", tmp_path / "data")
    flags = (*flags, "--run-root", tmp_path / "runs")
    train = ("--train --dataset", root, *flags)
    fails(cli(*train, "--identity folder"), "no validation faces.*give --identity picture")
    fails(cli(*train, "--test --test-split 0.2 --val none --identity folder"), "no test split.*--identity picture")
    works(cli("--prepare --dataset", root, *flags, "--val none"))
    name = next(path for path in (tmp_path / "data").glob("one-*/") if not read_meta(path)["val"])
    fails(cli("--train --train-data", name, *flags), "no validation faces.*give its raw folder")


@pytest.mark.parametrize("kind", FORMATS)
def test_folders_of_systems_are_left_out(tmp_path, kind, said):
    root = listed(kind, tmp_path / "set", ["a.jpg", "x/b.jpg"])
    write_pairs(root / "#recycle" / "test", [FIVE])
    write_pairs(root / "x" / "@eaDir", [FIVE])
    assert infer(root) == kind and found(root) == {"train": 2}
    prepared(kind, root, tmp_path / "data")
    assert sum("folders of the system, such as" in line and "#recycle (2)" in line for line in said) == 1
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as out:
        for path in root.rglob("*"):
            out.write(path, path.relative_to(root))
    assert found(unpack(tmp_path / "own.zip", tmp_path / "data")) == {"train": 2}
