"""The PIP head: decode inverts encode, and targets, losses and outputs equal the published ones."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from ideal import ideal

from nets.heads.pip import PIPHead, PIPMaps, nearest_neighbors, voters
from nets.labels import Labels, Prediction
from nets.losses import ERROR_FORMS, laplace_loss


def make(neighbor_index: list[list[int]], **options) -> PIPHead:
    return PIPHead(8, {"neighbor_index": neighbor_index}, **options)


def head_for(count: int, num_nb: int, seed: int = 0) -> PIPHead:
    meanface = np.random.default_rng(seed).random((count, 2))
    return make(nearest_neighbors(meanface, num_nb))


def random_labels(batch: int, count: int, seed: int = 0, low: float = 0.0, high: float = 0.999) -> Labels:
    landmarks = np.random.default_rng(seed).uniform(low, high, (batch, count, 2))
    return Labels.pack(torch.tensor(landmarks, dtype=torch.float32))


@settings(max_examples=100)
@given(
    st.integers(0, 2**31),
    st.sampled_from((5, 12, 19, 29, 68, 98, 106)),
    st.sampled_from((0, 1, 2, 5, 10, 200)),
    st.integers(1, 32),
    st.integers(1, 32),
)
def test_decode_inverts_encode_on_any_grid_and_for_landmarks_outside(seed, count, num_nb, height, width):
    head, labels = head_for(count, min(num_nb, count - 1)), random_labels(3, count, seed, -2.0, 3.0)
    decoded = head.decode(ideal(head, labels, (height, width)))
    assert (decoded.landmarks - labels.landmarks).abs().max() < 1e-5
    assert torch.equal(decoded.score, torch.ones(3, count))


@pytest.mark.parametrize("num_nb", (-1, 12, 40))
def test_too_many_neighbors(num_nb):
    with pytest.raises(ValueError, match="num_nb.*11"):
        nearest_neighbors(np.random.rand(12, 2), num_nb)


def test_landmark_nobody_predicts_keeps_its_own_value():
    line = np.array([[0, 0], [1, 0], [1.9, 0], [100, 0]])
    index = nearest_neighbors(line, 1)
    assert voters(index)[3] == []
    head, labels = make(index), random_labels(2, 4)
    decoded = head.decode(ideal(head, labels, (8, 8))).landmarks
    assert torch.allclose(decoded, labels.landmarks, atol=1e-5)


class Mirror:
    flip_index = (1, 0, 2, 4, 3)


def test_flip_is_its_own_inverse():
    states = torch.tensor([[1, 0, np.nan, 1]] * 3)
    labels = Labels.pack(torch.rand(3, 5, 2), torch.rand(3, 5), torch.randn(3, 3), states, torch.arange(3))
    once, twice = labels.flip(Mirror), labels.flip(Mirror).flip(Mirror)
    assert torch.allclose(once.landmarks[:, 3, 0], 1 - labels.landmarks[:, 4, 0])
    assert torch.equal(once.weight[:, 0], labels.weight[:, 1]) and torch.equal(once.level, labels.level)
    assert torch.equal(once.pose, labels.pose * torch.tensor([1, -1, -1])) and torch.equal(
        once.states[:, 0], labels.states[:, 1]
    )
    assert torch.equal(once.states_weight, torch.tensor([[1.0, 1, 0, 1]] * 3)) and twice.form == labels.form
    assert torch.allclose(twice.packed, labels.packed)
    prediction = Prediction(labels.landmarks, torch.rand(3, 5))
    assert torch.allclose(prediction.flip(Mirror).flip(Mirror).landmarks, prediction.landmarks)
    assert prediction.select([2, 0]).score.shape == (3, 2)


def test_warp_moves_landmarks():
    matrix = torch.tensor([[[2.0, 0, 1], [0, 3, -1]]]).expand(2, 2, 3)
    moved = Labels.pack(torch.ones(2, 4, 2)).warp(matrix).landmarks
    assert torch.equal(moved, torch.tensor([3.0, 2.0]).expand(2, 4, 2))


@pytest.mark.parametrize("name", ("300w", "wflw", "cofw", "aflw", "lapa"))
def test_published_neighbors(reference, name):
    stored = np.load(reference / "pip_core.npz")
    index = nearest_neighbors(np.loadtxt(reference / "meanface" / f"{name}.txt"), 10)
    assert np.array_equal(index, stored[f"{name}_neighbor_index"])
    longest = stored[f"{name}_reverse_landmark"].shape[1]
    for landmark, votes in enumerate(voters(index)):
        padded = [votes[i % len(votes)] for i in range(longest)]
        published = (stored[f"{name}_reverse_{part}"][landmark] for part in ("landmark", "slot"))
        assert padded == list(zip(*published, strict=True))


@pytest.mark.parametrize("name", ("300w", "wflw"))
def test_published_targets_loss_and_merge(reference, name):
    stored = np.load(reference / "pip_core.npz")
    head = make(nearest_neighbors(np.loadtxt(reference / "meanface" / f"{name}.txt"), 10))
    maps = PIPMaps(*(torch.from_numpy(stored[f"{name}_maps_{part}"]) for part in PIPMaps._fields[:5]))
    decoded = head.decode(maps)
    assert np.abs(decoded.landmarks.numpy() - stored[f"{name}_decoded"]).max() < 1e-6
    assert np.abs(decoded.score.numpy() - stored[f"{name}_decoded_score"].clip(0, 1)).max() < 1e-6
    labels = Labels.pack(torch.from_numpy(stored[f"{name}_target_landmarks"]))
    targets = head.encode(labels, (8, 8))
    assert np.array_equal(targets.cell.numpy(), stored[f"{name}_target_cell"])
    counts = head.denominators(labels, (8, 8))
    terms = [float(total / counts[term]) for term, total in head.loss(maps, targets).items()]
    assert terms == pytest.approx(stored[f"{name}_loss_terms"].tolist(), rel=1e-5)


@pytest.mark.parametrize("form, published", [("l1", F.l1_loss), ("l2", F.mse_loss)])
def test_forms_of_the_score_loss(form, published):
    """The loss is the mean over all cells of known landmarks, on each level."""
    head = make(nearest_neighbors(np.random.default_rng(0).random((5, 2)), 2), cls_error=form)
    head.levels = 2
    maps = 2 * torch.rand(3, 5, 8, 8) - 0.5
    coarse, level = F.avg_pool2d(maps, 2), torch.tensor([0, 1, 0])
    labels = Labels.pack(random_labels(3, 5).landmarks, torch.arange(5).expand(3, 5) != 2, level=level)
    neighbors = [torch.zeros(3, count, 8, 8) for count in (5, 5, 10, 10)]
    targets = head.encode(labels, (8, 8))
    found = head.loss(PIPMaps(maps, *neighbors, coarser=(coarse,)), targets)["score"]
    wanted = 0
    for stage, values, cells in ((0, maps, 8), (1, coarse, 4)):
        for face in (level == stage).nonzero().flatten():
            for landmark in (0, 1, 3, 4):
                x, y = (labels.landmarks[face, landmark] * cells).int().tolist()
                ones = torch.zeros(cells, cells)
                ones[y, x] = 1
                wanted += published(values[face, landmark], ones, reduction="sum") / 64
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


# ----------------------------------------------------------------------------------------------------- beyond the paper
@settings(max_examples=30)
@given(st.sampled_from(sorted(ERROR_FORMS)), st.floats(0, 2.5), st.floats(1e-4, 1e-2))
def test_forms_of_the_error_grow_steadily(form, error, step):
    function = ERROR_FORMS[form]
    low, high = (float(function(torch.tensor(value, dtype=torch.float64))) for value in (error, error + step))
    assert 0 <= low <= high <= low + 6 * step  # no jump where the pieces meet
    assert float(function(torch.zeros(()))) == 0


def test_wing_is_that_of_slim():
    """On errors in [0, 1] of the crop, which are eight times as large in our unit; with w 10, epsilon 2, and beyond w
    too.
    """
    share = torch.tensor([0, 0.001, 0.1, 0.7, 1, 9.9, 10.1, 30], dtype=torch.float64)
    wanted = [10 * math.log(1 + x / 2) if x < 10 else x - (10 - 10 * math.log(1 + 10 / 2)) for x in share.tolist()]
    assert ERROR_FORMS["wing"](8 * share).tolist() == pytest.approx(wanted, rel=1e-12)


def test_the_loss_of_expected_errors_by_hand():
    """Each likelihood is multiplied by its scale, which is a constant: the gradient is weight * (scale - mean error)."""
    errors = torch.tensor([[1.0, 3], [4, 4]], requires_grad=True)
    log_scale = torch.tensor([math.log(2), 0], requires_grad=True)
    loss = laplace_loss(torch.tensor([2.0, 0.5]), errors, log_scale)
    loss.backward()
    assert loss.item() == pytest.approx(2 * 2 * (2 / 2 + math.log(2)) + 0.5 * 4)
    assert log_scale.grad.tolist() == pytest.approx([2 * (2 - 2), 0.5 * (1 - 4)]) and errors.grad is None


def test_expected_errors_weigh_the_merge():
    index = nearest_neighbors(np.random.default_rng(0).random((12, 2)), 3)
    head, plain = make(index, sigma=True), make(index)
    labels = random_labels(2, 12)
    maps = ideal(head, labels, (8, 8))
    assert (head.decode(maps).landmarks - labels.landmarks).abs().max() * 8 < 1e-4
    alike = maps._replace(neighbor_x=maps.neighbor_x + torch.randn_like(maps.neighbor_x))
    plainly = plain.decode(alike._replace(log_scale=None)).landmarks
    assert torch.allclose(head.decode(alike).landmarks, plainly, atol=1e-6)  # equal weights: plain mean
    log_scale = alike.log_scale.reshape(2, 12, 4, 8, 8).clone()
    log_scale[:, :, 1:] = 4.0  # the neighbors, which are wrong, predict large errors
    trusted = head.decode(alike._replace(log_scale=log_scale.reshape(2, 48, 8, 8)))
    assert (trusted.landmarks - labels.landmarks).abs().max() < 0.05 * (plainly - labels.landmarks).abs().max()
    assert trusted.sigma.shape == (2, 12) and torch.isfinite(trusted.sigma).all()


def test_calibration_scales_sigma_alone():
    head = make(nearest_neighbors(np.random.default_rng(0).random((12, 2)), 3), sigma=True).eval()
    for conv in head.children():
        torch.nn.init.normal_(conv.weight, std=0.1)
    features = torch.randn(2, 8, 8, 8)
    before = head.decode(head(features))
    state = head.calibrated({f"head.{name}": tensor for name, tensor in head.state_dict().items()}, 1.25)
    head.load_state_dict({name.removeprefix("head."): tensor for name, tensor in state.items()})
    after = head.decode(head(features))
    assert torch.allclose(after.landmarks, before.landmarks, atol=1e-5) and torch.equal(after.score, before.score)
    assert torch.allclose(after.sigma, 1.25 * before.sigma, rtol=1e-2)
