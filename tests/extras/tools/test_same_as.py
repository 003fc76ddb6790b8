"""Own points are found to be landmarks of a trained net: `same_as` of layouts that were made from names."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from conftest import LAYOUTS, mean_face, rows, works
from hypothesis import given
from hypothesis import strategies as st

from extras.synthetic import TEST_INDEX, render
from extras.tools.same_as import match
from utils.settings.layouts import Layouts
from utils.settings.union import layout_of
from utils.train import checkpoint

SIX, NOSE = ["eye_left", "eye_right", "mouth_left", "mouth_right", "nose", "chin"], 30
SAME = {0: 36, 1: 45, 2: 48, 3: 54, 4: NOSE, 5: 8}


def seen_faces(count: int, seed: int) -> np.ndarray:
    """Landmarks (count, 68, 2) in px of turned faces of several sizes."""
    rng, face = np.random.default_rng(seed), mean_face() - 0.5
    angles, sizes = rng.uniform(-0.5, 0.5, count), rng.uniform(80, 200, count)
    turns = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]).transpose(2, 0, 1)
    faces = np.einsum("mab,nb->mna", turns * sizes[:, None, None], face)
    return faces + rng.normal(0, 0.01, faces.shape) * sizes[:, None, None] + 128


@given(st.integers(0, 10**6), st.sets(st.integers(0, 67), min_size=1, max_size=12))
def test_points_are_matched_with_the_landmarks_that_they_are(seed, chosen):
    """In any order, with mirror partners; a point of none is left out."""
    there, rng = LAYOUTS.load("68"), np.random.default_rng(seed)
    ids = rng.permutation(sorted({*chosen, *(there.flip_index[i] for i in chosen)})).tolist()
    flip = [ids.index(there.flip_index[i]) for i in ids] + [len(ids)]
    layout = Layouts({"own": {"count": len(flip), "flip_index": flip}}).load("own")
    found = seen_faces(20, seed)
    size = np.ptp(found, axis=1).mean(1)[:, None, None]
    forehead = found[:, [27]] + (found[:, [27]] - found[:, [8]]) * 0.5
    labels = np.concatenate([found[:, ids], forehead], 1) + rng.normal(0, 0.005, (20, len(flip), 2)) * size
    labels[0, 0] = np.nan
    matches = {one.point: one.landmark for one in match(labels, found, layout, there)}
    assert matches == dict(enumerate(ids))


def test_a_point_that_wanders_is_matched_with_none():
    layout = Layouts({"own": {"count": 2, "flip_index": [0, 1]}}).load("own")
    found = seen_faces(30, 0)
    labels = found[:, [NOSE, 8]]
    labels[:, 1] += np.random.default_rng(0).normal(0, 15, (30, 2))
    assert [one[:2] for one in match(labels, found, layout, LAYOUTS.load("68"))] == [(0, NOSE)]


def write_named(folder: Path, order: int = 1, names: list[str] = SIX) -> None:
    """Write rendered faces with some of six named points. order: -1 writes y before x."""
    table = [["file", *(f"{name}_{axis}" for name in names for axis in "xy")]]
    ids = [SAME[SIX.index(name)] for name in names]
    for split, numbers in (("train", range(16)), ("test", range(TEST_INDEX, TEST_INDEX + 4))):
        (folder / split).mkdir(parents=True)
        for number in numbers:
            face = render(1, number)
            cv2.imwrite(str(folder / split / f"{number}.jpg"), face.image)
            table.append([f"{split}/{number}.jpg", *(face.landmarks[ids] - 0.5)[:, ::order].ravel().tolist()])
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(table)


@pytest.mark.slow
def test_a_fine_tuning_starts_from_the_landmarks_that_its_points_are(cli, tmp_path):
    """Written into the made layout, which leaves the prepared set as it is; --same-as none starts from none."""
    write_named(tmp_path / "six")
    roots = ["--data-root", tmp_path / "data", "--run-root", tmp_path / "runs"]
    flags = "--preset finetune --freeze backbone --weights landmarks-open --epochs 1 --face 0 --misplaced 0 --amp off --num-nb 0"
    words = ["--train --dataset", tmp_path / "six", flags, *roots]
    done = works(cli(*words, "--exp none --same-as none"))
    assert done.stderr.count("head begins with random weights") == 2 and "points follow" not in done.stderr
    (file,) = (tmp_path / "data").glob("six-*.yaml")
    assert "same_as" not in yaml.safe_load(file.read_text())["six"]
    done = works(cli(*words, "--exp found"))
    assert "6 of 6 landmarks mapped" in done.stderr and "random weights" not in done.stderr
    assert yaml.safe_load(file.read_text())["six"]["same_as"] == {"68": SAME}
    done = works(cli(*words, "--exp again"))
    assert "6 of 6 landmarks mapped" in done.stderr and "points follow" not in done.stderr
    assert len([*(tmp_path / "data").glob("six-*/")]) == 1
    stored = checkpoint.load(tmp_path / "runs/found/best.pt")
    assert layout_of(stored["layout"]).same_as == {"68": SAME}
    works(cli("--train --resume --epochs 2 --exp", tmp_path / "runs/found", *roots))
    write_named(tmp_path / "exchanged", -1)
    done = works(cli("--train --exp exchanged --dataset", tmp_path / "exchanged", flags, *roots))
    assert "none of the 6 points" in done.stderr and "x and y" in done.stderr
    few = ["--train --preset few-shot --weights landmarks-open", *roots, "--dataset"]
    assert "follow no landmark" not in works(cli(*few, tmp_path / "six", "--exp few")).stderr
    assert "follow no landmark" in works(cli(*few, tmp_path / "exchanged", "--exp wrong")).stderr


@pytest.mark.slow
def test_crops_of_few_points_are_those_that_the_net_has_learnt(cli, tmp_path):
    """Four points make small crops, in which the net would see a part of the face."""
    write_named(tmp_path / "four", names=SIX[:4])
    words = ["--train --test --preset few-shot --weights landmarks-open --norm box --dataset", tmp_path / "four"]
    words += ["--data-root", tmp_path / "data", "--run-root", tmp_path / "runs"]
    assert "they are made with protocol " in works(cli(*words, "--exp fitting")).stderr
    typed = works(cli(*words, "--exp typed --protocol square"))
    assert "leave --protocol out" in typed.stderr
    scales = [
        checkpoint.load(tmp_path / "runs" / run / "best.pt")["protocol"]["scale_x"] for run in ("fitting", "typed")
    ]
    assert scales[0] > 1.5 > scales[1]
    errors = [
        float(rows(tmp_path / "runs" / run / "report" / "scores.csv")[0]["NME %"]) for run in ("fitting", "typed")
    ]
    assert errors[0] < errors[1]
