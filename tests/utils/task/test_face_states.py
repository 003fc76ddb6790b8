"""Pose and states computed from landmarks, their augmentation, and copies of rare faces."""

import cv2
import numpy as np
import pytest
import torch
from conftest import DEFAULTS, LAYOUTS, mean_face, refuses, settings, split_of

from extras.shared.pts import read_pts
from nets.registry import STATES
from pipnet.geometry import Protocol, box_of, crop_box, cut
from pipnet.pose import MODEL, POINTS, head_pose
from utils.data.batches import Batches
from utils.data.prepared_set import load_splits
from utils.settings.conversion import conversion
from utils.settings.union import Labelled, to_union, unite
from utils.task.face_states import COPIES, balanced, complete, poses_of, states_of
from utils.train import initialise
from utils.train.make_net import facial_parts, make_net

AUGMENT = settings("default").augment
L68, L98 = (LAYOUTS.load(name) for name in ("68", "98"))


def face(left: float = 0.06, right: float = 0.06, lips: float = 0.02) -> np.ndarray:
    """(68, 2) px: lids and lips this share of the box's height apart."""
    points = mean_face() * 100
    height = np.ptp(points[:, 1])
    for pairs, gap in (
        ([(37, 41), (38, 40)], left),
        ([(43, 47), (44, 46)], right),
        ([(61, 67), (62, 66), (63, 65)], lips),
    ):
        for upper, lower in pairs:
            middle = (points[upper] + points[lower]) / 2
            points[upper], points[lower] = middle - (0, gap * height / 2), middle + (0, gap * height / 2)
    return points


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ((0.06, 0.06, 0.02), (0, 0, 0, 0)),
        ((0.01, 0.06, 0.02), (1, 0, 0, 0)),
        ((0.06, 0.01, 0.02), (0, 1, 0, 0)),
        ((0.06, 0.06, 0.005), (0, 0, 1, 0)),
        ((0.06, 0.06, 0.008), (0, 0, 0, 0)),
        ((0.06, 0.06, 0.05), (0, 0, 0, 1)),
    ],
)
def test_states_by_lids_and_lips(gaps, expected):
    points = face(*gaps)
    assert states_of(points[None], L68)[0].tolist() == list(expected)
    points[41] = np.nan
    left, *others = states_of(points[None], L68)[0].tolist()
    assert np.isnan(left) and others == list(expected[1:])


def test_states_are_those_of_the_published_net(reference):
    """Labels of photographs say about as often as Peppa's net, and for the same faces, that a mouth is closed or wide
    open.
    """
    files = sorted(reference.parent.glob("300w/**/*.pts"))[::8]
    if not files:
        pytest.skip(f"no photographs at {reference.parent / '300w'}")
    chosen = settings("slim")
    net = make_net(chosen.net, chosen.loss, L68, mean_face()).eval()
    initialise.start_from(net, reference / "slim_160_latest.pth", L68, mean_face(), pytest.fail, DEFAULTS)
    landmarks = np.stack([read_pts(file, 68) for file in files]) - 0.5
    images = [cv2.imread(str(file.with_suffix(".jpg"))) for file in files]
    crops = [
        crop_box(box_of(one), Protocol(**DEFAULTS.protocols["slim"]), *image.shape[1::-1])
        for one, image in zip(landmarks, images, strict=True)
    ]
    shown = np.stack([cut(image, crop, 160) for image, crop in zip(images, crops, strict=True)])
    with torch.inference_mode():
        found = net.predict(torch.from_numpy(shown)).states.numpy() > 0.5
    labels = states_of(landmarks, L68) == 1
    agree = (labels == found).mean(0)
    assert (agree > (0.95, 0.95, 0.81, 0.85)).all(), agree
    assert 0.8 < labels[:, 3].sum() / found[:, 3].sum() < 1.25


