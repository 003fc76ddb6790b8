"""The command as people type it: pictures, videos and cameras of every kind in; pictures, videos, JSON and a window
out.
"""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import DEFAULTS, LAYOUTS, ROOT, detector_file, draw_face, known_file, refuses, run, words, works
from PIL import Image

from nets.registry import STATES
from pipnet import chain
from pipnet.app import demo, encoders, output, sinks
from pipnet.detector import Detector
from pipnet.errors import UserError
from pipnet.images import read_image
from pipnet.landmarker import Landmarker
from pipnet.video import sources
from utils.task import inference
from utils.train.run_folder import Run
from utils.train.run_lock import hold

BOX = [30, 20, 130, 140]  # that the tests' detector finds in every image


@pytest.fixture(scope="module")
def nets(tmp_path_factory) -> list[str]:
    """A net that finds the mean face in every crop and a detector that always finds BOX."""
    folder = tmp_path_factory.mktemp("detector")
    file = detector_file(folder / "detector.onnx", [BOX], [0.9])
    return ["--exp", known_file(folder / "best.onnx"), "--detector-weights", file, "--threads", "1", "--upright"]


@pytest.fixture(autouse=True)
def no_display(monkeypatch, tmp_path):
    """Nobody looks on, and what is saved unasked lies in tmp_path."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def face_picture(size: int = 160) -> np.ndarray:
    return draw_face(np.random.default_rng(5), size)[0]


def photograph(size: int) -> np.ndarray:
    """A picture of this size of a person, in whom the shipped nets find one face."""
    picture = cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))
    side = min(picture.shape[:2])
    return cv2.resize(picture[:side, :side], (size, size), interpolation=cv2.INTER_AREA)


def write_video(file: Path, frames: int = 12, size=(160, 160), picture: np.ndarray | None = None) -> Path:
    code = cv2.VideoWriter.fourcc(*encoders.CODECS[file.suffix])
    writer = cv2.VideoWriter(str(file), code, 20, size)
    for index in range(frames):
        writer.write(cv2.resize(np.roll(face_picture() if picture is None else picture, 2 * index, 1), size))
    writer.release()
    return file


def frames_of(file: Path) -> list[np.ndarray]:
    capture, found = cv2.VideoCapture(str(file)), []
    while (frame := capture.read())[0]:
        found.append(frame[1])
    return found


def show(*flags) -> None:
    """Run demo.py with these flags."""
    demo.main(words(flags))


def lines(file) -> list[dict]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def test_shipped_nets_run_in_8_bits_or_in_32(tmp_path):
    shutil.copy(ROOT / "assets" / "astronaut.jpg", tmp_path / "face.jpg")
    found = {}
    for flags in ("", "--int8", "--no-int8"):
        show("--source face.jpg --json found.json --threads 1", *flags.split())
        found[flags] = np.array(lines("found.json")[0]["faces"][0]["landmarks"])
    assert 0 < np.abs(found["--int8"] - found["--no-int8"]).mean() < 1
    net, file, finder = (ROOT / "weights" / f"{name}.onnx" for name in ("landmarks", "detector", "finder"))
    face = Landmarker(net, Detector(weights=file, threads=1), threads=1, finder=finder)("face.jpg")[0]
    np.testing.assert_array_equal(found["--no-int8"], face.landmarks.round(2))
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        np.testing.assert_array_equal(found[""], found["--int8"])


def test_a_folder_with_its_subfolders_and_a_folder_to_save_in(nets, tmp_path, capfd):
    for name in ("face.png", "in/face2.png", "in/face10.webp", "in/b/face.bmp", "in/.hidden/face.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(name, face_picture())
    Path("in/bad.jpg").write_text("no picture")
    os.mkfifo("in/pipe.png")
    Path("in/notes.txt").write_text("no picture")
    cv2.imwrite("in/small.png", np.zeros((1, 1, 3), np.uint8))
    for again in ((), ("--overwrite",)):  # the second run does not take what the first one has drawn
        show("--source in --save in/drawn --json out.jsonl", *nets, *again)
        found = lines("out.jsonl")
        assert [row["file"] for row in found] == ["b/face.bmp", "face2.png", "face10.webp", "small.png"]
        assert [len(row["faces"]) for row in found] == [1, 1, 1, 0] and found[0]["time"] is None
        assert "left out: in/bad.jpg: not a readable image" in capfd.readouterr().err
    drawn = {str(file.relative_to("in/drawn")) for file in Path("in/drawn").rglob("*.*")}
    assert drawn == {"b/face.bmp", "face2.png", "face10.webp", "small.png"}
    changed = (cv2.imread("in/drawn/face2.png") != face_picture()).any(2).sum()
    assert 100 < changed < 10000 and found[0]["width"] == found[0]["height"] == 160
    for folder in ("new", "in/b"):
        show("--source face.png --save", folder, *nets)
    assert Path("new/face.png").is_file() and Path("in/b/face.png").is_file()
    write_video(tmp_path / "talk.avi", 2)
    show("--source talk.avi --save new", *nets)
    assert len(frames_of(tmp_path / "new" / "talk.mp4")) == 2
    refuses("source itself", show, "--source new/face.png --save new", *nets)


def test_several_pictures_and_folders_are_one_source(nets, tmp_path, capfd):
    for name in ("a.png", "b.png", "in/a.png", "in/sub/c.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(name, face_picture())
    show("b.png", "--json found.jsonl a.png", *nets, "--save new ./b.png")
    assert [row["file"] for row in lines("found.jsonl")] == ["b.png", "a.png"]
    assert sorted(path.name for path in Path("new").iterdir()) == ["a.png", "b.png"]
    show("--source a.png", tmp_path / "in", *nets, "--json found.jsonl")
    assert [row["file"] for row in lines("found.jsonl")] == ["a.png", "in/a.png", "in/sub/c.png"]
    refuses("new/a.png is the source itself", show, "new/a.png", "new/b.png", "--save new --overwrite", *nets)
    refuses("out.png: several pictures or videos go into a folder", show, "a.png", "b.png", "--save out.png", *nets)
    capfd.readouterr()
    # without a display and a flag, or with --save alone: free names
    for places in (["in"], ["in", "--save"], ["in/a.png", "in/sub"], ["in/?.png", "in/sub", "--save"]):
        show(*places, *nets)
    assert "2 pictures; saved output/in_2\n" in capfd.readouterr().err
    found = {str(path.relative_to("output")) for path in Path("output").rglob("*.png")}
    assert found == {
        *(f"{folder}{name}" for folder in ("in/", "in_2/", "") for name in ("a.png", "sub/c.png")),
        "a_2.png",
        "sub/c_2.png",
    }
    refuses("no file or folder matches in/[*].jpg", show, "in/*.jpg", *nets)
    refuses("give a.png --save", show, "--save", "a.png", *nets)


def test_pictures_and_videos_in_one_run(nets, tmp_path, capfd):
    for name, frames in (("one.avi", 3), ("in/two10.avi", 2), ("in/two9.avi", 1)):
        Path(name).parent.mkdir(exist_ok=True)
        write_video(Path(name), frames)
    cv2.imwrite("face.png", face_picture())
    show("one.avi", "face.png", "in/two*.avi", "--save new --json found.jsonl", *nets)
    files = [(row["file"], row["frame"]) for row in lines("found.jsonl")]
    one, (first, second) = [("one.avi", i) for i in range(3)], [("in/two10.avi", i) for i in range(2)]
    assert files == [*one, ("face.png", 0), ("in/two9.avi", 0), first, second]
    assert len(frames_of(Path("new/one.mp4"))) == 3 and len(frames_of(Path("new/in/two10.mp4"))) == 2
    said = capfd.readouterr().err
    assert all(f"saved new/{name} and found.jsonl" in said for name in ("face.png", "one.mp4", "in/two9.mp4"))
    for _ in range(2):
        show("one.avi", "face.png", "one.avi", "--save", *nets)
    show("one.avi", "face.png", "--save --overwrite", *nets)
    saved = {path.name for path in Path("output").iterdir()}
    assert saved == {"face.png", "face_2.png", *(f"one{number}.mp4" for number in ("", "_2", "_3", "_4"))}


@pytest.fixture
def owned(tmp_path) -> dict[Path, bytes]:
    """Return a user's files, which no command may change, with their contents."""
    for name in ("ph/a.jpg", "ph/b.jpg", "ph/sub/b.jpg", "ph/sub/c.gif", "ph/sub/c.gif.png", "mine.png", "c.gif.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face_picture(64)).save(name)
    write_video(Path("mine.avi"), 2)
    Path("notes.json").write_text('{"mine": 1}')
    os.link("ph/a.jpg", "hard.jpg")
    os.symlink("ph/a.jpg", "soft.jsonl")
    return {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file()}


@pytest.mark.parametrize(
    "flags",
    [
        "--source ph --json ph/b.jpg",
        "--source ph/sub --save ph",
        "--source ph/sub --save ph/../ph",
        "--source ph/a.jpg --save ph",
        "--source ph/a.jpg --save mine.png",
        "--source mine.avi --json mine.png",
        "--source ph/a.jpg --json notes.json",
        "--source ph --json soft.jsonl",
        "--source ph --save out --json out/a.jpg",
        "--source ph/sub --save new",
        "--source ph/sub/c.gif --save .",
        "--source ph/sub --save ph/sub",
        "--source ph/a.jpg --save hard.jpg --overwrite",
        "--source ph --json soft.jsonl --overwrite",
        "--source mine.avi --save mine.avi --overwrite",
        "--source ph/a.jpg --save ph --overwrite",
    ],
)
def test_no_output_takes_the_place_of_a_file_that_is_there(nets, owned, flags, tmp_path):
    refuses(
        "is there already|are there already|is the source itself|written twice|no picture in|name of a picture",
        show,
        flags,
        *nets,
    )
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file()} == owned


