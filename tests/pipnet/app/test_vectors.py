"""The JavaScript of the page, run by node, gives the numbers of Python: geometry, pose, smoothing, drowsiness,
tracking.
"""

import json
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import LAYOUTS, ROOT, mean_face
from test_drowsiness import blinking, face

from extras.synthetic import render
from pipnet import geometry
from pipnet.app.web import PAGE, Options, page_settings
from pipnet.detections import Detections, FaceBox, joined
from pipnet.detector import Detector
from pipnet.distinct import WITHIN
from pipnet.face import Face, plain_values
from pipnet.geometry import CHOICES, Protocol, box_of, crop_box, iou, transform, turn_about, turned_boxes, upright_boxes
from pipnet.images import enhanced, resized
from pipnet.landmark_net import open_net
from pipnet.landmarker import Landmarker
from pipnet.pose import head_pose, turn_pose
from pipnet.shipped import shipped
from pipnet.video.drowsiness import Drowsiness
from pipnet.video.smooth import OneEuro
from pipnet.video.track import Tracker

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None, reason="no node on this machine, which runs the page's JavaScript"
)
NET = open_net(shipped("landmarks.onnx"), 1)
WIDTH, HEIGHT, RATE = 320, 240, 30
SHAPE = mean_face() - 0.5
PICTURE = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)  # dark, so that the enhanced one is brighter


def as_map(matrix: np.ndarray) -> list[float]:
    """A map as geometry.js writes it."""
    return np.ravel(matrix).tolist()


def geometry_calls(rng: np.random.Generator) -> list[tuple[list, object]]:
    """(name of a function and what it is given, the answer of Python)."""
    calls, centre, angle = [], np.array([30.0, 40.0]), 0.7
    turn = turn_about(centre, angle)
    for count in (2, 3, 4, 5, 68):
        points, onto = rng.uniform(-50, 300, (2, count, 2))
        calls += [
            (["boxOf", points], box_of(points)),
            (["meanOf", points], points.mean(0)),
            (["transform", points, as_map(turn)], transform(points, turn)),
            (["similarity", points, onto], np.ravel(geometry.similarity(points, onto))),
        ]
        calls += [(["median", values], np.median(values)) for values in points.T]
        calls += [(["quantile", points[:, 0], share], np.quantile(points[:, 0], share)) for share in (0, 0.3, 0.7, 1)]
    boxes = np.array([(0, 0, 40, 30), (10, 5, 50, 60), (200, 5, 220, 60), (10, 5, 10, 5), (20, 5, 10, 1)], float)
    calls += [
        ([name, one, other], function(one[None], other[None])[0, 0])
        for one in boxes
        for other in boxes
        for name, function in (("iou", iou), ("shared", geometry.shared))
    ]
    calls += [(["carry", box, as_map(turn)], geometry.carry(box, turn)) for box in boxes]
    calls += [
        (["turnedBox", box, 0.7], turned_boxes(box[None], turn_about(box.reshape(2, 2).mean(0), 0.7))[0])
        for box in boxes
    ]
    calls += [(["turnAbout", centre, angle], np.ravel(turn))]
    low = rng.uniform(0, 100, (40, 2))
    some = np.column_stack([low, low + rng.uniform(20, 80, (40, 2))]), rng.uniform(0.6, 1, 40)
    large, found = (Detections(*(part[rows] for part in some)) for rows in (slice(4), slice(4, None)))
    calls += [
        (
            ["joined", as_list(large), as_list(found), {"overlap": 0.3, "within": WITHIN}],
            as_list(joined(large, found, 0.3)),
        )
    ]
    wrong = [(0, 0, np.inf, 10), (np.nan, 0, 10, 10), (5, 5, 5, 5), (0, 0, 2e7, 10), (9, 9, 4, 4), (5e6, 0, 5e6 + 1, 1)]
    for square in CHOICES["square"]:
        for border in CHOICES["border"]:
            for rounding in CHOICES["rounding"]:
                protocol = Protocol(1.3, 1.1, 0.1, square, border, rounding)
                low = rng.uniform(-20, 300, (6, 2))
                for box in (*np.column_stack([low, low + rng.uniform(20, 300, (6, 2))]), *wrong):
                    for angle in (0, 0.7):
                        calls.append(
                            (
                                ["cropBox", box, protocol._asdict(), WIDTH, HEIGHT, angle],
                                crop_or_none(box, protocol, angle),
                            )
                        )
    poses = rng.uniform(-1, 1, (8, 3))
    return calls + [(["turnPose", pose, angle], turn_pose(pose, angle)) for pose in poses for angle in (0.5, -2.0)]


