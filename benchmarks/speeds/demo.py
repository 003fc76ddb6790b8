"""The demo: from a video file to drawn faces."""

import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from photographs import name_and_file, open_detector
from shown import rows_of

from extras.synthetic import render
from pipnet.draw import draw, group_colours
from pipnet.files import SHIPPED
from pipnet.geometry import box_of, iou, opencv_matrix, transform
from pipnet.landmarker import Landmarker
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


def clip(file: Path, count: int, heads: list) -> list[np.ndarray]:
    """Write a video of `count` faces. Return their landmarks (count, 68, 2) in each frame."""
    columns, rows = GRIDS[count]
    wide, high = WIDTH / columns, HEIGHT / rows
    background = cv2.resize(
        np.random.default_rng(0).integers(60, 160, (6, 8, 3), dtype=np.uint8),
        (WIDTH, HEIGHT),
        interpolation=cv2.INTER_CUBIC,
    )
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    mask = np.clip((0.5 - np.hypot(x, y)) * 10, 0, 1).astype(np.float32)
    writer, truth = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (WIDTH, HEIGHT)), []
    for i in range(FRAMES):
        frame, faces = background.astype(np.float32), []
        for j in range(count):
            phase, pose = 2 * np.pi * i / FRAMES + j, (i + 7 * j) % (2 * POSES)
            head = heads[j % len(heads)][min(pose, 2 * POSES - 1 - pose)]
            scale = min(wide, high) / SIDE * (0.85 + 0.15 * np.sin(2 * phase))
            middle = ((j % columns + 0.5) * wide + 0.08 * wide * np.sin(phase), (j // columns + 0.5) * high)
            matrix = np.array([(scale, 0, middle[0] - scale * SIDE / 2), (0, scale, middle[1] - scale * SIDE / 2)])
            there = opencv_matrix(matrix)
            cover = cv2.warpAffine(mask, there, (WIDTH, HEIGHT))[..., None]
            frame += (cv2.warpAffine(head.image, there, (WIDTH, HEIGHT), flags=cv2.INTER_AREA) - frame) * cover
            faces.append(transform(head.landmarks.astype(np.float64), matrix))
        bar = round(WIDTH * (2 * i / FRAMES - 0.5))  # a fifth of a face wide
        frame[:, max(bar, 0) : max(bar + round(0.1 * wide), 0)] = (40, 60, 50)
        writer.write(frame.round().astype(np.uint8))
        truth.append(np.array(faces))
    writer.release()
    return truth


def errors(truth: list[np.ndarray], found: list[list[np.ndarray]]) -> list[float]:
    """Return the error of each face that was found, as a share of its interocular distance, in all frames."""
    values = []
    for real, points in zip(truth, found, strict=True):
        shared = iou(box_of(real), box_of(np.array(points)).reshape(-1, 4)) if points else np.zeros((len(real), 1))
        values += [
            np.linalg.norm(points[j] - face, axis=1).mean() / np.linalg.norm(face[36] - face[45])
            for face, j, best in zip(real, shared.argmax(1), shared.max(1), strict=True)
            if best > 0.3
        ]
    return values


def measure(file: Path, truth: list[np.ndarray], landmarker: Landmarker, every: int | None) -> dict[str, float]:
    """Decode, track and draw a clip as demo.py does. Return its figures."""
    tracker = Tracker(landmarker, every) if every else None
    colours, found = group_colours(landmarker.layout), []
    landmarker.seconds["detect"] = 0.0
    start, cpu = time.perf_counter(), time.process_time()
    for frame in open_source(str(file)):
        faces = tracker.update(frame.image, frame.seconds) if tracker else landmarker(frame.image)
        for one in faces:
            draw(frame.image, one.landmarks, landmarker.layout, colours)
        found.append([one.landmarks for one in faces])
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    values = errors(truth, found)
    return {
        "frames_per_second": round(FRAMES / seconds, 1),
        "cpu_ms_per_frame": round(1000 * cpu / FRAMES, 1),
        "detector_share": round(landmarker.seconds["detect"] / seconds, 2),
        "nme": round(100 * float(np.mean(values)), 3),
        "found": round(len(values) / sum(map(len, truth)), 4),
    }


def demo(*nets: str, detector: str = "") -> dict:
    """Return the speed from a video file to drawn faces, with the detector on every frame or seldom.

    The clips are rendered, 640x480 px at 30 frames/s: 1, 5 or 20 heads turn, nod and move about while a bar passes in
    front of them. nets: as --exp of demo.py takes them; without any, the shipped ones. detector: NAME=WEIGHTS, without
    it the shipped one.
    """
    nets = nets or SHIPPED[:2]
    angles = np.sin(np.linspace(-np.pi / 2, np.pi / 2, POSES))
    heads = [[render(0, person, SIDE, **turning(angle)) for angle in angles] for person in PEOPLE]
    figures: dict[str, dict] = {net: {} for net in nets}
    with tempfile.TemporaryDirectory() as folder:
        for count in GRIDS:
            file = Path(folder, f"{count}.avi")
            truth = clip(file, count, heads)
            for net in nets:
                landmarker = Landmarker(net, open_detector(*name_and_file(detector), scale=1.0) if detector else None)
                landmarker(cv2.VideoCapture(str(file)).read()[1])  # warm-up
                figures[net][str(count)] = {
                    f"K = {every}" if every else "detector alone": measure(file, truth, landmarker, every)
                    for every in EVERY
                }
    rows = [
        {"net": f"`{net}`", "faces": count, "way": way, **row}
        for net, counts in figures.items()
        for count, ways in counts.items()
        for way, row in ways.items()
    ]
    return {
        "size": [WIDTH, HEIGHT],
        "frames": FRAMES,
        "rows": rows_of(
            rows,
            ("net", "net"),
            ("faces", "faces"),
            ("way", "way"),
            ("frames/s", "frames_per_second", ".1f"),
            ("CPU ms a frame", "cpu_ms_per_frame", ".0f"),
            ("detector's share", "detector_share", ".0%"),
            ("NME %", "nme", ".2f"),
            ("faces found", "found", ".1%"),
        ),
    }