def test_overwrite_replaces_what_is_there(nets, owned):
    show("--source mine.png --save c.gif.png --json notes.json --overwrite", *nets)
    assert (
        lines("notes.json")[0]["file"] == "mine.png"
        and Path("c.gif.png").read_bytes() != owned[Path.cwd() / "c.gif.png"]
    )
    show("--source ph/sub/b.jpg --json notes.json", *nets)  # our own lines
    assert [line["file"] for line in lines("notes.json")] == ["b.jpg"]


def test_without_a_display_it_saves_and_says_where(nets, capfd):
    cv2.imwrite("face.png", face_picture())
    show("--source face.png", *nets)
    assert "1 face in 1 picture; saved output/face.png" in capfd.readouterr().err and Path("output/face.png").is_file()
    Image.fromarray(face_picture()).save("face.gif")
    Image.fromarray(face_picture()).save("face.jfif", "JPEG")
    for name in ("face.gif", "face.gif", "face.jfif"):
        show("--source", name, *nets)
    capfd.readouterr()
    assert {"face.gif.png", "face.gif_2.png", "face.jfif.png"} <= {path.name for path in Path("output").iterdir()}
    show("--source face.png --json -", *nets)
    said = capfd.readouterr()
    assert json.loads(said.out)["faces"][0]["score"] == 0.9 and "saved" not in said.err
    Path("my.pictures").mkdir()
    shutil.copy("face.png", "my.pictures")
    for _ in range(2):
        show("my.pictures", *nets)
    assert Path("output/my.pictures/face.png").is_file() and Path("output/my.pictures_2/face.png").is_file()


