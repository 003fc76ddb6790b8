"""Re-initialisation, the local stage, pose and states: geometry, gradients, and whole runs from the command line."""

from functools import partial

import pytest
import small_nets
import torch
from conftest import rows, table, works
from small_nets import FACE, PARTS, net_of

from extras.systems.local_parts import part_alignment
from nets.heads.coordinate import CoordinateMaps
from nets.labels import Labels, Prediction, move
from nets.losses import hard_landmark_weights
from nets.registry import STATES
from nets.stages.auxiliary import counts, losses
from nets.wrappers.affine import chain, inverse, resample
from nets.wrappers.spatial_transformer import set_constant
from utils.train import checkpoint


def reinit_net(head: str = "pip", **options):
    groups = [list(range(48, 68)), list(range(48))] if head == "parts" else None
    return net_of(head, reinit=True, groups=groups, **options)


def matrices(count: int) -> torch.Tensor:
    return torch.eye(2, 3) + 0.2 * torch.randn(count, 2, 3, generator=torch.Generator().manual_seed(1))


pictures = partial(small_nets.pictures, side=80)


def test_a_map_and_its_inverse():
    matrix, points = matrices(5), torch.rand(5, 7, 2)
    there = Labels.pack(points).warp(matrix)
    assert torch.allclose(there.warp(inverse(matrix)).landmarks, points, atol=1e-5)
    other = matrices(6)[1:]
    assert torch.allclose(move(points, chain(matrix, other)), there.warp(other).landmarks, atol=1e-5)


def test_maps_keep_their_precision_under_autocast():
    matrix, points = matrices(2), torch.rand(2, 7, 2)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append((move(points, matrix), chain(matrix, matrix), resample(pictures(2), matrix, 32, 64)))
    assert all(torch.equal(one, two) and two.dtype == torch.float32 for one, two in zip(*found, strict=True))


def test_resampled_pictures_lie_where_the_map_says():
    """A dot moves as the map moves its place; the identity cuts out the nominal crop."""
    images = torch.zeros(1, 80, 80, 3, dtype=torch.uint8)
    images[0, 8 + 40, 8 + 20] = 255
    same = torch.eye(2, 3)[None]
    assert torch.allclose(resample(images, same, 64, 64), images[:, 8:-8, 8:-8].float(), atol=1e-3)
    turn = torch.tensor([[[0.9, -0.3, 0.2], [0.3, 0.9, -0.1]]])
    place = move(torch.tensor([[[20.5, 40.5]]]) / 64, turn)[0, 0] * 128
    seen = resample(images, turn, 128, 64)[0, :, :, 0]
    y, x = torch.meshgrid(torch.arange(128) + 0.5, torch.arange(128) + 0.5, indexing="ij")
    centre = torch.stack([(seen * x).sum(), (seen * y).sum()]) / seen.sum()
    assert torch.allclose(centre, place, atol=0.1)


