"""Nets that learn from unlabelled faces: score maps of three levels, and the mean teacher."""

import numpy as np
import pytest
import torch
from conftest import LAYOUTS, mean_face
from small_nets import net_of

from extras.semi.mean_teacher import MeanTeacher
from nets.labels import Labels, Prediction, Weak
from nets.net import Features
from nets.trainable import batch_norms

L68 = LAYOUTS.load("68")


def faces(count: int = 3) -> torch.Tensor:
    moved = torch.from_numpy(np.random.default_rng(0).uniform(-0.1, 0.1, (count, 1, 2)))
    return (torch.from_numpy(mean_face()) * 0.6 + 0.2 + moved).float()


def leveled():
    return net_of(levels=3, stride=16)  # 4 x 4 cells


@pytest.mark.parametrize("levels", [(0, 1, 2), (1, 1, 1), (2, 2, 2)])
def test_the_score_loss_is_one_mean_over_the_entries_that_the_levels_of_the_faces_supervise(levels):
    """Labelled faces, which are of level 0, train all other terms alone."""
    net, images, points = leveled().eval(), torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8), faces()
    labels = Labels.pack(points, level=torch.tensor(levels))
    terms, counts, maps = net.loss(images, labels), net.denominators(labels), net(images)
    entries, total = 0, 0.0
    for face, level in enumerate(levels):
        found = (maps.score, *maps.coarser)[level][face]
        cells = found.shape[-1]
        place, target = (points[face] * cells).long().clamp(0, cells - 1), torch.zeros_like(found)
        target[torch.arange(68), place[:, 1], place[:, 0]] = 1
        total, entries = total + (found - target).square().sum(), entries + target.numel()
    assert torch.allclose(terms["score"] / counts["score"], total / entries, rtol=1e-5)
    labelled = net.loss(images[:1], Labels.pack(points[:1]))
    for name in terms.keys() - {"score"}:
        if 0 in levels:
            assert torch.allclose(terms[name], labelled[name], rtol=1e-4)
        else:
            assert terms[name] == 0 == counts[name]


def test_levels_change_nothing_without_unlabelled_samples():
    images, labels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8), Labels.pack(faces())
    plain, net = net_of(stride=16).eval(), leveled().eval()
    assert plain.loss(images, labels) == net.loss(images, labels) and plain.denominators(labels) == net.denominators(
        labels
    )
    assert plain.state_dict().keys() == net.state_dict().keys()


# -------------------------------------------------------------------------------------------------------- mean teacher
class Oracle:
    """A teacher that finds `points` (U, N, 2) in a crop and in its mirror image, as far right as its labels."""

    refiner = None

    def __init__(
        self, points: torch.Tensor, shift: float, error: float | torch.Tensor = 0.0, sigma: torch.Tensor | None = None
    ):
        right = torch.tensor([shift, 0.0])
        other = Labels.pack(points).flip(L68).landmarks
        self.found, self.sigma = torch.cat([points + right + error, other + right]), sigma
        self.head = self
        self.modules = net_of().modules

    def extract(self, images):
        return Features(images, None)

    def __call__(self, images):
        return images

    def decode_with_spread(self, maps):
        return Prediction(self.found, torch.ones(self.found.shape[:2]), self.sigma), None


@pytest.mark.parametrize("mirrors", [False, True])
def test_pseudo_labels_lie_where_labels_of_the_strong_crop_would(mirrors):
    """They are the true points of the strong crop, moved to the right as labels are, with left and right in their
    places.
    """
    points, shift = faces(2), 0.01
    turn = torch.tensor([[0.8, -0.3, 0.2], [0.3, 0.8, -0.1]])
    matrix = turn @ torch.diag(torch.tensor([-1.0, 1, 1])) + torch.tensor([[0, 0, 0.5], [0, 0, 0]]) if mirrors else turn
    net = MeanTeacher(net_of(), L68, shift)
    net.teacher = (Oracle(points, shift),)
    landmarks, trust = net.ask(torch.zeros(2, 64, 64, 3), matrix.expand(2, -1, -1))
    # as augment() does it: the point, then the shift that leads to the right in the result, then the warp
    wanted = (
        Labels.pack(points + torch.tensor([-shift if mirrors else shift, 0.0])).warp(matrix.expand(2, -1, -1)).landmarks
    )
    wanted = wanted[:, list(L68.flip_index)] if mirrors else wanted
    assert torch.allclose(landmarks, wanted, atol=1e-6) and torch.allclose(trust, torch.ones(2, 68))


