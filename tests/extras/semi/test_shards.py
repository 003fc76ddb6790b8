"""Unlabelled faces in tar shards: read one by one, with memory that does not grow with their number."""

import io
import tarfile
import tracemalloc
from functools import reduce

import cv2
import numpy as np
import pytest
import torch
from conftest import LAYOUTS, draw_face, refuses, settings, split_of

from extras.semi.shards import Shards, shard_files
from pipnet.errors import UserError
from utils.data.batches import Batches, labels_of, make_order, recipes
from utils.data.faces import Faces
from utils.data.pixels import pixels
from utils.data.prepared_set import load_splits
from utils.task.sources import labelled_rows

L68 = LAYOUTS.load("68")


@pytest.fixture
def tars(tmp_path):
    """Two shards with three pictures each, a damaged one among them, and other files."""
    for shard in range(2):
        folder = tmp_path / f"{shard}"
        folder.mkdir()
        for number in range(3):
            cv2.imwrite(str(folder / f"{number}.png"), draw_face(np.random.default_rng([shard, number]), 80)[0])
        (folder / "0.json").write_text("{}")
        with tarfile.open(tmp_path / f"{shard:03d}.tar", "w") as tar:
            tar.add(folder, arcname="faces")
    (tmp_path / "0" / "1.png").write_bytes(b"damaged")
    with tarfile.open(tmp_path / "000.tar", "w") as tar:
        tar.add(tmp_path / "0", arcname="faces")
    return shard_files(str(tmp_path))


def opened(tars, tmp_path, size=64):
    return Shards(tars, tmp_path / "tables", size, 1.25, 1.0)


def test_pictures_are_those_of_the_shards(tars, tmp_path):
    faces = opened(tars, tmp_path)
    assert len(faces) == 6 and [file.name for file in tars] == ["000.tar", "001.tar"]
    crops, names = faces.faces().crops, faces.faces()["file"]
    found = {crops[index].tobytes() for index in range(6)}
    stored = [cv2.imread(str(tmp_path / f"{shard}" / f"{number}.png")) for shard in range(2) for number in range(3)]
    wanted = {image.tobytes() for image in stored if image is not None}
    assert found == wanted and len(wanted) == 5  # 64 px and 8 px of border on each side; the damaged one is left out
    assert names[5].startswith(str(tars[1])) and names[5] != names[4] and crops.plain(0).shape == (64, 64, 3)
    assert np.array_equal(opened(tars, tmp_path).table, faces.table)


