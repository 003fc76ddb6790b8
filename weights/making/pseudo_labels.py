"""A dataset from photographs without labels, whose landmarks a net finds:
`python weights/making/make.py pseudo_labels PICTURES OUT [NET.onnx]`.

The net NET.onnx (default: the shipped one) finds the landmarks of the largest face in each photograph and in its mirror
image. A face is kept if both results agree. The net has learnt a shift to the right: the median, over all faces, of
half the distance between both results in x. The label of a face is the mean of both results, moved by this shift. The
shift is printed: it is the set's --label-shift. OUT becomes a dataset of pictures with .pts.
"""

import shutil
from pathlib import Path

import cv2
import numpy as np
from photographs import PLACES, open_detector, require
from record import ROOT

from extras.shared.pts import write_pts
from pipnet.face import Face
from pipnet.geometry import mirrored
from pipnet.images import read_image
from pipnet.landmarker import Landmarker

APART = 0.03  # of the side of the face's box: mean distance of both results above which a face is left out
SCORE = 0.36  # least mean landmark score
LEAST = 50  # px, least side of the face's box
PAD = 0.2  # of the longer side: border around each picture, because the detector expects some background


def largest(landmarker: Landmarker, image: np.ndarray) -> Face | None:
    """Return the largest face of an image, None without one."""
    return max(landmarker(image), key=lambda face: np.prod(face.box[2:] - face.box[:2]), default=None)


def label(landmarker: Landmarker, image: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Return the landmarks (N, 2) in px of the image and the shift to the right in px, None for a doubtful face."""
    pad = round(PAD * max(image.shape[:2]))
    image = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    face, twin = largest(landmarker, image), largest(landmarker, np.ascontiguousarray(image[:, ::-1]))
    if face is None or twin is None:
        return None
    other = mirrored(twin.landmarks, landmarker.layout.flip_index, image.shape[1])
    side = np.sqrt(np.prod(face.box[2:] - face.box[:2]))
    if (
        side < LEAST
        or face.scores.mean() < SCORE
        or np.linalg.norm(face.landmarks - other, axis=1).mean() > APART * side
    ):
        return None
    return (face.landmarks + other) / 2 - pad, float(np.mean(face.landmarks - other, 0)[0] / 2)


def main(pictures: str, out: str, net: str = "weights/landmarks.onnx") -> None:
    """Write the faces of `pictures` that both results agree on into OUT/train, and print the label shift."""
    require("FACEBOXES_V2")
    landmarker = Landmarker(ROOT / net, open_detector("faceboxes", PLACES["FACEBOXES_V2"]))
    files = sorted(file for file in Path(pictures).iterdir() if cv2.haveImageReader(str(file)))
    found = {file: known for file in files if (known := label(landmarker, read_image(file)))}
    shift = float(np.median([moved for _, moved in found.values()]))
    folder = Path(out, "train")
    folder.mkdir(parents=True)
    for file, (landmarks, _) in found.items():
        shutil.copy(file, folder / file.name)
        write_pts((folder / file.name).with_suffix(".pts"), landmarks + (shift - 0.5, -0.5))
    print(f"{out}: {len(found)} of {len(files)} pictures, --label-shift {shift:.2f}")
