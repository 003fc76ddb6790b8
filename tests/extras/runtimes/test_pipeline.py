"""The pipeline finds in any picture what `Landmarker` finds, without Python; the example in C++ runs it."""

import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT, refuses, unfolded, works

from extras.runtimes import pipeline
from extras.runtimes.pipeline import write_pipeline, write_pipeline_int8
from pipnet import Landmarker
from pipnet.detections import Detections, joined
from pipnet.detector import LARGE_FACE, Detector
from pipnet.distinct import without_duplicates as without_parts
from pipnet.face import Face
from pipnet.geometry import turn_picture
from pipnet.session import metadata, open_session
from pipnet.shipped import shipped
from utils.export.files import Source

PHOTOGRAPHS = ROOT.parent / "shared" / "300w" / "lfpw" / "testset"
ASTRONAUT = cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Return the pipeline of the shipped nets."""
    file = tmp_path_factory.mktemp("pipeline") / "best.pipeline.onnx"
    write_pipeline(Source(shipped("landmarks.onnx"), lambda: (), detector=shipped("detector.onnx")), file)
    return file


@pytest.fixture(scope="module")
def pair(file):
    """Return a function from a picture to the faces of `Landmarker`, and the outputs of the pipeline by name.

    Background that looks a little like a face is left out: one may find it where the other does not.
    """
    net, finder, detector = (shipped(f"{name}.onnx") for name in ("landmarks", "finder", "detector"))  # in 32 bits
    found = Detector(weights=detector, threads=1)
    landmarker = Landmarker(net, found, any_roll=False, threads=1, finder=finder)
    session = open_session(file, 1)
    names = [port.name for port in session.native.get_outputs()]

    def both(image: np.ndarray) -> tuple[list, dict]:
        found = dict(zip(names, session.run(names, {"image": image}), strict=True))
        sure = found["landmark_scores"].mean(1) > 0.5
        return [face for face in landmarker(image) if face.scores.mean() > 0.5], {
            key: part[sure] for key, part in found.items()
        }

    return both


def apart(faces: list, found: dict) -> np.ndarray:
    """Return the differences of the landmarks (M, N), in px of the picture. Order and number must agree."""
    assert found["landmarks"].shape == (len(faces), 68, 2)
    return np.array(
        [np.hypot(*(face.landmarks - points).T) for face, points in zip(faces, found["landmarks"], strict=True)]
    ).reshape(-1, 68)


def at_the_edge(image: np.ndarray) -> np.ndarray:
    """Return the picture without its left and upper part, so that the crop reaches beyond it."""
    return np.ascontiguousarray(image[95:, 185:])


def portrait(image: np.ndarray) -> np.ndarray:
    """Return the head, eight times as large, so that the face is 740 px wide."""
    return cv2.resize(image[20:260, 100:350], None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)


def beside_a_portrait(image: np.ndarray) -> np.ndarray:
    """Return the picture on black, beside the large head."""
    return np.hstack([portrait(image), np.pad(image, ((0, 1920 - len(image)), (0, 0), (0, 0)))])


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda image: image, 1),
        (
            lambda image: cv2.resize(image, (1501, 1333), interpolation=cv2.INTER_CUBIC),
            1,
        ),  # the detector's picture is shrunk
        (lambda image: cv2.resize(image, (200, 180), interpolation=cv2.INTER_AREA), 1),
        (lambda image: np.hstack([image, image[:, ::-1]]), 2),
        (lambda image: turn_picture(image, np.radians(40))[0], 1),
        (at_the_edge, 1),
        (portrait, 1),
        (beside_a_portrait, 2),
    ],
    ids=("as it is", "large", "small", "two", "turned", "at the edge", "portrait", "large and small"),
)
def test_it_finds_what_the_landmarker_finds(pair, change, count):
    faces, found = pair(np.ascontiguousarray(change(ASTRONAUT)))
    assert len(faces) >= count  # an enlarged picture may show a false one too, which is not compared
    faces, found = faces[:count], {name: values[:count] for name, values in found.items()}
    sides = [np.ptp(face.landmarks, axis=0).max() for face in faces]
    # a landmark may have two almost equal cells in its score map
    away = apart(faces, found)
    assert (away.mean(1) < 0.15).all() and (away.max(1) < 0.3 + 0.01 * np.array(sides)).all()
    for face, box, score, scores in zip(faces, found["boxes"], found["scores"], found["landmark_scores"], strict=True):
        assert np.abs(face.box - box).max() < 0.2 and abs(face.score - score) < 0.01
        assert np.abs(face.scores - scores).max() < 0.05


@pytest.mark.parametrize(("name", "detector"), [("landmarks", "detector"), ("landmarks-open", "detector-open")])
def test_in_8_bits_it_finds_what_the_landmarker_finds_in_8_bits(name, detector, tmp_path):
    """The net that products may use has a detector of its own and no finder, in both."""
    net = Source(shipped(f"{name}.onnx"), lambda: (), detector=shipped(f"{detector}.onnx"))
    write_pipeline_int8(net._replace(int8=shipped(f"{name}.int8.onnx")), tmp_path / "8.onnx")
    parts = sum(
        shipped(f"{part}.int8.onnx").stat().st_size for part in (name, detector, *["finder"] * (name == "landmarks"))
    )
    assert abs((tmp_path / "8.onnx").stat().st_size - parts) < 2e5
    image = np.hstack([ASTRONAUT, ASTRONAUT[:, ::-1]])
    faces = Landmarker(name, device="cpu", int8=True, any_roll=False, threads=1)(image)
    found = open_session(tmp_path / "8.onnx", 1).run(["landmarks"], {"image": image})[0]
    away = apart(faces, {"landmarks": found})
    assert len(faces) == 2 and np.median(away) < 0.3 and away.max() < 3


@pytest.mark.parametrize(("height", "width"), [(37, 52), (38, 51), (1, 8), (2, 2)])
def test_its_pictures_are_those_of_opencv(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    scales = [scale for scale in (0.5, 0.51, 0.7) if scale * height > 0.5]
    expected = {scale: cv2.resize(image, None, fx=scale, fy=scale).astype(int) for scale in scales}
    for scale, picture in expected.items():
        assert np.abs(pipeline.resized(image, np.array(scale)) - picture).max() <= 1
    if height > 1:
        off = np.abs(pipeline.halved(image) - expected[0.5])
        assert off.max() <= 1 and not off[: height // 2, : width // 2].any()


@pytest.mark.slow
def test_its_joins_are_those_of_the_detector_and_the_landmarker():
    """Boxes and scores are random, and some are equal."""
    draw, dropped = np.random.default_rng(1), [0, 0]
    for number in [0, 1, *range(2, 12)] * 4:
        corner, size = draw.uniform(0, 100, (number + 3, 2)), draw.uniform(20, 150, (number + 3, 2))
        boxes = np.hstack([corner, corner + size]).astype(np.float32)
        boxes[:2], scores = boxes[2], draw.choice(np.linspace(0.1, 1, 9, dtype=np.float32), number + 3)
        is_large = (boxes[:number, 2:] - boxes[:number, :2]).prod(1) >= LARGE_FACE**2
        # the last three are those of the first look
        large, found = Detections(boxes[:number], scores[:number]), Detections(boxes[number:], scores[number:])
        expected = joined(Detections(*(part[is_large] for part in large[:2])), found, 0.3)
        given = (*large[:2], np.array(1, np.float32), *found[:2], np.array(0.3, np.float32))
        for one, other in zip(pipeline.join(np.array(1), *given), expected[:2], strict=True):
            assert np.array_equal(one, other)
        dropped[0] += is_large.sum() + 3 - len(expected.boxes)
        kept = draw.random(number + 3) < 0.9
        faces = [Face(box, 1.0, box.reshape(2, 2), np.array([score])) for box, score in zip(boxes, scores, strict=True)]
        expected = without_parts([face for face, keeps in zip(faces, kept, strict=True) if keeps])
        remains = pipeline.distinct(kept, boxes, scores)
        assert [id(face) for face in expected] == [
            id(face) for face, keeps in zip(faces, remains, strict=True) if keeps
        ]
        dropped[1] += kept.sum() - len(expected)
    assert min(dropped) > 10


@pytest.mark.parametrize("size", [(1, 1), (2, 700), (64, 48)])
def test_a_picture_without_faces_gives_empty_arrays(pair, size):
    faces, found = pair(np.zeros((*size, 3), np.uint8))
    assert not faces and found["boxes"].shape == (0, 4) and found["scores"].shape == (0,)
    assert found["landmarks"].shape == (0, 68, 2) and found["landmark_scores"].shape == (0, 68)


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"no photographs at {PHOTOGRAPHS}")
def test_it_agrees_on_photographs(pair):
    """One face in two hundred may differ by more: rounding decides between two cells of a score map that are almost
    equal.
    """
    pictures = sorted(path for path in PHOTOGRAPHS.iterdir() if path.suffix in (".jpg", ".png"))[::12]
    off = np.concatenate([apart(*pair(cv2.imread(str(path)))).max(1) for path in pictures])
    assert len(off) >= len(pictures) - 1 and np.median(off) < 0.05 and np.mean(off < 0.2) >= 0.95


def test_the_file_is_standard_folded_and_says_what_it_is(file):
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    # the oldest onnxruntime of the requirements, 1.20, reads IR version 10 and operators of version 21
    assert model.ir_version <= 10 and [(entry.domain, entry.version <= 21) for entry in model.opset_import] == [
        ("", True)
    ]
    assert not model.functions and not unfolded(file) and str(ROOT).encode() not in file.read_bytes()
    values = metadata(open_session(file, 1))
    assert values["task"] == "pipeline" and values["layout"]["count"] == 68 and 0 < values["threshold"] < 1
    ports = open_session(file, 1).native.get_inputs()
    assert [(port.name, port.type, port.shape) for port in ports] == [
        ("image", "tensor(uint8)", ["height", "width", 3])
    ]


def test_what_has_no_pipeline_is_refused(tmp_path):
    net, detector = shipped("landmarks.onnx"), shipped("detector.onnx")
    refuses(
        "FaceBoxesV2.pth",
        write_pipeline,
        Source(net, lambda: (), detector=Path("FaceBoxesV2.pth")),
        tmp_path / "out.onnx",
    )
    model = onnx.load(net)
    next(
        entry for entry in model.metadata_props if entry.key == "protocol"
    ).value = '{"scale_x": 1.1, "scale_y": 1.1, "shift_y": 0, "square": "no", "border": "clip", "rounding": "int"}'
    onnx.save(model, tmp_path / "other.onnx")
    refuses(
        "other.onnx.*--protocol",
        write_pipeline,
        Source(tmp_path / "other.onnx", lambda: (), detector=detector),
        tmp_path / "out.onnx",
    )
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.slow
def test_it_is_exported_by_name_and_is_no_landmark_net(cli, trained, tmp_path):
    run = shutil.copytree(trained.folder, tmp_path / "run")
    works(cli("--export pipeline pipeline-int8 --export-raw --exp", run))
    for name in ("best.pipeline.onnx", "best.pipeline.int8.onnx"):
        session = open_session(run / name, 1)
        assert session.run(["landmarks"], {"image": ASTRONAUT})[0].shape[1:] == (68, 2)
    refuses("best.pipeline.onnx", Landmarker, run / "best.pipeline.onnx")
    raw = open_session(run / "best.raw.onnx", 1)
    assert raw.native.get_outputs()[0].name == "score" and len(metadata(raw)["neighbor_index"]) == 68
    refuses("best.raw.onnx", Landmarker, run / "best.raw.onnx")
    assert cli("--test-formats pipeline --exp", run).error.startswith(
        "argument --test-formats: invalid choice: 'pipeline'"
    )


# --------------------------------------------------------------------------------------------------------- the example
def includes() -> Path:
    """Return the folder of onnxruntime's headers: below ONNXRUNTIME, an unpacked release, or where a distribution has
    it.
    """
    places = [
        Path(os.environ.get("ONNXRUNTIME", "/usr")) / "include",
        *map(Path, ("/usr/include", "/usr/local/include")),
    ]
    for folder in (part for place in places for part in (place, place / "onnxruntime")):
        if (folder / "onnxruntime_cxx_api.h").is_file():
            return folder
    pytest.skip(
        "no onnxruntime_cxx_api.h; install libonnxruntime-dev (Debian 13), or name an unpacked release in ONNXRUNTIME"
    )


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_the_example_in_cpp_prints_the_faces(file, pair, tmp_path):
    headers, program = includes(), tmp_path / "faces"
    library = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"), None)
    if library is None:
        pytest.skip("the package onnxruntime has no libonnxruntime.so")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (tmp_path / name).symlink_to(library)
    words = f"g++ -std=c++17 -Wall -Wextra -Werror -isystem {headers} -o {program} {ROOT}/examples/faces.cpp"
    subprocess.run([*words.split(), f"-L{tmp_path}", "-lonnxruntime", f"-Wl,-rpath,{tmp_path}"], check=True)
    picture = cv2.resize(np.hstack([ASTRONAUT, ASTRONAUT[:, ::-1]]), None, fx=0.6, fy=0.6)
    cv2.imwrite(str(tmp_path / "picture.ppm"), picture)
    done = subprocess.run([program, file, tmp_path / "picture.ppm"], capture_output=True, text=True)
    printed = np.array([line.split() for line in done.stdout.splitlines()], float)
    faces, _ = pair(picture)
    assert done.returncode == 0 and len(printed) == len(faces) == 2, done.stderr
    for face, row in zip(faces, printed, strict=True):
        assert np.abs(face.landmarks.ravel() - row[5:]).max() < 0.2 and np.abs(face.box - row[1:5]).max() < 0.2
    cv2.imwrite(str(tmp_path / "black.ppm"), np.zeros((30, 40, 3), np.uint8))
    done = subprocess.run([program, file, tmp_path / "black.ppm"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = subprocess.run([program, file, file], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "error: the picture is no binary PPM\n"
    assert len((ROOT / "examples" / "faces.cpp").read_text().splitlines()) <= 80
