"""--compare RUN RUN: what differs between runs, on the same faces."""

import re
import shutil
from html import unescape

import numpy as np
import pytest
from conftest import LAYOUTS, contents, displaced, fails, known_file, rows, table, works, write_faces
from small_nets import net_of

from extras.report.compare import differing_keys, interval
from utils.train import checkpoint


@pytest.fixture
def mine(trained, tmp_path):
    """A copy of the trained run: comparing and testing write into it."""
    return shutil.copytree(trained.folder, tmp_path / "run" / trained.folder.name)


@pytest.fixture
def worse(trained, tmp_path):
    """A copy of the trained run that finds all landmarks a thousand cells further right, with another learning rate."""
    folder = displaced(trained, tmp_path / "run" / "worse", 1000.0)
    stored = checkpoint.load(folder / "best.pt")
    stored["args"]["learning_rate"] = 0.125
    checkpoint.save(folder / "best.pt", stored)
    return folder


def test_two_runs_side_by_side(mine, worse, cli):
    done = works(cli("--compare", mine, worse))
    place = mine / "compare" / "worse"
    scores = rows(place / "scores.csv")
    assert [row["run"] for row in scores] == [mine.name, "worse"] * (len(scores) // 2)
    assert {"drawn-64", "  landmarks jaw", "  landmarks eye_left"} <= {row["test set"] for row in scores}
    first, second = (float(row["NME %"]) for row in scores[:2])
    apart, low, high = (float(scores[1][key]) for key in ("minus first", "95 % from", "95 % to"))
    assert apart == pytest.approx(second - first, abs=0.002) and 0 < low < apart < high and not scores[0]["95 % from"]
    assert all(text in done.stdout for text in ("| learning_rate | ", f"{second:.3f}", str(place / "index.html")))
    page = (place / "index.html").read_text()
    words = unescape(re.sub("<[^>]*>", " ", page))
    wanted = (
        "Keys that differ",
        "learning_rate",
        "0.125",
        "Faces below an error",
        "Validation NME",
        "between runs with the same ones",
        "Loss",
        scores[1]["95 % to"],
    )
    assert not [text for text in wanted if text not in words] and "torch |" not in done.stdout
    assert {f'<td class="best">{scores[0][key]}</td>' in page for key in ("NME %", "AUC@50")} == {True}
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)|url\(|@import|<script|<link""", page)


def test_files_without_a_run_need_the_name_of_a_set(cli, raw, data_root, tmp_path):
    near, far = known_file(tmp_path / "near.onnx"), known_file(tmp_path / "far.onnx", 0.1)
    places = ("--data-root", data_root, "--run-root", tmp_path / "runs")
    fails(cli("--compare", near, far, *places), f"{near}.*--test-data")
    works(cli("--compare", near, far, "--test-data", raw, "--norm box", *places))
    (found,) = (tmp_path / "runs").glob("files/near*/compare/far*/scores.csv")
    assert [row["run"].partition("-")[0] for row in rows(found)[:2]] == ["near", "far"]


def test_what_cannot_be_compared_says_why(mine, cli, data_root, tmp_path):
    fails(cli("--compare", mine), "two runs")
    other = LAYOUTS.load("5")
    checkpoint.save(tmp_path / "five.pt", contents(net_of(meanface=np.random.rand(5, 2), num_nb=4), other))
    five = cli("--compare", mine, tmp_path / "five.pt", "--data-root", data_root)
    fails(five, r"five.*5 landmarks.*68 of 68; compare nets of the same")
    fails(cli("--compare", mine, "nowhere"), "nowhere")
    fails(cli("--compare", mine, mine, "--sweep reg=1,2 --train"), "--sweep")


def test_only_keys_that_two_runs_know_are_listed():
    run, exported = {"net": "resnet18", "reg": 1.0, "seed": 0}, {"net": "resnet50"}
    assert differing_keys([run, exported]) == [["net", "resnet18", "resnet50"]]
    assert differing_keys([run, exported, {**run, "seed": 1}])[1:] == [["seed", "0", "", "1"]]


def test_the_interval_is_that_of_the_mean_of_paired_differences():
    apart = np.random.default_rng(3).normal(0.5, 2, 400)
    low, high = interval(apart)
    half = 1.96 * apart.std() / 20
    assert (low, high) == pytest.approx((apart.mean() - half, apart.mean() + half), abs=0.1 * half)
    assert [*interval(apart)] == [low, high] and [*interval(np.ones(5))] == [1, 1]


def test_runs_of_two_presets_are_each_tested_in_their_own_crops(mine, cli, recipe, raw, tmp_path):
    """Their crops differ, and how they read labels; the faces are the same."""
    more = write_faces(tmp_path / "more", 3, seed=5)
    places = ("--run-root", tmp_path / "runs", "--data-root", tmp_path / "data")
    works(cli("--train", *recipe, *places, "--preset pipnet --exp theirs"))
    twin = shutil.copytree(mine, tmp_path / "theirs")
    sets = ("--test-data", raw, more)
    done = works(cli("--test --exp theirs --compare", mine, twin, *places, *sets))
    alone = works(cli("--test --exp", mine, *places, *sets))
    scores = rows(tmp_path / "runs" / "theirs" / "compare" / f"{mine.name}-theirs-2" / "scores.csv")
    nme = [float(row["NME %"]) for row in scores if row["test set"][0] != " "]
    own, others = ([float(row[3]) for row in table(one.stdout)] for one in (done, alone))
    assert nme[::3] == pytest.approx(own[:2], abs=0.002)
    assert nme[1::3] == nme[2::3] == pytest.approx(others, abs=0.002)
