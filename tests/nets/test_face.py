"""The output `face`: its labels, its loss, and that it changes nothing else."""

import pytest
import torch
import torch.nn.functional as F
from conftest import LAYOUTS
from small_nets import net_of, pictures, some_labels

from nets import Labels
from nets.stages.auxiliary import losses
from nets.stages.face import FaceBranch

L68 = LAYOUTS.load("68")


def labels_with(face: list[float]) -> Labels:
    return Labels.pack(some_labels(len(face)).landmarks, face=torch.tensor(face))


def test_labels_keep_it_when_the_crop_is_mirrored_moved_or_has_fewer_landmarks():
    labels = labels_with([1, 0, float("nan"), 1])
    moved = torch.tensor([[[0.0, -1, 1], [1, 0, 0]]]).repeat(4, 1, 1)
    for one in (labels, labels.flip(L68), labels.warp(moved), labels.select([3, 5]), labels.flip(L68).flip(L68)):
        assert one.face[:, 0].tolist() == [1, 0, 0.5, 1] and one.face_weight[:, 0].tolist() == [1, 1, 0, 1]
    assert some_labels().face is None and some_labels().face_weight is None


def test_the_loss_is_the_cross_entropy_of_the_crops_that_are_told():
    net, images = net_of(auxiliary=("face",)).eval(), pictures(4)
    torch.nn.init.normal_(net.face.read.weight)
    labels = labels_with([1, 0, float("nan"), 1])
    told = net.predict(images).face
    assert told.shape == (4,) and len(told.unique()) == 4
    mean = net.loss(images, labels)["face"] / net.denominators(labels)["face"]
    assert mean.item() == pytest.approx(
        F.binary_cross_entropy(told[[0, 1, 3]], torch.tensor([1.0, 0, 1])).item(), rel=1e-4
    )
    for silent in (some_labels(), labels_with([float("nan")] * 4)):
        assert net.loss(images, silent)["face"] == 0 == net.denominators(silent)["face"]


def test_it_teaches_the_features_nothing():
    branch, features = FaceBranch(6), torch.rand(2, 6, 3, 3, requires_grad=True)
    losses("face", branch(features), labels_with([1, 0]))["face"].backward()
    assert features.grad is None and all(part.grad is not None for part in branch.parameters())


def test_it_reads_means_and_maxima_wherever_they_lie():
    branch, features = FaceBranch(6), torch.rand(2, 6, 3, 3)
    elsewhere = features.flatten(2)[..., torch.randperm(9, generator=torch.Generator().manual_seed(0))].unflatten(
        2, (3, 3)
    )
    assert torch.allclose(branch(features), branch(elsewhere), atol=1e-5)
    assert torch.allclose(branch(features), branch(5 * features), atol=1e-5)  # a frozen net's maps have any scale
    features[:, 0] += torch.eye(3)
    assert not torch.allclose(branch(features), branch(elsewhere), atol=1e-5)


def test_a_net_without_it_has_the_same_landmarks_and_terms():
    plain, more = net_of(refine=True), net_of(refine=True, auxiliary=("face",))
    more.load_state_dict(plain.state_dict(), strict=False)
    images, labels = pictures(2), labels_with([1, 0])
    one, two = plain.eval().predict(images), more.eval().predict(images)
    assert one.face is None and torch.equal(one.landmarks, two.landmarks) and torch.equal(one.score, two.score)
    terms, further = plain.loss(images, labels), more.loss(images, labels)
    assert further.keys() - terms.keys() == {"face"} and all(torch.equal(terms[name], further[name]) for name in terms)
    assert more.terms["face"] == "face" and more.state_dict().keys() - plain.state_dict().keys() == {
        f"face.{name}" for name in more.face.state_dict()
    }
