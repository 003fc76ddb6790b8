"""Sets of .pts files: Menpo's layouts, the videos of 300VW, and several archives as one set."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import archives
import numpy as np
import pytest
import torch
from archives import annotated, parse, prepared
from conftest import LAYOUTS, SMALL, made_in, mismatch, refuses, sets_of, settings, split_of, table, works

from extras.datasets import DATASETS, infer
from extras.datasets.w300 import PARTS
from extras.datasets.w300vw import CATEGORIES, Frames
from nets.labels import Prediction
from utils.data.fingerprint import fingerprint
from utils.data.prepared_set import load_splits, read_meta, read_source_image
from utils.evaluate import metric
from utils.evaluate.evaluate import Comparison, evaluate, previous
from utils.evaluate.tables import Case, score_rows
from utils.settings.conversion import conversion

L68 = LAYOUTS.load("68")


def test_300w_private_in_peppas_tree(tmp_path):
    root, _ = archives.private(tmp_path)
    assert len(parse("300w-private", root.parent, allow_partial=True)["test"]) == 3
    refuses(r"2 of 300(.|\n)*02_Outdoor: 1", parse, "300w-private", root.parent)


@pytest.mark.parametrize(("name", "layout", "known"), [("menpo", "68", 68), ("menpo-profile", "39", 37)])
def test_menpo_is_measured_and_converted(tmp_path, name, layout, known):
    folder = prepared(name, archives.menpo(tmp_path)[0], tmp_path / "data")
    layout = LAYOUTS.load(layout)
    faces = load_splits([split_of(folder, "test")], layout, 32, 1.0)
    diagonal = np.linalg.norm(np.ptp(faces["landmarks"][0], axis=0))
    assert np.allclose(metric.norms(faces["landmarks"], layout, "diagonal", faces["box"]), diagonal)
    converted = load_splits([split_of(folder, "test")], L68, 32, 1.0)
    assert converted["landmarks"].shape == (1, 68, 2) and converted["known"][0].sum() == known


# ---------------------------------------------------------------------------------------------------------------- 300VW
def test_the_categories_of_300vw():
    counts = {name: len(videos) for name, videos in CATEGORIES.items()}
    assert counts == {name: DATASETS["300vw"].expected[name] for name in counts}
    assert len({video for videos in CATEGORIES.values() for video in videos}) == 64


@pytest.mark.parametrize("extracted", [False, True])
def test_300vw(tmp_path, extracted):
    root, videos = archives.vw(tmp_path, extracted)
    assert infer(root) == "300vw"
    splits = parse("300vw", root, allow_partial=True)
    assert {split: len(faces) for split, faces in splits.items()} == {"train": 6, "test": 12}
    for face in splits["train"] + splits["test"]:
        frames, points = videos[face.identity]
        number = int(face.image.stem) - 1
        assert np.allclose(face.landmarks, points[number] - 0.5, atol=1e-6) and face.image.is_file() == extracted
        assert abs(int(read_source_image(face.image).mean()) - frames[number].mean()) < 4
    assert [face.subset for face in splits["test"]] == ["category1"] * 5 + ["category2"] * 4 + ["category3"] * 3
    third = parse("300vw", root, allow_partial=True, frame_step=3)
    names = [f"{face.identity} {int(face.image.stem)}" for face in third["train"] + third["test"]]
    assert names == ["001 1", "001 4", "114 1", "114 4", "203 1", "203 4", "410 1"]
    refuses(r"1 of 50(.|\n)*1 of 31(.|\n)*1 of 19(.|\n)*1 of 14", parse, "300vw", root)


def test_a_frame_that_the_video_does_not_have(tmp_path):
    root, _ = archives.vw(tmp_path)
    shutil.copy(root / "001/annot/000002.pts", root / "410/annot/000009.pts")
    refuses("vid.avi.*frame 9", prepared, "300vw", root, tmp_path / "data")


def test_frames_for_many_threads_that_ask_in_disorder(tmp_path):
    root, videos = archives.vw(tmp_path)
    video, wanted = Frames(root / "001/vid.avi"), [1, 2, 3, 4, 5, 6, 3, 1, 6, 5, 4, 2]
    with ThreadPoolExecutor(4) as pool:
        found = [int(frame.mean()) for frame in pool.map(video.read, wanted)]
    assert np.abs(np.array(found) - [videos["001"][0][number - 1].mean() for number in wanted]).max() < 4


def test_flicker_between_frames(tmp_path):
    root, _ = archives.vw(tmp_path)
    folder = prepared("300vw", root, tmp_path / "data", frame_step=2)
    assert "frame_step 2, not 1" in mismatch(folder, frame_step=1)
    test = load_splits([split_of(folder, "test")], L68, 32, 1.0)
    assert previous(test).tolist() == [-1, 0, 1, -1, 3, -1, 5]  # frames 1, 3, 5 of the first video, 1, 3 of the others
    assert previous(test.only(np.array([2, 1, 4]))).tolist() == [1, -1, -1]
    errors, order = np.random.default_rng(0).normal(0, 0.02, (7, 1, 2)), iter(range(7))

    def oracle(images):
        rows = [next(order) for _ in images]
        landmarks = torch.tensor(test["nominal"][rows] + errors[rows], dtype=torch.float32)
        return Prediction(landmarks, torch.ones(len(rows), 68))

    result = evaluate(oracle, test, L68, "box", 3)
    crop, box = test["crop"], test["box"]
    moved = errors[:, 0] * (crop[:, 2:] - crop[:, :2])
    norm = np.sqrt((box[:, 2:] - box[:, :2]).prod(1))
    before = previous(test)
    steps = np.linalg.norm(moved - moved[before], axis=1) / norm * 100
    expected = np.where(before >= 0, steps, np.nan)
    assert np.allclose(result.flicker, expected, rtol=1e-3, equal_nan=True)
    case = Case(split_of(folder).set, "300vw", "300vw", "true", test, Comparison(L68))
    rows = score_rows(case, "oracle", result, [10.0])
    assert [row["test set"] for row in rows] == ["300vw", "  category1", "  category2", "  category3"]
    assert float(rows[0]["flicker %"]) == pytest.approx(np.nanmean(expected), abs=2e-3)


# --------------------------------------------------------------------------------------- Peppa's tree, several archives
def test_peppas_tree(tmp_path):
    root, points = archives.peppa(tmp_path)
    faces = parse("peppa", root, allow_partial=True)["train"]
    assert {face.image.with_suffix(".pts") for face in faces} == points.keys() and len(faces) == 6 + 3 + 18
    for face in faces:
        assert np.allclose(face.landmarks, points[face.image.with_suffix(".pts")] - 0.5, atol=1e-6)
    subsets = {"afw", "common/lfpw", "challenge/ibug", "indoor", "train", "category1"}
    assert {face.subset for face in faces} >= subsets
    assert sum(face.identity.startswith("300vw/") for face in faces) == 18
    assert len(parse("peppa", root, allow_partial=True, frame_step=3)["train"]) == 6 + 3 + 7
    refuses(r"1 of 337(.|\n)*2 of 300(.|\n)*300VW", parse, "peppa", root)
    shutil.rmtree(root / "300VW")
    assert len(parse("peppa", root, allow_partial=True)["train"]) == 9


def test_peppas_run_on_its_tree_is_one_command(tmp_path, cli):
    root, _ = archives.peppa(tmp_path)
    recipe = "--allow-partial --preset slim --frame-step 3 --no-balance"
    places = ("--data-root", tmp_path / "data", "--run-root", tmp_path)
    works(cli("--train --dataset peppa --data-dir", root, recipe, *SMALL, "--net slim --epochs 1", *places))
    meta = read_meta(made_in(tmp_path / "data", "peppa"))
    assert (meta["val"], meta["margin"]) == (0.05, 1.5) and (tmp_path / "000/best.pt").is_file()


def test_external_data_beside_300w(tmp_path, cli):
    root = tmp_path / "archives"
    for part in PARTS:
        for number in range(4):
            annotated(root / "300W" / part / f"{part.replace('/', '')}{number}_1.jpg", 68)
    archives.vw(root)
    archives.menpo(root)
    data = "--train --test --train-data 300w menpo 300vw --test-data 300w --data-dir"
    recipe = ("--allow-partial --preset coordinate", *SMALL, "--net mobilenetv2 --epochs 1 --warmup 0")
    done = works(cli(data, root, *recipe, "--data-root", tmp_path / "data", "--run-root", tmp_path))
    metas = [read_meta(folder) for folder in (tmp_path / "data").iterdir() if folder.is_dir()]
    folders = {"300vw": "300VW", "300w": "300W", "menpo": "Menpo"}
    assert {meta["name"]: meta["source"] for meta in metas} == {
        name: str(root / folder) for name, folder in folders.items()
    }
    assert [row[0] for row in table(done.stdout)][0] == "300w" and "menpo" not in done.stdout


# -------------------------------------------------------------------------------------------------------- 300W and WFLW
def test_300w_and_wflw_as_one(tmp_path):
    root, lists = archives.both(tmp_path)
    for name, splits in (("300w+wflw", ["train"]), ("300w+wflw-all", ["train", "test"])):
        found = parse(name, root, allow_partial=True)
        assert [face.subset for face in found["test"]].count("wflw") == 0 and len(found["test"]) == 3
        added = [face for face in found["train"] if face.subset == "wflw"]
        faces = [face for split in splits for face in lists[split]]
        assert len(found["train"]) == 3 + len(faces)
        for face, (points, _, _, file) in zip(added, faces, strict=True):
            expected = conversion("98", "68", LAYOUTS)(points + 0.5)
            assert np.allclose(face.landmarks, expected, atol=1e-5) and face.identity == f"wflw/{file}"
            assert np.allclose(face.box, [*expected.min(0), *expected.max(0)], atol=1e-5)
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
    sets = sets_of(settings(data_dir=str(root / "300W"), dataset="300w", **common))
    first = sets.with_sets(["300w"])["300w"]
    sets = sets_of(settings(data_dir=str(root / "WFLW"), dataset="wflw", **common))  # of a run that was trained on WFLW
    sets = sets.with_sets(["wflw", "300w"])
    second = sets["wflw"]
    assert sets["300w"].folder == first.folder != second.folder and first.meta["dataset"] == "300w"


def test_sets_of_several_layouts_train_as_one(tmp_path):
    root, lists = archives.both(tmp_path)
    folders = [
        prepared(name, root / folder, tmp_path / "data") for name, folder in (("300w", "300W"), ("wflw", "WFLW"))
    ]
    faces = load_splits(list(map(split_of, folders)), L68, 32, 1.0)
    assert faces["landmarks"].shape == (6, 68, 2) and faces.facts["states"][0] == "pose"
    assert np.isnan(faces["states"][:3]).all()
    expected = conversion("98", "68", LAYOUTS)(np.array([face[0] for face in lists["train"]]) + 0.5)
    assert np.allclose(faces["landmarks"][3:], expected, atol=1e-3)
    eyes = load_splits([split_of(folders[1])], LAYOUTS.load("12"), 32, 1.0)
    assert np.allclose(eyes["landmarks"], expected[:, 36:48], atol=1e-3)
