"""WFLW, the IRNet fork's crops and CelebA: what only these releases have."""

import shutil

import archives
import numpy as np
import pytest
import torch
from archives import parse, picture, prepared
from conftest import LAYOUTS, NET, fails, load_split, made_in, refuses, split_of, works

from extras.datasets import infer
from nets.labels import Prediction
from utils.data.prepared_set import load_splits, read_meta
from utils.evaluate.evaluate import Comparison, evaluate, subset_rows
from utils.evaluate.tables import Case, score_rows


def test_wflw(tmp_path):
    root, lists = archives.wflw(tmp_path)
    assert infer(root) == "wflw"
    splits = parse("wflw", root, allow_partial=True)
    for split, faces in lists.items():
        for face, (points, box, flags, name) in zip(splits[split], faces, strict=True):
            assert np.allclose(face.landmarks, points + 0.5, atol=1e-6) and np.allclose(face.box, np.array(box) + 0.5)
            assert face.states.tolist() == [flag == 1 for flag in flags]
            assert face.image == root / "WFLW_images" / name
            assert face.identity == name, "faces of a photograph stay together"
    # by first coordinate and name: faces 1 and 2 of the test share a photograph
    subsets = ["test//largepose//occlusion", "test//illumination", "test//largepose//blur"]
    assert [face.subset for face in splits["test"]] == subsets
    folder = prepared("wflw", root, tmp_path / "data")
    meta, table = read_meta(folder), load_split(folder, "test")
    assert meta["states"] == ["pose", "expression", "illumination", "makeup", "occlusion", "blur"]
    assert meta["expected"]["blur"] == 773 and meta["found"]["largepose"] == 2 and meta["found"]["train"] == 3
    assert table["states"].tolist() == np.eye(6)[:3].astype(bool).tolist() and "pose" not in table
    names = "0--Event/b_0.jpg", "1--Event/b_1.jpg", "1--Event/b_1.jpg#2"
    assert list(table["file"]) == [f"WFLW_images/{name}" for name in names]
    refuses("wflw.*68", prepared, "wflw", root, tmp_path / "other", layout="68")
    refuses(r"7500(.|\n)*2500(.|\n)*326(.|\n)*blur: 1", parse, "wflw", root)


def test_the_rows_of_subsets_are_in_the_published_order(tmp_path):
    folder, layout = prepared("wflw", archives.wflw(tmp_path)[0], tmp_path / "data"), LAYOUTS.load("98")
    faces = load_splits([split_of(folder, "test")], layout, 32, 1.0)

    def centre(images):
        return Prediction(torch.full((len(images), 98, 2), 0.5), torch.ones(len(images), 98))

    result = evaluate(centre, faces, layout, "interocular", 2)
    case = Case(split_of(folder).set, "wflw", "wflw", "detector", faces, Comparison(layout), 2)
    rows = score_rows(case, "centre", result, [10.0])
    subsets = [("wflw", "3"), ("  largepose", "2"), ("  illumination", "1"), ("  occlusion", "1"), ("  blur", "1")]
    assert [(row["test set"], row["faces"]) for row in rows] == subsets
    assert float(rows[1]["NME %"]) == pytest.approx(result.nme[[0, 2]].mean(), abs=1e-3)
    unknown = result.nme.copy()
    unknown[0] = np.nan
    row = score_rows(case, "centre", result._replace(nme=unknown), [10.0])[0]
    assert [row[key] for key in ("faces", "without norm", "missed")] == ["3", "1", "2"]


def test_wflw_from_the_command_line(tmp_path, cli):
    root, _ = archives.wflw(tmp_path)
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


