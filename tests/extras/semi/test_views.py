"""Batches of labelled faces and of two views of unlabelled faces, and which faces keep their labels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import LAYOUTS, settings, split_of

from extras.semi.unlabelled import sure_faces
from utils.data.batches import Batches, drawn_changes, label_rows, labels_of, make_order, recipes
from utils.data.faces import Faces
from utils.data.prepared_set import load_splits
from utils.task.task_data import labelled_rows

L68 = LAYOUTS.load("68")


def test_a_net_with_the_output_face_says_which_boxes_show_one():
    net = SimpleNamespace(shows=lambda box, width, height: box[0] < width)
    landmarker = SimpleNamespace(
        net=net, landmarks_of=lambda image, boxes: [SimpleNamespace(score=box[4] / 10) for box in boxes]
    )
    boxes, image = np.array([[0, 0, 9, 9, 8.0], [90, 0, 99, 9, 9], [1, 1, 8, 8, 7]]), np.zeros((60, 80, 3), np.uint8)
    assert sure_faces(boxes, image, landmarker, 0.8).tolist() == boxes[:1].tolist()
    assert sure_faces(boxes[:0], image, landmarker, 0.8).shape == (0, 5)


@pytest.mark.parametrize("steps", ([], ["translation", "rotation", "flip"]), ids=("ours", "published"))
def test_a_batch_holds_labelled_faces_and_unlabelled_views(faces, steps):
    some = load_splits([split_of(faces)], L68, 64, 0)
    chosen = settings(
        "default",
        rotation=90.0,
        scale=0.2,
        batch_size=8,
        epoch_steps=7,
        accumulate=2,
        steps=steps,
    )
    both = recipes(chosen.augment, chosen.views)
    hidden = load_splits([split_of(faces)._replace(labelled=False)], L68, 64, 0)
    assert np.isnan(hidden["landmarks"]).all() and np.isnan(hidden["nominal"]).all() and not hidden["known"].any()
    joined = Faces.join([some, hidden])
    batches = Batches(joined, chosen.augment, L68.flip_index, 0, len(some), both)
    order = make_order(len(joined), len(some), chosen.train, unlabelled_share=0.25)
    assert order.batch == 8 and len(order) == 14 == len(list(order.epochs(0, 1)))
    numbers, indices = next(order.epochs(0, 1))
    batch = batches[numbers, indices]
    assert batch.images.shape == (8, 64, 64, 3) and batch.labels.landmarks.shape == (6, 68, 2)
    assert batch.labels.weak.images.shape == (2, 64, 64, 3)
    assert (batch.index[6:] >= len(some)).all() and (batch.index[:6] < len(some)).all()
    alone = Batches(some, chosen.augment, L68.flip_index, 0)[numbers[:6], indices[:6]]  # as without the unlabelled ones
    assert torch.equal(batch.images[:6], alone.images) and torch.equal(batch.labels.landmarks, alone.labels.landmarks)
    # the matrix leads from the weak crop to the strong one: the true landmarks, seen through both warps, agree
    key = np.full(4, 3), np.arange(4)
    view = Batches(some, chosen.augment, L68.flip_index, 0, 0, both)[key].labels.weak
    row = label_rows(some, key[1])
    weak, strong = (
        labels_of(
            row, some, drawn_changes(0, *key, row["frame"], recipe, some.geometry, number), range(68)
        ).landmarks.numpy()
        for recipe, number in ((both.weak, 1), (both.strong, 0))
    )
    there = weak @ view.matrix.numpy()[:, :, :2].swapaxes(1, 2) + view.matrix.numpy()[:, None, :, 2]
    # steps may clip the others
    inside = (np.abs(there - 0.5) < 0.5) & (np.abs(weak - 0.5) < 0.5) & (np.abs(strong - 0.5) < 0.5)
    assert inside.mean() > 0.5 and np.allclose(there[inside], strong[inside], atol=1e-5)


def test_views_are_strongly_augmented_even_where_labelled_faces_are_not():
    for given, used in ((5.0, 10.0), (90.0, 90.0)):
        chosen = settings("default", rotation=given, occlusion=0.0)
        weak, strong = recipes(chosen.augment, chosen.views)
        assert (strong.rotation, strong.occlusion, weak.rotation) == (used, 0.2, 5.0)
    chosen = settings("default", rotation=5.0, steps=["rotation"])
    assert recipes(chosen.augment, chosen.views).strong.rotation == 5.0


def test_identities_keep_their_labels_whole():
    identities = [f"{i % 40}" for i in range(400)]
    rows = labelled_rows(identities, 0.05, 0)
    assert rows.sum() == 20 and len({name for name, row in zip(identities, rows, strict=True) if row}) == 2
    assert labelled_rows(identities, 0.001, 0).sum() == 10 and (rows != labelled_rows(identities, 0.05, 1)).any()
