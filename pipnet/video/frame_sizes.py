"""Sizes of a video's frames where they change, and PyAV, which tells them."""

import importlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def av() -> Any:
    """Return the package PyAV, None if it is not installed, too old (before 14) or does not load."""
    try:
        module = importlib.import_module("av")
    except (ImportError, OSError):
        return None
    container = getattr(getattr(module, "container", None), "OutputContainer", None)  # an empty folder av has none
    return module if hasattr(container, "add_stream_from_template") else None


@contextmanager
def as_os_error(module: Any) -> Iterator[None]:
    """Turn errors of PyAV, some of which are no OSError, into one."""
    try:
        yield
    except module.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from None
    except UnicodeDecodeError as error:  # metadata that is not UTF-8
        raise OSError(0, str(error)) from None


class FrameSizes:
    """Gives the frames of a video file their own sizes: OpenCV stretches all to the size of the first one.

    A size can change only at a key frame, so only those are decoded, besides OpenCV, as they are needed. Without PyAV,
    and for files that it does not read, frames stay as they are.
    """

    def __init__(self, file: Path):
        self._ahead = _key_frames(file)
        self._next = next(self._ahead, None)
        self._first = self._now = self._next[1] if self._next else None

    def own(self, image: np.ndarray, index: int) -> np.ndarray:
        """Return a frame (H, W, 3) as OpenCV gives it, with its number, in its own size."""
        while self._next and self._next[0] <= index:
            self._now, self._next = self._next[1], next(self._ahead, None)
        if self._now is None or self._now == self._first:
            return image
        turned = image.shape[1::-1] != self._first  # as the file says; its sizes are those before
        return cv2.resize(image, self._now[::-1] if turned else self._now, interpolation=cv2.INTER_AREA)

    def close(self) -> None:
        """Close the file."""
        self._ahead.close()


def _key_frames(file: Path) -> Generator[tuple[int, tuple[int, int]]]:
    """Yield (its number, width and height) of each key frame; none of formats that have no other frames."""
    module = av()
    if module is None:
        return
    with suppress(OSError), as_os_error(module), module.open(str(file)) as container:
        video = next(iter(container.streams.video), None)
        if video is None or video.codec_context.codec.intra_only:
            return
        packets = (packet for packet in container.demux(video) if packet.size)
        for number, packet in enumerate(packets):
            if packet.is_keyframe:
                video.codec_context.decode(packet)
                yield number, (video.codec_context.width, video.codec_context.height)
