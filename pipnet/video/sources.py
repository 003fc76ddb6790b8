"""Sources of frames: picture files, folders of them, videos, cameras, addresses."""

import os
import queue
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from fractions import Fraction
from glob import glob
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import url2pathname

import cv2
import numpy as np

from pipnet.bounds import check_size, claimed
from pipnet.errors import Unreadable, UserError, tell
from pipnet.face import by_identity
from pipnet.images import BEGINNING, OPENCV_LOG, SILENT, in_order, is_picture, opencv_path, picture_files, read_image
from pipnet.video.address import failure, fetch_picture
from pipnet.video.frame_sizes import FrameSizes

USUAL_FPS, HIGHEST_FPS = 25.0, 240.0  # used where a video gives no rate or a higher one
AHEAD = 4  # frames that are decoded ahead of their use
PATIENCE = 10_000  # ms that an address may take to answer
LEAST, BACK = 0.001, 1.0  # s between frames with the same time stamp; by which stamps go back where they start anew
WIDEST = 10  # largest ratio of a pixel's sides that is believed
LAST = 2.0  # s that the decoding of a last frame is waited for
# s that a camera or stream is waited for that gives no more pictures, and from one attempt to the next
RETURN, RETRY = 30.0, 1.0


@by_identity
class Frame(NamedTuple):
    """A picture (H, W, 3) uint8 BGR, its number from 0, its time in s from the start (None: a still picture), and its
    name.

    The name is that of the file; with the path in the folder if the source is one, or if several are named.
    """

    image: np.ndarray
    index: int
    seconds: float | None
    name: str


