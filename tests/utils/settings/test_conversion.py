"""Conversion between layouts: each formula, faces that show one half, and nets tested on sets of another layout."""

import shutil
from dataclasses import replace

import archives
import numpy as np
import pytest
import torch
from conftest import LAYOUTS, table
from hypothesis import given, settings
from hypothesis import strategies as st

from nets import build_net
from nets.labels import Prediction
from utils.evaluate.evaluate import comparison_of
from utils.settings.conversion import RULES, conversion
from utils.settings.union import Labelled
from utils.train import checkpoint

KNOWN = {name: LAYOUTS.load(name) for rule in RULES for name in rule}


def numbered(count: int) -> np.ndarray:
    """Return landmarks (count, 2), number i at (i, 1000 + i^2), so that a mean identifies its landmarks."""
    index = np.arange(count, dtype=float)
    return np.column_stack([index, 1000 + index**2])


def test_98_to_68():
    points = numbered(98)
    found = conversion("98", "68", LAYOUTS)(points)
    assert np.array_equal(found[:17], points[0:33:2])
    assert np.array_equal(found[[17, 26]], points[[33, 46]])
    for to, upper, lower in [
        (18, 34, 41),
        (19, 35, 40),
        (20, 36, 39),
        (21, 37, 38),
        (22, 42, 50),
        (23, 43, 49),
        (24, 44, 48),
        (25, 45, 47),
    ]:
        assert np.array_equal(found[to], [points[upper, 0], (points[upper, 1] + points[lower, 1]) / 2])
    assert np.array_equal(found[27:36], points[51:60]) and np.array_equal(found[48:], points[76:96])
    for begin, to in [(60, 36), (68, 42)]:
        own = points[begin : begin + 8]
        lids = [
            own[0],
            (2 * own[1] + own[2]) / 3,
            (2 * own[3] + own[2]) / 3,
            own[4],
            (2 * own[5] + own[6]) / 3,
            (2 * own[7] + own[6]) / 3,
        ]
        assert np.allclose(found[to : to + 6], lids)


def test_106_to_98_and_68():
    points = numbered(106)
    found = conversion("106", "98", LAYOUTS)(points)
    assert found[:, 0].tolist() == [*range(55), 58, 59, 60, 61, 62, *range(66, 74), *range(75, 83), *range(84, 106)]
    assert np.allclose(conversion("106", "68", LAYOUTS)(points), conversion("98", "68", LAYOUTS)(found))


def test_68_to_29_and_5():
    points = numbered(68)
    found = conversion("68", "29", LAYOUTS)(points)
    # the lower edges of the brows, which layout 68 lacks
    assert np.flatnonzero(np.isnan(found).any(1)).tolist() == [5, 7]
    assert np.allclose(found[[0, 8, 16, 20, 21, 28], 0], [17, 36, 38.5, 30, 33, 8])
    assert np.allclose(conversion("68", "5", LAYOUTS)(points)[:, 0], [38.5, 44.5, 30, 48, 54])
    whole = conversion("98", "29", LAYOUTS)(numbered(98))
    assert np.flatnonzero(np.isnan(whole).any(1)).tolist() == [5, 7] and np.allclose(whole[[8, 28], 0], [60, 16])


PROFILE = {
    17: 28,
    18: 29,
    19: 30,
    20: 31,
    21: 34,
    22: 32,
    23: 39,
    24: 38,
    25: 37,
    26: 42,
    27: 41,
    28: 52,
    29: 51,
    30: 50,
    31: 49,
    32: 60,
    33: 59,
    34: 58,
    35: 63,
    36: 62,
    37: 61,
    38: 68,
    39: 67,
    1: 1,
    10: 9,
    13: 18,
    16: 22,
}  # counted from 1


def profile() -> np.ndarray:
    """Return landmarks (39, 2) of a face that shows the half on the left of the image."""
    points = np.random.default_rng(0).uniform(0, 100, (39, 2))
    points[[24, 20, 30]] = (20, 40), (70, 60), (45, 80)
    return points


@settings(max_examples=30)
@given(st.floats(-1.4, 1.4), st.booleans())
def test_39_to_68(angle, mirrored):
    points, turn = profile(), np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = points @ turn.T * ((-1, 1) if mirrored else (1, 1))
    found = conversion("39", "68", LAYOUTS)(points)
    flip = KNOWN["68"].flip_index
    for here, there in PROFILE.items():
        assert np.allclose(found[flip[there - 1] if mirrored else there - 1], points[here - 1]), (here, there)
    told = {there - 1 for there in PROFILE.values()} | {*range(9), *range(17, 22)}
    assert set(np.flatnonzero(~np.isnan(found).any(1))) == ({flip[i] for i in told} if mirrored else told)
    jaw, brow = (16, 12), (26, 24)
    places = (jaw, brow) if mirrored else ((0, 4), (17, 19))
    assert np.allclose(found[places[0][1]], points[4:6].mean(0)) and np.allclose(
        found[places[1][1]], points[13:15].mean(0)
    )


@pytest.mark.parametrize("pair", [*RULES, ("106", "68"), ("98", "29"), ("106", "5")])
def test_a_mirrored_face_converts_to_the_mirrored_face(pair):
    source, target = (KNOWN[name] for name in pair)
    convert = conversion(*pair, LAYOUTS)
    points = profile() if pair[0] == "39" else np.random.default_rng(1).uniform(0, 100, (source.count, 2))

    def mirror(values, layout):
        return (values * (-1, 1))[list(layout.flip_index)]

    both = np.stack([points, mirror(points, source)])
    found = convert(both)
    assert found.shape == (2, target.count, 2)
    assert np.allclose(found[1], mirror(found[0], target), equal_nan=True)
    assert np.allclose(convert(points), found[0], equal_nan=True)
    moved = convert(points * 3 + (7, -5))  # weights sum to one
    assert np.allclose(moved, found[0] * 3 + (7, -5), equal_nan=True)


