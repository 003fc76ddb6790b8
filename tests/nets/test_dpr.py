"""DPR: with the published weights every intermediate result equals the published one."""

import json

import numpy as np
import pytest
import torch
from archives import wflw_line
from conftest import DEFAULTS, formula_weights, new_settings, refuses

from extras.systems.local_parts import Place
from nets import Labels
from nets.backbones.dpr import Dense, SmallMobileNetV2
from nets.wrappers.spatial_transformer import THETA_SCALE, SpatialTransformer
from pipnet.errors import UserError
from utils.data.sets import Sets
from utils.evaluate.evaluate import evaluate, torch_predictor
from utils.task.experiment import landmark_experiment
from utils.task.task_data import TaskData, load_faces, prepare
from utils.train import checkpoint, initialise
from utils.train.ranks import Ranks

ONE = Ranks(0, 1, torch.device("cpu"))
PARTS = {
    "left_eye": [*range(33, 42), *range(60, 68), 96],
    "right_eye": [*range(42, 51), *range(68, 76), 97],
    "nose": [*range(51, 60)],
    "mouth": [*range(76, 96)],
}
OURS = {"left_eye": "eye_left", "right_eye": "eye_right"}


def published(reference, name: str) -> dict[str, torch.Tensor]:
    state = torch.load(reference / f"dpr_98_points_{name}.pth.tar", map_location="cpu", weights_only=True)["state_dict"]
    return {key.removeprefix("module."): tensor for key, tensor in state.items()}


def part_of(state: dict, prefix: str) -> dict:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


@pytest.mark.parametrize("face", range(5))
def test_every_published_intermediate(reference, face):
    stored = {key.removeprefix(f"i{face}_"): value for key, value in np.load(reference / "dpr_gsr.npz").items()}
    transformer, backbone = SpatialTransformer(), SmallMobileNetV2().eval()
    dense, last = Dense(2, 256), torch.nn.Linear(256, 196)
    transformer.load_state_dict(published(reference, "global_reinit"))
    state, local = (published(reference, name) for name in ("global_regress", "local_reinit"))
    backbone.load_state_dict({key: tensor for key, tensor in state.items() if key.startswith("features")})
    dense.layers.load_state_dict({key: tensor for key, tensor in part_of(state, "pts_net.").items() if key[0] < "4"})
    last.load_state_dict(part_of(state, "pts_net.4."))

    def agree(found: torch.Tensor, theirs: np.ndarray) -> None:
        assert np.abs(found.flatten().numpy() - theirs).max() < 1e-3

    with torch.inference_mode():
        agree(transformer(torch.from_numpy(stored["reinit_input"])) / THETA_SCALE, stored["reinit_out6"])
        features = dense(backbone(torch.from_numpy(stored["regress_input"])))
        agree(last(features[:, :, 0, 0]), stored["regress_out196"])
        for row, name in enumerate(PARTS):
            place = Place(98, np.eye(2, 3))
            place.load_state_dict(part_of(local, f"{name}_net."))
            moved = place(torch.from_numpy(stored["crop_pts256"]).float()[None]) / THETA_SCALE
            agree(moved, stored["local_reinit_out_4x6"][row])


def training(reference, root, *flags: str) -> TaskData:
    """The sets of a training on the published photographs, in the folders of WFLW, with the documented flags, then
    more.
    """
    stored, files = np.load(reference / "dpr_gsr.npz"), ("global_reinit", "global_regress", "local_reinit")
    lines = [wflw_line(stored[f"i{face}_gt"], stored[f"i{face}_rect"], [0] * 6, f"{face}.jpg") for face in range(5)]
    for face in range(5):
        file = root / f"WFLW/WFLW_images/{face}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(stored[f"i{face}_jpg_bytes"].tobytes())
    for split in ("train", "test"):
        file = root / f"WFLW/WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{split}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n")
    weights = ",".join(str(reference / f"dpr_98_points_{name}.pth.tar") for name in files)
    places = ("--data-dir", str(root / "WFLW"), "--data-root", str(root), "--weights", weights)
    words = "--dataset wflw --preset dpr --layout 98 --allow-partial --val none"
    settings = new_settings(words, *places, *flags)
    return prepare(Sets(settings, DEFAULTS), ONE, True, True)


def test_published_files_need_their_mean_face(reference, tmp_path):
    refuses("--meanface.*mean_98_face.npy", lambda: landmark_experiment(training(reference, tmp_path), ONE).net(False))


