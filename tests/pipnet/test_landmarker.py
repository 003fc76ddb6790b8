"""A landmarker: its arguments, its files, pickling, errors, the installed package."""

import copy
import json
import multiprocessing
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from conftest import (
    ROOT,
    detector_file,
    draw_face,
    known_file,
    mean_face,
    refuses,
    run,
)
from known_nets import blind, coded, found_at, known_net

import pipnet.openers
from pipnet import Detector, Face, Landmarker, UserError
from pipnet.app.output import json_line
from pipnet.geometry import cut
from pipnet.landmark_net import open_net
from pipnet.pose import head_pose
from pipnet.session import Session
from pipnet.video.drowsiness import Drowsiness
from pipnet.video.sources import Frame

ASTRONAUT = cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))


def test_a_list_of_pictures_and_what_a_face_says():
    image = coded()
    landmarker = found_at(known_net(mean_face() * 100 + 200), [190, 190, 310, 310])
    none, faces = landmarker([image[:150], image])
    assert (
        faces and [repr(face) for face in landmarker(image)] == [repr(face) for face in faces] and landmarker([]) == []
    )
    face = replace(faces[0], id=3, drowsiness={"ear_left": np.float32(0.25), "alarm": None}, states={"mouth_open": 0.5})
    assert re.fullmatch(r"Face\(id=3, box=\[[\d., ]+\], score=0.900, 68 landmarks, score 1.000\)", repr(face))
    values = json.loads(json.dumps(face.to_dict(), allow_nan=False))
    assert (
        values["landmarks"] == face.landmarks.round(2).tolist() and values["score"] == 0.9 and values["sigma"] is None
    )
    assert values["ear_left"] == 0.25 and values["states"] == {"mouth_open": 0.5} and "states" not in faces[0].to_dict()
    assert replace(face, score=float("nan")).to_dict()["score"] is None
    assert json.loads(json_line(Frame(image, 0, None, ""), [face]))["faces"] == [values]


def test_groups_and_points_have_names():
    (face,) = found_at(known_net(mean_face() * 100 + 200), [190, 190, 310, 310])(coded())
    assert (face.group("eye_left") == face.landmarks[36:42]).all() and (face.point("jaw_9") == face.landmarks[8]).all()
    assert (face.point("nose_tip") == face.landmarks[30]).all()
    assert face.point("eye_left") == pytest.approx(face.group("eye_left").mean(0))
    refuses("layout '68' has no group 'eye_lft'; there is eye_left, eye_right", face.group, "eye_lft")
    refuses("layout '68' has no point 'nosetip'; there is nose_tip", face.point, "nosetip")
    refuses("no group 3; there is jaw, brow_left", face.group, 3)
    refuses("no layout.*Face", Face(np.zeros(4), 1.0, mean_face(), np.ones(68)).group, "jaw")


def test_a_finder_needs_the_output_face():
    refuses("finder.*--face 1", Landmarker, known_net(mean_face()), blind, finder=known_net(mean_face()))


def test_a_panorama_is_no_obstacle():
    image = np.zeros((200, 33000, 3), np.uint8)
    image[:, -200:] = draw_face(np.random.default_rng(2), 200)[0]
    crop = np.array([32850.0, 40, 32950, 140])
    assert (cut(image, crop, 64) == cut(image[:, -200:], crop - (32800, 0, 32800, 0), 64)).all()