def silence_opencv() -> None:
    """Turn off the messages of OpenCV and FFmpeg about files that they cannot open; a UserError reports these in one
    line.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first video is opened
    OPENCV_LOG.setLogLevel(SILENT)


class Pictures:
    """Still pictures of files. An unreadable one is named on stderr and left out; UserError when all are unreadable.

    folder: in which several pictures lie, None for a single one. searched: whether they were found there, rather than
    named. fetched: folders of pictures that addresses have sent; they are removed at the end. strict: whether a picture
    that the system does not let us read is an error.
    """

    still: Literal[True] = True
    live, fps, aspect = False, 0.0, Fraction(1)

    def __init__(
        self,
        files: list[Path],
        folder: Path | None = None,
        searched: bool = False,
        fetched: Sequence[TemporaryDirectory[str]] = (),
        strict: bool = False,
    ):
        self.files, self.folder, self.count = files, folder, len(files)
        self.name = (folder or files[0]).name or "pictures"
        self.searched, self.fetched, self.strict = searched, fetched, strict

    @property
    def names(self) -> list[str]:
        """Return the file names of the pictures, with their path below the folder if the source is one."""
        return [self._name(file) for file in self.files]

    def _name(self, file: Path) -> str:
        below = self.folder is not None and not self._is_fetched(file)
        return Path(os.path.relpath(file, self.folder)).as_posix() if below else file.name

    def _is_fetched(self, file: Path) -> bool:
        return any(file.is_relative_to(folder.name) for folder in self.fetched)

    def __iter__(self) -> Iterator[Frame]:
        unread = 0
        for index, file in enumerate(self.files):
            try:
                image = read_image(file)
            except UserError as error:
                unread += 1
                if self.strict and isinstance(error, Unreadable):
                    raise
                why = str(error).replace(str(file), file.name) if self._is_fetched(file) else str(error)
                if unread == self.count:
                    raise UserError(why) from None
                tell(f"left out: {why}")
                continue
            yield Frame(image, index, None, self._name(file))

    def leave_out(self, folder: Path) -> None:
        """Leave out the pictures of a folder that lie in `folder`, since an earlier run has drawn them.

        Pictures that were named are kept. UserError if no picture is left.
        """
        if self.folder and self.searched and folder.resolve().is_relative_to(self.folder.resolve()):
            self.files = [file for file in self.files if not file.resolve().is_relative_to(folder.resolve())]
            if self.files and len(self.files) < self.count:
                tell(f"left out: {self.count - len(self.files)} pictures in {folder}, where --save writes")
            self.count = len(self.files)
        if not self.files:
            raise UserError(f"no picture in the folder {self.folder} outside {folder}")

    def close(self) -> None:
        """Remove pictures that were fetched."""
        for folder in self.fetched:
            folder.cleanup()


class Video:
    """Frames of a video file, an address or a camera (its number), decoded by a thread.

    Frames of a file, or of a whole video at an address, are decoded a few ahead. Of a live source only the newest frame
    is kept, and one that vanishes is opened again when it returns. answered: why a picture could not be fetched from the
    address. UserError where the source cannot be opened or has no frame.
    """

    still: Literal[False] = False

    def __init__(self, target: str | int, answered: str = ""):
        target = target if isinstance(target, int) else opencv_path(target)
        path = Path(str(target))
        device = isinstance(target, int) or path.is_char_device()
        self.live = device or not path.is_file()
        self.files = [] if self.live else [path]
        self._title = f"camera {target}" if device else target
        self.name = f"camera{path.name}" if device else "stream" if self.live else path.stem
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, PATIENCE, cv2.CAP_PROP_READ_TIMEOUT_MSEC, PATIENCE]
        self._options = [target, cv2.CAP_FFMPEG, limits] if self.live and not device else [target]
        if device and not isinstance(target, int):
            self._options.append(cv2.CAP_V4L2)
        first = self._open()
        if first is None:
            self._capture.release()
            if device:
                raise UserError(
                    f"{self._title} gives no picture; connect one, or name a picture, folder or video: --source"
                )
            if answered:
                raise UserError(f"{self._title} cannot be played: {answered}; check the address")
            raise UserError(
                f"{self._title} cannot be played: it is no picture or video that OpenCV {cv2.__version__} reads, or "
                f"{'does not answer' if self.live else 'it is damaged'}"
            )
        fps, count = (self._capture.get(prop) for prop in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.fps = fps if 0 < fps <= HIGHEST_FPS else USUAL_FPS
        self._turned = self._capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180 != 0
        self.aspect = self._aspect()
        self._ends = 0 < count < 1e9 or not self.live  # an address may be that of a whole video
        self.live &= device or not self._ends
        self.count = int(count) if not self.live and 0 < count < 1e9 else None
        self._label = self.name if self.live else path.name
        self._first: Frame | None = Frame(first, 0, 0.0, self._label)
        self._queue: queue.Queue[Frame | None] = queue.Queue(1 if self.live else AHEAD)
        self._stop = threading.Event()

    def wait(self) -> None:
        """Release the source until its frames are asked for, so that any number of sources may be named."""
        self._capture.release()
        self._first = None

    def name_below(self, root: str) -> None:
        """Let the name begin in the folder `root`, if the source is a file."""
        for file in self.files:
            self._label = Path(os.path.relpath(file, root)).as_posix()
            self.name = os.path.splitext(self._label)[0]

    def __iter__(self) -> Iterator[Frame]:
        first = self._first
        if first is None:
            image = self._open()
            if image is None:
                raise UserError(f"{self._title} gives no more pictures; leave it out")
            first = self._first = Frame(image, 0, 0.0, self._label)
        reader = threading.Thread(target=self._read, args=(first,), daemon=True)
        reader.start()
        try:
            yield from self._frames(first)
        finally:
            self.close()
            reader.join(LAST)  # Python aborts if a thread returns from OpenCV while it ends

    def _frames(self, first: Frame) -> Iterator[Frame]:
        """Yield the frames that the reading thread decodes, the first one at once."""
        last = before = first
        yield last
        while not self._stop.is_set():
            try:
                frame = self._queue.get(timeout=0.2)
            except queue.Empty:
                continue
            if frame is None:
                break
            before, last = last, frame
            yield frame
        else:
            return
        if self.live:
            tell(f"{self._title} gives no more pictures")
        elif (
            self.count
            and last.index + 1 < self.count
            and self.count / self.fps > 3 * (last.seconds or 0.0) - 2 * (before.seconds or 0.0)
        ):
            # of a file with irregular frames OpenCV only estimates the number, from the length
            tell(f"{self._title}: {last.index + 1} of {self.count} frames could be read")

    def close(self) -> None:
        """Stop after the current frame; the reading thread then releases the capture."""
        self._stop.set()

    def _read(self, first: Frame) -> None:
        start, seconds, index = time.monotonic(), 0.0, 0
        sizes = FrameSizes(self.files[0]) if self.files else None
        while not self._stop.is_set():
            read, image = self._capture.read()
            if not read and not self._ends and (image := self._returns(first)) is not None:
                read = True
            if not read:
                break
            index += 1
            stamp = time.monotonic() - start if self.live else self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            image = sizes.own(image, index) if sizes else image
            seconds = next_time(seconds, stamp, 1 / self.fps)
            self._put(Frame(image, index, seconds, self._label))
        if sizes:
            sizes.close()
        self._put(None)
        self._capture.release()

    def _returns(self, first: Frame) -> np.ndarray | None:
        """Return the first frame of a source that gives pictures again within RETURN seconds, else None.

        One that begins with the same frame as before is no stream: it would be shown for ever.
        """
        tell(f"{self._title} gives no picture; waiting {RETURN:.0f} s for it to return")
        until = time.monotonic() + RETURN
        while time.monotonic() < until and not self._stop.wait(RETRY):
            self._capture.release()
            image = self._open()
            if image is not None and not np.array_equal(image, first.image):
                tell(f"{self._title} is back")
                return image
        return None

    def _open(self) -> np.ndarray | None:
        """Open the source. Return its first frame, None if it gives none."""
        self._capture = cv2.VideoCapture(*self._options)
        return self._capture.read()[1] if self._capture.isOpened() else None

    def _aspect(self) -> Fraction:
        """Return width / height of a pixel of the pictures as they are shown, 1 where the video does not say it."""
        ratio, below = (int(self._capture.get(prop)) for prop in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
        if not (0 < ratio <= WIDEST * below and below <= WIDEST * ratio):
            return Fraction(1)
        return Fraction(below, ratio) if self._turned else Fraction(ratio, below)

    def _put(self, frame: Frame | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(frame, timeout=0.1)
                return
            except queue.Full:
                if self.live and frame is not None:
                    with suppress(queue.Empty):
                        self._queue.get_nowait()  # drop the older frame


def next_time(seconds: float, stamp: float, step: float) -> float:
    """Return the time in s of a video's next frame, from the time of the last one and the frame's time stamp.

    Times always increase. Stamps may be equal; where they are missing or start anew, a frame takes `step`.
    """
    follows = 0 < stamp > seconds - BACK
    return max(stamp, seconds + (LEAST if follows else step))


Source = Pictures | Video


def open_sources(texts: list[str]) -> list[Source]:
    """Return the sources that `open_source` opens, in the order of their texts, which may be patterns (clips/*.mp4).

    Where there are several, pictures and folders that follow each other are one source, and the names of files begin in
    the folder that all of them share. UserError as there, and for a pattern that no file matches.
    """
    places = [place for text in texts for place in _matching(text)]
    if len(places) == 1:
        return [open_source(places[0])]
    sources: list[Source] = []
    with ExitStack() as opened:
        for place in places:
            source = open_source(place)
            opened.callback(source.close)
            if isinstance(source, Video):
                source.wait()
            sources.append(source)
        opened.pop_all()
    local = [_folder_of(source) for source in sources if source.files and not (source.still and source.fetched)]
    root = os.path.commonpath(local) if local else "pictures"
    joined: list[Source] = []
    for _, group in groupby(sources, type):
        parts = [*group]
        pictures = [part for part in parts if isinstance(part, Pictures)]
        joined += [_joined(pictures, Path(root))] if pictures else parts
    for source in joined:
        if isinstance(source, Video):
            source.name_below(root)
    return joined


def _matching(text: str) -> list[str]:
    """Return the places that a text names: those that match it if it is a pattern, else itself."""
    if "://" in text or not re.search(r"[*?[]", text) or os.path.lexists(text):
        return [text]
    found = [str(path) for path in in_order(map(Path, glob(text, recursive=True)))]
    if not found:
        raise UserError(f"no file or folder matches {text}")
    return found


def _folder_of(source: Source) -> str:
    """Return the absolute path of the folder in which the files of a source lie."""
    return os.path.abspath((source.still and source.folder) or source.files[0].parent)


def _joined(parts: list[Pictures], root: Path) -> Pictures:
    """Return one source of several. The names of its pictures begin in the folder `root`."""
    files = {os.path.abspath(file): file for part in parts for file in part.files}
    return Pictures([*files.values()], root, fetched=[folder for part in parts for folder in part.fetched])


def _received(data: bytes, name: str) -> Pictures:
    """Return a source of the picture that an address has sent."""
    folder = TemporaryDirectory()
    file = Path(folder.name, name)
    file.write_bytes(data)
    return Pictures([file], fetched=[folder])


def open_source(text: str, strict: bool = False) -> Source:
    """Return the source that `--source` names: picture, folder, video, address (with ://) or camera (number or device
    file).

    Files are recognised by their content, not by their names. A GIF of several frames is a video. strict: see `Pictures`.
    UserError for anything else.
    """
    if text.startswith("file://"):
        with suppress(ValueError):
            text = url2pathname(urlsplit(text).path)
    path = Path(text)
    if re.fullmatch("[0-9]{1,4}", text) and not path.exists():
        return Video(int(text))
    if device := re.fullmatch("/dev/video([0-9]{1,4})", os.path.realpath(text)):
        return Video(int(device[1]))
    if path.is_char_device():
        return Video(text)
    if "://" in text:
        found, answered = None, ""
        try:
            found = fetch_picture(text)
        except URLError as error:
            answered = failure(error)
        if found:
            source = _received(*found)
            if not moves(source.files[0]):
                return source
            source.close()
        return Video(text, answered)
    if path.is_dir():
        if not (files := picture_files(path)):
            raise UserError(f"no picture in the folder {path}; name videos themselves, such as '{path}/*.mp4'")
        return Pictures(files, path, searched=True, strict=strict)
    if not path.is_file():
        raise UserError(f"no file or folder {path}")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path} cannot be read (no permission)")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty")
    return Pictures([path], strict=strict) if is_picture(path) and not moves(path) else Video(text)


def moves(file: Path) -> bool:
    """Return whether a file is a GIF of several frames."""
    with open(file, "rb") as content:
        beginning = content.read(BEGINNING)
    if not beginning.startswith(b"GIF8"):
        return False
    check_size(file, *claimed(beginning)[:2])
    return (Video(str(file)).count or 2) > 1
