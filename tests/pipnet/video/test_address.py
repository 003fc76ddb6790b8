"""Addresses as sources: a picture is told by what the server answers, whatever the address is called."""

import base64
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import cv2
import numpy as np
import pytest
from conftest import refuses
from PIL import Image

from pipnet.video import address, sources
from pipnet.video.sources import open_source, silence_opencv


class Site(BaseHTTPRequestHandler):
    """Answers: {path: (kind, contents, whether its length is told)}; below /secret with a password; /endless without
    end; below /slow a byte from time to time, of the headers or of the picture; at /short not all of it; /to and /web lead
    elsewhere.
    """

    answers: dict[str, tuple[str, bytes, bool]] = {}

    def do_GET(self) -> None:
        kind, data, told = self.answers[self.path]
        wanted = "Basic " + base64.b64encode(b"me:p w").decode()
        if self.path.startswith("/secret") and self.headers["Authorization"] != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()
            return
        if self.path == "/slow/headers":
            self.drip(b"HTTP/1.0 200 OK\r\nX: " + b"x" * 1000)
        if self.path in ("/to", "/web"):
            self.send_response(302)
            self.send_header("Location", data.decode())
            self.end_headers()
            return
        self.send_response(int(self.path[8:11]) if self.path.startswith("/status/") else 200)
        self.send_header("Content-Type", kind)
        if told:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.path == "/slow/picture":
            self.wfile.write(data[:300])
            self.drip(data[300:])
        self.wfile.write(data[: -2000 if self.path == "/short" else None])
        while self.path == "/endless":
            self.wfile.write(data)

    def drip(self, data: bytes) -> None:
        for byte in data:
            self.wfile.write(bytes([byte]))
            time.sleep(0.05)

    def log_message(self, format: str, *values) -> None: ...


@pytest.fixture
def site():
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Site)) as server:
        server.handle_error = lambda *_: None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def picture(kind: str = "JPEG", turned: bool = False, colour: int = 200) -> bytes:
    """A dark picture with a bright upper half, 40 x 60 px, stored on its side if `turned`."""
    image = Image.fromarray(np.repeat(np.uint8([colour, 0]), 30)[:, None, None].repeat(40, 1).repeat(3, 2))
    exif, data = Image.Exif(), BytesIO()
    if turned:
        image, exif[0x0112] = image.rotate(90, expand=True), 6
    image.save(data, kind, exif=exif)
    return data.getvalue()


@pytest.mark.parametrize(
    ("path", "kind", "told", "name"),
    [
        ("/v0/face.jpg?alt=media&token=a%20b", "image/jpeg", True, "face.jpg"),
        ("/face", "application/octet-stream", True, "face"),
        ("/snapshot.cgi?user=x", "image/jpeg", False, "snapshot.cgi"),
        ("/", "image/png", True, "picture"),
        ("/a%2F..", "image/jpeg", True, "picture"),
        ("/a%0Ab.jpg", "image/jpeg", True, "picture"),
        ("/a%1B%5B2J.jpg", "image/jpeg", True, "picture"),
        ("/secret/face.jpg", "image/jpeg", True, "face.jpg"),
    ],
)
def test_a_picture_at_an_address_is_a_picture(site, path, kind, told, name):
    Site.answers = {path: (kind, picture("PNG" if "png" in kind else "JPEG", turned=True), told)}
    source = open_source(f"http://{'me:p%20w@' if 'secret' in path else ''}{site}{path}")
    (frame,) = source
    assert source.still and not source.live and frame.name == name and frame.seconds is None
    assert (
        frame.image.shape == (60, 40, 3) and frame.image[:25].mean() > 150 > 50 > frame.image[35:].mean()
    )  # turned by EXIF
    source.close()
    assert not source.files[0].exists()


def test_a_picture_that_came_incomplete_is_refused_by_its_name(site):
    Site.answers = {"/face.jpg": ("image/jpeg", picture()[:-200], True)}
    refuses("^face.jpg", list, open_source(f"http://{site}/face.jpg"))


def test_an_answer_that_breaks_off_is_no_picture(site):
    """Of a format whose end is not marked, so that the picture would be read as far as it came."""
    Site.answers = {"/short": ("image/bmp", cv2.imencode(".bmp", np.zeros((40, 60, 3), np.uint8))[1].tobytes(), True)}
    refuses("/short has sent 5,254 of 7,254 bytes", open_source, f"http://{site}/short")


