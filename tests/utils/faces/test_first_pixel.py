"""Own sets that count the first pixel as 0 or 1."""

import json
import shutil

import archives
import numpy as np
import pytest
from conftest import fails, load_split, write_faces

from utils.faces.archives import DATASETS, read_pts, write_pts
from utils.faces.first_pixel import guess
from utils.faces.prepare import DataGenerator
from utils.faces.prepared_set import read_meta

SIZE = 96


def own_set(folder, first: int = 0, edges: bool = False, names: str = "face{}"):
    """Twelve faces counted from `first`. edges: landmarks are kept inside the picture by the annotation tool."""
    write_faces(folder, 12, size=SIZE)
    for index, file in enumerate(sorted(folder.glob("*.pts"))):
        points = read_pts(file) + first
        if edges and index < 4:
            points[:5, 0] += 2 * SIZE * (-1 if first == 0 else 1)
            points = points.clip(first, SIZE - 1 + first)
        stem = folder / names.format(f"{index:04d}")
        file.with_suffix(".jpg").rename(stem.with_suffix(".jpg"))
        file.unlink()
        write_pts(stem.with_suffix(".pts"), points)
    return folder


@pytest.mark.parametrize(
    ("first", "options", "why"),
    [
        (0, {}, "no evidence"),
        (1, {"edges": True}, "right or lower edge"),
        (0, {"edges": True}, "left or upper edge"),
        (1, {"names": "image_{}"}, "names of 300W"),
        (0, {"edges": True, "names": "image_{}"}, "left or upper edge"),
        (0, {"names": "image_{}x"}, "no evidence"),
    ],
)
def test_what_the_files_tell(tmp_path, first, options, why):
    origin, told = guess(DATASETS["points"].load(own_set(tmp_path / "mine", first, **options)))
    assert (origin or 0) == first and why in told


def test_landmarks_beyond_the_picture_leave_its_edges_without_meaning(tmp_path):
    """A net labels faces that the picture cuts off: of landmarks beyond its edges some lie where counting from 1 would
    end.
    """
    mine = own_set(tmp_path / "mine", 0)
    for file in mine.glob("*.pts"):
        points = read_pts(file)
        points[:5, 0] = SIZE + 3 * np.arange(5)
        write_pts(file, points)
    origin, why = guess(DATASETS["points"].load(mine))
    assert origin is None and why == "no evidence"


def test_it_is_kept_in_the_meta_and_said(cli, tmp_path):
    mine = own_set(tmp_path / "mine", 1, edges=True)
    truth = {file.with_suffix(".jpg").name: read_pts(file) - 0.5 for file in mine.glob("*.pts")}
    flags = ("--prepare", "--dataset", mine, "--data-root", tmp_path / "data", "--target-size", "32", "--val", "none")
    done = cli(*flags)
    assert (
        done.returncode == 0
        and "pixels are counted from 1 (4 faces have a landmark on the right or lower edge" in done.stderr
    )
    folder = tmp_path / "data" / "mine-32"

    def origin() -> float:
        table = load_split(folder, "train")
        assert all(
            np.abs(points - truth[name] + read_meta(folder)["origin"] - 1).max() < 1e-3
            for name, points in zip(table["file"], table["landmarks"][:], strict=True)
        )
        return read_meta(folder)["origin"]

    assert origin() == 1 and "preparing" not in cli(*flags).stderr
    done = cli(*flags, "--first-pixel", "0")
    assert done.returncode == 0 and "origin 1.0, not 0.0" in done.stderr and origin() == 0
    assert "counted from 0, as --first-pixel said before" in cli(*flags).stderr
    (mine / "image_x.jpg").write_bytes((mine / "face0000.jpg").read_bytes())
    shutil.copy(mine / "face0005.pts", mine / "image_x.pts")
    truth["image_x.jpg"] = truth["face0005.jpg"]
    done = cli(*flags)
    assert (
        "has changed since" in done.stderr
        and "counted from 0, as --first-pixel said before" in done.stderr
        and origin() == 0
    )
    fails(cli("--prepare", "--dataset", folder, "--first-pixel", "1"), "0.0, not 1.0")
    fails(cli(*flags, "--first-pixel", "2"), "first_pixel")
    fails(cli(*flags, "--frame-step", "2"), "--frame-step")
    fails(cli(*flags, "--allow-partial"), "--allow-partial")
    fails(cli(*flags, "--folds", "3"), "--folds.*--audit")
    fails(
        cli("--prepare", "--dataset", "synthetic", "--data-root", tmp_path / "data", "--first-pixel", "1"),
        "--first-pixel",
    )


def test_a_guess_is_made_again_when_the_files_are_replaced(cli, tmp_path):
    mine, other = (own_set(tmp_path / name, first, edges=True) for name, first in (("mine", 1), ("other", 0)))
    flags = ("--prepare", "--dataset", mine, "--data-root", tmp_path / "data", "--target-size", "32", "--val", "none")
    assert "pixels are counted from 1" in cli(*flags).stderr
    shutil.rmtree(mine)
    other.rename(mine)
    done = cli(*flags)
    assert done.returncode == 0 and "pixels are counted from 0 (" in done.stderr
    assert read_meta(tmp_path / "data" / "mine-32")["origin"] == 0


def test_the_release_of_300w_is_counted_as_ever(tmp_path):
    own_set(tmp_path / "300W" / "afw", 0, edges=True)
    folder = DataGenerator(tmp_path / "300W", 32, out=tmp_path / "data", allow_partial=True, val=0).run()
    assert read_meta(folder)["origin"] == 1


def test_csv_and_coco_are_guessed_too(tmp_path):
    root, faces = archives.table(tmp_path)
    rows = [(name, np.r_[points[:4], [[160, 30 + index]]]) for index, (name, points) in enumerate(faces["train"] * 3)]
    archives.write_csv(root / "train.csv", rows)  # 160 px is the width of the picture
    assert guess(DATASETS["csv"].load(root))[0] == 1
    (root / "train.csv").unlink()
    (root / "train.json").write_text(json.dumps(archives.coco(rows)))
    assert guess(DATASETS["coco"].load(root))[0] == 1