def as_list(detections: Detections) -> list[dict]:
    """Detections as detector.js has them."""
    return [{"box": box, "score": score} for box, score in zip(detections.boxes, detections.scores, strict=True)]


def crop_or_none(box, protocol: Protocol, angle: float) -> np.ndarray | None:
    """The crop of a box, None where there is none."""
    try:
        return crop_box(np.array(box), protocol, WIDTH, HEIGHT, angle)
    except geometry.UserError:
        return None


def smoothing(rng: np.random.Generator) -> list[list]:
    """Sequences of (seconds, [(id, {landmarks})]), of even and odd counts of landmarks.
    Faces come, leave, jump and rest.
    """
    sequences = []
    for count in (2, 3, 4, 5, 12, 68):
        shapes, frames = rng.uniform(0, 150, (2, count, 2)), []
        shapes[:, :2] = (0, 0), (150, 150)  # so that the boxes are no lines
        for index in range(120):
            faces = {}
            for id, shape in enumerate(shapes):
                if id == 0 or not 40 <= index < 50:
                    still = 60 <= index < 63  # no landmark moves: all of them move by as little
                    noise = 0 if still else 0.5 * rng.standard_normal((count, 2))
                    move = 60 if still else index + 200 * (index > 80)
                    faces[id] = shape + (move, 20 * np.sin(move / 9)) + noise
            if index == 100:
                faces[0][0] = np.nan
            frames.append(
                (index / RATE if index != 70 else 69 / RATE, [(id, {"landmarks": one}) for id, one in faces.items()])
            )
        sequences.append(frames)
    return sequences


def drowsiness_sequences(rng: np.random.Generator) -> list[dict]:
    """Two minutes of eyes and mouths of two faces, with blinks, sleep, yawns, absence and, in part, states of a net."""
    sequences = []
    for name, rate in (("68", 15), ("12", 30)):
        layout, frames = LAYOUTS.load(name), []
        rings = Drowsiness(layout)
        for t in np.arange(100 * rate) / rate:
            eyes = 0.2 if 30 < t < 33 or (50 < t < 80 and t % 3 < 2) else blinking(t)
            mouth = 1.0 if 40 < t < 43 or 90 < t < 92 else 0.2 * (np.sin(9 * t) > 0)
            if 50 < t < 60 and round(t * rate) % 4:
                continue  # a slow machine
            for id in (0, 1) if not 45 < t < 47.5 and t < 52 else (1,):
                landmarks = face(layout, eyes if id == 0 or t > 52 else 1, mouth) + 0.1 * rng.standard_normal(
                    (layout.count, 2)
                )
                if round(t * rate) % 61 == 0:
                    landmarks[list(rings.eyes[0] if t < 50 else rings.mouth or (0,))] = np.nan
                states = {"left_eye_closed": eyes < 0.5, "right_eye_closed": 0.4} if 82 < t < 88 else None
                frames.append((id, landmarks.round(2), t, states))
        frames.append((0, landmarks.round(2), 100.0, {"mouth_closed": 0.9}))  # forgotten meanwhile
        sequences.append({"eyes": rings.eyes, "mouth": rings.mouth, "frames": frames})
    return sequences


