"""--semi as it is typed: rounds, a mean teacher, faces of folders and videos; what is refused."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from conftest import (
    detector_file,
    draw_face,
    driver,
    fails,
    load_split,
    once,
    refuses,
    rewrite,
    rows,
    split_of,
    two_train_as_one,
    works,
    write_faces,
)

from extras.semi.unlabelled import check_apart
from utils.data.prepare import DataGenerator
from utils.task.experiment import check_collapse
from utils.train import checkpoint


@pytest.fixture(scope="module")
def target(shared, data_root):
    """A prepared set of other faces."""

    def make(folder):
        write_faces(folder / "target" / "train", 12, seed=5)
        write_faces(folder / "target" / "test", 4, seed=6)

    return DataGenerator(once(shared / "raw target", make) / "target", 64, "points", "target", data_root).run()


@pytest.fixture
def semi(recipe):
    """Flags of a training of a few steps."""
    return [*recipe, "--preset quick --stride 16 --epoch-steps 4 --label-shift 0"]


def pictures(folder, count: int = 3, size: int = 96):
    folder.mkdir()
    for index in range(count):
        cv2.imwrite(str(folder / f"{index}.png"), draw_face(np.random.default_rng([9, index]), size)[0])
    return folder


def weights(folder):
    return checkpoint.load(folder / "best.pt")["model"]


# -------------------------------------------------------------------------------------------------------------- rounds
@pytest.mark.slow
def test_rounds_learn_nothing_from_target_labels_and_resume(cli, semi, target, tmp_path):
    """A run on poisoned labels that is killed in its third round ends with the same weights, bit for bit."""
    flags = ["--train", *semi, "--semi gssl --ema 0 --epoch-steps 12"]  # after four, faces may look alike
    one, two = tmp_path / "runs" / "one", tmp_path / "runs" / "two"
    done = works(cli(*flags, "--test --unlabelled", target, "--exp one"))
    assert (
        "36 faces" in done.stderr
        and "12 unlabelled faces, pseudo-labelled" in done.stderr
        and "| target" in done.stdout
    )
    found = rows(one / "pseudo_labels" / "round5.csv")
    assert [row["file"] for row in found] == sorted(
        [*load_split(target, "train")["file"], *load_split(target, "val")["file"]]
    )
    assert {"score", "sigma", "moved", "x0", "y67"} <= found[0].keys() and float(found[0]["moved"]) > 0
    by_round = rows(one / "report" / "rounds.csv")
    assert [row["test set"] for row in by_round] == ["drawn-64", "target"] and len(by_round[0]) == 1 + 6
    assert "NME by round" in (one / "report" / "index.html").read_text()

    poisoned = tmp_path / "poisoned"
    shutil.copytree(target, poisoned)
    for name in ("train", "val"):
        rewrite(poisoned, name, landmarks=np.zeros_like(np.load(poisoned / name / "landmarks.npy")))
    killed = cli(
        *flags,
        "--unlabelled",
        poisoned,
        "--exp two",
        script=driver(
            tmp_path,
            "third",
            """