def test_the_rate_of_a_video_is_that_of_all_its_frames():
    source = SimpleNamespace(live=False, still=False)
    args = SimpleNamespace(save=None, json="out.jsonl", overwrite=False)
    video = output.Output(args, source, LAYOUTS.load("68"), None, False, set())
    for seconds in [0.01] * 90 + [0.1] * 10:
        video.add(None, [], {}, seconds)
    assert re.fullmatch(r"0 faces in 100 frames, [2-5]\d frames/s", video.summary())


def test_a_video_with_all_there_is(nets, tmp_path, cli):
    write_video(tmp_path / "talk.mp4")
    done = works(
        cli(
            "--source",
            tmp_path / "talk.mp4",
            "--save",
            tmp_path / "new" / "out.mp4",
            "--json",
            tmp_path / "out.jsonl",
            "--pose --drowsiness --detect-every 3",
            *nets,
            script=ROOT / "demo.py",
        )
    )
    assert re.search(r"12 frames, \d+ frames/s; saved .*out.mp4 and .*out.jsonl", done.stderr)
    rows, frames = lines(tmp_path / "out.jsonl"), frames_of(tmp_path / "new" / "out.mp4")
    assert len(rows) == len(frames) == 12 and frames[0].shape == (160, 160, 3)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.mp4"]
    assert [row["frame"] for row in rows] == list(range(12)) and np.allclose(
        [row["time"] for row in rows], np.arange(12) / 20
    )
    face = rows[0]["faces"][0]
    assert rows[0]["file"] == "talk.mp4" and face["id"] == 0
    assert len(face["box"]) == 4 and np.shape(face["landmarks"]) == (68, 2) and len(face["pose"]) == 3
    assert "states" not in face
    assert (
        len(face["landmark_scores"]) == 68 and 0 <= min(face["landmark_scores"]) and max(face["landmark_scores"]) <= 1
    )
    assert {"ear_left", "ear_right", "perclos", "blinks", "yawns", "alarm"} <= face.keys() and min(face["sigma"]) > 0