def test_trust_by_hand():
    """The mean square of the disagreement, which is 0 but for the tip of the nose, and of the errors expected in the crop
    and in its mirror image, where the outer corners of the eyes have changed places.
    """
    net, sigma, error = MeanTeacher(net_of(), L68, 0.0), torch.zeros(2, 68), torch.zeros(1, 68, 2)
    error[0, 30] = 0.05
    sigma[0, 36], sigma[1, 45] = 0.02, 0.04
    net.teacher = (Oracle(faces(1), 0.0, error, sigma),)
    _, trust = net.ask(torch.zeros(1, 64, 64, 3), torch.eye(2, 3)[None])
    wanted = torch.ones(68)
    wanted[30] = 1 / (1 + (2 * 0.05**2 + 0) / 2 / 0.02**2)
    wanted[36] = 1 / (1 + (0 + (0.02**2 + 0.04**2) / 2) / 2 / 0.02**2)
    assert torch.allclose(trust[0], wanted, atol=1e-4)


def test_the_teacher_is_the_average_and_is_not_kept():
    net = MeanTeacher(net_of(), L68, 0.0)
    average = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.set_average(average)
    average["head.score.bias"].fill_(7)
    assert (net.teacher[0].head.score.bias == 7).all() and not (net.net.head.score.bias == 7).any()
    assert net.state_dict().keys() == net.net.state_dict().keys() and not net.teacher[0].training


def test_unlabelled_crops_train_their_own_terms():
    net = MeanTeacher(net_of(head_options={"sigma": True}), L68, 0.0).train()
    net.teacher = (Oracle(faces(2), 0.0),)
    images = torch.randint(0, 256, (5, 64, 64, 3), dtype=torch.uint8)
    labels = Labels.pack(faces(3))._replace(weak=Weak(images[3:], torch.eye(2, 3).expand(2, -1, -1)))
    terms, counts = net.loss(images, labels), net.denominators(labels)
    assert terms.keys() == counts.keys() == net.terms.keys() and "pseudo_log_scale" not in terms
    assert counts["score"] == 3 * 68 and counts["pseudo_score"] == 2 * 68
    assert all(torch.isfinite(term) for term in terms.values()) and terms["pseudo_score"] > 0
    sum(terms.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_the_teacher_normalises_as_the_net_does():
    """By the statistics of its crops, which change no running average; frozen norms of the net are frozen in the
    teacher too.
    """
    net = MeanTeacher(net_of(head_options={"sigma": True}), L68, 0.0).train()
    net.set_average(dict(net.state_dict()))
    images, matrix = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8), torch.eye(2, 3).expand(2, -1, -1)
    before, (norm, *_) = net.ask(images, matrix)[0], batch_norms(net.teacher[0])
    assert norm.num_batches_tracked == 0 and not norm.running_mean.any()
    for norm in batch_norms(net.teacher[0]):
        norm.running_mean.fill_(0.5)
    assert torch.equal(net.ask(images, matrix)[0], before)
    for norm in batch_norms(net):
        norm.eval()
    assert not torch.allclose(net.ask(images, matrix)[0], before, atol=1e-3)


def test_the_teacher_lies_on_the_device_of_the_net():
    """Buffers that no checkpoint holds too.
    The meta device stands for a GPU: tensors of two devices cannot be joined there.
    """
    net = MeanTeacher(net_of(head_options={"sigma": True}), L68, 0.0).to("meta").train()
    net.set_average(dict(net.state_dict()))
    images = torch.zeros(5, 64, 64, 3, dtype=torch.uint8)
    labels = Labels.pack(faces(3))._replace(weak=Weak(images[3:], torch.eye(2, 3).expand(2, -1, -1))).to("meta")
    assert all(term.is_meta for term in net.loss(images.to("meta"), labels).values())
