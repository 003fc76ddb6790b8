"""The demo as a static page: a folder with the nets, onnxruntime-web and all constants, and a server on this machine."""

import base64
import hashlib
import json
import os
import shutil
import socket
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote
from urllib.request import urlopen

from pipnet import chain, detector, distinct, draw, images, landmark_net, landmarker
from pipnet.errors import UserError, one_line
from pipnet.files import names_folder, partial_folder, remove_abandoned, set_aside, write_atomic, write_text
from pipnet.geometry import border_px
from pipnet.landmark_net import LandmarkNet, open_net
from pipnet.layout import Layout
from pipnet.pose import FAR, MODEL, pose_points
from pipnet.runtimes import open_file
from pipnet.shipped import OPEN, SHIPPED, has_finder, shipped
from pipnet.video import drowsiness, smooth, track

PAGE = Path(__file__).parent.parent / "web"
RUNTIME = "onnxruntime-web-1.30.0.tgz"  # of the npm registry, which states this checksum
ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/{RUNTIME}"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
NEEDED = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
MOST = 2**26  # bytes that are read of it
HOSTS = "127.0.0.1", "localhost"  # names of this machine by which the server is called
SETTINGS = "settings.json"  # marks a folder as a page, which may be replaced
NET = "landmarks.onnx"  # the first landmark net of a page
IGNORED = shutil.ignore_patterns("*.tgz", "__pycache__")
# flags which go with --web
WEB = (
    "exp",
    "layout",
    "detector_weights",
    "threshold",
    "max_faces",
    "detect_every",
    "smooth",
    "pose",
    "drowsiness",
    "port",
)
CONSTANTS: dict[str, dict[Any, str]] = {  # {part of the settings: {owner: its constants that the page uses too}}
    "detector": {detector: "SHORT_SIDE MOST_PIXELS LARGE_SIDE LARGE_FACE", distinct: "WITHIN"},
    "landmarker": {
        chain: "GATE SURE QUARTERS LEAST_SIDE LARGER",
        distinct: "TWICE PART OTHER WITHIN",
        landmark_net: "MOST_FACES LEVEL NEAR NEAR_TURN",
        images: "BLUR BLUR_REACH NOISY BRIGHT DARKEST TINTED MOST_GAIN",
    },
    "tracker": {track: "HALFWAY SAME TWICE AGAIN MEMORY RETRY"},
    "smooth": {smooth: "JUMP", smooth.OneEuro: "min_cutoff beta speed_cutoff hold noise noise_cutoff"},
    "layout": {draw: "UNCERTAIN"},
}
IDLE = 10.0  # s in which nothing of a request, or of its answer, is sent
MOST_OPEN = 24  # connections: a browser opens six; the oldest one makes place for a new one
PATIENCE = 30.0  # s that the registry may send nothing


class Options(NamedTuple):
    """Choices of a page: files of both nets (detector None: the shipped one), and options of Detector, Landmarker and
    Tracker.

    int8: the landmark net in 8 bits, if there is one: WebAssembly runs it, WebGPU runs 32 bits. layout: see
    `Landmarker`. pose, drowsiness: refuse a net that has too few landmarks for them. The page shows both where it can.
    """

    landmarks: Path
    int8: Path | None = None
    detector: Path | None = None
    threshold: float | None = None
    max_faces: int | None = None
    detect_every: int = 10
    smooth: str = "one-euro"
    layout: str | None = None
    pose: bool = False
    drowsiness: bool = False


def check_page(folder: Path, overwrite: bool) -> None:
    """Raise UserError if no page can be written to `folder`: it holds something else, or a page without `overwrite`."""
    if not names_folder(folder):
        raise UserError(f"{folder}: a page is a folder of files; name one without {folder.suffix}")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder} is {'a link' if folder.is_symlink() else 'a file'}; name a new folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / SETTINGS).is_file() or not (folder / NET).is_file():
        raise UserError(f"{folder} holds something other than a page; name a new folder")
    if not overwrite:
        raise UserError(f"{folder} holds a page already; give --overwrite to move it aside, or name a new folder")


def write_page(folder: Path, options: Options, overwrite: bool = False, others: Sequence[Options] = ()) -> Path | None:
    """Write the page into a new or empty folder; with `overwrite`, a page that is there is moved aside. Return its new
    place.

    others: further landmark nets, with their detectors, that the page's user can choose.
    The page works below any path of a web server. UserError if the folder holds something else, if onnxruntime-web is
    missing, or if a file is no net for the page.
    """
    folder = Path(os.path.abspath(folder))
    check_page(folder, overwrite)
    nets = (options, *others)
    choices = [page_settings(one, place) for place, one in enumerate(nets)]
    made, aside = partial_folder(folder), None
    try:
        remove_abandoned(folder.parent)
        shutil.copytree(PAGE, made, ignore=IGNORED)
        _unpack(made / "vendor")
        for one, settings in zip(nets, choices, strict=True):
            if settings["finder"]:
                shutil.copyfile(shipped("finder.onnx"), made / settings["finder"]["file"])
            shutil.copyfile(_detector(one), made / settings["detector"]["file"])
            shutil.copyfile(one.landmarks, made / settings["net"]["file"])
            if one.int8:
                shutil.copyfile(one.int8, made / settings["net"]["int8"])
        write_text(made / SETTINGS, json.dumps(choices) + "\n")
        if folder.exists() and any(folder.iterdir()):
            check_page(folder, overwrite)
            aside = set_aside(folder)
        os.replace(made, folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); name another folder") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return aside