def test_pose_and_states_are_the_nets_own(nets, tmp_path, monkeypatch):
    monkeypatch.setattr(chain, "head_pose", None)  # must not be used
    known, found = known_file(tmp_path / "known.onnx", further=True), nets[nets.index("--detector-weights") + 1]
    flags = [*nets, "--exp", known, "--pose"]
    cv2.imwrite("face.png", face_picture())
    (whole,) = Landmarker(known, Detector(weights=found), threads=1, any_roll=False)(read_image(Path("face.png")))
    assert whole.pose.shape == (3,) and np.abs(whole.pose).max() > 5  # the finder turns the crop, and so the pose
    show("--source face.png --json picture.jsonl --save drawn.png", *flags)
    show("--source", write_video(tmp_path / "talk.avi", 3), "--json video.jsonl --drowsiness", *flags)
    said = [row["faces"][0] for file in ("picture.jsonl", "video.jsonl") for row in lines(file)]
    assert len(said) == 4 and said[0]["pose"] == pytest.approx(whole.pose.tolist(), abs=0.01)
    for face in said:
        assert face["states"] == pytest.approx(dict(zip(STATES, (0.1, 0.9, 0.8, 0.2), strict=True)))
        assert len(face["pose"]) == 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are UTF-8 there")
def test_names_that_are_not_utf8(nets, tmp_path):
    """OpenCV would end the process."""
    data, folder = cv2.imencode(".png", face_picture())[1].tobytes(), tmp_path / "in"
    names = [os.fsdecode(name) for name in (b"\xff.png", b"\xfe.data", b"\xfd.txt", b"\xff.avi", b"\xff.mp4")]
    folder.mkdir()
    for name, content in zip(names[:3], (data, data, b"no picture"), strict=True):
        (folder / name).write_bytes(content)
    done = works(
        run("python", "demo.py", folder, "--save", tmp_path / "drawn", "--json", tmp_path / "out.jsonl", *nets)
    )
    assert [row["file"] for row in lines("out.jsonl")] == [names[1], names[0]]
    assert {path.name for path in Path("drawn").iterdir()} == {names[0], f"{names[1]}.png"}
    video, moved = write_video(tmp_path / "talk.avi", 3), tmp_path / names[3]
    shutil.copy(video, moved)
    for flags in (
        [moved],
        [video, "--save", tmp_path / names[4]],
        [folder / names[2]],
        [folder, "--detector", "yunet", "--detector-weights", folder / names[2]],
    ):
        done = run("python", "demo.py", *nets, *flags)
        assert done.returncode == 1 and "is not UTF-8; rename it" in done.stderr and "Traceback" not in done.stderr, (
            done
        )


def test_a_moving_gif_is_a_video(nets, tmp_path):
    pictures = [Image.fromarray(np.roll(face_picture(), 4 * i, 1)[..., ::-1]) for i in range(3)]
    pictures[0].save("wave.gif", save_all=True, append_images=pictures[1:], duration=100)
    show("--source wave.gif --json out.jsonl", *nets)
    assert [row["time"] for row in lines("out.jsonl")] == [0, 0.1, 0.2]


def test_a_video_that_ends_too_early(nets, tmp_path, capfd):
    file = write_video(tmp_path / "in.avi", 20)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 7 // 10])
    show("--source", file, "--save out.mp4", *nets)
    count = len(frames_of(tmp_path / "out.mp4"))
    assert 8 <= count < 20 and f"{count} of 20 frames could be read" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_video_that_plays(nets, tmp_path, number):
    write_video(tmp_path / "long.avi", 1000, (64, 64))
    command = [
        sys.executable,
        str(ROOT / "demo.py"),
        "--source",
        "long.avi",
        "--save",
        "out.mp4",
        "--json",
        "out.jsonl",
        *nets,
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 100
    while not (tmp_path / "out.jsonl").is_file() or len((tmp_path / "out.jsonl").read_text().splitlines()) < 5:
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number and "Traceback" not in said
    assert "saved out.mp4" in said and said.endswith("stopped\n")
    assert 5 <= len(frames_of(tmp_path / "out.mp4")) == len(lines(tmp_path / "out.jsonl")) < 1000
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_graph_without_an_end_is_stopped(tmp_path):
    """In both commands, at the same time: each takes 8 s to be in the loop, and 7 to give it up."""
    values = {"layout": LAYOUTS.load("5").to_dict(), "protocol": DEFAULTS.protocols["square"], "input_size": 64}
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 18]>
        net (uint8[batch, 64, 64, 3] image) => (float[a, 5, 2] landmarks, float[b, 5] score) {
            most = Constant <value_int = 9223372036854775807> ()
            yes = Constant <value = bool {1}> ()
            zero = Constant <value_float = 0.0> ()
            end = Loop <body = body (int64 trip, bool on, float old) => (bool again, float new) {
                again = Identity (on)
                new = Cos (old)
            }> (most, yes, zero)
            points = Constant <value = float[1, 5, 2] {0, 0, 0, 0, 0, 0, 0, 0, 0, 0}> ()
            landmarks = Add (points, end)
            score = Constant <value = float[1, 5] {1, 1, 1, 1, 1}> ()
        }""")
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in values.items()})
    onnx.save(model, tmp_path / "net.onnx")
    picture = str(ROOT / "assets" / "astronaut.jpg")
    begun = [
        subprocess.Popen(
            [sys.executable, str(ROOT / script), flag, picture, "--exp", "net.onnx"],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        for script, flag in (("demo.py", "--source"), ("main.py", "--predict"))
    ]
    try:
        time.sleep(8)
        assert [process.poll() for process in begun] == [None, None]
        for process in begun:
            process.send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=15)[1] for process in begun]
    finally:
        for process in begun:
            process.kill()
    assert [process.returncode for process in begun] == [143, 143]
    assert all("stopped" in text.splitlines()[-1] and "Traceback" not in text for text in said), said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_last_picture_changes_nothing(number):
    code = f"""import atexit, os
