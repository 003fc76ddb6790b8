"""How well the mean landmark score tells faces from background: `python benchmarks/face_score.py NET.onnx NAME=WEIGHTS`.

Faces: labelled ones of 300W, in their true boxes and in boxes moved by up to 15 %. Background: boxes of the same photographs that
touch neither the labelled face nor a detection of NAME (photographs.py opens it). `limit` is the score that 99 of 100 background
boxes stay below; ship.py stores it in the project's net as `face_limit`.
"""
import sys
from pathlib import Path

import cv2
import numpy as np
from photographs import name_and_file, open_detector, photographs, require
from record import save

from pipnet.app.track import LEAST_SCORE, face_score
from pipnet.geometry import box_of, grow, iou
from pipnet.landmarker import Landmarker

PICTURES, TRIES, EACH = 300, 60, 2


def backgrounds(rng: np.random.Generator, box: np.ndarray, taken: np.ndarray, shape: tuple) -> list[np.ndarray]:
    """Return up to EACH boxes of about the face's size or less that touch no box of `taken`."""
    found: list[np.ndarray] = []
    for _ in range(TRIES):
        side = (box[2:] - box[:2]).max() * np.exp(rng.uniform(-1.6, 0.2))
        corner = rng.uniform(0, 1, 2) * (np.array(shape[1::-1]) - side)
        free = np.concatenate([corner, corner + side])
        if corner.min() >= 0 and not iou(grow(free[None], 1.1), taken).any() and len(found) < EACH:
            found.append(free)
    return found


def measure(net: Path | str, detector: str, weights: str | Path) -> dict:
    """Return the figures of a net. detector, weights: what tells background from faces without a label."""
    rng, landmarker = np.random.default_rng(0), Landmarker(net, open_detector(detector, weights, threshold=0.2, scale=1.0))
    crops: dict[str, list] = {"faces": [], "moved": [], "backgrounds": []}
    for record in photographs("300W", "train", PICTURES):
        image, box = cv2.imread(str(record.file)), box_of(record.landmarks)
        side = (box[2:] - box[:2]).max()
        boxes = {"faces": [box], "moved": [box + np.tile(rng.uniform(-0.15, 0.15, 2), 2) * side],
                 "backgrounds": backgrounds(rng, box, np.concatenate([box[None], landmarker.detector(image)[0]]), image.shape)}
        for kind, some in boxes.items():
            if some:
                crops[kind] += landmarker.landmarks_of(image, np.array(some))
    means = {kind: np.array([face.scores.mean() for face in faces]) for kind, faces in crops.items()}
    every = np.concatenate([means["faces"], means["moved"]])
    limit = round(float(np.percentile(means["backgrounds"], 99)), 3)
    right = {kind: [(face_score(face, limit) >= LEAST_SCORE) == (kind != "backgrounds") for face in faces]
             for kind, faces in crops.items()}
    return {"crops": {kind: len(values) for kind, values in means.items()},
            "mean_score": {kind: {f"{at} %": round(float(np.percentile(values, at)), 3) for at in (1, 5, 50, 95, 99)}
                           for kind, values in means.items()},
            "limit": limit, "auc": round(float((every[:, None] > means["backgrounds"]).mean()), 5),
            "told_right": {kind: round(float(np.mean(answers)), 4) for kind, answers in right.items()}}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/face_score.py NET.onnx NAME=WEIGHTS")
    require("300W")
    net, (name, weights) = sys.argv[1], name_and_file(sys.argv[2])
    save("face_score", f"python benchmarks/face_score.py {Path(net).name} {name}={Path(weights).name}", 0,
         measure(net, name, weights))