def page_settings(options: Options, place: int = 0) -> dict[str, Any]:
    """Return the values of the nets and constants of this package, by the page's file that uses them.

    place: of the landmark net among those of the page. The page has no finder if `has_finder` says so.
    """
    net, found = _landmark_net(options.landmarks), _detector(options)
    if found.suffix != ".onnx":
        raise UserError(
            f"{found} is no ONNX file, and the page runs no other; export the detector with main.py --export onnx"
        )
    if options.smooth == "flow":
        raise UserError("the page has no optical flow; give it --smooth one-euro or none")
    part = net.layout.part(options.layout)
    layout = part.layout if part else net.layout
    faces = detector.Detector(weights=found)
    finder = open_net(shipped("finder.onnx")) if has_finder(options.landmarks, found) else None
    checked = landmarker.Landmarker(net, faces, options.max_faces, finder=finder or "none", threshold=options.threshold)
    if options.pose and not net.pose:
        pose_points(layout)
    if options.drowsiness:
        drowsiness.Drowsiness(layout)
    name, title = f"landmarks-{place}" if place else "landmarks", options.landmarks.stem
    parts: dict[str, Any] = {
        "net": {
            "file": f"{name}.onnx",
            "int8": options.int8 and f"{name}.int8.onnx",
            "name": title,
            "use": "any use" if title in OPEN else "research only" if title in SHIPPED else "",
            **_crops(net),
            "part": part and part.index,
            "inner": net.protocol.inner,
            "pose": net.pose,
            "face": net.face,
            "face_limit": net.face_limit,
        },
        "finder": finder and {"file": "finder.onnx", **_crops(finder)},
        "detector": {
            "file": f"detector-{place}.onnx" if place else "detector.onnx",
            "threshold": faces.threshold,
            "overlap": faces.overlap,
            "face_box": faces.face_box,
        },
        "landmarker": {"threshold": checked.threshold, "square_scale": landmark_net.SQUARE.scale_x},
        "smooth": {"floor": smooth.OneEuro.floor.tolist()},
        "pose": _pose(layout),
        "drowsiness": _drowsiness(layout),
        "layout": {
            "edges": layout.edges(),
            "colours": [f"#{r:02x}{g:02x}{b:02x}" for b, g, r in draw.group_colours(layout)],
        },
        "options": {"max_faces": options.max_faces, "detect_every": options.detect_every, "smooth": options.smooth},
    }
    for name, owners in CONSTANTS.items():
        parts[name] = {**parts.get(name, {}), **_constants(owners)}
    return parts


def _detector(options: Options) -> Path:
    """Return the detector's file."""
    return options.detector or shipped("detector.onnx")


def _landmark_net(file: Path) -> LandmarkNet:
    """Return the landmark net of an ONNX file. UserError for another file."""
    remedy = "name a file that main.py --export onnx has made"
    opened = open_file(file, 0, remedy)
    if file.suffix != ".onnx" or opened.inputs != ["image"] or not {"landmarks", "score"} <= {*opened.outputs}:
        raise UserError(f"{file} is no ONNX file of a landmark net of ours; {remedy}")
    return LandmarkNet.of_export(opened, file)


def _crops(net: LandmarkNet) -> dict[str, Any]:
    """Return how the crops of a net are made and read."""
    return {
        "size": net.size,
        "border": border_px(net.size, net.margin),
        "protocol": net.protocol._asdict(),
        "tight": net.tight,
        "meanface": None if net.meanface is None else net.meanface.tolist(),
        "states": net.states,
        "count": net.layout.count,
    }


def _constants(owners: dict[Any, str]) -> dict[str, Any]:
    """Return {name: value} of constants by their owners, with small letters."""
    return {name.lower(): getattr(owner, name) for owner, names in owners.items() for name in names.split()}


def _pose(layout: Layout) -> dict[str, Any] | None:
    """Return the points of the head that the layout has, None if it has too few."""
    try:
        points = pose_points(layout)
    except UserError:
        return None
    return {"points": MODEL[[row for row, _ in points]].tolist(), "landmarks": [ids for _, ids in points], "far": FAR}


