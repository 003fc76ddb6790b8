"""Saved videos: codecs that browsers play, and the sound of their source."""
import sys
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipnet.app.sinks import VideoSink
from pipnet.app.sources import Frame

COUNT, RATE = 30, 20


def save(file: Path, sound: Path | None = None) -> str:
    """Write a video of pictures with odd sides; return what the sink says of its sound."""
    with closing(VideoSink(file, RATE, sound=sound)) as sink:
        for index in range(COUNT):
            image = np.full((81, 121, 3), 8 * index, np.uint8)
            sink.write(Frame(image, index, index / RATE, file.name), image)
    capture = cv2.VideoCapture(str(file))
    assert capture.get(cv2.CAP_PROP_FRAME_WIDTH) == 120 and capture.get(cv2.CAP_PROP_FRAME_HEIGHT) == 80
    return sink.note


@pytest.mark.parametrize(("name", "codec"), [("out.mp4", b"VP90"), ("out.webm", b"VP80")])
def test_opencv_writes_what_browsers_play(name, codec, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)  # not installed
    assert save(tmp_path / name, tmp_path / "talk.mp4") == "without sound: pip install av copies it and writes H.264"
    assert int(cv2.VideoCapture(str(tmp_path / name)).get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little") == codec


@pytest.mark.parametrize(("codec", "samples", "note"), [
    ("aac", "fltp", ""), ("pcm_s16le", "s16", "without sound: only aac, mp3, opus, flac, ac3 are copied, not pcm_s16le"),
    (None, None, "")])
def test_pyav_copies_the_sound(codec, samples, note, tmp_path):
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
    assert save(tmp_path / "out.mp4", tmp_path / "talk.mkv") == note
    with av.open(str(tmp_path / "out.mp4")) as saved:
        found = {stream.codec_context.name: float(stream.duration * stream.time_base) for stream in saved.streams}
    assert found.keys() == ({"h264", "aac"} if codec == "aac" else {"h264"})
    assert all(abs(seconds - COUNT / RATE) < 0.1 for seconds in found.values()), found  # the sound ends with the pictures
