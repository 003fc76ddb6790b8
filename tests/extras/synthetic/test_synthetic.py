"""Synthetic faces: the same bytes for any number of workers, exact landmarks, the official layout."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import LAYOUTS, ROOT, refuses

from extras import synthetic
from extras.shared.pts import read_pts
from extras.synthetic import HARD_INDEX, TEST_INDEX, generate, read_set, render, share
from extras.synthetic.face import RenderedFace
from extras.synthetic.head import both_lids, head_model, landmarks_3d, pose_vertices
from utils.data.makers import infer

COUNT = 68


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("synthetic") / "raw"
    return target, generate(target, train=16, test=6, size=96, seed=3, workers=2)


@pytest.fixture(scope="module")
def faces():
    return [render(5, index, 160) for index in range(24)]


def test_render_is_a_pure_function_of_seed_and_index():
    first, again, other = render(1, 7, 96), render(1, 7, 96), render(2, 7, 96)
    assert isinstance(first, RenderedFace)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert not np.array_equal(first.image, other.image)
    assert first.image.dtype == np.uint8 and first.image.shape == (96, 96, 3)
    assert first.landmarks.shape == (COUNT, 2) and first.visible.shape == (COUNT,) and first.visible.dtype == bool


def test_the_picture_size_changes_the_scale_only():
    small, large = render(4, 3, 96), render(4, 3, 192)
    assert np.abs(large.landmarks / 192 - small.landmarks / 96).max() < 0.01


def test_counts_and_tree(folder):
    target, counts = folder
    assert sum(counts.values()) == 22
    assert set(counts) == {"afw", "helen/trainset", "lfpw/trainset", "helen/testset", "lfpw/testset", "ibug"}
    for part, count in counts.items():
        images = sorted((target / part).glob("*.jpg"))
        assert len(images) == count and all(p.with_suffix(".pts").exists() for p in images)
    names = [p.name for p in target.rglob("*.jpg")]
    assert len(names) == len(set(names)), "a face stands in two parts"
    assert not list(target.parent.glob(".raw-*")), "the building folder is left over"


def test_workers_change_nothing(folder, tmp_path):
    generate(tmp_path / "again", train=16, test=6, size=96, seed=3, workers=1)
    assert tree(tmp_path / "again") == tree(folder[0])


def test_pts_format_and_origin(folder):
    target, _ = folder
    names = sorted(p for p in (target / "helen/trainset").glob("*.pts"))
    lines = names[0].read_text().splitlines()
    assert lines[0] == "version: 1" and lines[1].split() == ["n_points:", "68"] and lines[2] == "{" and lines[-1] == "}"
    assert len(lines) == 4 + COUNT
    index = int(names[0].stem.removeprefix("face"))
    written = np.array([line.split() for line in lines[3:-1]], float)
    assert np.abs(written - 0.5 - render(3, index, 96).landmarks).max() < 1e-3  # the first pixel's centre is 1
    image = cv2.imread(str(names[0].with_suffix(".jpg")))
    assert image.shape == (96, 96, 3)


def test_visible_table(folder):
    target, _ = folder
    rows = [line.split("\t") for line in (target / "visible.tsv").read_text().splitlines()]
    assert len(rows) == 22 and all(len(flags) == COUNT and set(flags) <= {"0", "1"} for _, flags in rows)
    assert {row[0] for row in rows} == {p.relative_to(target).as_posix() for p in target.rglob("*.jpg")}


def test_train_and_test_indices_never_meet():
    assert 0 < TEST_INDEX < HARD_INDEX
    assert (
        sum(share(2000, synthetic.TRAIN_PARTS).values()) == 2000 and min(share(400, synthetic.TEST_PARTS).values()) > 50
    )


@pytest.mark.slow
def test_a_killed_run_leaves_no_folder(tmp_path, monkeypatch):
    def stop(job):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "_work", stop)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "raw", train=2, test=1, size=64, workers=1)
    assert not list(tmp_path.iterdir())


CALLER = """
import multiprocessing, os, signal
from concurrent.futures import ProcessPoolExecutor
from extras import synthetic
with synthetic._lean():
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    process = pool.submit(os.getpid).result()
os.kill(process, signal.SIGINT)
print(pool.submit(os.getpid).result(20) == process, flush=True)
multiprocessing.active_children()[0].terminate()
os._exit(0)  # as a signal ends a command: without Python's clean-up
"""


@pytest.mark.slow
def test_rendering_processes_leave_ctrl_c_to_their_caller():
    done = subprocess.run([sys.executable, "-c", CALLER], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True\n", "")


ATTACKED = """
import multiprocessing, os, sys, threading, time
from pipnet.errors import UserError
from utils.data.makers import infer
from extras.shared.pts import read_pts
from extras.synthetic import generate
def attack():
    while len(processes := multiprocessing.active_children()) < 2:
        time.sleep(0.1)
    {}
