"""Saved videos: codecs that browsers play, and the sound of their source."""

import re
import sys
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest

from pipnet.app.encoders import CODECS, LONGEST, PYAV, drawback, keeps_aspect
from pipnet.app.sinks import VideoSink
from pipnet.video.sources import Frame, Video

COUNT, RATE = 30, 20


def save(file: Path, source: Path | None = None) -> str:
    """Write a video of pictures with odd sides; return what the sink says that it lacks."""
    with closing(VideoSink(file, RATE, source)) as sink:
        for index in range(COUNT):
            image = np.full((81, 121, 3), 8 * index, np.uint8)
            sink.write(Frame(image, index, index / RATE, file.name), image)
    capture = cv2.VideoCapture(str(file))
    assert capture.get(cv2.CAP_PROP_FRAME_WIDTH) == 120 and capture.get(cv2.CAP_PROP_FRAME_HEIGHT) == 80
    return sink.note


@pytest.mark.parametrize(("name", "codec"), [("out.mp4", b"FMP4"), ("out.webm", b"VP80"), ("out.avi", b"MJPG")])
def test_opencv_writes_the_codec_that_takes_little_time(name, codec, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)  # not installed
    assert save(tmp_path / name, tmp_path / "talk.mp4") == ""
    assert int(cv2.VideoCapture(str(tmp_path / name)).get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little") == codec
    said = drawback(Path(name).suffix, True)
    assert ("pip install -U av" in said) == (name != "out.avi") and ("browsers do not play" in said) == (
        name == "out.mp4"
    )


def irregular(file: Path, av, rate: int = 90_000) -> list[float]:
    """Write a video whose frames come more and more seldom, with one bright frame; return their times, s."""
    steps = [0.04] * 10 + [0.2] * 10 + [0.5] * 3
    times = [0.0, *np.cumsum(steps).round(3)]
    with av.open(str(file), "w") as video:
        stream = video.add_stream("libx264" if file.suffix == ".mp4" else "libvpx", RATE)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.time_base = (
            64,
            48,
            "yuv420p",
            Fraction(1, rate),
        )
        for index, seconds in enumerate(times):
            image = np.full((48, 64, 3), 255 if index == 17 else 0, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = round(seconds * rate), Fraction(1, rate)
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    return times


@pytest.mark.parametrize("given", [".mp4", ".webm"])
@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("installed", [True, False])
def test_frames_keep_their_times(given, suffix, installed, tmp_path, monkeypatch):
    """A phone in the dark and a browser's recording: frames come at irregular times, and the bright one stays where it
    was.
    """
    av = pytest.importorskip("av", reason="PyAV is not installed")
    times, source = irregular(tmp_path / f"in{given}", av), Video(str(tmp_path / f"in{given}"))
    if not installed:
        monkeypatch.setitem(sys.modules, "av", None)
    with closing(VideoSink(tmp_path / f"out{suffix}", source.fps, source.files[0])) as sink:
        for frame in source:
            sink.write(frame, frame.image)
    capture, seen, bright = cv2.VideoCapture(str(sink.target)), [], []
    while (read := capture.read())[0]:
        seen.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        bright += [seen[-1]] * bool(read[1].mean() > 128)
    exact = installed and suffix in PYAV
    assert bright[0] == pytest.approx(times[17], abs=0.002 if exact else 0.025)
    assert seen[-1] == pytest.approx(times[-1], abs=0.002 if exact else 0.025)
    assert len(seen) == len(times) if exact else re.search("at a constant rate of 2[05] frames/s", sink.note)


def test_a_long_gap_is_cut_and_the_frames_behind_it_follow_at_once(tmp_path):
    with closing(VideoSink(tmp_path / "out.avi", RATE)) as sink:
        for index, seconds in enumerate((0, 1 / RATE, 30, 30 + 1 / RATE, 30 + 2 / RATE)):
            image = np.full((48, 64, 3), 50 * index, np.uint8)
            sink.write(Frame(image, index, seconds, "camera"), image)
    capture = cv2.VideoCapture(str(sink.target))
    seen = [round(image.mean() / 50) for known, image in iter(capture.read, (False, None))]
    assert seen == [0, 1, *[1] * (LONGEST * RATE - 1), 2, 3, 4]


def encode(file: Path, images: list[np.ndarray], tags: dict | None = None, codec: str = "libx264", **form) -> None:
    """Write images with values of the codec context, as a container `form`."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(file), "w", **form) as video:
        stream = video.add_stream(codec, RATE)
        stream.width, stream.height, stream.pix_fmt = images[0].shape[1], images[0].shape[0], "yuv420p"
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        matrix = "ITU709" if tags and tags.get("colorspace") == 1 else "ITU601"
        for image in images:
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            video.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=matrix)))
        video.mux(stream.encode(None))


def copy(file: Path, target: Path) -> VideoSink:
    """Write the frames of a video into another one."""
    source = Video(str(file))
    with closing(VideoSink(target, source.fps, source.files[0], source.aspect)) as sink:
        for frame in source:
            sink.write(frame, frame.image)
    return sink


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("suffix", CODECS)
def test_pixels_that_are_not_square_keep_their_shape(suffix, installed, tmp_path, monkeypatch):
    for ratio in (Fraction(4, 3), Fraction(3, 4)):
        encode(tmp_path / "in.mp4", [np.zeros((96, 120, 3), np.uint8)] * 3, {"sample_aspect_ratio": ratio})
        with monkeypatch.context() as patch:
            if not installed:
                patch.setitem(sys.modules, "av", None)
            kept = keeps_aspect(suffix)
            sink = copy(tmp_path / "in.mp4", tmp_path / f"out{suffix}")
        saved = Video(str(sink.target))
        height, width = saved._first.image.shape[:2]
        assert kept == (installed and suffix not in (".avi", ".webm"))
        assert saved.aspect == (ratio if kept else 1)
        assert width * saved.aspect / height == pytest.approx(120 * ratio / 96, abs=0.02)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}, (1, 1, 1, 1)),
        ({"colorspace": 6, "color_primaries": 6, "color_trc": 6, "color_range": 1}, (6, 6, 6, 1)),
        ({}, (2, 2, 2, 0)),
    ],
)
def test_colours_are_those_that_players_show(tags, expected, tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    green = np.full((720, 1280, 3), (20, 220, 30), np.uint8)
    encode(tmp_path / "in.mp4", [green] * 2, tags)
    copy(tmp_path / "in.mp4", tmp_path / "out.mp4")
    shown = []
    for name in ("in", "out"):
        with av.open(str(tmp_path / f"{name}.mp4")) as video:
            context = video.streams.video[0].codec_context
            found = context.colorspace, context.color_primaries, context.color_trc, context.color_range
            matrix = {1: "ITU709", 6: "ITU601"}.get(found[0], "ITU709")  # players take this for HD without a tag
            frame = next(video.decode(video=0)).reformat(format="bgr24", src_colorspace=matrix)
            shown.append(frame.to_ndarray()[360, 640])
            assert found == expected, name
    assert np.abs(shown[0].astype(int) - shown[1]).max() <= 4


@pytest.mark.parametrize(("size", "matrix"), [((640, 360), 6), ((1280, 720), 1)])
def test_a_stream_gets_the_matrix_that_players_expect(size, matrix, tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with closing(VideoSink(tmp_path / "out.mp4", RATE)) as sink:
        sink.write(Frame(None, 0, 0.0, "stream"), np.zeros((size[1], size[0], 3), np.uint8))
    with av.open(str(tmp_path / "out.mp4")) as video:
        assert video.streams.video[0].codec_context.colorspace == matrix


@pytest.mark.parametrize("kind", ["an empty folder", "an older version", "one that fails"])
def test_a_package_av_that_cannot_write_counts_as_none(kind, tmp_path, monkeypatch):
    module = ModuleType("av")
    if kind == "an older version":
        module.container = SimpleNamespace(OutputContainer=type("OutputContainer", (), {"add_stream": None}))
    monkeypatch.setitem(sys.modules, "av", None if kind == "one that fails" else module)
    assert "pip install -U av" in drawback(".mp4", True)
    save(tmp_path / "out.mp4", tmp_path / "talk.mp4")
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize(
    ("codec", "samples", "suffix", "note"),
    [
        ("aac", "fltp", ".mp4", ""),
        ("libmp3lame", "fltp", ".mp4", ""),  # its decoder is called mp3float
        ("libmp3lame", "fltp", ".mov", ""),
        ("flac", "s16", ".mkv", ""),
        ("flac", "s16", ".mov", "without sound: only aac, mp3, ac3 are copied, not flac"),
        ("pcm_s16le", "s16", ".mp4", "without sound: only aac, mp3, opus, flac, ac3 are copied, not pcm_s16le"),
        (None, None, ".mp4", ""),
    ],
)
def test_pyav_copies_the_sound(codec, samples, suffix, note, tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(tmp_path / "talk.mkv"), "w") as talk:
        video = talk.add_stream("libx264", RATE)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = talk.add_stream(codec, rate=44100) if codec else None
        for _ in range(2 * COUNT):
            talk.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="bgr24")))
        for start in range(0, 44100 * 2 * COUNT // RATE if codec else 0, 1024):
            wave = np.sin(np.arange(start, start + 1024) / 20)[None]
            wave = wave.astype(np.float32) if samples == "fltp" else (wave * 9999).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(wave, format=samples, layout="mono")
            frame.rate, frame.pts = 44100, start
            talk.mux(sound.encode(frame))
        for stream in talk.streams:
            talk.mux(stream.encode(None))
    assert save(tmp_path / f"out{suffix}", tmp_path / "talk.mkv") == note
    assert save(tmp_path / "out.avi", tmp_path / "talk.mkv") == ("without sound: a .mp4 keeps these" if codec else "")
    with av.open(str(tmp_path / f"out{suffix}")) as saved:
        assert len(saved.streams.audio) == bool(codec and not note)
        ends: dict[str, float] = {}
        for packet in saved.demux():
            if packet.pts is not None:
                ends[packet.stream.type] = float((packet.pts + (packet.duration or 0)) * packet.time_base)
    assert all(abs(seconds - COUNT / RATE) < 0.1 for seconds in ends.values()), ends  # the sound ends with the pictures
