"""Where detectors' boxes have the face, and what that costs: `python benchmarks/face_boxes.py NET.onnx [NAME=WEIGHTS ...]`.

FACES_300W and FACES68 name photographs with labels. For each detector (`faceboxes=FaceBoxesV2.pth`, `shipped=detector.onnx`)
the map from its box to the tight box of the landmarks is fitted on training photographs: medians of shift and sides, the
rows of pipnet/detector.py. Then NET's error on test faces, whose box is the labels', the detector's, or the labels' moved and
scaled by up to 20 %; each in one pass and refined.
"""
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from record import save

from pipnet.detector import Detector, FaceBox
from pipnet.geometry import box_of, iou
from pipnet.landmarker import Landmarker
from utils.data.parsers import DATASETS, Record

SETS = {"300W": ("300w", os.environ.get("FACES_300W")), "FACES68": ("points", os.environ.get("FACES68"))}
FITTED, TESTED = 400, 224  # photographs of each set
LEAST = 0.3                # IoU by which a detection is the labelled face


def photographs(name: str, split: str, most: int) -> list[Record]:
    """Some labelled faces of a set, evenly spread over it."""
    kind, folder = SETS[name]
    records = DATASETS[kind].parse(Path(folder), True, 68, DATASETS[kind].origin)[split]
    return [records[i] for i in np.unique(np.linspace(0, len(records) - 1, most).round().astype(int))]


def place_of(record: Record, boxes: np.ndarray) -> int | None:
    """Which of the boxes (M, 4) lies on the labelled face, None where none does."""
    near = iou(box_of(record.landmarks)[None], boxes)[0] if len(boxes) else np.zeros(1)
    return int(near.argmax()) if near.max() > LEAST else None


def detected(detector, records: list[Record]) -> list[np.ndarray | None]:
    """The detector's box of each labelled face, None where it missed it."""
    found = []
    for record in records:
        boxes = detector(cv2.imread(str(record.file)))[0]
        place = place_of(record, boxes)
        found.append(None if place is None else boxes[place])
    return found


def fit(boxes: list[np.ndarray | None], records: list[Record]) -> FaceBox:
    """Medians over the faces found."""
    pairs = [(box, box_of(record.landmarks)) for box, record in zip(boxes, records, strict=True) if box is not None]
    boxes, truth = (np.array(part) for part in zip(*pairs, strict=True))
    sides, wanted = boxes[:, 2:] - boxes[:, :2], truth[:, 2:] - truth[:, :2]
    down = ((truth[:, 1] + truth[:, 3] - boxes[:, 1] - boxes[:, 3]) / 2 / sides[:, 1])
    return FaceBox(*(round(float(np.median(values)), 3) for values in (down, *(wanted / sides).T)))


def nme(landmarker: Landmarker, records: list[Record], boxes: list[np.ndarray | None], refine: bool) -> float:
    """Mean error in % of the distance of the outer corners of the eyes, over the faces that have a box."""
    errors = []
    for record, box in zip(records, boxes, strict=True):
        if box is not None:
            image = cv2.imread(str(record.file))
            landmarks = landmarker.landmarks_of(image, box[None])[0].landmarks
            if refine:
                landmarks = landmarker.landmarks_of(image, landmarker.box_of(landmarks)[None])[0].landmarks
            a, b = (record.landmarks[i] for i in landmarker.layout.interocular)
            errors.append(np.linalg.norm(landmarks - record.landmarks, axis=1).mean() / np.linalg.norm(a - b))
    return round(100 * float(np.mean(errors)), 3)


def main(net: str, *detectors: str) -> None:
    landmarker = Landmarker(net, detector=lambda image: (np.zeros((0, 4)), np.zeros(0)))
    names = [name for name, (_, folder) in SETS.items() if folder]
    named = {one.split("=")[0]: one.split("=")[1] for one in detectors}
    loaded = {name: Detector("faceboxes" if name == "shipped" else name, file) for name, file in named.items()}
    train, rng = [record for name in names for record in photographs(name, "train", FITTED)], np.random.default_rng(0)
    maps, found = {}, {}
    for name, detector in loaded.items():
        boxes = detected(detector, train)
        maps[name] = fit(boxes, train)
        found[name] = sum(box is not None for box in boxes)
    rows = []
    for name in names:
        records = photographs(name, "test", TESTED)
        truth = [box_of(record.landmarks) for record in records]
        sides = [np.tile(box[2:] - box[:2], 2) for box in truth]
        kinds = {"labels": truth, "labels, moved 20 %": [
            box + side * (np.tile(rng.uniform(-0.2, 0.2, 2), 2) + np.repeat([-1, 1], 2) * rng.uniform(-0.2, 0.2) / 2)
            for box, side in zip(truth, sides, strict=True)]}
        for detector, function in loaded.items():
            kinds[detector] = [box if box is None else maps[detector](box) for box in detected(function, records)]
        for kind, boxes in kinds.items():
            rows.append({"set": name, "box": kind, "faces": sum(box is not None for box in boxes),
                         **{f"{'refined' if refine else 'one_pass'}_nme": nme(landmarker, records, boxes, refine)
                            for refine in (False, True)}})
    command = " ".join(["python benchmarks/face_boxes.py", Path(net).name, *(f"{k}={Path(v).name}" for k, v in named.items())])
    save("face_boxes", command, 0, {"fitted_on": len(train), "found": found, "maps": {k: v._asdict() for k, v in maps.items()},
                                    "rows": rows})


if __name__ == "__main__":
    main(*sys.argv[1:])