class Scene(Landmarker):
    """A landmarker that knows the faces of the frame.

    It finds the face that a box shares a fifth with, else background, also in place of a face whose score is 0. Upside
    down, a face has half its score, which is the net's. The finder is some px off, and takes such a face for an upright
    one. In the small picture of large faces, detections lie elsewhere. vectors.js has the same.
    """

    faces: list[dict]

    def __init__(self, background: dict, max_faces: int | None = None):
        super().__init__(NET, Detector(), max_faces)
        self.background, self.crops = background, 0
        self.detector.face_box, self.detector._find = FaceBox(0, 1, 1), self.seen

    def seen(self, image, threshold, overlap):
        zoom = max(image.shape) / WIDTH
        seen = [one for one in self.faces if one["found"] and (image[0, 0, 0] > 50 or not one["dark"])]
        boxes = [zoom * (box_of(one["landmarks"]) + 10 * (zoom == 0.5)) for one in seen]
        return Detections(np.reshape(boxes, (-1, 4)), np.array([one["found"] for one in seen]))

    def read(self, boxes, net=None):
        self.crops += len(boxes.boxes)
        found = []
        for tight, roll in zip(upright_boxes(boxes.boxes), np.radians(boxes.boxes[:, 4]), strict=True):
            shared = [iou(box_of(one["landmarks"])[None], tight[None])[0, 0] for one in self.faces]
            hit = self.faces[int(np.argmax(shared))] if max(shared, default=0) > 0.2 else None
            if hit and hit["score"]:
                landmarks = hit["landmarks"]
                over = np.cos(roll - hit["roll"]) <= 0
                seen = hit["score"] / 2 if over else hit["score"]
                if net:
                    landmarks = transform(landmarks, turn_about(landmarks.mean(0), np.pi * over)) + 4
            else:
                landmarks, seen = self.background["landmarks"] + tight[:2], self.background["score"]
            found.append(Face(tight, seen, landmarks, np.full(len(landmarks), seen)))
        return np.fromiter(found, object)


def scene_face(rng, x, y, size=60, roll=0.0, score=0.9, found=0.9, dark=False) -> dict:
    """A face of the scene; found: the detector's score, 0: it is not found. dark: found in the enhanced picture only."""
    landmarks = transform(SHAPE * size + (x, y), turn_about(np.array([x, y]), roll)) + 0.4 * rng.standard_normal(
        SHAPE.shape
    )
    return {"landmarks": landmarks, "roll": roll, "score": score, "found": found, "dark": dark}


def video(rng: np.random.Generator) -> list[dict]:
    """200 frames and more: two faces that cross, one that walks out and in, one that is hidden, one on its head, and
    gaps.
    """
    frames, seconds = [], 0.0
    for index in range(320):
        seconds += 1 / RATE * (1 if index % 37 else 4)  # frames are missing
        faces = []
        if index < 210:
            faces.append(scene_face(rng, 50 + index, 100 + 8 * np.sin(index / 7), roll=0.4 * np.sin(index / 20)))
        if 15 <= index < 210:
            faces.append(scene_face(rng, 290 - index, 110, 64, score=0.9 if index % 50 else 0.2))  # unsure now and then
        if 30 <= index < 60 or 75 <= index < 110 or 180 <= index < 200:  # hidden: once shortly, once for long
            faces.append(scene_face(rng, 160, 190, 50, found=0 if index % 4 else 0.9))
        if 60 <= index < 120:
            faces.append(scene_face(rng, 250 + 2 * (index - 60), 40, 56))  # walks out
        if 120 <= index < 125:
            faces.append(scene_face(rng, 30 + 40 * (index - 120), 200, 40))  # too fast for its crop
        if 230 <= index < 260:
            faces.append(scene_face(rng, 200, 120, 70, roll=np.pi))
        if 275 <= index < 300:
            faces.append(scene_face(rng, 120, 120, 70, roll=-np.pi / 2 + 0.02 * (index - 270), dark=True))
        frames.append({"seconds": seconds, "faces": faces})
    return frames


