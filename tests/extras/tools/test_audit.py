"""Wrong labels are found by nets that have not seen them."""

import shutil

import cv2
import numpy as np
import pytest
from conftest import LAYOUTS, fails, refuses, rows, sets_of, settings, split_of, works, write_faces

from extras.shared.pts import read_pts, write_pts
from extras.tools import audit
from utils.data.prepare import DataGenerator
from utils.data.prepared_set import load_splits
from utils.task import task_data
from utils.train import checkpoint
from utils.train.ranks import start_ranks

L68 = LAYOUTS.load("68")
EYES = list(range(36, 42)), list(range(42, 48))


@pytest.fixture(scope="module")
def planted(faces, tmp_path_factory):
    """Return an audit of drawn faces: some labels are wrong, the predictions are right up to noise."""
    folder = tmp_path_factory.mktemp("planted")
    judged = load_splits([split_of(faces)], L68, audit.DRAWN, 0)
    rng = np.random.default_rng(0)
    side = judged["box"][:, 2:].max(1) - judged["box"][:, :2].max(1)
    found = judged["landmarks"] + rng.normal(0, 0.01, judged["landmarks"].shape) * np.abs(side)[:, None, None].clip(
        min=20
    )
    wrong = judged["landmarks"].copy()
    wrong[3] += 12  # a whole label shifted
    wrong[11] = wrong[11][list(L68.flip_index)]  # left and right exchanged
    wrong[20, EYES[0] + EYES[1]] = wrong[20, EYES[1] + EYES[0]]  # only the eyes
    wrong[30, 8] += (0, 15)  # one landmark
    judged = judged.with_columns(landmarks=wrong)
    text = audit.write_audit(folder / "audit", judged, found, np.arange(len(judged)) % 3, L68, "box")
    return folder / "audit", judged, text


# ------------------------------------------------------------------------------------------------------------- finding
def test_planted_errors_come_first_and_are_named(planted):
    folder, judged, text = planted
    found, names = rows(folder / "labels.csv"), [judged["file"][i] for i in (3, 11, 20, 30)]
    why = {row["file"]: row["why"] for row in found[:4]}
    assert {*why} == {*names} and "| jaw " in text and "4 of 36 training and validation labels are suspicious" in text
    assert why[names[0]].startswith("the whole face is") and why[names[1]] == "left and right exchanged: the whole face"
    assert why[names[2]].startswith("left and right exchanged: eye_left") and why[names[3]].startswith(
        "8 (jaw_9) is 0."
    )
    assert [row["file"] for row in rows(folder / "errors.csv")] == list(judged["file"])
    assert {row["fold"] for row in found} == {"0", "1", "2"} and float(found[0]["nme"]) > float(found[-1]["nme"])


def test_the_worst_are_drawn(planted):
    picture = cv2.imread(str(planted[0] / "faces.jpg"))
    assert picture.shape == (4 * 384, 5 * 384, 3) and picture[:384].std() > 20


def test_folds_hold_whole_identities_and_are_alike_in_size():
    identities = [f"{i % 50}" for i in range(400)]
    fold = audit.fold_of(identities, 3, 0)
    assert all(
        len({f for f, name in zip(fold, identities, strict=True) if name == one}) == 1 for one in set(identities)
    )
    assert np.ptp(np.bincount(fold)) <= 8 and (fold != audit.fold_of(identities, 3, 1)).any()
    refuses("2 identities.*3 folds", audit.fold_of, ["a", "b", "a"], 3, 0)


# --------------------------------------------------------------------------------------------------------------- folds
def test_copies_of_rare_faces_change_no_fold(faces, monkeypatch):
    """Each net judges exactly the faces of its fold, however many copies of other faces it was trained on."""
    chosen = settings(input_size=64, balance=True, train_data=[str(faces)])
    ours = task_data.prepare(sets_of(chosen), start_ranks(), True, False)
    whole = ours.crops(ours.splits("train", "val"))
    monkeypatch.setattr(
        task_data, "balanced", lambda some, _: some.only(np.repeat(np.arange(len(some)), 1 + np.arange(len(some))))
    )
    fold = audit.fold_of(whole["identity"], 3, chosen.train.seed)
    for number in range(3):
        train, [(held, *_)] = task_data.load_faces(ours, fold == number)
        assert list(held["file"]) == [whole["file"][i] for i in np.flatnonzero(fold == number)]
        assert len(train) > len(whole) and not set(train["file"]) & set(held["file"])


# ------------------------------------------------------------------------------------------------------- as it is typed
def test_an_audit_resumes(cli, recipe, tmp_path):
    flags, folder = ["--exp noise --folds 2", *recipe], tmp_path / "runs" / "noise"
    done = works(cli("--audit", *flags))
    assert {path.name for path in (folder / "audit").iterdir()} == {
        "labels.csv",
        "errors.csv",
        "faces.jpg",
    }
    assert "| all " in done.stdout and "labels are suspicious" in done.stdout
    assert "too inaccurate to tell an offset" in done.stdout and "--label-shift" not in done.stdout
    assert sorted({row["fold"] for row in rows(folder / "audit" / "labels.csv")}) == ["0", "1"]
    fails(cli("--audit", *flags), "--resume")
    assert len(rows(folder / "audit" / "labels.csv")) == 40  # those that validate too
    fails(cli("--audit", *flags, "--overwrite --folds 90"), "40 identities .* 90 folds")  # before anything is removed
    before = (folder / "audit" / "errors.csv").read_bytes()
    finished = checkpoint.load(folder / "fold0" / "last.pt")["model"], (folder / "fold0" / "last.pt").stat().st_mtime_ns
    shutil.rmtree(folder / "fold1")  # as if killed after the first net
    shutil.rmtree(folder / "audit")
    done = works(cli("--audit --exp noise --resume --run-root", str(tmp_path / "runs")))
    assert (folder / "audit" / "errors.csv").read_bytes() == before
    assert (folder / "fold0" / "last.pt").stat().st_mtime_ns == finished[1]
    first = folder / "fold0" / "last.pt"
    checkpoint.save(first, {**checkpoint.load(first), "data": ["labels that were corrected since"]})
    fails(cli("--audit --exp noise --resume --run-root", str(tmp_path / "runs")), "fold0/last.pt")


def test_an_audit_finds_a_label_of_another_face(cli, recipe, tmp_path):
    raw = write_faces(tmp_path / "raw" / "train", 40)
    file = raw / "face05.pts"
    write_pts(file, read_pts(file)[::-1] - 0.5)
    DataGenerator(tmp_path / "raw", 64, "points", "raw", tmp_path / "data").run()
    works(
        cli(
            "--audit --exp noise --folds 2",
            *recipe,
            "--train-data",
            str(tmp_path / "raw"),
            "--data-root",
            str(tmp_path / "data"),
            "--val test --epochs 6 --rotation 0 --translation 0 --flip 0",
        )
    )
    found = {row["file"]: float(row["score"]) for row in rows(tmp_path / "runs" / "noise" / "audit" / "labels.csv")}
    assert found["train/face05.jpg"] >= 1 and "train/face05.jpg" in list(found)[:10]  # the nets have hardly learnt


def test_more_folds_than_identities_are_named(cli, recipe):
    fails(cli("--audit", *recipe, "--folds 90"), "40 identities .* 90 folds")
