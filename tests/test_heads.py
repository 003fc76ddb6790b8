"""Every head: what goes in through encode comes out of decode, unknown landmarks teach nothing, any of them is a whole run."""
import numpy as np
import pytest
import torch
from conftest import NET, mean_face
from hypothesis import given, settings
from hypothesis import strategies as st

from nets import Labels, build_net, make_spec

FACE = mean_face()[30:42]
KINDS = [("pip", {}), ("pip", {"sigma": True}), ("coordinate", {}), ("coordinate", {"sigma": True}),
         ("coordinate", {"pool": "depthwise", "excite": True, "error": "wing"}), ("parts", {"error": "wing"})]
named = pytest.mark.parametrize(("head", "options"), KINDS, ids=lambda part: part if isinstance(part, str) else "-".join(part))


def make(head: str, options: dict, size: int = 64, face: np.ndarray = FACE) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_net(make_spec(NET, head, None, size, face, 3, options=options))


def grid_of(net) -> tuple[int, int]:
    return (net.spec["input_size"] // net.spec["stride"],) * 2


@named
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_decode_inverts_encode(head, options, seed):
    net = make(head, options, 128) if not seed % 2 else make(head, options)
    landmarks = torch.tensor(np.random.default_rng(seed).uniform(0, 1, (3, 12, 2)), dtype=torch.float32)
    decoded = net.head.decode(net.head.ideal(net.head.encode(Labels(landmarks), grid_of(net))))
    assert (decoded.landmarks - landmarks).abs().max() < 1e-4
    assert decoded.score.shape == (3, 12) and (decoded.score >= 0.5).all() and (decoded.score <= 1).all()


@pytest.mark.parametrize("flags", [("--head", "coordinate", "--sigma", "0.5")], ids=lambda flags: flags[1])
def test_a_head_is_a_whole_run(cli, recipe, tmp_path, flags):
    """Train, resume, test, export; the landmarks of two layouts that both have start another net."""
    done = cli("--train", "--test", "--test-onnx", *recipe, *flags, "--epochs", "2")
    assert done.returncode == 0, done.stderr
    done = cli("--train", "--resume", "--run-root", tmp_path / "runs", "--epochs", "3", "--threads", "1")
    assert done.returncode == 0 and "epoch 3/3" in done.stderr, done.stderr
    recipe[recipe.index("none")] = tmp_path / "runs" / "000" / "best.pt"
    done = cli("--train", *recipe, *flags, "--layout", "12")
    assert done.returncode == 0 and "12 of 12 landmarks mapped" in done.stderr, done.stderr
