"""Sets whose annotations are lists and text files: each field of a small archive comes back as the release means it."""

import os
import shutil

import archives
import numpy as np
import pytest
import torch
from archives import parse, picture, prepared, wflw_line
from conftest import LAYOUTS, fails, load_split, made_in, refuses, split_of, spoilt, works

from extras.datasets import Archive, infer
from nets.labels import Prediction
from utils.data.prepared_set import load_splits, read_meta
from utils.evaluate.evaluate import Comparison, evaluate, subset_rows
from utils.evaluate.tables import Case, score_rows

wflw, lapa, jd, mtfl = map(pytest.fixture, (archives.wflw, archives.lapa, archives.jd, archives.mtfl))


# ----------------------------------------------------------------------------------------------------------------- WFLW
def test_wflw(wflw, tmp_path):
    root, lists = wflw
    assert infer(root) == "wflw"
    splits = parse("wflw", root, allow_partial=True)
    for split, faces in lists.items():
        for record, (points, box, flags, name) in zip(splits[split], faces, strict=True):
            assert np.allclose(record.landmarks, points + 0.5, atol=1e-6) and np.allclose(
                record.box, np.array(box) + 0.5
            )
            assert (
                record.states.tolist() == [flag == 1 for flag in flags]
                and not {"visible", "pose"} & vars(record).keys()
            )
            assert (
                record.image == root / "WFLW_images" / name and record.identity == name
            )  # faces of a photograph stay together
    assert [record.subset for record in splits["train"]] == ["train"] * 3
    # by first coordinate and name: faces 1 and 2 of the test share a photograph
    assert [record.subset for record in splits["test"]] == [
        "test//largepose//occlusion",
        "test//illumination",
        "test//largepose//blur",
    ]
    folder = prepared("wflw", root, tmp_path / "data")
    meta, table = read_meta(folder), load_split(folder, "test")
    assert (meta["layout"], meta["states"]) == (
        "98",
        ["pose", "expression", "illumination", "makeup", "occlusion", "blur"],
    )
    assert meta["expected"]["blur"] == 773 and meta["found"]["largepose"] == 2 and meta["found"]["train"] == 3
    assert table["states"][:].tolist() == np.eye(6)[:3].astype(bool).tolist() and "pose" not in table
    names = "0--Event/b_0.jpg", "1--Event/b_1.jpg", "1--Event/b_1.jpg#2"
    assert list(table["file"]) == [f"WFLW_images/{name}" for name in names]
    layout = LAYOUTS.load("98")
    faces = load_splits([split_of(folder, "test")], layout, 32, 1.0)
    centre = Prediction(torch.full((1, 98, 2), 0.5), torch.ones(1, 98))
    result = evaluate(
        lambda images: Prediction(
            *(part if part is None else part.expand(len(images), *part.shape[1:]) for part in centre)
        ),
        faces,
        layout,
        "interocular",
        2,
    )
    rows = score_rows(
        Case(split_of(folder).set, "wflw", "wflw", "true", faces, Comparison(layout)), "centre", result, [10.0]
    )
    assert [(row["test set"], row["faces"]) for row in rows] == [
        ("wflw", "3"),
        ("  largepose", "2"),
        ("  illumination", "1"),
        ("  occlusion", "1"),
        ("  blur", "1"),
    ]  # as published, not by alphabet
    assert float(rows[1]["NME %"]) == pytest.approx(result.nme[[0, 2]].mean(), abs=1e-3)
    case, unknown = (
        Case(split_of(folder).set, "wflw", "wflw", "detector", faces, Comparison(layout), 2),
        result.nme.copy(),
    )
    unknown[0] = np.nan
    row = score_rows(case, "centre", result._replace(nme=unknown), [10.0])[0]
    assert [row[key] for key in ("faces", "without norm", "missed")] == ["3", "1", "2"]
    refuses("wflw.*68", prepared, "wflw", root, tmp_path / "other", layout="68")


