"""Settings of a new training: paths and the label shift of each set."""

import dataclasses
import shutil

import pytest
import torch
import yaml
from conftest import DEFAULTS, new_settings, refuses, sets_of, typed

import main
from extras.tools.show import show_sets
from utils.data.prepared_set import PreparedSet
from utils.data.sets import Sets
from utils.settings.command import flags_of
from utils.task.task_data import TaskData, prepare
from utils.train import checkpoint, run_folder
from utils.train.ranks import Ranks
from utils.train.settings import read_trained, settings_of

ONE = Ranks(0, 1, torch.device("cpu"))


def test_paths_in_the_settings_of_a_run_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw" / "afw").mkdir(parents=True)
    data = new_settings(dataset="300w", data_dir="raw", train_data=["300w", "raw"], test_data=["raw"]).data
    assert data.data_dir == str(tmp_path / "raw")
    assert (data.train_data, data.test_data) == (["300w", str(tmp_path / "raw")], [str(tmp_path / "raw")])
    for mean in ("mean.txt", "mean.npy"):
        for name in ("best.pt", mean):
            (tmp_path / name).touch()
        given = {"meanface": mean, "teacher": "best.pt", "detector_weights": "faces.onnx"}
        assert {key: value for key, value in new_settings(**given).flat().items() if key in given} == {
            key: str(tmp_path / name) for key, name in given.items()
        }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--input-size 50 --head heatmap", "input_size must be a multiple"),
        ("--stride 4", "pip.*stride 4.*8, 16, 32, 64, 128"),
        ("--head coordinate --stride 16", "coordinate.*stride 16.*32"),
        ("--act relu", "act"),
    ],
)
def test_a_net_that_cannot_be_made_is_refused_before_sets_are_prepared(tmp_path, flags, message):
    refuses(message, new_settings, "--dataset synthetic --data-root", str(tmp_path / "data"), flags)
    assert not (tmp_path / "data").exists()


def test_the_settings_that_a_run_has_left_repeat_it(tmp_path, said):
    file = tmp_path / "args.yaml"
    first = new_settings("--dataset synthetic --epochs 3 --head coordinate --net slim --weights none --preset irnet")
    file.write_text(first.dump())
    assert new_settings("--config", str(file)) == first
    second = new_settings("--config", str(file), "--epochs 4 --run-root", str(tmp_path))
    assert second.train == dataclasses.replace(first.train, epochs=4) and not said
    file.write_text(first.dump().replace("weights: none", "weights: /nowhere/best.pt"))
    assert new_settings("--config", str(file)).net.weights == "imagenet"
    assert said == [f"{file}: weights not taken; give them as flags\n"]


def test_what_is_not_read_is_one_warning(said, raw):
    """The names of the sets decide about the flags that only some sets read."""
    new_settings("--dataset synthetic --milestones 3 --frame-step 2 --num-nb 3 --head coordinate --identity name")
    (line,) = [line for line in said if line.startswith("not read by this run: ")]
    for words in (
        "--milestones (needs --schedule steps)",
        "--num-nb (needs --head pip)",
        "--frame-step (needs the videos of 300vw or peppa)",
        "--identity (needs own sets)",
    ):
        assert words in line
    new_settings("--train-data", str(raw), "--identity name --test-split 0.2 --first-pixel 1")
    assert len(said) == 1
    new_settings("--train-data", str(raw), "--dataset 300w --data-dir /nowhere --allow-partial")
    assert "--allow-partial (needs official archives)" in said[1] and "--dataset (needs it among" in said[1]
    new_settings("--train-data", str(raw), "--misplaced 0 --face 0 --no-allow-partial")
    assert len(said) == 2, "what is asked for is done"


@pytest.mark.parametrize(("flag", "value"), [("--val", "0.4"), ("--target-size", "128"), ("--margin", "1.5")])
def test_flags_that_a_prepared_set_does_not_follow(faces, flag, value):
    refuses(
        f"{flag[2:].replace('-', '_')} .*{value}",
        main.main,
        ["--train", "--train-data", str(faces), flag, value],
    )


