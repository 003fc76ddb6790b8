"""Whole runs of the task `detect`, with their export."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import (
    driver,
    fails,
    refuses,
    rows,
    sets_of,
    settings,
    split_of,
    trained_once,
    two_train_as_one,
    typed,
    works,
    write_faces,
    write_wider,
)

import main
from extras.detector.evaluation import ROLLS, Scaled, score_rows
from extras.detector.experiment import PictureSets, calibration, composites, detector_experiment, prepare
from extras.detector.faceboxes import FaceBoxesV2
from extras.detector.loaders import faceboxes_finder, weights_of
from extras.detector.wider import Picture
from pipnet.detector import load_exported
from utils.train import checkpoint
from utils.train.ranks import Ranks

ONE = Ranks(0, 1, torch.device("cpu"))
# fmt: off
SMALL = ["--input-size", "64", "--crops", "16", "--batch-size", "8", "--epochs", "2", "--workers", "1", "--threads", "1",
         "--face-sides", "12", "40", "--warmup", "0.5", "--val", "0.1", "--amp", "off"]
# fmt: on


@pytest.fixture(scope="session")
def detector(wider, raw, data_root, shared) -> Path:
    """A run of two epochs on photographs and pasted faces, tested and exported; a test that changes it copies it."""
    return trained_once(
        shared / "detector", "--task", "detect", *flags(wider, raw, data_root, shared / "detector")
    ).folder


def flags(wider: Path, raw: Path, data_root: Path, root: Path) -> list[str]:
    sets = ("--train-data", wider, raw, "--test-data", wider, "--target-size", 64, "--partial-events", "1--event")
    return [*map(str, sets), "--data-root", str(data_root), "--run-root", str(root), *SMALL]


def pasted(raw: Path, data_root: Path, root: Path, *modes: str) -> list:
    """Flags of a training of an epoch, without photographs."""
    places = ("--train-data", raw, "--data-root", data_root, "--target-size", 64, "--run-root", root)
    return ["--task", "detect", "--train", "--test", *modes, *places, *SMALL, "--epochs", "1"]


def test_the_files_and_tables_of_a_run(detector):
    files = {"args.yaml", "best.pt", "best.onnx", "last.pt", "log.txt", "report", "step.csv", "time.csv"}
    assert files <= {file.name for file in detector.iterdir()}
    steps, scores = rows(detector / "step.csv"), rows(detector / "report" / "scores.csv")
    assert len(steps) == 2 and {"conf", "loc", "loss", "val_miss"} <= steps[0].keys()
    assert 0 <= float(steps[-1]["best"]) <= 100
    cases = [("faces", "1"), ("faces", "2"), *((f"faces, turned by {roll}", "1") for roll in ROLLS)]
    assert [(row["test set"].strip(), row["model"], row["scale"]) for row in scores] == [
        (name, model, scale)
        for title, scale in cases
        for model in ("torch", "onnx")
        for name in (title, "0--event", "1--event")
    ]
    assert scores[0]["faces"] == "5" and scores[2]["AP"] == "" and scores[1]["AP"]
    assert (detector / "report" / "pictures_faces.jpg").is_file()
    said = json.loads((detector.parent / "said.json").read_text())["stdout"]
    assert "| faces" in said and "AP where every face has a box" in said
    assert "from random weights; " in (detector / "log.txt").read_text()


def test_the_export_takes_pictures_of_any_size(detector):
    stored = checkpoint.load(detector / "best.pt")
    assert stored["net"] == {"net": "faceboxes"} and stored["args"]["task"] == "detect"
    net = weights_of(detector / "best.pt").eval()
    one, two = faceboxes_finder(net, ONE.device), load_exported(detector / "best.onnx", 1)[0]
    for index, (height, width) in enumerate([(1, 1), (33, 20), (64, 128), (90, 100)]):
        image = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        # the boxes of all anchors
        (boxes, scores, _), (same, equal, _) = (find(image, 0.0, 1.0) for find in (one, two))
        count = sum(many * -(-height // side) * -(-width // side) for side, many in ((32, 21), (64, 1), (128, 1)))
        assert same.shape == boxes.shape == (count, 4)
        assert same.dtype == equal.dtype == np.float32 and (np.diff(equal) <= 0).all()
        assert np.allclose(scores, equal, atol=1e-4)
        assert np.abs(boxes[:, None] - same).max(2).min(1).max() < 1e-2  # almost equal scores may change places
        place = int(np.diff(equal).argmin())  # the largest gap of two scores
        limit = float(equal[place : place + 2].mean())
        assert len(one(image, limit, 1.0)[0]) == len(two(image, limit, 1.0)[0]) == place + 1
    session = onnxruntime.InferenceSession(str(detector / "best.onnx"))
    assert [port.name for port in session.get_inputs()] == ["image", "threshold", "overlap"]
    assert [port.name for port in session.get_outputs()] == ["boxes", "scores"]
    about = session.get_modelmeta().custom_metadata_map
    assert about["task"] == "detect" and "--task detect" in about["command"] and "validation" in about["figures"]
    limits = {"threshold": np.array(1, np.float32), "overlap": np.array(0.3, np.float32)}
    none = session.run(None, {"image": np.zeros((64, 64, 3), np.uint8), **limits})
    assert [part.shape for part in none] == [(0, 4), (0,)]


def test_training_starts_from_an_export(cli, detector, wider, raw, data_root, tmp_path):
    file = detector / "best.onnx"
    images = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        trained, net = (weights_of(path).eval()(images) for path in (detector / "best.pt", file))
    # the file holds float16
    assert all(torch.allclose(one, two, atol=1e-2) for one, two in zip(trained, net, strict=True))
    more = ("--exp", "on", "--weights", file, "--learning-rate", "1e-9", "--epochs", "1")
    works(cli("--task detect --train", *flags(wider, raw, data_root, tmp_path), *more))
    filters = [
        [parameter for parameter in weights_of(path).parameters() if parameter.ndim == 4]
        for path in (file, tmp_path / "on" / "best.pt")
    ]
    assert len(filters[0]) > 20 and all(map(partial(torch.allclose, atol=1e-4), *filters))


def test_measured_batch_norms_do_not_change_the_output():
    torch.manual_seed(0)
    net, images = FaceBoxesV2().eval(), torch.randint(0, 256, (4, 128, 128, 3), dtype=torch.uint8)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2), module.bias.data.normal_()
    before = net(images)
    net.measure_norms(images)
    after, training = net(images), net.train()(images)
    for one, two, three in zip(before, after, training, strict=True):
        assert torch.allclose(one, two, atol=1e-4) and torch.allclose(one, three, atol=1e-3)


def test_a_run_is_tested_without_naming_its_task(cli, detector, wider, tmp_path):
    run = shutil.copytree(detector, tmp_path / "run")
    done = works(cli("--test --exp", run, "--test-data", wider, "--scales 1.5"))
    assert "| 1.5" in done.stdout.replace("   1.5", " 1.5")


@pytest.mark.slow
def test_resume_is_exact(cli, detector, wider, raw, data_root, tmp_path):
    stopped = driver(
        tmp_path,
        "stopped",
        """
