"""The output `face` as it is trained: from faces, from crops without one, behind landmarks that stay as they are."""

import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT, SMALL, detector_file, doomed, fails, rows, trained_once, two_train_as_one, works, write_faces

from extras.shared.backgrounds import background
from utils.train import checkpoint

FACE = ("--freeze", "landmarks", "--face", "1", "--misplaced", "0.4", "--learning-rate", "0.01")


def draw_backgrounds(folder: Path, count: int = 10) -> Path:
    folder.mkdir()
    for index in range(count):
        picture = 255 * np.sqrt(background(np.random.default_rng((9, index)), 80).clip(0, 1))
        cv2.imwrite(str(folder / f"{index}.png"), picture.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def told(trained, raw, data_root, shared, tmp_path_factory):
    """A run of two epochs that learns `face` behind the landmarks of `trained`, tested and exported; backgrounds: its folder."""
    made = tmp_path_factory.mktemp("told")
    pictures, finder = made / "none", detector_file(made / "finder.onnx", [(12, 12, 64, 64)], [0.2])
    places = ("--train-data", raw, "--data-root", data_root, "--weights", trained.folder / "best.pt")
    flags = (
        *places,
        *SMALL[: SMALL.index("--weights")],
        *SMALL[SMALL.index("--weights") + 2 :],
        *FACE,
        "--epochs",
        "2",
    )
    found = trained_once(
        made / "runs",
        *flags,
        "--thresholds",
        "50",
        "--backgrounds",
        draw_backgrounds(pictures, 4),
        "--detector-weights",
        finder,
    )
    found.backgrounds, found.finder = pictures, finder
    return found


def test_it_picks_the_epoch_and_changes_nothing_else(told, trained):
    said = told.done.stderr
    counts = re.search(r"(\d+) crops without a face of 4 pictures", said)
    # one that the detector finds, eight at random, and two more that the net asks for
    assert 90 < int(counts[1]) <= 270
    assert "crops without a face, " in said and "validation false faces" in said
    table = rows(told.folder / "step.csv")
    assert [float(row["best"]) for row in table] == np.minimum.accumulate(
        [float(row["val_false"]) for row in table]
    ).tolist()
    before, after = (checkpoint.load(run.folder / "best.pt") for run in (trained, told))
    for name, tensor in before["model"].items():
        assert torch.equal(after["model"][name], tensor), name
    assert {name.partition(".")[0] for name in after["model"].keys() - before["model"].keys()} == {"face"}
    one, two = (checkpoint.unpack(run.folder / "best.pt")[0].eval() for run in (trained, told))
    images = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    first, second = one.predict(images), two.predict(images)
    for name, part in first._asdict().items():
        assert part is None or torch.equal(part, getattr(second, name)), name
    assert first.face is None and second.face.shape == (4,) and ((second.face > 0) & (second.face < 1)).all()
    assert table[0]["face"] != table[1]["face"]
    counts = [count for _, _, count in after["face_reliability"]]
    assert sum(counts) > 4 + 16 + 5 and after["val_false"] <= 100  # beside faces, drawn, a tenth of the pictures


def test_the_export_gives_it_and_the_card_names_its_figures(told, cli):
    found = {entry.key: entry.value for entry in onnx.load(told.folder / "best.onnx").metadata_props}
    assert json.loads(found["val_false"]) == pytest.approx(checkpoint.load(told.folder / "best.pt")["val_false"])
    assert "face" in [output.name for output in onnx.load(told.folder / "best.onnx").graph.output]
    works(cli("--export onnx --exp", told.folder))
    card = " ".join((told.folder / "card.md").read_text().split())
    assert "| output face | a number |" in card and "99.9 % of the faces do, % |" in card


def test_the_report_shows_how_it_fits(told):
    page = (told.folder / "report" / "index.html").read_text()
    assert "Is it a face?" in page and "predicted probability" in page and "False faces in validation" in page
    assert "crops without a face pass" in page


def test_a_resumed_run_is_the_same_and_learns_from_the_same(told, cli, data_root, tmp_path):
    runs = shutil.copytree(told.root, tmp_path / "runs", ignore=shutil.ignore_patterns("000"))
    flags = told.flags[: told.flags.index("--run-root")]
    (steps, *_) = {
        int(state["step"])
        for state in checkpoint.load(told.folder / "last.pt")["solver"]["optimizer"]["state"].values()
    }
    killed = cli("--train", *flags, "--exp 000 --run-root", runs, script=doomed(tmp_path, steps * 3 // 4))
    assert killed.returncode == -9 and len(rows(runs / "000" / "step.csv")) == 1
    more = ("--train --resume --exp 000 --run-root", runs, "--data-root", data_root)
    pictures = told.backgrounds / "0.png"
    before, content = pictures.stat(), pictures.read_bytes()
    try:
        shutil.copy(told.backgrounds / "1.png", pictures)
        fails(cli(*more), f"--backgrounds {told.backgrounds}")
    finally:
        pictures.write_bytes(content)
        os.utime(pictures, ns=(before.st_atime_ns, before.st_mtime_ns))
    fails(cli(*more, "--face 0 --visible 1"), "face beside the landmarks.*--visible, --face")
    works(cli(*more))
    one, two = (checkpoint.load(folder / "last.pt") for folder in (told.folder, runs / "000"))
    assert all(torch.equal(tensor, two["model"][name]) for name, tensor in one["model"].items())
    assert (told.folder / "step.csv").read_text() == (runs / "000" / "step.csv").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--face 1 --backgrounds gone", "--backgrounds: no file or folder gone"),
        ("--face 1 --backgrounds EMPTY", "--backgrounds: no picture in the folder .*EMPTY"),
        ("--backgrounds EMPTY", "no picture in the folder .*EMPTY"),
        ("--freeze landmarks --face 1", "--freeze landmarks.*--weights"),
    ],
)
def test_what_it_cannot_learn_from_is_refused_in_one_line(cli, recipe, tmp_path, flags, message):
    for name in ("EMPTY", "PICTURE"):
        (tmp_path / name).mkdir()
        flags = flags.replace(name, str(tmp_path / name))
    cv2.imwrite(str(tmp_path / "PICTURE" / "none.png"), np.zeros((64, 64, 3), np.uint8))
    fails(cli("--train", *recipe, flags), message)
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


@pytest.mark.slow
def test_two_processes_learn_it_as_one(cli, told):
    flags = told.flags[: told.flags.index("--run-root")]
    runs = told.root.parent / "pair"
    given = ["--train", *flags, "--run-root", str(runs), "--amp", "off"]
    two_train_as_one(cli, runs, *given, columns=("face", "loss"))
    one, two = (float(rows(runs / name / "step.csv")[-1]["val_false"]) for name in ("one", "two"))
    assert one == pytest.approx(two, abs=5)


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["--compile", "--pixels device", "--val none"])
def test_other_ways_of_training_leave_the_landmarks_too(cli, told, trained, tmp_path, flags):
    given = told.flags[: told.flags.index("--run-root")]
    # the compiler refuses a process in which something has imported distutils before it
    script = ROOT / "main.py" if flags == "--compile" else None
    works(cli("--train", *given, flags, "--epochs 1 --exp way --run-root", tmp_path, script=script))
    before, after = (checkpoint.load(folder / "best.pt")["model"] for folder in (trained.folder, tmp_path / "way"))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    (row,) = rows(tmp_path / "way" / "step.csv")
    assert (row["val_false"] == "nan") == (flags == "--val none") and float(row["face"]) > 0
    works(cli("--train --resume --epochs 2 --exp way --run-root", tmp_path, script=script))


