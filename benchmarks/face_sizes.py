"""Faces that the shipped detector finds, by their size: `python benchmarks/face_sizes.py [--split test] [--faces 60]`.

Labelled photographs of FACES_300W and FACES68 are cut so that the face fills the frame, or shrunk until it is a few px wide.
"""
import argparse

import cv2
import numpy as np
from photographs import labelled_sets, photographs, place_of
from record import save

from pipnet.detector import Detector
from pipnet.geometry import box_of, grow

SCALES, FRAME, LEAST = (1.0, 2.0), 640, (240, 320)  # of the detector; px: longer side of a portrait, least picture
FILLED, WIDTHS = (1.0, 1.5, 2.5), (24, 20, 16, 12)  # frame / face box of a portrait; px, widths of a small face


def portrait(image: np.ndarray, landmarks: np.ndarray, times: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of a picture that is `times` as large as the face, FRAME px long, and the landmarks in it."""
    limit = np.tile(image.shape[1::-1], 2)
    box = grow(box_of(landmarks)[None], times)[0]
    box[1] -= (box[3] - box[1]) / 4  # the forehead
    x1, y1, x2, y2 = np.clip(box, 0, limit).astype(int).tolist()
    part = image[y1:y2, x1:x2]
    zoom = FRAME / max(part.shape[:2])
    return cv2.resize(part, None, fx=zoom, fy=zoom), (landmarks - (x1, y1)) * zoom


def shrunk(image: np.ndarray, landmarks: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture with a face `width` px wide, on grey if it is smaller than LEAST, and the landmarks in it."""
    zoom = width / np.ptp(landmarks[:, 0])
    small = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    below, right = np.maximum(np.subtract(LEAST, small.shape[:2]), 0).tolist()
    return cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_CONSTANT, value=(127, 127, 127)), landmarks * zoom


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--faces", type=int, default=60, help="of each set")
    given = parser.parse_args()
    cases = {f"frame {times:g} times the face's box": (portrait, times) for times in FILLED}
    cases |= {f"{width} px wide": (shrunk, width) for width in WIDTHS}
    detectors, rows = {scale: Detector(scale=scale, threads=1) for scale in SCALES}, []
    for name in labelled_sets():
        records = photographs(name, given.split, given.faces)
        for case, (change, size) in cases.items():
            found = dict.fromkeys(SCALES, 0)
            for record in records:
                image, landmarks = change(cv2.imread(str(record.file)), record.landmarks, size)
                for scale, detector in detectors.items():
                    boxes = detector.face_box(detector(image).boxes)
                    found[scale] += place_of(record._replace(landmarks=landmarks), boxes) is not None
            rows.append({"set": name, "case": case, "faces": len(records),
                         **{f"scale {scale:g}": round(100 * count / len(records), 1) for scale, count in found.items()}})
    save("face_sizes", f"python benchmarks/face_sizes.py --split {given.split} --faces {given.faces}", 0, {"rows": rows})


if __name__ == "__main__":
    main()
