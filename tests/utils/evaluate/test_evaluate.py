"""The evaluation of predictions, with any number of processes, and the rows of subsets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import LAYOUTS, mean_face, refuses, split_of

from nets.labels import Prediction
from utils.data.batches import plain as crops_of
from utils.data.faces import Faces
from utils.data.prepared_set import load_splits
from utils.evaluate.evaluate import Result, calibration, evaluate, subset_rows

L68 = LAYOUTS.load("68")


def faces_of(folder) -> Faces:
    return load_splits([split_of(folder, "test")], L68, 64, 4.0)


class Shared:
    """Ranks that run one after another: the last one sees the sums of all."""

    def __init__(self, rank: int, count: int, sums: dict):
        self.rank, self.count, self.device, self.sums, self.calls = rank, count, torch.device("cpu"), sums, 0

    def __getitem__(self, part):
        return (self.rank, self.count, self.device)[part]

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        self.sums[self.calls] = self.sums.get(self.calls, 0) + tensor
        self.calls += 1
        return self.sums[self.calls - 1]


def guess(images: torch.Tensor) -> Prediction:
    """Return the mean face, shifted by the picture's colour."""
    shift = images.float().mean((1, 2))[:, None, :2] / 2550
    landmarks = torch.tensor(mean_face(), dtype=torch.float32) * 0.8 + 0.1 + shift
    return Prediction(landmarks, shift[..., 0].expand(-1, 68))


def test_evaluation_by_hand(faces):
    several, shift = faces_of(faces), torch.tensor([0.03, -0.04])
    whole = crops_of(several, np.arange(8))
    truth = {
        image.numpy().tobytes(): landmarks
        for image, landmarks in zip(whole.images, whole.labels.landmarks, strict=True)
    }

    def oracle(images):
        landmarks = torch.stack([truth[image.numpy().tobytes()] for image in images])
        return Prediction(landmarks + shift, torch.ones(len(images), 68))

    result = evaluate(oracle, several, L68, "interocular", 3)
    side = several["crop"][:, 2] - several["crop"][:, 0]  # square crops
    eyes = np.linalg.norm(several["landmarks"][:, 36] - several["landmarks"][:, 45], axis=1)
    assert np.allclose(result.nme, 100 * 0.05 * side / eyes, rtol=1e-5) and np.allclose(
        result.crop_nme, result.nme, rtol=1e-4
    )
    assert np.allclose(result.landmarks - several["landmarks"], side[:, None, None] * (0.03, -0.04), atol=1e-3)
    assert result.groups.keys() == L68.groups.keys()
    assert all(np.allclose(values, result.nme, rtol=1e-5) for values in result.groups.values())
    refuses(
        "not finite",
        evaluate,
        lambda images: oracle(images)._replace(landmarks=torch.full((len(images), 68, 2), torch.nan)),
        several,
        L68,
        "interocular",
        3,
    )
    refuses("interpupil", evaluate, guess, several, replace(L68, pupils=None), "interpupil", 8)
    several = several.with_columns(landmarks=several["landmarks"][:, :1].repeat(68, 1))
    refuses("interocular", evaluate, guess, several, L68, "interocular", 8)


@pytest.mark.parametrize(("count", "many"), [(2, 8), (3, 8), (3, 2)])
def test_evaluation_on_several_processes_equals_one(faces, count, many):
    several, sums = faces_of(faces).only(np.arange(many)), {}
    one = evaluate(guess, several, L68, "interocular", 3)
    for rank in range(count):
        shared = evaluate(guess, several, L68, "interocular", 3, Shared(rank, count, sums))
    for name in ("landmarks", "score", "nme", "crop_nme"):
        assert np.array_equal(getattr(one, name), getattr(shared, name)), name
    assert all(np.array_equal(one.groups[name], shared.groups[name]) for name in one.groups)


def test_the_flip_test_averages_what_differs_in_mirror_images_but_the_offset_of_the_labels(faces):
    """A net that finds the labels 3 px to the right of what they mark, and the jaw too far to the left."""
    several = faces_of(faces)
    crops = [several.plain_crop(i) for i in range(len(several))]
    place = {image.tobytes(): i for i, crop in enumerate(crops) for image in (crop, crop[:, ::-1])}
    nominal, width = (
        torch.from_numpy(several["nominal"]),
        torch.from_numpy(several["crop"][:, 2] - several["crop"][:, 0]),
    )

    def seen(images: torch.Tensor) -> Prediction:
        found = []
        for image in images.numpy():
            i = place[image.tobytes()]
            straight = Prediction((nominal[i] - torch.stack([3 / width[i], width[i] * 0]))[None], torch.ones(1, 68))
            truth = straight if (image == crops[i]).all() else straight.flip(L68)
            found.append(truth.landmarks[0] + torch.stack([3 / width[i], width[i] * 0]))
            found[-1][:17, 0] -= 0.05
        return Prediction(torch.stack(found), torch.ones(len(images), 68))

    plain, flipped = (evaluate(seen, several, L68, "interocular", 3, flip_test=flip) for flip in (False, True))
    assert plain.groups["jaw"].min() > 5 and np.allclose(plain.groups["nose"], 0, atol=1e-4)
    assert np.allclose(flipped.nme, 0, atol=1e-4)


def test_the_limit_of_landmark_scores_and_the_factor_of_expected_errors_by_hand():
    """Of 20 faces, 95 % reach the score 1.95 / 20."""
    number, none = np.arange(1, 21), np.zeros((20, 2))
    landmarks = np.tile([[0.0, 0], [100, 25]], (20, 1, 1))  # of size 50
    result = Result(landmarks, number[:, None] / 20 + none, none, none, {}, none, number[:, None] / 10 + none, none)
    assert result.face_limit(np.ones(3)) == pytest.approx(0.95 * 1.95 / 20)
    errors = np.where(number[:, None] > 1, 0.3 + none, np.nan)
    assert calibration([result._replace(errors=errors)]) == pytest.approx(0.3 / (np.arange(2, 21).mean() / 10))


def test_rows_of_subsets():
    rows = subset_rows(["common/a", "common/b", "challenge/c", "common/a"])
    counts = {name: mask.sum() for name, mask in rows.items()}
    assert counts == {"full": 4, "challenge": 1, "common": 3, "common/a": 2, "common/b": 1}
    assert list(subset_rows(["all", "all"])) == ["full"]
    several = subset_rows(["test//blur//pose", "test", "test//pose"])
    assert {name: mask.tolist() for name, mask in several.items()} == {
        "full": [True] * 3,
        "blur": [True, False, False],
        "pose": [True, False, True],
    }
    assert list(subset_rows(["test//blur//pose", "test", "test//pose"], ("test", "pose", "blur"))) == [
        "full",
        "pose",
        "blur",
    ]
    published = ("afw", "common/helen", "common/lfpw", "challenge/ibug")
    several = ["common/lfpw", "challenge/ibug", "common/helen"]
    assert list(subset_rows(several, published)) == ["full", "common", "challenge", "common/helen", "common/lfpw"]
