"""Every head: decode inverts encode, unknown landmarks train nothing, a head learns faces and completes a whole run."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from conftest import LAYOUTS, NET, mean_face, refuses, sets_of, settings, slow, spoilt, typed, works
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from ideal import ideal
from overfitting import overfit

from extras.heads.heatmap import HeatmapHead
from nets import Labels, NetOptions
from nets.heads.coordinate import CoordinateMaps
from nets.heads.pip import nearest_neighbors
from nets.heads.remap import Origins
from utils.data.paths import with_absolute_paths
from utils.data.sets import meanface, read_meanface
from utils.train import checkpoint
from utils.train.make_net import new_net

FACE = mean_face()[30:42]
KINDS = [
    ("pip", {}),
    ("pip", {"sigma": True}),
    ("coordinate", {}),
    ("coordinate", {"sigma": True}),
    ("coordinate", {"pool": "depthwise", "excite": True, "error": "l2"}),
    ("parts", {"error": "l2"}),
    ("heatmap", {}),
    ("heatmap", {"score_width": 2.0}),
    ("simcc", {}),
    ("simcc", {"score_width": 1.0}),
]
# {head: (steps, options)}; stride 8 takes a quarter of the time of stride 4, and a narrow target is learnt sooner
STEPS = {
    "pip": (100, {}),
    "coordinate": (80, {}),
    "parts": (80, {}),
    "simcc": (150, {}),
    "heatmap": (160, {"stride": 8, "score_width": 1.0}),
}
named = pytest.mark.parametrize(
    ("head", "options"), KINDS, ids=lambda part: part if isinstance(part, str) else "-".join(part)
)


def make(head: str, options: dict, size: int = 64, face: np.ndarray = FACE) -> torch.nn.Module:
    torch.manual_seed(0)
    return new_net(NetOptions(NET, head, None, size, num_nb=3, head_options=options), face)


@cache
def made(head: str, options: tuple) -> list[torch.nn.Module]:
    return [make(head, dict(options), size) for size in (64, 128)]


@named
@trials(max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_decode_inverts_encode(head, options, seed):
    net = made(head, tuple(options.items()))[seed % 2]
    landmarks = torch.tensor(np.random.default_rng(seed).uniform(0, 1, (3, 12, 2)), dtype=torch.float32)
    decoded = net.head.decode(ideal(net.head, Labels.pack(landmarks), net.grid))
    assert (decoded.landmarks - landmarks).abs().max() < 1e-4
    assert decoded.score.shape == (3, 12) and (decoded.score >= 0.5).all() and (decoded.score <= 1).all()


@named
def test_unknown_landmarks_teach_nothing(head, options):
    """A landmark that is NaN or of weight 0 changes neither losses nor counts, and NaN reaches no gradient."""
    net, landmarks = make(head, options).eval(), torch.rand(4, 12, 2)
    images, known = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8), torch.arange(12).expand(4, 12) != 7
    lost = landmarks.clone()
    lost[:, 7] = float("nan")
    found = []
    for part in (
        Labels.pack(lost),
        Labels.pack(landmarks, known),
        Labels.pack(landmarks.numpy(), known.float().numpy()),
    ):
        net.zero_grad()
        sums, counts = net.loss(images, part), net.denominators(part)
        assert sums.keys() == counts.keys() <= net.terms.keys()
        sum(total / counts[name] for name, total in sums.items()).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
        found.append([(sums[name] / counts[name]).item() for name in sums])
    assert found[0] == pytest.approx(found[1]) and found[0] == pytest.approx(found[2])
    nothing = Labels.pack(torch.full((4, 12, 2), float("nan")))
    assert not any((*net.loss(images, nothing).values(), *net.denominators(nothing).values()))


def test_the_coordinate_head_by_hand():
    """Errors and their scales are in eighths of the crop; sigma is in units of the crop."""
    head, place = make("coordinate", {"sigma": True}).head, torch.full((1, 12, 2), 0.5)
    maps = CoordinateMaps(place + torch.tensor([0.25, 0.125]), torch.full((1, 12), math.log(3)))
    terms = head.loss(maps, head.encode(Labels.pack(place), (2, 2)))
    assert terms["coordinate"].item() == pytest.approx(12 * (2 + 1))
    assert terms["log_scale"].item() == pytest.approx(12 * 3 * (1.5 / 3 + math.log(3)))
    assert torch.allclose(head.decode(maps).sigma, torch.tensor(3 / 8))


@pytest.mark.parametrize("head", ("heatmap", "simcc"))
def test_what_a_map_cannot_show_is_not_trained(head):
    net = make(head, {})
    landmarks = torch.full((1, 12, 2), 0.5)
    landmarks[0, :3] = torch.tensor([[-0.2, 0.5], [0.5, 1.2], [1.01, 0.5]])
    assert float(net.denominators(Labels.pack(landmarks))["score"]) == 10


@pytest.mark.parametrize("autocast", (False, True))
@pytest.mark.parametrize("size", ((8, 8), (4, 6)))
def test_gaussian_targets_equal_the_dense_ones(size, autocast):
    torch.manual_seed(0)
    head = HeatmapHead(8, {"meanface": FACE, "input_size": 64, "stride": 8}, score_width=0.8)
    labels, maps = Labels.pack(torch.rand(4, 12, 2)), torch.randn(4, 12, *size)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        total = head.loss(maps, head.encode(labels, size))["score"]
    centre = labels.landmarks * torch.tensor([size[1], size[0]])
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    squared = (x - centre[..., 0, None, None]) ** 2 + (y - centre[..., 1, None, None]) ** 2
    dense = (maps - torch.exp(-squared / (2 * 0.8**2))).square() / (torch.pi * 0.8**2)
    assert total.item() == pytest.approx(dense.sum().item(), rel=1e-5)


@pytest.mark.parametrize("head", ("pip", "coordinate", *slow("parts", "heatmap", "simcc")))
def test_a_head_overfits_sixteen_faces(head):
    """Overfit 16 faces with the smallest net of every head."""
    steps, options = STEPS[head]
    start, nme, _ = overfit(NET, head, 64, steps, **options)
    assert nme < 2.5 < 10 < start


@pytest.mark.parametrize(
    "flags",
    [
        ("--head", "coordinate", "--pool", "depthwise", "--excite", "--input-size", "56"),
        *slow((("--head", "heatmap"),), (("--head", "simcc"),)),
    ],
    ids=lambda flags: flags[1],
)
def test_a_head_is_a_whole_run(cli, recipe, tmp_path, flags):
    """Train, test, export; with one head also resume, and start a net for other landmarks, which all heads share."""
    done = works(cli("--train --test --test-onnx", *recipe, *flags))
    if flags[1] != "coordinate":
        return
    done = works(cli("--train --resume --run-root", tmp_path / "runs", "--epochs 2 --threads 1"))
    assert "epoch 2/2" in done.stderr
    recipe[recipe.index("none")] = tmp_path / "runs" / "000" / "best.pt"
    done = works(cli("--train", *recipe, *flags, "--layout 12"))
    assert "12 of 12 landmarks mapped" in done.stderr


def test_eyes_alone_with_the_neighbors_of_another_mean_face(cli, recipe, faces, tmp_path, monkeypatch):
    """With the preset `drowsiness`; the mean face of a prepared set or of a file determines the neighbors."""
    numbers = np.loadtxt(faces / "meanface.txt").reshape(-1, 2)
    moved = numbers[36:48] * [0.01, 1]
    (tmp_path / "mine.txt").write_text(" ".join(map(str, moved.ravel())))
    done = works(cli("--train", *recipe, "--preset drowsiness --meanface", tmp_path / "mine.txt"))
    assert "12 landmarks" in done.stderr
    found = checkpoint.load(tmp_path / "runs" / "000" / "best.pt")["net"]["neighbor_index"]
    assert found == nearest_neighbors(moved, 5) != nearest_neighbors(numbers[36:48], 5)
    claims = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}".ljust(117) + b"\n"
    for data in (b"\x93NUMPY\x01\0\x08\0{'shape'", b"PK\x03\x04", b"\x93NUMPY\x01\0\x76\0" + claims):
        spoilt(tmp_path / "bad.npy", data, "bad.npy", read_meanface, tmp_path / "bad.npy")
    # a run must find it from any folder
    monkeypatch.chdir(tmp_path)
    assert with_absolute_paths(typed("--meanface mine.txt")).given["meanface"] == str(tmp_path / "mine.txt")
    (tmp_path / "px.txt").write_text("30 40 " * 68)
    sets = sets_of(settings())
    assert np.array_equal(meanface(sets, str(faces), LAYOUTS.load("12"), None), numbers[36:48])
    for name, message in (("mine.txt", "mine.txt.*12"), ("px.txt", "px.txt.*40"), ("none.txt", "none.txt")):
        refuses(message, meanface, sets, str(tmp_path / name), LAYOUTS.load("68"), None)


@pytest.mark.parametrize(("head", "options"), [("coordinate", {"sigma": True}), ("heatmap", {}), ("simcc", {})])
def test_a_head_for_other_landmarks_says_what_its_sources_said(head, options):
    old, chosen = make(head, options).eval(), [7, 2, 2, 11]
    new = make(head, options, face=FACE[chosen]).eval()
    for name, tensor in old.head.state_dict().items():
        if name.split(".")[0] in old.head.rows:
            torch.nn.init.normal_(tensor, std=0.1)
    sources = Origins(chosen, FACE[chosen])
    state = {
        name.removeprefix("head."): tensor for name, tensor in old.state_dict().items() if name.startswith("head.")
    }
    new.load_state_dict(
        {
            **old.state_dict(),
            **{
                f"head.{name}": tensor
                for name, tensor in old.head.remapped(state, old.spec, new.spec, sources, FACE[chosen]).items()
            },
        }
    )
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    one, two = old(images), new(images)
    if head != "simcc":  # its attention mixes landmarks
        before, after = old.head.decode(one), new.head.decode(two)
        assert torch.allclose(before.landmarks[:, chosen], after.landmarks, atol=1e-5)
        assert before.sigma is None or torch.allclose(before.sigma[:, chosen], after.sigma, rtol=1e-4)
    else:
        features = old.extract(images).coarse
        assert torch.allclose(old.head.points(features)[:, chosen], new.head.points(features), atol=1e-5)
    with pytest.raises(ValueError, match="4 landmarks"):
        old.head.remapped(state, new.spec, new.spec, sources, FACE[chosen])