def test_unknown_and_hidden_landmarks_stay_so():
    convert, points = conversion("98", "68", LAYOUTS), numbered(98)
    points[[62, 96]] = np.nan
    assert np.flatnonzero(np.isnan(convert(points)).any(1)).tolist() == [37, 38]
    visible = np.ones(98, bool)
    visible[[41, 0]] = False
    assert np.flatnonzero(~convert.flags(points, visible)).tolist() == [0, 18]
    half = conversion("39", "68", LAYOUTS)
    assert np.array_equal(half.flags(profile(), np.ones(39, bool)), ~np.isnan(half(profile())).any(1))


def test_no_way_back():
    assert all(conversion(*pair, LAYOUTS) is None for pair in (("68", "98"), ("29", "68"), ("mine", "68")))


def test_converted_mean_faces_resemble_the_published_ones(reference):
    sets = {"68": "300w", "98": "wflw", "106": "lapa", "29": "cofw", "19": "aflw"}
    means = {layout: np.loadtxt(reference / "meanface" / f"{name}.txt").reshape(-1, 2) for layout, name in sets.items()}
    for pair in [("98", "68"), ("106", "98"), ("106", "68"), ("68", "29"), ("98", "29"), ("29", "19"), ("68", "19")]:
        found = conversion(*pair, LAYOUTS)(means[pair[0]])
        told = ~np.isnan(found).any(1)
        there, ones = means[pair[1]][told], np.ones((told.sum(), 1))
        affine = np.linalg.lstsq(np.hstack([found[told], ones]), there, rcond=None)[0]  # the sets' boxes differ
        assert np.linalg.norm(np.hstack([found[told], ones]) @ affine - there, axis=1).mean() < 0.025, pair


# ----------------------------------------------------------------------------------------- nets tested on other layouts
def test_a_net_is_tested_on_sets_of_other_layouts(trained, tmp_path, cli):
    run = shutil.copytree(trained.folder, tmp_path / "run")
    stored = checkpoint.load(run / "best.pt")
    stored["net"]["auxiliary"], stored["args"]["eyes"] = ["states"], 0.8  # states follow from 68 landmarks only
    other = build_net(stored["net"]).auxiliary.state_dict()
    stored["model"] |= {f"auxiliary.{name}": tensor for name, tensor in other.items()}
    checkpoint.save(run / "best.pt", stored)
    sets = {
        name: archives.prepared(name, make(tmp_path)[0], tmp_path / "data")
        for name, make in (
            ("wflw", archives.wflw),
            ("cofw", archives.cofw),
            ("300vw", archives.vw),
            ("menpo-profile", archives.menpo),
        )
    }
    done = cli("--test --exp", f"{run}/", "--test-data", *sets.values(), "--norm diagonal")
    assert done.returncode == 0, done.stderr
    assert "wflw, 98 as 68, torch: left eye closed" in done.stderr and "as 29:27, torch: left" not in done.stderr
    found = {row[0]: row for row in table(done.stdout)}
    assert (
        found["wflw, 98 as 68"][2] == found["cofw, net 68 as 29:27"][2] == "3"
        and found["menpo-profile, 39 as 68"][2] == "1"
    )
    assert found["wflw, 98 as 68"][-1] == "" and float(found["300vw"][-1]) >= 0 and "category3" in found  # of frames
    assert (run / "report/faces_cofw.jpg").is_file()


def test_predictions_are_converted_as_landmarks_are(faces, tmp_path):
    way = comparison_of(KNOWN["98"], Labelled("own", "68"), LAYOUTS)
    assert way.layout == KNOWN["68"]
    given = torch.from_numpy(np.random.default_rng(0).uniform(0, 1, (3, 98, 2))).float()
    found = way(lambda _: Prediction(given, given[..., 0], given[..., 1]))(torch.zeros(3))
    assert np.allclose(found.landmarks, conversion("98", "68", LAYOUTS)(given.double().numpy()), atol=1e-6)
    assert torch.allclose(found.score[:, 0], given[:, 0, 0]) and torch.allclose(found.sigma[:, 8], given[:, 16, 1])
    assert comparison_of(KNOWN["68"], Labelled("own", "98"), LAYOUTS).layout is KNOWN["68"]  # the faces are converted
    assert comparison_of(LAYOUTS.load("12"), Labelled("own", "98"), LAYOUTS).layout.name == "12"
    for name in ("68", "68-faces68"):  # the second one is that of a set with a convention of its own
        assert comparison_of(replace(KNOWN["68"], name=name), Labelled("own", "29"), LAYOUTS).layout.count == 27


def test_two_rows_of_the_same_points_are_one_layout():
    """Such as those that were made from the names of two folders; a net of one is compared with labels of the other."""
    row = {"count": 2, "flip_index": [1, 0], "groups": {"left_eye": [0], "right_eye": [1]}}
    rows = {"one": row, "two": {**row, "same_as": {"68": {0: 36}}}, "third": {**row, "groups": {"eyes": [0, 1]}}}
    layouts = LAYOUTS.with_rows(rows)
    assert layouts.same("one", "two") and layouts.same("68", "68") and not layouts.same("one", "third")
    assert not layouts.same("one", "unknown")
    ways = [comparison_of(layouts.load("one"), Labelled("set", name), layouts) for name in ("two", "third")]
    assert ways[0] is not None and ways[0].layout.name == "one" and ways[1] is None
