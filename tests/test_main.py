"""main.py as a user types it: runs, resuming, experiments by name, sets and layouts."""

import os
import re
import shutil
import subprocess
import sys

import cv2
import onnx
import pytest
import torch
import yaml
from conftest import (
    NET,
    ROOT,
    displaced,
    doomed,
    driver,
    fails,
    rows,
    run,
    table,
    works,
    write_faces,
)

import pipnet
from extras.shared.pts import read_pts, write_pts
from utils.train import checkpoint
from utils.train.run_lock import locked


# --------------------------------------------------------------------------------------------------------------- a run
def test_the_files_and_tables_of_a_run(trained):
    folder, done = trained.folder, trained.done
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "args.yaml",
        "best.onnx",
        "best.pt",
        "card.md",
        "events",
        "last.pt",
        "log.txt",
        "manifest.json",
        "report",
        "step.csv",
        "time.csv",
    }
    for name in ("step.csv", "time.csv"):
        assert [row["epoch"] for row in rows(folder / name)] == ["0", "1"]
    assert {"lr", "loss", "score", "offset_x", "neighbor_y", "val_nme"} <= rows(folder / "step.csv")[0].keys()
    written = yaml.safe_load((folder / "args.yaml").read_text())
    assert (written["train"]["epochs"], written["net"]["net"], written["train"]["preset"]) == (2, NET, "default")
    log = (folder / "log.txt").read_text()
    assert "epoch 1/2: loss" in log and "epoch 2/2: loss" in log and "drawn" in log
    assert {path.name for path in (folder / "report").iterdir()} == {
        "faces_drawn-64.csv",
        "faces_drawn-64.jpg",
        "sigma_drawn-64.svg",
        "groups.csv",
        "scores.csv",
        "norms.csv",
        "protocols.csv",
        "test.yaml",
        "index.html",
    }
    assert len(rows(folder / "report" / "faces_drawn-64.csv")) == 8
    torch_row, onnx_row = table(done.stdout)
    assert torch_row[:3] == ["drawn-64", "torch", "8"] and onnx_row[:3] == ["drawn-64", "onnx", "8"]
    assert float(torch_row[3]) == pytest.approx(float(onnx_row[3]), abs=0.01)
    assert (
        str(folder / "best.pt") in done.stdout
        and str(folder / "best.onnx") in done.stdout
        and "synthetic" not in done.stdout
    )
    assert "Traceback" not in done.stderr and "test set: --val test" not in done.stdout.lower()
    stored = checkpoint.load(folder / "best.pt")
    assert "solver" not in stored and stored["val_nme"] == min(
        float(row["val_nme"]) for row in rows(folder / "step.csv")
    )


def test_exp_is_an_id_a_folder_or_a_file(trained, faces, cli, tmp_path):
    figure = table(trained.done.stdout)[0][3]
    folder = shutil.copytree(trained.folder, tmp_path / "runs" / "000")
    near = ["--run-root", folder.parent]
    files = [["--exp", place] for place in (folder, folder / "best.pt", folder / "best.onnx")]
    for exp in (["--exp", "000", *near], near, *files):
        done = works(cli("--test", *exp))
        assert [float(row[3]) for row in table(done.stdout)] == pytest.approx([float(figure)], abs=0.002), exp
    alone = tmp_path / "elsewhere"  # the checkpoint suffices, without its folder
    alone.mkdir()
    shutil.copy(trained.folder / "best.pt", alone / "mine.pt")
    fails(cli("--test --exp", alone / "mine.pt", "--run-root", tmp_path), "--test-data")
    tested = ("--test-onnx", "--exp", alone / "mine.pt", "--run-root", tmp_path, "--test-data", faces)
    done = works(cli(*tested, "--flip-test"))
    (results,) = (tmp_path / "files").glob("mine-pt-*")  # nothing is written beside a foreign file
    assert (results / "best.onnx").is_file() and [path.name for path in alone.iterdir()] == ["mine.pt"]
    one, two = (float(row[3]) for row in table(done.stdout))
    assert one == pytest.approx(two, abs=0.01) and abs(one - float(figure)) > 0.01, "no flip"
    stamp = (results / "best.onnx").stat().st_mtime_ns
    assert cli(*tested).returncode == 0 and (results / "best.onnx").stat().st_mtime_ns == stamp
    report = (results / "report" / "scores.csv").read_bytes()
    shutil.copy(trained.folder / "last.pt", alone / "mine.pt")
    os.utime(alone / "mine.pt", (1, 1))  # older than the export of the other file of this name
    works(cli(*tested))
    (other,) = set((tmp_path / "files").glob("mine-pt-*")) - {results}
    assert (other / "best.onnx").is_file() and (results / "report" / "scores.csv").read_bytes() == report