def posed(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """(68, 2) px round (3000, 3000): the model, turned as 300W-LP's poses say, seen from far away."""
    (sp, sy, sr), (cp, cy, cr) = np.sin((pitch, yaw, roll)), np.cos((pitch, yaw, roll))
    turn = (
        np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        @ np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        @ np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    )
    landmarks = np.full((68, 2), np.nan)
    landmarks[[ids[0] for ids in POINTS["68"]]] = (MODEL * (-1, 1, 1) @ turn.T)[:, :2] * (10, -10) + 3000
    return landmarks


def test_pose_by_solvepnp():
    for angles in np.random.default_rng(0).uniform(-0.6, 0.6, (6, 3)):
        assert np.allclose(poses_of(posed(*angles)[None], L68)[0], angles, atol=0.05)
    assert np.isnan(poses_of(np.full((1, 68, 2), np.nan), L68)).all()


@pytest.mark.parametrize("angles", np.concatenate([0.4 * np.eye(3), -0.4 * np.eye(3)]).tolist())
def test_poses_have_the_same_signs_as_labels_and_in_the_demo(angles):
    landmarks = posed(*angles)
    assert np.allclose(np.degrees(poses_of(landmarks[None], L68)[0]), np.degrees(angles), atol=3)
    assert np.allclose(head_pose(landmarks, L68), np.degrees(angles), atol=3)


def test_the_labels_of_a_set_come_first(faces):
    some = load_splits([split_of(faces, "val")], L68, 64, 0)
    states, pose = (np.full((len(some), count), np.nan, np.float32) for count in (2, 3))
    states[1], pose[0] = 1, 0.5
    some.facts["states"] = ["makeup", "right_eye_closed"]
    some = complete(some.with_columns(states=states, pose=pose), L68, ["pose", "states"])
    told = states_of(some["landmarks"], L68)
    assert some.facts["states"] == list(STATES) and some["states"][1, 1] == 1 and (some["states"][0] == told[0]).all()
    assert (some["pose"][0] == 0.5).all() and np.isfinite(some["pose"]).all()


def test_rare_faces_have_copies(faces):
    some = load_splits([split_of(faces, "val")], L68, 64, 1.0)
    landmarks = np.repeat(face()[None], len(some), 0)
    landmarks[0], landmarks[1] = face(left=0.01), face(lips=0.2)
    landmarks[2] = face(lips=0.1)  # the state is wide open, as of every second face, so there is nothing to copy
    more = balanced(some.with_columns(landmarks=landmarks), L68)
    counts = [list(more["file"]).count(name) for name in some["file"]]
    one_closed = 1 + COPIES["any eye closed"] + COPIES["one eye closed"]
    assert counts == [one_closed, 1 + COPIES["mouth open"] + COPIES["mouth wide open"], 1, 1]
    assert (more.crop(one_closed - 1) == some.crop(0)).all()
    one, other = Batches(more, AUGMENT, L68.flip_index, 0)[np.zeros(2, int), np.arange(2)].images
    assert (one != other).any()


def test_a_net_of_several_layouts_has_the_states_of_its_faces_with_lids():
    layouts = LAYOUTS.with_rows({"union": {"conventions": {"own": ["eye_left", "eye_right"]}}})
    sets = [Labelled("cofw", "29"), Labelled("300w", "68"), Labelled("own", "68"), Labelled("aflw", "19")]
    union, closed = unite("union", sets, layouts), face(left=0.01)
    found = []
    for one in sets:
        rule, stored = conversion("68", one.stored, LAYOUTS), one.stored
        way = to_union(one, union, layouts)
        found.append(way(np.stack([closed, face(lips=0.2)]) if stored == "68" else rule(closed[None]).repeat(2, 0)))
    states = states_of(np.concatenate(found), union)
    assert states[2:6].tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]] * 2 and np.isnan(states[[0, 1, 6, 7]]).all()
    assert np.isfinite(poses_of(np.concatenate(found), union)[:6]).all()
    refuses("layout union", states_of, np.zeros((1, 200, 2)), unite("union", [sets[0], sets[3]], LAYOUTS))


def test_layouts_without_the_landmarks():
    eyes = LAYOUTS.load("12")
    refuses("layout 12", states_of, np.zeros((1, 12, 2)), eyes)
    with pytest.raises(ValueError, match="68:2.*eye_left"):
        facial_parts(LAYOUTS.load("68", [16, 0]))
    found = facial_parts(L98)
    assert {name: sorted(ids) for name, ids in found.items()} == {
        "eye_left": [*range(33, 42), *range(60, 68), 96],
        "eye_right": [*range(42, 51), *range(68, 76), 97],
        "nose": list(range(51, 60)),
        "mouth": list(range(76, 96)),
    }  # as DPR has them
