"""Reports of --test: files of each set, other kinds of boxes, the page."""

import re
import shutil
from html import unescape

import archives
import cv2
import numpy as np
import pytest
import torch
from conftest import LAYOUTS, call, detector_file, draw_face, fails, rows, split_of, table, works, write_faces
from loguru import logger

import main
from nets.labels import Prediction
from pipnet.geometry import grow, iou, shared, to_image
from pipnet.images import write_image
from utils.data.prepare import DataGenerator
from utils.data.prepared_set import load_splits
from utils.data.sets import distinct
from utils.evaluate.boxes import (
    FEWEST,
    INSIDE,
    MISFIT,
    backgrounds,
    beside,
    detected,
    perturbed,
    picture,
    rebox,
    reboxed,
)
from utils.evaluate.evaluate import evaluate

LAYOUT = LAYOUTS.load("68")


@pytest.fixture
def run_of(trained, tmp_path):
    """Return a copy of the trained run, without its report."""
    return shutil.copytree(trained.folder, tmp_path / "run" / "mine", ignore=shutil.ignore_patterns("report"))


@pytest.fixture
def own(faces):
    """Return the test faces of the drawn set."""
    return load_splits([split_of(faces, "test")], LAYOUT, 64, 1.0)


@pytest.fixture
def own_copy(raw, tmp_path):
    """Return (raw folder of a set of its own, the prepared set)."""
    copy = shutil.copytree(raw, tmp_path / "mine")
    return copy, DataGenerator(copy, 64, "points", out=tmp_path / "data", layout="68").run()


# ---------------------------------------------------------------------------------------------------------------- files
def test_sets_of_one_name_have_files_of_their_own(run_of, cli, tmp_path):
    counts, places = (3, 2), []
    for number, count in enumerate(counts):
        raw = tmp_path / f"raw{number}" / "drawn"
        write_faces(raw / "test", count, seed=number + 5)
        places.append(DataGenerator(raw, 64, "points", "drawn", tmp_path / f"data{number}", layout="68").run())
    (run_of / "report").mkdir()
    for name in (
        "faces_old.csv",
        "sigma_old_perturbed.svg",
        "notes.txt",
    ):  # the first two of sets that were tested before
        (run_of / "report" / name).touch()
    done = works(cli("--test --exp", run_of, "--test-data", *places))
    assert not list((run_of / "report").glob("*_old*")) and (run_of / "report" / "notes.txt").is_file()
    assert [(row[0], row[2]) for row in table(done.stdout)] == [("drawn", "3"), ("drawn-2", "2")]
    assert [len(rows(run_of / "report" / f"faces_{name}.csv")) for name in ("drawn", "drawn-2")] == [3, 2]
    assert distinct(["a", "a", "a-2", "a"]) == ["a", "a-2", "a-2-2", "a-3"]


# ---------------------------------------------------------------------------------------------------------------- boxes
def test_true_boxes_cut_anew_are_the_prepared_crops(own):
    again = reboxed(own, own["box"], 1.0)
    assert again["crop"] == pytest.approx(own["crop"], abs=1e-3)
    assert again["nominal"] == pytest.approx(own["nominal"], abs=1e-4)
    for index in range(len(own)):
        assert np.abs(own.plain_crop(index).astype(int) - again.plain_crop(index)).mean() < 3  # JPEG


def test_perturbed_boxes_are_the_same_each_time_and_within_their_share(own):
    boxes = perturbed(own["box"], own["file"], 0.2)
    assert (boxes == perturbed(own["box"][::-1], own["file"][::-1], 0.2)[::-1]).all()
    true = own["box"]
    assert perturbed(true, own["file"], 0) == pytest.approx(true)
    sides, moved = true[:, 2:] - true[:, :2], (boxes[:, :2] + boxes[:, 2:] - true[:, :2] - true[:, 2:]) / 2
    scale = (boxes[:, 2:] - boxes[:, :2]) / sides
    assert (
        np.abs(moved / sides).max() <= 0.2
        and np.abs(scale - 1).max() <= 0.2
        and len(np.unique(scale.round(6))) == len(own)
    )
    other = reboxed(own, boxes, 1.0)
    assert to_image(other["nominal"].astype(float), other["crop"]) == pytest.approx(own["landmarks"], abs=1e-3)
    assert (other["box"] == own["box"]).all() and len(other.crop(0)) == 64


def test_background_lies_beside_the_faces_and_is_the_same_each_time(own_copy):
    copy, folder = own_copy
    own = load_splits([split_of(folder, "train")], LAYOUT, 64, 1.0)
    beside, again = backgrounds(own), backgrounds(own)
    assert len(beside) >= FEWEST and (beside["crop"] == again["crop"]).all()
    assert (beside.crop(5) == again.crop(5)).all()
    for box, crop, size in zip(beside["box"], beside["crop"], beside["size"], strict=True):
        free = grow(crop[None], 1 / 1.2)  # of the protocol
        assert (free[0, :2] > -1).all() and (free[0, 2:] < size + 1).all()
        assert shared(free, box[None])[0, 0] <= INSIDE + 0.05
    for file in copy.rglob("*.[jp][pn]g"):
        file.write_bytes(file.read_bytes()[:200])
    assert backgrounds(own) is None
    shutil.rmtree(copy)
    assert backgrounds(own) is None  # a prepared crop shows little else than the face