from pipnet.app import demo
atexit.register(os.kill, os.getpid(), {int(number)})
demo.command(["--help"])"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "--source" in done.stdout


@pytest.mark.slow
def test_a_signal_while_the_nets_are_freed_is_one_line():
    code = """import signal
from pipnet.app import demo
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process that a shell starts with & ignores it
demo.main = lambda argv: signal.raise_signal(signal.SIGINT)
demo.command([])"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "stopped\n")


def test_a_checkpoint_says_what_its_export_says(cli):
    found, source = [], ROOT / "assets" / "astronaut.jpg"
    for exp in (ROOT / "weights" / f"landmarks-fast{suffix}" for suffix in (".onnx", ".pt")):
        done = works(cli("--source", source, "--json - --threads 1 --exp", exp, script=ROOT / "demo.py"))
        found.append(json.loads(done.stdout)["faces"][0]["landmarks"])
    assert np.abs(np.subtract(*found)).max() < 0.5


def test_forty_faces_and_none(nets, tmp_path):
    # so small that the look for large faces, in which this detector gives the same boxes, drops them
    boxes = [[80 * c + 27, 80 * r + 27, 80 * c + 53, 80 * r + 53] for r in range(5) for c in range(8)]
    many = detector_file(tmp_path / "many.onnx", boxes, np.linspace(0.99, 0.7, 40))
    cv2.imwrite("crowd.png", np.tile(face_picture(80), (5, 8, 1)))
    show("--source crowd.png --save a.jpg --json a.jsonl", *nets, "--detector-weights", many)
    assert len(lines("a.jsonl")[0]["faces"]) == 40
    show("--source crowd.png --json b.jsonl", *nets, "--detector-weights", many, "--max-faces 3")
    assert len(lines("b.jsonl")[0]["faces"]) == 3
    show("--source crowd.png --save c.png --json c.jsonl", *nets, "--threshold 0.95")
    assert lines("c.jsonl")[0]["faces"] == [] and (cv2.imread("c.png") == cv2.imread("crowd.png")).all()


@pytest.mark.slow
def test_a_picture_of_108_megapixels(nets, tmp_path):
    cv2.imwrite("large.jpg", np.zeros((9000, 12000, 3), np.uint8))
    # not ru_maxrss, which a process inherits from the one that has started it
    code = (
        "import re, sys\nfrom pipnet.app import demo\ndemo.main(sys.argv[1:])\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--source", "large.jpg", "--save", "out.jpg", *nets],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1500 and Path("out.jpg").stat().st_size > 0


def test_what_cannot_be_done_is_one_line(nets, tmp_path):
    cv2.imwrite("face.png", face_picture())
    write_video(tmp_path / "talk.avi", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video" * 100)
    (tmp_path / "cut.png").write_bytes(Path("face.png").read_bytes()[:300])
    for flags, message in (
        (["--source 77"], "camera 77"),
        (["--source gone.mp4"], "no file or folder gone.mp4"),
        (["--source empty"], "no picture in the folder empty"),
        (["--source none.mp4"], "none.mp4 is empty"),
        (["--source text.mp4"], "text.mp4 cannot be played"),
        (["--source cut.png"], "cut.png: the image is cut short"),
        (["--source rtsp://127.0.0.1:9/x"], "127.0.0.1.* cannot be played: .* does not answer"),
        (["--source face.png --save out.txt"], "no picture's name"),
        (["--source talk.avi --save out.png"], "a name that ends in .mp4"),
        (["--source talk.avi --save face.png/out.mp4"], "cannot be written"),
        (["--source face.png --drowsiness"], "drowsiness needs a video"),
        (["--source face.png --exp gone.onnx"], "no file at gone.onnx"),
        (["--source face.png --exp no-such-run"], "trained net"),
        (["face.png", "--source 0"], "face.png and --source 0 are two sources"),
        (["face.png", "talk.avi", "--save out.mp4"], "out.mp4: several pictures or videos go into a folder"),
        (["talk.avi", "talk.avi", "--save new"], "talk.mp4 would be written twice"),
        (["--overwrite"], "--overwrite is for the files of --save and --json"),
        (["--source ²"], "no file or folder"),
        (
            ["--source face.png --json a.mp4"],
            "--json a.mp4: the name of a picture or video; give one that ends in",
        ),
        (["--source face.png --threads 100000"], "--threads is a number of threads up to 1024"),
        (["--source face.png --save -"], "--save - : pictures and videos are not written to the terminal"),
        (["--source face.png --detector-weights gone.pth"], "needs its weights .no file at gone.pth"),
        (["http://[x"], r"http://\[x"),
        (["face.png", "--json /proc/self/mem"], "/proc/self/mem is there already"),
        ([""], "--source is empty; give it a value, or leave it out"),
        (["face.png", "--json", ""], "--json is empty"),
        (["--source face.png --threshold 2"], "threshold must be a number from 0 to 1"),
        (["--source face.png --detector-scale 0"], "scale of a detector must be above 0"),
        (["--source talk.avi --detect-every 0"], "--detect-every"),
    ):
        refuses(message, show, *nets, *flags)
    assert not {"out.mp4", "out.txt", "out.png", "output"} & {path.name for path in tmp_path.iterdir()}


def test_what_cannot_be_written_is_one_line(nets, tmp_path):
    cv2.imwrite("wide.png", np.zeros((8, 66000, 3), np.uint8))
    for flags, message in (
        (["--save out.jpg"], "out.jpg: a .jpg cannot hold 66000 x 8 px"),
        (["--json /dev/full"], "/dev/full cannot be written .No space left"),
    ):
        if Path("/dev/full").exists() or "/dev/full" not in flags:
            refuses(message, show, "--source wide.png", *nets, *flags)
    assert not list(tmp_path.glob("*.jpg"))


def test_a_full_disk_is_noticed(nets, tmp_path, monkeypatch):
    """Soon enough, so that what has been written plays; or, where not, no video that does not play is left behind."""
    write_video(tmp_path / "talk.avi", 12)
    free = iter([2 * sinks.RESERVE] * 5)
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=next(free, 0)))
    refuses("out.mp4.*5 frames", show, "--source talk.avi --save out.mp4", *nets)
    assert len(frames_of(tmp_path / "out.mp4")) == 5
    monkeypatch.undo()
    noise = np.random.default_rng(0).integers(0, 256, (60, 96, 96, 3), dtype=np.uint8)
    for suffix in encoders.CODECS:
        sink, limits = sinks.VideoSink(tmp_path / f"noise{suffix}", 20), resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            # writing fails from here on as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
            with pytest.raises(UserError, match=f"noise{suffix}"), closing(sink):
                for index, image in enumerate(noise):
                    sink.write(sources.Frame(image, index, index / 20, "noise"), image)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [path for path in tmp_path.iterdir() if "noise" in path.name]


def test_a_command_on_a_run_leaves_a_video_that_is_being_saved_there(tmp_path):
    for place in ("run/out.mp4", "run/best.mp4", "run/predicted/out.avi", "run/report/out.webm"):
        with closing(sinks.VideoSink(tmp_path / place, 20)) as sink:
            for index in range(3):
                sink.write(sources.Frame(face_picture(), index, index / 20, ""), face_picture())
                with hold(Run(tmp_path / "run", tmp_path / "run" / "best.pt")):
                    pass
        assert len(frames_of(tmp_path / place)) == 3


def test_threads_are_those_of_every_net(trained, reference, monkeypatch):
    before, asked = (torch.get_num_threads(), cv2.getNumThreads()), []
    opened = inference.open_net
    monkeypatch.setattr(inference, "open_net", lambda file, threads: asked.append(threads) or opened(file, threads))
    try:
        inference.open_landmark_net(trained.folder / "best.onnx", DEFAULTS, 1)
        Detector("faceboxes", reference / "FaceBoxesV2.pth", threads=1)
        assert asked == [1] and torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


@pytest.mark.slow
def test_an_export_of_the_weights_needs_no_torch(nets, trained, tmp_path):
    cv2.imwrite("face.png", face_picture())
    shutil.copytree(trained.folder, "run")
    code = "import sys, utils; from pipnet.app import demo; demo.main(sys.argv[1:]); print('torch' in sys.modules)"
    for needed in (False, True):
        done = subprocess.run(
            [sys.executable, "-c", code, "face.png", "--json", "out.jsonl", *nets, "--exp", "./run"],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0 and done.stdout == f"{needed}\n", done.stderr
        shutil.copy("run/last.pt", "run/best.pt")  # the weights are no longer those of the export


class Desktop:
    """OpenCV's window functions, with someone who presses keys."""

    def __init__(self, monkeypatch, keys: str):
        self.keys, self.shown = iter(keys), []
        for name, function in {
            "namedWindow": lambda *_: None,
            "resizeWindow": lambda *_: None,
            "destroyAllWindows": lambda: None,
            "imshow": lambda _, image: self.shown.append(image.copy()),
            "getWindowProperty": lambda *_: 1.0,
            "waitKey": lambda _: ord(next(self.keys, "q")) if self.shown else -1,
        }.items():
            monkeypatch.setattr(cv2, name, function)
        monkeypatch.setattr(output, "has_display", lambda: True)


