"""Wrong labels are found by nets that have not seen them, and weigh less in training."""
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from conftest import LAYOUTS, fails, rows, settings, write_faces

import main
from nets.heads.pip import PIPHead
from nets.labels import Labels
from pipnet.errors import UserError
from utils.data import label_weights
from utils.data.augment import Recipe
from utils.data.dataset import Augmented, Faces, collate
from utils.data.parsers import read_pts, write_pts
from utils.data.prepare import DataGenerator
from utils.tools import audit
from utils.train import checkpoint

L68, L12 = LAYOUTS.load("68"), LAYOUTS.load("12")
EYES = list(range(36, 42)), list(range(42, 48))


@pytest.fixture(scope="module")
def planted(faces, tmp_path_factory):
    """Drawn faces of which some have wrong labels, judged by predictions that are right but for noise."""
    folder = tmp_path_factory.mktemp("planted")
    judged = Faces([(faces, "train")], L68, audit.DRAWN, 0)
    rng = np.random.default_rng(0)
    side = judged.box[:, 2:].max(1) - judged.box[:, :2].max(1)
    found = judged.landmarks + rng.normal(0, 0.01, judged.landmarks.shape) * np.abs(side)[:, None, None].clip(min=20)
    judged.landmarks = judged.landmarks.copy()
    judged.landmarks[3] += 12                                                         # a whole label shifted
    judged.landmarks[11] = judged.landmarks[11][list(L68.flip_index)]                  # left and right exchanged
    judged.landmarks[20, EYES[0] + EYES[1]] = judged.landmarks[20, EYES[1] + EYES[0]]  # only the eyes
    judged.landmarks[30, 8] += (0, 15)                                                # one landmark
    text = audit.write(folder / "audit", judged, found, np.arange(len(judged)) % 3, L68, "box")
    return folder / "audit", judged, text


# ------------------------------------------------------------------------------------------------------------- finding
def test_planted_errors_come_first_and_weigh_little(planted):
    folder, judged, text = planted
    found, table = rows(folder / "labels.csv"), rows(folder / "weights.csv")
    assert {row["file"] for row in found[:4]} == {judged.names[i] for i in (3, 11, 20, 30)}
    assert found[3]["file"] == judged.names[30] and found[3]["worst_landmark"] == "8" and found[3]["worst_part"] == "jaw"
    weight = np.array([[float(row[str(j)]) for j in range(68)] for row in table])
    assert [row["file"] for row in table] == judged.names and weight[3].max() < 0.05 and weight[11].mean() < 0.2
    assert weight[20, EYES[0] + EYES[1]].max() < 0.2 and np.delete(weight[20], EYES[0] + EYES[1]).mean() > 0.95
    assert weight[30, 8] < 0.1 and np.delete(weight[30], 8).mean() > 0.95
    clean = np.delete(weight, (3, 11, 20, 30), 0)
    assert (clean < label_weights.DISPUTED).mean() < 0.005 and clean.mean() > 0.99
    assert re.search(r"\b2 of 36 faces are disputed as a whole, \d+ in at least one", text) and "| jaw " in text


def test_the_worst_are_drawn(planted):
    for name in ("faces.jpg", "landmarks.jpg"):
        picture = cv2.imread(str(planted[0] / name))
        assert picture.shape == (4 * audit.TILE, 5 * audit.TILE, 3) and picture[:audit.TILE].std() > 20


def test_what_has_no_label_is_neither_disputed_nor_trusted_less():
    errors = np.random.default_rng(0).rayleigh(1, (200, 5))
    errors[7], errors[:, 3], errors[9, 0] = np.nan, np.nan, 50
    relative, weight = label_weights.weigh(errors)
    assert np.isfinite(weight).all() and (weight[7] == 1).all() and (weight[:, 3] == 1).all() and weight[9, 0] < 0.02
    assert np.isnan(relative[7]).all() and 0 < (weight < 1).mean() < 0.01


def test_folds_hold_whole_identities_and_are_alike_in_size():
    identities = [f"{i % 50}" for i in range(400)]
    fold = audit.fold_of(identities, 3, 0)
    assert all(len({f for f, name in zip(fold, identities, strict=True) if name == one}) == 1 for one in set(identities))
    assert np.ptp(np.bincount(fold)) <= 8 and (fold != audit.fold_of(identities, 3, 1)).any()
    with pytest.raises(UserError, match="2 identities cannot be divided into 3 folds"):
        audit.fold_of(["a", "b", "a"], 3, 0)


# ------------------------------------------------------------------------------------------------------------ weighing
def test_copies_of_rare_faces_change_no_fold(faces, monkeypatch):
    """Each net is asked about the faces that it has not seen, however many copies of others it was trained on."""
    args = settings()
    args.input_size, args.balance = 64, True
    whole = Faces(main.training_parts(args, [faces]), L68, 64, 0)
    monkeypatch.setattr(main, "balanced", lambda some, _: some.only(np.repeat(np.arange(len(some)), 1 + np.arange(len(some)))))
    fold = audit.fold_of(whole.identities, args.folds, args.seed)
    for number in range(args.folds):
        train, held = main.load_faces(args, [faces], [], L68, number)
        assert held.names == [whole.names[i] for i in np.flatnonzero(fold == number)]
        assert len(train) > len(whole) and not set(train.names) & set(held.names)


