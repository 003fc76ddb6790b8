"""Face detectors on the validation photographs of a WIDER folder: ours against the published FaceBoxesV2, in one run.

`python benchmarks/detector.py ours=weights/detector/best.pt [NAME=FILE ...]`. The folder is that named by FACEBOXES, the
published weights are the file named by FACEBOXES_V2; without them the benchmark is skipped, saying so. Faces of at least 16 px,
IoU of one half; in events whose photographs show faces without a box (PARTIAL) only recall means something.
"""
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from record import ROOT, save

from utils.data.wider import Picture, read_wider
from utils.test import detection_metric as metric
from utils.test.detectors import weights_of
from utils.test.find_faces import FLOOR, Detect, find, onnx_detector, resized, torch_detector

FOLDER = ROOT / os.environ.get("FACEBOXES", "../shared/faceboxes")
PUBLISHED = ROOT / os.environ.get("FACEBOXES_V2", "../shared/reference/FaceBoxesV2.pth")
PARTIAL = ("1--people",)
SCALES = (1.0, 2.0)
SURE = 0.5  # the score above which a box is drawn in a demo; recall and precision at it


def detector(file: Path, threads: int) -> Detect:
    """Of weights or an exported file."""
    return onnx_detector(file, threads) if file.suffix == ".onnx" else torch_detector(weights_of(file), torch.device("cpu"))


def milliseconds(detect: Detect, image: np.ndarray, scale: float, rounds: int = 30) -> float:
    """Median time of one frame, resizing included."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        resized(detect, image, scale)
        times.append(1000 * (time.perf_counter() - start))
    return round(sorted(times)[rounds // 2], 2)


def figures(found: list, pictures: list[Picture]) -> dict:
    """AP and recall, masked and unmasked faces apart; recall and precision of sure boxes."""
    scores = metric.score(found, pictures)
    sure = [(boxes[values > SURE], values[values > SURE]) for boxes, values in found]
    matches = np.concatenate([metric.matched(boxes, picture)[0] for (boxes, _), picture in zip(sure, pictures, strict=True)])
    precision = (matches >= 0).sum() / max((matches != -2).sum(), 1) if all(picture.whole for picture in pictures) else None
    values = {"AP": scores.ap, "recall": scores.recall, "recall, masked": scores.covered,
              "recall, unmasked": scores.plain, "AP, sure boxes": metric.score(sure, pictures).ap,
              "recall, sure boxes": metric.score(sure, pictures).recall, "precision, sure boxes": precision}
    rounded = {name: None if value is None or np.isnan(value) else round(float(value), 4) for name, value in values.items()}
    return {"faces": scores.faces, **rounded}


def main(named: dict[str, Path]) -> None:
    pictures = read_wider(FOLDER, "val", PARTIAL)
    events = sorted({picture.event for picture in pictures})
    frame = cv2.resize(pictures[0].read(), (640, 480))
    threads, rows = torch.get_num_threads(), []
    for name, file in named.items():
        detect = detector(file, threads)
        for scale in SCALES:
            found = find(detect, pictures, scale)
            speed = milliseconds(detect, frame, scale)
            for event in events:
                part = [index for index, picture in enumerate(pictures) if picture.event == event]
                values = figures([found[index] for index in part], [pictures[index] for index in part])
                rows.append({"detector": name, "scale": scale, "event": event, **values, "ms": speed})
    files = " ".join(f"{name}={file}" for name, file in named.items() if name != "published")
    save("detector", f"python benchmarks/detector.py {files}", 0, {"threads": threads, "least_score": FLOOR, "rows": rows})


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    if not given or len(given) < len(sys.argv) - 1:
        sys.exit("usage: python benchmarks/detector.py NAME=FILE ... (.pt or .onnx)")
    missing = next((path for path in (FOLDER, PUBLISHED, *map(Path, given.values())) if not path.exists()), None)
    if missing:
        print(f"skipped: no {missing}")
    else:
        main({"published": PUBLISHED, **{name: Path(file) for name, file in given.items()}})