def test_wflw_from_the_command_line(wflw, tmp_path, cli):
    root, _ = wflw
    flags = ("--prepare", "--data-dir", root, "--data-root", tmp_path / "data", "--target-size", "32")
    done = cli("--dataset wflw", *flags)
    assert done.returncode == 1 and "Traceback" not in done.stderr and not list((tmp_path / "data").glob("*wflw*"))
    assert "error: " in done.stderr and "(--allow-partial):\n  train: 3 of 7500 faces\n" in done.stderr
    done = works(cli(*flags, "--allow-partial --protocol wflw"))  # the folder says which set it is
    assert "WFLW is partial: blur: 1 of 773 faces" in done.stderr
    table = load_split(made_in(tmp_path / "data", "wflw"), "test")
    x1, y1, x2, y2 = table["box"][0]
    width, height = 0.1 * (x2 - x1), 0.1 * (y2 - y1)
    assert np.allclose(table["crop"][0], [x1 - width, y1 - height, x2 + width, y2 + height])


def test_wflw_incomplete_or_wrong(wflw):
    root, lists = wflw
    refuses(r"7500(.|\n)*2500(.|\n)*326(.|\n)*blur: 1", parse, "wflw", root)
    (root / "WFLW_images" / lists["train"][0][3]).unlink()
    refuses(r"7500(.|\n)*a_0.jpg", parse, "wflw", root)
    assert len(parse("wflw", root, allow_partial=True)["train"]) == 2
    file = root / "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_train.txt"
    points, box, flags, name = lists["train"][1]
    for text, fault in [
        (wflw_line(points[:-1], box, flags, name), "line 1: 205 values"),
        (wflw_line(points, box, [2] * 6, name), "line 1: an attribute"),
        (wflw_line(points, ("a", 0, 1, 1), flags, name), "line 1: not a coordinate"),
        (wflw_line(points * np.inf, box, flags, name), "line 1: not a coordinate"),
        (wflw_line(points, (50, 50, 50, 90), flags, name), "line 1: its face box is empty"),
        (wflw_line(points, box, flags, "../../secret.jpg"), "line 1: '../../secret.jpg' leads out of"),
        (wflw_line(points, box, flags, "/etc/passwd"), "line 1: '/etc/passwd' leads out of"),
    ]:
        spoilt(file, text + "\n", fault, parse, "wflw", root, allow_partial=True)
    outside = picture(root.parent / "outside.jpg")
    os.symlink(outside, root / "WFLW_images" / "link.jpg")
    file.write_text(wflw_line(points, box, flags, "link.jpg") + "\n")
    refuses("'link.jpg'", parse, "wflw", root, allow_partial=True)
    file.write_text("")
    shutil.move(root / "WFLW_images", root.parent / "moved")
    (root / "WFLW_images").symlink_to(root.parent / "moved")
    refuses("through a link", parse, "wflw", root, allow_partial=True)
    subset = root / "WFLW_annotations/list_98pt_test/list_98pt_test_blur.txt"
    spoilt(subset, wflw_line(points, (), (), name), "blur.txt, line 1", parse, "wflw", root, allow_partial=True)


# ----------------------------------------------------------------------------------------------------------------- LaPa
def test_lapa(lapa, tmp_path):
    root, points = lapa
    assert infer(root) == "lapa"
    splits = parse("lapa", root, allow_partial=True)
    assert {split: [record.identity for record in records] for split, records in splits.items()} == {
        "train": ["11", "11"],
        "val": ["22", "23"],
        "test": ["24", "25"],
    }
    for split, records in splits.items():
        for record in records:
            values = points[f"{split}/{record.image.stem}"] + 0.5
            assert record.image == root / split / "images" / record.image.name and record.subset == split
            assert np.allclose(record.landmarks, values, atol=1e-6) and not hasattr(record, "visible")
            assert np.allclose(record.box, [*values.min(0), *values.max(0)])  # the release has no box
    folder = prepared("lapa", root, tmp_path / "data")
    assert [len(load_split(folder, split)) for split in ("train", "val", "test")] == [2, 2, 2]
    assert read_meta(folder)["layout"] == "106" and read_meta(folder)["found"] == {"train": 2, "val": 2, "test": 2}


def test_lapa_incomplete_or_wrong(lapa):
    root, _ = lapa
    (root / "val/images/22_0.jpg").unlink()
    refuses(r"18176(.|\n)*22_0.jpg", parse, "lapa", root)
    text = root / "test/landmarks/24_0.txt"
    good = text.read_text()
    for wrong, fault in [
        (good.replace("106\n", "105\n", 1), "line 1: '105' where 106"),
        (good[:200], "points where 106"),
        ("", "where 106"),
        (good.replace(" ", ",", 1), "line 2: 1 values"),
        (good[:-6] + "x\n", "line 107: not a coord"),
    ]:
        spoilt(text, wrong, f"24_0.txt.*{fault}", parse, "lapa", root, allow_partial=True)
    text.unlink()
    os.symlink("/etc/hostname", text)
    refuses("24_0.txt", parse, "lapa", root, allow_partial=True)


