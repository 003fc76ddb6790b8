"""Sources of frames: picture files, folders of them, videos, cameras, addresses."""
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from pipnet.errors import UserError
from pipnet.images import OPENCV_LOG, SILENT, is_picture, pictures, read_image

USUAL_FPS, HIGHEST_FPS = 25.0, 240.0  # used where a video gives no rate or a higher one
AHEAD = 4          # frames that are decoded ahead of their use
PATIENCE = 10_000  # ms that an address may take to answer
RETURN, RETRY = 30.0, 1.0  # s that a camera or stream is waited for that gives no more pictures, and from one attempt to the next


class Frame(NamedTuple):
    """A picture (H, W, 3) uint8 BGR, its number from 0, its time in s from the start (None: a still picture), its name: of the
    file, with its path in a folder that is the source."""

    image: np.ndarray
    index: int
    seconds: float | None
    name: str


def silence_opencv() -> None:
    """Turn off the messages that OpenCV and FFmpeg print about files they cannot open; a UserError says it in one line."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first video is opened
    OPENCV_LOG.setLogLevel(SILENT)


class Pictures:
    """Still pictures of files. An unreadable one is named on stderr and left out; UserError when all are unreadable."""

    still, live, fps = True, False, 0.0

    def __init__(self, files: list[Path], folder: Path | None = None):
        self.files, self.folder, self.count = files, folder, len(files)
        self.name = (folder or files[0]).name or "pictures"

    def __iter__(self) -> Iterator[Frame]:
        unread = 0
        for index, file in enumerate(self.files):
            try:
                image = read_image(file)
            except UserError as error:
                unread += 1
                if unread == self.count:
                    raise
                print(f"left out: {error}", file=sys.stderr)
                continue
            yield Frame(image, index, None, file.relative_to(self.folder or file.parent).as_posix())

    def leave_out(self, folder: Path) -> None:
        """Leave out the pictures in a folder of the source: those that an earlier run has drawn. UserError if none is left."""
        if folder.resolve().is_relative_to(self.folder.resolve()):
            self.files = [file for file in self.files if not file.resolve().is_relative_to(folder.resolve())]
            self.count = len(self.files)
        if not self.files:
            raise UserError(f"no picture in the folder {self.folder} outside {folder}")

    def close(self) -> None:
        """Nothing is open between pictures."""


class Video:
    """Frames of a video file, an address or a camera (its number), decoded by a thread.

    A file's frames are decoded a few ahead; of a live source only the newest frame is kept, and one that vanishes is opened again
    when it returns. UserError where the source cannot be opened or has no frame.
    """

    still = False

    def __init__(self, target: str | int):
        self.live, camera = not Path(str(target)).is_file(), isinstance(target, int)
        self._title = f"camera {target}" if camera else target
        self.name = f"camera{target}" if camera else "stream" if self.live else Path(str(target)).stem
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, PATIENCE, cv2.CAP_PROP_READ_TIMEOUT_MSEC, PATIENCE]
        self._options = [target, cv2.CAP_FFMPEG, limits] if self.live and not camera else [target]
        self._capture = cv2.VideoCapture(*self._options)
        read, first = self._capture.read() if self._capture.isOpened() else (False, None)
        if not read:
            self._capture.release()
            if camera:
                raise UserError(f"{self._title} gives no picture; connect one, or name a picture, folder or video: --source")
            raise UserError(f"{self._title} cannot be played: it is no picture or video that OpenCV {cv2.__version__} reads, or "
                            f"{'does not answer' if self.live else 'it is damaged'}")
        fps, count = (self._capture.get(prop) for prop in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.fps = fps if 0 < fps <= HIGHEST_FPS else USUAL_FPS
        self._ends = not self.live or 0 < count < 1e9  # an address may be that of a whole video
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
        """Stop after the current frame; the reading thread then releases the capture."""
        self._stop.set()

    def _read(self) -> None:
        start, seconds, index = time.monotonic(), 0.0, 0
        while not self._stop.is_set():
            read, image = self._capture.read()
            if not read:
                if self._ends or not self._returns():
                    break
                continue
            index += 1
            stamp = time.monotonic() - start if self.live else self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            seconds = stamp if stamp > seconds else seconds + 1 / self.fps  # some files have no usable time stamps
            self._put(Frame(image, index, seconds, self._label))
        self._put(None)
        self._capture.release()

    def _returns(self) -> bool:
        """Return whether the source gives pictures again within RETURN seconds."""
        print(f"{self._title} gives no picture; waiting {RETURN:.0f} s for it to return", file=sys.stderr)
        until = time.monotonic() + RETURN
        while time.monotonic() < until and not self._stop.wait(RETRY):
            self._capture.release()
            self._capture = cv2.VideoCapture(*self._options)
            if self._capture.isOpened() and self._capture.grab():
                print(f"{self._title} is back", file=sys.stderr)
                return True
        return False

    def _put(self, frame: Frame | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(frame, timeout=0.1)
                return
            except queue.Full:
                if self.live and frame is not None:
                    with suppress(queue.Empty):
                        self._queue.get_nowait()  # drop the older frame


Source = Pictures | Video


def open_source(text: str) -> Source:
    """The source that `--source` names: a picture, a folder, a video, an address (with ://) or a camera's number.

    Files are recognised by their content, not by their names. A GIF of several frames is a video. UserError for anything else.
    """
    path = Path(text)
    if re.fullmatch("[0-9]{1,4}", text) and not path.exists():
        return Video(int(text))
    if "://" in text:
        return Video(text)
    if path.is_dir():
        if not (files := pictures(path)):
            raise UserError(f"no picture in the folder {path}")
        return Pictures(files, path)
    if not path.is_file():
        raise UserError(f"no file or folder {path}")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path} cannot be read (no permission)")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty")
    moving = path.open("rb").read(4) == b"GIF8" and (Video(text).count or 2) > 1
    return Pictures([path]) if is_picture(path) and not moving else Video(text)