def test_wrong_files_and_images_are_one_line(tmp_path, trained):
    net = trained.folder / "best.onnx"
    foreign = detector_file(tmp_path / "d.onnx", [[0, 0, 1, 1]], [1])
    bare = onnx.load(net)
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    (tmp_path / "text.onnx").write_text("no")
    for file, message in (
        (tmp_path / "gone.onnx", "no file at .*gone.onnx"),
        (tmp_path / "text.onnx", "not an ONNX file"),
        (foreign, "is a face detector"),
        (tmp_path / "bare.onnx", "no usable metadata: layout is mis"),
    ):
        refuses(message, Landmarker, file, detector=blind)
    refuses("no detector of ours", Detector, weights=net)
    refuses("weights .no file", Detector, "mtcnn")
    refuses("gone.onnx", Detector, weights=tmp_path / "gone.onnx")
    refuses("max_faces.*not 0", Landmarker, net, detector=blind, max_faces=0)
    refuses(r"max_faces.*1\.5", Landmarker, net, detector=blind, max_faces=1.5)
    for threads in (-1, 1.0, 10**6):
        refuses("threads.*1024", Detector, threads=threads)
    refuses("'/d.onnx'", Landmarker, net, detector="/d.onnx")
    landmarker = Landmarker(net, detector=blind)
    for image in (np.zeros((9, 9, 2), np.uint8), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8), None):
        refuses("uint8", landmarker, image)
    assert landmarker(np.zeros((1, 1, 3), np.uint8)) == []
    refuses(r"a\x00b", landmarker, "a\0b")
    for size in (0, 112.0, None):
        refuses(
            f"chip.*{size}",
            landmarker.align,
            np.zeros((9, 9, 3), np.uint8),
            Face(np.zeros(4), 1.0, mean_face(), np.ones(68)),
            size,
        )


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[5, 5, 5, 5]], "leaves no crop"),
        ([[1000, 1000, 1100, 1100]], "lies outside the image of 90 x 90 px"),
        ([[-50, 10, 0, 60]], "outside"),
        ([[10, 10, 60, 60], [10, 95, 60, 145]], "outside"),
        ([[10, 10, 60, 60, np.nan]], "outside"),
        ([[-1e9, -1e9, 1e9, 1e9]], "leaves no crop"),
        ([[1e9, 1e9, 2e9, 2e9]], "leaves no crop"),
        ([[np.nan] * 4], "leaves no crop"),
        ([[1, 2, 3]], r"give boxes as numbers \(M, 4\).*\(1, 3\)"),
        *(
            (wrong, "give boxes as")
            for wrong in (np.zeros((2, 2, 4)), None, [[1, 2, 3, 4, 5, 6]], [[1, 2, 3, 4], [5]], "box")
        ),
    ],
)
def test_a_wrong_box_is_one_line(boxes, message):
    landmarker, image = Landmarker("landmarks-fast", blind, threads=1), np.zeros((90, 90, 3), np.uint8)
    with pytest.raises(UserError, match=message) as error:
        landmarker.landmarks_of(image, boxes)
    assert "\n" not in str(error.value)
    assert landmarker.landmarks_of(image, []) == [] and len(landmarker.landmarks_of(image, [-40, -40, 1, 1, 30])) == 1
    with pytest.raises(UserError, match="1 boxes.*2"):
        landmarker.landmarks_of(image, [[10, 10, 60, 60]], np.ones(2))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(65000, 2), (2, 65000), (1, 60000), (300000, 3)])
