"""Encoders of saved videos: PyAV, if it is installed, keeps each frame's time and the source's sound; otherwise OpenCV
writes.
"""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipnet.video.frame_sizes import as_os_error, av


class Codec(NamedTuple):
    """How PyAV writes a kind of file. sound: codecs of sound that it may hold, by their names in FFmpeg's list of codecs."""

    name: str
    options: dict[str, str]
    sound: tuple[str, ...]


# fast, and hardly any loss to be seen; without B frames, whose delay takes the end from a video of irregular frames
H264 = Codec("libx264", {"preset": "veryfast", "crf": "20", "bf": "0"}, ("aac", "mp3", "opus", "flac", "ac3"))
VP9 = Codec(
    "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "30", "b": "0"}, ("opus", "vorbis")
)
PYAV = {".mp4": H264, ".mov": H264._replace(sound=("aac", "mp3", "ac3")), ".mkv": H264, ".webm": VP9}
# OpenCV's: the one that takes least time. Its VP8 takes ten times as long, its VP9 forty times, but a .webm holds no
# other
CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
LACKS = {"mp4v": "in MPEG-4, which browsers do not play, ", "VP80": "slowly, "}
TICKS = 90_000  # of a second, units of a frame's time
LONGEST = 10  # s for which a frame is repeated at most; a longer gap is cut to this
EVEN = 0.9  # frames that follow each other faster than this share of the usual time need a higher rate
NEAREST, LOOK = 60.0, 60  # frames/s, highest such rate; number of first frames by which it is chosen


INSTALL = "pip install -U av"
# of a picture's height in px: players take BT.709 for the matrix of larger videos without a tag, BT.601 for smaller ones
HD = 720
BT709, BT601, UNKNOWN, LIMITED = 1, 6, 2, 1  # numbers of matrices, and of the range of values, in video files
MATRICES = {BT709: "ITU709", 5: "ITU601", BT601: "ITU601"}  # PyAV's names; 5 and 6 are the same matrix


def drawback(suffix: str, sound: bool) -> str:
    """Return what a video lacks because PyAV is not installed, empty if nothing.
    sound: whether the source may have sound.
    """
    if suffix not in PYAV or av():
        return ""
    keeps = "each frame at its own time" + (" and the sound" if sound else "")
    how = f"{LACKS[CODECS[suffix]]}at a constant rate{' and without sound' if sound else ''}"
    return f"it is written {how}; {INSTALL} keeps {keeps}"


