"""Sinks of frames: picture files and videos. No unfinished file is left under the name that was asked for."""
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

from pipnet.app.encoders import CODECS, OpenCV, PyAV, open_encoder
from pipnet.app.sources import Frame
from pipnet.errors import UserError
from pipnet.images import write_image

LONGEST = 10       # s: a frame of a live source is repeated for at most this long
RESERVE = 2 ** 23  # bytes that stay free on the disk, for what is written when a video ends, above all its index


class PictureSink:
    """Pictures to one file, or to a folder under their own names (.png where OpenCV cannot write the format)."""

    def __init__(self, target: Path, folder: bool):
        if not folder and not cv2.haveImageWriter(str(target)):
            raise UserError(f"--save {target}: no picture's name; give one that ends in .jpg or .png")
        self.target, self.folder, self.written = target, folder, 0

    def write(self, frame: Frame, image: np.ndarray) -> None:
        """Write one picture atomically."""
        file = self.target / frame.name if self.folder else self.target
        if not cv2.haveImageWriter(str(file)) or file.suffix.lower() == ".gif":
            file = file.with_name(f"{file.name}.png")
        save_picture(file, image)
        self.written += 1

    def close(self) -> None:
        """Nothing is open between pictures."""


class VideoSink:
    """A video. It is written under a temporary name and renamed by `close`, when it is playable.

    sound: the file whose sound is copied, where that is possible; `note` says why it is not.
    """

    def __init__(self, target: Path, fps: float, live: bool = False, sound: Path | None = None):
        if target.suffix.lower() not in CODECS:
            raise UserError(f"--save {target}: give a video a name that ends in {', '.join(CODECS)}")
        self.target, self.written = target, 0
        self._partial = target.with_name(f".{target.stem}.partial-{os.getpid()}{target.suffix.lower()}")
        self._writer: OpenCV | PyAV | None = None
        self._fps, self._live, self._size, self._sound, self.note = fps, live, None, sound, ""

    def write(self, frame: Frame, image: np.ndarray) -> None:
        """Append a frame, resized to the size of the first one with even sides.

        Frames of a live source come at irregular times, so they are repeated or left out until the video keeps the real time.
        UserError where the video cannot be written or the disk is full; the frames written so far are playable after `close`.
        """
        if self._writer is None:
            make_folder(self.target)
        if shutil.disk_usage(self.target.parent).free < RESERVE:
            raise UserError(f"{self.target}: the disk is full after {self.written} frames; make room there or give --save "
                            "another place")
        if self._writer is None:
            self._open(image.shape[1::-1])
        if image.shape[1::-1] != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        due = round(frame.seconds * self._fps) + 1 - self.written if self._live else 1
        for _ in range(min(due, round(LONGEST * self._fps))):
            with writing(self.target):
                self._writer.write(image)
            self.written += 1

    def _open(self, size: tuple[int, int]) -> None:
        size = tuple(max(side // 2 * 2, 2) for side in size)  # H.264 and VP9 halve the resolution of colours
        with writing(self.target):
            writer = open_encoder(self._partial, self._fps, size, self._sound)
        if not writer.opened:
            self._partial.unlink(missing_ok=True)
            raise UserError(f"{self.target}: OpenCV {cv2.__version__} cannot write a video of {size[0]} x {size[1]} px there; "
                            f"give --save another name or ending ({', '.join(CODECS)})")
        self._writer, self._size, self.note = writer, size, writer.note if self._sound else ""

    def close(self) -> None:
        """Finish the video and give it its name. UserError, and no video, where it could not be written completely."""
        if self._writer is None:
            return
        complete = False
        with suppress(OSError):  # PyAV raises it; OpenCV does not report that writing failed
            self._writer.close()
            complete = _plays(self._partial, self.written)
        if not complete:
            self._partial.unlink(missing_ok=True)
            raise UserError(f"{self.target} cannot be written to its end (is the disk full?); make room or give --save another "
                            "place")
        with writing(self.target):
            os.replace(self._partial, self.target)


def _plays(file: Path, frames: int) -> bool:
    """Return whether a video announces about so many frames and its last one can be read."""
    capture = cv2.VideoCapture(str(file))
    complete = capture.get(cv2.CAP_PROP_FRAME_COUNT) >= 0.9 * frames
    capture.set(cv2.CAP_PROP_POS_FRAMES, frames - 1)
    readable = capture.read()[0]
    capture.release()
    return complete and readable


def save_picture(file: Path, image: np.ndarray) -> None:
    """Write a picture and make its folder. UserError where that is impossible."""
    make_folder(file)
    with writing(file):
        write_image(file, image)


def make_folder(file: Path) -> None:
    """Make the folder of a file that is to be written. UserError where that is impossible."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_dir():
        raise UserError(f"{file} is a folder; give the name of a file")
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"{file} cannot be written (no permission); give another place")


@contextmanager
def writing(file: Path | str) -> Iterator[None]:
    """Turn an OSError, such as a full disk, into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); give another place") from None
