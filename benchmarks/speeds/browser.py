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
from pipnet.files import SHIPPED, shipped
from pipnet.geometry import grow
from pipnet.landmarker import Landmarker

WARM, FRAMES = 30, 200  # frames before and during the measurement
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
    """The page's server, which waits for the driver's figures."""

    done, body = threading.Event(), b""

    def do_POST(self) -> None:
        """Keep what the driver sends."""
        Listener.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.done.set()


def film(file: Path, frames: int = 60) -> None:
    """Write a camera's pictures: a face and its mirror image that move to and fro."""
    portrait = cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))
    x1, y1, x2, y2 = grow(Landmarker(threads=1)(portrait)[0].box, 1.8).astype(int)
    head = cv2.resize(portrait[y1:y2, x1:x2], (240, 240))
    with open(file, "wb") as pictures:
        for index in range(frames):
            frame = np.full((480, 640, 3), 120, np.uint8)
            for x, picture in ((40, head), (360, head[:, ::-1])):
                x += round(20 * np.sin(2 * np.pi * index / frames))
                frame[120:360, x:x + 240] = picture
            pictures.write(cv2.imencode(".jpg", frame)[1].tobytes())


def measure(net: Path) -> dict:
    """Return frames/s and the median ms of each stage. Stop with a message where there is no browser."""
    Listener.done.clear()
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        sys.exit("no chromium on this machine; install it")
    with tempfile.TemporaryDirectory() as folder:
        page, camera = Path(folder, "page"), Path(folder, "camera.mjpeg")
        write_page(page, Options(net))
        film(camera)
        (page / "driver.js").write_text(DRIVER.replace("COUNT", str(WARM + FRAMES)))
        text = (page / "index.html").read_text()
        (page / "index.html").write_text(text.replace("</body>", '<script type="module" src="driver.js"></script></body>'))
        with ThreadingHTTPServer(("127.0.0.1", 0), partial(Listener, directory=page)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile",
                     "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
                     f"--use-file-for-fake-video-capture={camera}"]
            process = subprocess.Popen([program, *flags, f"http://127.0.0.1:{server.server_port}/"], stderr=subprocess.DEVNULL)
            try:
                if not Listener.done.wait(600):
                    sys.exit("the page has not worked on all frames within 10 minutes")
            finally:
                process.kill()
                process.wait()
                server.shutdown()
    found = json.loads(Listener.body)
    times = found["times"][WARM:]
    seconds = (times[-1]["at"] - found["times"][WARM - 1]["at"]) / 1000
    stages = {name: round(1000 * float(np.median([one[name] for one in times])), 1) for name in ("decode", "landmarks", "track")}
    detections = [1000 * one["detect"] for one in times if one["detect"]]
    return {"net": net.name, "runtime": found["status"].rpartition(" on ")[2], "faces": times[-1]["faces"],
            "frames_per_second": round(FRAMES / seconds, 1), "ms": {**stages, "detect": round(float(np.median(detections)), 1)}}


def browser(*files: str) -> dict:
    """Return the speed of the page in a browser, with two faces before a camera.

    Without files, NET.onnx, it is that of the shipped nets in 32 and in 8 bits. It needs Chromium and onnxruntime-web
    (docs/demo.md). The camera is a video of 640x480 px at 30 frames/s, which bounds the figure.
    """
    every = files or [shipped(f"{name}{bits}.onnx") for name in SHIPPED[:2] for bits in ("", ".int8")]
    return {"rows": [measure(Path(file)) for file in every]}
