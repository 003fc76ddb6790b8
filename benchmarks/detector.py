"""Face detectors on the validation photographs of FACEBOXES: ours and the published FaceBoxesV2, measured in one run.

`python benchmarks/detector.py ours=weights/detector.onnx [NAME=FILE ...]`; photographs.py says where the data comes from. Faces
of at least 16 px count, with an IoU of one half. Events in PARTIAL have faces without a box, so only their recall is valid.
"""
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from photographs import PLACES, name_and_file, require
from record import save
from shown import rows_of

from utils.detect import metric
from utils.detect.find_faces import FLOOR, Detect, detected_at_scale, exported_detector, find_faces, torch_detector
from utils.detect.wider import Picture, read_wider
from utils.evaluate.detectors import weights_of

PARTIAL = ("1--people",)
SCALES = (1.0, 2.0)
SURE = 0.5  # score from which a demo draws a box


def detector(file: Path, threads: int) -> Detect:
    """Return the detector of a checkpoint or of an exported file."""
    return exported_detector(file, threads) if file.suffix == ".onnx" else torch_detector(weights_of(file), torch.device("cpu"))


def milliseconds(detect: Detect, image: np.ndarray, scale: float, rounds: int = 30) -> float:
    """Return the median time of one frame, with resizing."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        detected_at_scale(detect, image, scale)
        times.append(1000 * (time.perf_counter() - start))
    return round(sorted(times)[rounds // 2], 2)


def figures(found: list, pictures: list[Picture]) -> dict:
    """Return AP and recall, also of masked and of unmasked faces; recall and precision of boxes above SURE."""
    scores = metric.score(found, pictures)
    sure = [(boxes[values > SURE], values[values > SURE]) for boxes, values in found]
    matches = np.concatenate([metric.matched(boxes, picture)[0] for (boxes, _), picture in zip(sure, pictures, strict=True)])
    precision = (matches >= 0).sum() / max((matches != -2).sum(), 1) if all(picture.whole for picture in pictures) else None
    values = {"AP": scores.ap, "recall": scores.recall, "recall, masked": scores.covered,
              "recall, unmasked": scores.plain, "AP, sure boxes": metric.score(sure, pictures).ap,
              "recall, sure boxes": metric.score(sure, pictures).recall, "precision, sure boxes": precision}
    rounded = {name: None if value is None or np.isnan(value) else round(float(value), 4) for name, value in values.items()}
    return {"faces": scores.faces, **rounded}


def main(files: dict[str, str]) -> None:
    """Measure the published detector and others. files: {name: weights}."""
    pictures = read_wider(PLACES["FACEBOXES"], "val", PARTIAL)
    events = sorted({picture.event for picture in pictures})
    frame = cv2.resize(pictures[0].read(), (640, 480))
    threads, rows = torch.get_num_threads(), []
    for name, file in {"published": PLACES["FACEBOXES_V2"], **files}.items():
        detect = detector(Path(file), threads)
        for scale in SCALES:
            found = find_faces(detect, pictures, scale)
            speed = milliseconds(detect, frame, scale)
            for event in events:
                part = [index for index, picture in enumerate(pictures) if picture.event == event]
                values = figures([found[index] for index in part], [pictures[index] for index in part])
                rows.append({"detector": name, "scale": scale, "event": event, **values, "ms": speed})
    typed = " ".join(f"{name}={file}" for name, file in files.items())
    save("detector", f"python benchmarks/detector.py {typed}", 0, {
        "threads": threads, "least_score": FLOOR, "rows": rows_of(
            rows, ("detector", "detector"), ("scale", "scale", "g"), ("event", "event"), ("faces", "faces"), ("AP", "AP", ".3f"),
            ("recall", "recall", ".3f"), ("masked", "recall, masked", ".3f"), ("unmasked", "recall, unmasked", ".3f"),
            ("ms, 640x480", "ms", ".1f"))})


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/detector.py NAME=FILE ... (.pt or .onnx)")
    require("FACEBOXES", "FACEBOXES_V2")
    main(dict(name_and_file(text) for text in sys.argv[1:]))
