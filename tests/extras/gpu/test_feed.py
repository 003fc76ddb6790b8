"""Batches made on a device by a thread: the same changes as from the loader, how it ends, and whole trainings."""

import threading
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import LAYOUTS, doomed, settings, split_of, works

from extras.gpu.feed import DeviceLoader
from pipnet.errors import UserError
from utils.data.batches import Batch, Batches, Share, Shuffle, recipes
from utils.data.faces import Faces
from utils.data.loader import explaining_errors
from utils.data.prepared_set import load_splits
from utils.train import checkpoint
from utils.train.loop import make_loader

L68, CPU = LAYOUTS.load("68"), torch.device("cpu")
PRESETS = {name: settings(name).augment for name in ("default", "slim")}
ENOUGH = 1 << 40


def opened(folder, **options) -> Faces:
    return load_splits([split_of(folder)], L68, 64, 4.0, **options)


def order_of(faces: Faces, batch: int = 8) -> Shuffle:
    return Shuffle((Share(0, len(faces), batch),), len(faces) // batch, 0)


def fed(views: Batches, keys, free: int = 0) -> list[Batch]:
    with closing(DeviceLoader(views, keys, CPU, 2, free)) as feed:
        batches = list(feed)
    assert not feed.thread.is_alive()
    return batches


def assert_equal(one: Batch, two: Batch) -> None:
    assert torch.equal(one.images, two.images) and torch.equal(one.index, two.index)
    assert torch.equal(one.labels.packed, two.labels.packed) and one.labels.form == two.labels.form


@pytest.mark.parametrize("name", PRESETS)
def test_batches_are_those_of_the_loader_up_to_rounding(faces, name):
    views = Batches(opened(faces), replace(PRESETS[name], noise=0.0), L68.flip_index, 0)
    for key, batch in zip(
        order_of(views.faces).epochs(0, 1), fed(views, order_of(views.faces).epochs(0, 1)), strict=True
    ):
        expected = views[key]
        assert torch.equal(batch.labels.packed, expected.labels.packed) and torch.equal(batch.index, expected.index)
        away = (batch.images.int() - expected.images.int()).abs()
        assert away.float().mean() < 1 and (away > 8).float().mean() < 0.001 and batch.images.is_contiguous()


@pytest.mark.parametrize("name", PRESETS)
def test_a_face_is_changed_by_its_key_alone_whether_its_crop_is_kept_or_decoded(faces, name):
    views = Batches(opened(faces), PRESETS[name], L68.flip_index, 0)
    keys = list(order_of(views.faces).epochs(0, 2))
    whole = fed(views, iter(keys))
    for other in (fed(views, keys, ENOUGH), whole[:4] + fed(views, keys[4:]), whole[:3] + fed(views, keys[3:], ENOUGH)):
        for one, two in zip(whole, other, strict=True):
            assert_equal(one, two)
    numbers, indices = keys[0]
    alone = fed(views, [(numbers[3:4], indices[3:4])])[0]
    assert torch.equal(alone.images[0], whole[0].images[3]) and torch.equal(
        alone.labels.packed[0], whole[0].labels.packed[3]
    )


def test_unlabelled_views_are_those_of_the_loader_too(faces):
    chosen = settings("default", noise=0.0)
    both = recipes(chosen.augment, chosen.views)
    both = both._replace(strong=replace(both.strong, noise=0.0))
    some = opened(faces)
    joined = Faces.join([some, some.only(np.arange(9, 0, -1))])
    views = Batches(joined, chosen.augment, L68.flip_index, 0, len(some), both)
    key = np.array([0, 0, 1, 1, 2]), np.array([3, 5, 7, len(some) + 2, len(some)])
    expected = views[key]
    for free in (0, ENOUGH):
        batch = fed(views, [key], free)[0]
        assert torch.equal(batch.labels.packed, expected.labels.packed)
        assert torch.allclose(batch.labels.weak.matrix, expected.labels.weak.matrix)
        for one, two in ((batch.images, expected.images), (batch.labels.weak.images, expected.labels.weak.images)):
            assert one.shape == two.shape and (one.int() - two.int()).abs().float().mean() < 1


def test_a_face_that_comes_several_times_is_kept_once(faces):
    some = opened(faces).only(np.array([4, 4, 7, 4, 9, 7]))
    views, each = Batches(some, PRESETS["default"], L68.flip_index, 0), 3 * 80**2
    keys = [(np.zeros(6, int), np.arange(6))]
    for free, kept in ((6 * each, 3), (6 * each - 1, None)):
        with closing(DeviceLoader(views, keys, CPU, 1, free)) as feed:
            (batch,) = feed
            assert (feed.kept if kept is None else len(feed.kept)) == kept
        assert_equal(batch, fed(views, keys)[0])


def test_an_error_reaches_the_training(faces):
    def crop(row: int) -> np.ndarray:
        if row == 11:
            raise UserError("crop 11 is damaged; prepare the set again")
        return np.zeros((80, 80, 3), np.uint8)

    some = opened(faces)
    some = replace(some, parts=(replace(some.parts[0], crop=crop),))
    views = Batches(some, PRESETS["default"], L68.flip_index, 0)

    for free in (0, ENOUGH):
        feed = DeviceLoader(views, order_of(some).epochs(0, 1), CPU, 2, free)
        message = "^crop 11 is damaged; prepare the set again$"
        with pytest.raises(UserError, match=message), closing(feed), explaining_errors(feed, str):
            list(feed)
        assert not feed.thread.is_alive()


def test_the_thread_ends_with_the_training(faces):
    views, before = Batches(opened(faces), PRESETS["default"], L68.flip_index, 0), threading.active_count()
    with closing(DeviceLoader(views, order_of(views.faces).epochs(0, 10**6), CPU, 2)) as feed:
        assert next(iter(feed)).images.shape == (8, 64, 64, 3) and feed.thread.daemon
        next(iter(feed))
    with (
        pytest.raises(KeyboardInterrupt),
        closing(DeviceLoader(views, order_of(views.faces).epochs(0, 10**6), CPU, 2)) as feed,
    ):
        next(iter(feed))
        raise KeyboardInterrupt
    with closing(DeviceLoader(views, [], CPU, 2)):  # a training that is finished takes no batch
        pass
    assert threading.active_count() == before


def test_which_way_is_taken(faces):
    views, gpu = Batches(opened(faces), PRESETS["default"], L68.flip_index, 0), torch.device("cuda")
    for way, device, expected in (
        ("auto", CPU, False),
        ("cpu", CPU, False),
        ("device", CPU, True),
        ("cpu", gpu, False),
    ):
        assert (
            isinstance(make_loader(views, [], settings(pixels=way, workers=0).train, device), DeviceLoader) == expected
        )
    assert not isinstance(make_loader([], [], settings(workers=0).train, gpu), DeviceLoader)  # crops of a detector


@pytest.mark.slow
def test_a_killed_training_with_pixels_on_the_device_goes_on_where_it_was(cli, recipe, tmp_path):
    flags, runs = ["--train", *recipe, "--pixels", "device", "--epochs", "2"], tmp_path / "runs"
    works(cli(*flags, "--exp whole"))
    assert cli(*flags, "--exp killed", script=doomed(tmp_path, 6)).returncode == -9
    works(cli("--train --resume --exp", runs / "killed"))
    assert (runs / "killed/step.csv").read_bytes() == (runs / "whole/step.csv").read_bytes()
    one, two = (checkpoint.load(runs / name / "last.pt")["model"] for name in ("whole", "killed"))
    assert all(torch.equal(one[key], two[key]) for key in one)