def test_weights_go_with_their_landmark_through_flip_and_layout(planted, faces):
    several = Faces([(faces, "train")], L68, 64, 4.0, weights=str(planted[0] / "weights.csv"))
    plain = collate([several[i] for i in range(36)]).labels
    mirrored = Augmented(several, Recipe(1.0, *(0.0,) * (len(Recipe._fields) - 3), "real", "linear"), L68.flip_index, 0)
    flipped = collate([mirrored[0, i] for i in range(36)]).labels
    assert plain.weight[30, 8] < 0.1 and plain.weight[20, 36] < 0.2
    assert torch.equal(flipped.weight, plain.weight[:, list(L68.flip_index)]) and not torch.equal(flipped.weight, plain.weight)
    eyes = Faces([(faces, "train")], L12, 64, 4.0, weights=str(planted[0] / "weights.csv"))
    assert np.array_equal(eyes.weight, several.weight[:, list(L12.selected)])
    half = several.only(np.arange(20, 36))
    assert np.array_equal(half.weight, several.weight[20:]) and np.array_equal(half[3][0], several[23][0])


def test_a_label_that_weighs_nothing_teaches_nothing():
    torch.manual_seed(0)
    head = PIPHead(8, [[1, 2], [0, 2], [0, 1]])
    features, right = torch.randn(4, 8, 4, 4), torch.rand(4, 3, 2)
    wrong, weight = right.clone(), torch.ones(4, 3)
    wrong[2, 1], weight[2, 1] = torch.tensor([0.9, 0.1]), 1e-6
    maps = head(features)
    light, hidden = Labels(wrong, None, weight), Labels(right, weight > 0.5)
    for how in (lambda labels: head.loss(maps, head.encode(labels, (4, 4))), head.count):
        expected = how(hidden)
        assert all(abs(value - expected[term]) < 1e-4 for term, value in how(light).items())


@pytest.mark.parametrize(("spoil", "message"), [
    (None, "cannot read .* --audit"),
    (lambda lines: ["file,nme", "a.jpg,3"], "not the weights.csv of an audit of the landmarks of layout 68"),
    (lambda lines: [*lines[:-1], lines[-1].replace("1.0000", "7", 1)], "weights from 0 to 1"),
    (lambda lines: [*lines[:-1], lines[-1].rsplit(",", 3)[0]], "not the weights.csv"),
    (lambda lines: lines[:-1], "has no row for train/.*jpg; audit again"),
    (lambda lines: [lines[0], *("0" * 64 + line[64:] for line in lines[1:])], "other faces, or of labels that have changed"),
])
def test_a_file_that_does_not_fit_is_refused(planted, faces, tmp_path, spoil, message):
    file = tmp_path / "weights.csv"
    if spoil:
        lines = (planted[0] / "weights.csv").read_text().splitlines()
        file.write_text("\n".join(spoil(lines)) + "\n")
    with pytest.raises(UserError, match=message):
        Faces([(faces, "train")], L68, 64, 0, weights=str(file))


def test_weights_of_another_layout_are_refused(planted, faces):
    """Even one of as many landmarks: the numbers mean other landmarks."""
    here = Faces([(faces, "train")], L68, 64, 0)
    with pytest.raises(UserError, match="weights.csv is of layout 68, not mine; audit the set with this --layout"):
        label_weights.read(planted[0] / "weights.csv", here.sets, here.names, L68._replace(name="mine", stored="mine"))


# ------------------------------------------------------------------------------------------------------- as it is typed
def test_an_audit_resumes_and_its_weights_train(cli, recipe, tmp_path):
    flags, folder = ["--exp", "noise", "--folds", "2", *recipe], tmp_path / "runs" / "noise"
    done = cli("--audit", *flags)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (folder / "audit").iterdir()} == {
        "labels.csv", "errors.csv", "weights.csv", "faces.jpg", "landmarks.jpg"}
    assert "| all " in done.stdout and "disputed as a whole" in done.stdout and "--label-weights" in done.stdout
    assert sorted({row["fold"] for row in rows(folder / "audit" / "labels.csv")}) == ["0", "1"]
    fails(cli("--audit", *flags), "already holds a run; give --resume")
    before = (folder / "audit" / "weights.csv").read_bytes()
    finished = checkpoint.load(folder / "fold0" / "last.pt")["model"], (folder / "fold0" / "last.pt").stat().st_mtime_ns
    shutil.rmtree(folder / "fold1")  # as if killed after the first net
    shutil.rmtree(folder / "audit")
    done = cli("--audit", "--exp", "noise", "--resume", "--run-root", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    assert (folder / "audit" / "weights.csv").read_bytes() == before
    assert (folder / "fold0" / "last.pt").stat().st_mtime_ns == finished[1]
    done = cli("--train", "--exp", "weighed", *recipe, "--label-weights", str(folder / "audit" / "weights.csv"))
    assert done.returncode == 0 and re.search(r"weights.csv: \d+ of 2448 labels weigh less than 0.5", done.stderr), done.stderr


def test_an_audit_finds_a_label_of_another_face(cli, recipe, tmp_path):
    raw = write_faces(tmp_path / "raw" / "train", 40)
    file = raw / "face05.pts"
    write_pts(file, read_pts(file)[::-1] - 0.5)
    DataGenerator(tmp_path / "raw", 64, "points", "raw", tmp_path / "data").run()
    done = cli("--audit", "--exp", "noise", "--folds", "2", *recipe, "--train-data", str(tmp_path / "raw"), "--data-root",
               str(tmp_path / "data"), "--val", "test", "--epochs", "6", "--rotation", "0", "--translation", "0", "--flip", "0")
    assert done.returncode == 0, done.stderr
    worst = [row["file"] for row in rows(tmp_path / "runs" / "noise" / "audit" / "labels.csv")]
    assert worst[0] == "train/face05.jpg"


def test_what_cannot_be_audited_says_so(cli, recipe):
    for flags, message in [(["--train"], "leave --train, "), (["--resume"], "name the one to --resume"),
                           (["--folds", "90"], "36 identities .* 90 folds"),
                           (["--early-stop", "2"], "--early-stop")]:
        fails(cli("--audit", *recipe, *flags), message)