threading.Thread(target=attack).start()
try:
    generate(sys.argv[1], train=2000, test=1, size=64, workers=2)
except UserError as error:
    print(error)
"""


def attacked(tmp_path, attack: str) -> subprocess.CompletedProcess:
    """Render, do `attack` while two `processes` work, and wait for the end of all of them."""
    script = ATTACKED.format(attack)
    return subprocess.run(
        [sys.executable, "-c", script, tmp_path / "raw"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


@pytest.mark.slow
def test_a_killed_rendering_process_is_one_line(tmp_path):
    done = attacked(tmp_path, "processes[0].kill()")
    assert done.stdout.startswith("a process that renders synthetic faces was killed") and done.stdout.count("\n") == 1
    assert done.returncode == 0 and "Traceback" not in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_rendering_processes_end_with_their_caller(tmp_path):
    assert attacked(tmp_path, "os.kill(os.getpid(), 9)").returncode == -9


@pytest.mark.parametrize("arguments", [{"train": 0, "test": 0}, {"train": -1}, {"size": 16}])
def test_bad_requests_are_one_line(tmp_path, arguments):
    text = refuses("", generate, tmp_path / "raw", **arguments)
    assert "\n" not in text and not list(tmp_path.iterdir())


def test_an_existing_folder_is_not_overwritten(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "mine.txt").write_text("kept")
    refuses("exists already", generate, tmp_path / "raw", train=1, test=1, size=64, workers=1)
    assert (tmp_path / "raw" / "mine.txt").read_text() == "kept"


def test_faces_have_the_size_of_faces(faces):
    for face in faces:
        assert np.isfinite(face.landmarks).all()
        extent = np.ptp(face.landmarks, axis=0)
        assert 40 < extent.max() < 190
    assert 0.6 < np.mean([face.visible.mean() for face in faces]) <= 1


def test_visible_landmarks_lie_on_the_picture(faces):
    for face in faces:
        seen = face.landmarks[face.visible]
        assert (seen >= 0).all() and (seen < 160).all()


def shape(openness=1.0, jaw=0.0, **coefficients):
    lids = both_lids(openness, 1.0)
    return landmarks_3d(pose_vertices(coefficients, jaw), lids, lambda p: p[:, :2])


def test_the_mean_face_is_mirror_symmetric():
    flip = list(LAYOUTS.load("68").flip_index)
    mean = shape()
    assert np.abs(mean[flip] * [-1, 1, 1] - mean).max() < 0.1
    assert abs(mean[45, 0] - mean[36, 0] - 90) < 3, "outer eye corners are about 90 mm apart"


def test_lids_and_lips_move_their_landmarks():
    opened, shut = shape(1.0), shape(0.0)
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        assert opened[lower, 1] - opened[upper, 1] > 5
        assert abs(shut[lower, 1] - shut[upper, 1]) < 0.5
    closed, wide = shape(jaw=0.0), shape(jaw=0.25)
    assert closed[66, 1] - closed[62, 1] < 2 < 12 < wide[66, 1] - wide[62, 1]
    assert wide[8, 1] - closed[8, 1] > 10, "the chin follows the jaw"
    assert np.abs(wide[:, 1] - closed[:, 1])[17:48].max() < 0.5, "the upper face does not"
    smile = shape(smile_left=1.0, smile_right=1.0)
    assert smile[54, 0] > closed[54, 0] + 3 and smile[54, 1] < closed[54, 1] - 3


def test_the_far_outline_is_the_silhouette():
    yaw = np.radians(40)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    points = pose_vertices({}, 0.0)
    marks = landmarks_3d(points, both_lids(1.0, 1.0), lambda p: (p @ turn.T)[:, :2])
    flat, grid = (marks @ turn.T)[:, :2], (points[head_model().slices["grid"]] @ turn.T)
    for i in range(11, 15):  # turned to the right: those are on the far side
        band = grid[(np.abs(grid[:, 1] - flat[i, 1]) < 6) & (np.abs(head_model().phi[: len(grid)]) < 1.6)]
        assert flat[i, 0] > band[:, 0].max() - 4


def test_the_parts_of_a_frontal_face_stand_in_order():
    mean = shape()
    y = mean[:, 1]
    assert y[17:27].max() < y[36:48].min() < y[30] < y[33] < y[51] < y[57] < y[8]
    assert mean[36, 0] < mean[39, 0] < mean[27, 0] < mean[42, 0] < mean[45, 0]
    assert (np.diff(mean[:17, 0]) > 0).all(), "the contour runs from left to right"


def test_an_open_eye_is_lighter_and_darker_between_its_lids_than_the_cheek():
    spread = []
    for index in range(40):
        face = render(9, index, 192)
        eye = face.landmarks[36:42]
        if face.visible[36:42].all() and np.ptp(eye[:, 1]) > 0.22 * np.ptp(eye[:, 0]):
            x1, y1 = np.floor(eye.min(0)).astype(int)
            x2, y2 = np.ceil(eye.max(0)).astype(int)
            inside = face.image[y1:y2, x1:x2].mean(2)
            below = tuple(map(float, eye.mean(0) + [0, 2.2 * (y2 - y1)]))
            cheek = cv2.getRectSubPix(face.image, (x2 - x1, y2 - y1), below).mean(2)
            spread.append((np.ptp(inside), np.ptp(cheek)))
    assert len(spread) > 5
    assert np.median([a for a, _ in spread]) > 1.5 * np.median([b for _, b in spread])


def test_a_flag_is_no_folder_for_faces(tmp_path):
    command = [sys.executable, "-m", "extras.synthetic.points", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.returncode
    assert b"usage" in done.stderr
    assert not list(tmp_path.iterdir())


def test_rendered_faces_are_read_with_their_visibility(tmp_path):
    generate(tmp_path / "raw", 4, 3, 64, workers=1)
    assert infer(tmp_path / "raw") == "synthetic"
    splits, layout, *_ = read_set("synthetic", tmp_path / "raw")
    assert layout == "68" and [len(table["file"]) for table in splits.values()] == [4, 3]
    name, file = splits["train"]["file"][0], tmp_path / "raw" / "visible.tsv"
    points = read_pts((tmp_path / "raw" / name).with_suffix(".pts"))
    assert np.array_equal(splits["train"]["landmarks"][0], points - 1.0 + 0.5)
    file.write_text(f"{name}\t{'10' * 34}\n")
    again = read_set("synthetic", tmp_path / "raw").splits
    assert again["train"]["visible"][0].tolist() == [True, False] * 34 and again["test"]["visible"].all()
    file.write_text("afw/a.jpg\t0123\n")
    refuses("visible.tsv, line 1", read_set, "synthetic", tmp_path / "raw")


def test_varied_people_differ_more():
    one, again, usual = (render(1, 7, 96, varied=varied) for varied in (True, True, False))
    assert all(np.array_equal(first, second) for first, second in zip(one, again, strict=True))
    assert not np.array_equal(one.image, usual.image)
    spread = {}
    for varied in (False, True):
        marks = np.array([render(6, i, 32, varied, angles=(0, -0.3, 0)).landmarks for i in range(1, 60, 2)])
        marks = (marks - marks.mean(1, keepdims=True)) / np.ptp(marks, 1)[:, None].mean(-1, keepdims=True)
        spread[varied] = marks.std(0).mean()
    assert spread[True] > 1.1 * spread[False], spread
