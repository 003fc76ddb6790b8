"""Which dataset a training takes, how it is prepared on first use, and which protocol goes with it."""

import os
import shutil
from pathlib import Path

import archives
import pytest
from conftest import DEFAULTS, SMALL, fails, new_settings, refuses, sets_of, settings, works, write_faces
from loguru import logger
from own_sets import FIVE, write_coco

from utils import util
from utils.data import sets
from utils.data.prepared_set import PreparedSet, read_meta
from utils.settings.config import Settings
from utils.task import task_data
from utils.train.ranks import start_ranks

wflw = pytest.fixture(archives.wflw)


def training(**given) -> PreparedSet:
    """The training set of such settings, prepared."""
    return trained_on(new_settings(**{"target_size": 32, **given}))


def trained_on(chosen: Settings) -> PreparedSet:
    """The only training set of these settings, prepared."""
    (name,) = chosen.data.train_data
    return sets_of(chosen).with_sets([name])[name]


@pytest.fixture
def raw_300w(tmp_path) -> Path:
    """A part of 300W: 12 faces to train, 4 to test."""
    write_faces(tmp_path / "300W" / "afw", 12)
    write_faces(tmp_path / "300W" / "lfpw" / "testset", 4, seed=1)
    return tmp_path / "300W"


@pytest.fixture
def root(raw_300w, tmp_path) -> Path:
    """The folder of prepared sets, with that part, prepared as the ancestors prepare it."""
    util.DataGenerator(str(raw_300w), 32, out=tmp_path / "data", allow_partial=True).run()
    return tmp_path / "data"


@pytest.fixture
def first(root) -> Path:
    """That prepared set."""
    return next(root.iterdir())


def test_a_set_is_prepared_again_in_any_protocol_and_size(root, first):
    again = training(preset="pipnet", data_root=str(root))
    assert again.meta["protocol"] == DEFAULTS.protocols["pipnet"] and again.folder != first
    assert again.meta["found"] == read_meta(first)["found"]
    shutil.rmtree(first)
    other = trained_on(new_settings(target_size=48, data_root=str(root)))  # square: `again` tells the archive
    assert other.meta["target_size"] == 48 and other.folder.name.startswith("300w-")
    assert training(preset="pipnet", data_root=str(root)).folder == again.folder


@pytest.mark.parametrize("name", ["300w", "aflw"])
def test_a_set_of_ones_own_is_not_taken_for_the_benchmark_of_its_name(tmp_path, raw_300w, name):
    mine = write_faces(tmp_path / "own" / name, 12)
    common = {"data_root": str(tmp_path / "data"), "protocol": "square"}
    one = training(train_data=[str(mine)], **common)
    assert one.folder.name.startswith(f"{name}-") and one.meta["dataset"] == "points"
    refuses(f"{name} has not been prepared", training, dataset=name, **common)
    assert sets.test_names([one]) == [str(mine)]
    if name == "300w":
        other = training(dataset=name, data_dir=str(raw_300w), allow_partial=True, **common)
        assert other.folder != one.folder and training(train_data=[str(mine)], **common).folder == one.folder


def test_a_set_is_found_by_its_name_without_the_hash(tmp_path):
    common, mine = {"data_root": str(tmp_path / "data")}, write_faces(tmp_path / "mine", 12)
    one = training(train_data=[str(mine)], **common)
    wide = training(train_data=[str(mine)], margin=1.5, **common)
    assert training(train_data=["mine"], **common).folder == one.folder
    assert training(train_data=["mine"], margin=1.5, **common).folder == wide.folder
    assert training(train_data=[wide.folder.name], **common).folder == one.folder
    assert training(train_data=["mine"], target_size=48, **common).meta["source"] == str(mine)
    refuses("min.*mine|neither", training, train_data=["min"], **common)
    theirs = write_faces(tmp_path / "theirs" / "mine", 12, seed=1)
    training(train_data=[str(theirs)], **common)
    refuses(f"{mine} and {theirs}", training, train_data=["mine"], **common)


