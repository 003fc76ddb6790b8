"""Faces of prepared sets: their crops and labels."""

import shutil
import time

import cv2
import numpy as np
import pytest
import torch
import yaml
from conftest import LAYOUTS, refuses, rewrite, sets_of, settings, split_of, write_faces

from extras.shared.pts import read_pts, write_pts
from utils.data.batches import Batches
from utils.data.faces import CropGeometry, Faces, Part, constant
from utils.data.prepare import DataGenerator
from utils.data.prepared_set import load_splits
from utils.task.task_data import load_faces, prepare
from utils.train.ranks import start_ranks

L68, L12 = LAYOUTS.load("68"), LAYOUTS.load("12")


def opened(folder, split="train", layout=L68, size=64, cache=4.0, label_shift=0.0, **options) -> Faces:
    return load_splits([split_of(folder, split, label_shift)], layout, size, cache, **options)


# --------------------------------------------------------------------------------------------------------------- faces
@pytest.mark.parametrize("size", (32, 64, 96))
def test_faces_are_the_nominal_crops(faces, size):
    several, table = opened(faces, size=size), split_of(faces).set.read("train")
    image, landmarks, visible = several.plain_crop(7), several["nominal"][7], several["known"][7]
    assert (
        len(several) == 36
        and image.shape == (size, size, 3)
        and image.dtype == np.uint8
        and landmarks.dtype == np.float32
    )
    assert visible.all() and several.crop(7).shape[0] == size + 2 * several.geometry.border
    corner, side = table["crop"][7][:2], table["crop"][7][2:] - table["crop"][7][:2]
    assert np.abs(landmarks - (table["landmarks"][7] - corner) / side).max() < 1e-6
    stored = cv2.imdecode(np.frombuffer(table.encoded(7), np.uint8), cv2.IMREAD_COLOR)
    if size == 64:
        assert np.array_equal(several.crop(7), stored) and np.array_equal(image, stored[8:-8, 8:-8])
    middle = cv2.resize(stored[8:-8, 8:-8], (size, size), interpolation=cv2.INTER_AREA)
    assert np.abs(middle.astype(float) - image).mean() < 12


def test_faces_from_disk_equal_those_in_memory(faces):
    memory, disk = opened(faces, size=32), opened(faces, size=32, cache=0.0)
    assert memory.parts[0].crop.__self__.shape == (36, 40, 40, 3) and not hasattr(disk.parts[0].crop, "__self__")
    assert all(np.array_equal(memory.crop(i), disk.crop(i)) for i in range(len(memory)))


def test_ten_million_faces_open_within_a_second():
    count, landmarks = 5 * 10**6, np.random.default_rng(0).random((68, 2)) * 90
    columns = {"landmarks": constant(landmarks, count), "crop": constant(np.array([0.0, 0, 90, 90]), count)}
    part, began = Part(columns, crop=lambda row: None, jpeg=lambda row: b""), time.process_time()
    both = Faces.join([Faces.of(part, CropGeometry(64), {})] * 2).cached(1.0)
    assert time.process_time() - began < 1 and len(both) == 10**7
    row = both.read("nominal", "known", rows=np.array([7, 10**7 - 1]))
    assert np.allclose(row["nominal"], landmarks / 90) and row["known"].all()


def test_a_face_is_large_enough_if_both_sides_of_its_box_are(faces, tmp_path):
    folder = shutil.copytree(faces, tmp_path / "boxes")
    box = np.tile([10.0, 10, 70, 70], (36, 1))
    box[3], box[5] = (10, 10, 59, 90), (10, 10, 90, 59)
    rewrite(folder, "train", box=box)
    chosen = settings(input_size=64, least_box=50.0, train_data=[str(folder)])
    loaded = load_faces(prepare(sets_of(chosen), start_ranks(), True, False))[0]
    assert list(loaded["file"]) == [
        name for i, name in enumerate(split_of(folder).set.read("train")["file"]) if i not in (3, 5)
    ]


def test_a_subset_of_the_landmarks(faces):
    whole, eyes = opened(faces), opened(faces, layout=L12)
    assert np.array_equal(eyes["nominal"], whole["nominal"][:, 36:48]) and np.array_equal(eyes["box"], whole["box"])


def test_several_splits_are_one(faces):
    both = load_splits([split_of(faces), split_of(faces, "val")], L68, 64, 4.0)
    held = opened(faces, "val")
    place = list(both["file"]).index(held["file"][0])  # among the others, as in the archive
    assert len(both) == 40 and len(set(both["file"])) == 40 and np.array_equal(both.crop(place), held.crop(0))


def test_hidden_and_unknown_landmarks(tmp_path):
    folder = write_faces(tmp_path / "raw", 4)
    for file in folder.glob("*.pts"):
        landmarks = read_pts(file)
        landmarks[3] = np.nan if file.stem != "face00" else landmarks[3]
        write_pts(file, landmarks)
    prepared = DataGenerator(folder, 32, out=tmp_path / "data", val=0).run()
    assert not (prepared / "train" / "visible.npy").exists() and np.isnan(opened(prepared, size=32)["visible"][:]).all()
    rewrite(prepared, "train", visible=np.arange(4 * 68).reshape(4, 68) >= 5)
    several = opened(prepared, size=32)  # landmarks that are annotated but hidden are trained
    assert several["known"][0].sum() == 68 and several["visible"][0].tolist() == [0.0] * 5 + [1.0] * 63
    assert (several["known"][1:].sum(1) == 67).all() and np.isnan(several["visible"][1:, 3]).all()
    batch = Batches(several, settings("default").augment, L68.flip_index, 0)[np.zeros(4, int), np.arange(4)]
    assert torch.isfinite(batch.labels.packed).all() and batch.labels.weight.sum() == 68 + 3 * 67


def test_sets_that_do_not_go_together_are_named(faces, tmp_path):
    refuses("68 landmarks .*layout 98", opened, faces, layout=LAYOUTS.load("98"))
    other = tmp_path / "other"
    shutil.copytree(faces, other)
    meta = yaml.safe_load((other / "meta.yaml").read_text())
    (other / "meta.yaml").write_text(yaml.safe_dump({**meta, "margin": 1.5}))
    refuses("other.*protocol", load_splits, [split_of(faces), split_of(other)], L68, 64, 4.0)