@pytest.mark.slow
@pytest.mark.parametrize("semi", ["self-training", "mean-teacher"])
def test_unlabelled_faces_do_not_train_it(cli, told, tmp_path, semi):
    given = told.flags[: told.flags.index("--run-root")]
    # a mean teacher moves landmarks
    kept = [] if semi == "self-training" else ["--freeze", "null", "--weights", "none"]
    flags = ["--train", *given, "--preset quick --epochs 1 --labelled-fraction 0.5 --exp semi", *kept, "--semi", semi]
    works(cli(*flags, "--run-root", tmp_path))
    (row,) = rows(tmp_path / "semi" / "step.csv")
    assert float(row["face"]) > 0 and 0 <= float(row["val_false"]) <= 100
    if semi == "self-training":
        done = works(cli("--train --resume --exp semi --run-root", tmp_path))  # rounds that are finished stay
        assert "round 1 of" not in done.stderr


@pytest.mark.slow
def test_states_that_stay_keep_their_names(cli, told, tmp_path):
    given = told.flags[: told.flags.index("--weights")]
    small = told.flags[told.flags.index("--net") : told.flags.index("--freeze")]
    places = ("--epochs", "1", "--run-root", tmp_path)
    works(cli("--train", *given, *small, *places, "--weights none --face 0 --exp states --eyes 0 --mouth 1"))
    first = tmp_path / "states" / "best.pt"
    works(cli("--train --export onnx", *given, *small, *places, *FACE, "--exp both --weights", first))
    found = {entry.key: entry.value for entry in onnx.load(tmp_path / "both" / "best.onnx").metadata_props}
    assert json.loads(found["states"]) == [None, None, "mouth_closed", "mouth_wide_open"]
    one, two = (checkpoint.load(folder / "best.pt")["model"] for folder in (tmp_path / "states", tmp_path / "both"))
    assert all(torch.equal(two[name], tensor) for name, tensor in one.items())
    assert [name for name in two if name not in one] == [name for name in two if name.startswith("face.")]
    works(cli("--train --resume --exp both --epochs 2 --run-root", tmp_path))


@pytest.mark.slow
def test_shares_leave_crops_without_a_face_their_proportion(cli, told, raw, tmp_path):
    write_faces(tmp_path / "third" / "train", 12, seed=7)
    given = told.flags[told.flags.index("--net") : told.flags.index("--freeze")]
    done = works(
        cli(
            "--train --face 1 --misplaced 0.2 --epochs 1 --weights none --exp shared --num-nb 5 --shares third=2",
            *given,
            "--train-data",
            raw,
            tmp_path / "third",
            "--data-root",
            tmp_path / "data",
            "--run-root",
            tmp_path / "runs",
        )
    )
    (row,) = rows(tmp_path / "runs" / "shared" / "step.csv")
    assert float(row["face"]) > 0 and "crops without a face" in done.stderr
