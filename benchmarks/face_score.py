"""How well a crop's landmark scores tell faces from backgrounds: `python benchmarks/face_score.py NET.onnx NAME=WEIGHTS`.

FACES_300W names photographs. Faces: the labelled ones, their boxes true and moved by up to 15 %. Backgrounds: boxes of those
pictures that touch neither the face nor anything that the detector NAME of utils.detection takes for one. `limit` is the score
that 99 of 100 backgrounds stay below; ship.py writes it into the net that comes with the project, as `face_limit`.
"""
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from record import save

from pipnet.app.track import LEAST_SCORE, face_score
from pipnet.detector import Detector
from pipnet.geometry import box_of, grow, iou
from pipnet.landmarker import Landmarker
from utils.data.parsers import DATASETS

PICTURES, TRIES, EACH = 300, 60, 2


def backgrounds(rng: np.random.Generator, box: np.ndarray, taken: np.ndarray, shape: tuple) -> list[np.ndarray]:
    """Up to EACH boxes of about the face's size or less, away from those taken."""
    found: list[np.ndarray] = []
    for _ in range(TRIES):
        side = (box[2:] - box[:2]).max() * np.exp(rng.uniform(-1.6, 0.2))
        corner = rng.uniform(0, 1, 2) * (np.array(shape[1::-1]) - side)
        free = np.concatenate([corner, corner + side])
        if corner.min() >= 0 and not iou(grow(free[None], 1.1), taken).any() and len(found) < EACH:
            found.append(free)
    return found


def measure(net: Path | str, detector: Detector) -> dict:
    """The figures of a net, at the limit that is found."""
    rng, landmarker = np.random.default_rng(0), Landmarker(net, detector)
    records = DATASETS["300w"].parse(Path(os.environ["FACES_300W"]), True, 68, DATASETS["300w"].origin)["train"]
    crops: dict[str, list] = {"faces": [], "moved": [], "backgrounds": []}
    for i in np.linspace(0, len(records) - 1, PICTURES).round().astype(int):
        image, box = cv2.imread(str(records[i].file)), box_of(records[i].landmarks)
        side = (box[2:] - box[:2]).max()
        boxes = {"faces": [box], "moved": [box + np.tile(rng.uniform(-0.15, 0.15, 2), 2) * side],
                 "backgrounds": backgrounds(rng, box, np.concatenate([box[None], landmarker.detector(image)[0]]), image.shape)}
        for kind, some in boxes.items():
            crops[kind] += landmarker.landmarks_of(image, np.array(some)) if some else []
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


def main(net: str, detector: str) -> None:
    """detector: NAME=WEIGHTS."""
    name, _, weights = detector.partition("=")
    save("face_score", f"python benchmarks/face_score.py {Path(net).name} {name}={Path(weights).name}", 0,
         measure(net, Detector(name, weights, threshold=0.2, scale=1.0)))


if __name__ == "__main__":
    if "FACES_300W" not in os.environ:
        sys.exit("skipped: FACES_300W names no photographs")
    main(*sys.argv[1:])