# ----------------------------------------------------------------------------------------- the IRNet fork's ready crops
def test_lmk(tmp_path):
    root, faces = archives.lmk(tmp_path)
    assert infer(root) == "lmk"
    splits = parse("lmk", root, allow_partial=True)
    for split, row in faces.items():
        for record, (name, points) in zip(splits[split], row, strict=True):
            width, height = (96, 64) if "Soccer" in name else (256, 256)
            assert record.image == root / "images" / split / name and np.allclose(
                record.landmarks, points * (width, height)
            )
    assert [record.subset for record in splits["train"]] == ["train//afw", "train//afw", "train//wflw"]
    assert [record.subset for record in splits["test"]] == ["test//common/lfpw", "test//challenge/ibug"]
    one, other, third = (record.identity for record in splits["train"])
    assert one == other != third  # two faces of a photograph
    folder = prepared("lmk", root, tmp_path / "data", protocol="pipnet")
    assert read_meta(folder)["layout"] == "68" and list(subset_rows(load_split(folder, "test")["subset"])) == [
        "full",
        "challenge",
        "common",
    ]
    for folders in ("afw", "helen/trainset"):  # the fork writes its crops beside the originals
        (root / folders).mkdir(parents=True)
    assert infer(root) == "300w"


def test_lmk_incomplete_or_wrong(tmp_path):
    root, _ = archives.lmk(tmp_path)
    good = picture(root / "images/train/37_Soccer_5.jpg").read_bytes()
    (root / "images/train/37_Soccer_5.jpg").write_bytes(good[:-500])
    refuses("37_Soccer_5.jpg.*1 of 5", prepared, "lmk", root, tmp_path / "data")
    (root / "images/train/37_Soccer_5.jpg").write_bytes(good)
    (root / "images/test/ibug_image_09 _01.jpg").unlink()
    refuses(r"13148(.|\n)*689(.|\n)*ibug_image_09 _01", parse, "lmk", root)
    file = root / "train.txt"
    name, *values = file.read_text().splitlines()[0].split()
    for words, fault in [
        ([name, *values[:-1]], "136 words where the path of a crop and 136"),
        ([name, *values[1:], "x"], "not a coord"),
        ([name, *values[1:], "nan"], "not a coord"),
        (["../images/train/..", *values], "leads out of"),
        ([name, *["0.5"] * 136], "its points span no area"),
    ]:
        spoilt(file, " ".join(words) + "\n", f"train.txt, line 1: .*{fault}", parse, "lmk", root, allow_partial=True)
    os.symlink("/etc/hostname", root / "images/train/link.jpg")
    file.write_text(" ".join([name.replace("afw_1_1", "link"), *values]))
    refuses("link.jpg", parse, "lmk", root, allow_partial=True)


# ---------------------------------------------------------------------------------------------------------- JD-landmark
def test_jd106(jd, tmp_path):
    root, points = jd
    assert infer(root) == "jd106"
    splits = parse("jd106", root, allow_partial=True)
    assert {split: [record.subset for record in records] for split, records in splits.items()} == {
        "train": ["train//AFW", "train//AFW", "train//HELEN"],
        "test": ["test"],
    }
    for records in splits.values():
        for record in records:
            assert np.allclose(record.landmarks, points[record.image.relative_to(root).as_posix()] + 0.5, atol=1e-4)
    train, (test,) = splits["train"], splits["test"]
    assert train[0].identity == train[1].identity != train[2].identity  # turns of one photograph
    assert test.box.tolist() == [10.5, 20.5, 110.5, 100.5] and np.allclose(train[0].box[:2], train[0].landmarks.min(0))
    folder = prepared("jd106", root, tmp_path / "data")
    assert read_meta(folder)["layout"] == "106" and read_meta(folder)["found"]["train"] == 3


def test_jd106_later_layout(tmp_path):
    for split in ("train", "val", "test"):
        archives.write_106(tmp_path / f"JD/{split}/landmark/a.txt")
        picture(tmp_path / f"JD/{split}/picture_mask/a.jpg")
        (tmp_path / f"JD/{split}/bbox").mkdir()
        (tmp_path / f"JD/{split}/bbox/a.txt").write_text("10 20 110 100")
    splits = parse("jd106", tmp_path / "JD", allow_partial=True)
    assert {split: [record.box.tolist() for record in records] for split, records in splits.items()} == dict.fromkeys(
        ("train", "val", "test"), [[10.5, 20.5, 110.5, 100.5]]
    )


