"""Face detectors: where their boxes lie on the face."""

from collections.abc import Sequence

import numpy as np
from measures.kinds import nme
from photographs import (
    LABELLED,
    Photograph,
    name_and_file,
    open_detector,
    photographs,
    place_of,
    there,
    without_detector,
)

from pipnet.detections import FaceBox
from pipnet.geometry import box_of
from pipnet.images import read_image
from pipnet.landmarker import Landmarker

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
        boxes = detector(read_image(record.file))[0]
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


def mean_error(landmarkers: Sequence[Landmarker], records: list[Photograph], boxes: list[np.ndarray | None]) -> float:
    """Return the mean NME in %, over the faces that have a box.

    The first landmarker crops the box, each further one the landmarks that the one before has found.
    """
    errors = []
    for record, box in zip(records, boxes, strict=True):
        if box is not None:
            image = read_image(record.file)
            for landmarker in landmarkers:
                landmarks = landmarker.landmarks_of(image, box[None])[0].landmarks
                box = landmarkers[-1].box_of(landmarks)
            errors.append(nme(landmarks, record.landmarks))
    return float(np.mean(errors))


def face_boxes(net: str, *files: str) -> dict:
    """Return the position of detectors' boxes on the face, and its effect on a net, NET.onnx.

    For each detector, NAME=WEIGHTS such as faceboxes=FaceBoxesV2.pth, the map from its box to the tight box of the
    landmarks is fitted on training photographs: medians of shift and sides, the rows of pipnet/detector.py. Then the
    net's error on test faces is measured in the boxes of the labels, in these moved and resized by up to 20 %, and in
    the detectors' boxes; each time from one crop, and from a second one around the landmarks that the net, or the
    shipped finder, finds in the first.
    """
    names, detectors = there(*LABELLED), {name: open_detector(name, file) for name, file in map(name_and_file, files)}
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
                {f"{name}, {way}": f"{mean_error(nets, records, some):.2f}" for way, nets in ways.items()}
            )
    return {
        "fitted_on": len(train),
        "found": {name: sum(box is not None for box in some) for name, some in boxes.items()},
        "maps": {name: fitted._asdict() for name, fitted in maps.items()},
        "rows": list(rows.values()),
    }
