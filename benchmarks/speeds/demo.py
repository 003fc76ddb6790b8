"""The demo: from a video file to drawn faces."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import record  # noqa: F401, it adds the checkout to the path

from extras.synthetic import render
from pipnet.draw import draw, group_colours
from pipnet.geometry import opencv_matrix
from pipnet.landmarker import Landmarker
from pipnet.shipped import SHIPPED
from pipnet.video.sources import open_source
from pipnet.video.track import Tracker

WIDTH, HEIGHT, FRAMES, RATE = 640, 480, 100, 30
GRIDS = {1: (1, 1), 5: (3, 2), 20: (5, 4)}  # {faces: (columns, rows) of the picture}
POSES, SIDE = 50, 256  # pictures of a head that turns from side to side; their side in px
PEOPLE = (1, 18, 16, 2, 15)  # with little in front of their faces
EVERY = (None, 1, 15)  # frames from one detection to the next; None: no tracker


def turning(angle: float) -> dict:
    """Return the pose of a head that turns from side to side, angle from -1 to 1."""
    return {"angles": np.array([0.6 * angle, 0.2 * np.cos(3 * angle), 0.15 * angle])}  # radians: yaw, pitch, roll


def clip(file: Path, count: int, heads: list[list[np.ndarray]]) -> None:
    """Write a video of `count` faces. heads: pictures (SIDE, SIDE, 3) of each person, who turns from side to side."""
    columns, rows = GRIDS[count]
    wide, high = WIDTH / columns, HEIGHT / rows
    background = cv2.resize(
        np.random.default_rng(0).integers(60, 160, (6, 8, 3), dtype=np.uint8),
        (WIDTH, HEIGHT),
        interpolation=cv2.INTER_CUBIC,
    )
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    mask = np.clip((0.5 - np.hypot(x, y)) * 10, 0, 1).astype(np.float32)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (WIDTH, HEIGHT))
    for i in range(FRAMES):
        frame = background.astype(np.float32)
        for j in range(count):
            phase, pose = 2 * np.pi * i / FRAMES + j, (i + 7 * j) % (2 * POSES)
            head = heads[j % len(heads)][min(pose, 2 * POSES - 1 - pose)]
            scale = min(wide, high) / SIDE * (0.85 + 0.15 * np.sin(2 * phase))
            middle = ((j % columns + 0.5) * wide + 0.08 * wide * np.sin(phase), (j // columns + 0.5) * high)
            matrix = np.array([(scale, 0, middle[0] - scale * SIDE / 2), (0, scale, middle[1] - scale * SIDE / 2)])
            there = opencv_matrix(matrix)
            cover = cv2.warpAffine(mask, there, (WIDTH, HEIGHT))[..., None]
            frame += (cv2.warpAffine(head, there, (WIDTH, HEIGHT), flags=cv2.INTER_AREA) - frame) * cover
        bar = round(WIDTH * (2 * i / FRAMES - 0.5))  # a fifth of a face wide
        frame[:, max(bar, 0) : max(bar + round(0.1 * wide), 0)] = (40, 60, 50)
        writer.write(frame.round().astype(np.uint8))
    writer.release()


def measure(file: Path, landmarker: Landmarker, every: int | None) -> str:
    """Decode, track and draw a clip as demo.py does. Return frames/s and ms of CPU a frame."""
    tracker, colours = Tracker(landmarker, every) if every else None, group_colours(landmarker.layout)
    start, cpu = time.perf_counter(), time.process_time()
    for frame in open_source(str(file)):
        faces = tracker.update(frame.image, frame.seconds) if tracker else landmarker(frame.image)
        for one in faces:
            draw(frame.image, one.landmarks, landmarker.layout, colours)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return f"{FRAMES / seconds:.1f} / {1000 * cpu / FRAMES:.0f}"


def demo(*nets: str) -> Iterator[dict]:
    """Yield the speed from a video file to drawn faces, with the detector on every frame or seldom.

    The clips are rendered, 640x480 px at 30 frames/s: 1, 5 or 20 heads turn, nod and move about while a bar passes in
    front of them. nets: as --exp of demo.py takes them; without any, the shipped ones.
    """
    angles = np.sin(np.linspace(-np.pi / 2, np.pi / 2, POSES))
    heads = [[render(0, person, SIDE, **turning(angle)).image for angle in angles] for person in PEOPLE]
    for net in nets or SHIPPED[:2]:
        for count in GRIDS:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, f"{count}.avi")
                clip(file, count, heads)
                landmarker = Landmarker(net)
                landmarker(cv2.VideoCapture(str(file)).read()[1])  # warm-up
                ways = {f"K = {every}" if every else "detector alone": every for every in EVERY}
                figures = {way: measure(file, landmarker, every) for way, every in ways.items()}
                yield {"video": f"`{net}`, {count} face{'s' * (count > 1)}", **figures}
