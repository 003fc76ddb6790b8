"""Whether frames of a video improve each other's pseudo-labels: `python benchmarks/flow.py NET VIDEO ...`.

A net finds the landmarks of one face in each frame and in its mirror image. Optical flow carries the landmarks of the frames
nearby to this frame, and the mean of all replaces those of the frame alone. The shipped net in 32 bits stands for the truth,
without the mean offset of each landmark between both nets. Errors are in % of the distance of the outer corners of the eyes.
"""
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from record import ROOT, save

from pipnet.geometry import box_of, mirrored
from pipnet.landmarker import Landmarker

FRAMES, EVERY = 300, 3  # first frames of each video; every how many of them is measured
REACH = (1, 3, 6)       # frames on both sides
WINDOW = (15, 15)       # px, of Lucas-Kanade
FAR = 0.1               # of the distance of the eyes: a carried landmark that lies farther from the frame's own is left out


def frames(file: str) -> list[np.ndarray]:
    """Return the first FRAMES frames of a video, BGR."""
    video = cv2.VideoCapture(file)
    found = [image for _, image in islice(iter(video.read, (False, None)), FRAMES)]
    return found or sys.exit(f"{file}: no frame can be read; name a video")


def seen(landmarker: Landmarker, image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the mean (N, 2) of the landmarks in a box of the image and in its mirror image, in px."""
    width = image.shape[1]
    face, = landmarker.landmarks_of(image, box[None])
    there = box_of(mirrored(box.reshape(2, 2), (0, 1), width))
    twin, = landmarker.landmarks_of(np.ascontiguousarray(image[:, ::-1]), there[None])
    return (face.landmarks + mirrored(twin.landmarks, landmarker.layout.flip_index, width)) / 2


def carried(grey: list[np.ndarray], points: np.ndarray, start: int, end: int) -> np.ndarray:
    """Return points (N, 2) of frame `start` in frame `end`, NaN where the flow is lost."""
    step = 1 if end > start else -1
    points = points.astype(np.float32)
    for index in range(start, end, step):
        points, kept, _ = cv2.calcOpticalFlowPyrLK(grey[index], grey[index + step], points, None, winSize=WINDOW)
        points[kept[:, 0] == 0] = np.nan
    return points


def measure(net: Landmarker, truth: Landmarker, images: list[np.ndarray]) -> dict:
    """Return the errors of the landmarks of each frame alone, and by REACH of the mean with those of its neighbors."""
    grey = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in images]
    found, true = [], []
    box = max((box_of(face.landmarks) for face in truth(images[0])), key=lambda box: box[2] - box[0])
    for image in images:
        box = box_of(seen(truth, image, box))
        true.append(seen(truth, image, box))
        found.append(seen(net, image, box))
    alone, true = np.array(found), np.array(true)
    eyes = np.linalg.norm(true[:, 45] - true[:, 36], axis=1)
    rows = np.arange(max(REACH), len(images) - max(REACH), EVERY)

    def error(points: np.ndarray) -> float:
        offsets = (points - true[rows]) / eyes[rows, None, None]
        return round(100 * float(np.linalg.norm(offsets - offsets.mean(0), axis=2).mean()), 3)

    def mean(row: int, reach: int) -> np.ndarray:
        several = np.stack([carried(grey, alone[other], other, row) for other in range(row - reach, row + reach + 1)])
        far = ~(np.linalg.norm(several - alone[row], axis=2) <= FAR * eyes[row])
        return np.where(far[..., None], alone[row], several).mean(0)

    return {"frames": len(rows), "alone": error(alone[rows]),
            "with_neighbors": {reach: error(np.array([mean(row, reach) for row in rows])) for reach in REACH}}


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python benchmarks/flow.py NET VIDEO ...")
    net, truth = (Landmarker(file, threads=1) for file in (sys.argv[1], ROOT / "weights/landmarks.onnx"))
    save("flow", f"python benchmarks/flow.py {' '.join(Path(word).name for word in sys.argv[1:])}", 0,
         {"videos": {Path(file).stem: measure(net, truth, frames(file)) for file in sys.argv[2:]}})
