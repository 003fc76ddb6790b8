"""Slim: the published weights give the published outputs."""
import numpy as np
import pytest
import torch

from nets.slim import Means, Slim


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
