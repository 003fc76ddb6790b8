"""Face detectors: what they find, where their boxes lie on the face, and which of their boxes hold no face."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from timeit import repeat

import cv2
import numpy as np
import torch
from photographs import (
    Photograph,
    labelled_sets,
    name_and_file,
    open_detector,
    photographs,
    place_of,
    require,
    without_detector,
)
from shown import rows_of

from extras.detector import metric
from extras.detector.find_faces import FLOOR, detected_at_scale, exported_detector, find_faces, torch_detector
from extras.detector.loaders import weights_of
from extras.detector.wider import read_wider
from pipnet.detector import FaceBox
from pipnet.geometry import box_of
from pipnet.landmarker import Landmarker

# ------------------------------------------------------------------------------------------------------------- detector
PARTIAL = ("1--people",)
SCALES = (1.0, 2.0)


def detector(*files: str) -> dict:
    """Return what FaceBoxesV2 with its published weights and further detectors, NAME=WEIGHTS, find in photographs of
    FACEBOXES.

    Its validation faces of at least 16 px count, with an IoU of one half. Events in PARTIAL have faces without a box,
    so only their recall is valid.
    """
    faceboxes, published = require("FACEBOXES", "FACEBOXES_V2")
    pictures = read_wider(faceboxes, "val", PARTIAL)
    events = sorted({picture.event for picture in pictures})
    frame = cv2.resize(pictures[0].read(), (640, 480))
    threads, rows = torch.get_num_threads(), []
    for name, file in {
        "published": published,
        **{name: Path(file) for name, file in map(name_and_file, files)},
    }.items():
        ours = file.suffix == ".onnx"
        detect = exported_detector(file, threads) if ours else torch_detector(weights_of(file), torch.device("cpu"))
        for scale in SCALES:
            found = find_faces(detect, pictures, scale)
            speed = round(
                1000 * median(repeat(partial(detected_at_scale, detect, frame, scale), number=1, repeat=30)), 2
            )
            for event in events:
                part = [index for index, picture in enumerate(pictures) if picture.event == event]
                scores = metric.score([found[index] for index in part], [pictures[index] for index in part])
                known = {figure: value for figure, value in scores._asdict().items() if np.isfinite(value)}
                rows.append({"detector": name, "scale": scale, "event": event, **known, "ms": speed})
    return {
        "threads": threads,
        "least_score": FLOOR,
        "rows": rows_of(
            rows,
            ("detector", "detector"),
            ("scale", "scale", "g"),
            ("event", "event"),
            ("faces", "faces"),
            ("AP", "ap", ".3f"),
            ("recall", "recall", ".3f"),
            ("masked", "covered", ".3f"),
            ("unmasked", "plain", ".3f"),
            ("ms, 640x480", "ms", ".1f"),
        ),
    }


# ----------------------------------------------------------------------------------------------------------- face_boxes
FITTED, TESTED = 400, 224  # photographs of each set
TITLES = {
    "faceboxes": "FaceBoxesV2, published weights",
    "rfb320": "RFB-320",
    "mtcnn": "MTCNN",
    "shipped": "weights/detector.onnx",
}


def detected(detector, records: list[Photograph]) -> list[np.ndarray | None]:
    """Return the detector's box of each labelled face, None if it missed the face."""
    found = []
    for record in records:
        boxes = detector(cv2.imread(str(record.file)))[0]
        place = place_of(record, boxes)
        found.append(None if place is None else boxes[place])
    return found


def moved(rng: np.random.Generator, box: np.ndarray) -> np.ndarray:
    """Return a box (4,) moved and resized by up to 20 % of its sides."""
    side = np.tile(box[2:] - box[:2], 2)
    return box + side * (np.tile(rng.uniform(-0.2, 0.2, 2), 2) + np.repeat([-1, 1], 2) * rng.uniform(-0.2, 0.2) / 2)


def fit(boxes: list[np.ndarray | None], records: list[Photograph]) -> FaceBox:
    """Return the map from the detector's boxes to those of the landmarks: medians over the faces that were found."""
    pairs = [(box, box_of(record.landmarks)) for box, record in zip(boxes, records, strict=True) if box is not None]
    boxes, truth = (np.array(part) for part in zip(*pairs, strict=True))
    sides, wanted = boxes[:, 2:] - boxes[:, :2], truth[:, 2:] - truth[:, :2]
    down = (truth[:, 1] + truth[:, 3] - boxes[:, 1] - boxes[:, 3]) / 2 / sides[:, 1]
    return FaceBox(*(round(float(np.median(values)), 3) for values in (down, *(wanted / sides).T)))


def nme(landmarkers: Sequence[Landmarker], records: list[Photograph], boxes: list[np.ndarray | None]) -> float:
    """Return the mean error in % of the interocular distance, over the faces that have a box.

    The first landmarker crops the box, each further one the landmarks that the one before has found.
    """
    errors, last = [], landmarkers[-1]
    for record, box in zip(records, boxes, strict=True):
        if box is not None:
            image = cv2.imread(str(record.file))
            for landmarker in landmarkers:
                landmarks = landmarker.landmarks_of(image, box[None])[0].landmarks
                box = last.box_of(landmarks)
            a, b = (record.landmarks[i] for i in last.layout.interocular)
            errors.append(np.linalg.norm(landmarks - record.landmarks, axis=1).mean() / np.linalg.norm(a - b))
    return round(100 * float(np.mean(errors)), 3)


def face_boxes(net: str, *files: str) -> dict:
    """Return the position of detectors' boxes on the face, and its effect on a net, NET.onnx.

    For each detector, NAME=WEIGHTS such as faceboxes=FaceBoxesV2.pth, the map from its box to the tight box of the
    landmarks is fitted on training photographs: medians of shift and sides, the rows of pipnet/detector.py. Then the
    net's error on test faces is measured in the boxes of the labels, in these moved and resized by up to 20 %, and in
    the detectors' boxes; each time from one crop, and from a second one around the landmarks that the net, or the
    shipped finder, finds in the first.
    """
    names, detectors = labelled_sets(), {name: open_detector(name, file) for name, file in map(name_and_file, files)}
    train, rng = [record for name in names for record in photographs(name, "train", FITTED)], np.random.default_rng(0)
    boxes = {name: detected(detector, train) for name, detector in detectors.items()}
    maps = {name: fit(found, train) for name, found in boxes.items()}
    rows: dict[str, dict] = {}
    for name in names:
        records = photographs(name, "test", TESTED)
        landmarker, finder = (without_detector(one, name) for one in (net, "finder"))
        truth = [box_of(record.landmarks) for record in records]
        kinds = {"labels": truth, "labels, moved 20 %": [moved(rng, box) for box in truth]}
        for kind, detector in detectors.items():
            kinds[kind] = [None if box is None else maps[kind](box) for box in detected(detector, records)]
        for kind, some in kinds.items():
            ways = {"one crop": [landmarker], "two": [landmarker, landmarker], "finder": [finder, landmarker]}
            rows.setdefault(kind, {"box": TITLES.get(kind, kind)}).update(
                {f"{name}, {way}": f"{nme(nets, records, some):.2f}" for way, nets in ways.items()}
            )
    return {
        "fitted_on": len(train),
        "found": {name: sum(box is not None for box in some) for name, some in boxes.items()},
        "maps": {name: fitted._asdict() for name, fitted in maps.items()},
        "rows": list(rows.values()),
    }
