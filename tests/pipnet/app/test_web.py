"""The page in a browser: the numbers of Python, on the same frames of a camera."""

import base64
import hashlib
import json
import os
import re
import resource
import shutil
import socket
import struct
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, fails, refuses, works
from speeds.browser import BROWSER, Listener, in_browser, two_faces

from pipnet.app import demo, web
from pipnet.app.output import json_line
from pipnet.app.sinks import VideoSink
from pipnet.app.web import PAGE, RUNTIME, Handler, Options, check_page, write_page
from pipnet.detector import Detector
from pipnet.files import write_atomic
from pipnet.geometry import box_of
from pipnet.landmarker import Landmarker
from pipnet.pose import head_pose
from pipnet.shipped import LANDMARK_NETS, OPEN, shipped
from pipnet.video.drowsiness import Drowsiness
from pipnet.video.sources import Frame
from pipnet.video.track import Tracker

needs_runtime = pytest.mark.usefixtures("runtime")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")


@pytest.fixture(scope="session")
def runtime(tmp_path_factory) -> None:
    """The file of onnxruntime-web, which npm fetches where it is missing; the test is skipped where npm cannot."""
    file, folder, npm = PAGE / RUNTIME, tmp_path_factory.mktemp("npm"), shutil.which("npm")
    if file.is_file():
        return
    if npm is None:
        pytest.skip(f"no {RUNTIME}, and no npm to fetch it")
    name = RUNTIME.removesuffix(".tgz").replace("web-", "web@")
    command = [npm, "pack", name, "--loglevel", "error", "--fetch-retries", "1"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if not (folder / RUNTIME).is_file():
        pytest.skip(f"no {RUNTIME}, and npm could not fetch it ({done.stderr.partition(chr(10))[0]})")
    write_atomic(file, partial(shutil.copyfile, folder / RUNTIME))


def frames_of(sent: dict[str, list[bytes]]) -> Iterator[tuple[np.ndarray, dict]]:
    """Yield the pictures (H, W, 3) BGR that the page has worked on, and their records."""
    for line, pixels in zip(sent["record"], sent["pixels"], strict=True):
        record = json.loads(line)
        image = np.frombuffer(pixels, np.uint8).reshape(record["height"], record["width"], 4)
        yield cv2.cvtColor(image, cv2.COLOR_RGBA2BGR), record


@pytest.mark.slow
@needs_runtime
@needs_browser
@pytest.mark.parametrize(("int8", "most"), [(False, 0.15), (True, 1)], ids=("32 bits", "8 bits"))
def test_the_page_finds_what_python_finds(tmp_path, int8, most):
    net = shipped("landmarks.int8.onnx" if int8 else "landmarks.onnx")
    page, detector = tmp_path / "below" / "page", Detector(weights=shipped("detector.onnx"), threads=1)
    landmarker = Landmarker(net, detector, threads=1, finder=shipped("finder.onnx"))
    page.parent.mkdir()
    alone = Options(shipped("landmarks-open.onnx"), detector=shipped("detector-open.onnx"))  # without a finder
    write_page(page, Options(shipped("landmarks.onnx"), net if int8 else None), others=[alone])
    for name in ("out.mp4", "out.webm"):
        with closing(VideoSink(page / name, 20)) as sink:
            for index in range(8):
                image = np.full((81, 120, 3), 20 * index, np.uint8)
                sink.write(Frame(image, index, index / 20, name), image)
    portrait = cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))
    dark = np.clip(portrait / 4 + np.random.default_rng(0).normal(0, 10, portrait.shape), 0, 255).astype(np.uint8)
    lying = cv2.rotate(portrait, cv2.ROTATE_90_COUNTERCLOCKWISE)
    stills = {"dark.png": dark, "lying.png": lying, "face.png": portrait}
    for name, image in stills.items():
        cv2.imwrite(str(page / name), image)
    (page / "cases.json").write_text(json.dumps({"videos": ["out.mp4", "out.webm"], "pictures": list(stills)}))
    sent = in_browser(
        tmp_path, Path(__file__).with_name("page_test.js").read_text(), *two_faces(tmp_path / "camera.mjpeg")
    )
    assert re.match(rb"face.png: 1 face; landmarks-open on", sent["done"][0]), sent["done"]
    assert len({*map(tuple, json.loads(sent["mirrored"][0]))}) == 1
    assert {net.name} == Listener.fetched & {"landmarks.onnx", "landmarks.int8.onnx"}  # in WebAssembly

    lines, saved = sent["saved"]
    assert [json.loads(line) for line in lines.splitlines()] == [json.loads(sent["record"][-1])]
    saved = cv2.imdecode(np.frombuffer(saved, np.uint8), cv2.IMREAD_COLOR)
    assert saved.shape == portrait.shape and 0 < (saved != portrait).any(2).mean() < 0.2  # the drawing

    videos = json.loads(sent["videos"][0])
    assert np.allclose(videos, (120, 80, 0.4), atol=0.06), videos

    tracker, drowsiness, apart = Tracker(landmarker), Drowsiness(landmarker.layout), []
    *video, dark, lying, upright = frames_of(sent)
    assert len(video) == 50
    for image, record in video:
        faces = tracker.update(image, record["time"])
        assert [face["id"] for face in record["faces"]] == [face.id for face in faces] == [0, 1]
        for one, face in zip(record["faces"], faces, strict=True):
            landmarks = np.array(one["landmarks"])
            apart.append(np.linalg.norm(landmarks - face.landmarks, axis=1))
            assert np.abs(one["pose"] - np.array(head_pose(landmarks, landmarker.layout))).max() < 1
            drowsy = drowsiness.update(face.id, landmarks, record["time"])
            assert all(abs(one[name] - drowsy[name]) < 0.01 for name in ("ear_left", "ear_right", "mouth", "open"))
            assert (one["blinks"], one["closed"]) == (drowsy["blinks"], drowsy["closed"])
            # both go on from the same landmarks, since nets differ by more from frame to frame, if one value of a pixel
            # differs
            tracker.tracks[face.id].next, tracker.tracks[face.id].box = landmarker.box_of(landmarks), box_of(landmarks)
            tracker.smooth.states[face.id] = tracker.smooth.states[face.id]._replace(smooth=landmarks)
    # 8-bit sums differ in WebAssembly; of two almost equal pixels of a score map, here the one may win and there the
    # other
    assert np.quantile(apart, 0.99) < most and np.max(apart) < 3
    for picture, still in (dark, lying, upright):
        faces = landmarker(picture)
        # background that looks almost like a face may be one here and none there
        assert picture is lying[0] or len(still["faces"]) == len(faces)
        largest = (
            max(map(np.array, some), key=lambda points: np.ptp(points, axis=0).prod())
            for some in ([face["landmarks"] for face in still["faces"]], [face.landmarks for face in faces])
        )
        apart = np.linalg.norm(np.subtract(*largest), axis=1)
        assert np.quantile(apart, 0.9) < most + 0.05 and apart.max() < 3
        assert still["faces"][0].keys() == json.loads(json_line(Frame(picture, 0, None, ""), faces))["faces"][0].keys()


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[str, int]]:
    """Address of a server of a folder with a large file."""
    (tmp_path / "large.bin").write_bytes(bytes(2**25))
    (tmp_path / "index.html").write_text("the page")
    with web.Server(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address
        server.shutdown()


def answer(address: tuple[str, int], path: str, host: str | None) -> bytes:
    """What the server answers."""
    with socket.create_connection(address, 10) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n{'' if host is None else f'Host: {host}'}\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(2**16), b""))