def test_keys(nets, tmp_path, monkeypatch):
    write_video(tmp_path / "talk.avi", 30)
    # d: points, numbers, nothing; m: mirror; s: save; space: pause and go on
    desk = Desktop(monkeypatch, "..d.dd.m.s. ... .q")
    show("--source talk.avi", *nets)
    plain = frames_of(tmp_path / "talk.avi")
    assert not Path("output/talk.mp4").exists()  # it is looked at, not saved
    shown = [int((image != plain[0]).any(2).sum()) for image in desk.shown[:1]]
    assert shown[0] > 100
    assert any((image == frame[:, ::-1]).all() for image in desk.shown for frame in plain)  # mirrored, nothing drawn
    assert len(list((tmp_path / "output").glob("talk_*.png"))) == 1
    distinct = 1 + sum((a != b).any() for a, b in zip(desk.shown, desk.shown[1:], strict=False))
    assert distinct < len(desk.shown) <= 18  # it stood still while paused


def test_pictures_wait_for_a_key(nets, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for index in range(3):
        cv2.imwrite(f"in/{index}.png", face_picture())
    desk = Desktop(monkeypatch, ".. ..q")
    show("--source in", *nets)
    assert len(desk.shown) == 6
    desk = Desktop(monkeypatch, "q")
    show("--source in --save out", *nets)  # what is only to be saved needs no window
    assert not desk.shown and len(list((tmp_path / "out").iterdir())) == 3


def test_a_live_source_shows_the_newest_frame(tmp_path, monkeypatch):
    file = write_video(tmp_path / "talk.avi", 30)
    video = sources.Video(str(file))
    video.live, video.count = True, None
    video._queue.maxsize = 1
    indices = []
    for frame in video:
        indices.append(frame.index)
        time.sleep(0.02)
    assert indices == sorted(set(indices)) and indices[-1] == 29


def test_nobody_decodes_after_the_last_frame(tmp_path, monkeypatch):
    """At the end of the process, that would abort it."""
    before, opened = threading.enumerate(), cv2.VideoCapture

    class Slow:
        def __init__(self, *options):
            self._capture = opened(*options)

        def read(self):
            time.sleep(0.1)
            return self._capture.read()

        def __getattr__(self, name):
            return getattr(self._capture, name)

    monkeypatch.setattr(cv2, "VideoCapture", Slow)
    for most in (1, 9):
        for index, _ in enumerate(sources.Video(str(write_video(tmp_path / "talk.avi", 3))), 1):
            if index == most:
                break
        assert threading.enumerate() == before


def test_the_camera_is_the_usual_source(tmp_path, monkeypatch):
    write_video(tmp_path / "camera.avi", 20, picture=photograph(240), size=(240, 240))
    opened = cv2.VideoCapture
    monkeypatch.setattr(
        cv2, "VideoCapture", lambda target, *options: opened("camera.avi" if target == 0 else target, *options)
    )
    show("--threads 1 --json faces.json")  # what pytorch_face_landmark's test_camera does
    lines = [json.loads(line) for line in Path("faces.json").read_text().splitlines()]
    assert lines and {line["file"] for line in lines} == {"camera0"} and {len(line["faces"]) for line in lines} == {1}


class Camera:
    """A capture that gives some frames of a size, then none."""

    def __init__(self, size: int, frames: int):
        self.size, self.left = size, frames

    def isOpened(self) -> bool:
        return self.left > 0

    def read(self):
        self.left -= 1
        time.sleep(0.05)
        return (True, photograph(self.size)) if self.left >= 0 else (False, None)

    def grab(self) -> bool:
        return self.read()[0]

    def get(self, _) -> float:
        return -1.0

    def release(self) -> None: ...


def test_a_camera_that_vanishes_and_returns_with_another_size(monkeypatch, capfd):
    monkeypatch.setattr(sources, "RETRY", 0.05)
    monkeypatch.setattr(sources, "RETURN", 0.6)
    opened, real = [Camera(160, 12), Camera(1, 0), Camera(1, 0), Camera(240, 12)], cv2.VideoCapture
    monkeypatch.setattr(
        cv2,
        "VideoCapture",
        lambda target, *options: real(target, *options) if target != 3 else opened.pop(0) if opened else Camera(1, 0),
    )
    show("--threads 1 --source 3 --save out.mp4 --json out.jsonl --smooth flow")
    said, rows = capfd.readouterr().err, lines("out.jsonl")
    assert said.count("camera 3 gives no picture; waiting") == 2 and said.count("camera 3 is back") == 1
    assert "camera 3 gives no more pictures" in said
    widths = [row["width"] for row in rows]
    assert set(widths) == {160, 240} and widths == sorted(widths)
    assert {len(row["faces"]) for row in rows} == {1}, [len(row["faces"]) for row in rows]
    assert {frame.shape for frame in frames_of(Path("out.mp4"))} == {(160, 160, 3)}


def test_a_video_whose_size_changes(nets):
    whole = b""
    for side in (160, 96):  # a recorded broadcast, which may change its size
        writer = cv2.VideoWriter("part.ts", cv2.VideoWriter.fourcc(*"mp4v"), 20, (side, side))
        for _ in range(6):
            writer.write(cv2.resize(face_picture(), (side, side)))
        writer.release()
        whole += Path("part.ts").read_bytes()
    Path("in.ts").write_bytes(whole)
    show("--source in.ts --save out.mp4 --json out.jsonl", *nets)
    assert [row["frame"] for row in lines("out.jsonl")] == list(range(12)) and len(frames_of(Path("out.mp4"))) == 12


@pytest.mark.parametrize("second", [(240, 320), (160, 120), (320, 240)])
def test_frames_of_a_video_have_their_own_sizes(second):
    """A phone is turned while it streams. OpenCV stretches all frames to the first size, in which faces are flat."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    image, whole = cv2.imread(str(ROOT / "assets" / "astronaut.jpg")), b""
    for width, height in ((320, 240), second):
        cut = image[: 360 * height // width, 40:400]
        with av.open("part.ts", "w") as out:
            video = out.add_stream("libx264", 10)
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
            for _ in range(6):
                frame = av.VideoFrame.from_ndarray(cv2.resize(cut, (width, height)), format="bgr24")
                out.mux(video.encode(frame))
            out.mux(video.encode(None))
        whole += Path("part.ts").read_bytes()
    Path("in.ts").write_bytes(whole)
    show("--threads 1 --source in.ts --json out.jsonl")
    rows = lines("out.jsonl")
    assert [(row["width"], row["height"]) for row in rows] == [(320, 240)] * 6 + [second] * 6
    boxes = [np.array(row["faces"][0]["box"]) for row in rows]
    for box, row in zip(boxes, rows, strict=True):
        assert np.abs(box * 320 / row["width"] - boxes[0]).max() < 12, row["frame"]  # at once, without a way there


def test_no_module_of_the_current_folder_is_run(tmp_path):
    """A foreign folder may hold any file. `python -m pipnet` there, the display's test, and an own path all pass it by."""
    shutil.copy(ROOT / "assets" / "astronaut.jpg", "face.png")
    for name in ("cv2.py", "json.py", "av/__init__.py", "utils/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"open({str(tmp_path / 'RUN')!r}, 'w')\n")
    for command in (["-m", "pipnet"], [ROOT / "demo.py"]):
        done = subprocess.run(
            [sys.executable, *command, "face.png"],
            env={**os.environ, "PYTHONPATH": f":{ROOT}", "DISPLAY": ":77"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and "1 face in 1 picture; saved output" in done.stderr, done


def test_what_is_shown_changes_no_terminal_and_tells_no_password(tmp_path, capfd):
    """Names of a foreign folder, and the address of a camera."""
    odd = "a\x1b]0;owned\x07\nerror: b"
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / f"{odd}.png").write_bytes(b"no picture")
    cv2.imwrite(f"faces/{odd}2.png", np.zeros((64, 64, 3), np.uint8))
    show("faces", "--save", f"faces/{odd}/", "--upright")
    said = capfd.readouterr().err
    assert r"left out: faces/a\x1b]0;owned\x07\nerror: b.png" in said and r"saved faces/a\x1b" in said
    assert "\x1b]" not in said and "\nerror: b" not in said
    done = subprocess.run(
        [sys.executable, ROOT / "demo.py", "rtsp://admin:Secret99@127.0.0.1:9/x"], capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.startswith("error: rtsp://***@127.0.0.1:9/x cannot be played"), done
