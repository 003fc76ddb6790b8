"""The figures of README.md and docs/: their sources are whole, good enough, and the pages show them."""

import json
from argparse import Namespace

import experiments
import gpu as gpu_campaign
import lids
import numpy as np
import pytest
import tables
from conftest import ROOT
from measures import babies
from photographs import Photograph
from speeds import gpu, training
from victims import campaign

from extras.synthetic import render
from extras.synthetic.head import both_lids
from pipnet.face import Face
from pipnet.video.drowsiness import ring_aspect
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
