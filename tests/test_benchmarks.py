"""The figures of README.md and docs/: their sources are whole, good enough, and the pages show them."""

import json
import sys
from types import SimpleNamespace

import lids
import make
import numpy as np
import photographs
import pytest
import record
import tables
from conftest import ROOT
from measures import false_faces, portraits
from measures.kinds import nme
from photographs import Photograph
from speeds import gpu, training

from extras.shared.pts import write_pts
from extras.synthetic import render
from extras.synthetic.head import both_lids
from pipnet.face import Face
from pipnet.geometry import box_of
from pipnet.images import write_image
from pipnet.video.drowsiness import ring_aspect
from utils.settings.command import Command
from utils.settings.config import Settings, preset_values, read_defaults
from utils.settings.faults import faults, refuse, unread

RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_every_figure_says_how_it_was_made(file):
    values = json.loads(file.read_text())
    assert {"command", "commit", "date", "seed", "machine"} <= values.keys() and "dirty" not in values["commit"]


def test_the_main_job_is_good_and_its_export_agrees():
    scores = json.loads((ROOT / "benchmarks" / "results" / "default.json").read_text())["scores"]
    figures = {row["model"]: float(row["NME %"]) for row in scores if row["test set"] == "synthetic faces"}
    assert figures["torch"] <= 5 and abs(figures["torch"] - figures["onnx"]) <= 0.01


@pytest.mark.slow
def test_every_stage_is_a_training_and_a_step_of_a_shipped_net():
    defaults, known = read_defaults(), make.stages()
    commands = [make.filled_in(stage["flags"], known["flags"]) for stage in known["stages"].values()]
    for flags in (*commands, *(["--train", *flags] for flags in gpu.ROWS.values())):
        command = Command.of(flags, defaults)
        preset = command.value("preset") or ("detect" if command.value("task") == "detect" else None)
        row = preset_values(preset, command.given, defaults)
        settings = Settings.of(defaults, row, command.given)
        refuse(faults(command, settings))
        assert not unread(command, settings)
    steps = {word for net in known["nets"].values() for step in net for word in step.split()}
    assert not known["stages"].keys() - steps


def test_the_pages_show_what_the_results_hold():
    for page in tables.PAGES:
        text = page.read_text(encoding="utf-8")
        assert tables.filled(text) == text, "python benchmarks/tables.py writes the tables"


def test_rows_that_are_not_measured_stay(monkeypatch, tmp_path, capsys):
    """A row is known by its first cell. The command is kept without the folders of this machine."""
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    (tmp_path / "kinds.json").write_text(json.dumps({"rows": [{"kind": "dark", "old": "1"}, {"kind": "wet"}]}))
    module = SimpleNamespace(kinds=lambda *nets, split="test": iter([{"kind": "dark", nets[0]: split}]))
    monkeypatch.setitem(sys.modules, "measured", module)
    monkeypatch.setattr(sys, "argv", ["benchmarks/measure.py", "kinds", "/folder/net.onnx", "--split", "val"])
    with pytest.raises(SystemExit) as ended:
        record.main({"kinds": "measured"}, "")
    found = record.result("kinds")
    assert ended.value.code == 0 and found["command"] == "python benchmarks/measure.py kinds net.onnx --split val"
    assert found["rows"] == [{"kind": "dark", "old": "1", "/folder/net.onnx": "val"}, {"kind": "wet"}]
    for wrong in (["kinds", "--faces", "3"], ["kinds", "--fast"], ["others"]):
        with pytest.raises(SystemExit, match="2"):
            record.parse({"kinds": "measured"}, wrong, "")


@pytest.mark.slow
@pytest.mark.parametrize("pixels", ["cpu", "device"])
def test_the_speed_of_a_training_is_measured(monkeypatch, recipe, pixels):
    monkeypatch.setattr(training, "STEPS", 2)
    found = training.training(*map(str, recipe), "--pixels", pixels, rounds=1)
    assert min(found["images_per_second"], found["pure_compute"], found["ratio"]) > 0


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
    # the rest of the picture stays
    assert len(changed) and np.abs(changed - face.landmarks[list(ring)].mean(0)).max() < side


def test_missed_and_failed_babies_are_counted():
    """A face that is 2 % of the eyes' distance off, one that is 30 % off, one that is missed."""
    truth = render(2, 0, 64).landmarks
    eyes, side = np.linalg.norm(truth[45] - truth[36]), np.sqrt(np.prod(np.ptp(truth, axis=0)))
    faces = [Face(np.zeros(4), 1.0, truth + (share * eyes, 0), np.ones(68)) for share in (0.02, 0.3)]
    found = portraits.baby_figures([*faces, None], 3 * [Photograph(ROOT, "", truth)])
    assert list(found.values()) == ["3", "1", "2", "16.00", f"{16 * eyes / side:.2f}"]


def test_false_faces_are_counted(tmp_path, monkeypatch, capsys):
    """A tool that sees two faces in every picture, one of them where the label of a person is."""
    face, away = (render(2, 0, 64).landmarks + shift for shift in (0, 200))
    for name, count in {"NOFACE": 3, "HARD": 1}.items():
        (tmp_path / name).mkdir()
        for place in range(count):
            write_image(tmp_path / name / f"{place}.jpg", np.full((300, 300, 3), 90, np.uint8))
    write_pts(tmp_path / "HARD" / "0.pts", face, 0.5)
    found = [Face(box_of(points), 0.5, points, np.ones(68)) for points in (face, away)]
    monkeypatch.setattr(false_faces, "look_of", lambda *names: lambda image: found)
    places = {name: tmp_path / name for name in ("NOFACE", "HARD")}
    monkeypatch.setattr(photographs, "PLACES", places)
    monkeypatch.setattr(false_faces, "PLACES", places)
    rows = [*false_faces.false_faces("tool=any")]
    assert [(row["number"], row["tool"]) for row in rows] == [
        ("2", "4 / 200.0"),
        ("1", "2 / 200.0"),
        ("1", "1 / 100.0"),
    ]
    assert "held out" in rows[1]["photographs"] and "HARD" in rows[2]["photographs"]
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
    found = portraits.upright_figures([*faces, None], 3 * [truth + (0.01 * eyes, 0)], records)
    assert list(found.values()) == ["3", "1", "1", "1.00", f"{(2 + nme(turned, truth)) / 2:.2f}"]
    mesh = np.zeros((478, 2))
    mesh[list(portraits.FIVE[478])] = turned[list(portraits.FIVE[68])]
    other = portraits.upright_figures([Face(np.zeros(4), 1.0, mesh, np.ones(478))], [], records[:1])
    assert other == {"faces": "1", "missed": "0", "upside down": "1"}
