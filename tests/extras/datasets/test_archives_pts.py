"""Sets of .pts files: 300W's private test, Menpo, the videos of 300VW, and 300W with WFLW as one."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import archives
import numpy as np
import pytest
import torch
from archives import annotated, parse, prepared
from conftest import (
    LAYOUTS,
    SMALL,
    load_split,
    made_in,
    mismatch,
    refuses,
    sets_of,
    settings,
    split_of,
    table,
    works,
)

from extras.datasets import DATASETS, PARTS_300W, infer
from extras.datasets.w300vw import CATEGORIES, Frames
from nets.labels import Prediction
from utils.data.fingerprint import fingerprint
from utils.data.prepared_set import load_splits, read_meta, read_source_image
from utils.data.pts import read_pts, write_pts
from utils.evaluate import metric
from utils.evaluate.evaluate import Comparison, evaluate, previous
from utils.evaluate.tables import Case, score_rows
from utils.settings.conversion import conversion

private, menpo, vw, wflw = map(pytest.fixture, (archives.private, archives.menpo, archives.vw, archives.wflw))
L68 = LAYOUTS.load("68")


# ---------------------------------------------------------------------------------------------- 300W's private test set
@pytest.mark.parametrize("peppa", [False, True])
def test_300w_private(private, tmp_path, peppa):
    root, points = private
    folder = root.parent if peppa else root
    assert peppa or infer(root) == "300w-private"
    (records,) = parse("300w-private", folder, allow_partial=True).values()
    assert [record.subset for record in records] == ["indoor", "indoor", "outdoor"]
    for record in records:
        assert np.allclose(record.landmarks, points[record.image.relative_to(root).as_posix()] - 0.5, atol=1e-6)
    refuses(r"2 of 300(.|\n)*02_Outdoor: 1", parse, "300w-private", folder)
    table = load_split(prepared("300w-private", folder, tmp_path / "data"), "test")
    assert list(table["subset"]) == ["indoor", "indoor", "outdoor"]
    (root / "afw").mkdir()
    assert infer(root) == "300w"  # where both lie in one folder
    os.symlink("/etc/hostname", root / "01_Indoor/indoor_003.png")
    refuses("indoor_003.png", parse, "300w-private", folder, allow_partial=True)


# ---------------------------------------------------------------------------------------------------------------- Menpo
@pytest.mark.parametrize(("name", "count", "faces"), [("menpo", 68, (2, 1)), ("menpo-profile", 39, (1, 1))])
def test_menpo(menpo, tmp_path, name, count, faces):
    root, points = menpo
    splits = parse(name, root, allow_partial=True)
    assert tuple(len(splits[split]) for split in ("train", "test")) == faces
    for records in splits.values():
        for record in records:
            values = points[record.image.relative_to(root).as_posix()] - 0.5
            assert np.allclose(record.landmarks, values, atol=1e-6)
            assert np.allclose(record.box, [*values.min(0), *values.max(0)])
    refuses(rf"{count} landmarks(.|\n)*train: {faces[0]} of", parse, name, root)
    folder = prepared(name, root, tmp_path / "data")
    assert read_meta(folder)["layout"] == str(count)
    layout = LAYOUTS.load(str(count))
    faces = load_splits([split_of(folder, "test")], layout, 32, 1.0)
    box = faces["landmarks"][0].max(0) - faces["landmarks"][0].min(0)
    assert np.allclose(metric.norms(faces["landmarks"][:], layout, "diagonal", faces["box"][:]), np.linalg.norm(box))
    converted = load_splits([split_of(folder, "test")], L68, 32, 1.0)
    assert converted["landmarks"][:].shape == (1, 68, 2) and converted["known"][0].sum() == (68 if count == 68 else 37)


def test_menpo_wrong(menpo):
    root, _ = menpo
    annotated(root / "menpo_train_release/odd.jpg", 51)
    refuses("odd.pts.*51", parse, "menpo", root, allow_partial=True)
    (root / "menpo_train_release/odd.pts").unlink()
    (root / "menpo_test_release/d.jpg").unlink()
    refuses(r"0 of 5335(.|\n)*d.pts", parse, "menpo", root)
    os.symlink("/etc/hostname", root / "menpo_test_release/f.pts")
    refuses("f.pts", parse, "menpo", root, allow_partial=True)


# ---------------------------------------------------------------------------------------------------------------- 300VW
def test_the_categories_of_300vw():
    assert [len(videos) for videos in CATEGORIES.values()] == [31, 19, 14]
    assert len({video for videos in CATEGORIES.values() for video in videos}) == 64


@pytest.mark.parametrize("extracted", [False, True])
def test_300vw(tmp_path, extracted):
    root, videos = archives.vw(tmp_path, extracted)
    assert infer(root) == "300vw"
    splits = parse("300vw", root, allow_partial=True)
    assert {split: len(records) for split, records in splits.items()} == {"train": 6, "test": 12}
    place = {}
    for record in splits["train"] + splits["test"]:
        number = place[record.identity] = place.get(record.identity, 0) + 1
        frames, points = videos[record.identity]
        assert np.allclose(record.landmarks, points[number - 1] - 0.5, atol=1e-6) and number == int(record.image.stem)
        assert record.image.is_file() == extracted
        assert abs(int(read_source_image(record.image).mean()) - frames[number - 1].mean()) < 4
    assert [record.subset for record in splits["test"]] == ["category1"] * 5 + ["category2"] * 4 + ["category3"] * 3
    third = parse("300vw", root, allow_partial=True, frame_step=3)
    assert [(record.identity, record.image.stem) for record in third["train"] + third["test"]] == [
        ("001", "000001"),
        ("001", "000004"),
        ("114", "000001"),
        ("114", "000004"),
        ("203", "000001"),
        ("203", "000004"),
        ("410", "000001"),
    ]


def test_300vw_incomplete_or_wrong(vw):
    root, _ = vw
    refuses(r"1 of 50(.|\n)*1 of 31(.|\n)*1 of 19(.|\n)*1 of 14", parse, "300vw", root)
    file = root / "001/annot/000002.pts"
    good = file.read_bytes()
    write_pts(file, read_pts(file)[:5])
    refuses("000002.pts: 5 points where 68", parse, "300vw", root, allow_partial=True)
    file.write_bytes(good)
    shutil.copy(file, root / "410/annot/000009.pts")  # of a frame that the video does not have
    refuses("vid.avi.*frame 9", prepared, "300vw", root, root.parent / "data")
    (root / "410/annot/000009.pts").unlink()
    moved = shutil.move(root / "001/vid.avi", root.parent / "vid.avi")
    refuses(r"0 of 50(.|\n)*6 annotated.*vid.avi", parse, "300vw", root)
    os.symlink(moved, root / "001/vid.avi")
    refuses("001/vid.avi", parse, "300vw", root, allow_partial=True)


def test_frames_for_many_threads_that_ask_in_disorder(tmp_path):
    root, videos = archives.vw(tmp_path)
    video, wanted = Frames(root / "001/vid.avi"), [1, 2, 3, 4, 5, 6, 3, 1, 6, 5, 4, 2]
    with ThreadPoolExecutor(4) as pool:
        found = [int(frame.mean()) for frame in pool.map(video.read, wanted)]
    assert np.abs(np.array(found) - [videos["001"][0][number - 1].mean() for number in wanted]).max() < 4


def test_flicker_between_frames(vw, tmp_path):
    root, _ = vw
    folder = prepared("300vw", root, tmp_path / "data", frame_step=2)
    assert "frame_step 2, not 1" in mismatch(folder, frame_step=1)
    test = load_splits([split_of(folder, "test")], L68, 32, 1.0)
    assert previous(test).tolist() == [-1, 0, 1, -1, 3, -1, 5]  # frames 1, 3, 5 of the first video, 1, 3 of the others
    assert previous(test.only(np.array([2, 1, 4]))).tolist() == [1, -1, -1]
    errors, order = np.random.default_rng(0).normal(0, 0.02, (7, 1, 2)), iter(range(7))

    def oracle(images):
        rows = [next(order) for _ in images]
        return Prediction(
            torch.tensor(test.nominal()[rows] + errors[rows], dtype=torch.float32), torch.ones(len(rows), 68)
        )

    result = evaluate(oracle, test, L68, "box", 3)
    sides = test["crop"][:][:, 2:] - test["crop"][:][:, :2]
    norm = np.sqrt((test["box"][:][:, 2:] - test["box"][:][:, :2]).prod(1))
    moved = errors[:, 0] * sides
    expected = [
        np.linalg.norm(moved[i] - moved[before]) / norm[i] * 100 if before >= 0 else np.nan
        for i, before in enumerate(previous(test))
    ]
    assert np.allclose(result.flicker, expected, rtol=1e-3, equal_nan=True)
    rows = score_rows(
        Case(split_of(folder).set, "300vw", "300vw", "true", test, Comparison(L68)), "oracle", result, [10.0]
    )
    assert [row["test set"] for row in rows] == ["300vw", "  category1", "  category2", "  category3"]
    assert float(rows[0]["flicker %"]) == pytest.approx(np.nanmean(expected), abs=2e-3)


# --------------------------------------------------------------------------------------- Peppa's tree, several archives
def test_peppas_tree(tmp_path):
    root, points = archives.peppa(tmp_path)
    (records,) = parse("peppa", root, allow_partial=True).values()
    assert {record.image.with_suffix(".pts") for record in records} == points.keys() and len(records) == 6 + 3 + 18
    for record in records:
        assert np.allclose(record.landmarks, points[record.image.with_suffix(".pts")] - 0.5, atol=1e-6)
    assert {record.subset for record in records} >= {
        "afw",
        "common/lfpw",
        "challenge/ibug",
        "indoor",
        "train",
        "category1",
    }
    assert sum(record.identity.startswith("300vw/") for record in records) == 18
    assert len(parse("peppa", root, allow_partial=True, frame_step=3)["train"]) == 6 + 3 + 7
    refuses(r"1 of 337(.|\n)*2 of 300(.|\n)*300VW", parse, "peppa", root)
    shutil.rmtree(root / "300VW")
    refuses("300VW: no folder", parse, "peppa", root)
    assert len(parse("peppa", root, allow_partial=True)["train"]) == 9


def test_peppas_run_on_its_tree_is_one_command(tmp_path, cli):
    root, _ = archives.peppa(tmp_path)
    works(
        cli(
            "--train --dataset peppa --data-dir",
            root,
            "--allow-partial --preset slim --frame-step 3 --no-balance",
            *SMALL,
            "--net slim --epochs 1 --data-root",
            tmp_path / "data",
            "--run-root",
            tmp_path,
        )
    )
    meta = read_meta(made_in(tmp_path / "data", "peppa"))
    assert (meta["val"], meta["margin"]) == (0.05, 1.5) and (tmp_path / "000/best.pt").is_file()


def test_external_data_beside_300w(tmp_path, cli):
    root = tmp_path / "archives"
    for part in PARTS_300W:
        for number in range(4):
            annotated(root / "300W" / part / f"{part.replace('/', '')}{number}_1.jpg", 68)
    archives.vw(root)
    archives.menpo(root)
    done = works(
        cli(
            "--train --test --train-data 300w menpo 300vw --test-data 300w --data-dir",
            root,
            "--allow-partial --preset coordinate",
            *SMALL,
            "--net mobilenetv2 --epochs 1 --warmup 0 --data-root",
            tmp_path / "data",
            "--run-root",
            tmp_path,
        )
    )
    metas = [read_meta(folder) for folder in (tmp_path / "data").iterdir() if folder.is_dir()]
    assert {meta["name"]: meta["source"] for meta in metas} == {
        name: str(root / folder) for name, folder in (("300vw", "300VW"), ("300w", "300W"), ("menpo", "Menpo"))
    }
    assert [row[0] for row in table(done.stdout)][0] == "300w" and "menpo" not in done.stdout


# -------------------------------------------------------------------------------------------------------- 300W and WFLW
def test_300w_and_wflw_as_one(tmp_path):
    root, lists = archives.both(tmp_path)
    for name, splits in (("300w+wflw", ["train"]), ("300w+wflw-all", ["train", "test"])):
        found = parse(name, root, allow_partial=True)
        assert len(found["test"]) == 3 and not any(
            "wflw" in record.identity for record in found["test"]
        )  # 300W's alone
        records = [record for record in found["train"] if record.subset == "wflw"]
        faces = [face for split in splits for face in lists[split]]
        assert len(records) == len(faces) and len(found["train"]) == 3 + len(faces)
        for record, (points, _, _, file) in zip(records, faces, strict=True):
            expected = conversion("98", "68", LAYOUTS)(points + 0.5)
            assert np.allclose(record.landmarks, expected, atol=1e-5) and record.identity == f"wflw/{file}"
            assert np.allclose(record.box, [*expected.min(0), *expected.max(0)], atol=1e-5)
    refuses(r"1 of 337(.|\n)*3 of 7500", parse, "300w+wflw", root)
    train = ("afw", "helen/trainset", "lfpw/trainset", "wflw")
    counts = [sum(DATASETS[row].expected[part] for part in train) for row in ("300w+wflw", "300w+wflw-all")]
    assert counts == [10648, 13148]  # the fork's number with WFLW's test faces, and without
    meta = read_meta(prepared("300w+wflw", root, tmp_path / "data"))
    assert meta["layout"] == "68" and meta["found"]["wflw"] == 3
    linked = tmp_path / "linked"
    linked.mkdir()
    for part in ("300W", "WFLW"):
        (linked / part).symlink_to(root / part)
    assert len(parse("300w+wflw", linked, allow_partial=True)["train"]) == 6
    (linked / "one.jpg").symlink_to(tmp_path / "one.jpg")
    for changed in (root / "WFLW/WFLW_images/more.jpg", tmp_path / "one.jpg"):
        before = fingerprint(linked)
        changed.write_bytes(b"")
        assert fingerprint(linked) != before
    shutil.rmtree(root / "WFLW")
    refuses("wflw_annotations", parse, "300w+wflw", root, allow_partial=True)


def test_the_archive_of_a_run_is_not_taken_for_that_of_another_set(tmp_path):
    root, _ = archives.both(tmp_path)
    common = {"data_root": str(tmp_path / "data"), "target_size": 32, "allow_partial": True, "val": "none"}
    first = sets_of(settings(data_dir=str(root / "300W"), dataset="300w", **common)).prepare("300w")
    sets = sets_of(settings(data_dir=str(root / "WFLW"), dataset="wflw", **common))  # of a run that was trained on WFLW
    second = sets.prepare("wflw")
    assert sets.prepare("300w").folder == first.folder != second.folder and first.meta["dataset"] == "300w"


def test_sets_of_several_layouts_train_as_one(tmp_path):
    root, lists = archives.both(tmp_path)
    first, second = (
        prepared(name, root / folder, tmp_path / "data") for name, folder in (("300w", "300W"), ("wflw", "WFLW"))
    )
    faces = load_splits([split_of(first), split_of(second)], L68, 32, 1.0)
    assert faces["landmarks"][:].shape == (6, 68, 2) and faces.facts["states"][0] == "pose"
    assert np.isnan(faces["states"][:3]).all()
    expected = conversion("98", "68", LAYOUTS)(np.array([face[0] for face in lists["train"]]) + 0.5)
    assert np.allclose(faces["landmarks"][3:], expected, atol=1e-3)
    eyes = LAYOUTS.load("12")
    assert np.allclose(load_splits([split_of(second)], eyes, 32, 1.0)["landmarks"][:], expected[:, 36:48], atol=1e-3)