def test_sets_that_are_not_used_are_named(tmp_path, said, cli):
    common, mine = {"data_root": str(tmp_path / "data")}, write_faces(tmp_path / "mine", 12)
    old, new = (training(train_data=[str(mine)], margin=margin, **common) for margin in (1.5, 1.25))
    os.utime(old.folder / "opened", (0, 0))
    flags = ("--prepare", "--train-data", mine, "--data-root", tmp_path / "data", "--target-size", "32")
    done = works(cli(*flags))
    assert f"rm -r {old.folder}\n" in done.stderr
    assert f"{new.folder} is prepared already: 11 train, 1 val faces with 68 landmarks" in done.stderr
    done = cli(*flags, "--overwrite")
    assert "prepared already" not in done.stderr
    (aside,) = {path.name for path in (tmp_path / "data").iterdir()} - {old.folder.name, new.folder.name}
    assert done.returncode == 0 and {str(old.folder), str(tmp_path / "data" / aside)} <= {*done.stderr.split()}
    assert training(train_data=["mine"], **common).folder == new.folder and aside.startswith(new.folder.name)


def test_a_prepared_folder_has_the_labels_that_are_asked_for(root, first):
    given = {"train_data": [str(first)], "data_root": str(root), "protocol": "square"}
    assert training(**given).folder == first
    refuses("--first-pixel.*--labels", training, preset="pipnet", **given)
    assert training(preset="pipnet", labels="exact", **given).folder == first


def test_a_part_that_went_missing_later_is_not_accepted_unasked(root, raw_300w):
    shutil.rmtree(raw_300w / "lfpw")
    refuses("300W.*--allow-partial", training, preset="pipnet", data_root=str(root))
    assert training(preset="pipnet", data_root=str(root), allow_partial=True).splits == ["train"]


def test_without_the_raw_folder_the_message_says_what_to_type(root, first, raw_300w):
    raw_300w.rename(raw_300w.with_name("moved"))
    as_it_is = {"protocol": "square", "labels": "exact", "val": 0.1}
    assert training(preset="pipnet", **as_it_is, data_root=str(root)).folder == first  # it needs no raw folder
    text = refuses("", trained_on, new_settings(preset="pipnet", data_root=str(root)))
    assert "\n" not in text and str(first) in text and f"{raw_300w} is gone" in text
    assert text.endswith(f"--data-dir FOLDER, or name that set as it is, instead of 300w: {first}")
    assert training(preset="pipnet", data_root=str(root), data_dir=str(raw_300w.with_name("moved")), allow_partial=True)


def test_faces_of_another_kind_are_never_trained_on_unasked(root, first, raw, tmp_path):
    assert new_settings(data_root=str(tmp_path / "empty")).data.train_data == ["synthetic"]
    first.rename(root / "mine")  # named otherwise, so perhaps a part of it
    refuses("mine.*300w.*--dataset", new_settings, data_root=str(root))
    assert new_settings(data_root=str(root), dataset="synthetic").data.train_data == ["synthetic"]
    assert new_settings(data_root=str(root), data_dir=str(raw)).data.train_data == [str(raw)]
    text = (root / "mine" / "meta.yaml").read_text()
    (root / "mine" / "meta.yaml").write_text(text.replace("dataset: 300w", "dataset: synthetic"))
    assert new_settings(data_root=str(root)).train.preset == "quick"
    (root / "mine" / "meta.yaml").write_text("a: [")  # damaged
    assert new_settings(data_root=str(root)).data.train_data == ["synthetic"]


def test_300w_is_found_among_others(root, first, raw):
    util.DataGenerator(str(raw), 32, out=root).run()
    assert new_settings(data_root=str(root)).data.train_data == ["300w"]
    file = first / "meta.yaml"
    file.write_text(file.read_text().replace("format: 5", "format: 3"))
    refuses("format 3", training, data_root=str(root), train_data=[str(first)])


def test_a_run_goes_on_when_its_raw_folder_is_gone(cli, raw, tmp_path):
    mine = shutil.copytree(raw, tmp_path / "mine")
    places = ("--data-root", tmp_path / "data", "--run-root", tmp_path / "runs")
    done = works(cli("--train --train-data", mine, *places, *SMALL, "--epochs 1 --exp one"))
    shutil.rmtree(mine)
    done = works(cli("--train --test --exp one --resume --epochs 2", *places))
    assert "mine is gone; " in done.stderr and "epoch 2/2" in done.stderr
    works(cli("--test --exp one", *places))


def test_own_sets_do_not_keep_a_shipped_net_from_being_exported(cli, faces, data_root, tmp_path):
    done = works(
        cli(
            "--export int8 --exp landmarks-fast --layout 68 --data-root",
            data_root,
            "--run-root",
            tmp_path / "runs",
        )
    )
    assert "calibrated" not in done.stderr


