"""Errors: one clear line on stderr that names what is wrong; nothing is lost or half written."""

import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import (
    DEFAULTS,
    LAYOUTS,
    ROOT,
    displaced,
    fails,
    load_split,
    refuses,
    rewrite,
    run,
    split_of,
    table,
    write_faces,
)

import main
from pipnet.files import checksum
from utils.config import Settings, parse
from utils.faces.archives import read_pts, write_pts
from utils.faces.prepared_set import load_splits
from utils.train import checkpoint
from utils.train.settings import read_settings

BAD_FLAGS = [
    ((), "nothing to do: give --train"),
    (("--train", "--epohcs", "3"), r"--epohcs.*--epochs"),
    (("--trian",), r"--trian.*--train"),
    (("--train", "--epochs", "abc"), "epochs must be a whole number, not 'abc'"),
    (("--train", "--epochs", "2.5"), "epochs must be a whole number, not 2.5"),
    (("--train", "--epochs"), "--epochs"),
    (("--train", "--batch-size", "0"), "batch_size must be at least 1, not 0"),
    (("--train", "--learning-rate", "fast"), "learning_rate must be a number, not 'fast'"),
    (("--train", "--thresholds", "ten"), "thresholds must be.*not 'ten'"),
    (("--train", "--stride", "24"), "stride must be one of 4, 8, 16, 32, 64, 128, not 24"),
    (("--train", "--val", "1.5"), "val must be"),
    (("--train", "--net", "resnet19"), "no net 'resnet19'; did you mean resnet18"),
    (("--train", "--net", "timm:no_such_net"), "no_such_net"),
    (("--train", "--preset", "quik"), "no preset 'quik'.*quick"),
    (("--train", "--train-data", "/nowhere/at/all"), "/nowhere/at/all"),
    (("--train", "--data-dir", "/nowhere/at/all"), "/nowhere/at/all"),
    (("--train", "--dataset", "300v"), "300v.*300w"),
    (("--test",), "nothing is trained yet"),
    (("--test", "--exp", "018"), "018"),
    (("--test", "--exp", "/nowhere/best.pt"), "--exp: no file or folder /nowhere/best.pt"),
    (("--train", "--resume", "--exp", "018"), "no last.pt to resume"),
    (("--train", "--exp", "a.pt"), "no file or folder a.pt"),
    (("--train", "--resume"), "nothing is trained yet"),
    (("--test", "--resume"), "--resume continues a --train or an --audit"),
    (("--test", "--overwrite"), "--overwrite says what --train"),
    (("--predict", "", "--exp", "landmarks"), "--predict is empty; give it a value, or leave it out"),
    (("--train", "--data-dir", ""), "--data-dir is empty"),
    (("--train", "--train-data"), "train_data must be a name or a folder"),
    (("--train", "--flip", "1.5"), "flip must lie between 0 and 1"),
    (("--train", "--scale", "1"), r"scale must be below 1, not 1\.0"),
    (("--train", "--exp", "x" * 300), r"--exp x{40}\.\.\. is too long for a name of a file; give a shorter one"),
    (("--test", "--exp", f"runs/{'x' * 300}/best.pt"), "--exp runs/x.* is too long"),
    (("--test", "--compare", "a", "x" * 300), "--compare x.* is too long"),
    (("--train", "--train-data", "300w", "x" * 300), "--train-data x.* is too long"),
]


@pytest.mark.parametrize(("flags", "message"), BAD_FLAGS)
def test_wrong_flags_are_one_line_and_write_nothing(cli, tmp_path, flags, message):
    roots = ["--run-root", tmp_path / "runs", "--data-root", tmp_path / "data"] if flags else []
    done = cli(*roots, *flags)
    fails(done, message)
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists() and not (tmp_path / "data").exists()


def test_variables_of_several_processes_are_numbers():
    cases = [
        (("bash", "main.sh", "2", "--train"), {name: "x"}, f"error: {name} must be a whole number, not 'x'\n")
        for name in ("NNODES", "NODE_RANK", "MASTER_PORT", "MAX_RESTARTS")
    ]
    cases += [
        (("bash", "main.sh", "2", "--train"), {"NNODES": "0"}, "error: NNODES must be at least 1\n"),
        (("python", "main.py", "--test"), {"WORLD_SIZE": "x"}, "error: .* variable WORLD_SIZE must be a whole number"),
        (
            ("python", "main.py", "--train"),
            {"TORCHELASTIC_MAX_RESTARTS": "x"},
            "error: .* TORCHELASTIC_MAX_RESTARTS must",
        ),
        (
            ("python", "main.py", "--test"),
            {"WORLD_SIZE": "2"},
            "error: WORLD_SIZE is 2, but .*; start several processes",
        ),
    ]
    for command, variables, message in cases:
        done = run(*command, **variables)
        assert done.returncode == 1 and re.match(message, done.stderr) and done.stderr.count("\n") == 1, done.stderr


