"""Where pictures come from and go to: files of every kind, folders, videos, cameras, addresses."""
import os
import queue
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from pipnet.draw import write_image
from pipnet.errors import UserError

CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
USUAL_FPS, HIGHEST_FPS = 25.0, 240.0
AHEAD = 4          # frames that are decoded while earlier ones are looked at
PATIENCE = 10_000  # ms for an address to answer
LONGEST = 10       # s that a saved video stands still at most where a live source stalled
RESERVE = 2 ** 23  # bytes that a video leaves on the disk: what is still to be written when it ends, its index above all


class Frame(NamedTuple):
    """One picture (H, W, 3) uint8 BGR: its number from 0, its time in s from the start (a still picture has none), its name."""

    image: np.ndarray
    index: int
    seconds: float | None
    name: str


def read_image(file: Path, remedy: str = "fetch it again") -> np.ndarray:
    """Image (H, W, 3) uint8 BGR, upright by its EXIF tag; 16 bits become 8, grey and CMYK BGR, what is transparent white.

    UserError when it is missing, unreadable or cut short; `remedy` says what to do about the latter two.
    """
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    # OpenCV fills what a truncated file lacks with grey and says nothing: look for the end marker after the last picture data
    if (data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
            or data.startswith(b"\x89PNG") and b"IEND" not in data):
        raise UserError(f"{file}: the image is cut short; {remedy}")
    image = _decode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{file}: not a readable image; {remedy}")
    if data.startswith(b"\x89PNG") and data[25:26] in (b"\x04", b"\x06") or data[8:12] == b"WEBP":
        whole = _decode(data, cv2.IMREAD_UNCHANGED)
        if whole.ndim == 3 and whole.shape[2] == 4 and whole.shape[:2] == image.shape[:2]:
            alpha = whole[..., 3:] / np.float32(np.iinfo(whole.dtype).max)
            image = np.round(image * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return image


def _decode(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        return None


def quiet() -> None:
    """OpenCV's and FFmpeg's own lines about what they cannot open are left out from now on: one of ours says it."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first video is opened
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class Pictures:
    """Still pictures of files, one after the other; one of several that cannot be read is named and left out."""

    still, live, fps = True, False, 0.0

    def __init__(self, files: list[Path], folder: Path | None = None):
        self.files, self.folder, self.count = files, folder, len(files)
        self.name, self._stopped = (folder or files[0]).name or "pictures", False

    def __iter__(self) -> Iterator[Frame]:
        unread = 0
        for index, file in enumerate(self.files):
            if self._stopped:
                return
            try:
                image = read_image(file)
            except UserError as error:
                unread += 1
                if unread == self.count:
                    raise
                print(f"left out: {error}", file=sys.stderr)
                continue
            yield Frame(image, index, None, file.name)

    def close(self) -> None:
        """No more pictures after this one."""
        self._stopped = True


class Video:
    """Frames of a file, an address or a camera (its number). They are decoded ahead; of a live one only the newest is kept.

    UserError where it cannot be opened or has no frame.
    """

    still = False

    def __init__(self, target: str | int):
        self.live = not Path(str(target)).is_file()
        camera = isinstance(target, int)
        self.name = f"camera{target}" if camera else Path(str(target)).stem if not self.live else "stream"
        self._title = f"camera {target}" if camera else str(target)
        if self.live and not camera:
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, PATIENCE, cv2.CAP_PROP_READ_TIMEOUT_MSEC, PATIENCE]
            self._capture = cv2.VideoCapture(target, cv2.CAP_FFMPEG, limits)
        else:
            self._capture = cv2.VideoCapture(target)
        read, first = self._capture.read() if self._capture.isOpened() else (False, None)
        if not read:
            self._capture.release()
            if camera:
                raise UserError(f"{self._title} gives no picture; connect one, or name a picture, folder or video: --source")
            raise UserError(f"{self._title} cannot be played: it is no picture or video that OpenCV {cv2.__version__} reads, or "
                            f"{'does not answer' if self.live else 'it is damaged'}")
        fps, count = (self._capture.get(prop) for prop in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.fps = fps if 0 < fps <= HIGHEST_FPS else USUAL_FPS
        self.count = int(count) if not self.live and 0 < count < 1e9 else None
        self._label = self.name if self.live else Path(str(target)).name
        self._first = Frame(first, 0, 0.0, self._label)
        self._queue, self._stop = queue.Queue(1 if self.live else AHEAD), threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        threading.Thread(target=self._read, daemon=True).start()
        last = self._first
        yield last
        while not self._stop.is_set():
            try:
                frame = self._queue.get(timeout=0.2)
            except queue.Empty:
                continue
            if frame is None:
                break
            yield (last := frame)
        else:
            return
        if self.live:
            print(f"{self._title} gives no more pictures", file=sys.stderr)
        elif self.count and last.index + 1 < self.count:
            print(f"{self._title}: {last.index + 1} of {self.count} frames could be read", file=sys.stderr)

    def close(self) -> None:
        """No more frames after this one; the capture is released once its thread is done."""
        self._stop.set()

    def _read(self) -> None:
        start, seconds, index = time.monotonic(), 0.0, 0
        while not self._stop.is_set():
            read, image = self._capture.read()
            if not read:
                break
            index += 1
            told = time.monotonic() - start if self.live else self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            seconds = told if told > seconds else seconds + 1 / self.fps
            self._put(Frame(image, index, seconds, self._label))
        self._put(None)
        self._capture.release()

    def _put(self, frame: Frame | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(frame, timeout=0.1)
                return
            except queue.Full:
                if self.live and frame is not None:
                    with suppress(queue.Empty):
                        self._queue.get_nowait()  # a newer one is here


Source = Pictures | Video


def open_source(text: str) -> Source:
    """What `--source` names: a picture, a folder of pictures, a video, an address (with ://) or the number of a camera.

    Files are told by what is in them, not by their names; a moving GIF is a video. UserError for what is none of these.
    """
    path = Path(text)
    if re.fullmatch("[0-9]{1,4}", text) and not path.exists():
        return Video(int(text))
    if "://" in text:
        return Video(text)
    if path.is_dir():
        files = sorted((file for file in path.iterdir() if file.is_file() and _is_picture(file)), key=_in_order)
        if not files:
            raise UserError(f"no picture in the folder {path}")
        return Pictures(files, path)
    if not path.is_file():
        raise UserError(f"no file or folder {path}")
    if not os.access(path, os.R_OK) or not path.stat().st_size:
        raise UserError(f"{path} {'is empty' if os.access(path, os.R_OK) else 'may not be read'}")
    moving = path.open("rb").read(4) == b"GIF8" and (Video(text).count or 2) > 1
    return Pictures([path]) if _is_picture(path) and not moving else Video(text)


def _is_picture(file: Path) -> bool:
    return os.access(file, os.R_OK) and cv2.haveImageReader(str(file))


def _in_order(file: Path) -> list:
    """face2 before face10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name.lower())]


class PictureSink:
    """Pictures to one file, or of a folder to a folder under their own names (PNG where OpenCV writes no such kind)."""

    def __init__(self, target: Path, folder: bool):
        if not folder and not cv2.haveImageWriter(str(target)):
            raise UserError(f"--save {target}: no picture's name; give one that ends in .jpg or .png")
        self.target, self.folder, self.written = target, folder, 0

    def write(self, frame: Frame, image: np.ndarray) -> None:
        """Whole, or not at all."""
        file = self.target / frame.name if self.folder else self.target
        if not cv2.haveImageWriter(str(file)) or file.suffix.lower() == ".gif":
            file = file.with_name(f"{file.name}.png")
        made_for(file)
        with writing(file):
            write_image(file, image)
        self.written += 1

    def close(self) -> None:
        """Nothing is open between pictures."""


class VideoSink:
    """A video without sound. It is written under another name and renamed when it is closed, so that it is whole and plays."""

    def __init__(self, target: Path, fps: float, live: bool = False):
        if target.suffix.lower() not in CODECS:
            raise UserError(f"--save {target}: give a video a name that ends in {', '.join(CODECS)}")
        self.target, self.written = target, 0
        self._partial = target.with_name(f".{target.stem}.partial-{os.getpid()}{target.suffix.lower()}")
        self._fps, self._live, self._size, self._writer = fps, live, None, None

    def write(self, frame: Frame, image: np.ndarray) -> None:
        """Frames of another size than the first are resized to that; of a live source, whose frames come when they come, one is
        left out or repeated so that time passes as it did. UserError where the video cannot be written and when the disk is full;
        what has been written until then plays once it is closed."""
        if self._writer is None:
            made_for(self.target)
        if shutil.disk_usage(self.target.parent).free < RESERVE:
            raise UserError(f"{self.target}: the disk is full after {self.written} frames; make room there or give --save "
                            "another place")
        if self._writer is None:
            self._size = image.shape[1::-1]
            code = cv2.VideoWriter.fourcc(*CODECS[self.target.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._partial), code, self._fps, self._size)
            if not self._writer.isOpened():
                self._partial.unlink(missing_ok=True)
                raise UserError(f"{self.target}: OpenCV {cv2.__version__} cannot write a video of {self._size[0]} x "
                                f"{self._size[1]} px there; give --save another name or ending ({', '.join(CODECS)})")
        if image.shape[1::-1] != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        due = round(frame.seconds * self._fps) + 1 - self.written if self._live else 1
        for _ in range(min(due, round(LONGEST * self._fps))):
            self._writer.write(image)
            self.written += 1

    def close(self) -> None:
        """Ends the video, which plays from now on. UserError, and no video, where not all of it could be written."""
        if self._writer is None:
            return
        self._writer.release()
        if not _plays(self._partial, self.written):  # OpenCV says nothing of writing that fails
            self._partial.unlink(missing_ok=True)
            raise UserError(f"{self.target} cannot be written to its end (is the disk full?); make room or give --save another "
                            "place")
        with writing(self.target):
            os.replace(self._partial, self.target)


def _plays(file: Path, frames: int) -> bool:
    """Whether a video tells of about so many frames and shows the last one."""
    capture = cv2.VideoCapture(str(file))
    told = capture.get(cv2.CAP_PROP_FRAME_COUNT) >= 0.9 * frames
    capture.set(cv2.CAP_PROP_POS_FRAMES, frames - 1)
    shown = capture.read()[0]
    capture.release()
    return told and shown


@contextmanager
def writing(file: Path | str) -> Iterator[None]:
    """What the system has against writing a file, such as a full disk, becomes a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror})") from None


def made_for(file: Path) -> None:
    """Makes the folder of a file. UserError where that cannot be."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(file.parent, os.W_OK) or file.is_dir():
        raise UserError(f"{file} {'is a folder' if file.is_dir() else 'cannot be written (no permission)'}")
