"""Random numbers as functions of their keys, the changes drawn from them, and what they do to labels."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from conftest import mean_face, settings
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.stats import kstest

from utils.data.changes import (
    DRAWS,
    IN_PLACE,
    LUMA,
    NUMBERS,
    OUT_OF_PLACE,
    Change,
    changes,
    exchanged,
    hidden,
    in_place,
    misplaced,
    moved,
    shapes,
    turned,
    uniforms,
    whole_matrix,
)
from utils.data.faces import CropGeometry

DEFAULT = settings("default").augment
PLAIN = replace(DEFAULT, **{key: 0.0 for key, value in asdict(DEFAULT).items() if isinstance(value, float)})
FIELD = CropGeometry(64, 8)


def draw(recipe, count: int = 4000, field: CropGeometry = FIELD, number: int = 0) -> Change:
    return changes(uniforms(0, number, np.arange(count), DRAWS), recipe, field)


# ------------------------------------------------------------------------------------------------------------- numbers
def test_numbers_are_functions_of_seed_pass_index_and_column():
    indices = np.array([5, 7, 5, 10**7])
    whole = uniforms(3, 2, indices, 50)
    assert np.array_equal(whole[0], whole[2]) and np.array_equal(whole[:, :9], uniforms(3, 2, indices, 9))
    assert np.array_equal(whole[1:2], uniforms(3, 2, indices[1:2], 50))
    passes = uniforms(3, np.array([2, 4, 2, 2]), indices, 50)
    assert np.array_equal(passes[[0, 2, 3]], whole[[0, 2, 3]]) and np.array_equal(
        passes[1:2], uniforms(3, 4, indices[1:2], 50)
    )
    assert (uniforms(2**63 - 1, 0, indices, 5) >= 0).all()
    keys = [uniforms(seed, number, np.arange(4), 3) for seed in range(4) for number in range(4)]
    assert len(np.unique(keys)) == 4 * 4 * 4 * 3, "a number is drawn twice"


def test_numbers_are_uniform_and_neighbours_are_independent():
    """Seeds, passes, indices and columns next to each other, and far ones; 800,000 numbers in all."""
    seeds, passes = (0, 1, 2, 2**40, 2**62), (0, 1, 2, 1000)
    u = np.stack([[uniforms(seed, number, np.arange(1000), 40) for number in passes] for seed in seeds])
    assert 0 <= u.min() and u.max() < 1 and kstest(u.ravel()[::4], "uniform").pvalue > 1e-3
    for axis, name in enumerate(("seed", "pass", "index", "column")):
        one, other = (u.take(part, axis).ravel() - 0.5 for part in (range(u.shape[axis] - 1), range(1, u.shape[axis])))
        assert abs((one * other).mean() * 12) < 4 / len(one) ** 0.5, name
        means = u.mean(tuple({0, 1, 2, 3} - {axis}))
        assert np.abs(means - 0.5).max() * (12 * u.size / len(means)) ** 0.5 < 4.5, name


# ------------------------------------------------------------------------------------------------------------- changes
def test_changes_are_distributed_as_the_section_says():
    recipe = replace(
        PLAIN,
        rotation=30.0,
        rotation_prob=0.5,
        scale=0.2,
        translation=0.1,
        translation_prob=0.25,
        flip=0.3,
        gamma=2.0,
        blur=0.6,
        blur_sigma=4.0,
        noise=0.7,
        noise_sigma=10.0,
        noise_size=16.0,
        occlusion=0.8,
        occlusion_size=0.5,
        interpolation="random",
    )
    made = draw(recipe, 8000)
    linear = made.matrix[..., :2] * np.where(made.mirrored, -1, 1)[:, None, None] ** [[1], [0]]
    angle, zoom = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 1, 1])), np.linalg.det(linear) ** 0.5
    centre = made.matrix[..., :2] @ (32, 32) + made.matrix[..., 2] - 32
    assert np.isclose(angle, 0).mean() == pytest.approx(0.5, abs=0.03) and made.mirrored.mean() == pytest.approx(
        0.3, abs=0.03
    )
    still = np.isclose(centre, 0).all(1)
    assert still.mean() == pytest.approx(0.75, abs=0.03)
    lively = [made.blur > 0, made.grain[:, 0] > 0, made.box[:, 2] > 0]
    for values, low, high in [
        (angle[~np.isclose(angle, 0)], -30, 30),
        (zoom, 0.8, 1.2),
        (centre[~still].ravel(), -6.4, 6.4),
        (np.log2(made.gamma), -1, 1),
        (made.blur[lively[0]], 0.05, 1),
        (made.grain[lively[1], 0], 0, 10),
        (made.grain[:, 1], 1, 4),
        (made.grain[:, 2], 0, 2**31),
        (made.shade.ravel() + 0.5, 0, 256),
    ]:
        assert low <= values.min() and values.max() <= high
        values = values + np.random.default_rng(0).uniform(-0.5, 0.5, len(values)) * (high == 256)
        assert kstest(values, "uniform", (low, high - low)).pvalue > 1e-3, (low, high)
    assert [part.mean() for part in lively] == pytest.approx([0.6, 0.7, 0.8], abs=0.03)
    box = made.box[lively[2]]
    assert (
        box[:, 2:].min() == 1
        and box[:, 2:].max() == 32
        and box[:, :2].min() == 0
        and (box[:, :2] + box[:, 2:]).max() <= 64
    )
    assert np.bincount(made.interpolation)[[0, 1, 2]].min() > 2400
    # a net with an input margin: the same warp, the rest on what it sees
    wide = draw(recipe, 8000, FIELD._replace(seen=32))
    assert np.array_equal(wide.matrix, made.matrix) and np.allclose(wide.blur, 2 * made.blur)
    assert (made.size, made.seen, made.side, wide.side) == (64, 80, 64, 128)
    assert draw(replace(recipe, fill="black")).seen == 64 and draw(replace(recipe, fill="grey")).fill == 127


def test_faces_are_turned_by_any_angle():
    """With the given probability, instead of by the ordinary rotation, and without a change of any other draw."""
    recipe = replace(PLAIN, scale=0.15, translation=0.08, rotation=30.0, rotation_prob=1.0, translation_prob=1.0)
    plain, rolled, half = (
        draw(replace(recipe, **given), 400).matrix
        for given in ({}, {"roll_prob": 1.0}, {"roll_prob": 0.5, "rotation_prob": 0.5})
    )
    angles = [np.degrees(np.arctan2(-part[:, 0, 1], part[:, 1, 1])) for part in (plain, rolled, half)]
    assert np.abs(angles[0]).max() <= 30 and np.histogram(angles[1], 6, (-180, 180))[0].min() > 40
    assert np.allclose(angles[0] / 30, angles[1] / 180)
    assert np.allclose(np.linalg.det(plain[..., :2]), np.linalg.det(rolled[..., :2]))
    same = np.isclose(angles[2], angles[1])  # half are turned by any angle, a quarter by the ordinary rotation
    assert 160 < same.sum() < 240 and 70 < np.isclose(angles[2], 0).sum() < 130
    assert np.allclose(angles[2][~same], np.where(np.isclose(angles[2], 0), 0, angles[0])[~same])


def test_colours_change_as_the_section_says():
    grey, blue = np.full(4, 128.0), np.array([200.0, 0, 0, 1])
    grey[3] = 1

    def applied(pixel, **given):
        return draw(replace(PLAIN, **given)).colour @ pixel

    light = applied(grey, colour_prob=1.0, brightness=0.2)
    assert kstest(light[:, 0] - 128, "uniform", (-51, 102)).pvalue > 1e-3 and np.allclose(light, light[:, :1])
    # none of these moves mid-grey
    assert np.allclose(applied(grey, colour_prob=1.0, contrast=0.5, saturation=0.5, hue=0.1), 128)
    steep = applied(blue, colour_prob=1.0, contrast=0.4)
    assert kstest((steep[:, 0] - steep[:, 1]) / 200, "uniform", (0.6, 0.8)).pvalue > 1e-3
    vivid = applied(blue, colour_prob=1.0, saturation=0.5)
    assert np.allclose(vivid @ LUMA, 200 * LUMA[0])
    assert kstest((vivid[:, 0] - vivid[:, 1]) / 200, "uniform", (0.5, 1)).pvalue > 1e-3
    hue = applied(blue, colour_prob=1.0, hue=0.1) - 200 / 3
    turn = np.arccos(np.clip(hue @ (blue[:3] - 200 / 3) / (hue**2).sum(1), -1, 1)) / (2 * np.pi)
    assert np.allclose(hue.sum(1), 0) and kstest(turn, "uniform", (0, 0.1)).pvalue > 1e-3
    dark = applied(np.array([20.0, 90, 150, 1]), infrared=1.0)
    assert np.allclose(dark, dark[:, :1]) and sorted(set(dark[:, 0] - 20)) == list(range(10, 90))
    colourless = applied(np.array([20.0, 90, 150, 1]), grayscale=0.5)
    assert np.isclose(colourless, LUMA @ (20, 90, 150)).all(1).mean() == pytest.approx(0.5, abs=0.03)
    assert np.allclose(applied(blue, grayscale=1.0), 200 * 0.114)  # of BGR
    assert np.array_equal(draw(replace(PLAIN, colour_prob=0.3, hue=0.2)).colour[:, :, 3] == 0, np.ones((4000, 3)))
    assert draw(PLAIN).colour is None


def test_shadows_and_the_ends_of_pictures_are_drawn_as_the_section_says():
    made = draw(replace(PLAIN, shadow=0.5, edge=0.4), 4000)
    dark = (made.light[:, 1] != 1).any(1)
    depth = made.light[:, 0] @ np.stack(np.broadcast_arrays(*np.ogrid[0.5:64:8, 0.5:64:8], 1)).reshape(3, -1)
    assert (
        dark.mean() == pytest.approx(0.5, abs=0.03)
        and 0 <= made.light[:, 1].min() < 0.01
        and made.light[:, 1].max() == 1
    )
    assert (depth[dark].min(1) < 0).mean() > 0.95 and (depth[dark].max(1) > 0).all(), (
        "one side of the face keeps its light"
    )
    low, high = np.split(made.source, 2, 1)
    cuts = (low > 0) | (high < 80)
    assert cuts.any(1).mean() == pytest.approx(0.4, abs=0.03) and low.max() <= 0.35 * 80 < 80 - high.min() + 1
    assert cuts.any(0).all() and (cuts.sum(1) == 2).mean() > 0.1
    depth = np.sort(np.concatenate([low, 80 - high], 1), 1)
    assert 0.17 * 80 < depth[:, -2].max() <= 0.35 * 80 / 2 < depth[:, -1].max(), "of two edges one is half as deep"


COLUMNS = {  # {row of NUMBERS: the columns that its numbers decide}
    "warp": {"matrix", "mirrored", "interpolation"},
    "colour": {"colour"},
    "blur": {"blur"},
    "noise": {"grain"},
    "occlusion": {"box", "shade", "shape"},
    "gamma": {"gamma"},
    "shadow": {"light"},
    "edge": {"source"},
    "shapes": {"box", "shape", "texture"},
}


def test_a_change_depends_on_its_own_numbers_and_keys():
    given = {"infrared": 0.2, "roll_prob": 0.1, "shadow": 0.3, "edge": 0.3, "occlusion": 0.5, "occlusion_shapes": 0.5}
    recipe = replace(DEFAULT, gamma=2.0, interpolation="random", **given)
    u, start = uniforms(0, 0, np.arange(50), DRAWS), 0
    whole = changes(u, recipe, FIELD)
    for name, count in NUMBERS.items():
        others = u.copy()
        others[:, start : start + count] = 1 - others[:, start : start + count]
        made = changes(others, recipe, FIELD)
        fields = {field for field, *pair in zip(Change._fields, made, whole, strict=True) if not np.array_equal(*pair)}
        assert fields == COLUMNS[name], name
        start += count
    assert start <= DRAWS
    alone = changes(u, replace(PLAIN, blur=recipe.blur, blur_sigma=recipe.blur_sigma), FIELD)
    assert np.array_equal(alone.blur, whole.blur) and alone.grain is None and (alone.matrix == np.eye(2, 3)).all()
    assert np.array_equal(changes(u[7:9], recipe, FIELD).matrix, whole.matrix[7:9])


# -------------------------------------------------------------------------------------------------------------- labels
def test_landmarks_go_where_the_map_says_and_labels_keep_their_shift():
    recipe = replace(PLAIN, flip=0.5, rotation=30.0, rotation_prob=1.0, scale=0.1)
    made, rng, partners = draw(recipe, 40), np.random.default_rng(0), [1, 0, 2]
    true, shift = rng.random((40, 3, 2)), rng.uniform(0, 0.05, 40)
    labels = true + shift[:, None, None] * (1, 0)
    found = moved(labels, shift, [made], partners)
    for row in range(40):
        # a mirrored label lies right of the mirrored point before the picture is turned
        lead = np.array([-1 if made.mirrored[row] else 1, 1]) * (shift[row], 0)
        expected = ((true[row] + lead) * 64) @ made.matrix[row, :, :2].T + made.matrix[row, :, 2]
        assert np.allclose(found[row] * 64, expected[partners] if made.mirrored[row] else expected)
    still = moved(labels, shift, [draw(replace(PLAIN, flip=1.0), 40)], partners)
    assert np.allclose(still, (true * (-1, 1) + (1, 0))[:, partners] + shift[:, None, None] * (1, 0))
    assert 0 < made.mirrored.sum() < 40 and np.array_equal(labels, true + shift[:, None, None] * (1, 0))


def test_landmarks_that_nobody_can_see():
    """Outside the picture, the source image or the crop, in a rectangle, in a shape, and in black shadow."""
    places = np.tile([[0.25, 0.25], [0.5, 0.5], [0.75, 0.25], [0.95, 0.5]], (6, 1, 1))
    made = Change(64, 80, 64, np.tile(np.eye(2, 3), (6, 1, 1)), np.zeros(6, bool))
    frame, nowhere = np.full((6, 4), np.nan), np.zeros((6, 4), int)
    frame[0], nowhere[1] = (0.4, 0, 1, 1), (12, 12, 8, 8)
    source, shape = np.tile([0.0, 0, 80, 80], (6, 1)), np.tile([[0, 0, 2.0], [0, 0, 2], [1, 0, 0]], (6, 1, 1))
    source[2] = (0, 0, 50, 80)
    shape[3:4] = shapes(np.array([[16, 16, 32, 32]]), np.array([[0.25, 0.3]]), np.ones(1, bool))
    light = np.tile([[[0.0] * 3, [1.0] * 3]], (6, 1, 1))
    light[4] = [[1, 0, -32], [0.01, 0.03, 0.02]]
    made = made._replace(box=nowhere, source=source, shape=shape, light=light)
    made.matrix[5, 0, 2] = 6
    found = hidden(places, frame, [made], 8)
    assert [np.flatnonzero(row).tolist() for row in found] == [[0], [0], [2, 3], [1], [2, 3], [3]]
    # with an input margin of 8 px, the middle of the crop is at 40 px, and what lies in the margin is seen
    boxes, places = np.array([[36, 36, 8, 8], [28, 28, 8, 8]]), np.tile([[0.5, 0.5], [1.1, 0.5], [1.2, 0.5]], (2, 1, 1))
    made = Change(64, 80, 80, np.tile(np.eye(2, 3), (2, 1, 1)), np.zeros(2, bool), box=boxes)
    found = hidden(places, np.full((2, 4), np.nan), [made], 8)
    assert found.tolist() == [[True, False, True], [False, False, True]]


def test_changes_one_after_another_are_one():
    first = draw(replace(PLAIN, flip=0.5, rotation=20.0, rotation_prob=1.0), 20)
    second = draw(replace(PLAIN, flip=0.5), 20, number=1)
    points, none = np.random.default_rng(0).random((20, 2, 2)), np.zeros(20)
    whole = whole_matrix([first, second])
    mapped = points * 64 @ whole[..., :2].swapaxes(1, 2) + whole[:, None, :, 2]
    assert np.allclose(exchanged(mapped / 64, [first, second], [1, 0]), moved(points, none, [first, second], [1, 0]))
    assert np.array_equal(np.linalg.det(whole[..., :2]) < 0, first.mirrored ^ second.mirrored)


@examples(max_examples=50)
@given(
    st.floats(-180, 180),
    st.floats(-1.2, 1.2),
    st.floats(0, 0.8),
    st.floats(0, 360),
    st.sets(st.integers(0, 67), min_size=3, max_size=68),
)
def test_a_face_is_in_its_place_by_roll_size_and_distance(roll, zoom, apart, side, seen):
    """Of a similarity of the mean face, whichever landmarks are known."""
    mean, (turn, way) = mean_face(), np.exp(1j * np.radians([roll, side]))
    known = np.isin(np.arange(68), list(seen))
    if np.ptp(mean[known], axis=0).min() < 0.05:
        return
    whole, centre = mean @ (1, 1j), mean[known].mean(0) @ (1, 1j)
    points = np.exp(zoom) * turn * (whole - centre) + centre + apart * way
    points = np.where(known[:, None], np.stack([points.real, points.imag], 1), np.nan)
    given = np.array([abs(roll), abs(zoom), apart])
    if (np.abs(given - [IN_PLACE, OUT_OF_PLACE]) < 1e-3).any():
        return
    wanted = 1 if (given < IN_PLACE).all() else 0 if (given > OUT_OF_PLACE).any() else np.nan
    assert np.array_equal(in_place(points[None], known[None], mean), [wanted], equal_nan=True)
    bare = np.where(known[:, None], mean, np.nan)  # a landmark that no face has
    assert np.array_equal(in_place(points[None], np.ones((1, 68), bool), bare), [wanted], equal_nan=True)
    assert np.isnan(in_place(mean[None], np.arange(68)[None] < 2, mean)).all(), "two landmarks do not tell"


def test_misplaced_faces_are_turned_or_show_a_part():
    u, plain = np.random.default_rng(0).random((400, 5)), draw(PLAIN, 400)
    lost = u[:, 4] < 0.5
    (made,) = misplaced(u, [plain], lost)
    assert np.array_equal(made.matrix[~lost], plain.matrix[~lost])
    placed = moved(np.tile(mean_face(), (400, 1, 1)), np.zeros(400), [made], range(68))
    found = in_place(placed, np.ones((400, 68), bool), mean_face())
    assert (found[~lost] == 1).all() and (found[lost] == 0).all()
    zoom = np.sqrt(np.linalg.det(made.matrix[lost][..., :2]))
    assert 0.4 < np.mean(np.isclose(zoom, 1)) < 0.8 and zoom.max() > 3
    centre = made.matrix[lost] @ (32, 32, 1)
    # some of it is seen
    assert (np.abs(placed[lost].mean(1) - 0.5)).max() < 1.5 and np.abs(centre / 64 - 0.5).max() > 0.5
    clipped = plain._replace(clips=np.ones(400, bool))  # a published translation
    (made,) = misplaced(u, [clipped], lost)
    assert np.array_equal(made.clips, ~lost)


def head(pose) -> np.ndarray:
    """Return the rotation (3, 3) of (pitch, yaw, roll) as 300W-LP defines it, with axes right, up and towards the
    camera.
    """
    (a, b, c), (d, e, f) = np.sin(pose), np.cos(pose)
    return (
        np.array([[1, 0, 0], [0, d, a], [0, -a, d]])
        @ [[e, 0, -b], [0, 1, 0], [b, 0, e]]
        @ [[f, c, 0], [-c, f, 0], [0, 0, 1]]
    )


@examples(max_examples=60)
@given(
    st.lists(
        st.tuples(st.tuples(*[st.floats(-1.3, 1.3)] * 3), st.floats(-1.5, 1.5), st.floats(0.5, 2), st.booleans()),
        min_size=1,
        max_size=4,
    )
)
def test_a_turned_picture_turns_the_pose(given):
    model = np.random.default_rng(0).normal(size=(9, 3))
    matrices = np.stack(
        [
            np.diag([-1.0 if mirror else 1, 1])
            @ np.array([[np.cos(angle), -np.sin(angle), 3], [np.sin(angle), np.cos(angle), 4]])
            * zoom
            for _, angle, zoom, mirror in given
        ]
    )
    poses = turned(np.array([pose for pose, *_ in given]), matrices)

    def seen(shape, pose):
        return (shape @ head(pose).T)[:, :2] * (1, -1)  # image y points down

    for (pose, _, zoom, mirror), matrix, found in zip(given, matrices, poses, strict=True):
        twin = model * ((-1, 1, 1) if mirror else (1, 1, 1))  # in a mirror image left and right are exchanged
        assert np.allclose(seen(model, pose) @ matrix[:, :2].T, zoom * seen(twin, found), atol=1e-6)