def stills(rng: np.random.Generator) -> list[dict]:
    """Pictures with sure and unsure faces, upright, leaning, lying, half outside, and with background that looks like
    one.
    """
    faces = [
        [scene_face(rng, 100, 100, score=score, roll=roll), scene_face(rng, x, 150, 40, roll=np.pi, dark=True)]
        for score in (0.9, 0.45, 0.2)
        for roll in (0, 0.8, np.pi / 2, np.pi, 2)
        for x in (250, 325)
    ]
    # two faces that only the enhanced picture shows, apart and on each other
    dark = [
        [scene_face(rng, 100, 100, 80, np.pi, 0.9, 0.7, True), scene_face(rng, x, 150, 90, 1.5, score, found, True)]
        for x in (230, 130)
        for score in (0.8, 0, 0.45)
        for found in (0.65, 0.75)
    ]
    # a face with an eye that is found too, whose score is lower or higher, and a small face beside a large one
    parts = [
        [
            scene_face(rng, 120, 120, 150, found=0.8),
            scene_face(rng, 95, 100, size, score=score, found=found),
            scene_face(rng, 270, 60, 40),
        ]
        for size, found in ((30, 0.95), (70, 0.7))
        for score in (0.6, 0.9, 0.95)
    ]
    parts += [[scene_face(rng, 120, 120, 50), scene_face(rng, 112, 112, 22, score=score)] for score in (0.8, 0.95)]
    no_faces = [[scene_face(rng, 40, 40, score=0, found=0.8 - 0.1 * i) for i in range(count)] for count in (0, 1, 4)]
    return [{"faces": some} for some in (*faces, *dark, *parts, *no_faces)]


def pixel_cases(rng: np.random.Generator) -> dict:
    """A picture (H, W, 4) RGBA of odd sides with smooth noise, factors by which it is resized, crops, a grainy and a
    red one.
    """
    grainy = rng.integers(0, 99, (31, 47, 4), np.uint8) | np.uint8([0, 0, 0, 255])
    picture = cv2.GaussianBlur(rng.integers(0, 256, (121, 187, 4), np.uint8), (0, 0), 2)
    crops = [
        ((-20, -30, 90, 80), 0),
        ((10.3, 5.2, 150.3, 145.2), 0.5),
        ((60, 20, 180, 120), 0),
        ((80, 50, 110, 90), -1.0),
    ]
    red = (picture * (1, 0.2, 0.1, 1)).astype(np.uint8)
    return {
        "picture": picture,
        "grainy": grainy,
        "red": red,
        "factors": (1, 0.7, 0.3, 0.11),
        "crops": crops,
        "form": {"size": 16, "border": 2, "zero": False},
    }


def protocol_cases(net, rng: np.random.Generator) -> list[dict]:
    """Nets whose crops are made in other ways, with boxes and faces, and what Python makes of them."""
    cases, face_box = [], Detector().face_box
    for protocol, meanface in (
        (net.protocol, net.meanface),
        (Protocol(1.1, 1.3, 0.1, "no", "clip", "float"), net.meanface * 0.7),
        (Protocol(2.0, 2.2, -0.05, "max", "zero", "int"), net.meanface),
    ):
        other = replace(net, protocol=protocol, meanface=meanface)
        landmarker = Landmarker(other, SimpleNamespace(face_box=face_box))
        low = rng.uniform(-60, 330, (20, 2))
        boxes = np.column_stack([low, low + rng.uniform(1, 200, (20, 2))])
        faces = [
            Face(
                box,
                0.9,
                transform(SHAPE * box[2], turn_about(np.zeros(2), box[0] / 20)),
                rng.uniform(0.4, 0.9, 68),
                sigma=rng.uniform(0.01, 0.06, 68) * abs(box[2]),
            )
            for box in boxes
        ]
        cases.append(
            {
                "net": {
                    "protocol": protocol._asdict(),
                    "meanface": meanface,
                    "tight": other.tight,
                    "inner": protocol.inner,
                },
                "boxes": boxes,
                "faces": [{"landmarks": one.landmarks, "scores": one.scores, "sigma": one.sigma} for one in faces],
                "expected": {
                    "detected": in_radians(landmarker._landmark_boxes(PICTURE, Detections(boxes, np.ones(20))).boxes),
                    "next": in_radians([landmarker.box_of(one.landmarks) for one in faces]),
                    "shown": [landmarker.net.shows(box, WIDTH, HEIGHT) for box in boxes],
                    "far": [
                        landmarker.net.is_far(np.append(one, np.degrees(0.1)), np.append(two, np.degrees(0.2)))
                        for one, two in zip(boxes, boxes[1:], strict=False)
                    ],
                },
            }
        )
    return cases


