"""Encoders of saved videos: H.264 with the source's sound where PyAV is installed, else OpenCV's without sound."""
import importlib
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

H264 = (".mp4", ".mov", ".mkv")  # names of files that PyAV writes
CODECS = {".mp4": "vp09", ".mov": "mp4v", ".mkv": "VP80", ".avi": "MJPG", ".webm": "VP80"}  # OpenCV's; browsers play .mp4, .webm
SOUND = ("aac", "mp3", "opus", "flac", "ac3")  # that these files may hold
OPTIONS = {"preset": "veryfast", "crf": "20"}  # x264: fast, and hardly any loss to be seen


class OpenCV:
    """cv2.VideoWriter for `size` (width, height). note: why there is no sound."""

    note = "without sound: pip install av copies it and writes H.264"

    def __init__(self, file: Path, fps: float, size: tuple[int, int]):
        self._writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*CODECS[file.suffix]), fps, size)
        self.opened = self._writer.isOpened()
        self.write, self.close = self._writer.write, self._writer.release


class PyAV:
    """H.264, with the first sound track of the file `sound` copied as it is. note: why there is none, empty if there is one.

    Width and height must be even. OSError where the file cannot be written.
    """

    opened = True

    def __init__(self, av, file: Path, fps: float, size: tuple[int, int], sound: Path | None):
        self._av, self.note = av, ""
        self._out = av.open(str(file), "w", format={".mkv": "matroska"}.get(file.suffix, file.suffix[1:]))
        self._video = self._out.add_stream("libx264", Fraction(fps).limit_denominator(1001), OPTIONS)
        self._video.width, self._video.height, self._video.pix_fmt = *size, "yuv420p"
        self._in = self._next = None
        self._frames = 0
        if sound and (tracks := (container := av.open(str(sound))).streams.audio):
            name = tracks[0].codec_context.name
            if name in SOUND:
                track = self._out.add_stream_from_template(tracks[0])
                self._in, self._packets = container, self._copied(container.demux(tracks[0]), track)
            else:
                self.note = f"without sound: only {', '.join(SOUND)} are copied, not {name}"

    def _copied(self, packets, track):
        """Yield (seconds, packet) of the sound, for its track in the file."""
        for packet in packets:
            if packet.dts is not None:
                packet.stream = track
                yield float(packet.dts * packet.time_base), packet

    def write(self, image: np.ndarray) -> None:
        """Append a frame and the sound up to it, so that players find them near each other."""
        self._out.mux(self._video.encode(self._av.VideoFrame.from_ndarray(image, format="bgr24")))
        self._frames += 1
        self._copy_until(self._frames / self._video.average_rate)

    def _copy_until(self, seconds: float) -> None:
        if self._in is None:
            return
        self._next = self._next or next(self._packets, None)
        while self._next and self._next[0] < seconds:
            self._out.mux(self._next[1])
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Write what the encoder holds, and the index."""
        self._out.mux(self._video.encode(None))
        self._out.close()
        if self._in is not None:
            self._in.close()


def open_encoder(file: Path, fps: float, size: tuple[int, int], sound: Path | None) -> OpenCV | PyAV:
    """Return the encoder of a file, by its suffix and by what is installed. size: even width and height."""
    if file.suffix in H264:
        try:
            return PyAV(importlib.import_module("av"), file, fps, size, sound)
        except ImportError:
            pass
    return OpenCV(file, fps, size)