@pytest.mark.parametrize(
    ("head", "parts", "power"),
    [("pip", None, 0.0), ("coordinate", None, 1.0), ("coordinate", PARTS, 0.5), ("parts", None, 0.0)],
)
def test_all_of_it_learns(head, parts, power):
    """Every parameter has a finite gradient other than zero, despite unknown landmarks; terms and counts agree."""
    net = reinit_net(head, local_parts=parts, hard_landmarks=power)
    with torch.no_grad():  # layers that start as constants pass no gradient on
        for name, parameter in net.named_parameters():
            name = name.replace("net.", "")
            if name.startswith(("transformer.fc_loc.2", "places", "head", "regressors")) and parameter.ndim > 1:
                parameter += 0.02 * torch.randn_like(parameter)
    landmarks = torch.tensor(FACE).float() + 0.05 * torch.randn(4, 68, 2)
    landmarks[0, 60], landmarks[1] = torch.nan, torch.nan
    labels = Labels.pack(landmarks)
    terms, counts = net.loss(pictures(4), labels), net.denominators(labels)
    assert terms.keys() == counts.keys() <= net.terms.keys()
    sum(terms.values()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        if name.replace("net.", "").startswith(("transformer", "places", "head")):
            assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("parts", [None, PARTS])
def test_every_step_of_a_map_brings_the_mean_face_nearer(parts):
    """The gradient of an untrained head through its picture is noise, and a map that follows it runs away."""
    net, labels = (
        reinit_net("coordinate", local_parts=parts),
        Labels.pack(torch.tensor(FACE).float() + 0.1 * torch.randn(4, 68, 2)),
    )
    with torch.no_grad():
        net.head.output.weight.normal_(std=10)
    found = []
    for terms in ([], ["alignment"], ["coordinate", "alignment", *["local"] * bool(parts)]):
        matrix = (
            torch.eye(2, 3) + 0.1 * torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
        ).requires_grad_()
        (net.net if parts else net).theta = lambda images, matrix=matrix: matrix
        sums = net.loss(pictures(4), labels)
        sum((sums[term] for term in terms), 0 * matrix.sum()).backward()
        found.append(matrix.grad.flatten(1))
    nothing, alignment, both = found
    assert not nothing.any() and alignment.any(1).all() and not torch.equal(alignment, both)
    assert ((both - alignment).norm(dim=1) < 0.51 * alignment.norm(dim=1)).all()


def test_the_map_of_a_part_does_not_collapse_while_the_face_is_unknown():
    """A flat map would bring all labels to the middle of the mean part, and its black crop makes gradients of 1e20."""
    net, mean = reinit_net("coordinate", local_parts=PARTS).places["mouth"], torch.tensor(FACE).float()
    ids, random = PARTS["mouth"], torch.Generator().manual_seed(0)
    part = move(mean[ids][None], net(mean[None]).detach())
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(300):
        face, labels = (mean + 0.1 * torch.randn(16, 1, 2, generator=random) for _ in range(2))
        loss = part_alignment(labels[:, ids], torch.ones(16, len(ids)), net(face), part[0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    scale = net(mean[None])[0, :, :2]
    assert (scale.diagonal() > 2).all(), "it began at 2.6"


def test_the_loss_is_of_the_outer_frame():
    """With a coordinate head, a face twice as large in the inner crop has the same error."""
    net = reinit_net("coordinate")
    labels = Labels.pack(torch.tensor(FACE).float()[None].repeat(2, 1, 1))
    found = []
    for zoom in (1.0, 2.0):
        set_constant(net.transformer.fc_loc[-1], torch.tensor([zoom, 0, 0.5 - zoom / 2, 0, zoom, 0.5 - zoom / 2]))
        with torch.no_grad():  # landmarks with an error of 0.02 in the outer crop
            wrong = move(labels.landmarks + 0.02, net.theta(pictures(2)))
            net.head.forward = lambda features, wrong=wrong: CoordinateMaps(wrong)
            found.append(float(net.loss(pictures(2), labels)["coordinate"]))
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize("head", ["heatmap", "simcc"])
def test_a_face_beside_the_crop_is_trained_where_the_inner_frame_shows_it(head):
    """Score maps cover the inner frame, which is unknown when a step counts its landmarks."""
    net, landmarks = reinit_net(head), torch.tensor(FACE).float().repeat(2, 1, 1) + torch.tensor([0.0, 1.5])
    set_constant(net.transformer.fc_loc[-1], torch.tensor([1, 0, 0, 0, 1, -1.5]))
    landmarks[0, 60] = torch.nan
    labels = Labels.pack(landmarks)
    assert int(net.denominators(labels)["score"]) == 2 * 68 - 1
    with torch.no_grad():
        assert 0.1 < float(net.loss(pictures(2), labels)["score"] / net.denominators(labels)["score"]) < 100


def test_hard_landmarks_weigh_more():
    labels = Labels.pack(torch.zeros(2, 4, 2), torch.tensor([[True] * 4, [True, True, False, True]]))
    found = torch.tensor([[1.0, 0], [2, 0], [5, 0], [0, 2]]).expand(2, 4, 2)
    weight = hard_landmark_weights(labels, found, 1.0).weight
    assert torch.allclose(weight[0], torch.tensor([0.4, 0.8, 2.0, 0.8])) and weight[1, 2] == 0
    assert torch.allclose(weight.sum(1), labels.weight.sum(1))
    assert torch.allclose(hard_landmark_weights(labels, found, 0.0).weight, labels.weight)


def test_pose_and_states_train_where_they_are_known():
    net, landmarks = reinit_net(auxiliary=("pose", "states")), torch.rand(4, 68, 2)
    images, nothing = pictures(4), Labels.pack(landmarks)
    terms, counts = net.loss(images, nothing), net.denominators(nothing)
    outputs = {"pose", *STATES}
    assert outputs < net.terms.keys() and not any(terms[term] or counts[term] for term in outputs)
    pose, states = torch.randn(4, 3), torch.ones(4, 4)
    terms = net.loss(images, Labels.pack(landmarks, pose=pose, states=states))
    assert all(torch.isfinite(terms[term]) and terms[term] > 0 for term in outputs)
    found = net.eval().predict(images)
    assert (
        found.pose.shape == (4, 3) and found.states.shape == (4, 4) and 0 < found.states.min() < found.states.max() < 1
    )


def test_losses_of_pose_and_states_by_hand():
    """The pose is compared in quarter turns, each angle the shorter way round; an unknown pose counts nothing."""
    pose, states = torch.tensor([[0.5, -0.2, 1.9]] * 2), torch.tensor([[2.0, 0, -1, 0]] * 2)
    truth = torch.tensor([[0.2, 0.1, -1.9], [torch.nan] * 3]) * torch.pi / 2
    labels = Labels.pack(torch.rand(2, 68, 2), pose=truth, states=torch.tensor([[1.0, 0, 1, 0]] * 2))
    terms = {**losses("pose", pose, labels), **losses("states", states, labels)}
    known = {**counts("pose", labels, 3), **counts("states", labels, 4)}
    assert terms["pose"].item() == pytest.approx((0.3**2 + 0.3**2 + 0.2**2) / 3, rel=1e-5) and known["pose"] == 1
    chances = [
        torch.sigmoid(out) if told else 1 - torch.sigmoid(out)
        for out, told in zip(states[0], (1, 0, 1, 0), strict=True)
    ]
    for state, chance in zip(STATES, chances, strict=True):
        assert terms[state].item() == pytest.approx(-2 * chance.log().item(), rel=1e-5) and known[state] == 2


def test_a_pose_turns_with_the_picture():
    one = Prediction(torch.rand(1, 2, 2), torch.rand(1, 2), pose=torch.tensor([[0.1, 0.2, 0.3]]))
    quarter = torch.tensor([[[0.0, -1, 1], [1, 0, 0]]])
    level = one._replace(pose=torch.tensor([[0.0, 0, 0.3]])).warp(quarter)
    assert torch.allclose(level.pose, torch.tensor([[0.0, 0, 0.3 + torch.pi / 2]]), atol=1e-5)
    assert torch.allclose(one.warp(quarter).warp(inverse(quarter)).pose, one.pose, atol=1e-5)


# ------------------------------------------------------------------------------------------------ from the command line
@pytest.mark.slow
def test_reinit_trains_resumes_tests_and_exports(cli, recipe, tmp_path):
    extra = ["--reinit", "--pose", "1", "--eyes", "0.8", "--mouth", "0.5", "--balance", "--hard-landmarks", "0.5"]
    flags = [*recipe, *extra, "--exp", "one", "--norm", "box"]
    works(cli("--train", *flags))
    done = works(cli("--train --resume --test --test-onnx", *flags, "--epochs 2 --thresholds 50"))
    assert "pose off by" in done.stderr and "left eye closed found" in done.stderr
    steps = rows(tmp_path / "runs" / "one" / "step.csv")
    assert len(steps) == 2 and all(
        float(steps[1][term]) > 0 for term in ("alignment", "pose", "left_eye_closed", "mouth_closed")
    )
    torch_row, onnx_row = (list(map(float, row[3:])) for row in table(done.stdout) if row[2].strip())
    assert torch_row == pytest.approx(onnx_row, abs=0.01)
    kept = checkpoint.load(tmp_path / "runs" / "one" / "best.pt")
    assert (
        kept["net"]["input_margin"] == 1.25
        and {"transformer.fc_loc.2.bias", "auxiliary.pose.weight"} <= kept["model"].keys()
    )


def test_both_stages_train(cli, recipe, tmp_path):
    works(cli("--train --test", *recipe, "--reinit --local-parts --head coordinate --norm box"))
    (row,) = rows(tmp_path / "runs" / "000" / "step.csv")
    assert float(row["local"]) > 0 and float(row["alignment"]) > 0
