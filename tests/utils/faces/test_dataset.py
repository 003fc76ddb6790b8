"""Faces in memory, their augmentation, and the order of samples."""
import itertools
import shutil
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
import torch
import yaml
from conftest import LAYOUTS, settings, split_of, write_faces
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from pipnet.errors import UserError
from utils.faces.archives import read_pts, write_pts
from utils.faces.augment import Crop, augment, augment_pose, generator
from utils.faces.dataset import Augmented, Order, collate, plain
from utils.faces.dataset import test_batches as share_of
from utils.faces.faces import Faces
from utils.faces.loader import train_loader
from utils.faces.prepare import DataGenerator
from utils.faces.prepared_set import load

L68, L12 = LAYOUTS.load("68"), LAYOUTS.load("12")
PRESETS = {name: settings(name).augment for name in ("default", "pipnet", "irnet")}
PLAIN = replace(PRESETS["default"], **{key: 0.0 for key, value in asdict(PRESETS["default"]).items() if isinstance(value, float)})


def opened(folder, split="train", layout=L68, size=64, cache=4.0, label_shift=0.0, **options) -> Faces:
    return load([split_of(folder, split, label_shift)], layout, size, cache, **options)


def dotted(size: int, border: int, landmarks: np.ndarray) -> np.ndarray:
    """Return a black stored crop with a white spot at each landmark (N, 2), in [0, 1] of the nominal crop of `size` px."""
    side = size + 2 * border
    centre = (landmarks * size + border)[:, None, None]
    grid = np.stack(np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5), -1)
    spots = np.exp(-((grid - centre) ** 2).sum(-1) / (2 * 1.5**2)).max(0)
    return np.repeat(np.round(255 * spots).astype(np.uint8)[..., None], 3, 2)