def test_a_folder_holds_one_run_at_a_time(start, recipe, tmp_path):
    folder = tmp_path / "runs" / "busy"
    folder.mkdir(parents=True)
    with locked(folder):
        fails(start("--train --exp busy", *recipe).result(), "busy is in use")
        assert [path.name for path in folder.iterdir()] == [".lock"]


# ------------------------------------------------------------------------------------------------------------ resuming
@pytest.mark.slow
def test_a_run_resumed_after_kills_equals_an_uninterrupted_run(cli, recipe, tmp_path):
    flags = ["--train", *recipe, "--epochs", "4"]
    whole, killed = tmp_path / "runs" / "whole", tmp_path / "runs" / "killed"
    works(cli(*flags, "--exp whole"))
    while_saving = driver(
        tmp_path,
        "while_saving",
        """
save = torch.save
def half(values, file):
    save(values, file)
    if "last.pt" in file.name and values["epoch"] == 1:
        file.truncate(file.tell() // 2)
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = half""",
    )
    assert cli(*flags, "--exp killed", script=while_saving).returncode == -9
    assert checkpoint.load(killed / "last.pt")["epoch"] == 0 and len(list(killed.glob(".last.pt.partial-*"))) == 1
    assert cli("--train --resume --exp", killed, script=doomed(tmp_path, 10)).returncode == -9
    assert checkpoint.load(killed / "last.pt")["epoch"] == 1 and not list(killed.glob(".*partial*"))
    assert len(rows(killed / "step.csv")) == 2
    done = works(cli("--train --resume --exp", killed))
    assert (killed / "step.csv").read_bytes() == (whole / "step.csv").read_bytes()
    for name in ("best.pt", "last.pt"):
        one, two = (checkpoint.load(folder / name)["model"] for folder in (whole, killed))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert len(rows(killed / "time.csv")) == 4
    done = works(cli("--train --resume --exp", killed))
    assert "killed is finished: all 4 epochs are trained; a larger --epochs" in done.stderr
    assert (killed / "step.csv").read_bytes() == (whole / "step.csv").read_bytes()


def test_resume_with_other_flags(trained, cli, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "longer")
    for epochs, ema in ((3, 0), (4, 0.9)):
        works(cli("--train --resume --exp", folder, f"--epochs {epochs} --ema {ema}"))
        assert len(rows(folder / "step.csv")) == epochs
    assert yaml.safe_load((folder / "args.yaml").read_text())["train"]["ema"] == 0.9


def test_weights_that_diverge_in_the_last_step_are_not_kept(trained, cli, tmp_path, recipe):
    folder = tmp_path / "wild"
    shutil.copytree(trained.folder, folder)
    kept = (folder / "last.pt").read_bytes()
    spoil = driver(
        tmp_path,
        "spoil",
        """
step = solver.Solver.train_step
def spoilt(self, batches):
    terms = step(self, batches)
    for parameter in self.net.parameters():
        parameter.data.fill_(float("nan"))
    return terms
solver.Solver.train_step = spoilt""",
    )
    fails(
        cli("--train --resume --exp", folder, "--epochs 9 --batch-size 32 --ema 0", script=spoil), "landmarks.*finite"
    )
    assert (folder / "last.pt").read_bytes() == kept
    fails(cli("--train", *recipe, "--val none --batch-size 40 --ema 0", script=spoil), "weights.*finite")
    assert not list((tmp_path / "runs").rglob("*.pt"))


def test_a_net_whose_landmarks_fly_far_away_is_tested_and_called_diverged(trained, cli, tmp_path):
    folder = displaced(trained, tmp_path / "lost", 1e12)
    done = works(cli("--test --exp", folder))
    assert len(table(done.stdout)) == 1
    assert "the net has diverged or learnt nothing; lower --learning-rate, or" in done.stdout
    assert "diverged" not in trained.done.stdout


