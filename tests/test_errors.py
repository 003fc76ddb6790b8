"""Errors: one clear line on stderr that names what is wrong; nothing is lost or half written."""

import re
import shutil

import numpy as np
import onnx
import pytest
from conftest import (
    DEFAULTS,
    ROOT,
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
from pipnet.files import checksum
from utils.data.pts import read_pts, write_pts
from utils.settings.config import Settings, parse, read_defaults
from utils.train.settings import read_settings

BAD_FLAGS = [
    ("--train --epohcs 3", "--epohcs.*--epochs"),
    ("--trian", "--trian.*--train"),
    ("--train --epochs abc", "epochs.*'abc'"),
    ("--train --epochs 2.5", r"epochs.*2\.5"),
    ("--train --epochs", "--epochs"),
    ("--train --batch-size 0", "batch_size.*1.*0"),
    ("--train --learning-rate fast", "learning_rate.*'fast'"),
    ("--train --thresholds ten", "thresholds.*'ten'"),
    ("--train --stride 24", "stride.*4, 8, 16, 32, 64, 128.*24"),
    ("--train --val 1.5", "val"),
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
    ("--test --resume", "--resume.*--train.*--audit"),
    ("--test --overwrite", "--overwrite"),
    ("--predict '' --exp landmarks", "--predict.*empty"),
    ("--test --compare ''", "--compare.*empty"),
    ("--train --data-dir ''", "--data-dir.*empty"),
    ("--train --train-data", "train_data"),
    ("--train --flip 1.5", "flip.*0.*1"),
    ("--train --scale 1", r"scale.*1\.0"),
    (f"--train --exp {'x' * 300}", r"--exp x{40}\.\.\."),
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
        ("--act relu", "act"),
        ("--freeze backbone", "--freeze"),
        ("--stride 4", "pip.*stride 4.*8, 16, 32, 64, 128"),
        ("--head coordinate --stride 16", "coordinate.*stride 16.*32"),
    ],
)
def test_flags_that_do_not_fit_the_data_leave_no_run(cli, recipe, tmp_path, flags, message):
    fails(cli("--train", *recipe, flags), message)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def new_settings(flags: str) -> Settings:
    """The settings of a new training with these flags, as main.py reads them."""
    mode, given = parse(["--train", "--dataset", "synthetic", *flags.split()], DEFAULTS)
    return read_settings(given, mode, None, DEFAULTS)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--head coordinate --num-nb 5",
            "--num-nb.*pip.*coordinate",
        ),
        (
            "--head coordinate --cls 5",
            "--cls.*pip.*heatmap.*simcc.*coordinate",
        ),
        ("--head heatmap --no-refine --reg 2", "--reg.*pip.*coordinate.*parts.*heatmap"),
        ("--alignment 2", "--alignment.*--reinit.*--local-parts"),
        ("--milestones 3", "--milestones.*steps"),
        ("--schedule steps --final-learning-rate 0.1", "--final-learning-rate.*cosine"),
        ("--ema 0 --ema-ramp 9", "--ema-ramp.*--ema"),
        ("--pasted 3", "--pasted.*landmarks"),
        ("--task detect --net resnet50", "--net.*detect"),
        ("--preset detect --flip-test", "--flip-test.*detect"),
        ("--detector yunett", "detector.*faceboxes, rfb320.*'yunet'"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(flags, message):
    """Each is a flag of other trainings."""
    refuses(message, new_settings, flags)


def test_loss_weights_of_stages_are_taken_with_any_head():
    for flags in ("--head heatmap --local-parts --reg 2", "--reinit --alignment 2", "--head simcc --cls 2"):
        assert new_settings(flags).train.task == "landmarks"


def test_flags_of_sets_that_are_not_there(cli, raw, tmp_path):
    fails(cli("--prepare --dataset", raw, "--data-dir", tmp_path, "--data-root", tmp_path / "data"), "--data-dir")


def test_a_profile_of_few_steps_is_no_crash(cli, recipe, tmp_path):
    done = works(cli("--train", *recipe, "--profile --epochs 2"))
    assert "--profile needs 25 steps" in done.stderr
    assert not list((tmp_path / "runs").rglob("trace.json"))
    fails(cli("--test --run-root", tmp_path / "runs", "--first-pixel 1"), "--first-pixel")


def test_a_batch_too_small_for_batch_norm(cli, recipe, tmp_path):
    """Also where only a stage has so few cells; nothing is written."""
    detector = ["--train", *recipe[: recipe.index("--net")], "--task detect --weights none --crops 2"]
    for flags in (
        ["--train", *recipe, "--input-size 32"],
        ["--train", *recipe, "--local-parts"],
        [*detector, "--input-size 64 --epochs 1"],
    ):
        fails(cli(*flags, "--batch-size 1"), "--batch-size")
        assert not list((tmp_path / "runs").glob("*"))


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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"train:  ", "trian:  ", "'trian'.*'train'"),
        (
            r"  learning_rate:",
            "  learning_rat:",
            "'learning_rat'.*'learning_rate'",
        ),
        (r"  epochs: \d+", "  epochs: many", "epochs.*'many'"),
        (r"  epochs: \d+", "  epochs: null", "epochs.*None"),
        (r"  seed:", "  speed: 3\n  seed:", "speed.*seed"),
        (r"  clip:", "  # clip:", "train.*'clip'"),
        (r"  quick:.*\n", "  quick:\n    epoch: 14\n", "'epoch'.*quick.*epochs"),
    ],
)
def test_a_slip_in_args_yaml_is_named(cli, tmp_path, monkeypatch, old, new, message):
    text, changes = re.subn(f"^{old}", new, (ROOT / "args.yaml").read_text(), flags=re.MULTILINE)
    assert changes == 1
    (tmp_path / "args.yaml").write_text(text)
    monkeypatch.setattr(main, "read_defaults", lambda: read_defaults(tmp_path / "args.yaml"))
    roots = ("--data-root", tmp_path / "data", "--run-root", tmp_path / "runs")
    fails(cli("--train --preset quick --data-dir", tmp_path, *roots), message)
    assert not (tmp_path / "runs").exists()