def spot_near(image: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return the centre of mass of the brightness within 5 px of `point`, in continuous px."""
    grid = np.stack(np.meshgrid(np.arange(image.shape[1]) + 0.5, np.arange(image.shape[0]) + 0.5), -1)
    weight = image[..., 0].astype(float) * (((grid - point) ** 2).sum(-1) < 25)
    return (grid * weight[..., None]).sum((0, 1)) / weight.sum()


# --------------------------------------------------------------------------------------------------------------- faces
@pytest.mark.parametrize("size", (32, 64, 96))
def test_faces_are_the_nominal_crops(faces, size):
    several, table = opened(faces, size=size), split_of(faces).set.read("train")
    image, landmarks, visible, index, *_ = plain(several, 7)
    assert len(several) == 36 and image.shape == (size, size, 3) and image.dtype == np.uint8 and landmarks.dtype == np.float32
    assert index == 7 and visible.all() and several.crops[7].shape[0] == size + 2 * several.crops.border
    corner, side = table["crop"][7][:2], table["crop"][7][2:] - table["crop"][7][:2]
    assert np.abs(landmarks - (table["landmarks"][7] - corner) / side).max() < 1e-6
    stored = cv2.imdecode(np.frombuffer(table.crops.encoded(7), np.uint8), cv2.IMREAD_COLOR)
    if size == 64:
        assert np.array_equal(several.crops[7], stored) and np.array_equal(image, stored[8:-8, 8:-8])
    middle = cv2.resize(stored[8:-8, 8:-8], (size, size), interpolation=cv2.INTER_AREA)
    assert np.abs(middle.astype(float) - image).mean() < 12


def test_faces_from_disk_equal_those_in_memory(faces):
    memory, disk = opened(faces, size=32), opened(faces, size=32, cache=0.0)
    assert memory.crops.decoded is not None and disk.crops.decoded is None
    assert all(np.array_equal(memory.crops[i], disk.crops[i]) for i in range(len(memory)))


def test_a_subset_of_the_landmarks(faces):
    whole, eyes = opened(faces), opened(faces, layout=L12)
    assert np.array_equal(eyes.nominal(), whole.nominal()[:, 36:48]) and np.array_equal(eyes["box"][:], whole["box"][:])


def test_several_splits_are_one(faces):
    both = load([split_of(faces), split_of(faces, "val")], L68, 64, 4.0)
    assert len(both) == 40 and len(set(both["file"])) == 40 and np.array_equal(both.crops[36], opened(faces, "val").crops[0])


def test_hidden_and_unknown_landmarks(tmp_path):
    folder = write_faces(tmp_path / "raw", 4)
    for file in folder.glob("*.pts"):
        landmarks = read_pts(file)
        landmarks[3] = np.nan if file.stem != "face00" else landmarks[3]
        write_pts(file, landmarks)
    prepared = DataGenerator(folder, 32, out=tmp_path / "data", val=0).run()
    lines = (prepared / "train.tsv").read_text().splitlines()
    fields = lines[1].split("\t")
    (prepared / "train.tsv").write_text("\n".join([lines[0], "\t".join([*fields[:14], "0" * 5 + "1" * 63]), *lines[2:]]) + "\n")
    for train_hidden, hidden in ((True, 68), (False, 63)):
        several = opened(prepared, size=32, train_hidden=train_hidden)
        assert several["visible"][0].sum() == hidden
        assert (several["visible"][1:].sum(1) == 67).all() and not several["visible"][:][1:, 3].any()
    batch = collate([Augmented(several, PRESETS["default"], L68.flip_index, 0)[0, i] for i in range(4)])
    assert torch.isfinite(batch.labels.packed).all() and batch.labels.weight.sum() == 63 + 3 * 67


def test_sets_that_do_not_go_together_are_named(faces, tmp_path):
    with pytest.raises(UserError, match="68 landmarks .*layout 98"):
        opened(faces, layout=LAYOUTS.load("98"))
    other = tmp_path / "other"
    shutil.copytree(faces, other)
    meta = yaml.safe_load((other / "meta.yaml").read_text())
    (other / "meta.yaml").write_text(yaml.safe_dump({**meta, "margin": 1.5}))
    with pytest.raises(UserError, match="other was cut by another protocol or margin"):
        load([split_of(faces), split_of(other)], L68, 64, 4.0)


# ------------------------------------------------------------------------------------------------------ pose and states
def head(pose) -> np.ndarray:
    """Return the rotation (3, 3) of (pitch, yaw, roll) as 300W-LP defines it, with axes right, up and towards the camera."""
    (a, b, c), (d, e, f) = np.sin(pose), np.cos(pose)
    return np.array([[1, 0, 0], [0, d, a], [0, -a, d]]) @ [[e, 0, -b], [0, 1, 0], [b, 0, e]] @ [[f, c, 0], [-c, f, 0], [0, 0, 1]]


@examples(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-1.3, 1.3)] * 3), st.floats(-1.5, 1.5), st.floats(0.5, 2), st.booleans())
def test_a_turned_picture_turns_the_pose(pose, angle, zoom, mirror):
    model = np.random.default_rng(0).normal(size=(9, 3))
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.diag([-1.0 if mirror else 1, 1]) @ turn
    turned = augment_pose(np.array(pose), np.column_stack([matrix, [3, 4]]))

    def seen(shape, pose):
        return (shape @ head(pose).T)[:, :2] * (1, -1)  # image y points down

    twin = model * ((-1, 1, 1) if mirror else (1, 1, 1))  # in a mirror image left and right are exchanged
    assert np.allclose(seen(model, pose) @ matrix.T, zoom * seen(twin, turned), atol=1e-6)


def test_pose_and_states_reach_the_labels(faces, tmp_path):
    folder = tmp_path / "posed"
    shutil.copytree(faces, folder)
    meta = yaml.safe_load((folder / "meta.yaml").read_text())
    names = ["left_eye_closed", "right_eye_closed", "mouth_open"]
    (folder / "meta.yaml").write_text(yaml.safe_dump({**meta, "states": names}))
    lines = (folder / "train.tsv").read_text().splitlines()
    (folder / "train.tsv").write_text("\n".join([f"{lines[0]}\tpose\tstates",
                                                 *(f"{line}\t0.1 0.2 -0.3\t101" for line in lines[1:])]) + "\n")
    posed = opened(folder)
    assert posed.facts["states"] == names and plain(posed, 3).states.tolist() == [1, 0, 1]
    batch = collate([plain(posed, i) for i in range(4)])
    assert batch.labels.pose.shape == (4, 3) and batch.labels.states.tolist() == [[1, 0, 1]] * 4
    assert torch.allclose(batch.labels.pose[0], torch.tensor([0.1, 0.2, -0.3]))
    mirrored = Augmented(posed, replace(PLAIN, flip=1.0), L68.flip_index, 0)[0, 3]
    assert np.allclose(mirrored.pose, [0.1, -0.2, 0.3]) and mirrored.states.tolist() == [0, 1, 1]
    turned = Augmented(posed, replace(PLAIN, rotation=30.0, rotation_prob=1.0), L68.flip_index, 0)[0, 3]
    assert not np.allclose(turned.pose, [0.1, 0.2, -0.3]) and turned.states.tolist() == [1, 0, 1]
    assert plain(opened(faces), 0).pose is None and collate([plain(opened(faces), 0)]).labels.states is None
    both = load([split_of(faces, "val"), split_of(folder)], L68, 64, 4.0)
    assert np.isnan(both["pose"][:4]).all() and np.isnan(both["states"][0]).all()
    assert both.only(np.array([4]))["states"][:].tolist() == [[1, 0, 1]]
    loader = train_loader(Augmented(posed, PLAIN, L68.flip_index, 0), Order(len(posed), 8, 1, 0), 0, False)
    assert next(iter(loader)).labels.to("cpu").pose.shape == (8, 3)


# -------------------------------------------------------------------------------------------------------- augmentation
def test_no_augmentation_is_the_plain_crop(faces):
    several = opened(faces)
    same = Augmented(several, PLAIN, L68.flip_index, 0)
    for epoch, index in ((0, 0), (3, 11)):
        assert all(np.array_equal(a, b) for a, b in zip(same[epoch, index], plain(several, index), strict=True))
    black = Augmented(several, replace(PLAIN, fill="black", interpolation="nearest"), L68.flip_index, 0)
    assert np.array_equal(black[0, 5][0], several.crops.plain(5))
    black.faces = load([split_of(faces)], L68, 64, 4.0, input_margin=1.25)  # a net with an input margin gets it in training too
    assert np.array_equal(black[0, 5][0], black.faces.crops.plain(5))


def test_a_mirror_image(faces):
    several = opened(faces)
    image, landmarks, visible, *_ = plain(several, 2)
    visible = np.arange(68) != 36
    crop = Crop(several.crops[2], landmarks, visible, 64)
    flipped = augment(crop, replace(PLAIN, flip=1.0), L68.flip_index, generator(0, 0, 2))
    assert np.array_equal(flipped[0], image[:, ::-1])
    assert np.allclose(flipped[1], (landmarks * (-1, 1) + (1, 0))[list(L68.flip_index)], atol=1e-6)
    assert np.flatnonzero(~flipped[2]).tolist() == [45]


def test_labels_that_lie_to_the_right_do_so_in_a_mirror_image(faces):
    several = opened(faces, label_shift=0.75)
    true = several.nominal() - (several.shift()[:, None, None] * (1, 0))
    assert np.allclose(several.shift() * (several["crop"][:][:, 2] - several["crop"][:][:, 0]), 0.75)
    mirrored = Augmented(several.only(np.arange(3, 6)), replace(PLAIN, flip=1.0), L68.flip_index, 0)[0, 1][1]
    expected = (true[4] * (-1, 1) + (1, 0))[list(L68.flip_index)] + (several.shift()[4], 0)
    assert np.allclose(mirrored, expected, atol=1e-6)


GEOMETRY = {"scale": 0.15, "translation": 0.08, "rotation": 30.0, "rotation_prob": 1.0, "translation_prob": 1.0, "flip": 0.5}


@examples(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(("real", "black")), st.sampled_from(("linear", "nearest")),
       st.sampled_from((64, 96, 128)))
def test_the_picture_goes_where_the_landmarks_go(seed, fill, interpolation, size):
    # five spots that cannot be confused, one of them in the margin
    places = np.array([[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.4, 0.75], [1.05, 0.5]])
    border, flip = size // 8, (1, 0, 2, 3, 4)
    recipe = replace(PLAIN, **GEOMETRY, fill=fill, interpolation=interpolation)
    stored, seen = dotted(size, border, places), np.ones(5, bool)
    image, landmarks, *_ = augment(Crop(stored, places, seen, size), recipe, flip, generator(seed, 0, 0))
    for number, point in enumerate(landmarks * size):
        inside = (point > 5).all() and (point < size - 5).all()
        if inside and (number < 4 or fill == "real"):
            assert np.abs(spot_near(image, point) - point).max() < (0.15 if interpolation == "linear" else 0.6), number


@pytest.mark.parametrize("name", PRESETS)
def test_augmentation_is_keyed(faces, name):
    several = opened(faces, layout=L12)
    views = Augmented(several, PRESETS[name], L12.flip_index, 1)
    first = {key: views[key] for key in itertools.product((0, 1), (0, 5))}
    for key in reversed(list(first)):
        assert all(np.array_equal(a, b) for a, b in zip(views[key], first[key], strict=True))
    images = [sample[0] for sample in first.values()] + [Augmented(several, PRESETS[name], L12.flip_index, 2)[0, 0][0]]
    assert all((a != b).any() for a, b in itertools.combinations(images, 2))
    stored = several.crops[0].copy()
    assert np.array_equal(stored, several.crops[0]) and first[0, 0][0].flags.c_contiguous


def test_one_option_does_not_change_what_another_does(faces):
    several, recipe = opened(faces), replace(PLAIN, **GEOMETRY)
    geometry = Augmented(several, recipe, L68.flip_index, 0)
    coloured = Augmented(several, replace(PRESETS["default"], **GEOMETRY), L68.flip_index, 0)
    for key in itertools.product((0, 1), range(6)):
        assert np.array_equal(geometry[key][1], coloured[key][1])


def test_faces_are_turned_by_any_angle(faces):
    """With the given probability, instead of by the ordinary rotation, and without a change of any other draw."""
    crop, recipe = Crop(dotted(64, 8, np.full((1, 2), 0.5)), np.full((1, 2), 0.5), np.ones(1), 64), replace(PLAIN, **GEOMETRY)

    def matrices(**given):
        made = [augment(crop, replace(recipe, **given), (0,), generator(0, 0, index))[3] for index in range(400)]
        return np.array([matrix[:, :2] * (np.sign(np.linalg.det(matrix[:, :2])), 1) for matrix in made])

    plain, rolled, half = matrices(), matrices(roll_prob=1.0), matrices(roll_prob=0.5, rotation_prob=0.5)
    angles = [np.degrees(np.arctan2(-part[:, 0, 1], part[:, 1, 1])) for part in (plain, rolled, half)]
    assert np.abs(angles[0]).max() <= 30 and np.histogram(angles[1], 6, (-180, 180))[0].min() > 40
    assert np.allclose(angles[0] / 30, angles[1] / 180) and np.allclose(np.linalg.det(plain), np.linalg.det(rolled))
    same = np.isclose(angles[2], angles[1])  # half are turned by any angle, a quarter by the ordinary rotation
    assert 160 < same.sum() < 240 and 70 < np.isclose(angles[2], 0).sum() < 130
    assert np.allclose(angles[2][~same], np.where(np.isclose(angles[2], 0), 0, angles[0])[~same])


def test_photometric_options_act(faces):
    several = opened(faces)
    image, samples = several.crops.plain(0).astype(int), {}
    strengths = {"noise_sigma": 20.0, "blur_sigma": 8.0, "occlusion_size": 0.4, "brightness": 0.4}
    options = {option: {option: 1.0} for option in ("grayscale", "infrared", "noise", "blur", "occlusion", "colour_prob")}
    for option, keys in (options | {"coarse noise": {"noise": 1.0, "noise_size": 32.0}, "gamma": {"gamma": 3.0}}).items():
        views = Augmented(several, replace(PLAIN, **keys, **strengths), L68.flip_index, 0)
        samples[option] = views[0, 0][0].astype(int)
        assert (samples[option] != image).any(), option
        assert np.array_equal(views[0, 0][1], several.nominal(0))
    assert np.ptp(samples["grayscale"], axis=2).max() <= 1 and np.ptp(samples["infrared"], axis=2).max() == 0
    changed = (samples["occlusion"] != image).any(2)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert len(rows) <= 0.4 * 64 + 1 and len(columns) <= 0.4 * 64 + 1
    assert samples["blur"].std() < image.std()
    fine, coarse = ((samples[option] - image)[20:40, 20:40] for option in ("noise", "coarse noise"))
    assert np.abs(np.diff(coarse, axis=0)).mean() < 0.6 * np.abs(np.diff(fine, axis=0)).mean()
    levels, light = image[..., 0].ravel(), samples["gamma"][..., 0].ravel()
    power = np.log(light[(levels > 60) & (levels < 250)] / 255) / np.log(levels[(levels > 60) & (levels < 250)] / 255)
    assert 1 / 3 < np.median(power) < 3 and np.ptp(np.percentile(power, (5, 95))) < 0.1, "one power for all levels"


# --------------------------------------------------------------------------------------------------------------- order
@examples(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 4), st.integers(0, 5), st.integers(0, 9))
def test_order_has_each_face_at_most_once(count, batch_size, ranks, seed, epoch):
    if count < ranks:
        with pytest.raises(UserError, match="too few"):
            Order(count, batch_size, 1, seed, 0, ranks)
        return
    orders = [Order(count, batch_size, 1, seed, rank, ranks) for rank in range(ranks)]
    for order in orders:
        order.epoch = epoch
    batches = [list(order) for order in orders]
    seen = [key for mine in batches for batch in mine for key in batch]
    assert len(seen) == len(set(seen)) and all(key[0] == epoch and 0 <= key[1] < count for key in seen)
    assert {len(mine) for mine in batches} == {len(orders[0])} and {len(b) for mine in batches for b in mine} == {orders[0].batch}
    assert count - len(seen) < orders[0].batch * ranks, "more is dropped than the incomplete last batch"


def test_the_global_batch_is_the_same_for_any_number_of_ranks():
    def batches(ranks):
        shares = [list(Order(50, 12 // ranks, 1, 3, rank, ranks)) for rank in range(ranks)]
        return [set().union(*parts) for parts in zip(*shares, strict=True)]

    assert batches(1) == batches(2) == batches(3) == batches(4)
    one = Order(50, 12, 1, 3)
    first = list(one)
    assert first == list(one)
    one.epoch = 1
    assert [{i for _, i in batch} for batch in first] != [{i for _, i in batch} for batch in one]


def test_accumulation_takes_whole_steps():
    assert len(Order(50, 8, 4, 0)) == 4 and len(Order(50, 8, 6, 0)) == 6 and len(Order(3, 8, 1, 0)) == 1
    with pytest.raises(UserError, match="accumulate is 7, but an epoch has 6 batches"):
        Order(50, 8, 7, 0)


def test_loaders_give_the_same_batches_with_any_number_of_workers(faces):
    views, batches = Augmented(opened(faces), PRESETS["default"], L68.flip_index, 0), {}
    for workers in (0, 2):
        order = Order(len(views), 8, 1, 0)
        loader = train_loader(views, order, workers, False)
        batches[workers] = []
        for epoch in (0, 1):
            order.epoch = epoch
            batches[workers] += list(loader)
    assert len(batches[0]) == len(batches[2]) == 8
    for one, two in zip(batches[0], batches[2], strict=True):
        assert torch.equal(one.images, two.images) and torch.equal(one.index, two.index)
        assert torch.equal(one.labels.packed, two.labels.packed) and one.labels.form == two.labels.form
    first = batches[0][0]
    assert first.images.shape == (8, 64, 64, 3) and first.images.dtype == torch.uint8
    assert first.labels.landmarks.dtype == torch.float32
    assert not torch.equal(first.index, batches[0][4].index)


def test_test_batches_have_every_face_once(faces):
    several = opened(faces, "test")
    for ranks, size in ((1, 3), (2, 3), (3, 64)):
        index = [i for rank in range(ranks) for batch in share_of(several, size, rank, ranks) for i in batch.index.tolist()]
        assert sorted(index) == list(range(8))