@pytest.mark.parametrize(("capabilities", "kind"), [({"amx_bf16": True}, "torch.bfloat16"), ({}, "float32")])
def test_auto_takes_bf16_where_it_is_faster(cli, recipe, tmp_path, monkeypatch, capabilities, kind):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    works(cli("--train", *recipe, "--amp auto"))
    assert f", {kind}" in (tmp_path / "runs" / "000" / "log.txt").read_text()


# ------------------------------------------------------------------------------------------------------- sets, layouts
def test_several_sets_to_train_and_to_test(cli, recipe, raw, tmp_path):
    other, third = tmp_path / "other" / "drawn", tmp_path / "third"
    write_faces(other / "train", 12, seed=2)
    write_faces(other / "test", 5, seed=3)
    write_faces(third / "test", 3, seed=4)
    for file in (other / "train").glob("face0[01].*"):  # of which one is validated at most
        shutil.copy(file, third / "test" / f"copy_{file.name}")
    flags = [*recipe, "--data-root", tmp_path / "data"]
    done = works(cli("--train --test", *flags, "--train-data", raw, other, "--test-data", raw, other, third))
    # 36 + 11 and 4 + 1: two sets whose folders have one name
    assert "47 faces" in done.stderr and "5 to validate" in done.stderr
    assert re.search(
        r"[12] of 5 test pictures of \S+/third-\w+ are training pictures of \S+/drawn-\w+ too", done.stderr
    )
    assert done.stderr.count("are training pictures of") == 1
    assert [row[2] for row in table(done.stdout)] == ["8", "5", "5"]
    assert len({row[0] for row in table(done.stdout)}) == 3 and len({row[3] for row in table(done.stdout)}) == 3
    assert len(list((tmp_path / "runs" / "000" / "report").glob("faces_*.csv"))) == 3
    prepared = sorted(path.parent.name for path in (tmp_path / "data").glob("*/meta.yaml"))
    done = works(
        cli("--test --run-root", tmp_path / "runs", "--data-root", tmp_path / "data", "--test-data", *prepared)
    )
    assert "preparing" not in done.stderr
    assert sorted(row[2] for row in table(done.stdout)) == ["5", "5", "8"]
    assert done.stderr.count("are training pictures of") == 1  # a test alone says it too
    for file in (other / "train").glob("face11.*"):
        file.rename(other / "test" / file.name)
    done = works(cli("--test --run-root", tmp_path / "runs", "--data-root", tmp_path / "data", "--test-data", other))
    assert done.stderr.count("has changed since the training; if test faces") == 1
    shutil.rmtree(third)
    done = cli("--test --run-root", tmp_path / "runs", "--test-data", third)
    assert done.returncode == 1 and str(third) in done.error


def test_the_eyes_of_68_landmarks(cli, recipe, tmp_path):
    done = works(cli("--train --test", *recipe, "--layout 12 --num-nb 0"))
    assert "12 landmarks" in done.stderr and len(table(done.stdout)) == 1
    stored = checkpoint.load(tmp_path / "runs" / "000" / "best.pt")
    assert stored["layout"]["count"] == 12 and stored["layout"]["selected"] == list(range(36, 48))
    assert not any("neighbor" in key for key in rows(tmp_path / "runs" / "000" / "step.csv")[0])


def test_few_landmarks_have_fewer_neighbors(cli, recipe, tmp_path):
    flags = [*recipe, "--selected-index", "30", "45", "36", "54", "48"]
    done = works(cli("--train", *flags))
    assert "num_nb is 4, not 10: there are 5 landmarks" in done.stderr
    assert checkpoint.load(tmp_path / "runs" / "000" / "best.pt")["args"]["num_nb"] == 4
    again = works(cli("--train --resume --run-root", tmp_path / "runs", "--epochs 2"))
    assert "num_nb" not in again.stderr
    fails(cli("--train", *flags, "--num-nb 6"), "num_nb.*6")


def test_output_says_that_the_epoch_was_picked_on_the_test_set(cli, recipe, tmp_path):
    done = works(cli("--train --test", *recipe, "--val test"))
    folder = tmp_path / "runs" / "000"
    assert "40 faces" in done.stderr and "8 to validate (the TEST set: --val test)" in done.stderr
    assert "--val test" in (folder / "log.txt").read_text() and "--val test" in done.stdout
    validated = float(rows(folder / "step.csv")[0]["val_nme"])
    assert float(table(done.stdout)[0][3]) == pytest.approx(validated, abs=0.002)
    assert "--val test" in cli("--test --exp", folder).stdout
    fails(
        cli("--train --resume --exp", folder, "--test-data", tmp_path),
        "--test-data",
    )


