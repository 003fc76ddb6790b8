"""Reports of --test: files of each set, other kinds of boxes, the page, comparisons with other runs."""

import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser

import archives
import cv2
import numpy as np
import pytest
import torch
import yaml
from conftest import LAYOUTS, ROOT, Command, draw_face, fails, rows, split_of, table, works, write_faces
from loguru import logger

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
    folder = tmp_path / "mine"
    shutil.copytree(trained.folder, folder)
    shutil.rmtree(folder / "report")
    return folder


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
def test_true_boxes_cut_anew_are_the_prepared_crops(faces):
    own = load_splits([split_of(faces, "test")], LAYOUT, 64, 1.0)
    again = reboxed(own, own["box"][:], 1.0)
    assert again["crop"][:] == pytest.approx(own["crop"][:], abs=1e-3)
    assert again.nominal() == pytest.approx(own.nominal(), abs=1e-4)
    for index in range(len(own)):
        assert np.abs(own.crops.plain(index).astype(int) - again.crops.plain(index)).mean() < 3  # JPEG


def test_perturbed_boxes_are_the_same_each_time_and_within_their_share(faces):
    own = load_splits([split_of(faces, "test")], LAYOUT, 64, 1.0)
    boxes = perturbed(own["box"][:], own["file"], 0.2)
    assert (boxes == perturbed(own["box"][::-1], own["file"][::-1], 0.2)[::-1]).all()
    true = own["box"][:]
    assert perturbed(true, own["file"], 0) == pytest.approx(true)
    sides, moved = true[:, 2:] - true[:, :2], (boxes[:, :2] + boxes[:, 2:] - true[:, :2] - true[:, 2:]) / 2
    scale = (boxes[:, 2:] - boxes[:, :2]) / sides
    assert (
        np.abs(moved / sides).max() <= 0.2
        and np.abs(scale - 1).max() <= 0.2
        and len(np.unique(scale.round(6))) == len(own)
    )
    other = reboxed(own, boxes, 1.0)
    assert to_image(other.nominal().astype(float), other["crop"][:]) == pytest.approx(own["landmarks"][:], abs=1e-3)
    assert (other["box"][:] == own["box"][:]).all() and len(other.crops[0]) == 64


def test_background_lies_beside_the_faces_and_is_the_same_each_time(raw, tmp_path):
    copy = tmp_path / "mine"
    shutil.copytree(raw, copy)
    folder = DataGenerator(copy, 64, "points", out=tmp_path / "data", layout="68").run()
    own = load_splits([split_of(folder, "train")], LAYOUT, 64, 1.0)
    beside, again = backgrounds(own), backgrounds(own)
    assert len(beside) >= FEWEST and (beside["crop"][:] == again["crop"][:]).all()
    assert (beside.crops[5] == again.crops[5]).all()
    for box, crop, size in zip(beside["box"][:], beside["crop"][:], beside["size"][:], strict=True):
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
    assert 10 < len(found) <= 20 and (found["crop"][:] == again["crop"][:]).all()
    assert (found.crops[3] == again.crops[3]).all() and found.crops[0].shape == own.crops[0].shape  # with the margin
    assert (iou(found["box"][:], grow(found["crop"][:], 1 / 1.2)).diagonal() <= MISFIT + 0.02).all()
    name = own["file"][0]
    three = own.only(np.arange(3)).with_columns(file=np.array([name, f"{name}#2", f"{name}#3"], object))
    cuts = beside(three, 20, 0)["crop"][:]  # faces of one picture
    assert len(cuts) and iou(three["box"][:], grow(cuts, 1 / 1.2)).max() <= MISFIT + 0.02


def test_the_limit_of_a_net_lies_above_background_but_not_above_faces(faces):
    own = load_splits([split_of(faces, "test")], LAYOUT, 64, 1.0)

    def predict(images):
        return Prediction(torch.full((len(images), 68, 2), 0.5), torch.full((len(images), 68), 0.8))

    result, low, high = evaluate(predict, own, LAYOUT, "diagonal"), np.linspace(0, 0.5, 101), np.full(50, 0.9)
    assert result.face_limit(low) == pytest.approx(0.95 * 0.495)
    assert result.face_limit(high) == pytest.approx(0.95 * 0.8)


