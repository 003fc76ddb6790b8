"""Batches of faces: what is in them, that they are functions of their keys, and the processes that make them."""

import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import yaml
from conftest import LAYOUTS, rewrite, settings, split_of

from utils.data.batches import LIKELY, Batches, Share, Shuffle, plain
from utils.data.batches import test_batches as share_of
from utils.data.faces import Faces
from utils.data.loader import train_loader
from utils.data.prepared_set import load_splits

L68, L12 = LAYOUTS.load("68"), LAYOUTS.load("12")
PRESETS = {name: settings(name).augment for name in ("default", "pipnet", "irnet", "slim")}
PLAIN = replace(
    PRESETS["default"], **{key: 0.0 for key, value in asdict(PRESETS["default"]).items() if isinstance(value, float)}
)


def opened(folder, split="train", layout=L68, **options) -> Faces:
    return load_splits([split_of(folder, split, options.pop("label_shift", 0.0))], layout, 64, 4.0, **options)


def batch_of(faces: Faces, recipe, indices, number: int = 0, layout=L68, seed: int = 0):
    indices = np.array(indices)
    return Batches(faces, recipe, layout.flip_index, seed)[np.full(len(indices), number), indices]


def test_no_change_is_the_plain_crop(faces):
    several = opened(faces)
    for number, indices in ((0, [0, 35]), (3, [11, 4])):
        same, crops = batch_of(several, PLAIN, indices, number), plain(several, np.array(indices))
        assert torch.equal(same.images, crops.images) and torch.equal(same.index, crops.index)
        assert torch.equal(same.labels.landmarks, crops.labels.landmarks) and torch.equal(
            same.labels.weight, crops.labels.weight
        )
        assert np.array_equal(crops.images[1], several.plain_crop(indices[1]))
    black = replace(PLAIN, fill="black", interpolation="nearest")
    assert torch.equal(batch_of(several, black, [5, 6]).images, plain(several, np.array([5, 6])).images)
    wide = opened(faces, input_margin=1.25)  # a net with an input margin gets it in training too
    assert plain(wide, np.array([5])).images.shape == (1, 80, 80, 3)
    assert torch.equal(batch_of(wide, black, [5]).images, plain(wide, np.array([5])).images)


def test_what_is_drawn_over_a_landmark_hides_it(faces):
    """A landmark is hidden if the px around it change; of a set that does not tell, the others are most likely seen."""
    recipe = replace(PLAIN, occlusion=1.0, occlusion_size=0.9, occlusion_shapes=0.7, flip=0.5)
    told = opened(faces).with_columns(visible=np.where(np.arange(36)[:, None] % 2, np.ones(68), np.nan))
    bare, covered = (batch_of(told, part, range(36), 2) for part in (replace(recipe, occlusion=0.0), recipe))
    places = (covered.labels.landmarks.clamp(0, 0.999) * 64).long()
    changed = (bare.images != covered.images).any(3)[torch.arange(36)[:, None], places[..., 1], places[..., 0]]
    inside = (covered.labels.landmarks - 0.5).abs().amax(2) < 0.5
    assert torch.equal(bare.labels.landmarks, covered.labels.landmarks) and (covered.labels.visible_weight == 1).all()
    assert ((covered.labels.visible == 0) == (changed | ~inside)).float().mean() > 0.97  # colours may be the same
    assert 0.1 < changed.float().mean() < 0.6
    seen = bare.labels.visible[inside]
    assert set(seen.unique().tolist()) == {torch.tensor(LIKELY).item(), 1.0}


def test_misplaced_faces_train_no_landmark_and_change_no_other_draw(faces):
    several = opened(faces)
    told = several.with_columns(face=np.where(np.arange(36) < 30, 1.0, np.where(np.arange(36) < 33, 0, np.nan)))
    told = told.with_values(pose=np.zeros(3), visible=np.ones(68)).with_facts(meanface=several.meanface())
    recipe = replace(PRESETS["default"], rotation=20.0, scale=0.1, translation=0.05)
    plain_one, mixed, again = (
        batch_of(told, replace(recipe, misplaced=share), range(36), 2) for share in (0, 0.5, 0.5)
    )
    assert torch.equal(mixed.images, again.images) and torch.equal(mixed.labels.packed, again.labels.packed)
    lost = (mixed.images != plain_one.images).flatten(1).any(1)
    assert 5 < lost.sum() < 25 and not lost[30:].any()  # only what shows a face can be misplaced
    assert torch.equal(mixed.labels.packed[~lost], plain_one.labels.packed[~lost])
    assert (mixed.labels.weight[lost] == 0).all() and (plain_one.labels.weight == 1).all()
    assert (mixed.labels.pose_weight[lost] == 0).all() and (mixed.labels.visible_weight[lost] == 0).all()
    assert mixed.labels.face[:30, 0].tolist() == (~lost[:30]).float().tolist()
    assert mixed.labels.face_weight[:, 0].tolist() == [1] * 33 + [0] * 3 and (mixed.labels.face[30:33] == 0).all()
    silent = batch_of(several, replace(recipe, misplaced=0.5), range(36), 2)  # without the output nothing is misplaced
    assert torch.equal(silent.images, plain_one.images) and silent.labels.face is None


def test_a_mirror_image(faces):
    several = opened(faces)
    landmarks = several["landmarks"]
    landmarks[2, 36] = np.nan
    several = several.with_columns(landmarks=landmarks)
    flipped, crops = batch_of(several, replace(PLAIN, flip=1.0), [2]), plain(several, np.array([2]))
    assert torch.equal(flipped.images, crops.images.flip(2))
    mirrored = (crops.labels.landmarks[0].numpy() * (-1, 1) + (1, 0))[list(L68.flip_index)]
    assert np.allclose(flipped.labels.landmarks[0], mirrored, atol=1e-6)
    assert np.flatnonzero(flipped.labels.weight[0] == 0).tolist() == [45]


