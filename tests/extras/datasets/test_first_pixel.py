"""Own sets that count the first pixel as 0 or 1: their files say it, or --first-pixel; nothing is told from names."""

import json
import shutil

import archives
import numpy as np
import pytest
from archives import parse
from conftest import fails, load_split, made_in, refuses, works, write_faces
from own_sets import FIVE, write_coco, write_pairs, write_rows

from extras.shared.pts import read_pts, write_pts
from utils.data.prepare import DataGenerator
from utils.data.prepared_set import read_meta

SIZE = 96


def own_set(folder, first: int = 0):
    """Twelve faces counted from `first`."""
    write_faces(folder, 12, size=SIZE)
    for file in sorted(folder.glob("*.pts")):
        write_pts(file, read_pts(file) + first)
    return folder


@pytest.mark.parametrize("stem", ("image_0001", "000001", "indoor_001", "face"))
def test_names_tell_nothing(tmp_path, stem):
    face = archives.landmarks(68)
    write_pts(archives.picture(tmp_path / "set" / f"{stem}.jpg").with_suffix(".pts"), face)
    assert np.allclose(parse("points", tmp_path / "set")["train"][0].landmarks, face + 0.5)


def test_files_state_how_they_count(tmp_path, said):
    """The word of a file is before the flag; a flag that no file heeds is refused."""
    faces = [FIVE, FIVE + 3, FIVE + 6]
    write_pairs(tmp_path / "pts", faces)
    write_pts(tmp_path / "pts" / "1.pts", faces[1] + 1, first_pixel=1)
    assert read_pts(tmp_path / "pts" / "1.pts").tolist() == (faces[1] + 1).tolist()
    table = write_rows(tmp_path / "csv", faces) / "labels.csv"
    head, one, two, three = table.read_text().split("\n")
    cells = ",".join(map(str, (faces[1] + 1).ravel()))
    table.write_text("\n".join([f"{head},first_pixel", f"{one},", f"1.jpg,{cells},1", f"{three},0"]))
    for name in ("pts", "csv"):
        assert np.allclose(
            [face.landmarks for face in parse(name.replace("pts", "points"), tmp_path / name)["train"]],
            np.array(faces) + 0.5,
        )
    coco = write_coco(tmp_path / "coco", [face + 1 for face in faces]) / "labels.json"
    coco.write_text(json.dumps({**json.loads(coco.read_text()), "info": {"first_pixel": 1}}))
    assert np.allclose([face.landmarks for face in parse("coco", coco.parent)["train"]], np.array(faces) + 0.5)
    folder = DataGenerator(coco.parent, 32, out=tmp_path / "data", val=0, first_pixel=1).run()
    assert np.allclose(load_split(folder, "train")["landmarks"], np.array(faces) + 0.5)
    assert "from 1 in 3" in "".join(said)
    make = DataGenerator(coco.parent, 32, out=tmp_path / "data", val=0, first_pixel=0, overwrite=True).run
    refuses("coco.*first_pixel 1", make)
    coco.write_text(coco.read_text().replace('"first_pixel": 1', '"first_pixel": 7'))
    refuses("first_pixel.*'7", parse, "coco", coco.parent)


def test_it_is_kept_in_the_meta_and_said(cli, tmp_path):
    mine = own_set(tmp_path / "mine", 1)
    flags = ("--prepare", "--dataset", mine, "--data-root", tmp_path / "data", "--target-size", "32", "--val", "none")

    def origin() -> float:
        return read_meta(made_in(tmp_path / "data", "mine"))["origin"]

    done = works(cli(*flags))
    assert "counted from 0 in 12 faces" in done.stderr and origin() == 0
    assert "preparing" not in cli(*flags).stderr
    done = works(cli(*flags, "--first-pixel 1"))
    assert "preparing mine" in done.stderr and origin() == 1
    assert "counted from 1, as --first-pixel said before" in cli(*flags).stderr
    shutil.copy(mine / "face00.jpg", mine / "new.jpg")
    write_pts(mine / "new.pts", read_pts(mine / "face00.pts") + 4)
    done = cli(*flags)
    assert "preparing mine" in done.stderr and "counted from 1, as --first-pixel said before" in done.stderr
    assert origin() == 1
    fails(cli("--prepare --dataset", made_in(tmp_path / "data", "mine"), "--first-pixel 0"), "origin 1.0, not 0.0")
    fails(cli(*flags, "--first-pixel 2"), "first_pixel must be one of")


def test_the_release_of_300w_is_counted_as_ever(tmp_path):
    own_set(tmp_path / "300W" / "afw")
    folder = DataGenerator(tmp_path / "300W", 32, out=tmp_path / "data", allow_partial=True, val=0).run()
    assert read_meta(folder)["origin"] == 1
