"""Frames a second from a video file to drawn faces, and what the rest of the detector costs: `python benchmarks/demo.py`.

`python benchmarks/demo.py NET.onnx NAME=WEIGHTS` measures other nets than the shipped ones. The clips are rendered: heads of
640x480 px at 30 frames/s that turn, nod, come nearer and wander, and a bar that passes before them, 1, 5 and 20 to a picture.
"""
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from record import save

from pipnet.app.track import Tracker
from pipnet.detector import Detector
from pipnet.draw import draw, group_colours
from pipnet.geometry import box_of, iou, opencv_matrix, transform
from pipnet.landmarker import Landmarker
from utils.data.synthetic import face

WIDTH, HEIGHT, FRAMES, RATE = 640, 480, 100, 30
GRIDS = {1: (1, 1), 5: (3, 2), 20: (5, 4)}  # faces: columns, rows of the picture
POSES, SIDE = 50, 256                       # pictures of a head's turn there and back, their side in px
PEOPLE = (1, 18, 16, 2, 15)                 # of seed 0: without much in front of their faces
EVERY = (1, 15)


def turning(person: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pictures (SIDE, SIDE, 3) and landmarks (68, 2) of one person who turns from side to side."""
    sampled, images, landmarks = face.sample_pose, [], []
    for angle in np.sin(np.linspace(-np.pi / 2, np.pi / 2, POSES)):
        angles = np.array([0.6 * angle, 0.2 * np.cos(3 * angle), 0.15 * angle])  # radians: yaw, pitch, roll
        face.sample_pose = lambda rng, hard, angles=angles: sampled(rng, hard)._replace(angles=angles)
        drawn = face.draw(np.random.default_rng([0, person]), SIDE, False)
        images.append(drawn.image)
        landmarks.append(drawn.landmarks.astype(np.float64))
    face.sample_pose = sampled
    return images, landmarks


def clip(file: Path, count: int, heads: list) -> list[np.ndarray]:
    """Writes a video of `count` faces; returns their landmarks (count, 68, 2) in each frame."""
    columns, rows = GRIDS[count]
    wide, high = WIDTH / columns, HEIGHT / rows
    background = cv2.resize(np.random.default_rng(0).integers(60, 160, (6, 8, 3), dtype=np.uint8), (WIDTH, HEIGHT),
                            interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    mask = np.clip((0.5 - np.hypot(x, y)) * 10, 0, 1).astype(np.float32)
    writer, truth = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (WIDTH, HEIGHT)), []
    for i in range(FRAMES):
        frame, faces = background.astype(np.float32), []
        for j in range(count):
            images, landmarks = heads[j % len(heads)]
            phase = 2 * np.pi * i / FRAMES + j
            pose = (i + 7 * j) % (2 * POSES)
            pose = min(pose, 2 * POSES - 1 - pose)
            scale = min(wide, high) / SIDE * (0.85 + 0.15 * np.sin(2 * phase))
            middle = ((j % columns + 0.5) * wide + 0.08 * wide * np.sin(phase), (j // columns + 0.5) * high)
            matrix = np.array([(scale, 0, middle[0] - scale * SIDE / 2), (0, scale, middle[1] - scale * SIDE / 2)])
            there = opencv_matrix(matrix)
            cover = cv2.warpAffine(mask, there, (WIDTH, HEIGHT))[..., None]
            frame += (cv2.warpAffine(images[pose], there, (WIDTH, HEIGHT), flags=cv2.INTER_AREA) - frame) * cover
            faces.append(transform(landmarks[pose], matrix))
        bar = round(WIDTH * (2 * i / FRAMES - 0.5))  # a fifth of a face wide
        frame[:, max(bar, 0):max(bar + round(0.1 * wide), 0)] = (40, 60, 50)
        writer.write(frame.round().astype(np.uint8))
        truth.append(np.array(faces))
    writer.release()
    return truth


def measure(file: Path, truth: list[np.ndarray], landmarker: Landmarker, every: int | None) -> dict[str, float]:
    """Decodes, follows (every: the tracker's, None: no tracker, all faces detected anew) and draws; figures of the clip."""
    tracker = every and Tracker(landmarker, every)
    video, colours, seen = cv2.VideoCapture(str(file)), group_colours(landmarker.layout), []
    landmarker.seconds["detect"] = 0.0
    start, cpu = time.perf_counter(), time.process_time()
    for i in range(FRAMES):
        image = video.read()[1]
        faces = tracker.update(image, i / RATE) if tracker else landmarker(image)
        for found in faces:
            draw(image, found.landmarks, landmarker.layout, colours)
        seen.append([found.landmarks for found in faces])
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    errors, detecting = [], landmarker.seconds["detect"]
    for real, found in zip(truth, seen, strict=True):
        shared = iou(box_of(real), box_of(np.array(found)).reshape(-1, 4)) if found else np.zeros((len(real), 1))
        errors += [np.linalg.norm(found[j] - face, axis=1).mean() / np.linalg.norm(face[36] - face[45])
                   for face, j, best in zip(real, shared.argmax(1), shared.max(1), strict=True) if best > 0.3]
    return {"frames_per_second": round(FRAMES / seconds, 1), "cpu_ms_per_frame": round(1000 * cpu / FRAMES, 1),
            "detector_share": round(detecting / seconds, 2), "nme": round(100 * float(np.mean(errors)), 3),
            "found": round(len(errors) / sum(map(len, truth)), 4)}


def main(net: str | None = None, detector: str | None = None) -> None:
    """detector: NAME=WEIGHTS, a name in pipnet.detector."""
    name, _, weights = (detector or "").partition("=")
    landmarker = Landmarker(net, Detector(name, weights, scale=1.0) if weights else None)
    heads = [turning(person) for person in PEOPLE]
    figures: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in GRIDS:
            file = Path(folder, f"{count}.avi")
            truth = clip(file, count, heads)
            landmarker(cv2.VideoCapture(str(file)).read()[1])  # warm
            figures[str(count)] = {"detector alone" if every is None else f"K = {every}": measure(file, truth, landmarker, every)
                                   for every in (None, *EVERY)}
    command = " ".join(["python benchmarks/demo.py", *(Path(part).name for part in (net, detector) if part)])
    save("demo", command, 0, {"size": [WIDTH, HEIGHT], "frames": FRAMES, "faces": figures})


if __name__ == "__main__":
    main(*sys.argv[1:])