def test_without_validation_the_last_epoch_is_kept(cli, recipe, tmp_path):
    done = cli("--train --test-onnx", *recipe, "--val none --epochs 2 --sigma 0.5")
    folder = tmp_path / "runs" / "000"
    assert done.returncode == 0, done.stderr
    assert "40 faces" in done.stderr and "0 to validate" in done.stderr and "validation NME" not in done.stderr
    kept = [checkpoint.load(folder / name) for name in ("best.pt", "last.pt")]
    assert [stored["epoch"] for stored in kept] == [1, 1]
    assert all(torch.equal(tensor, kept[1]["model"][name]) for name, tensor in kept[0]["model"].items())
    metadata = {entry.key: entry.value for entry in onnx.load(folder / "best.onnx").metadata_props}
    assert metadata["val_nme"] == "null"  # JSON has no NaN
    assert "expected error" in next((folder / "report").glob("sigma_*.svg")).read_text()


def test_early_stop(cli, recipe, tmp_path):
    folder, planned = (
        tmp_path / "runs" / "000",
        driver(
            tmp_path,
            "planned",
            """
from utils.task import experiment
figures, whole = iter([5.0, 4.0, 4.5, 3.0, 3.0, 3.5, 2.0, 1.0]), experiment.evaluate
def evaluate(*args, **options):
    result = whole(*args, **options)
    return result._replace(nme=result.nme * 0 + next(figures))
experiment.evaluate = evaluate""",
        ),
    )
    done = works(cli("--train", *recipe, "--epochs 9 --early-stop 2", script=planned))
    assert "no better validation NME for 2 epochs: stopped early" in done.stderr
    # an equal figure is not better
    assert [float(row["val_nme"]) for row in rows(folder / "step.csv")] == [5, 4, 4.5, 3, 3, 3.5]
    assert checkpoint.load(folder / "best.pt")["epoch"] == 3 and checkpoint.load(folder / "last.pt")["epoch"] == 5
    kept = [(folder / name).read_bytes() for name in ("best.pt", "last.pt", "step.csv")]
    done = works(cli("--train --resume --exp", folder))
    assert "stopped early" in done.stderr and "epoch 7/9: loss" not in done.stderr
    assert [(folder / name).read_bytes() for name in ("best.pt", "last.pt", "step.csv")] == kept
    done = works(cli("--train --resume --exp", folder, "--early-stop 0 --epochs 7"))
    assert len(rows(folder / "step.csv")) == 7


# ------------------------------------------------------------------------------------------------- args.yaml, processes
def test_help_and_nets(cli):
    done = works(cli("--help"))
    assert "--learning-rate" in done.stdout and "--test-onnx" in done.stdout
    assert "default, short, quick" in " ".join(done.stdout.split()) and "irnet" in done.stdout
    done = works(cli("--list-nets"))
    assert "head pip" in done.stdout  # with others they have other numbers of parameters
    assert "| resnet18 " in done.stdout and "| irnet50 " in done.stdout
    done = works(cli("--list-nets", NET))
    assert re.search(r"test_efficientnet +\|.*\| +256 \| +0\.\d+ \| +0\.\d+ \| +\d", done.stdout)
    fails(cli(), "--train")
    fails(cli("--list-nets resnet19"), "'resnet19'")


def test_two_processes(recipe, tmp_path):
    launch = ("bash", "main.sh", "2", *recipe)
    done = works(
        run(*launch, "--train", "--test", "--test-onnx", "--val", "test", "--batch-size", "4", OMP_NUM_THREADS="1")
    )
    folder = tmp_path / "runs" / "000"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["000"]
    assert len(rows(folder / "step.csv")) == 1 and done.stdout.count("| test set") == 1
    figures = [float(row[3]) for row in table(done.stdout)]
    assert len(figures) == 2 and figures[0] == pytest.approx(figures[1], abs=0.01)
    # best.pt holds the weights that were validated: those of the first process, with its running means
    assert figures[0] == pytest.approx(float(rows(folder / "step.csv")[0]["val_nme"]), abs=0.002)
    assert "2 x cpu" in (folder / "log.txt").read_text()