def test_a_data_root_that_nobody_can_write_to(cli, recipe, faces, raw, tmp_path, monkeypatch):
    for root in ("/proc/data", "/dev/null/data"):
        for dataset in ([], ["--dataset", "synthetic", "--train-data", "synthetic"]):
            fails(cli("--prepare", *recipe, *dataset, "--data-root", root), f"{root}.*--data-root")
    whole = sets_of(settings(data_root=str(faces.parent), target_size=64))
    monkeypatch.setattr(os, "open", lambda *_, **__: (_ for _ in ()).throw(PermissionError))
    assert whole.with_sets([str(raw)])[str(raw)].folder == faces, "a whole set is taken from there"


def test_a_folder_whose_files_vanish_while_they_are_read(cli, tmp_path):
    if Path("/proc/self").is_dir():
        fails(cli("--prepare --dataset /proc --data-root", tmp_path / "data"), "/proc")


@pytest.mark.parametrize("name", ("face00.jpg", "face00.pts"))
def test_a_pipe_among_the_files_is_one_line(cli, raw, tmp_path, name):
    shutil.copytree(raw / "test", tmp_path / "mine")
    (tmp_path / "mine" / name).unlink()
    os.mkfifo(tmp_path / "mine" / name)
    fails(cli("--prepare --dataset", tmp_path / "mine", "--data-root", tmp_path / "data"), f"{name}.*regular")


def test_the_protocol_goes_with_the_dataset(wflw, tmp_path):
    folder, _ = wflw
    common = {"data_root": str(tmp_path / "data"), "allow_partial": True, "val": "none"}
    for given in (
        {"dataset": "wflw", "data_dir": str(folder)},
        {"data_dir": str(folder)},
        {"train_data": [str(folder)]},
    ):
        for preset, wanted in (("pipnet", "wflw"), ("irnet", "wflw"), ("default", None)):
            assert new_settings(preset=preset, **common, **given).data.protocol == wanted, given
    one = training(dataset="wflw", data_dir=str(folder), preset="pipnet", **common)
    assert one.meta["protocol"] == DEFAULTS.protocols["wflw"]
    assert new_settings(train_data=[str(one.folder)], preset="pipnet").data.protocol == "wflw"
    typed = training(dataset="wflw", data_dir=str(folder), preset="pipnet", protocol="pipnet", **common)
    assert typed.meta["protocol"] == DEFAULTS.protocols["pipnet"]
    refuses("300w.*wflw", new_settings, train_data=["300w", str(one.folder)], preset="pipnet")


def test_archives_side_by_side_are_found_whichever_flag_names_the_set(raw_300w, tmp_path):
    raw_300w.rename(tmp_path / "ARCHIVES")
    side = tmp_path / "side"
    side.mkdir()
    (tmp_path / "ARCHIVES").rename(side / "data_300W")
    for name in ("cofw68", "celeba", "wflw"):
        (tmp_path / name).mkdir()
        getattr(archives, name)(tmp_path / name)[0].rename(
            side / {"cofw68": "COFW", "celeba": "CelebA"}.get(name, "WFLW")
        )
    common = {"data_root": str(tmp_path / "data"), "data_dir": str(side), "allow_partial": True, "val": "none"}
    for name, place in (("300w", "data_300W"), ("cofw68", "COFW"), ("celeba-wild", "CelebA"), ("wflw", "WFLW")):
        for given in ({"dataset": name}, {"train_data": ["wflw"], "test_data": [name]}):
            found = sets_of(new_settings(**common, **given))
            assert sets.source_of(found, name) == side / place, (name, given)
    for name, place in (
        ("300w", "data_300W"),
        ("celeba-wild", "CelebA"),
    ):  # also where the folder is the archive itself
        given = {**common, "data_dir": str(side / place)}
        found = sets_of(new_settings(**given, dataset=name))
        assert sets.source_of(found, name) == Path(given["data_dir"])
    sets_of_eyes = sets_of(new_settings(**common, dataset="300w", preset="drowsiness", target_size=32))
    mean = sets.meanface(sets_of_eyes, "300w", DEFAULTS.layouts.load("12"), None)
    assert mean.shape == (12, 2)