def test_without_the_archive_other_boxes_come_from_the_prepared_crops(raw, tmp_path):
    copy = tmp_path / "mine"
    shutil.copytree(raw, copy)
    folder = DataGenerator(copy, 64, "points", out=tmp_path / "data", layout="68").run()
    own = load_splits([split_of(folder, "test")], LAYOUT, 64, 1.0)
    boxes = perturbed(own["box"][:], own["file"], 0.1)
    before = reboxed(own, boxes, 1.0)
    shutil.rmtree(copy)
    after = reboxed(own, boxes, 1.0)
    assert (after["crop"] == before["crop"]).all()
    for index in range(len(own)):  # the same picture within the margin, since it is cut from the prepared crop
        assert np.abs(before.crops[index].astype(int) - after.crops[index])[8:-8, 8:-8].mean() < 12


def test_a_detection_is_the_face_that_it_overlaps_most(faces):
    own = load_splits([split_of(faces, "test")], LAYOUT, 64, 1.0)
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
        return own["box"][:] + 1 if whole else middle

    assert detected(own, find) == pytest.approx(own["box"][:] + 1) and asked == [
        (96, 192, 3)
    ]  # one picture is searched once
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


def test_boxes_that_cannot_be(run_of, cli, faces):
    fails(cli("--test --exp", run_of, "--box detector --detector mtcnn"), "'mtcnn'")
    fails(cli("--test --exp", run_of, "--box loose"), "box.*'loose'")
    own = load_splits([split_of(faces, "test")], LAYOUT, 64, 1.0)
    assert rebox(own, "true", 1.0, None) == (own, 0)
    found = iter([np.empty((0, 5)), *np.pad(own["box"][:][1:, None], ((0, 0), (0, 0), (0, 1)))])  # upright
    again, missed = rebox(own, "detector", 1.0, lambda image: (next(found), None))
    assert missed == 1 and again["crop"][:] == pytest.approx(
        own["crop"][:], abs=1e-3
    )  # a missed face keeps its own box
    assert (again.only(np.array([3])).crops[0] == again.crops[3]).all()


# ----------------------------------------------------------------------------------------------------------------- page
class Page(HTMLParser):
    """Content of a page: tags with their attributes, and the words."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def tested(trained, tmp_path_factory):
    """Return a copy of the trained run, tested in true and perturbed boxes and compared with the original."""
    place = tmp_path_factory.mktemp("tested")
    shutil.copytree(trained.folder, place / "mine")
    shutil.rmtree(place / "mine" / "report")
    flags = (
        "--test --exp",
        place / "mine",
        "--compare",
        trained.folder,
        "--box true perturbed --thresholds 50",
    )
    done = works(Command(place / "output", flags, ROOT / "main.py").result())
    return place / "mine", done


def test_the_page_of_a_test(tested):
    folder, done = tested
    found = table(done.stdout)
    assert [row[1] for row in found] == ["torch", "run 000", "torch, perturbed boxes"]
    figures = [float(row[3]) for row in found]
    assert figures[0] == pytest.approx(figures[1], abs=0.002) and figures[0] != figures[2]  # a copy of the same net
    text = (folder / "report" / "index.html").read_text()
    page = Page(text)
    assert not page.open and len(text) < 3e6
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)|url\(|@import|<script|<link""", text)
    images = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 2 * 3 * 8 and all(source.startswith("data:image/jpeg;base64,") for source in images)
    words = " ".join(page.words)
    for wanted in (
        "Scores",
        "drawn-64, perturbed boxes",
        "Rows to paste",
        "By landmark",
        "By group",
        "By yaw",
        "By size",
        "By sharpness",
        "Expected against true error",
        "Norms, frames and boxes",
        "Training",
        "Command and environ",
        "landmark 67:",
        "--compare",
        found[0][3],
        "run 000",
        "this run, perturbed boxes",
        "& ",
    ):
        assert wanted in words, wanted
    report = folder / "report"
    ends = [f"_drawn-64{box}" for box in ("", "_perturbed")]
    assert {path.name for path in report.iterdir()} == {
        "index.html",
        "scores.csv",
        "groups.csv",
        "norms.csv",
        "protocols.csv",
        "test.yaml",
        *(f"faces{end}.csv" for end in ends),
        *(f"faces{end}.jpg" for end in ends),
        *(f"sigma{end}.svg" for end in ends),
    }
    assert {file: of["box"] for file, of in yaml.safe_load((report / "test.yaml").read_text())["files"].items()} == {
        "drawn-64": "true",
        "drawn-64_perturbed": "perturbed",
    }
    norms = {(row["model"], row["norm"], row["frame"]): float(row["NME %"]) for row in rows(report / "norms.csv")}
    assert len(norms) == 2 * (5 + 3) and norms["torch", "interocular", "image"] == pytest.approx(figures[0], abs=1e-3)
    (wide,) = rows(report / "protocols.csv")
    assert list(wide) == [
        "test set",
        "subset",
        "interocular",
        "interocular, crop",
        "interpupil",
        "interpupil, crop",
        "box",
        "box, crop",
        "diagonal",
        "size",
        "interocular, perturbed boxes",
        "FR@50 %",
        "AUC@50",
    ]
    assert [wide["interocular"], wide["interocular, perturbed boxes"]] == [found[0][3], found[2][3]]
    assert [wide["interocular, crop"], wide["FR@50 %"], wide["AUC@50"]] == found[0][4:7]
    faces = rows(report / "faces_drawn-64.csv")
    assert all(abs(float(row["yaw"])) < 60 and 20 < float(row["size"]) < 96 for row in faces)