def test_what_is_no_shard_is_one_line(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(UserError, match="a.tar"):
        Shards(shard_files(str(tmp_path / "a.tar")), tmp_path, 64, 1.25, 1.0)
    with tarfile.open(tmp_path / "b.tar", "w"):
        pass
    with pytest.raises(UserError, match="b.tar"):
        Shards(shard_files(str(tmp_path / "b.tar")), tmp_path, 64, 1.25, 1.0)


def test_memory_is_the_same_for_a_thousand_and_a_million_faces(tars, tmp_path):
    """The same shards again and again; an epoch is a number of steps."""
    faces, chosen, used = opened(tars, tmp_path), settings("default"), {}
    once = np.array(faces.table)
    for repeats in (200, 200_000):
        table = tmp_path / f"{repeats}.table"
        with open(table, "wb") as file:
            for _ in range(repeats // 200):
                file.write(np.tile(once, (200, 1)).tobytes())
        faces.table = np.memmap(table, np.int64, "r").reshape(-1, 3)
        tracemalloc.start()
        views = Batches(faces.faces(), chosen.augment, L68.flip_index, 0, 0, recipes(chosen.augment, chosen.views))
        for index in np.linspace(0, len(views) - 1, 20).astype(int).tolist():
            key = np.zeros(1, int), np.array([index])
            assert reduce(pixels, views.changes(*key, chosen.augment), views.pictures(key[1])).shape == (1, 64, 64, 3)
        used[len(views)] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    small, large = used.values()
    assert list(used) == [1200, 1_200_000] and large < small + 100_000  # bytes


# --------------------------------------------------------------------------------------------------------- batches
@pytest.mark.parametrize("steps", ([], ["translation", "rotation", "flip"]), ids=("ours", "published"))
def test_a_batch_holds_labelled_faces_and_unlabelled_views(tars, tmp_path, faces, steps):
    some = load_splits([split_of(faces)], L68, 64, 0)
    chosen = settings(
        "default",
        rotation=90.0,
        scale=0.2,
        batch_size=8,
        unlabelled_share=0.25,
        epoch_steps=7,
        accumulate=2,
        steps=steps,
    )
    both = recipes(chosen.augment, chosen.views)
    hidden = load_splits([split_of(faces)._replace(labelled=False)], L68, 64, 0)
    assert (
        np.isnan(hidden["landmarks"][:]).all() and np.isnan(hidden.nominal()).all() and not hidden["visible"][:].any()
    )
    joined = Faces.join([some, hidden, opened(tars, tmp_path).faces()])
    batches = Batches(joined, chosen.augment, L68.flip_index, 0, len(some), both)
    order = make_order(len(joined), len(some), chosen.train)
    assert order.batch == 8 and len(order) == 14 == len(list(order.epochs(0, 1)))
    numbers, indices = next(order.epochs(0, 1))
    batch = batches[numbers, indices]
    assert batch.images.shape == (8, 64, 64, 3) and batch.labels.landmarks.shape == (6, 68, 2)
    assert batch.labels.weak.images.shape == (2, 64, 64, 3) and batches.name(len(joined) - 1).startswith(str(tars[1]))
    assert (batch.index[6:] >= len(some)).all() and (batch.index[:6] < len(some)).all()
    alone = Batches(some, chosen.augment, L68.flip_index, 0)[numbers[:6], indices[:6]]  # as without the unlabelled ones
    assert torch.equal(batch.images[:6], alone.images) and torch.equal(batch.labels.landmarks, alone.labels.landmarks)
    last = batches[numbers[6:], np.array([len(joined) - 1, len(some) + 5])]  # of a shard, and of a prepared set
    assert last.images.shape == (2, 64, 64, 3) and (last.images != last.labels.weak.images).any()
    # the matrix leads from the weak crop to the strong one: the true landmarks, seen through both warps, agree
    key = np.full(4, 3), np.arange(4)
    view = Batches(some, chosen.augment, L68.flip_index, 0, 0, both)[key].labels.weak
    weak, strong = (
        labels_of(some, key[1], made, range(68))[0]
        for made in (
            batches_of.changes(*key, recipe, view=number)
            for batches_of, recipe, number in (
                (Batches(some, None, None, 0), both.weak, 1),
                (Batches(some, None, None, 0), both.strong, 0),
            )
        )
    )
    there = weak @ view.matrix.numpy()[:, :, :2].swapaxes(1, 2) + view.matrix.numpy()[:, None, :, 2]
    inside = (
        (np.abs(there - 0.5) < 0.5) & (np.abs(weak - 0.5) < 0.5) & (np.abs(strong - 0.5) < 0.5)
    )  # steps may clip the others
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


def test_a_member_that_claims_more_than_a_picture_has_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        entry = tarfile.TarInfo("a.png")
        entry.size = 13 << 30
        tar.addfile(entry)
    refuses("a.tar: a.png has 13958643712 bytes", opened, [tmp_path / "a.tar"], tmp_path)
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("a.png")
        entry.size, entry.pax_headers = (
            512,
            {
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": "a.png",
                "GNU.sparse.realsize": str(13 << 30),
            },
        )
        tar.addfile(entry, io.BytesIO(b"0\n".ljust(512, b"\0")))
    refuses("a.tar.*a.png", opened, [tmp_path / "a.tar"], tmp_path)