def test_a_name_with_a_nul_character_is_refused():
    """No shell can pass one, a notebook can."""
    for flags in (["--test", "--exp", "a\0b"], ["--train", "--run-root", "a\0"], ["--predict", "\0"]):
        refuses("NUL", main.main, flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--layout", "67"), "67.*68"),
        (("--layout", "98"), "98"),
        (("--num-nb", "68"), "num_nb must be 0 to 67 for 68 landmarks, not 68"),
        (("--num-lms", "12"), "num_lms is 12, but layout 68 has 68 landmarks"),
        (("--selected-index", "1", "2"), "selected_index"),
        (("--amp", "fp16"), "fp16 needs a CUDA GPU"),
        (("--stride", "128"), "stride"),
        (("--input-size", "100"), "multiple of 32"),
        (("--accumulate", "5"), "accumulate"),
        (("--weights", "nowhere.pt"), "nowhere.pt"),
        (("--protocol", "squre"), "squre.*square"),
        (("--act", "relu"), "act"),
        (("--freeze", "backbone"), "--freeze backbone would keep random weights"),
        (("--stride", "4"), "head pip cannot have stride 4; choose one of 8, 16, 32, 64, 128"),
        (("--head", "coordinate", "--stride", "16"), "head coordinate cannot have stride 16; choose one of 32"),
    ],
)
def test_flags_that_do_not_fit_the_data_leave_no_run(cli, recipe, tmp_path, flags, message):
    fails(cli("--train", *recipe, *flags), message)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def new_settings(*flags: str) -> Settings:
    """The settings of a new training with these flags, as main.py reads them."""
    mode, given = parse(["--train", "--dataset", "synthetic", *flags], main.add_modes, DEFAULTS)
    return read_settings(given, mode, None, DEFAULTS)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--head", "coordinate", "--num-nb", "5"),
            "--num-nb belongs to the head pip, not to coordinate; leave it out",
        ),
        (
            ("--head", "coordinate", "--cls", "5"),
            "--cls belongs to the head pip or heatmap or simcc, not to coordinate",
        ),
        (("--head", "heatmap", "--reg", "2"), "--reg belongs to the head pip or coordinate or parts, not to heatmap"),
        (("--alignment", "2"), "--alignment weights a loss of --reinit and --local-parts"),
        (("--milestones", "3"), "--milestones is read by --schedule steps; give that, or leave it out"),
        (("--schedule", "steps", "--final-learning-rate", "0.1"), "--final-learning-rate is read by --schedule cosine"),
        (("--ema", "0", "--ema-ramp", "9"), "--ema-ramp is of the moving average of --ema, which is 0"),
        (("--pasted", "3"), "--pasted is not read by --task landmarks; leave it out"),
        (("--task", "detect", "--net", "resnet50"), "--net is not read by --task detect"),
        (("--preset", "detect", "--flip-test"), "--flip-test is not read by --task detect"),
        (("--detector", "yunett"), "detector must be one of faceboxes, rfb320.*did you mean 'yunet'"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(flags, message):
    """Each is a flag of other trainings."""
    refuses(message, new_settings, *flags)


def test_loss_weights_of_stages_are_taken_with_any_head():
    for flags in ("--head heatmap --local-parts --reg 2", "--reinit --alignment 2", "--head simcc --cls 2"):
        assert new_settings(*flags.split()).train.task == "landmarks"


def test_flags_of_sets_that_are_not_there(cli, raw, tmp_path):
    done = cli("--prepare", "--dataset", raw, "--data-dir", tmp_path, "--data-root", tmp_path / "data")
    fails(done, "--data-dir")
    fails(cli("--test", "--compare", ""), "--compare is empty")


def test_a_profile_of_few_steps_is_no_crash(cli, recipe, tmp_path):
    done = cli("--train", *recipe, "--profile", "--epochs", "2")
    assert (
        done.returncode == 0 and "there is no trace: --profile needs 25 steps, and only 8 were trained" in done.stderr
    )
    assert not list((tmp_path / "runs").rglob("trace.json"))
    done = cli("--test", "--run-root", tmp_path / "runs", "--first-pixel", "1")
    fails(done, "--first-pixel")


def test_a_batch_too_small_for_batch_norm(cli, recipe, tmp_path):
    """Also where only a stage has so few cells; nothing is written."""
    detector = ["--train", *recipe[: recipe.index("--net")], "--task", "detect", "--weights", "none", "--crops", "2"]
    for flags in (
        ["--train", *recipe, "--input-size", "32"],
        ["--train", *recipe, "--local-parts"],
        [*detector, "--input-size", "64", "--epochs", "1"],
    ):
        fails(cli(*flags, "--batch-size", "1"), "--batch-size")
        assert not list((tmp_path / "runs").glob("*"))


def test_a_layout_without_the_norm_is_named_before_training(cli, recipe, tmp_path):
    profile = tmp_path / "profile"
    write_faces(profile / "train", 12)
    write_faces(profile / "test", 4)
    for file in profile.rglob("*.pts"):
        write_pts(file, read_pts(file)[:39])
    flags = [*recipe, "--data-root", tmp_path / "data", "--train-data", profile, "--num-nb", "5"]
    fails(cli("--train", *flags), "layout 39.*interocular")
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
    assert cli("--train", *flags, "--norm", "box").returncode == 0
    fails(cli("--test", "--run-root", tmp_path / "runs", "--norm", "interocular"), "layout 39.*interocular")


def spoil_missing_pts(folder: Path) -> str:
    (folder / "train" / "face03.pts").unlink()
    return r"face03\.jpg: no face03\.pts"


def spoil_count(folder: Path) -> str:
    write_pts(folder / "train" / "face03.pts", read_pts(folder / "train" / "face03.pts")[:67])
    return r"face03\.pts: 67 points where"


def spoil_jpeg(folder: Path) -> str:
    file = folder / "test" / "face02.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    return r"face02\.jpg: the image is cut short"


def spoil_all(folder: Path) -> str:
    shutil.rmtree(folder)
    return "drawn"


@pytest.mark.parametrize("spoil", (spoil_missing_pts, spoil_count, spoil_jpeg, spoil_all))
def test_a_bad_archive_is_named_and_nothing_is_written(cli, recipe, raw, tmp_path, spoil):
    mine = tmp_path / "drawn"
    shutil.copytree(raw, mine)
    message = spoil(mine)
    fails(cli("--train", "--test", *recipe, "--train-data", mine, "--data-root", tmp_path / "data"), message)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "data" / "drawn-64").exists()


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