def test_the_label_shift_of_each_training_set(faces, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "300w"
    for folder, shift in ((ours, 0.0), (theirs, 0.75)):
        meta = {**yaml.safe_load((faces / "meta.yaml").read_text()), "label_shift": shift}
        shutil.copytree(faces, folder)
        (folder / "meta.yaml").write_text(yaml.safe_dump(meta))

    def shifts(**given):
        chosen = new_settings(dataset="300w", val=0.1, **given)
        task_data = TaskData(sets_of(chosen), [PreparedSet(folder, DEFAULTS.layouts) for folder in (ours, theirs)], [])
        assert [split.label_shift for split in task_data.splits()] == task_data.label_shifts()
        return task_data.label_shifts()

    assert shifts() == shifts(preset="short") == [0, 0.75] and shifts(preset="pipnet") == [0, 0]
    assert shifts(label_shift=[0.5]) == [0.5, 0.5] and shifts(label_shift=[0.5, 1.0]) == [0.5, 1.0]
    refuses("label_shift", shifts, label_shift=[1.0, 2.0, 3.0])


# ------------------------------------------------------------------------------------------- files of trained runs
def from_elsewhere(trained, folder, **args):
    """Return `folder`, a copy of the run whose checkpoint was changed to hold these arguments, and a protocol of its
    own.
    """
    shutil.copytree(trained.folder, folder)
    stored = checkpoint.load(folder / "best.pt")
    stored["args"] |= args
    if "protocol" in args:
        stored["protocol"] = {**stored["protocol"], "scale_x": 1.31}
    checkpoint.save(folder / "best.pt", stored)
    return folder


def opened(folder, root, flags="--test", given=None, train=False, test=False) -> TaskData:
    """Return the sets of a run to train or test on, as main.py opens them where args.yaml names `root` for prepared
    sets.
    """
    command = typed(flags, *flags_of(given or {}))
    defaults = DEFAULTS._replace(values={**DEFAULTS.values, "data_root": str(root)})
    command = dataclasses.replace(command, defaults=defaults)
    run = run_folder.find_run(str(folder), root, False)
    settings = settings_of(command, run, read_trained(command, run))
    return prepare(Sets(settings, defaults), ONE, train, test)


def state(folder) -> dict:
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "protocol", ("square", "own", "../../victim/own", "x" * 300), ids=("square", "own", "path", "long")
)
def test_the_file_of_a_run_never_says_where_to_write(trained, faces, tmp_path, protocol):
    """Its data root is only read, whatever it holds; its protocol is the one that it was trained with."""
    victim, root = tmp_path / "victim", tmp_path / "data"
    for name in (".mine.partial", "drawn-64", "drawn-64-own"):
        (victim / name).mkdir(parents=True)
        (victim / name / "meta.yaml").write_text("dataset: mine\n")
    before = state(victim)
    folder = from_elsewhere(trained, tmp_path / "run", data_root=str(victim), run_root=str(victim), protocol=protocol)
    task_data = opened(folder, root, test=True)
    assert state(victim) == before
    (prepared,) = {split.set.folder for split in task_data.tested}
    assert prepared.parent == root and prepared.name.startswith("drawn-") and len(prepared.name) < 80
    assert task_data.tested[0].set.meta["protocol"] == checkpoint.load(folder / "best.pt")["protocol"]
    shutil.copytree(faces, victim / "whole")
    before = state(victim)
    folder = from_elsewhere(trained, tmp_path / "other", data_root=str(victim), train_data=["whole"])
    task_data = opened(folder, root, "--show-data 4", train=True)
    shown = show_sets(task_data, ONE, 4)
    assert task_data.training[0].folder == victim / "whole" and str(root / "show" / "whole") in shown
    assert state(victim) == before


def test_the_file_of_a_run_from_elsewhere_opens_no_detector(trained, tmp_path):
    folder = from_elsewhere(
        trained, tmp_path / "runs" / "000", detector_weights="/nowhere/faces.onnx", box=["detector"]
    )
    refuses("--detector-weights", opened, folder, tmp_path / "data")
    assert (
        opened(folder, tmp_path, given={"run_root": str(tmp_path / "runs")}).settings.test.detector_weights
        == "/nowhere/faces.onnx"
    )


def test_a_run_is_tested_on_the_sets_that_its_data_root_holds(trained, tmp_path):
    task_data = opened(trained.folder, tmp_path / "data", test=True)
    assert str(task_data.tested[0].set.folder).startswith(trained.flags[3]) and not (tmp_path / "data").exists()
