"""--show-data: the sheet of augmented faces and the list of suspicious labels, as a user gets them."""

import csv
import shutil

import cv2
import numpy as np
import pytest
from conftest import fails, made_in, works, write_faces

from extras.shared.pts import read_pts, write_pts


@pytest.fixture
def flags(recipe, faces, tmp_path):
    """Return the flags of `recipe` with a copy of the prepared set, since the sheets are written into the set."""
    mine = tmp_path / "mine"
    shutil.copytree(faces, mine)
    recipe[recipe.index("--train-data") + 1] = str(mine)
    return recipe


def test_the_sheets_are_repeatable_and_follow_seed_and_recipe(cli, flags, tmp_path):
    place, pictures = tmp_path / "mine" / "show", []
    for more in ((), (), ("--seed 3",), ("--rotation 0 --layout 12 --num-nb 0",)):
        done = works(cli("--show-data 9", *flags, *more))
        assert "9 of 36 training faces" in done.stdout and "of 40 training and validation labels" in done.stdout
        assert all(str(place / name) in done.stdout for name in ("samples.jpg", "suspects.jpg", "suspects.csv"))
        assert cv2.imread(str(place / "samples.jpg")).shape == (640 + 2 * 320, 6 * 320, 3)
        pictures.append((place / "samples.jpg").read_bytes())
    assert pictures[0] == pictures[1] and len(set(pictures)) == 3
    assert cv2.imread(str(place / "suspects.jpg")).shape == (4 * 384, 5 * 384, 3)
    plain = (
        "--rotation 0 --scale 0 --translation 0 --flip 0 --colour-prob 0 --blur 0 --noise 0 --occlusion 0 --grayscale 0",
    )
    tiles = []
    for more in ((), ("--reinit",)):  # a net whose input is 1.25 times the nominal crop
        works(cli("--show-data 1", *flags, *plain, *more))
        tiles.append(cv2.imread(str(place / "samples.jpg"))[640:, :320])
    inner = cv2.resize(tiles[1][32:288, 32:288], (320, 320), interpolation=cv2.INTER_AREA)
    apart = [np.abs(tile.astype(int) - tiles[0])[:280].mean() for tile in (inner, tiles[1])]
    assert apart[0] < 0.6 * apart[1]  # the nominal crop is the middle of the input
    assert not (tmp_path / "runs").exists()


def test_wrong_labels_are_listed_by_file(cli, recipe, raw, tmp_path):
    mine = tmp_path / "doubtful"
    shutil.copytree(raw, mine)
    thrown, turned = mine / "train" / "face05.pts", mine / "train" / "face11.pts"
    landmarks = read_pts(thrown)
    landmarks[30] += (12, -10)
    write_pts(thrown, landmarks)
    landmarks = read_pts(turned)
    landmarks[36:48] = landmarks[[45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]]
    write_pts(turned, landmarks)
    recipe[recipe.index("--train-data") + 1] = str(mine)
    done = works(cli("--show-data 1", *recipe, "--data-root", tmp_path / "data"))
    place = made_in(tmp_path / "data", "doubtful") / "show"
    rows = list(csv.DictReader((place / "suspects.csv").open()))
    assert len(rows) == 40 and {row["file"] for row in rows[:2]} == {"train/face05.jpg", "train/face11.jpg"}
    assert {row["why"] for row in rows[:2]} >= {"left and right exchanged: eye_left, eye_right"}
    assert "2 of 40 training and validation labels are suspicious" in done.stdout
    assert done.stdout.index("train/face11.jpg") and "train/face05.jpg" in done.stdout


INNER = {"left_eye": 36, "right_eye": 45, "nose_tip": 30, "left_mouth": 48, "right_mouth": 54, "lip": 51}  # of 68
MOUTH = {"left_mouth": 48, "right_mouth": 54, "upper": 51, "lower": 57}


@pytest.mark.parametrize("own", (INNER, MOUTH))
def test_wrong_labels_of_own_points_come_first(cli, raw, tmp_path, own):
    """The points lie around eyes, nose and mouth only, so crops around them show a part of the face."""
    mine = tmp_path / "own"
    mine.mkdir()
    lines = [",".join(["file", *(f"{name}_{axis}" for name in own for axis in "xy")])]
    for index, file in enumerate(sorted((raw / "train").glob("*.pts"))[:20]):
        shutil.copy(file.with_suffix(".jpg"), mine)
        points = read_pts(file)[list(own.values())]
        points[2] += (0, 14 * (index == 4))
        points *= 1.5 if index == 9 else 1
        lines.append(",".join([f"{file.stem}.jpg", *map(str, points.ravel())]))
    (mine / "labels.csv").write_text("\n".join(lines))
    done = works(cli("--show-data 1 --dataset", mine, "--data-root", tmp_path / "data", "--num-nb 0 --input-size 64"))
    assert "2 of 20 training and validation labels are suspicious" in done.stdout
    [file] = (tmp_path / "data").glob("own-*/show/suspects.csv")
    rows = list(csv.DictReader(file.open()))
    why = {row["file"]: row["why"] for row in rows[:2]}
    assert {*why} == {"face09.jpg", "face04.jpg"} and why["face09.jpg"].startswith("the whole face is")
    assert own is MOUTH or why["face04.jpg"].startswith("2 (nose_tip) is 0.")


def test_few_faces_of_a_layout_without_pairs_and_groups(cli, recipe, tmp_path):
    mine = tmp_path / "profile"
    write_faces(mine / "train", 7)
    for index, file in enumerate(sorted(mine.rglob("*.pts"))):
        landmarks = read_pts(file)[:7]
        landmarks[: 3 * (index > 2)] = np.nan  # a group that is not always annotated
        write_pts(file, landmarks)
    layout = tmp_path / "seven.yaml"
    layout.write_text("seven:\n  count: 7\n  flip_index: [0-6]\n  groups: {eye: [0-2]}\n  closed: [eye]\n")
    recipe[recipe.index("--train-data") + 1] = str(mine)
    flags = ("--show-data 7", *recipe, "--data-root", tmp_path / "data", "--layout", layout, "--num-nb 0")
    done = works(cli(*flags))
    assert "Warning" not in done.stderr
    assert "0 of 7 training and validation labels are suspicious (labels are compared from 8 faces on)" in done.stdout
    assert "samples.jpg" in done.stdout and "suspects.jpg" not in done.stdout
    layout.write_text("seven:\n  count: 7\n  flip_index: [0-6]\n  groups: {}\n")
    works(cli(*flags[:-1], "--head coordinate"))  # this head has no neighbors


def test_what_cannot_be_shown_is_one_line(cli, flags):
    fails(cli("--show-data 0", *flags), "--show-data.*0")
    fails(cli("--show-data many", *flags), "--show-data")
    fails(
        cli("--show-data 1", *flags, "--layout 29"),
        "brow_left_4.*brow_right_4",
    )
    fails(cli("--show-data 1", *flags, "--num-nb 68"), "num_nb.*68")


def test_a_link_in_a_set_is_not_written_through(cli, flags, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(tmp_path / "mine" / "show", ignore_errors=True)  # of an earlier test
    (tmp_path / "mine" / "show").symlink_to(tmp_path / "elsewhere")
    fails(cli("--show-data 1", *flags), "show.*link")
    assert not list((tmp_path / "elsewhere").iterdir())