@pytest.mark.parametrize("there", ["ftp://127.0.0.1:1/face.jpg", "file:///etc/passwd", "FTP://127.0.0.1/"])
def test_a_redirect_leads_to_web_addresses_only(site, there):
    Site.answers = {"/to": ("text/html", there.encode(), True), "/web": ("text/html", b"/face.jpg", True)}
    refuses("(?i)" + there, open_source, f"http://{site}/to")
    Site.answers["/face.jpg"] = ("image/jpeg", picture(), True)
    assert open_source(f"http://{site}/web").still


@pytest.mark.parametrize("path", ["/slow/headers", "/slow/picture"])
def test_a_server_that_drips_is_not_waited_for(site, path, monkeypatch):
    monkeypatch.setattr(address, "WHOLE", 0.4)
    Site.answers = {path: ("image/jpeg", picture(), True)}
    start = time.monotonic()
    refuses("has not sent its whole answer", open_source, f"http://{site}{path}")
    assert time.monotonic() - start < 2


def test_a_picture_at_a_file_address(tmp_path):
    (tmp_path / "a b.jpg").write_bytes(picture())
    (frame,) = open_source(f"file://{tmp_path}/a%20b.jpg")
    assert frame.name == "a b.jpg"


def test_a_video_at_an_address_is_played_frame_by_frame(site, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "talk.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 20, (64, 64))
    for index in range(30):
        writer.write(np.full((64, 64, 3), 8 * index, np.uint8))
    writer.release()
    Site.answers = {"/talk?x=1": ("application/octet-stream", (tmp_path / "talk.avi").read_bytes(), True)}
    silence_opencv()
    frames = list(open_source(f"http://{site}/talk?x=1"))
    assert [frame.seconds for frame in frames] == pytest.approx([index / 20 for index in range(30)])


def test_what_begins_again_with_the_same_frame_is_not_back(monkeypatch, capfd):
    """A single picture that FFmpeg plays as a stream: it was found again for ever."""

    class Once:
        def __init__(self, *_):
            self.left = 1

        def isOpened(self) -> bool:
            return True

        def read(self):
            self.left -= 1
            return (True, np.ones((40, 40, 3), np.uint8)) if self.left >= 0 else (False, None)

        def get(self, _) -> float:
            return -1.0

        def release(self) -> None: ...

    monkeypatch.setattr(cv2, "VideoCapture", Once)
    monkeypatch.setattr(sources, "RETRY", 0.02)
    monkeypatch.setattr(sources, "RETURN", 0.2)
    assert len(list(open_source("rtsp://127.0.0.1/picture"))) == 1
    assert "is back" not in (said := capfd.readouterr().err) and "gives no more pictures" in said


def test_pictures_without_end_are_a_stream(site, monkeypatch):
    monkeypatch.setattr("pipnet.video.address.PATIENCE", 0.3)
    Site.answers = {"/endless": ("image/jpeg", picture(), False)}
    silence_opencv()
    source = open_source(f"http://{site}/endless")
    assert not source.still and source.live
    assert [frame.image.shape for frame, _ in zip(source, range(3), strict=False)] == [(60, 40, 3)] * 3
    source.close()


@pytest.mark.parametrize("status", [401, 404, 503])
def test_a_status_of_the_server_is_named(site, status):
    Site.answers = {f"/status/{status}.jpg": ("text/html", b"<html>", True)}
    silence_opencv()
    refuses(
        f"/status/{status}.jpg cannot be played: the server answers {status}",
        open_source,
        f"http://{site}/status/{status}.jpg",
    )


def test_an_address_that_sends_no_picture_says_what_it_sends(site):
    Site.answers = {"/page": ("text/html", b"<html>", True), "/none": ("image/jpeg", b"", True)}
    silence_opencv()
    refuses("/page cannot be played: the server sends text/html", open_source, f"http://{site}/page")
    refuses("/none cannot be played: the server sends nothing", open_source, f"http://{site}/none")


def test_an_address_that_does_not_answer_says_why(site):
    silence_opencv()
    refuses("does not answer .*closed connection", open_source, f"http://{site}/raises")
    refuses("does not answer .Invalid IPv6 URL", open_source, "http://[::1/x.jpg")
    refuses("does not answer .Connection refused", open_source, "http://127.0.0.1:9/a.jpg")


@pytest.mark.parametrize("name", ["/dev/video3", "camera"])
def test_a_device_file_is_a_camera(name, monkeypatch, tmp_path):
    opened = []

    def capture(*options):
        opened.append(options)
        raise InterruptedError

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "camera").symlink_to("/dev/video3")  # as in /dev/v4l/by-id
    with pytest.raises(InterruptedError):
        open_source(name)
    with pytest.raises(InterruptedError):
        open_source("/dev/null")
    assert opened == [(3,), ("/dev/null", cv2.CAP_V4L2)]