def test_cuts_beside_faces_show_no_labelled_one_in_its_place(faces):
    own = load_splits([split_of(faces, "train")], LAYOUT, 64, 1.0)
    found, again = beside(own, 20, 1.0), beside(own, 20, 0)
    assert 10 < len(found) <= 20 and (found["crop"] == again["crop"]).all()
    assert (found.crop(3) == again.crop(3)).all() and found.crop(0).shape == own.crop(0).shape  # with the margin
    assert (iou(found["box"], grow(found["crop"], 1 / 1.2)).diagonal() <= MISFIT + 0.02).all()
    name = own["file"][0]
    three = own.only(np.arange(3)).with_columns(file=np.array([name, f"{name}#2", f"{name}#3"], object))
    cuts = beside(three, 20, 0)["crop"]  # faces of one picture
    assert len(cuts) and iou(three["box"], grow(cuts, 1 / 1.2)).max() <= MISFIT + 0.02


def test_the_limit_of_a_net_lies_above_background_but_not_above_faces(own):

    def predict(images):
        return Prediction(torch.full((len(images), 68, 2), 0.5), torch.full((len(images), 68), 0.8))

    result, low, high = evaluate(predict, own, LAYOUT, "diagonal"), np.linspace(0, 0.5, 101), np.full(50, 0.9)
    assert result.face_limit(low) == pytest.approx(0.95 * 0.495)
    assert result.face_limit(high) == pytest.approx(0.95 * 0.8)


def test_without_the_archive_other_boxes_come_from_the_prepared_crops(own_copy):
    copy, folder = own_copy
    own = load_splits([split_of(folder, "test")], LAYOUT, 64, 1.0)
    boxes = perturbed(own["box"], own["file"], 0.1)
    before = reboxed(own, boxes, 1.0)
    shutil.rmtree(copy)
    after = reboxed(own, boxes, 1.0)
    assert (after["crop"] == before["crop"]).all()
    for index in range(len(own)):  # the same picture within the margin, since it is cut from the prepared crop
        assert np.abs(before.crop(index).astype(int) - after.crop(index))[8:-8, 8:-8].mean() < 12


def test_a_detection_is_the_face_that_it_overlaps_most(own):
    pictures = []

    def find(picture):
        pictures.append(picture.shape)
        box = own["box"][len(pictures) - 1]
        far = box + 1000
        return {0: np.empty((0, 4)), 1: far[None]}.get(len(pictures) - 1, np.array([far, box + 2]))

    boxes = detected(own, find)
    assert np.isnan(boxes[:2]).all() and boxes[2:] == pytest.approx(own["box"][2:] + 2)
    assert pictures == [(96, 96, 3)] * len(own)


def test_several_faces_of_a_picture_that_has_another_size_now(tmp_path):
    raw = tmp_path / "two"
    raw.mkdir()
    image, landmarks = draw_face(np.random.default_rng(3), 96)
    write_image(raw / "both.png", np.hstack([image, image]))
    points = [landmarks - 0.5, landmarks + (95.5, 0)]
    archives.write_csv(raw / "test.csv", [("both.png", face) for face in points])
    folder = DataGenerator(raw, 64, "csv", out=tmp_path / "data", layout="68", val=0).run()
    own = load_splits([split_of(folder, "test")], LAYOUT, 64, 1.0)
    asked = []

    def find(picture):
        asked.append(picture.shape)
        whole = picture.shape[1] == 192
        middle = np.array([[0.2, 0.2, 0.8, 0.8]]) * picture.shape[0]  # of a prepared crop
        return own["box"] + 1 if whole else middle

    # one picture is searched once
    assert detected(own, find) == pytest.approx(own["box"] + 1) and asked == [(96, 192, 3)]
    write_image(raw / "both.png", cv2.resize(np.hstack([image, image]), (96, 48)))
    assert np.isfinite(detected(own, find)).all()


@pytest.mark.parametrize(("name", "make"), [("300vw", archives.vw), ("cofw", archives.cofw)])
def test_pictures_inside_a_file_of_the_archive_are_found(name, make, tmp_path):
    root = make(tmp_path)[0]
    folder = archives.prepared(name, root, tmp_path / "data")
    split = split_of(folder, "test")
    own = load_splits([split], split.set.layout, 32, 1.0)
    shown = [picture(own, index) for index in range(len(own))]
    assert all(image.shape == (120, 160, 3) and (matrix == np.eye(2, 3)).all() for image, matrix in shown)
    if name == "300vw":
        assert [round((image.mean() - 20) / 40) for image, _ in shown] == [*range(5), *range(4), *range(3)]
    logged: list[str] = []
    sink = logger.add(logged.append, level="WARNING")
    rebox(own, "perturbed", 1.0, None)
    assert not logged
    shutil.rmtree(root)
    rebox(own, "perturbed", 1.0, None)
    assert f"{len(own)} of {len(own)} source pictures are missing" in logged[0]
    logger.remove(sink)