def in_radians(boxes) -> np.ndarray:
    """Boxes (M, 5) with their roll as JavaScript has it."""
    return np.array(boxes) * (1, 1, 1, 1, np.pi / 180)


@pytest.fixture(scope="module")
def asked() -> dict:
    """All that JavaScript is asked."""
    rng = np.random.default_rng(0)
    angles = np.array([(0, 0, 0), (0.6, 0, 0), (-0.6, 0.2, 0.1), (0.3, -0.3, 0), (0, 0.3, -0.4)], float)
    return {
        "settings": page_settings(Options(shipped("landmarks.onnx"), detect_every=7)),
        "calls": geometry_calls(rng),
        "poses": [4 * render(0, 1, 50, angles=one).landmarks + (20.0, 10.0) for one in angles],
        "pixels": pixel_cases(rng),
        "smooth": smoothing(rng),
        "drowsy": drowsiness_sequences(rng),
        "protocols": protocol_cases(NET, rng),
        "scene": {
            "frames": video(rng),
            "stills": stills(rng),
            "size": {"width": WIDTH, "height": HEIGHT},
            "background": {"landmarks": SHAPE * 60 + 30, "score": 0.3},
            "doubtful": 0.35,
            "grey": int(PICTURE[0, 0, 0]),
        },
    }