def test_faces_that_no_rule_converts_to_the_layout_of_the_net(faces):
    refuses("68 landmarks .*layout 39", load_splits, [split_of(faces, "test")], LAYOUTS.load("39"), 64, 0.0)


class Harmful:
    """An object that makes a file when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("kind", ("torch", "pickle"))
def test_code_in_a_checkpoint_does_not_run(trained, cli, tmp_path, kind):
    values = {**checkpoint.load(trained.folder / "best.pt"), "epoch": Harmful(tmp_path / "harm")}
    file = tmp_path / "best.pt"
    if kind == "torch":
        torch.save(values, file)
    else:
        file.write_bytes(pickle.dumps(values))
    fails(cli("--test", "--exp", file), "refused")
    fails(cli("--train", *trained.flags, "--run-root", tmp_path / "runs", "--weights", file), "refused")
    assert not (tmp_path / "harm").exists()
    assert {path.name for path in tmp_path.iterdir()} - {"runs", "output"} == {"best.pt"}


def test_an_unknown_exp_names_the_known_runs(trained, cli):
    done = cli("--test", "--exp", "00", "--run-root", trained.root)
    fails(done, "'000'")


def test_an_onnx_file_that_disagrees_is_an_error(trained, cli, tmp_path):
    folder = displaced(trained, tmp_path / "apart", 0.5)
    graph = onnx.load(folder / "best.onnx")
    (entry,) = (entry for entry in graph.metadata_props if entry.key == "weights_sha256")
    assert entry.value == checksum(trained.folder / "best.pt")
    entry.value = checksum(folder / "best.pt")  # as if it had been exported from the changed weights
    onnx.save(graph, folder / "best.onnx")
    done = cli("--test-onnx", "--exp", folder)
    assert done.returncode == 1 and "differs from torch" in done.error and len(table(done.stdout)) == 2
    (folder / "best.onnx").write_bytes(b"no graph")  # it is made again
    assert cli("--test-onnx", "--exp", folder).returncode == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"train:  ", "trian:  ", "unknown section 'trian' in args.yaml; did you mean 'train'"),
        (
            r"  learning_rate:",
            "  learning_rat:",
            "unknown key 'learning_rat' in section train of.*; did you mean 'learning_rate'",
        ),
        (r"  epochs: \d+", "  epochs: many", "epochs must be a whole number, not 'many'"),
        (r"  epochs: \d+", "  epochs: null", "epochs must be a whole number, not None"),
        (r"  seed:", "  speed: 3\n  seed:", "speed.*seed"),
        (r"  clip:", "  # clip:", "section train of args.yaml lacks the key 'clip'"),
        (r"  quick:.*\n", "  quick:\n    epoch: 14\n", "unknown key 'epoch' in preset quick.*epochs"),
    ],
)
def test_a_slip_in_args_yaml_is_named(cli, tmp_path, old, new, message):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("nets", "pipnet", "utils", "main.py"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
    text, changes = re.subn(f"^{old}", new, (ROOT / "args.yaml").read_text(), flags=re.MULTILINE)
    assert changes == 1
    (copy / "args.yaml").write_text(text)
    roots = ("--data-root", tmp_path / "data", "--run-root", tmp_path / "runs")
    done = cli("--train", "--preset", "quick", "--data-dir", tmp_path, *roots, script=copy / "main.py")
    fails(done, message)
    assert not (tmp_path / "runs").exists()
