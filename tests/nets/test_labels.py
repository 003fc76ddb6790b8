"""Labels: what is unknown is finite and weighs nothing; a loss on them is one graph."""

import numpy as np
import pytest
import torch
from small_nets import PARTS, net_of

from extras.detector.faceboxes import BoxTargets, FaceBoxesV2, anchors, encode
from nets import Labels
from nets.labels import turned
from pipnet.pose import turn_pose


def test_what_is_unknown_is_finite_and_weighs_nothing():
    landmarks, pose, states = np.zeros((3, 4, 2)), np.ones((3, 3), np.float32), np.ones((3, 2))
    landmarks[0, 1, 0], landmarks[1, 2], pose[2, 1], states[0, 1] = np.nan, np.inf, -np.inf, np.nan
    labels = Labels.pack(landmarks, [[1, 1, 1, 0.5], [1, 1, 1, 1], [0, 0, np.nan, 0]], pose, states, [0, 0, 1])
    assert labels.packed.dtype == torch.float32 and labels.packed.isfinite().all() and labels.packed.shape == (3, 21)
    assert labels.weight.tolist() == [[1, 0, 1, 0.5], [1, 1, 0, 1], [0, 0, 0, 0]]
    assert labels.pose_weight.tolist() == [[1], [1], [0]] and labels.states_weight.tolist() == [[1, 0], [1, 1], [1, 1]]
    assert labels.weight_of(1).any(1).tolist() == [False] * 3 and labels.weight_of(0).any(1).tolist() == [
        True,
        True,
        False,
    ]
    plain = Labels.pack(landmarks)
    assert plain.pose is None is plain.states is plain.level and torch.equal(plain.weight_of(0), plain.weight)
    assert torch.equal(plain.weight == 0, torch.from_numpy(~np.isfinite(landmarks).all(-1)))


def test_fields_are_views_and_others_stay():
    labels = Labels.pack(torch.rand(2, 5, 2), pose=torch.rand(2, 3), level=[0, 2])
    labels.landmarks[0, 3, 1], labels.weight[1, 4] = 7, 0.25
    assert labels.packed[0, 7] == 7 and labels.packed[1, 14] == 0.25
    some = labels.replace(weight=torch.zeros(2, 5)).select([4, 0])
    assert (
        torch.equal(some.landmarks, labels.landmarks[:, [4, 0]])
        and not some.weight.any()
        and some.weight.shape == (2, 2)
    )
    assert torch.equal(some.pose, labels.pose) and torch.equal(some.level, labels.level)


def test_a_pose_turns_in_torch_as_in_numpy():
    """The page's JavaScript has the vectors of numpy too, in pipnet/app/test_vectors.py."""
    rng = np.random.default_rng(0)
    poses, angles = rng.uniform(-1, 1, (99, 3)), rng.uniform(-np.pi, np.pi, 99)
    found = turned(torch.from_numpy(poses), torch.from_numpy(angles))
    assert np.allclose(found.numpy(), turn_pose(poses, angles), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("plain", "parts", "detector"))
def test_a_loss_is_one_graph(kind):
    """No part of a step asks for a value of a tensor, so that torch.compile, and a GPU, can take it as a whole."""
    labels = Labels.pack(torch.rand(2, 68, 2), None, torch.rand(2, 3), torch.ones(2, 4), [0, 1], torch.ones(2, 68))
    more = {
        "net": "slim",
        "stride": 32,
        "refine": True,
        "auxiliary": ("pose", "states", "visible"),
        "hard_landmarks": 0.5,
    }
    if kind == "plain":
        net = net_of(levels=2, head_options={"sigma": True, "error": "l2"}, **more)
    elif kind == "parts":
        net = net_of("coordinate", local_parts=PARTS, **more)
    else:
        boxes = encode(torch.tensor([[10.0, 10, 50, 50]]), anchors(64, 64))
        net, labels = FaceBoxesV2(), BoxTargets(boxes.expand(2, -1, -1))
    side = round(64 * net.input_margin)
    images = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    wanted = net.eval().loss(images, labels), net.denominators(labels)
    for before, how in zip(wanted, (net.loss, lambda _, labels: net.denominators(labels)), strict=True):
        torch.compiler.reset()
        found = torch.compile(how, backend="eager", fullgraph=True)(images, labels)
        assert found.keys() == before.keys() and all(torch.allclose(found[term], before[term]) for term in found)