def test_published_files_start_the_preset(reference, tmp_path):
    """The documented flags make a net that gives the published landmarks, apart from resampling, and the published part
    maps.
    """
    stored = np.load(reference / "dpr_gsr.npz")
    np.save(tmp_path / "mean_98_face.npy", stored["mean_98_face"])
    task_data = training(reference, tmp_path, "--meanface", str(tmp_path / "mean_98_face.npy"))
    net, started = landmark_experiment(task_data, ONE).net(False)
    assert all(what == "loaded" or name.startswith("regressors") for name, _, what in started.rows)
    faces, published_nme = task_data.load(task_data.tested), np.mean([stored[f"i{face}_nme"] for face in range(5)])
    predict = torch_predictor(net.net, torch.device("cpu"))  # without the nets of the parts, which are not trained
    found = evaluate(predict, faces, task_data.layout, "interocular", 5)
    assert np.mean(found.nme) / 100 == pytest.approx(published_nme, abs=0.001)
    files = [reference / f"dpr_98_points_{name}.pth.tar" for name in ("global_reinit", "global_regress")]
    files.append(tmp_path / "mean_98_face.npy")
    alone, layout, _ = checkpoint.unpack(",".join(map(str, files)), DEFAULTS)  # without a training
    assert layout.name == "98" and alone.spec["input_size"] == 256
    same = evaluate(torch_predictor(alone, torch.device("cpu")), faces, layout, "interocular", 5)
    assert np.abs(same.landmarks - found.landmarks).max() < 1e-3
    for face in range(5):
        points = torch.tensor((stored[f"i{face}_crop_pts256"] + 0.5) / 256).float()[None]  # [0, 1] here, 256 px there
        for name, row in zip(PARTS, torch.tensor(stored[f"i{face}_local_reinit_out_4x6"]).view(4, 2, 3), strict=True):
            place = net.places[OURS.get(name, name)](points)
            there = torch.tensor(stored[f"i{face}_crop_pts256"]).float() @ row[:, :2].T + 128 * row[:, 2]
            assert torch.allclose(Labels.pack(points).warp(place).landmarks[0], (there + 0.5) / 128, atol=1e-3)
    with pytest.raises(UserError, match="slim.*dpr"):
        meanface = load_faces(task_data)[0].meanface()
        initialise.start_from(
            net, str(reference / "slim_160_latest.pth"), task_data.layout, meanface, pytest.fail, DEFAULTS
        )


def test_the_nets_of_the_parts_give_the_published_outputs(reference, tmp_path):
    """G&LSR from its four files: the first three are published, the fourth has formula weights."""
    stored, outputs = np.load(reference / "dpr_gsr.npz"), np.load(reference / "foreign_outputs.npz")
    names = json.loads((reference / "foreign_keys.json").read_text())["98_points_local_regress.pth.tar"]["state_dict"]
    torch.save({"state_dict": formula_weights(names)}, tmp_path / "98_points_local_regress.pth.tar")
    np.save(tmp_path / "mean_98_face.npy", stored["mean_98_face"])
    means = [stored[f"mean_part_{name}"] for name in ("leye", "reye", "nose", "mouth")]
    torch.save({"mean_parts": torch.from_numpy(np.concatenate(means))}, tmp_path / "mean_parts.pt")
    published_files = [reference / f"dpr_98_points_{name}.pth.tar" for name in ("global_reinit", "global_regress")]
    part_files = [tmp_path / "98_points_local_regress.pth.tar", reference / "dpr_98_points_local_reinit.pth.tar"]
    files = [*published_files, *part_files, tmp_path / "mean_98_face.npy"]
    refuses("join mean_parts.pt", checkpoint.unpack, ",".join(map(str, files)), DEFAULTS)
    net, layout, values = checkpoint.unpack(",".join(map(str, [*files, tmp_path / "mean_parts.pt"])), DEFAULTS)
    assert layout.name == "98" and values["system"] == "DPR"
    for part, (name, mean) in enumerate(zip(PARTS, means, strict=True)):
        ours = OURS.get(name, name)
        x = torch.sin(0.013 * torch.arange(3 * 128 * 128, dtype=torch.float64) + part).float().view(1, 3, 128, 128)
        with torch.inference_mode():
            moved = net.regressors[ours].eval()(x).view(-1, 2)
        found = 128 * (getattr(net, f"mean_{ours}") + 0.5 * moved) - 0.5  # px of 128, integer at pixel centres
        theirs = 128 * (0.5 * outputs[f"local_regress_{name}"].reshape(-1, 2) + mean)
        assert np.abs(found.numpy() - theirs).max() < 1e-3
    refuses(
        "lacks tensors of DPR .places",
        checkpoint.unpack,
        ",".join(map(str, [*published_files, part_files[0], *files[-1:], tmp_path / "mean_parts.pt"])),
        DEFAULTS,
    )