def test_jd106_incomplete_or_wrong(jd):
    root, _ = jd
    (root / "Training_data/HELEN/picture/HELEN_2_1_0.jpg").unlink()
    refuses(r"11393(.|\n)*HELEN_2_1_0.jpg", parse, "jd106", root)
    rect = root / "Test_data/rect/t.jpg.rect"
    for text, fault in [
        ("1 2 3", "t.jpg.rect: 3 values"),
        ("a b c d", "not a coordinate"),
        ("5 5 5 5", "its face box is empty"),
    ]:
        spoilt(rect, text, fault, parse, "jd106", root, allow_partial=True)
    rect.unlink()
    text = root / "Test_data/landmark/t.txt"
    spoilt(text, "68\n", "t.txt, line 1: '68' where 106", parse, "jd106", root, allow_partial=True)
    outside = picture(root.parent / "outside.jpg")
    for name in ("Test_data/landmark/t.txt", "Test_data/picture/t.jpg"):
        good = (root / name).read_bytes()
        (root / name).unlink()
        os.symlink(outside, root / name)
        refuses("through a link", parse, "jd106", root, allow_partial=True)
        (root / name).unlink()
        (root / name).write_bytes(good)


# --------------------------------------------------------------------------------------------------------- CelebA, MTFL
def test_celeba(tmp_path):
    root, points = archives.celeba(tmp_path)
    refuses("celeba or celeba-wild", infer, root)
    for name, kind, below in [
        ("celeba", "align_celeba", "Img/img_align_celeba"),
        ("celeba-wild", "celeba", "img_celeba"),
    ]:
        splits = parse(name, root, allow_partial=True)
        assert {split: [record.image for record in records] for split, records in splits.items()} == {
            split: [root / below / f"00000{i}.jpg"] for i, split in enumerate(("train", "val", "test"), 1)
        }
        for records in splits.values():
            assert (
                np.allclose(records[0].landmarks, points[kind][records[0].image.name] + 0.5)
                and records[0].identity == "77"
            )
    assert splits["train"][0].box.tolist() == [20.5, 10.5, 119.5, 99.5]  # x y w h
    values = points["celeba"]["000002.jpg"]
    assert np.allclose(splits["val"][0].box[2:], 2 * values.max(0) - values.min(0) + 0.5)  # the list's is empty
    folder = prepared("celeba", root, tmp_path / "data", protocol="inner")
    assert read_meta(folder)["layout"] == "5" and (load_split(folder, "val")["size"][:] == (178, 218)).all()


def test_celeba_as_pipnets_authors_have_it(tmp_path, data_root, faces, cli):
    """Without the list of parts every face in the wild is for training; with their boxes alone there are no labels."""
    root, _ = archives.celeba(tmp_path)
    (root / "Eval/list_eval_partition.txt").unlink()
    splits = parse("celeba-wild", root)
    assert {split: len(records) for split, records in splits.items()} == {"train": 3, "val": 0, "test": 0}
    for part in ("Anno", "Eval", "Img"):
        shutil.rmtree(root / part)
    boxes = {"000001.jpg": (20, 10, 119, 99), "000003.jpg": (21, 11, 120, 100)}  # of two pictures
    (root / "celeba_bboxes.txt").write_text(
        "".join(f"{name} {' '.join(map(str, box))}\n" for name, box in boxes.items())
    )
    assert infer(root) == "celeba-wild"
    records = parse("celeba-wild", root)["train"]
    assert [record.image.name for record in records] == [*boxes] and np.isnan(records[0].landmarks).all()
    assert records[1].box.tolist() == [21.5, 11.5, 120.5, 100.5]
    places = (
        "--data-root",
        tmp_path / "data",
        "--run-root",
        tmp_path / "runs",
        "--threads 1 --workers 0 --target-size 64",
    )
    net = "--net mobilenetv2 --weights none --input-size 64 --epochs 1 --batch-size 4 --preset plain --ema 0.9"
    learn = "--amp off --semi mean-teacher --unlabelled celeba-wild"
    works(cli("--train --train-data", faces, learn, "--data-dir", root, net, *places))
    fails(
        cli("--train --dataset celeba-wild --preset plain --val none --data-dir", root, *places),
        "no training face has landmarks 0",
    )
    (root / "celeba_bboxes.txt").write_text("000001.jpg 20 10 20 99\n")
    refuses("celeba_bboxes.txt, 000001.jpg: its face box is empty", parse, "celeba-wild", root)


