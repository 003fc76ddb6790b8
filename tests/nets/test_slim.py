"""Slim: with the published weights the outputs equal the published ones."""

import cv2
import numpy as np
import pytest
import torch
from conftest import DEFAULTS, LAYOUTS, mean_face, settings

from nets.backbones.slim import Means, Slim
from nets.heads.coordinate import CoordinateMaps
from nets.labels import Labels
from pipnet.geometry import Protocol, crop_box
from pipnet.pose import head_pose
from utils.train import initialise
from utils.train.make_net import make_net


@pytest.mark.parametrize("face", range(8))
def test_published_crops(reference, face):
    with np.load(reference / "slim.npz") as stored:
        height, width = cv2.imdecode(stored[f"i{face}_file_bytes"], cv2.IMREAD_COLOR).shape[:2]
        for name, kind in (("slim", ""), ("slim_demo", "onnx_")):
            crop = crop_box(stored[f"i{face}_bbox"], Protocol(**DEFAULTS.protocols[name]), width, height)
            high, wide, top, left = stored[f"i{face}_{kind}detail_hwyx"]
            assert crop.tolist() == [left, top, left + wide, top + high]


@pytest.mark.parametrize("face", range(8))
def test_published_outputs(reference, face):
    state = torch.load(reference / "slim_160_latest.pth", map_location="cpu", weights_only=True)
    net, last = Slim().eval(), torch.nn.Linear(448, 143)
    last.load_state_dict({part: state.pop(f"fc.{part}") for part in ("weight", "bias")})
    net.load_state_dict(state)
    assert sum(p.numel() for module in (net, last) for p in module.parameters()) == 234415
    with np.load(reference / "slim.npz") as stored, torch.inference_mode():
        found = last(Means()(net(torch.from_numpy(stored[f"i{face}_input"]))).flatten(1))
        assert np.abs(found.numpy() - stored[f"i{face}_raw143"]).max() < 1e-4


def test_the_published_file_starts_the_preset(reference):
    """The whole net gives the published landmarks, pose and states on uint8 crops, with any mean face."""
    chosen, layout = settings("slim"), LAYOUTS.load("68")
    net = make_net(chosen.net, chosen.loss, layout, mean_face()).eval()
    trained_on = mean_face() + 0.1  # the net's own mean face was given by --meanface
    started = initialise.start_from(net, reference / "slim_160_latest.pth", layout, trained_on, pytest.fail, DEFAULTS)
    assert {what for _, _, what in started.rows} == {"loaded"}
    with np.load(reference / "slim.npz") as stored, torch.inference_mode():
        found = net.predict(torch.from_numpy(np.stack([stored[f"i{face}_crop_bgr"] for face in range(8)])))
        raw = torch.from_numpy(np.concatenate([stored[f"i{face}_raw143"] for face in range(8)]))
    assert torch.allclose(found.landmarks.flatten(1), raw[:, :136], atol=1e-4)
    assert torch.allclose(found.pose, raw[:, 136:139] * torch.tensor([-1, 1, 1]) * torch.pi / 2, atol=1e-4)
    assert torch.allclose(found.states, raw[:, 139:].sigmoid(), atol=1e-4)
    peppa = [head_pose(160 * points, layout, 160, 160) for points in found.landmarks.numpy()]
    assert np.abs(np.degrees(found.pose.numpy()) - peppa).mean() < 2  # its convention, not that of our labels


def test_preset_slim_weighs_landmarks_as_slim():
    """Twice the mean of Wing over all coordinates."""
    chosen = settings("slim")
    net = make_net(chosen.net, chosen.loss, LAYOUTS.load("68"), mean_face())
    truth, found = torch.rand(3, 68, 2), torch.rand(3, 68, 2)
    labels = Labels.pack(truth)
    term = (
        net.head.loss(CoordinateMaps(found), net.head.encode(labels, (5, 5)))["coordinate"]
        / net.denominators(labels)["coordinate"]
    )
    wing = 10 * torch.log1p((found - truth).abs() / 2)
    assert float(chosen.loss.reg * term) == pytest.approx(float(2 * wing.mean()), rel=1e-5)
