"""Speed of the page in a browser."""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
from record import ROOT

from pipnet.app.web import Handler, Options, write_page
from pipnet.geometry import grow
from pipnet.landmarker import Landmarker
from pipnet.shipped import SHIPPED, shipped

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
WIDTH, HEIGHT, WARM, FRAMES = 640, 480, 30, 200  # px of the camera; frames before and during the measurement
DRIVER = """
const status = document.getElementById("status"), times = [];
document.addEventListener("frame", ({ detail }) => {
  times.push({ at: performance.now(), faces: detail.record.faces.length, ...detail.times });
  if (times.length === COUNT) fetch("done", { method: "POST", body: JSON.stringify({ status: status.textContent, times }) });
});
new MutationObserver(() => {
  if (status.textContent.startsWith("Ready")) document.getElementById("camera").click();
}).observe(status, { childList: true });
"""


class Listener(Handler):
    """The page's server, which also hands out a driver and keeps what that sends back."""

    received: list[tuple[str, bytes]] = []
    fetched: set[str] = set()
    done = threading.Event()

    def do_GET(self) -> None:
        """Note the file."""
        self.fetched.add(self.path.rpartition("/")[2])
        super().do_GET()

    def do_POST(self) -> None:
        """Keep what the driver sends."""
        name, body = self.path.rpartition("/")[2], self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append((name, body))
        self.send_response(200)
        self.end_headers()
        if name == "done":
            self.done.set()


def two_faces(file: Path, frames: int = 60) -> list[str]:
    """Write a camera's pictures: a face and its mirror image, smaller, that move to and fro.
    Return the browser's flags.
    """
    portrait = cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))
    x1, y1, x2, y2 = grow(Landmarker(threads=1)(portrait)[0].box, 1.8).astype(int)
    head = portrait[y1:y2, x1:x2]
    heads = [cv2.resize(picture, (size, size)) for picture, size in ((head, 240), (head[:, ::-1], 190))]
    with open(file, "wb") as pictures:
        for index in range(frames):
            frame = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
            for place, head in enumerate(heads):
                x, y = 40 + 320 * place + round(8 * np.sin(2 * np.pi * index / frames)), 120
                frame[y : y + len(head), x : x + len(head)] = head
            pictures.write(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    return [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={file}",
    ]


def in_browser(folder: Path, driver: str, *flags: str) -> dict[str, list[bytes]]:
    """Run a driver in the page in `folder`/below/page; return what it has sent, by name.
    AssertionError after 10 minutes.
    """
    page = folder / "below" / "page"
    (page / "driver.js").write_text(driver)
    text = (page / "index.html").read_text()
    (page / "index.html").write_text(text.replace("</body>", '<script type="module" src="driver.js"></script></body>'))
    Listener.received, Listener.fetched, Listener.done = [], set(), threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Listener, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            BROWSER,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--mute-audio",
            "--no-first-run",
            f"--user-data-dir={folder}/profile",
            *flags,
            f"http://127.0.0.1:{server.server_port}/below/page/",
        ]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert Listener.done.wait(600), [name for name, _ in Listener.received]
        finally:
            browser.kill()
            browser.wait()
            server.shutdown()
    return {name: [body for one, body in Listener.received if one == name] for name in dict(Listener.received)}


def measure(net: Path) -> dict:
    """Return frames/s and the median ms of each stage. Stop with a message where there is no browser."""
    if BROWSER is None:
        sys.exit("no chromium on this machine; install it")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "below").mkdir()
        write_page(folder / "below" / "page", Options(net))
        sent = in_browser(folder, DRIVER.replace("COUNT", str(WARM + FRAMES)), *two_faces(folder / "camera.mjpeg"))
    found = json.loads(sent["done"][0])
    times = found["times"][WARM:]
    seconds = (times[-1]["at"] - found["times"][WARM - 1]["at"]) / 1000
    stages = {
        name: round(1000 * float(np.median([one[name] for one in times])), 1)
        for name in ("decode", "landmarks", "track")
    }
    detections = [1000 * one["detect"] for one in times if one["detect"]]
    return {
        "net": net.name,
        "runtime": found["status"].rpartition(" on ")[2],
        "faces": times[-1]["faces"],
        "frames_per_second": round(FRAMES / seconds, 1),
        "ms": {**stages, "detect": round(float(np.median(detections)), 1)},
    }


def browser(*files: str) -> dict:
    """Return the speed of the page in a browser, with two faces before a camera.

    Without files, NET.onnx, it is that of the shipped nets in 32 and in 8 bits. It needs Chromium and onnxruntime-web
    (docs/demo.md). The camera is a video of 640x480 px at 30 frames/s, which bounds the figure.
    """
    every = files or [shipped(f"{name}{bits}.onnx") for name in SHIPPED[:2] for bits in ("", ".int8")]
    return {"rows": [measure(Path(file)) for file in every]}
