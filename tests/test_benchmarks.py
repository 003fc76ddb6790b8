"""The figures of README.md and docs/: their sources are whole, good enough, and the pages show them."""

import json
from argparse import Namespace

import experiments
import gpu as gpu_campaign
import lids
import numpy as np
import photographs
import pytest
import tables
from conftest import ROOT
from measures import babies, false_faces, upright
from photographs import Photograph
from speeds import gpu, training
from victims import campaign

from extras.synthetic import render
from extras.synthetic.head import both_lids
from pipnet.face import Face
from pipnet.images import read_image, write_image
from pipnet.video.drowsiness import ring_aspect
from utils.data.pts import write_pts
from utils.settings.checks import check_read
from utils.settings.config import make_settings, parse, read_defaults
from utils.settings.extras import extra

RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_every_figure_says_how_it_was_made(file):
    values = json.loads(file.read_text())
    assert {"command", "commit", "date", "seed", "machine"} <= values.keys() and "dirty" not in values["commit"]


def test_the_main_job_is_good_and_its_export_agrees():
    scores = json.loads((ROOT / "benchmarks" / "results" / "default.json").read_text())["scores"]
    figures = {row["model"]: float(row["NME %"]) for row in scores if row["test set"] == "synthetic faces"}
    assert figures["torch"] <= 5 and abs(figures["torch"] - figures["onnx"]) <= 0.01


def test_every_net_learns_and_its_export_agrees():
    found = json.loads((ROOT / "benchmarks" / "results" / "learning.json").read_text())
    assert all(after < 2 < 20 < before for before, after in found["learning"].values())
    assert all(share > 0.95 for share in found["onnx_agrees"].values()) and not found["faults"]


@pytest.mark.slow
def test_every_command_of_the_benchmarks_is_one():
    defaults = read_defaults()

    def resolved(flags: list[str]):
        given = parse(flags, defaults)[1]
        settings = make_settings(given, defaults, given.get("preset"))
        check_read(given, settings)
        if settings.train.semi:
            extra("semi", "settings").check(settings)
        return settings.train

    file, making = experiments.read(), experiments.read(ROOT / "weights" / "making" / "stages.yaml")
    for known, runs in ((file["flags"], file["runs"]), (making["flags"], making["stages"])):
        for run in runs.values():
            resolved(experiments.flags_of(run["flags"], known))
    jobs = [
        job.flags for job in gpu_campaign.KINDS.values() if job.script[-1] == "main.py" and "--layout" not in job.flags
    ]
    for flags in (*jobs, *gpu.ROWS.values()):
        resolved(gpu.filled(flags, ROOT, "run"))
    given = Namespace(net="resnet18", size=128, epochs=60)
    for name in file["tables"]:
        rows = {row: resolved(experiments.row_flags(file, name, row, given)[0]) for row in file["tables"][name]["rows"]}
        if name == "pipnet":  # nothing pretrained, so with decay; steps where they are in 60 epochs
            published = rows["as published"]
            assert (published.weight_decay, published.milestones, published.epochs) == (5e-4, [30, 50], 60)
        if name == "ablation":
            stepped = [row for row, train in rows.items() if train.milestones]
            assert stepped == ["steps at 1/2 and 5/6"] and rows[stepped[0]].milestones == [30, 50]


def test_the_pages_show_what_the_results_hold():
    for page in tables.PAGES:
        text = page.read_text(encoding="utf-8")
        assert tables.filled(text, page) == text, "python benchmarks/tables.py writes the tables"


def test_the_rows_of_experiments_follow_from_their_figures():
    for name, table in experiments.read()["tables"].items():
        stored = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        assert experiments.shown(table, stored["measured"]) == stored["rows"]


@pytest.mark.slow
@pytest.mark.parametrize("pixels", ["cpu", "device"])
def test_the_speed_of_a_training_is_measured(monkeypatch, recipe, pixels):
    monkeypatch.setattr(training, "STEPS", 2)
    found = training.training(*map(str, recipe), "--pixels", pixels, rounds=1)
    assert min(found["images_per_second"], found["pure_compute"], found["ratio"]) > 0


@pytest.mark.slow
def test_a_card_is_checked(monkeypatch, capsys):
    """Two of the paths, on the processor."""
    monkeypatch.setattr("speeds.gpu.FACES", (16, 8))
    assert not campaign("gpu", ["own points", "diverging, bf16", "--minutes", "20"])
    printed = capsys.readouterr().out
    assert printed.startswith("ok ") and printed.count("\nok ") == 1 and "paths: 2 cases, 0 faults" in printed