def test_data_dir_is_not_the_archive_of_a_set_that_knows_its_own(raw_300w, wflw, tmp_path):
    root = str(tmp_path / "data")
    common = {"data_root": root, "allow_partial": True, "val": "none"}
    training(dataset="wflw", data_dir=str(wflw[0]), preset="pipnet", **common)  # with other crops than those below
    found = sets_of(new_settings(dataset="300w", data_dir=str(raw_300w), target_size=32, **common))
    assert found.with_sets(["wflw"])["wflw"].meta["source"] == str(wflw[0])


def test_a_training_on_all_faces_has_them_in_one_order(tmp_path):
    mine, found = str(write_faces(tmp_path / "mine", 24)), []
    for name, first in (("new", "none"), ("used", 0.3)):
        given = {"data_root": str(tmp_path / name), "target_size": 32, "input_size": 32, "train_data": [mine]}
        for val in (first, "none"):
            chosen = new_settings(**given, val=val)
            ours = task_data.prepare(sets_of(chosen), start_ranks(), True, False)
        found.append((list(ours.crops(ours.splits())["file"]), ours.learnt_from()))
    assert found[0] == found[1] and len(found[0][0]) == 24


def test_other_boxes_are_other_data(tmp_path):
    states, root = [], write_coco(tmp_path / "mine", [FIVE, FIVE + 1, FIVE + 2], box=[50, 30, 60, 61])
    for side in (60, 90):
        (root / "labels.json").write_text((root / "labels.json").read_text().replace("30, 60, 61]", f"30, {side}, 61]"))
        given = {"data_root": str(tmp_path / "data"), "target_size": 32, "train_data": [str(root)], "val": "none"}
        one = trained_on(new_settings(**given))
        states.append((one.checksum, one.state("none")))
    assert states[0][0] == states[1][0] and states[0][1] != states[1][1]


def test_a_prepared_set_whose_archive_has_changed_is_told(tmp_path):
    mine = write_faces(tmp_path / "mine", 12)
    common = {"data_root": str(tmp_path / "data"), "target_size": 32}
    one = trained_on(new_settings(**common, train_data=[str(mine)]))
    for changed in (False, True):
        said = []
        number = logger.add(said.append, format="{message}", level="WARNING")
        name = str(one.folder)
        found = sets_of(new_settings(**common, train_data=[name])).with_sets([name, name])
        assert found[name].folder == one.folder
        logger.remove(number)
        assert len(said) == changed and all("mine has changed since" in line for line in said)
        (mine / "face00.pts").write_text((mine / "face00.pts").read_text() + "\n")


def test_faces_that_are_trained_on_are_no_remedy_for_themselves(tmp_path):
    mine = str(write_faces(tmp_path / "flat", 12))
    common = {"data_root": str(tmp_path / "data"), "train_data": [mine], "target_size": 32}
    # --data-dir may be its archive
    assert new_settings(**common, dataset="300w", test_data=["300w"]).data.train_data == [mine]
    named = {"test_data": [mine]}
    for given, message in (({}, "folder test/, or give --test-data"), (named, "or name other faces, since this net")):
        refuses(message, sets.test_splits, sets_of(new_settings(**common, **given)).with_sets([mine]))


def test_own_sets_get_layouts_by_their_names_and_test_splits(tmp_path):
    five = ["nose", "left_eye", "right_eye", "left_lip", "right_lip"]
    folders = [
        write_coco(
            tmp_path / name,
            [FIVE[: len(points)] + i for i in range(4)],
            names=points,
            files=[f"{4 * number + i}.jpg" for i in range(4)],
        )
        for number, (name, points) in enumerate({"a": five, "b": five[1:] + ["chin"], "c": five}.items())
    ]
    a, b, c = map(str, folders)
    how = {"target_size": 32, "data_root": str(tmp_path / "data")}
    chosen = new_settings(layout="union", train_data=[a, b], test_split=0.5, **how)
    found = task_data.prepare(sets_of(chosen), start_ranks(), True, True)
    assert [name for name, one in found.layout.members.items() if one.sets] == ["a", "b"]
    assert [len(found.crops([split])) for split in found.tested] == [2, 2]
    chosen = new_settings(train_data=[a], test_data=[c], test_split=0.5, **how)
    found = task_data.prepare(sets_of(chosen), start_ranks(), True, True)
    assert found.layout.name == "a" and len(found.crops(found.tested)) == 4, "the same points, none of them trained on"
    assert [one.meta["layout"] for one in (found.training[0], found.tested[0].set)] == ["a", "a"]