from extras.semi import rounds
label = rounds.write_pseudo_labels
def doomed(task_data, ranks, faces, run, number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    label(task_data, ranks, faces, run, number)
rounds.write_pseudo_labels = doomed""",
        ),
    )
    assert killed.returncode == -9 and (two / "round2" / "best.pt").is_file() and not (two / "best.pt").exists()
    (two / "round2" / "step.csv").unlink()  # as if it had been killed before it wrote this
    done = cli("--train --resume --exp two --run-root", tmp_path / "runs")
    assert (two / "round2" / "step.csv").read_text() == (one / "round2" / "step.csv").read_text()
    assert done.returncode == 0 and "round 3 of 5" in done.stderr and "round 2 of 5" not in done.stderr, done.stderr
    assert all(torch.equal(tensor, weights(two)[name]) for name, tensor in weights(one).items())
    for flag, message in (("--epochs", "--epochs .* stays 1"), ("--early-stop", "--early-stop .* stays 0")):
        fails(cli("--train --resume --exp two --run-root", tmp_path / "runs", flag, "2"), message)
    shown = works(cli("--show-data 4 --exp two --run-root", tmp_path / "runs", "--data-root", target.parent))
    assert "round1.jpg" in shown.stdout and (two / "pseudo_labels" / "round5.jpg").is_file()
    first = two / "round0" / "last.pt"
    checkpoint.save(first, {**checkpoint.load(first), "data": ["labels that were corrected since"]})
    fails(cli("--train --resume --exp two --run-root", tmp_path / "runs"), "round0/last.pt")
    again = works(cli(*flags, "--semi self-training --unlabelled", target, "--exp two --overwrite"))
    assert "round 3 of 3" in again.stderr
    assert len(list((two / "pseudo_labels").glob("round*.csv"))) == 3 and not (two / "round3").exists()


def test_a_net_that_says_the_same_for_any_face_is_noticed():
    points = np.random.default_rng(0).uniform(0.2, 0.8, (1, 68, 2)) + np.random.default_rng(1).normal(
        0, 0.02, (20, 1, 2)
    )
    check_collapse(points, "the net")
    refuses("--learning-rate", check_collapse, points[:1].repeat(20, 0), "the net")
    refuses("one place", check_collapse, points[:, :1].repeat(68, 1), "the net")
    refuses("collapsed", check_collapse, points * np.nan, "the net")


@pytest.mark.slow
def test_a_collapsed_round_stops_the_training(cli, semi, target, tmp_path):
    fails(
        cli(
            "--train",
            *semi,
            "--semi self-training --unlabelled",
            target,
            script=driver(
                tmp_path,
                "constant",
                """
from utils.task.experiment import check_collapse
from utils.train import checkpoint
save = checkpoint.save
def constant(file, values):
    for name, tensor in values["model"].items():
        if name.startswith("head."):
            tensor.zero_()
    save(file, values)
checkpoint.save = constant""",
            ),
        ),
        "round 0",
    )


# ---------------------------------------------------------------------------------------- folders, videos, mean teacher
def test_a_mean_teacher_learns_from_pictures(cli, semi, tmp_path):
    folder = pictures(tmp_path / "wild")
    shutil.copy(folder / "0.png", folder / "again.png")
    blurred = cv2.GaussianBlur(cv2.imread(str(folder / "1.png")), (0, 0), 9)
    cv2.imwrite(str(folder / "blurred.png"), blurred)
    finds = [
        "--detector-weights",
        detector_file(tmp_path / "finder.onnx", [(12, 12, 84, 84), (0, 0, 20, 20)], [0.9, 0.95]),
    ]
    flags = [*semi, "--semi mean-teacher --unlabelled", folder, *finds, "--val 0.1"]
    done = works(cli("--train", *flags, "--labelled-fraction 0.5 --exp a"))
    assert "3 faces of 5 pictures; 0 pictures without a sure face" in done.stderr
    assert "5 smaller than 32 px, 1 blurred (--least-sharpness), 1 near-duplicates" in done.stderr
    assert "18 faces" in done.stderr and "21 unlabelled faces" in done.stderr  # 3, and half of 36
    assert float(rows(tmp_path / "runs" / "a" / "step.csv")[0]["pseudo_score"]) > 0
    again = works(cli("--train", *flags, "--labelled-fraction 0.5 --exp b"))
    assert "5 pictures" not in again.stderr  # the faces are cut out once
    assert all(
        torch.equal(tensor, weights(tmp_path / "runs" / "b")[name])
        for name, tensor in weights(tmp_path / "runs" / "a").items()
    )
    few = [*semi, "--semi mean-teacher --unlabelled", folder]
    nothing = detector_file(tmp_path / "finder.onnx", [(12, 12, 84, 84)], [0.1])  # another detector in the same file
    fails(cli("--train", *few, "--detector-weights", nothing), "5 pictures")


@pytest.mark.slow
def test_two_processes_follow_a_mean_teacher_as_one(cli, semi, target, tmp_path):
    two_train_as_one(
        cli, tmp_path / "runs", "--train", *semi, "--amp", "off", "--semi", "mean-teacher", "--unlabelled", target
    )


def test_frames_of_a_video_that_look_alike_are_left_out(cli, semi, tmp_path):
    video = cv2.VideoWriter(str(tmp_path / "talk.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (96, 96))
    for number in (0, 0, 0, 1, 1, 2):
        video.write(draw_face(np.random.default_rng([9, number]), 96)[0])
    video.release()
    finder = detector_file(tmp_path / "finder.onnx", [(12, 12, 84, 84)], [0.9])
    done = works(
        cli(
            "--train",
            *semi,
            "--semi mean-teacher --unlabelled",
            tmp_path / "talk.avi",
            "--detector-weights",
            finder,
        )
    )
    assert "3 faces of 6 pictures" in done.stderr and "3 near-duplicates" in done.stderr


# ------------------------------------------------------------------------------------------------------------- refused
def test_test_pictures_are_no_unlabelled_ones(faces, raw, target, tmp_path):
    """They are known by their content: renamed, or as crops of another prepared set."""
    tested, folder = [split_of(faces, "test")], tmp_path / "renamed"
    apart = split_of(target)._replace(labelled=False)
    check_apart([apart], tested)
    folder.mkdir()
    (folder / "x").mkdir()
    for number, file in enumerate(sorted((raw / "test").glob("*.jpg"))):
        shutil.copy(file, folder / "x" / f"new{number}.jpg")
        shutil.copy(file.with_suffix(".pts"), folder / "x" / f"new{number}.pts")
    same = DataGenerator(folder, 64, "points", "renamed", tmp_path / "data").run()
    refuses("7 of .*x/new", check_apart, [apart, split_of(same, "train"), split_of(same, "val")], tested)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--semi gssl --unlabelled gone", "--unlabelled gone is neither a dataset"),
        ("--semi gssl --unlabelled EMPTY", "no picture in the folder"),
        ("--semi mean-teacher --unlabelled PICTURE --teacher landmarks", "makes its own teacher"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_in_one_line(cli, recipe, tmp_path, flags, message):
    for name in ("EMPTY", "PICTURE"):
        (tmp_path / name).mkdir()
        flags = flags.replace(name, str(tmp_path / name))
    cv2.imwrite(str(tmp_path / "PICTURE" / "face.png"), np.zeros((64, 64, 3), np.uint8))
    fails(cli("--train", *recipe, flags), message)
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())
