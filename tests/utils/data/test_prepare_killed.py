"""An interrupted preparation continues; damaged images are listed and left out."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, mismatch, refuses
from test_prepare import leftovers, load_split, points_folder, prepare

from pipnet import images
from pipnet.errors import UserError
from pipnet.geometry import cut
from utils.data import prepare as prepare_module
from utils.data.fingerprint import fingerprint
from utils.data.lists import walk
from utils.data.partial_folders import remove_abandoned
from utils.data.prepared_set import read_meta, read_source_image


@pytest.mark.parametrize(
    ("torn", "redone"), [("", 6), ("3", 6), ("3 1.0 2.", 6), ("3 1.0 2.0 3.0 4.0 16 1", 6), (-1, 7), (-5, 7)]
)
def test_an_interrupted_preparation_goes_on(tmp_path, monkeypatch, torn, redone):
    """torn: what stands in the journal's last line, or how many bytes of the last crop the disk has not."""
    source = points_folder(tmp_path / "mine", people=4, frames=2)
    whole = prepare(source, tmp_path / "whole", name="set")
    made, original = [], prepare_module.read_source_image

    def read(file):
        made.append(file.name)
        if len(made) == 11:
            raise KeyboardInterrupt
        return original(file)

    monkeypatch.setattr(prepare_module, "read_source_image", read)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "data", name="set")
    assert leftovers(tmp_path / "data") == [".set.partial"]
    growing = tmp_path / "data/.set.partial/set"
    if isinstance(torn, str):
        (growing / "test.done").write_text((growing / "test.done").read_text() + torn)  # as a power cut may leave it
        with open(growing / "test/crops.jpegs", "ab") as crops:
            crops.write(b"half a crop")
    else:
        os.truncate(growing / "test/crops.jpegs", (growing / "test/crops.jpegs").stat().st_size + torn)
    made.clear()
    folder = prepare(source, tmp_path / "data", name="set")
    assert len(made) == redone and leftovers(tmp_path / "data") == ["set"]  # ten of 16 were made before
    for file in sorted(path for path in whole.rglob("*") if path.is_file()):
        assert (folder / file.relative_to(whole)).read_bytes() == file.read_bytes(), file
    assert len(list(folder.rglob("*"))) == len(list(whole.rglob("*")))


def test_a_changed_preparation_begins_anew(tmp_path, monkeypatch):
    source = points_folder(tmp_path / "mine", ("train",), people=3, frames=1)
    original = prepare_module.read_source_image
    monkeypatch.setattr(prepare_module, "read_source_image", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "data", val=0)
    monkeypatch.setattr(prepare_module, "read_source_image", original)
    folder = prepare(source, tmp_path / "data", val=0, target_size=48)
    assert load_split(folder, "train").crops[0].shape == (60, 60, 3) and leftovers(tmp_path / "data") == ["mine"]


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
        assert abs(table.crops[index].astype(int) - exact).mean() < 4
    (source / "train" / names[50]).write_bytes(b"")
    with pytest.raises(
        UserError,
        match=f"{names[7]}.*2 of 120",
    ):
        prepare(source, tmp_path / "other", val=0)
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
    with pytest.raises(UserError, match=f"{name}: cannot be read"):
        prepare(source, tmp_path / "data", val=0)
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
        with pytest.raises(UserError, match=f"{source / 'train'}: cannot be read"):
            function(source)


@pytest.mark.slow
@pytest.mark.parametrize("place", ("old set moved", "new set moved"))
def test_a_preparation_that_is_killed_while_it_replaces_a_set(tmp_path, monkeypatch, place):
    source = points_folder(tmp_path / "mine", people=4, frames=1)
    folder = prepare(source, tmp_path / "data", name="set")
    moved, replace = [], os.replace

    def killed(one, two):
        replace(one, two)
        moved.append(one)
        if len(moved) == ("old set moved", "new set moved").index(place) + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "data", name="set", target_size=48)
    monkeypatch.undo()
    (tmp_path / "data/.raw.partial/faces").mkdir(parents=True)  # of a rendering
    (tmp_path / "data/.raw.partial/.lock").touch()
    assert folder.exists() == (place == "new set moved")
    remove_abandoned(tmp_path / "data")
    assert leftovers(tmp_path / "data") == ["set"] and not mismatch(
        folder, target_size=48 if place == "new set moved" else 32
    )


@pytest.mark.parametrize(
    "names",
    (
        ["notes.txt"],
        [".lock"],
        [".lock", "notes.txt"],
        [".lock", "set/notes.txt"],
        [".lock", "old/a.tsv"],
        [".lock", "faces/me.jpg"],
        ["set/key"],
        None,
    ),
)
def test_folders_of_others_are_not_tidied_away(tmp_path, names):
    """Neither is a set made in one; other sets can be made."""
    source, data = points_folder(tmp_path / "mine", people=1, frames=2), tmp_path / "data"
    for name in names or ():
        (data / ".set.partial" / name).parent.mkdir(parents=True, exist_ok=True)
        (data / ".set.partial" / name).write_text("" if name == ".lock" else "mine")
    if names is None:
        data.mkdir()
        (data / ".set.partial").write_text("mine")
    before = sorted(data.rglob("*"))
    remove_abandoned(data)
    assert sorted(data.rglob("*")) == before
    prepare(source, data, name="other")
    if names not in ([".lock"], ["set/key"]):
        refuses(r"\.set\.partial", prepare, source, data, name="set")
        assert set(data.rglob("*")) >= set(before)


@pytest.mark.parametrize("name", ("set", "set/test/crops.jpegs", "set/test.done", ".lock"))
def test_links_where_a_set_grows_are_not_followed(tmp_path, name):
    source, growing, victim = tmp_path / "mine", tmp_path / "data/.set.partial", tmp_path / "victim"
    points_folder(source, people=1, frames=2)
    victim.mkdir()
    (growing / name).parent.mkdir(parents=True)
    (growing / name).symlink_to(victim if name == "set" else victim / "file")
    refuses(r"\.set\.partial", prepare, source, tmp_path / "data", name="set")
    assert not list(victim.iterdir())


def test_a_preparation_at_work_is_not_tidied_away(tmp_path):
    growing = tmp_path / ".set.partial"
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\nfrom utils.data.locks import waiting\n"
        f"with waiting(Path({str(growing / '.lock')!r})):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    remove_abandoned(tmp_path)
    assert growing.is_dir()
    process.kill()
    process.wait()
    remove_abandoned(tmp_path)
    assert not growing.exists()