def test_labels_that_lie_to_the_right_do_so_in_a_mirror_image(faces):
    several = opened(faces, label_shift=0.75)
    shift, crop = several["shift"], several["crop"]
    true = several["nominal"] - (shift[:, None, None] * (1, 0))
    assert np.allclose(shift * (crop[:, 2] - crop[:, 0]), 0.75)
    mirrored = batch_of(several.only(np.arange(3, 6)), replace(PLAIN, flip=1.0), [1]).labels.landmarks[0]
    assert np.allclose(mirrored, (true[4] * (-1, 1) + (1, 0))[list(L68.flip_index)] + (shift[4], 0), atol=1e-6)


def test_pose_and_states_reach_the_labels(faces, tmp_path):
    folder = tmp_path / "posed"
    shutil.copytree(faces, folder)
    meta = yaml.safe_load((folder / "meta.yaml").read_text())
    names = ["left_eye_closed", "right_eye_closed", "mouth_open"]
    (folder / "meta.yaml").write_text(yaml.safe_dump({**meta, "states": names}))
    rewrite(folder, "train", pose=np.tile([0.1, 0.2, -0.3], (36, 1)), states=np.tile([True, False, True], (36, 1)))
    posed = opened(folder)
    assert posed.facts["states"] == names
    labels = plain(posed, np.arange(4)).labels
    assert labels.pose.shape == (4, 3) and labels.states.tolist() == [[1, 0, 1]] * 4
    assert torch.allclose(labels.pose[0], torch.tensor([0.1, 0.2, -0.3]))
    mirrored = batch_of(posed, replace(PLAIN, flip=1.0), [3]).labels
    assert np.allclose(mirrored.pose, [0.1, -0.2, 0.3]) and mirrored.states.tolist() == [[0, 1, 1]]
    turned = batch_of(posed, replace(PLAIN, rotation=30.0, rotation_prob=1.0), [3]).labels
    assert not np.allclose(turned.pose, [0.1, 0.2, -0.3]) and turned.states.tolist() == [[1, 0, 1]]
    without = plain(opened(faces), np.zeros(1, int)).labels
    assert without.pose is None and without.states is None
    both = load_splits([split_of(faces, "val"), split_of(folder)], L68, 64, 4.0)
    assert np.isnan(both["pose"][:4]).all() and np.isnan(both["states"][0]).all()
    assert both.only(np.array([4]))["states"][:].tolist() == [[1, 0, 1]]
    order = Shuffle((Share(0, len(posed), 8),), 4, 0)
    loader = train_loader(Batches(posed, PLAIN, L68.flip_index, 0), order.epochs(0, 1), 0, False)
    assert next(iter(loader)).labels.to("cpu").pose.shape == (8, 3)


@pytest.mark.parametrize("name", PRESETS)
def test_a_face_is_changed_by_its_key_alone(faces, name):
    several = opened(faces, layout=L12)
    stored = several.crop(0).copy()
    first, recipe = {}, PRESETS[name]
    for number in (0, 1):
        batch = batch_of(several, recipe, [0, 5, 7], number, L12, 1)
        first |= {
            (number, index): (image, landmarks)
            for index, image, landmarks in zip((0, 5, 7), batch.images, batch.labels.landmarks, strict=True)
        }
    mixed = Batches(several, recipe, L12.flip_index, 1)[np.array([1, 0, 1]), np.array([7, 5, 0])]
    for key, image, landmarks in zip(((1, 7), (0, 5), (1, 0)), mixed.images, mixed.labels.landmarks, strict=True):
        assert torch.equal(image, first[key][0]) and torch.equal(landmarks, first[key][1])
    images = torch.stack([image for image, _ in first.values()] + [*batch_of(several, recipe, [0], 0, L12, 2).images])
    assert len(images.flatten(1).unique(dim=0)) == 7
    assert np.array_equal(stored, several.crop(0)) and mixed.images.is_contiguous()


def test_loaders_give_the_same_batches_with_any_number_of_workers(faces):
    several, found = opened(faces), {}
    views, order = Batches(several, PRESETS["default"], L68.flip_index, 0), Shuffle((Share(0, len(several), 8),), 4, 0)
    for workers in (0, 2):
        found[workers] = list(train_loader(views, order.epochs(0, 2), workers, False))
    found["resumed"] = found[0][:4] + list(train_loader(views, order.epochs(1, 2), 1, False))
    for other in (found[2], found["resumed"]):
        for one, two in zip(found[0], other, strict=True):
            assert torch.equal(one.images, two.images) and torch.equal(one.index, two.index)
            assert torch.equal(one.labels.landmarks, two.labels.landmarks) and torch.equal(
                one.labels.weight, two.labels.weight
            )
    first = found[0][0]
    assert len(found[0]) == 8 and first.images.shape == (8, 64, 64, 3) and first.images.dtype == torch.uint8
    assert first.labels.landmarks.dtype == torch.float32 and not torch.equal(first.index, found[0][4].index)


def test_test_batches_have_every_face_once(faces):
    several = opened(faces, "test")
    for ranks, size in ((1, 3), (2, 3), (3, 64)):
        index = [
            i for rank in range(ranks) for batch in share_of(several, size, rank, ranks) for i in batch.index.tolist()
        ]
        assert sorted(index) == list(range(8))