def test_thin_pictures_take_little_time_and_memory(shape):
    """In a process with 3 GB, as the detector's boxes and given ones, upright and turned."""
    code = f"""if True:
        import resource, sys, numpy as np
        sys.path.insert(0, {str(ROOT)!r})
        from pipnet import Landmarker
        image = np.random.default_rng(0).integers(0, 256, (*{shape}, 3), dtype=np.uint8)
        whole = [0, 0, *image.shape[1::-1]]
        landmarker = Landmarker("landmarks-fast", lambda image: ([[0, 0, *image.shape[1::-1]]], [1.0]), threads=1)
        resource.setrlimit(resource.RLIMIT_AS, (3 * 2 ** 30,) * 2)
        landmarker(image), landmarker.landmarks_of(image, [whole + [0], whole + [40]])
        Landmarker("landmarks-fast", threads=1)(image)"""
    done = run("python", "-c", code, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_a_forked_child_opens_the_nets_anew(threads):
    code = f"""if True:
        import os, sys, cv2
        from pipnet import Landmarker
        landmarker, image = Landmarker(threads={threads}), cv2.imread("assets/astronaut.jpg")
        print(len(landmarker(image)))
        for used in (False, True):
            sys.stdout.flush()
            if not (child := os.fork()):
                if used:
                    print(len(landmarker(image)))
                sys.exit(0)
            print(os.waitpid(child, 0)[1])"""
    done = run("python", "-c", code, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["1", "0", "1", "0"]), done.stderr


def test_a_landmarker_is_pickled_as_its_arguments():
    given = {
        "landmarks": "landmarks-fast",
        "detector": Detector(threshold=0.7, threads=1),
        "max_faces": 2,
        "threads": 1,
    }
    copy = pickle.loads(pickle.dumps(Landmarker(**given, any_roll=False, rgb=True)))
    assert (copy.detector.threshold, copy.max_faces, copy.any_roll, copy.rgb) == (0.7, 2, False, True)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        ((face,),) = pool.map(Landmarker(**given), [ASTRONAUT])
    assert (face.landmarks == Landmarker(**given)(ASTRONAUT)[0].landmarks).all()


def test_a_pickled_landmarker_opens_its_files_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    for name in ("landmarks-fast.onnx", "finder.onnx", "detector.onnx"):
        (tmp_path / name).symlink_to(ROOT / "weights" / name)
    (tmp_path / "landmarks-fast").touch()  # hides no net that is given by name
    monkeypatch.chdir(tmp_path)
    first = Landmarker("landmarks-fast.onnx", Detector(weights=Path("detector.onnx"), threads=1), threads=1)
    named = Landmarker("landmarks-fast", first.detector, threads=1, finder="finder.onnx")
    monkeypatch.chdir("other")
    for landmarker in (first, named):
        assert pickle.loads(pickle.dumps(landmarker)).layout == landmarker.layout


def test_an_open_net_uses_no_net_that_has_seen_photographs(monkeypatch):
    opened = []
    monkeypatch.setattr(
        "pipnet.session.Session", lambda file, threads: opened.append(file.name) or Session(file, threads)
    )
    landmarker = Landmarker("landmarks-open", threads=1)
    assert landmarker.finder is None
    (face,) = landmarker(ASTRONAUT)
    (usual,) = Landmarker("landmarks", threads=1)(ASTRONAUT)
    assert np.linalg.norm(face.landmarks - usual.landmarks, axis=1).mean() < 0.1 * np.ptp(usual.landmarks[:, 0])
    assert opened[:2] == ["landmarks-open.int8.onnx", "detector-open.int8.onnx"]


@pytest.mark.parametrize(
    "landmarks", [np.zeros((5, 2)), np.zeros((2, 68)), np.zeros((68, 3)), np.zeros(136), None, "x"]
)
def test_landmarks_of_a_wrong_shape_are_one_line(landmarks):
    landmarker = Landmarker("landmarks-fast", threads=1)
    layout, image = landmarker.layout, np.zeros((9, 9, 3), np.uint8)
    face = Face(np.zeros(4), 1.0, landmarks, np.ones(68))
    for call in (
        lambda: Drowsiness(layout).update(0, landmarks, 0.0),
        lambda: head_pose(landmarks, layout, 9, 9),
        lambda: landmarker.align(image, face),
        lambda: landmarker.align(image, landmarks),
        lambda: landmarker.box_of(landmarks),
    ):
        refuses(r"landmarks of layout '68' are numbers \(68, 2\), not \(", call)


def test_onnxruntime_sends_no_reports():
    done = run(
        "python",
        "-c",
        "import os, sys, pipnet; assert 'onnxruntime' not in sys.modules\nprint(os.environ['ORT_DISABLE_TELEMETRY'])",
    )
    assert done.stdout == "1\n", done.stderr


def test_arrays_may_be_rgb_and_files_are_read(tmp_path):
    image = draw_face(np.random.default_rng(5), 160)[0]
    cv2.imwrite(str(tmp_path / "face.png"), image)
    net, chips, drawn = known_file(tmp_path / "net.onnx", right=0.5), [], []

    def find(image):
        return [[30, 20, 130, 140]], [1]

    for picture, rgb in ((image, False), (image[..., ::-1], True), (tmp_path / "face.png", True)):
        landmarker = Landmarker(net, find, threads=1, any_roll=False, rgb=rgb)
        (face,) = landmarker(picture)
        chip = landmarker.align(picture, face)
        chips.append(chip[..., ::-1] if rgb and isinstance(picture, np.ndarray) else chip)
        boxes, scores = landmarker.detect(picture)
        assert (landmarker.landmarks_of(picture, boxes, scores)[0].box == boxes[0, :4]).all()
        drawn.append(landmarker.draw(picture, [face])[..., :: -1 if rgb else 1])
    assert all((one == chips[0]).all() for one in chips) and all((one == drawn[0]).all() for one in drawn)


def test_other_detectors_are_taken_as_they_are(reference):
    detector = Detector("faceboxes", reference / "FaceBoxesV2.pth", 0.7)
    landmarker = Landmarker(known_net(mean_face()), detector=detector)
    assert landmarker(np.zeros((64, 64, 3), np.uint8)) == []
    refuses("its weights", Detector, "yunet", "gone.onnx")


def imports_torch(*_):
    raise ModuleNotFoundError(name="torch")


def test_files_for_torch_need_the_checkout(monkeypatch, tmp_path):
    (tmp_path / "net.pt").touch()
    for kinds in ({}, {"landmark net": imports_torch, "detector": imports_torch}):  # installed; without torch
        monkeypatch.setattr(pipnet.openers, "OPENERS", kinds)
        for name in ("018", "landmark"):
            refuses(f"no file {name}", Landmarker, name)
        refuses("net.pt.*demo.py", Landmarker, tmp_path / "net.pt")
        for name in ("faceboxes", "mtcnn"):
            refuses("net.pt", Detector, name, tmp_path / "net.pt")


def test_a_detector_is_no_landmark_net():
    """With and without torch."""
    for name in ("detector", ROOT / "weights" / "detector.onnx", ROOT / "weights" / "detector.pt"):
        refuses(
            r"detector(\.int8)?\.(onnx|pt)",
            Landmarker,
            name,
        )


def test_inference_loads_no_torch():
    done = run(
        "python",
        "-c",
        "import pipnet, pipnet.app.demo, sys; from pipnet.detector import DETECTORS\n"
        "pipnet.Landmarker(threads=1); assert {'rfb320', 'yunet', 'scrfd'} <= set(DETECTORS)\n"
        "assert not {'torch', 'scipy', 'PIL', 'yaml', 'utils', 'extras', 'nets'} & set(sys.modules)",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_package_is_installed_with_its_weights(tmp_path):
    pytest.importorskip("pip")  # uv makes environments without it
    source, target = tmp_path / "source", tmp_path / "site"
    shutil.copytree(ROOT / "pipnet", source / "pipnet", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "weights" / "000").mkdir(parents=True)
    (source / "weights" / "000" / "best.onnx").write_text("a run is no part of it")
    (source / "weights" / "manifest.json").write_text("{}")
    for name in ("landmarks", "landmarks-fast", "finder"):
        known_file(source / "weights" / f"{name}.onnx")
    detector_file(source / "weights" / "detector.onnx", [[20, 20, 80, 80]], [0.9])
    words = "-m pip install --quiet --no-deps --no-build-isolation --no-index --target"
    before = sorted(source.rglob("*"))
    subprocess.run([sys.executable, *words.split(), target, source], check=True, cwd=tmp_path)
    assert sorted(source.rglob("*")) == before
    assert sorted(path.name for path in (target / "pipnet" / "weights").iterdir()) == [
        "detector.onnx",
        "finder.onnx",
        "landmarks-fast.onnx",
        "landmarks.onnx",
        "manifest.json",
    ]
    assert (target / "bin" / "pipnet").is_file() and not (target / "utils").exists()
    assert (target / "pipnet" / "py.typed").is_file()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import numpy as np; from pipnet import Landmarker\n"
        "faces = Landmarker(threads=1, finder='none')(np.zeros((96, 96, 3), np.uint8))\n"
        "assert faces[0].landmarks.shape == (68, 2)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert open_net(target / "pipnet" / "weights" / "landmarks.onnx").size == 64


def test_a_face_equals_itself_only():
    """Tuples of arrays would compare the arrays, of which no single truth follows."""
    made = [Face(np.zeros(4), 0.5, np.zeros((68, 2)), np.ones(68)) for _ in range(3)]
    faces = made.copy()
    assert faces.index(made[1]) == 1 and made[2] in faces and faces.count(made[0]) == 1 and len(set(faces)) == 3
    faces.remove(made[1])
    assert faces == [made[0], made[2]] and made[0] != made[1] and copy.deepcopy(made[0]) != made[0]
    assert pickle.loads(pickle.dumps(made[0])).score == 0.5
    with pytest.raises(TypeError, match="not supported between instances of 'Face'"):
        max(made)
    frames = [Frame(ASTRONAUT, 0, None, name) for name in "ab"]
    assert frames.index(frames[1]) == 1
