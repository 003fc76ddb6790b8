"""Points of an own layout behind a net that stays as it is: `--freeze landmarks`, the presets few-shot and finetune."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import LAYOUTS, fails, mean_face, refuses, rows, settings, trained_once, works
from hypothesis import given
from hypothesis import strategies as st
from small_nets import net_of

from pipnet.landmark_net import open_net
from utils.settings.layouts import Layouts
from utils.task.own_points import fit_means, net_with_points
from utils.train import checkpoint, weight_files

THERE = LAYOUTS.load("68")
OWN = Layouts({"own": {"count": 3, "flip_index": [1, 0, 2], "interocular": [0, 1]}}).load("own")
MEANS = np.zeros((3, 68))  # the centres of the eyes, the middle between nose and chin
MEANS[0, 36:42] = MEANS[1, 42:48] = 1 / 6
MEANS[2, [30, 8]] = 0.5


def seen_faces(count: int, seed: int) -> np.ndarray:
    """Return landmarks (count, 68, 2) in px of turned faces of several shapes, about 100 px wide."""
    rng = np.random.default_rng(seed)
    angles, sizes = rng.uniform(-0.5, 0.5, count), rng.uniform(80, 200, count)
    turns = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]).transpose(2, 0, 1)
    shapes = (mean_face() - 0.5) * rng.uniform(0.9, 1.1, (count, 1, 2)) + rng.normal(0, 0.01, (count, 68, 2))
    return np.einsum("mab,mnb->mna", turns * sizes[:, None, None], shapes) + 128


def missed(weight: np.ndarray, found: np.ndarray) -> float:
    """Return the mean distance from MEANS of what the weights give, in face sizes."""
    sizes = np.sqrt(np.ptp(found, axis=1).prod(1))
    return float((np.linalg.norm((weight - MEANS) @ found, axis=-1).mean(1) / sizes).mean())


@given(st.integers(0, 10**6))
def test_means_are_found_from_few_faces(seed):
    """Better than the nearest landmark, wherever a face lies and however it is turned; a wrong label changes little."""
    found, others = seen_faces(16, seed), seen_faces(50, seed + 1)
    rng = np.random.default_rng(seed)
    labels = MEANS @ found + rng.normal(0, 0.5, (16, 3, 2))
    fit = fit_means(labels, found, OWN, THERE)
    np.testing.assert_allclose(fit.weight.sum(1), 1, atol=1e-9)
    only_nearest = np.eye(68)[fit.nearest]
    assert missed(fit.weight, others) < 0.02 < missed(only_nearest, others)
    assert fit.error.max() < 0.05
    labels[3, 2] += 60
    labels[5, 0] = np.nan
    assert missed(fit_means(labels, found, OWN, THERE).weight, others) < 0.03


def test_a_point_that_too_few_faces_label_is_named():
    found = seen_faces(8, 0)
    labels = MEANS @ found
    labels[2:, 1] = np.nan
    refuses("layout 'own': 2 training faces label 1,", fit_means, labels, found, OWN, THERE)


@pytest.fixture(scope="module")
def few(trained, raw, data_root, shared, tmp_path_factory):
    """A run of the preset few-shot on the faces that `trained` has learnt, tested and exported; their points have other names."""
    file = tmp_path_factory.mktemp("layout") / "mine.yaml"
    file.write_text(
        yaml.safe_dump({"mine": {"count": 68, "flip_index": list(THERE.flip_index), "interocular": [36, 45]}})
    )
    places = ("--train-data", raw, "--data-root", data_root, "--weights", trained.folder / "best.pt")
    words = f"--preset few-shot --layout {file} --thresholds 50 --threads 1".split()
    found = trained_once(shared / "few", *places, *words)
    found.places = places
    return found


def predicted(folder: Path, images: np.ndarray) -> dict:
    return checkpoint.unpack(folder / "best.pt")[0].eval().predict(torch.from_numpy(images))._asdict()


def test_the_landmarks_stay_as_they_are(few, trained):
    """Nothing is trained; the points are means of the old landmarks, in torch and in the exported file."""
    assert "no epochs" in few.done.stderr and not (few.folder / "last.pt").exists()
    before, after = (checkpoint.load(one.folder / "best.pt") for one in (trained, few))
    for name, tensor in before["model"].items():
        assert torch.equal(after["model"][name], tensor), name
    images = np.random.default_rng(0).integers(0, 256, (3, *[after["net"]["input_size"]] * 2, 3), np.uint8)
    whole, part = (open_net(one.folder / "best.onnx", 1).predict(images) for one in (trained, few))
    np.testing.assert_allclose(
        part["landmarks"], after["model"]["points.weight"].numpy() @ whole["landmarks"], atol=1e-5
    )
    np.testing.assert_array_equal(part["score"], whole["score"][:, after["model"]["points.nearest"].numpy()])
    assert "what 000/best.pt was trained on" in (few.folder / "card.md").read_text()
    scores = rows(few.folder / "report" / "scores.csv")
    assert {row["model"] for row in scores} == {"torch", "onnx"} and len({row["NME %"] for row in scores}) == 1
    (known,) = (row for row in rows(trained.folder / "report" / "scores.csv") if row["model"] == "torch")
    assert float(scores[0]["NME %"]) < 1.1 * float(known["NME %"])


def test_landmarks_that_the_net_has_are_chosen(few, trained, cli, tmp_path):
    """To the bit, where an output beside them is all that is trained."""
    flags = "--train --preset few-shot --layout 12 --face 1 --exp eyes --run-root"
    assert "weighted mean" not in works(cli(flags, tmp_path, *few.places)).stderr
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    whole, eyes = predicted(trained.folder, images), predicted(tmp_path / "eyes", images)
    for name in ("landmarks", "score"):
        assert torch.equal(eyes[name], whole[name][:, 36:48]), name


def test_points_are_learnt_behind_the_net(few, trained, cli, tmp_path):
    """Epochs make them better, change nothing else, and can be resumed."""
    flags = "--train --preset few-shot --epochs 3 --epoch-steps 20 --learning-rate 0.003 --exp learnt --run-root"
    given = [one for one in few.flags[: few.flags.index("--run-root")] if one not in ("--preset", "few-shot")]
    works(cli(flags, tmp_path, *given))
    before, after = (checkpoint.load(folder / "best.pt") for folder in (trained.folder, tmp_path / "learnt"))
    for name, tensor in before["model"].items():
        assert torch.equal(after["model"][name], tensor), name
    errors = [float(row["points"]) for row in rows(tmp_path / "learnt" / "step.csv")]
    assert errors[-1] < 0.95 * errors[0] and after["model"]["points.move"].any()
    works(cli("--train --resume --epochs 4 --exp", tmp_path / "learnt"))


def test_a_trained_run_does_not_need_the_net_that_it_started_from(few, trained, cli, tmp_path):
    """Its 8-bit file is calibrated with training faces, and their crops stay as they are."""
    start = shutil.copy(trained.folder / "best.pt", tmp_path / "start.pt")
    flags = "--train --preset few-shot --layout 12 --thresholds 50 --exp eyes --run-root"
    works(cli(flags, tmp_path, *few.places[:4], "--weights", start))
    (tmp_path / "start.pt").unlink()
    works(cli("--export int8 --run-root", tmp_path, *few.places[2:4], "--exp", tmp_path / "eyes"))


def test_a_net_without_a_refiner_learns_no_points(monkeypatch):
    known = {"net": {**net_of().spec, "refine": False}, "layout": THERE.to_dict()}
    monkeypatch.setattr(weight_files, "_load_one", lambda file: ({}, known))
    keys = {key: known["net"][key] for key in ("net", "head", "input_size")}
    given = OWN, settings(**keys, epochs=1), None, "net.pt", None, False
    refuses("net.pt has no refiner.*--freeze backbone", net_with_points, *given)
    refuses("input_size.*--input-size", net_with_points, OWN, settings(**{**keys, "input_size": 320}), *given[2:])


def test_what_such_a_net_cannot_do(few, cli, tmp_path):
    start = ["--train --layout 12 --exp other", *few.places, "--run-root", tmp_path]
    fails(cli(*start, "--preset finetune", "--weights", few.folder / "best.pt"), "best.pt has points that were fitted")
    fails(
        cli(*start, "--preset few-shot --semi mean-teacher --ema 0.9 --unlabelled", few.places[1]), "--epochs 0.*--semi"
    )
    fails(cli("--train --resume --exp", few.folder), "no last.pt to resume")
