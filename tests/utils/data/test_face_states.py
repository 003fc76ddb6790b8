"""Pose and states computed from landmarks, their augmentation, and copies of rare faces."""
import numpy as np
import pytest
from conftest import mean_face

from nets.stages.auxiliary import STATES
from pipnet.errors import UserError
from pipnet.pose import MODEL, POINTS
from utils.config import defaults, load_layout
from utils.data.augment import Recipe
from utils.data.dataset import Augmented, Faces, collate
from utils.data.face_states import COPIES, balanced, complete, poses_of, states_of
from utils.train.run_folder import local_parts

ARGS = defaults()
L68, L98 = (load_layout(ARGS.tables["layouts"], name) for name in ("68", "98"))


def face(left: float = 0.06, right: float = 0.06, lips: float = 0.06) -> np.ndarray:
    """(68, 2) px: lids and lips this share of the box's height apart."""
    points = mean_face() * 100
    height = np.ptp(points[:, 1])
    for pairs, gap in (([(37, 41), (38, 40)], left), ([(43, 47), (44, 46)], right), ([(61, 67), (62, 66), (63, 65)], lips)):
        for upper, lower in pairs:
            middle = (points[upper] + points[lower]) / 2
            points[upper], points[lower] = middle - (0, gap * height / 2), middle + (0, gap * height / 2)
    return points


@pytest.mark.parametrize(("gaps", "expected"), [
    ((0.06, 0.06, 0.06), (0, 0, 0, 0)), ((0.01, 0.06, 0.06), (1, 0, 0, 0)), ((0.06, 0.01, 0.06), (0, 1, 0, 0)),
    ((0.06, 0.06, 0.02), (0, 0, 1, 0)), ((0.06, 0.06, 0.2), (0, 0, 0, 1)),
])
def test_states_by_lids_and_lips(gaps, expected):
    points = face(*gaps)
    assert states_of(points[None], L68)[0].tolist() == list(expected)
    points[41] = np.nan
    left, *others = states_of(points[None], L68)[0].tolist()
    assert np.isnan(left) and others == list(expected[1:])


def test_pose_by_solvepnp():
    """The model, turned as 300W-LP's poses say, gives that pose back."""
    for pitch, yaw, roll in np.random.default_rng(0).uniform(-0.6, 0.6, (6, 3)):
        (sp, sy, sr), (cp, cy, cr) = np.sin((pitch, yaw, roll)), np.cos((pitch, yaw, roll))
        turn = (np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]]) @ np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
                @ np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]]))
        landmarks = np.full((1, 68, 2), np.nan)
        landmarks[0, [ids[0] for ids in POINTS["68"]]] = (MODEL * (-1, 1, 1) @ turn.T)[:, :2] * (10, -10) + 300
        assert np.allclose(poses_of(landmarks, L68)[0], (pitch, yaw, roll), atol=0.05)
    assert np.isnan(poses_of(np.full((1, 68, 2), np.nan), L68)).all()


def test_closed_eyes_swap_when_the_picture_is_mirrored(faces):
    some = complete(Faces([(faces, "train")], L68, 64, 1.0), L68, ["pose", "states"])
    some.states[0] = (1, 0, 0, 0)
    plain = Recipe.of(ARGS)._replace(rotation=0.0, scale=0.0, translation=0.0)
    for flip in (0.0, 1.0):
        sample = Augmented(some, plain._replace(flip=flip), L68.flip_index, 0)[0, 0]
        assert sample.states.tolist() == [1 - flip, flip, 0, 0]
        assert np.allclose(sample.pose, some.pose[0] * (1, 1 - 2 * flip, 1 - 2 * flip), atol=1e-5)
    batch = collate([some[0], some[1]])
    assert batch.labels.pose.shape == (2, 3) and batch.labels.states.shape == (2, len(STATES))


def test_the_labels_of_a_set_come_first(faces):
    some = Faces([(faces, "val")], L68, 64, 0)
    some.states, some.state_names = np.full((len(some), 2), np.nan, np.float32), ["makeup", "right_eye_closed"]
    some.states[1] = 1
    some.pose = np.full((len(some), 3), np.nan, np.float32)
    some.pose[0] = 0.5
    complete(some, L68, ["pose", "states"])
    told = states_of(some.landmarks, L68)
    assert some.state_names == list(STATES) and some.states[1, 1] == 1 and (some.states[0] == told[0]).all()
    assert (some.pose[0] == 0.5).all() and np.isfinite(some.pose).all()


def test_rare_faces_have_copies(faces):
    some = Faces([(faces, "val")], L68, 64, 1.0)
    some.landmarks[:] = face()
    some.landmarks[0] = face(left=0.01)
    some.landmarks[1] = face(lips=0.2)
    more = balanced(some, L68)
    counts = [more.names.count(name) for name in some.names]
    one_closed = 1 + COPIES["any eye closed"] + COPIES["one eye closed"]
    assert counts == [one_closed, 1 + COPIES["mouth open"] + COPIES["mouth wide open"], 1, 1]
    assert (more.picture(one_closed - 1) == some.picture(0)).all()
    augmented = Augmented(more, Recipe.of(ARGS), L68.flip_index, 0)
    assert (augmented[0, 0].image != augmented[0, 1].image).any()


def test_layouts_without_the_landmarks():
    eyes = load_layout(ARGS.tables["layouts"], "12")
    with pytest.raises(UserError, match="layout 12 does not say where lids and lips are"):
        states_of(np.zeros((1, 12, 2)), eyes)
    with pytest.raises(ValueError, match="layout 68:2 has no parts eye_left.*name them in its row, or leave this out"):
        local_parts(load_layout(ARGS.tables["layouts"], "68", [16, 0]))
    found = local_parts(L98)
    assert {name: sorted(ids) for name, ids in found.items()} == {
        "eye_left": [*range(33, 42), *range(60, 68), 96], "eye_right": [*range(42, 51), *range(68, 76), 97],
        "nose": list(range(51, 60)), "mouth": list(range(76, 96))}  # as DPR has them
