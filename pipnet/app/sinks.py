"""Sinks of frames: picture files and videos. A file gets its name only when it is finished."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from pipnet.app.encoders import CODECS, OpenCV, PyAV, keeps_aspect, open_encoder
from pipnet.errors import UserError
from pipnet.files import partial_file
from pipnet.images import opencv_path, write_image
from pipnet.video.sources import Frame

RESERVE = 2**23  # bytes that stay free on the disk, for what is written when a video ends, above all its index


class PictureSink:
    """Writes the pictures of a source to `files`, in their order. place: the folder of several files, or the only one."""

    def __init__(self, files: list[Path], place: Path):
        self.files, self.target, self.written = files, files[0] if len(files) == 1 else place, 0

    def write(self, frame: Frame, image: np.ndarray) -> None:
        """Write one picture atomically."""
        save_picture(self.files[frame.index], image)
        self.written += 1

    def close(self) -> None:
        """Nothing is open between pictures."""


class VideoSink:
    """Writes a video under a temporary name. `close` finishes it and gives it its name.

    source: the file from which the frames come; its sound is copied if possible. aspect: width / height of a pixel,
    which is kept if possible; otherwise the frames are stretched to square ones. `note` says what the video lacks.
    """

    def __init__(self, target: Path, fps: float, source: Path | None = None, aspect: Fraction = Fraction(1)):
        if target.suffix.lower() not in CODECS:
            raise UserError(f"--save {target}: give a video a name that ends in {', '.join(CODECS)}")
        self.target, self.written, self.source = Path(opencv_path(target)), 0, source
        self._partial = Path()
        self._writer: OpenCV | PyAV | None = None
        self._fps, self._aspect = fps, aspect
        self._stretch = Fraction(1) if keeps_aspect(target.suffix.lower()) else aspect
        self._size = (0, 0)  # of the video

    @property
    def note(self) -> str:
        """Return what the source had and the video lacks, empty if nothing."""
        return self._writer.note if self._writer else ""

    def write(self, frame: Frame, image: np.ndarray) -> None:
        """Append a frame at its time, resized to the size of the first one with even sides.

        UserError where the video cannot be written or the disk is full; the frames written so far are playable after
        `close`.
        """
        if self._writer is None:
            make_folder(self.target)
        if shutil.disk_usage(self.target.parent).free < RESERVE:
            raise UserError(
                f"{self.target}: the disk is full after {self.written} frames; make room there or give --save "
                "another place"
            )
        writer = self._writer or self._open(image.shape[1::-1])
        if image.shape[1::-1] != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        with writing(self.target):
            writer.write(image, frame.seconds or 0.0)
        self.written += 1

    def _open(self, size: tuple[int, ...]) -> OpenCV | PyAV:
        stretched = size[0] * max(self._stretch, Fraction(1)), size[1] / min(self._stretch, Fraction(1))
        # H.264 and VP9 halve the resolution of colours
        width, height = (max(int(side) // 2 * 2, 2) for side in stretched)
        with writing(self.target):
            self._partial = partial_file(self.target, self.target.suffix.lower(), "saving")
            try:
                writer = open_encoder(
                    self._partial, self._fps, (width, height), self.source, self._aspect / self._stretch
                )
            except BaseException:
                self._partial.unlink(missing_ok=True)
                raise
        if not writer.opened:
            self._partial.unlink(missing_ok=True)
            raise UserError(
                f"{self.target}: OpenCV {cv2.__version__} cannot write a video of {width} x {height} px there; "
                f"give --save another name or ending ({', '.join(CODECS)})"
            )
        self._writer, self._size = writer, (width, height)
        return writer

    def close(self) -> None:
        """Finish the video and give it its name. UserError, and no video, where it could not be written completely."""
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError:
            self._partial.unlink(missing_ok=True)
            raise UserError(
                f"{self.target} cannot be written to its end (is the disk full?); make room or give --save another "
                "place"
            ) from None
        with writing(self.target):
            os.replace(self._partial, self.target)


def names_picture(file: Path | str) -> bool:
    """Return whether OpenCV writes pictures with this file name."""
    suffix = Path(file).suffix
    return suffix.isascii() and bool(suffix) and cv2.haveImageWriter(f"picture{suffix}")


def named_as_picture(file: Path) -> Path:
    """Return the file under which a picture is written: as .png too if OpenCV does not write the format, or only as a
    film.
    """
    if names_picture(file) and file.suffix.lower() != ".gif":
        return file
    return file.with_name(f"{file.name}.png")


def unused(path: Path, used: Callable[[Path], bool], folder: bool = False) -> Path:
    """Return the path; if it is used, with _2, _3, ... in its name, before the ending if it is no folder."""
    stem, suffix = (path.name, "") if folder else (path.stem, path.suffix)
    names = (path.with_name(f"{stem}_{number}{suffix}") for number in itertools.count(2))
    return next(one for one in itertools.chain([path], names) if not used(one))


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
