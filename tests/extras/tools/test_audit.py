"""Wrong labels are found by nets that have not seen them."""

import re
import shutil

import cv2
import numpy as np
import pytest
from conftest import LAYOUTS, fails, refuses, rows, sets_of, settings, split_of, works, write_faces

from extras.tools import audit
from utils.data.prepare import DataGenerator
from utils.data.prepared_set import load_splits
from utils.data.pts import read_pts, write_pts
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
    side = judged["box"][:][:, 2:].max(1) - judged["box"][:][:, :2].max(1)
    found = judged["landmarks"][:] + rng.normal(0, 0.01, judged["landmarks"][:].shape) * np.abs(side)[
        :, None, None
    ].clip(min=20)
    wrong = judged["landmarks"][:].copy()
    wrong[3] += 12  # a whole label shifted
    wrong[11] = wrong[11][list(L68.flip_index)]  # left and right exchanged
    wrong[20, EYES[0] + EYES[1]] = wrong[20, EYES[1] + EYES[0]]  # only the eyes
    wrong[30, 8] += (0, 15)  # one landmark
    judged = judged.with_columns(landmarks=wrong)
    text = audit.write_audit(folder / "audit", judged, found, np.arange(len(judged)) % 3, L68, "box")
    return folder / "audit", judged, text


# ------------------------------------------------------------------------------------------------------------- finding
def test_planted_errors_come_first_and_weigh_little(planted):
    folder, judged, text = planted
    found, table = rows(folder / "labels.csv"), rows(folder / "weights.csv")
    assert {row["file"] for row in found[:4]} == {judged["file"][i] for i in (3, 11, 20, 30)}
    assert (
        found[3]["file"] == judged["file"][30]
        and found[3]["worst_landmark"] == "8"
        and found[3]["worst_group"] == "jaw"
    )
    weight = np.array([[float(row[str(j)]) for j in range(68)] for row in table])
    assert [row["file"] for row in table] == list(judged["file"]) and weight[3].max() < 0.05 and weight[11].mean() < 0.2
    assert weight[20, EYES[0] + EYES[1]].max() < 0.2 and np.delete(weight[20], EYES[0] + EYES[1]).mean() > 0.95
    assert weight[30, 8] < 0.1 and np.delete(weight[30], 8).mean() > 0.95
    clean = np.delete(weight, (3, 11, 20, 30), 0)
    assert (clean < audit.DISPUTED).mean() < 0.005 and clean.mean() > 0.99
    assert re.search(r"\b2 of 36 faces are disputed as a whole, \d+ in at least one", text) and "| jaw " in text


def test_the_worst_are_drawn(planted):
    for name in ("faces.jpg", "landmarks.jpg"):
        picture = cv2.imread(str(planted[0] / name))
        assert picture.shape == (4 * audit.TILE, 5 * audit.TILE, 3) and picture[: audit.TILE].std() > 20


def test_what_has_no_label_is_neither_disputed_nor_trusted_less():
    errors = np.random.default_rng(0).rayleigh(1, (200, 5))
    errors[7], errors[:, 3], errors[9, 0] = np.nan, np.nan, 50
    relative, weight = audit.weigh(errors)
    assert np.isfinite(weight).all() and (weight[7] == 1).all() and (weight[:, 3] == 1).all() and weight[9, 0] < 0.02
    assert np.isnan(relative[7]).all() and 0 < (weight < 1).mean() < 0.01


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
    ours = task_data.prepare(chosen, sets_of(chosen), start_ranks(), True, False)
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
        "weights.csv",
        "faces.jpg",
        "landmarks.jpg",
    }
    assert "| all " in done.stdout and "disputed as a whole" in done.stdout
    assert "too inaccurate to tell an offset" in done.stdout and "--label-shift" not in done.stdout
    assert sorted({row["fold"] for row in rows(folder / "audit" / "labels.csv")}) == ["0", "1"]
    fails(cli("--audit", *flags), "--resume")
    assert len(rows(folder / "audit" / "labels.csv")) == 40  # those that validate too
    fails(cli("--audit", *flags, "--overwrite --folds 90"), "40 identities .* 90 folds")  # before anything is removed
    before = (folder / "audit" / "weights.csv").read_bytes()
    finished = checkpoint.load(folder / "fold0" / "last.pt")["model"], (folder / "fold0" / "last.pt").stat().st_mtime_ns
    shutil.rmtree(folder / "fold1")  # as if killed after the first net
    shutil.rmtree(folder / "audit")
    done = works(cli("--audit --exp noise --resume --run-root", str(tmp_path / "runs")))
    assert (folder / "audit" / "weights.csv").read_bytes() == before
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
    worst = [row["file"] for row in rows(tmp_path / "runs" / "noise" / "audit" / "labels.csv")]
    assert worst[0] == "train/face05.jpg"


def test_what_cannot_be_audited_says_so(cli, recipe):
    for flags, message in [
        ("--train", "leave --train, "),
        ("--resume", "--resume needs the name of the audit: --exp"),
        ("--folds 90", "40 identities .* 90 folds"),
        ("--labelled-fraction 0.5", "--labelled-fraction hides labels that are to be judged"),
        ("--early-stop 2", "--early-stop"),
        ("--flip-test", "--flip-test is for tests, and --audit tests no net"),
    ]:
        fails(cli("--audit", *recipe, flags), message)
