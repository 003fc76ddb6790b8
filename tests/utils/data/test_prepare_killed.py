"""An interrupted preparation leaves nothing behind; damaged images are listed and left out."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from socket import gethostname

import pytest
from conftest import mismatch, refuses
from test_prepare import leftovers, load_split, points_folder, prepare

from extras.shared.lists import walk
from pipnet import images
from pipnet.geometry import cut
from utils.data import prepare as prepare_module
from utils.data.fingerprint import fingerprint
from utils.data.prepared_set import read_meta, read_source_image


def interrupted(monkeypatch, source: Path, out: Path) -> None:
    """Begin a preparation that is interrupted after some crops."""
    made, original = [], prepare_module.read_source_image

    def read(file):
        made.append(file)
        if len(made) == 11:
            raise KeyboardInterrupt
        return original(file)

    monkeypatch.setattr(prepare_module, "read_source_image", read)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, out)
    monkeypatch.undo()


def test_an_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch):
    source = points_folder(tmp_path / "mine", people=4, frames=2)
    interrupted(monkeypatch, source, tmp_path / "data")
    assert leftovers(tmp_path / "data") == []
    folder = prepare(source, tmp_path / "data")
    assert leftovers(tmp_path / "data") == [folder.name] and not mismatch(folder)


def test_a_killed_preparation_is_tidied_away_by_the_next(tmp_path, monkeypatch):
    source, data = points_folder(tmp_path / "mine", people=4, frames=2), tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr("utils.data.new_folder.shutil.rmtree", lambda *_, **__: None)  # as if it were killed
        interrupted(patch, source, data)
    (left,) = leftovers(data)
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    here, elsewhere, old = (
        f".{process}@{host}.partial-0a1b2c3d"
        for process, host in ((dead.stdout.strip(), gethostname()), (7, "elsewhere"), (8, "elsewhere"))
    )
    for name in (here, elsewhere, old, ".notes.partial-0a1b2c3d"):
        (data / name).mkdir()
        (data / name / "file").touch()
    for path in (data / old / "file", data / old):
        os.utime(path, (0, 0))
    (data / here.replace("0a", "0b")).symlink_to(data / elsewhere)
    folder = prepare(source, data)
    kept = {left, elsewhere, ".notes.partial-0a1b2c3d", here.replace("0a", "0b")}  # `left` is of this very process
    assert set(leftovers(data)) == {folder.name, *kept} and not mismatch(folder)


def test_two_preparations_of_one_set_do_no_harm(tmp_path, monkeypatch):
    source, original, made = points_folder(tmp_path / "mine", people=2, frames=1), prepare_module.write_set, []

    def write(*given):
        original(*given)
        if not made:  # the other one is faster
            made.append(None)
            made.append(prepare(source, tmp_path / "data"))
            (made[1] / "first").touch()

    monkeypatch.setattr(prepare_module, "write_set", write)
    folder = prepare(source, tmp_path / "data")
    assert made[1] == folder and (folder / "first").exists() and leftovers(tmp_path / "data") == [folder.name]


def test_damaged_images_are_listed_and_left_out(tmp_path):
    source = points_folder(tmp_path / "mine", ("train",), people=120, frames=1, count=5)
    names = sorted(path.name for path in (source / "train").glob("*.jpg"))
    (source / "train" / names[7]).write_text("not a picture")
    folder = prepare(source, tmp_path / "data", val=0)
    table = load_split(folder, "train")
    assert [Path(name).name for name in table["file"]] == names[:7] + names[8:]
    assert (folder / "left_out.txt").read_text().startswith(f"{source / 'train' / names[7]}: not a readable image")
    assert read_meta(folder)["found"] == {"all": 119} and not mismatch(folder)
    for index in (6, 7, 118):  # rows and crops still belong together
        exact = cut(read_source_image(source / table["file"][index]), table["crop"][index], 32, 1.25)
        assert abs(table.crop(index).astype(int) - exact).mean() < 4
    (source / "train" / names[50]).write_bytes(b"")
    refuses(f"{names[7]}.*2 of 120", prepare, source, tmp_path / "other", val=0)
    assert leftovers(tmp_path / "other") == []


@pytest.mark.parametrize("fault", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_picture_that_the_system_does_not_let_us_read_stops_the_preparation(tmp_path, monkeypatch, fault):
    """It is sound: a set without it would be kept when it can be read again."""
    source = points_folder(tmp_path / "mine", ("train",), people=120, frames=1, count=5)
    name, read = sorted((source / "train").glob("*.jpg"))[7], images.read_bytes

    def denied(file, *most):
        if file == name:
            raise OSError(fault, os.strerror(fault), str(file))
        return read(file, *most)

    monkeypatch.setattr(images, "read_bytes", denied)
    refuses(f"{name}: cannot be read", prepare, source, tmp_path / "data", val=0)
    monkeypatch.undo()
    assert len(load_split(prepare(source, tmp_path / "data", val=0), "train")["file"]) == 120


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    source, list_folder = points_folder(tmp_path / "mine", ("train",), people=4, frames=1, count=5), os.scandir

    def denied(folder):
        if str(folder).endswith("train"):
            raise OSError(errno.EACCES, "Permission denied", str(folder))
        return list_folder(folder)

    monkeypatch.setattr(os, "scandir", denied)
    for function in (images.picture_files, fingerprint, lambda folder: list(walk(folder))):
        refuses(f"{source / 'train'}: cannot be read", function, source)
