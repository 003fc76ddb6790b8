"""The files that a killed training leaves: a resumed one makes best.pt and the tables agree with last.pt."""

import shutil

import pytest
import torch
from conftest import SMALL, driver, fails, refuses, rows, works, write_faces

from utils.train import checkpoint
from utils.train.history import History, make_whole, resumable
from utils.train.run_folder import Run


@pytest.mark.parametrize("best", (0, 1))
@pytest.mark.parametrize("found", ("newer", "other values", "older", "none"))
def test_best_pt_is_of_the_best_epoch_of_last_pt(trained, tmp_path, best, found):
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    run, stored = Run(folder, folder / "best.pt"), checkpoint.load(folder / "last.pt")
    for row, figure in zip(stored["rows"], (7.0, 6.0) if best else (6.0, 7.0), strict=True):
        row["val_nme"] = figure
    stored["best"] = stored["rows"][-1]["best"] = 6.0
    epoch, figure = {"newer": (2, 5.0), "other values": (best, 5.0), "older": (best - 1, 7.0), "none": (0, 0)}[found]
    (folder / "best.pt").unlink()
    (folder / "step.csv").unlink()
    if epoch >= 0 and found != "none":
        checkpoint.save(run.weights, {**checkpoint.load(run.last), "epoch": epoch, "val_nme": figure})
    figure = make_whole(run, "val_nme", stored)
    kept, table = checkpoint.load(run.weights), rows(folder / "step.csv")
    assert "solver" not in kept and kept["epoch"] == 1  # the weights of an earlier epoch are in no file
    assert all(torch.equal(tensor, stored["model"][name]) for name, tensor in kept["model"].items())
    assert figure == float(table[-1]["best"]) == (6.0 if best else 7.0)
    assert make_whole(run, "val_nme", {**stored, "best": figure}) == figure


def test_the_best_epoch_by_hand():
    """An equal figure is no better; a loss that has risen is a divergence where the figure has not become better."""
    history, found = History("val_nme"), []
    for epoch, (figure, loss) in enumerate([(5.0, 1.0), (4.0, 2.0), (4.0, 3.0), (6.0, 0.5), (5.0, 1.5)]):
        better = history.add({"epoch": epoch, "loss": loss, "val_nme": figure}, {})
        found.append((better, history.best, history.best_epoch(), history.epochs_since_best(), history.diverged()))
    assert found == [
        (True, 5, 0, 0, False),
        (True, 4, 1, 0, False),
        (False, 4, 1, 1, False),
        (False, 4, 1, 2, False),
        (False, 4, 1, 3, True),
    ]


def test_a_best_pt_that_agrees_is_left_alone(trained, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    before = (folder / "best.pt").read_bytes()
    make_whole(Run(folder, folder / "best.pt"), "val_nme", checkpoint.load(folder / "last.pt"))
    assert (folder / "best.pt").read_bytes() == before


def test_a_last_pt_of_something_else_is_not_resumed(trained, tmp_path):
    run, stored = Run(trained.folder, trained.folder / "best.pt"), checkpoint.load(trained.folder / "last.pt")
    expected = {key: stored[key] for key in ("net", "layout", "data")}
    assert resumable(run, expected, tmp_path)["epoch"] == stored["epoch"]
    for other in ({"net": {}}, {"layout": {}}, {"data": ["0" * 64]}, {"teacher": "0" * 64}):
        refuses(f"last.pt.*another {min(other)} than", resumable, run, {**expected, **other}, tmp_path)


def test_a_set_that_has_grown_is_named_with_the_folder_of_the_old_one(cli, tmp_path):
    faces = write_faces(tmp_path / "mine", 20)
    flags = ("--train-data", faces, "--data-root", tmp_path / "data", "--run-root", tmp_path / "runs", *SMALL)
    done = works(cli("--train", *flags, "--val none --epochs 1 --exp one --warmup 1"))
    assert "--warmup" in done.stderr  # its rate never reaches the one that was asked for
    (old,) = (tmp_path / "data").glob("mine-*/")
    for suffix in (".jpg", ".pts"):
        shutil.copy(faces / f"face00{suffix}", faces / f"more{suffix}")
    again = ("--train --resume --exp one --epochs 2 --run-root", tmp_path / "runs", "--data-root", tmp_path / "data")
    fails(cli(*again), f"another data than.*{old}")


def test_weights_alone_are_not_resumed(trained, cli, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    shutil.copy(folder / "best.pt", folder / "last.pt")
    fails(cli("--train --resume --exp", folder, "--epochs 3"), "last.pt.*--weights .*last.pt")


def test_a_run_resumes_without_the_file_that_it_started_from(trained, cli, recipe, tmp_path):
    start, runs = tmp_path / "start.pt", ("--run-root", tmp_path / "runs")
    shutil.copy(trained.folder / "best.pt", start)
    works(cli("--train --exp on", *recipe, "--weights", start))
    start.unlink()
    works(cli("--train --resume --exp on --epochs 2", *runs))


def test_a_run_folder_that_is_removed_during_the_training_is_one_line(cli, recipe, tmp_path):
    script = driver(
        tmp_path,
        "removed",
        """
import shutil
step = solver.Solver.train_step
def removing(self, batches):
    if self.step == 5:
        shutil.rmtree(sys.argv[sys.argv.index("--run-root") + 1] + "/gone")
    return step(self, batches)
solver.Solver.train_step = removing""",
    )
    done = cli("--train", *recipe, "--epochs 4 --exp gone", script=script)
    fails(done, "gone/last.pt.*folder was moved or removed")
    assert "Traceback" not in done.stderr and not (tmp_path / "runs" / "gone").exists()