def _drowsiness(layout: Layout) -> dict[str, Any] | None:
    """Return the landmarks and constants of `Drowsiness`, None for a layout without eyes."""
    try:
        rings = drowsiness.Drowsiness(layout)
    except UserError:
        return None
    names = (
        "WINDOW BASELINE REBASE CLOSED EYE_STATES LEVEL DIP NOISE BLINK YAWN YAWN_SECONDS ALARM_CLOSED ALARM_PERCLOS FORGET "
        "GAP"
    )
    return {"eyes": rings.eyes, "mouth": rings.mouth, **_constants({drowsiness: names})}


def _unpack(folder: Path) -> None:
    """Unpack what the page needs of onnxruntime-web. UserError where its archive cannot be fetched or is another one."""
    archive = PAGE / RUNTIME
    if not archive.is_file():
        _fetch(archive)
    if not _is_genuine(archive.read_bytes()):
        raise UserError(f"{archive} is damaged or another version; remove it, and it is fetched again")
    folder.mkdir()
    with tarfile.open(archive) as files:
        for name in NEEDED:
            source = files.extractfile(f"package/dist/{name}")
            assert source
            with source, open(folder / name, "wb") as target:
                shutil.copyfileobj(source, target)


def _fetch(archive: Path) -> None:
    """Download onnxruntime-web to `archive`, whole or not at all. UserError if this fails."""
    print(f"fetching {RUNTIME} (33 MB) from the npm registry, once", file=sys.stderr)
    remedy = f"fetch it yourself: curl -fo '{archive}' {ADDRESS}"
    try:
        with urlopen(ADDRESS, timeout=PATIENCE) as answer:
            data = answer.read(MOST)
        if not _is_genuine(data):
            raise UserError(f"{ADDRESS} sends another file than {RUNTIME}; {remedy}")
        write_atomic(archive, lambda path: path.write_bytes(data))
    except (OSError, HTTPException) as error:
        raise UserError(
            f"onnxruntime-web, which the page needs, cannot be fetched ({one_line(error)}); {remedy}"
        ) from None


def _is_genuine(data: bytes) -> bool:
    """Return whether an archive has the checksum that the registry states."""
    return base64.b64encode(hashlib.sha512(data).digest()).decode() == SHA512


class Handler(SimpleHTTPRequestHandler):
    """Files of one folder, with the headers that allow threads in WebAssembly."""

    timeout = IDLE
    extensions_map = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }  # the system's table may differ, and browsers then refuse the files

    def parse_request(self) -> bool:
        """Refuse what is no path, and requests for another host, as of a page elsewhere whose name leads to this
        machine.
        """
        if not super().parse_request():
            return False
        hosts, port = self.headers.get_all("Host", []), self.connection.getsockname()[1]
        if len(hosts) != 1 or hosts[0] not in (*HOSTS, *(f"{name}:{port}" for name in HOSTS)):
            self.send_error(403, f"this server answers to {' and '.join(HOSTS)}")
        elif "\0" in unquote(self.path):
            self.send_error(404)
        else:
            return True
        return False

    def end_headers(self) -> None:
        """Isolate the page from other origins, in whose frames it is not shown, and keep nothing: the next run may serve
        other nets.
        """
        for name, value in (
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Embedder-Policy", "require-corp"),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", "frame-ancestors 'none'"),
        ):
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *values: Any) -> None:
        """Print nothing."""


class Server(ThreadingHTTPServer):
    """A server of this machine alone. Connections that stay open do not keep out new ones."""

    request_queue_size = 128

    def __init__(self, *given: Any):
        self._opened: dict[socket.socket, None] = {}  # the oldest one first
        super().__init__(*given)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Return a new connection. Where the system gives none, make place for it, and wait: it is asked for again."""
        try:
            return super().get_request()
        except OSError:
            self._close_oldest()
            time.sleep(0.1)
            raise

    def process_request(self, request: Any, address: Any) -> None:
        """Answer a connection in a thread."""
        self._opened[request] = None
        if len(self._opened) > MOST_OPEN:
            self._close_oldest()
        super().process_request(request, address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that was answered."""
        self._opened.pop(request, None)
        super().shutdown_request(request)

    def _close_oldest(self) -> None:
        """End the oldest connection, whose thread then closes it."""
        for oldest in [*self._opened][:1]:
            self._opened.pop(oldest, None)
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, address: Any) -> None:
        """Print nothing of a browser that has closed the page before all was sent."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, address)


def serve(choices: Sequence[Options], port: int) -> None:
    """Serve the page of some landmark nets on this machine alone until Ctrl-C. UserError for a port that is taken."""
    with tempfile.TemporaryDirectory() as folder:
        write_page(Path(folder, "page"), choices[0], others=choices[1:])
        try:
            server = Server((HOSTS[0], port), partial(Handler, directory=f"{folder}/page"))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"port {port} cannot be opened ({getattr(error, 'strerror', error)}); give another --port"
            ) from None
        with server:
            print(f"http://{HOSTS[0]}:{server.server_port}/ serves the page until Ctrl-C", flush=True)
            server.serve_forever()