def test_lmk(tmp_path):
    root, lists = archives.lmk(tmp_path)
    assert infer(root) == "lmk"
    splits = parse("lmk", root, allow_partial=True)
    for split, row in lists.items():
        for face, (name, points) in zip(splits[split], row, strict=True):
            size = (96, 64) if "Soccer" in name else (256, 256)
            assert face.image == root / "images" / split / name and np.allclose(face.landmarks, points * size)
    assert [face.subset for face in splits["train"]] == ["train//afw", "train//afw", "train//wflw"]
    assert [face.subset for face in splits["test"]] == ["test//common/lfpw", "test//challenge/ibug"]
    one, other, third = (face.identity for face in splits["train"])
    assert one == other != third, "two faces of a photograph"
    subsets = load_split(prepared("lmk", root, tmp_path / "data", protocol="pipnet"), "test")["subset"]
    assert list(subset_rows(subsets)) == ["full", "challenge", "common"]
    good = picture(root / "images/train/37_Soccer_5.jpg").read_bytes()
    (root / "images/train/37_Soccer_5.jpg").write_bytes(good[:-500])
    refuses("37_Soccer_5.jpg.*1 of 5", prepared, "lmk", root, tmp_path / "more")


def test_celeba(tmp_path):
    root, points = archives.celeba(tmp_path)
    refuses("celeba or celeba-wild", infer, root)
    for name, kind, below in (
        ("celeba", "align_celeba", "Img/img_align_celeba"),
        ("celeba-wild", "celeba", "img_celeba"),
    ):
        splits = parse(name, root, allow_partial=True)
        for number, split in enumerate(("train", "val", "test"), 1):
            (face,) = splits[split]
            assert face.image == root / below / f"00000{number}.jpg" and face.identity == "77"
            assert np.allclose(face.landmarks, points[kind][face.image.name] + 0.5)
    assert splits["train"][0].box.tolist() == [20.5, 10.5, 119.5, 99.5]  # x y w h
    values = points["celeba"]["000002.jpg"]
    assert np.allclose(splits["val"][0].box[2:], 2 * values.max(0) - values.min(0) + 0.5)  # the list's is empty
    folder = prepared("celeba", root, tmp_path / "data", protocol="inner")
    assert read_meta(folder)["layout"] == "5" and (load_split(folder, "val")["size"] == (178, 218)).all()
    refuses(r"1 of 162770(.|\n)*19867(.|\n)*19962", parse, "celeba", root)


def test_celeba_as_pipnets_authors_have_it(tmp_path, faces, cli):
    """Without the list of parts every face in the wild is for training; with their boxes alone there are no labels."""
    root, _ = archives.celeba(tmp_path)
    (root / "Eval/list_eval_partition.txt").unlink()
    splits = parse("celeba-wild", root)
    assert {split: len(found) for split, found in splits.items()} == {"train": 3, "val": 0, "test": 0}
    for part in ("Anno", "Eval", "Img"):
        shutil.rmtree(root / part)
    (root / "celeba_bboxes.txt").write_text("000001.jpg 20 10 119 99\n000003.jpg 21 11 120 100\n")
    assert infer(root) == "celeba-wild"
    first, second = parse("celeba-wild", root)["train"]
    assert second.image.name == "000003.jpg" and np.isnan(first.landmarks).all()
    assert second.box.tolist() == [21.5, 11.5, 120.5, 100.5]
    places = ("--data-root", tmp_path / "data", "--run-root", tmp_path / "runs")
    small = "--threads 1 --workers 0 --target-size 64"
    net = f"{small} --net {NET} --weights none --input-size 64 --epochs 1 --batch-size 4 --preset plain --ema 0.9"
    learn = "--amp off --semi mean-teacher --unlabelled celeba-wild"
    works(cli("--train --train-data", faces, learn, "--data-dir", root, net, *places))
    train = "--train --dataset celeba-wild --preset plain --val none --data-dir"
    fails(cli(train, root, small, *places), "no training face has landmarks 0")
    (root / "celeba_bboxes.txt").write_text("000001.jpg 20 10 20 99\n")
    refuses("celeba_bboxes.txt, 000001.jpg: its face box is empty", parse, "celeba-wild", root)