@pytest.mark.slow
def test_a_warp_shuts_an_eye():
    face, ring = render(2, 0, 256, lids=both_lids(1.0, 0.8)), lids.RINGS[0]
    eye, rng = lids.eye_of(face.landmarks, ring), np.random.default_rng(0)
    picture, shut = lids.drawn_shut(face.image, face.landmarks, ring, eye, lids.MEET, rng)
    _, half = lids.drawn_shut(face.image, face.landmarks, ring, eye, 0.5, rng)
    lid, others = [ring[1], ring[2]], [i for i in range(68) if i not in ring[1:3] + ring[4:]]
    assert ring_aspect(face.landmarks, ring) > lids.WIDE and ring_aspect(shut, ring) < 0.01
    assert ring_aspect(half, ring) == pytest.approx(ring_aspect(face.landmarks, ring) / 2, rel=0.05)
    assert (shut[others] == face.landmarks[others]).all() and (half[lid, 1] > face.landmarks[lid, 1]).all()
    changed = np.argwhere((picture != face.image).any(2))[:, ::-1]
    side = np.linalg.norm(face.landmarks[ring[3]] - face.landmarks[ring[0]])
    assert (
        len(changed) and np.abs(changed - face.landmarks[list(ring)].mean(0)).max() < side
    )  # the rest of the picture stays


def test_missed_and_failed_babies_are_counted():
    """A face that is 2 % of the eyes' distance off, one that is 30 % off, one that is missed."""
    truth = render(2, 0, 64).landmarks
    eyes, side = np.linalg.norm(truth[45] - truth[36]), np.sqrt(np.prod(np.ptp(truth, axis=0)))
    faces = [Face(np.zeros(4), 1.0, truth + (share * eyes, 0), np.ones(68)) for share in (0.02, 0.3)]
    found = babies.figures([*faces, None], 3 * [Photograph(ROOT, "", truth)])
    assert list(found.values()) == ["3", "1", "2", "16.00", f"{16 * eyes / side:.2f}", "14.00"]


def test_false_faces_are_counted_and_drawn(tmp_path, monkeypatch, capsys):
    """A tool that sees two faces in every picture, one of them where the label of a person is."""
    face, away = (render(2, 0, 64).landmarks + shift for shift in (0, 200))
    for name, count in {"NOFACE": 3, "HARD": 1}.items():
        (tmp_path / name).mkdir()
        for place in range(count):
            write_image(tmp_path / name / f"{place}.jpg", np.full((300, 300, 3), 90, np.uint8))
    write_pts(tmp_path / "HARD" / "0.pts", face, 0.5)
    found = [Face(np.zeros(4), score, points, np.ones(68)) for score, points in ((0.5, face), (0.9, away))]
    monkeypatch.setattr(false_faces, "look_of", lambda *names: lambda image: found)
    places = {name: tmp_path / name for name in ("NOFACE", "HARD")}
    monkeypatch.setattr(photographs, "PLACES", places)
    monkeypatch.setattr(false_faces, "PLACES", places)
    rows = [*false_faces.false_faces("tool=any", sheets=str(tmp_path / "sheets"))]
    assert [(row["number"], row["tool"]) for row in rows] == [
        ("2", "4 / 200.0"),
        ("1", "2 / 200.0"),
        ("1", "1 / 100.0"),
    ]
    assert "held out" in rows[1]["photographs"] and "HARD" in rows[2]["photographs"]
    picture = read_image(tmp_path / "sheets" / "tool.jpg")
    assert picture.shape == (false_faces.TILE, false_faces.COLUMNS * false_faces.TILE, 3)
    printed = capsys.readouterr().out
    assert all(f"skipped: no {name}:" in printed for name in ("BABIES", "VIDEOS"))
    places.clear()
    with pytest.raises(SystemExit, match="no data"):
        next(false_faces.false_faces())


def test_a_face_upside_down_is_counted():
    """A face that is 2 % of the eyes' distance off, one that is turned by 180 degrees, one that is missed."""
    truth = render(2, 0, 64).landmarks
    eyes = np.linalg.norm(truth[45] - truth[36])
    turned = truth.mean(0) * 2 - truth
    faces = [Face(np.zeros(4), 1.0, points, np.ones(68)) for points in (truth + (0.02 * eyes, 0), turned)]
    records = 3 * [Photograph(ROOT, "", truth)]
    found = upright.figures([*faces, None], 3 * [truth + (0.01 * eyes, 0)], records)
    own = (2 + babies.nme(turned, truth)) / 2
    assert list(found.values()) == ["3", "1", "1", "1.00", f"{own:.2f}", f"{own - 1:.2f}"]
    mesh = np.zeros((478, 2))
    mesh[list(upright.FIVE[478])] = turned[list(upright.FIVE[68])]
    other = upright.figures([Face(np.zeros(4), 1.0, mesh, np.ones(478))], None, records[:1])
    assert other == {"faces": "1", "missed": "0", "upside down": "1"}