def test_what_cannot_be_compared(run_of, trained, cli, tmp_path):
    fails(cli("--test --exp", trained.folder, "--compare", run_of), "--test --exp")
    fails(
        cli("--test --exp", run_of, "--compare", trained.folder, "--norm box"),
        "interocular.*box",
    )
    fails(cli("--test --exp", run_of, "--compare", trained.folder, "--box perturbed"), "--box")
    fails(cli("--compare", trained.folder, "--list-nets"), "--compare")
    fails(cli("--test --exp", run_of, "--compare", trained.folder, "--flip-test"), "--flip-test")
    later = shutil.copytree(trained.folder, tmp_path / "later")
    shutil.copy(later / "last.pt", later / "best.pt")
    fails(
        cli("--test --exp", run_of, "--compare", later),
        "trained on since",
    )
    assert not (run_of / "report").exists()


def test_compared_runs_of_one_name_are_told_apart(trained, run_of, cli, tmp_path):
    twin = shutil.copytree(trained.folder, tmp_path / "twin" / trained.folder.name)
    done = cli("--test --exp", run_of, "--compare", trained.folder, twin)
    name = trained.folder.name
    assert [row[1] for row in table(done.stdout)] == ["torch", f"run {name}", f"run {name}-2"], done.stderr
    assert (run_of / "report" / "index.html").read_text().count(f"run {name}-2") > 1  # in the table and in the chart


def test_runs_of_two_presets_are_compared_as_the_message_says(trained, run_of, cli, recipe, raw, tmp_path):
    """Their crops differ, and how they read labels; the faces are the same."""
    more = write_faces(tmp_path / "more", 3, seed=5)
    places = ("--run-root", tmp_path / "runs", "--data-root", tmp_path / "data")
    done = works(cli("--train", *recipe, *places, "--preset pipnet --exp theirs"))
    compare = ("--test --exp theirs", *places, "--test-data", raw, more, "--compare", run_of)
    done = cli(*compare)
    fails(done, f"--exp {run_of}")
    command = shlex.split(done.error.partition("python main.py ")[2])
    assert command[command.index("--test-data") + 1 :][:2] == [str(raw), str(more)]
    done = works(cli(*command))
    figures = [row[3] for row in table(done.stdout)]
    done = works(cli(*compare))
    rows = table(done.stdout)
    assert [row[1] for row in rows] == ["torch", "run mine, labels exact"] * 2
    assert [float(row[3]) for row in rows[1::2]] == pytest.approx(list(map(float, figures)), abs=0.002)
    (run_of / "report" / "test.yaml").write_text("files: 5\n")
    fails(cli(*compare), "damaged")


@pytest.mark.slow
def test_the_page_in_a_browser(tested, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not browser:
        pytest.skip("no Chromium is installed")
    brightness = {}
    dark = "--blink-settings=preferredColorScheme=0"
    for look, width, flags in (("light", 1100, []), ("dark", 1100, [dark]), ("phone", 500, [])):
        picture = tmp_path / f"{look}.png"
        subprocess.run(
            [
                browser,
                *"--headless --no-sandbox --disable-gpu --disable-quic --no-first-run".split(),
                *"--disable-background-networking --disable-component-update --disable-sync --hide-scrollbars".split(),
                *flags,
                f"--user-data-dir={tmp_path / 'browser'}",
                f"--screenshot={picture}",
                f"--window-size={width},2400",
                f"file://{tested[0] / 'report' / 'index.html'}",
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
        image = cv2.imread(str(picture))
        assert image.shape == (2400, width, 3) and image.std() > 10
        edge = image[:, -8:]  # the right edge is empty: nothing is wider than the page
        assert (edge == edge[0, 0]).all()
        brightness[look] = np.median(image)
    assert brightness["light"] > 200 and brightness["phone"] > 200 and brightness["dark"] < 60