class OpenCV:
    """cv2.VideoWriter for `size` (width, height), at a constant rate: frames are repeated or left out to keep their
    times.

    source: the file from which the frames come, None for other sources. The attribute `note` says what frames or sound
    have lost. .avi is written by this class even if PyAV is installed, because the format has a constant rate.
    """

    def __init__(self, file: Path, fps: float, size: tuple[int, int], source: Path | None):
        self._file, self._fps, self._written, self._due = file, even_rate(source, fps) if source else fps, 0, 0
        self._uneven, self._last = False, None
        self._writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*CODECS[file.suffix]), self._fps, size)
        self.opened, self._source = self._writer.isOpened(), source

    @property
    def note(self) -> str:
        """Return what the frames or the sound have lost, as far as it is known; empty if nothing."""
        if self._source is None:
            return ""
        silent = bool(av()) and has_sound(self._source)
        lost = [f"at a constant rate of {self._fps:.4g} frames/s"] * self._uneven + ["without sound"] * silent
        remedy = "a .mp4 keeps these" if av() else f"{INSTALL} keeps each frame's time"
        return f"{' and '.join(lost)}: {remedy}" if lost else ""

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Append a frame at its time: the one before is repeated until then, or this one is left out."""
        due = round(seconds * self._fps) + 1 - self._due
        self._uneven |= due != 1
        self._due += max(due, 0)
        before = image if self._last is None else self._last
        self._last = image.copy()
        for left in range(min(due, round(LONGEST * self._fps)), 0, -1):
            self._writer.write(image if left == 1 else before)
            self._written += 1

    def close(self) -> None:
        """Finish the file. OSError if it does not play, since OpenCV does not report that writing has failed."""
        self._writer.release()
        capture = cv2.VideoCapture(str(self._file))
        complete = capture.get(cv2.CAP_PROP_FRAME_COUNT) >= 0.9 * self._written
        capture.set(cv2.CAP_PROP_POS_FRAMES, self._written - 1)
        readable = capture.read()[0]
        capture.release()
        if not (complete and readable):
            raise OSError(f"{self._file} does not play")


def even_rate(file: Path, fps: float) -> float:
    """Return the constant rate that keeps all frames of a video: fps, or more if some of its first frames are closer
    together.
    """
    capture = cv2.VideoCapture(str(file))
    times: list[float] = []
    while len(times) < LOOK and capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    capture.release()
    steps = [step for step in np.diff(times) if step > 1 / TICKS]
    return fps if not steps or min(steps) > EVEN / fps else max(min(1 / min(steps), NEAREST), fps)


def has_sound(file: Path) -> bool:
    """Return whether a file has sound, according to PyAV."""
    module = av()
    with suppress(OSError), as_os_error(module), module.open(str(file)) as container:
        return bool(container.streams.audio)
    return False


class PyAV:
    """A video, each frame at its own time, with a copy of the first sound track of the file `source`.

    Its colours have the tags of `source`: matrix BT.709, or BT.601 without a tag of it; primaries and curve are copied.
    Frames of other sources get the matrix that players expect of their size. Width and height must be even. aspect:
    width / height of a pixel. The attribute `note` says why there is no sound; it is empty if there is some, or if
    the source has none. OSError if the file cannot be written.
    """

    opened = True

    def __init__(
        self, module: Any, file: Path, fps: float, size: tuple[int, int], source: Path | None, aspect: Fraction
    ):
        codec = PYAV[file.suffix]
        self._av, self.note = module, ""
        with as_os_error(module):
            self._out = module.open(str(file), "w", format={".mkv": "matroska"}.get(file.suffix, file.suffix[1:]))
            self._video = self._out.add_stream(codec.name, Fraction(fps).limit_denominator(1001), codec.options)
        self._video.width, self._video.height, self._video.pix_fmt = *size, "yuv420p"
        self._video.codec_context.time_base = Fraction(1, TICKS)
        self._step, self._ticks, self._start = round(TICKS / fps), -1, 0.0
        self._in: Any = None
        self._next: Any = None
        self._tags = {} if source else {"colorspace": BT709 if size[1] >= HD else BT601}
        if source:
            with suppress(OSError), as_os_error(module):  # OpenCV plays files that PyAV does not
                self._open_source(source, codec)
        context = self._video.codec_context
        if aspect != 1:
            context.sample_aspect_ratio = aspect
        for name, value in self._tags.items():
            setattr(context, name, value)

    def _open_source(self, source: Path, codec: Codec) -> None:
        """Read the tags of the colours, and open the sound."""
        container = self._av.open(str(source))
        video = next(iter(container.streams.video), None)
        if video and video.codec_context.colorspace != UNKNOWN:
            context = video.codec_context
            # the frames come in RGB: the matrix is ours, BT.709 also for BT.2020; the meaning of RGB stays
            matrix = context.colorspace if context.colorspace in MATRICES else BT709
            self._tags = {
                "colorspace": matrix,
                "color_primaries": context.color_primaries,
                "color_trc": context.color_trc,
                "color_range": LIMITED,
            }
        self._open_sound(container, video, codec)

    def _open_sound(self, container: Any, video: Any, codec: Codec) -> None:
        if not container.streams.audio:
            container.close()
            return
        track = container.streams.audio[0]
        decoder = track.codec_context.codec  # its name may be another one than the codec's: mp3float decodes mp3
        name = getattr(decoder, "canonical_name", decoder.name)  # before PyAV 15 it is unknown
        if name not in codec.sound:
            self.note = f"without sound: only {', '.join(codec.sound)} are copied, not {name}"
            container.close()
            return
        starts = [
            float(stream.start_time * stream.time_base) if stream and stream.start_time is not None else 0.0
            for stream in (track, video)
        ]
        self._start = starts[1] - min(starts)  # pictures may begin later than the sound
        self._in = container
        self._packets = self._copied(container.demux(track), self._out.add_stream_from_template(track), min(starts))

    def _copied(self, packets: Any, track: Any, begin: float) -> Iterator[tuple[float, Any]]:
        """Yield (seconds, packet) of the sound, for its track in the file. begin: s of the source that become 0."""
        last = None
        try:
            for packet in packets:
                # a broadcast may start its time anew
                if packet.dts is None or (last is not None and packet.dts <= last):
                    continue
                last, late = packet.dts, round(begin / packet.time_base)
                packet.dts, packet.pts = packet.dts - late, None if packet.pts is None else packet.pts - late
                seconds = float(packet.dts * packet.time_base)
                packet.stream = track
                yield seconds, packet
        except self._av.FFmpegError:
            self.note = "without the end of the sound, which cannot be read"

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Append a frame and the sound up to it, so that players find them near each other."""
        frame = self._av.VideoFrame.from_ndarray(image, format="bgr24")
        matrix = self._tags.get("colorspace", BT601)
        frame = frame.reformat(format="yuv420p", dst_colorspace=MATRICES[matrix])
        frame.colorspace = matrix if self._tags else UNKNOWN
        ticks = max(round((self._start + seconds) * TICKS), self._ticks + 1)
        self._step = ticks - self._ticks if self._ticks >= 0 else self._step
        frame.pts, frame.time_base, self._ticks = ticks, Fraction(1, TICKS), ticks
        with as_os_error(self._av):
            self._out.mux(self._video.encode(frame))
            self._copy_until(ticks / TICKS)

    def _copy_until(self, seconds: float) -> None:
        if self._in is None:
            return
        self._next = self._next or next(self._packets, None)
        while self._next and self._next[0] < seconds:
            self._out.mux(self._next[1])
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Write what the encoder holds, the sound of the last frame, and the index."""
        with as_os_error(self._av):
            self._out.mux(self._video.encode(None))
            self._copy_until((self._ticks + self._step) / TICKS)
            self._out.close()
        if self._in is not None:
            self._in.close()


def keeps_aspect(suffix: str) -> bool:
    """Return whether videos of this suffix are written with pixels that are not square."""
    # OpenCV does not write their ratio, and VP9 has no place for it
    return suffix in PYAV and PYAV[suffix] is not VP9 and av() is not None


def open_encoder(file: Path, fps: float, size: tuple[int, int], source: Path | None, aspect: Fraction) -> OpenCV | PyAV:
    """Return the encoder of a file, by its suffix and by what is installed.

    size: even width and height. aspect: width / height of a pixel, 1 unless `keeps_aspect`.
    """
    module = av() if file.suffix in PYAV else None
    return PyAV(module, file, fps, size, source, aspect) if module else OpenCV(file, fps, size, source)
