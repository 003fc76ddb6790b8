"""Detectors on photographs: torch nets and exported files alike, at several scales, and what they make of a set."""
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from nets.detectors.faceboxes import FaceBoxesV2
from pipnet.geometry import iou
from pipnet.session import open_session
from utils.data.wider import Picture
from utils.train.ranks import Ranks

FLOOR, SUPPRESS = 0.05, 0.3  # least score that counts in an average precision; IoU at which the lower of two boxes goes
# image (H, W, 3) uint8 BGR -> boxes (M, 4), scores (M,), best first
Detect = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def torch_detector(net: FaceBoxesV2, device: torch.device, threshold: float = FLOOR) -> Detect:
    """Of a net with its weights, in fp32."""
    net = net.fused().to(device)

    def detect(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = net.detect(torch.from_numpy(np.ascontiguousarray(image))[None].to(device), threshold, SUPPRESS)[0]
        return boxes.cpu().numpy(), scores.cpu().numpy()

    return detect


def onnx_detector(file: Path, threads: int = 0, threshold: float = FLOOR) -> Detect:
    """Of an exported file. UserError where it cannot be loaded."""
    session = open_session(file, threads, "make it with --test-onnx")
    options = {"threshold": np.array(threshold, np.float32), "overlap": np.array(SUPPRESS, np.float32)}

    def detect(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = session.run(["boxes", "scores"], {"image": image, **options})
        return boxes, scores

    return detect


def resized(detect: Detect, image: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """What `detect` finds in the image resized by `scale`; boxes in px of the image itself."""
    if scale != 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    boxes, scores = detect(image)
    return boxes / np.float32(scale), scores


Found = list[tuple[np.ndarray, np.ndarray]]


def find(detect: Detect, pictures: list[Picture], scale: float, ranks: Ranks | None = None) -> Found:
    """(boxes, scores) of each picture; with several processes each looks at its share and all have the result."""
    rank, count = (ranks.rank, ranks.count) if ranks else (0, 1)
    mine = [resized(detect, picture.read(), scale) for picture in pictures[rank::count]]
    shares = ranks.gather(mine) if ranks else [mine]
    return [shares[index % count][index // count] for index in range(len(pictures))]


def completed(detect: Detect, pictures: list[Picture], ranks: Ranks, sure: float = 0.5) -> list[Picture]:
    """Pictures that are not whole with what a teacher finds in them: faces, and what it is not `sure` of as ignored."""
    partial = [index for index, picture in enumerate(pictures) if not picture.whole]
    kept, some = list(pictures), [pictures[index] for index in partial]
    passes = [find(detect, some, scale, ranks) for scale in (1.0, 2.0)]
    for index, *found in zip(partial, *passes, strict=True):
        boxes, ignored = pictures[index].boxes, pictures[index].ignored
        values = np.concatenate([scores for _, scores in found])
        order = np.argsort(-values, kind="stable")
        for box, value in zip(np.concatenate([part for part, _ in found])[order], values[order], strict=True):
            # a box of another size round a face that is known already is none of its own
            if not len(boxes) or iou(box[None].astype(float), boxes).max() < 0.3:
                boxes, ignored = np.concatenate([boxes, box[None]]), np.append(ignored, value < sure)
        more = len(boxes) - len(pictures[index].boxes)
        kept[index] = pictures[index]._replace(boxes=boxes, ignored=ignored, whole=True,
                                               covered=np.append(pictures[index].covered, np.zeros(more, bool)))
    return kept