def test_the_server_answers_to_its_own_names_only(served, capfd):
    for host in ("127.0.0.1:{}", "localhost:{}", "localhost"):
        assert answer(served, "/", host.format(served[1])).endswith(b"the page")
    for host in (
        "evil.example:{}",
        "evil.example",
        "127.0.0.1.evil.example",
        "evil.example:127.0.0.1",
        "localhost:1",
        "localhost:",
        "",
        None,
    ):
        assert answer(served, "/", host and host.format(served[1])).startswith(b"HTTP/1.0 403"), host
    for path in ("/%00", "/a%00b/", "/index.html%00"):
        assert answer(served, path, "localhost").startswith(b"HTTP/1.0 404"), path
    assert answer(served, "/", "localhost\r\nHost: localhost").startswith(b"HTTP/1.0 403")
    assert b"Content-Security-Policy: frame-ancestors 'none'" in answer(served, "/", "localhost")
    assert capfd.readouterr().err == ""


def test_a_page_that_is_closed_while_a_net_loads_is_no_error(served, capfd):
    for _ in range(3):
        connection = socket.create_connection(served, 10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
        connection.sendall(b"GET /large.bin HTTP/1.0\r\nHost: localhost\r\n\r\n")
        connection.recv(1000)
        connection.close()
    connection = socket.create_connection(served, 10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()  # before it has asked for anything
    assert answer(served, "/", "localhost").endswith(b"the page")
    time.sleep(0.3)
    assert capfd.readouterr().err == ""


def test_requests_that_are_never_sent_whole_keep_nobody_out(served, capfd, monkeypatch):
    """More of them than there may be connections, then more than the system allows; those that send nothing are closed."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    mine = [socket.create_connection(served, 10) for _ in range(2 * web.MOST_OPEN)]
    for connection in mine:
        connection.sendall(b"GET / HT")
    assert answer(served, "/", "localhost").endswith(b"the page")
    waiting = socket.socket()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # this process has no number left for the other end
        waiting.connect(served)
        begun = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - begun < 0.2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert answer(served, "/", "localhost").endswith(b"the page")
    monkeypatch.setattr(Handler, "timeout", 0.1)
    with socket.create_connection(served, 10) as idle:
        assert idle.recv(1) == b""
    for connection in (waiting, *mine):
        connection.close()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "names",
    (
        ["settings.json"],
        ["settings.json", "index.html"],
        ["page.html"],
        ["index.html"],
        ["landmarks.onnx", "vendor/mine.js"],
    ),
)
def test_folders_of_others_are_no_pages(tmp_path, names):
    page = tmp_path / "page"
    for name in names:
        (page / name).parent.mkdir(parents=True, exist_ok=True)
        (page / name).write_text('{"net": {}}')
    for overwrite in (False, True):
        refuses("page holds something", check_page, page, overwrite)
    (tmp_path / "link").symlink_to(page)
    refuses("link", check_page, tmp_path / "link", True)
    assert sorted(path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()) == sorted(names)


def test_a_folder_of_others_is_refused_before_anything_is_done(cli, tmp_path):
    (tmp_path / "settings.json").write_text('{"editor": "mine"}')
    done = cli("--export web --overwrite --exp landmarks --out", tmp_path, "--run-root", tmp_path / "runs")
    fails(done, "other than a page")
    assert (tmp_path / "settings.json").is_file() and not (tmp_path / "runs").exists()


@needs_runtime
def test_a_folder_that_is_no_page_is_kept(tmp_path, monkeypatch):
    (tmp_path / "page").mkdir()
    options = Options(shipped("landmarks.onnx"))
    write_page(tmp_path / "page", options)
    refuses("--overwrite", write_page, tmp_path / "page", options)
    left, other = (tmp_path / f".{pid}@{socket.gethostname()}.partial-0123abcd" for pid in (2**22 + 1, os.getppid()))
    left.mkdir()  # of a process that was killed
    other.mkdir()  # of one that is at work
    aside = write_page(tmp_path / "page", options, overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    refuses("mine", write_page, tmp_path / "mine", options)
    monkeypatch.setattr(web, "SHA512", "another")
    refuses("tgz.*damaged", write_page, tmp_path / "other", options)
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "mine", "page", aside.name]
    assert (aside / "settings.json").is_file()


@needs_runtime
def test_a_page_from_the_command_line(cli, tmp_path):
    done = works(cli("--export web --exp landmarks --out", tmp_path / "page", "--run-root", tmp_path / "runs"))
    assert f"the page to {tmp_path / 'page'}" in done.stderr
    for name in ("landmarks.onnx", "landmarks.int8.onnx"):
        assert (tmp_path / "page" / name).read_bytes() == shipped(name).read_bytes()


@pytest.mark.slow
@needs_runtime
def test_a_page_in_the_folder_of_its_run_is_replaced(cli, trained, tmp_path):
    run = shutil.copytree(trained.folder, tmp_path / "run")
    for _ in range(2):
        works(cli("--export web --exp", run))
    assert [path.name for path in run.iterdir() if "web" in path.name] == ["web"]


def test_the_runtime_is_fetched_once_and_only_if_it_is_genuine(tmp_path, monkeypatch, served):
    with tarfile.open(tmp_path / "runtime.tgz", "w:gz") as files:
        for name in web.NEEDED:
            files.addfile(tarfile.TarInfo(f"package/dist/{name}"))
    data = (tmp_path / "runtime.tgz").read_bytes()
    shutil.copytree(PAGE, tmp_path / "own", ignore=web.IGNORED)
    monkeypatch.setattr(web, "PAGE", tmp_path / "own")
    address = "http://{}:{}".format(*served)
    options = Options(shipped("landmarks-fast.onnx"), pose=True, drowsiness=True)
    for name, reason in (("missing.tgz", "HTTP Error 404"), ("runtime.tgz", "another file than")):
        monkeypatch.setattr(web, "ADDRESS", f"{address}/{name}")
        refuses(f"{reason}.*curl", write_page, tmp_path / "page", options)
    monkeypatch.setattr(web, "SHA512", base64.b64encode(hashlib.sha512(data).digest()).decode())
    write_page(tmp_path / "page", options)
    assert (tmp_path / "own" / RUNTIME).read_bytes() == data
    assert sorted(path.name for path in (tmp_path / "page" / "vendor").iterdir()) == sorted(web.NEEDED)
    (tmp_path / "runtime.tgz").unlink()
    write_page(tmp_path / "page", options, overwrite=True)


def test_a_page_is_no_file(tmp_path):
    refuses("page.html", write_page, tmp_path / "page.html", Options(shipped("landmarks.onnx")))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--web", "--save", "out.mp4"], "--web goes with --exp, .*; leave --save out"),
        (["--port", "9000"], "--port is the port of --web; give that too"),
        (["--web", "--smooth", "flow"], "no optical flow; give it --smooth one-euro or none"),
        (["--web", "--pose", "--layout", "12"], "points that head pose needs"),
        (["--web", "--max-faces", "0"], "max_faces must be a whole number, at least 1, not 0"),
        (
            ["--web", "--exp", "018"],
            "018 has none of the suffixes of exported nets .*; name a file that main.py --export onnx",
        ),
        (["--web", "--exp", "detector"], "detector.onnx is no ONNX file of a landmark net of ours"),
        (
            ["--web", "--detector-weights", str(ROOT / "weights/detector.pt")],
            "detector.pt is no ONNX file, and the page",
        ),
    ],
)
def test_flags_that_do_not_fit(flags, message):
    refuses(message, demo.main, flags)


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ([], ["landmarks", "landmarks-fast", "landmarks-open"]),
        (["--exp", "landmarks-fast"], ["landmarks-fast", "landmarks", "landmarks-open"]),
        (["--layout", "12"], ["landmarks"]),
        (["--exp", "runs/best.onnx"], ["best", "landmarks", "landmarks-fast", "landmarks-open"]),
    ],
)
def test_the_net_of_the_command_stands_first_among_those_to_choose_from(flags, names, monkeypatch):
    served = []
    monkeypatch.setattr(demo, "serve", lambda choices, port: served.extend(choices))
    demo.main(["--web", *flags])
    assert [choice.landmarks.stem for choice in served] == names
    for net in (choice for choice in served if choice.landmarks.stem in LANDMARK_NETS):
        assert net.int8.stem == f"{net.landmarks.stem}.int8" and net.detector.stem == OPEN.get(
            net.landmarks.stem, "detector"
        )