def test_the_picture_of_a_report_can_be_read(trained):
    picture = cv2.imread(str(trained.folder / "report" / "faces_drawn-64.jpg"))
    assert picture.shape == (224, 8 * 224, 3)  # of so few faces each is shown once


def test_faces_that_cannot_be_tested_are_found_before_the_training(cli, recipe, tmp_path):
    for bad in ("/nowhere/at/all", tmp_path):
        done = cli("--train --test", *recipe, "--test-data", bad)
        fails(done, str(bad))
        assert "epoch 1" not in done.stderr and not (tmp_path / "runs").exists()


def test_a_flat_folder_is_a_test_set_of_a_net_that_was_not_trained_on_it(trained, cli, recipe, raw, tmp_path):
    flat, run = write_faces(tmp_path / "flat", 6, seed=9), shutil.copytree(trained.folder, tmp_path / "run")
    flags = ("--data-root", tmp_path / "data", "--target-size", "64")
    done = works(cli("--test --exp", run, *flags[:2], "--test-data", flat))
    assert ": all its faces are tested" in done.stderr
    assert [row[2] for row in table(done.stdout)] == ["6"]
    assert len(rows(next((run / "report").glob("faces_flat*.csv")))) == 6
    fails(cli("--train --test", *recipe, *flags, "--train-data", flat, "--test-data", flat), "flat.*test")
    done = works(cli("--train", *recipe, *flags, "--train-data", flat, "--batch-size 4"))
    again = ("--test", "--exp", tmp_path / "runs" / "000", *flags[:2])
    fails(cli(*again), "flat.*test/")
    shutil.copytree(flat, tmp_path / "copy")
    fails(cli(*again, "--test-data", tmp_path / "copy"), "copy.*--test-data")


def test_several_calls_in_one_process_as_in_a_notebook(recipe, tmp_path):
    """Its outputs are no files, it has no script, and its folder is another one."""
    code = f"""
import io, sys
sys.path.insert(0, {str(ROOT)!r})
import main
out, sys.stdout, sys.stderr = sys.stdout, io.StringIO(), io.StringIO()
flags = {recipe!r}
trained = main.main(["--train", *flags])
found = main.main(["--test", *flags[2:6]])
print([row["epoch"] for row in trained["train"]], found["scores"][0]["NME %"], sorted(found), file=out)
try:
    main.main(["--test", "--exp", "none", *flags[2:6]])
except main.UserError as error:
    print(error, sys.stdout.getvalue(), sys.stderr.getvalue(), sep="\\n", file=out)
"""
    done = subprocess.run([sys.executable, "-"], input=code, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "no trained net in" in done.stdout and "epoch 1/1: loss" in done.stdout and len(table(done.stdout)) == 1
    figure = float(table(done.stdout)[0][3])
    assert done.stdout.splitlines()[0] == f"[0.0] {figure} ['groups', 'scores']"


def test_a_changed_archive_is_prepared_again(cli, recipe, raw, tmp_path):
    mine, flags = tmp_path / "mine", [*recipe, "--data-root", tmp_path / "data"]
    shutil.copytree(raw, mine)
    flags[flags.index("--train-data") + 1] = mine
    assert "preparing mine" in cli("--prepare", *flags).stderr
    assert "preparing" not in cli("--prepare", *flags).stderr
    file = min((mine / "train").rglob("*.pts"))
    write_pts(file, read_pts(file) + 1)
    assert "preparing mine" in cli("--prepare", *flags).stderr


@pytest.mark.parametrize("script", ("main.py", "demo.py"))
def test_version(script):
    done = works(run("python", script, "--version"))
    assert done.stdout == f"pipnet {pipnet.__version__}\n"


def test_flags_are_checked_before_torch_is_loaded():
    code = """
import sys, main
for flags in (
    "--help", "--version", "--trian", "--train --epochs many", "--resume", "--train --weights gone.pt",
    "--train --data-dir gone", "--train --teacher gone.pt", "--test --exp gone.onnx", "--predict gone",
    "--train --dataset gone", "--test --test-data gone",
):
    try:
        main.main(flags.split())
    except (SystemExit, main.UserError):
        pass
    assert "torch" not in sys.modules, flags
"""
    works(run("python", "-c", code))