def test_boxes_that_cannot_be(run_of, cli, own):
    fails(cli("--test --exp", run_of, "--box detector --detector mtcnn"), "'mtcnn'")
    fails(cli("--test --exp", run_of, "--box loose"), "box.*'loose'")
    assert rebox(own, "true", 1.0, None) == (own, 0)
    found = iter([np.empty((0, 5)), *np.pad(own["box"][1:, None], ((0, 0), (0, 0), (0, 1)))])  # upright
    again, missed = rebox(own, "detector", 1.0, lambda image: (next(found), None))
    assert missed == 1 and again["crop"] == pytest.approx(own["crop"], abs=1e-3)  # a missed face keeps its own box
    assert (again.only([3]).crop(0) == again.crop(3)).all()


def test_faces_that_the_detector_misses_shift_no_column_of_the_page(run_of, cli, tmp_path):
    blind = detector_file(tmp_path / "blind.onnx", [(12, 12, 84, 84)], [0.0])
    done = works(cli("--test --exp", run_of, "--box true detector --detector-weights", blind))
    nme = f"{float(table(done.stdout)[0][4]):.2f}"
    assert table(done.stdout)[1][3] == "8"
    pasted = unescape((run_of / "report" / "index.html").read_text()).partition("<pre>")[2].partition("</pre>")[0]
    assert re.search(rf"\| method \| drawn\S* NME % \| FR@.*\n.*\n.* \| {nme} \| ", pasted), pasted


# ----------------------------------------------------------------------------------------------------------------- page
@pytest.fixture(scope="module")
def tested(trained, tmp_path_factory):
    """Return a copy of the trained run, tested in true and perturbed boxes."""
    folder = tmp_path_factory.mktemp("tested") / "mine"
    shutil.copytree(trained.folder, folder, ignore=shutil.ignore_patterns("report"))
    boxes = "--box true perturbed --thresholds 50"
    return folder, works(call(main.main, "main.py", "--test --exp", folder, boxes))


def test_the_page_of_a_test(tested):
    folder, done = tested
    found = table(done.stdout)
    assert [row[1] for row in found] == ["torch", "torch, perturbed boxes"]
    figures = [float(row[3]) for row in found]
    assert figures[0] != figures[1]
    report = folder / "report"
    text = (report / "index.html").read_text()
    assert len(text) < 3e6
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)|url\(|@import|<script|<link""", text)
    images = re.findall(r'<img[^>]* src="(.{23})', text)
    assert images == ["data:image/jpeg;base64,"] * 2 * 8, "each face once in each kind of box"
    words = unescape(re.sub("<[^>]*>", " ", text))
    sections = ("Scores", "Rows to paste", "By landmark", "By group", "By yaw", "By size", "By sharpness", "Training")
    rest = (
        "Expected against true error",
        "Norms, frames and boxes",
        "Command and environ",
        "lips_inner_8:",
        "--thresholds",
    )
    names = ("drawn-64, perturbed boxes", "this run, perturbed boxes", found[0][3], "& ")
    assert not [wanted for wanted in (*sections, *rest, *names) if wanted not in words]
    assert "*" not in words.partition("NME in %.")[2].partition("Expected against")[0], "own sets have no usual norm"
    ends = [f"_drawn-64{box}" for box in ("", "_perturbed")]
    assert {path.name for path in report.iterdir()} == {
        *("index.html", "scores.csv", "groups.csv", "norms.csv", "protocols.csv", "test.yaml"),
        *(f"faces{end}.csv" for end in ends),
        *(f"faces{end}.jpg" for end in ends),
        *(f"sigma{end}.svg" for end in ends),
    }
    norms = {(row["model"], row["norm"], row["frame"]): float(row["NME %"]) for row in rows(report / "norms.csv")}
    assert len(norms) == 2 * (5 + 3) and norms["torch", "interocular", "image"] == pytest.approx(figures[0], abs=1e-3)
    (wide,) = rows(report / "protocols.csv")
    eyes = ["interocular", "interocular, crop", "interpupil", "interpupil, crop"]
    others = ["box", "box, crop", "diagonal", "size", "interocular, perturbed boxes", "FR@50 %", "AUC@50"]
    assert list(wide) == ["test set", "subset", *eyes, *others]
    assert [wide["interocular"], wide["interocular, perturbed boxes"]] == [found[0][3], found[1][3]]
    assert [wide["interocular, crop"], wide["FR@50 %"], wide["AUC@50"]] == found[0][4:7]
    faces = rows(report / "faces_drawn-64.csv")
    assert all(abs(float(row["yaw"])) < 60 and 20 < float(row["size"]) < 96 for row in faces)