def plain(value):
    """Plain values for JSON; "NaN" for what JSON lacks."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(one) for one in value]
    value = value.item() if isinstance(value, np.generic) else value
    return ("NaN" if np.isnan(value) else 1e999) if isinstance(value, float) and not np.isfinite(value) else value


@pytest.fixture(scope="module")
def answered(asked, tmp_path_factory) -> dict:
    """The answers of JavaScript."""
    folder = tmp_path_factory.mktemp("page")
    for file in (*PAGE.glob("*.js"), ROOT / "tests/pipnet/app/vectors.js"):
        shutil.copy(file, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    text = json.dumps(plain(asked | {"calls": [call for call, _ in asked["calls"]]})).replace("Infinity", "1e999")
    done = subprocess.run(["node", folder / "vectors.js"], input=text, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def agree(found, expected, where, within: float = 1e-6) -> None:
    """Assert that an answer has the values of Python. null stands for None and for what is no number."""
    expected = plain_values(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            agree(found[key], expected[key], (where, key), within)
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for place, (one, other) in enumerate(zip(found, expected, strict=True)):
            agree(one, other, (where, place), within)
    elif isinstance(expected, float) and found is not None:
        assert found == pytest.approx(expected, rel=within, abs=within), where
    else:
        assert found == expected, where


def test_functions(asked, answered):
    for (call, expected), found in zip(asked["calls"], answered["calls"], strict=True):
        agree(found, expected, call)


def test_head_poses(asked, answered):
    for landmarks, found in zip(asked["poses"], answered["poses"], strict=True):
        assert found == pytest.approx(head_pose(landmarks, NET.layout), abs=0.2)


def test_boxes_and_limits_of_nets(asked, answered):
    for case, found in zip(asked["protocols"], answered["protocols"], strict=True):
        agree(found, case["expected"], case["net"]["protocol"])


def test_pixels(asked, answered):
    cases, found = asked["pixels"], answered["pixels"]
    image = np.ascontiguousarray(cases["picture"][..., 2::-1])
    for factor, one in zip(cases["factors"], found["resized"], strict=True):
        expected = resized(image, factor)
        assert (one["height"], one["width"]) == expected.shape[:2]
        assert np.abs(np.reshape(one["data"], expected.shape) - expected.astype(float)).max() <= 1, factor
    for name, one in zip(("picture", "grainy", "red"), found["enhanced"], strict=True):
        expected = enhanced(np.ascontiguousarray(cases[name][..., 2::-1])).astype(float)
        assert np.abs(np.reshape(one, cases[name].shape)[..., 2::-1] - expected).max() <= 1, name
    for (crop, angle), one in zip(cases["crops"], found["crops"], strict=True):
        expected = geometry.cut(image, np.array(crop), 16, 1.25, angle=angle, halve=True)
        assert np.abs(np.reshape(one, expected.shape) - expected.astype(float)).max() <= 1, (crop, angle)


def test_smoothing(asked, answered):
    for frames, found in zip(asked["smooth"], answered["smooth"], strict=True):
        smooth = OneEuro()
        for (seconds, faces), answer in zip(frames, found, strict=True):
            expected = smooth({id: one["landmarks"] for id, one in faces}, seconds)
            assert np.isfinite(expected[0]).all() == np.isfinite(faces[0][1]["landmarks"]).all()
            agree(answer, [[id, points] for id, points in expected.items()], (len(faces[0][1]["landmarks"]), seconds))


def test_drowsiness(asked, answered):
    for sequence, found in zip(asked["drowsy"], answered["drowsy"], strict=True):
        drowsiness = Drowsiness(LAYOUTS.load("68" if sequence["mouth"] else "12"))
        said = [drowsiness.update(*given) for given in sequence["frames"]]
        assert said[-2]["blinks"] > 10 and {one["alarm"] for one in said} == {None, "eyes closed", "perclos"}
        assert said[-2]["yawns"] == (2 if sequence["mouth"] else 0)
        agree(found, said, sequence["eyes"])


def of_frame(scene: Scene, frame: dict, find) -> dict:
    """Return what Python finds in a frame, in the form of JavaScript's answer."""
    scene.faces, before = frame["faces"], scene.crops
    faces = find(PICTURE)
    return {
        "faces": [
            {
                "box": one.box,
                "score": one.score,
                "landmarks": one.landmarks,
                "scores": one.scores,
                "sigma": None,
                "pose": None,
                "states": None,
            }
            | ({} if one.id is None else {"id": one.id})
            for one in faces
        ],
        "crops": scene.crops - before,
    }


def test_tracking(asked, answered):
    tracker, ids = Tracker(scene := Scene(asked["scene"]["background"]), detect_every=7), set()
    for index, (frame, found) in enumerate(zip(asked["scene"]["frames"], answered["tracked"], strict=True)):
        expected = of_frame(scene, frame, lambda image: tracker.update(image, frame["seconds"]))  # noqa: B023
        ids |= {one["id"] for one in expected["faces"]}
        assert [one["id"] for one in found["faces"]] == [one["id"] for one in expected["faces"]], index
        agree(found, expected, index)
    assert len(ids) > 5 and not expected["faces"]


def test_pictures(asked, answered):
    for most, answers in zip((None, 1, 2), answered["found"], strict=True):
        scene, seen = Scene(asked["scene"]["background"] | {"score": asked["scene"]["doubtful"]}, most), Counter()
        for index, (frame, found) in enumerate(zip(asked["scene"]["stills"], answers, strict=True)):
            expected = of_frame(scene, frame, scene)
            agree(found, expected, (most, index))
            seen[len(expected["faces"])] += 1
        assert {*seen} >= {*range(min(most or 2, 2) + 1)}
