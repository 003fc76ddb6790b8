"""Errors: one clear line on stderr that names what is wrong; nothing is lost or half written."""

import re
import shutil

import numpy as np
import onnx
import pytest
from conftest import (
    displaced,
    fails,
    load_split,
    refuses,
    rewrite,
    run,
    table,
    works,
    write_faces,
)

import main
from extras.shared.pts import read_pts, write_pts
from pipnet.shipped import checksum

BAD_FLAGS = [
    ("--train --epohcs 3", "--epohcs.*--epochs"),
    ("--trian", "--trian.*--train"),
    ("--train --epochs abc", "epochs.*'abc'"),
    ("--train --epochs", "--epochs"),
    ("--train --net resnet19", "'resnet19'.*resnet18"),
    ("--train --net timm:no_such_net", "no_such_net"),
    ("--train --preset quik", "'quik'.*quick"),
    ("--train --train-data /nowhere/at/all", "/nowhere/at/all"),
    ("--train --data-dir /nowhere/at/all", "/nowhere/at/all"),
    ("--train --dataset 300v", "300v.*300w"),
    ("--test", "nothing is trained"),
    ("--test --exp 018", "018"),
    ("--test --exp /nowhere/best.pt", "--exp.*/nowhere/best.pt"),
    ("--train --resume --exp 018", "last.pt"),
    ("--train --exp a.pt", "a.pt"),
    ("--train --resume", "nothing is trained"),
    ("--predict '' --exp landmarks", "--predict.*empty"),
    ("--test --compare ''", "--compare.*empty"),
    ("--train --data-dir ''", "--data-dir.*empty"),
    ("--train --train-data", "train_data"),
    (f"--test --exp runs/{'x' * 300}/best.pt", "--exp runs/x"),
    (f"--test --compare a {'x' * 300}", "--compare x"),
    (f"--train --train-data 300w {'x' * 300}", "--train-data x"),
]


@pytest.mark.parametrize(("flags", "message"), BAD_FLAGS)
def test_wrong_flags_are_one_line_and_write_nothing(cli, tmp_path, flags, message):
    done = cli("--run-root", tmp_path / "runs", "--data-root", tmp_path / "data", flags)
    fails(done, message)
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists() and not (tmp_path / "data").exists()


@pytest.mark.parametrize("command", [("main.py", "--train --epochs abc"), ("demo.py", "abc")])
def test_the_command_ends_with_one_line_and_status_1(command):
    done = run("python", *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch("error: .*abc.*\n", done.stderr), done.stderr


def test_variables_of_several_processes_are_numbers(cli, monkeypatch):
    for name, value in (
        ("NNODES", "x"),
        ("NODE_RANK", "x"),
        ("MASTER_PORT", "x"),
        ("MAX_RESTARTS", "x"),
        ("NNODES", "0"),
    ):
        done = run("bash", "main.sh", "2", "--train", **{name: value})
        assert done.returncode == 1 and re.fullmatch(f"error: {name} .*\n", done.stderr), done.stderr
    for name, value, mode in (
        ("WORLD_SIZE", "x", "--test"),
        ("TORCHELASTIC_MAX_RESTARTS", "x", "--train"),
        ("WORLD_SIZE", "2", "--test"),
    ):
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            fails(cli(mode), name)


def test_a_name_with_a_control_character_is_refused():
    """No shell can pass a NUL character, a notebook can."""
    for flags in (["--test", "--exp", "a\0b"], ["--train", "--run-root", "a\0"], ["--predict", "\0"]):
        refuses("NUL", main.main, flags)
    for flags in (
        ["--train", "--exp", "a\nb"],
        ["--export", "web", "--out", "a\nb"],
        ["--train", "--run-root", "a\x1b"],
    ):
        refuses(f"{flags[-2]} holds a (line break|control)", main.main, flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--layout 67", "67.*68"),
        ("--layout 98", "98"),
        ("--num-nb 68", "num_nb.*67.*68"),
        ("--num-lms 12", "num_lms.*12.*68"),
        ("--selected-index 1 2", "selected_index"),
        ("--amp fp16", "fp16"),
        ("--stride 128", "stride"),
        ("--input-size 100", "32"),
        ("--accumulate 5", "accumulate"),
        ("--weights nowhere.pt", "nowhere.pt"),
        ("--protocol squre", "squre.*square"),
        ("--freeze backbone", "--freeze"),
    ],
)
def test_flags_that_do_not_fit_the_data_leave_no_run(cli, recipe, tmp_path, flags, message):
    fails(cli("--train", *recipe, flags), message)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_profile_of_few_steps_is_no_crash(cli, recipe, tmp_path):
    done = works(cli("--train", *recipe, "--profile --epochs 2"))
    assert "--profile needs 25 steps" in done.stderr
    assert not list((tmp_path / "runs").rglob("trace.json"))