def test_celeba_incomplete_or_wrong(tmp_path):
    root, _ = archives.celeba(tmp_path)
    refuses(r"1 of 162770(.|\n)*19867(.|\n)*19962", parse, "celeba", root)
    file = root / "Anno/list_landmarks_align_celeba.txt"
    good = file.read_text()
    for text, fault in [
        (good[:80], "line 1: the number of images"),
        ("", "line 1"),
        (good.replace("3\n", "4\n", 1), "line 1: the number"),
        (good.replace("000002.jpg ", "../x.jpg "), "leads out of"),
        (good.replace("000002.jpg ", "/etc/passwd "), "leads out of"),
        (good.replace("000002.jpg ", "000002.jpg 7 "), "line 4: 12 words where a name and 10 values"),
        (good.replace("000002.jpg  ", "000002.jpg nan", 1), "000002.jpg: not a coord|words where"),
    ]:
        spoilt(file, text, fault, parse, "celeba", root, allow_partial=True)
    file.write_text(good)
    (root / "Eval/list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 7\n")
    refuses("000002.jpg.*list_eval_partition.txt", parse, "celeba", root, allow_partial=True)
    (root / "Eval/list_eval_partition.txt").unlink()
    refuses("list_eval_partition.txt", parse, "celeba", root, allow_partial=True)


def test_mtfl(mtfl, tmp_path):
    root, points = mtfl
    assert infer(root) == "mtfl"
    splits = parse("mtfl", root, allow_partial=True)
    assert [record.subset for record in splits["test"]] == ["test//frontal", "test//profile-right"]
    assert [record.subset for record in splits["train"]] == ["train", "train"]
    for record in splits["train"] + splits["test"]:
        assert np.allclose(record.landmarks, points[record.image.relative_to(root).as_posix()] + 0.5, atol=1e-6)
    assert read_meta(prepared("mtfl", root, tmp_path / "data"))["found"] == {
        "train": 2,
        "test": 2,
        "frontal": 1,
        "profile-right": 1,
    }


def test_mtfl_incomplete_or_wrong(mtfl):
    root, _ = mtfl
    (root / "net_7876/0_0.jpg").unlink()
    refuses(r"10000(.|\n)*2995(.|\n)*0_0.jpg", parse, "mtfl", root)
    file = root / "training.txt"
    good = file.read_text()
    for text, fault in [
        (good[:60], "line 1: . words"),
        (good.replace(" 3\n", " 6\n"), "line 1: pose 6"),
        (good.replace("lfw_5590\\", "..\\"), "leads out of"),
        (good.replace("lfw_5590\\", "C:\\"), "leads out of"),
        (good.replace(".", "x"), "not a coordinate"),
    ]:
        spoilt(file, text, f"training.txt, {fault}|training.txt.*{fault}", parse, "mtfl", root, allow_partial=True)


# -------------------------------------------------------------------------------------------------------------- columns
def test_what_a_parser_knows_becomes_a_column(tmp_path):
    archive = Archive(tmp_path, 1.0, 5, ("train", "val"))
    points = archives.landmarks(5)
    archive.add("train", tmp_path / "a.jpg", "all", "a", points)
    archive.add("test", tmp_path / "a.jpg", "all", "a", points, glasses=1.0, visible=np.zeros(5, bool))
    archive.add("train", tmp_path / "b.jpg", "all", "b", points, glasses=None, pose=np.ones(3))
    tables = archive.tables()
    assert {split: table["file"] for split, table in tables.items()} == {
        "train": ["a.jpg", "b.jpg"],
        "val": [],
        "test": ["a.jpg#2"],
    }
    assert all(table.keys() == tables["train"].keys() for table in tables.values())
    assert tables["val"]["landmarks"].shape == (0, 5, 2) and np.allclose(tables["train"]["landmarks"], points - 0.5)
    assert np.isnan(tables["train"]["glasses"]).all() and tables["test"]["glasses"] == 1
    assert tables["train"]["visible"].all() and not tables["test"]["visible"].any()  # flags stay flags
    assert np.isnan(tables["train"]["pose"]).tolist() == [[True] * 3, [False] * 3]