step = solver.Solver.train_step
def short(self, batches):
    if self.step == 3:
        os._exit(9)
    return step(self, batches)
solver.Solver.train_step = short""",
    )
    again = flags(wider, raw, data_root, tmp_path)
    assert cli("--task detect --train", *again, "--exp run", script=stopped).returncode == 9
    assert len(rows(tmp_path / "run" / "step.csv")) == 1
    resume = ("--train", "--resume", "--run-root", tmp_path, "--exp", "run")
    fails(cli(*resume, "--pasted 0"), "--pasted")
    works(cli(*resume))
    whole, parts = (checkpoint.load(folder / "last.pt")["solver"] for folder in (detector, tmp_path / "run"))
    assert all(torch.equal(whole["net"][name], parts["net"][name]) for name in whole["net"])
    columns = ("epoch", "loss", "val_miss")
    assert [[row[key] for key in columns] for row in rows(detector / "step.csv")] == [
        [row[key] for key in columns] for row in rows(tmp_path / "run" / "step.csv")
    ]


@pytest.mark.slow
def test_two_processes_train_like_one(cli, wider, raw, data_root, tmp_path):
    teacher = tmp_path / "teacher.pt"
    torch.manual_seed(0)
    torch.save(FaceBoxesV2().state_dict(), teacher)
    common = [*flags(wider, raw, data_root, tmp_path), "--teacher", teacher, "--amp", "off"]
    two_train_as_one(cli, tmp_path, "--task", "detect", "--train", *common, columns=("conf", "loc", "loss"), rel=1e-3)


def test_without_photographs_faces_are_pasted_on_drawn_backgrounds(cli, raw, data_root, tmp_path):
    done = works(cli(*pasted(raw, data_root, tmp_path, "--show-data", "6")))
    assert ", composites" in done.stdout and (data_root / "detect" / "show" / "samples.jpg").is_file()


def test_pictures_without_a_face_that_counts(cli, detector, tmp_path):
    """No face has 16 px, so there is nothing to compare."""
    write_wider(tmp_path / "tiny", "val", {"0--event/0.jpg": [[8, 8, 5, 6, 0, 0, 0, 0, 0, 0]]})
    run = shutil.copytree(detector, tmp_path / "run")
    done = works(cli("--test-onnx --exp", run, "--test-data", tmp_path / "tiny"))
    assert "| tiny" in done.stdout and "onnx" in done.stdout


def test_composites_depend_on_the_sizes_of_crop_and_faces_only(faces):
    recipe = {"pasted": 6, "touching": 0.9, "parts": 0.5, "seed": 1, "noise": 1.0, "roll_prob": 1.0}
    one, two, large = (
        composites([split_of(faces, "test")], settings("detect", input_size=128, **more))
        for more in ({}, recipe, {"face_sides": [60.0, 90.0]})
    )
    for picture, same in zip(one, two, strict=True):
        assert (picture.boxes == same.boxes).all() and (picture.image == same.image).all()
    assert any(picture.boxes.tolist() != other.boxes.tolist() for picture, other in zip(one, large, strict=True))


def test_photographs_without_a_face_are_not_trained_on(cli, tmp_path):
    face, ignored = [8, 8, 40, 40, 0, 0, 0, 0, 0, 0], [8, 8, 40, 40, 0, 0, 0, 1, 0, 0]
    write_wider(tmp_path / "none", "train", {f"0--event/{number}.jpg": [ignored] * (number % 2) for number in range(8)})
    write_wider(tmp_path / "none", "val", {"0--event/9.jpg": [face]})
    done = cli("--task detect --train --train-data", tmp_path / "none", "--run-root", tmp_path / "runs", *SMALL)
    fails(done, "none.*face")


def test_an_event_may_have_the_name_of_its_set():
    nothing, box = np.zeros(1, bool), np.array([[0.0, 0.0, 40.0, 40.0]])
    pictures = [Picture(Path("x.jpg"), event, box, nothing, nothing) for event in ("faces", "faces", "others")]
    found = [(box, np.array([0.9])), (np.zeros((0, 4)), np.zeros(0)), (box, np.array([0.8]))]
    table = [(row[0], row[3], row[5]) for row in score_rows(Scaled("faces", pictures, 1.0, True), "torch", found)]
    assert table == [("faces", "3", "0.667"), ("  faces", "2", "0.500"), ("  others", "1", "1.000")]


def test_prepare_makes_the_test_sets_too(cli, raw, data_root, tmp_path):
    other = write_faces(tmp_path / "other" / "test", 2).parent
    places = ("--train-data", raw, "--data-root", tmp_path / "data", "--target-size", 64)
    flags = ("--task", "detect", "--prepare", *places)
    works(cli(*flags, "--test-data", other))
    assert all(len(list((tmp_path / "data").glob(f"{name}-*/meta.yaml"))) == 1 for name in ("drawn", "other"))
    fails(cli(*flags, "--test-data", tmp_path / "nothing"), "nothing")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--partial-events", "9--none"], "names 9--none; the events of the photographs are 0--event, 1--event"),
        (["--teacher", "gone.pth"], "no checkpoint at gone.pth"),
    ],
)
def test_wrong_data_is_one_line(wider, more, message):
    flags = ["--task", "detect", "--train-data", str(wider), "--partial-events", "1--event", "--crops", "16", *more]
    chosen = settings("detect", **typed(*flags).given)
    refuses(message, lambda: detector_experiment(prepare(sets_of(chosen), ONE, True, False)).net(False))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--face-sides", "40", "12"], "face_sides must be the least and the largest"),
        (["--scales", "0"], "scales must be factors"),
        (["--sweep", "reg=1,2"], "--sweep compares landmark nets"),
        (["--sweep", "preset=quick,detect"], "--sweep compares"),
    ],
)
def test_wrong_flags_are_one_line(more, message):
    refuses(message, main.main, ["--task", "detect", "--train", *more])


def test_nets_of_another_task_are_refused(cli, detector, trained, tmp_path):
    fails(cli("--test --exp", detector, "--task landmarks"), "--task")
    fails(cli("--predict", tmp_path, "--exp", detector), "--predict")
    fails(cli("--test-formats tflite --exp", detector), "--test-formats: the tflite file .* is not tested")
    refuses("FaceBoxesV2", weights_of, trained.folder / "best.pt")


def test_crowds_alone_calibrate_a_detector(wider):
    chosen = settings("detect")
    pictures = list(calibration(PictureSets(sets_of(chosen), [wider], [], {}, ONE)))
    assert pictures and all(picture.ndim == 3 and picture.dtype == np.uint8 for picture in pictures)