def test_a_batch_too_small_for_batch_norm(cli, recipe, tmp_path):
    """Also where only a stage has so few cells; no checkpoint is written."""
    detector = ["--train", *recipe[: recipe.index("--net")], "--task detect --weights none --crops 2"]
    for flags in (
        ["--train", *recipe, "--input-size 32"],
        ["--train", *recipe, "--local-parts"],
        [*detector, "--input-size 64 --epochs 1"],
    ):
        fails(cli(*flags, "--batch-size 1"), "--batch-size")
        assert not list((tmp_path / "runs").rglob("*.pt"))


def test_a_layout_without_the_norm_is_named_before_training(cli, recipe, tmp_path):
    profile = tmp_path / "profile"
    write_faces(profile / "train", 12)
    write_faces(profile / "test", 4)
    for file in profile.rglob("*.pts"):
        write_pts(file, read_pts(file)[:39])
    flags = [*recipe, "--data-root", tmp_path / "data", "--train-data", profile, "--num-nb 5"]
    fails(cli("--train", *flags), "layout 39.*interocular")
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
    works(cli("--train", *flags, "--norm box"))
    fails(cli("--test --run-root", tmp_path / "runs", "--norm interocular"), "layout 39.*interocular")


@pytest.mark.parametrize("kept", (True, False))
def test_a_bad_archive_is_named_and_nothing_is_written(cli, recipe, raw, tmp_path, kept):
    mine = tmp_path / "drawn"
    if kept:
        file = shutil.copytree(raw, mine) / "test" / "face02.jpg"
        file.write_bytes(file.read_bytes()[:-200])
    message = r"face02\.jpg: the image is cut short" if kept else "drawn"
    fails(cli("--train --test", *recipe, "--train-data", mine, "--data-root", tmp_path / "data"), message)
    assert not (tmp_path / "runs").exists() and not list((tmp_path / "data").glob("*"))


def test_a_damaged_crop_of_a_prepared_set_is_named(cli, recipe, faces, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(faces, mine)
    places = np.load(mine / "train" / "jpeg.npy")
    places[5, 1] = places[5, 0] + 100
    rewrite(mine, "train", jpeg=places)
    name = load_split(mine, "train")["file"][5]
    fails(
        cli("--train", *recipe, "--train-data", mine),
        f"crops.jpegs.*{name}",
    )


def test_an_onnx_file_that_disagrees_is_an_error(trained, cli, tmp_path):
    folder = displaced(trained, tmp_path / "apart", 0.5)
    graph = onnx.load(folder / "best.onnx")
    (entry,) = (entry for entry in graph.metadata_props if entry.key == "weights_sha256")
    assert entry.value == checksum(trained.folder / "best.pt")
    entry.value = checksum(folder / "best.pt")  # as if it had been exported from the changed weights
    onnx.save(graph, folder / "best.onnx")
    done = cli("--test-onnx --exp", folder)
    assert done.returncode == 1 and "differs from torch" in done.error and len(table(done.stdout)) == 2
    (folder / "best.onnx").write_bytes(b"no graph")  # it is made again
    works(cli("--test-onnx --exp", folder))
