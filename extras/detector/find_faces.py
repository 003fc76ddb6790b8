"""Detectors on the photographs of a set, for average precision and for a teacher's boxes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from extras.detector.faceboxes import FaceBoxesV2
from extras.detector.loaders import faceboxes_finder
from extras.detector.wider import Picture
from pipnet.detections import Find
from pipnet.detector import load_exported
from pipnet.geometry import iou, turn_picture, turned_boxes, turned_frame
from utils.train.ranks import Ranks

FLOOR = 0.05  # least score that counts in an average precision
SUPPRESS = 0.3  # IoU from which the lower-scored box is dropped
KNOWN = 0.3  # IoU from which a teacher's box is taken for a face that has a label already
# image (H, W, 3) uint8 BGR -> boxes (M, 4) in its px and scores (M,), best first
Detect = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
Found = list[tuple[np.ndarray, np.ndarray]]


def torch_detector(net: FaceBoxesV2, device: torch.device, threshold: float = FLOOR) -> Detect:
    """Return a function that finds a net's detections with scores above `threshold`."""
    return _above(faceboxes_finder(net, device), threshold)


def exported_detector(file: Path, threads: int = 0, threshold: float = FLOOR) -> Detect:
    """Return a function that finds an exported file's detections with scores above `threshold`.
    UserError for a bad file.
    """
    return _above(load_exported(file, threads)[0], threshold)


def _above(detector: Find, threshold: float) -> Detect:
    return lambda image: detector(np.ascontiguousarray(image), threshold, SUPPRESS)[:2]


def detected_at_scale(detect: Detect, image: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the detections in the image resized by `scale`: boxes (M, 4) in px of the image itself, scores (M,)."""
    if scale != 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    boxes, scores = detect(image)
    return boxes / np.float32(scale), scores


def find_faces(detect: Detect, pictures: list[Picture], scale: float, ranks: Ranks | None = None) -> Found:
    """Return (boxes, scores) of each picture. Several processes share the work, and all get the whole result."""
    rank, count = (ranks.rank, ranks.count) if ranks else (0, 1)
    mine = [detected_at_scale(detect, picture.read(), scale) for picture in pictures[rank::count]]
    shares = ranks.gather(mine) if ranks else [mine]
    return [shares[index % count][index // count] for index in range(len(pictures))]


def turned(picture: Picture, degrees: float) -> Picture:
    """Return a picture that is turned clockwise on black, with its faces. Its image is made each time it is read."""
    height, width = picture.read().shape[:2]
    matrix, _ = turned_frame(width, height, np.radians(degrees))
    boxes = turned_boxes(picture.boxes, matrix)
    return picture._replace(boxes=boxes, image=None, crop=partial(_turned_image, picture, np.radians(degrees)))


def _turned_image(picture: Picture, angle: float) -> np.ndarray:
    return turn_picture(picture.read(), angle)[0]


def completed(detect: Detect, pictures: list[Picture], ranks: Ranks, sure: float = 0.5) -> list[Picture]:
    """Return the pictures. Those that are not `whole` also get the boxes that a teacher finds beside the labelled
    faces.

    A found box with a score below `sure` is an ignored one.
    """
    labelled_in_part = [index for index, picture in enumerate(pictures) if not picture.whole]
    result, some = list(pictures), [pictures[index] for index in labelled_in_part]
    passes = [find_faces(detect, some, scale, ranks) for scale in (1.0, 2.0)]
    for index, *found in zip(labelled_in_part, *passes, strict=True):
        picture = pictures[index]
        boxes, ignored = picture.boxes, picture.ignored
        values = np.concatenate([scores for _, scores in found])
        order = np.argsort(-values, kind="stable")
        for box, value in zip(np.concatenate([part for part, _ in found])[order], values[order], strict=True):
            # a box of another size around a labelled face is the same face, hence the low IoU
            if not len(boxes) or iou(box[None].astype(float), boxes).max() < KNOWN:
                boxes, ignored = np.concatenate([boxes, box[None]]), np.append(ignored, value < sure)
        covered = np.append(picture.covered, np.zeros(len(boxes) - len(picture.boxes), bool))
        result[index] = picture._replace(boxes=boxes, ignored=ignored, whole=True, covered=covered)
    return result
