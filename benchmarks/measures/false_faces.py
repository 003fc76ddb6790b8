"""Faces that nets and MediaPipe find where there is none."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from measures.others import MEDIAPIPE, OTHER, as_faces, mediapipe
from measures.portraits import look_of
from photographs import PLACES, PORTRAITS, photographs, there, titled

from pipnet.face import Face, boxes_of
from pipnet.geometry import box_of, iou
from pipnet.images import picture_files, read_image
from pipnet.landmarker import Landmarker
from pipnet.video.track import Tracker

BESIDE = 0.1  # IoU with the box of the labelled face below which a result may be another face
FRAMES = 100  # of a video, evenly spread over it
Follow = Callable[[np.ndarray, float], list[Face]]  # frame (H, W, 3) uint8 BGR, its time in s -> its faces


def follow_of(net: str) -> Follow:
    """Return a function from the next frame of a video to the faces in it."""
    if net in OTHER:  # only MediaPipe follows faces
        look = as_faces(mediapipe(net, video=True) if net == MEDIAPIPE else OTHER[net](net))
        return lambda image, seconds: look(image)
    return Tracker(Landmarker(net, threads=1), smooth="none").update


def beside(faces: list[Face], truth: np.ndarray) -> int:
    """Return how many faces lie beside the labelled one, whose landmarks (N, 2) are the truth."""
    boxes, label = boxes_of(faces), box_of(truth)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres > label[:2]) & (centres < label[2:])).all(1)
    return int(((iou(boxes, label[None])[:, 0] < BESIDE) & ~inside).sum())


def frames(file: Path) -> Iterator[tuple[np.ndarray, float]]:
    """Yield FRAMES frames of a video, evenly spread over it, and their times in s."""
    video = cv2.VideoCapture(str(file))
    count, rate = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), video.get(cv2.CAP_PROP_FPS)
    chosen = set(np.linspace(0, count - 1, FRAMES).round().astype(int).tolist())
    for place in range(count):
        if video.grab() and place in chosen:
            yield video.retrieve()[1], place / rate


def in_photographs(net: str, names: list[str]) -> Iterator[tuple[str, list[int]]]:
    """Yield each set of photographs and the number of false faces in each. names: of the data that is there."""
    if "NOFACE" in names:
        look = look_of(net)
        found = [len(look(read_image(file))) for file in picture_files(PLACES["NOFACE"])]
        yield "no face, odd files", found[::2]
        yield "no face, even files (held out)", found[1::2]
    for name in (name for name in PORTRAITS if name in names):
        look = look_of(net, name)
        records = photographs(name, PORTRAITS[name])
        yield f"beside the face, {name}", [beside(look(read_image(one.file)), one.landmarks) for one in records]


def in_videos(net: str) -> Iterator[int]:
    """Yield, for each frame of videos of one person, 1 if it has a second face."""
    for file in (file for file in sorted(PLACES["VIDEOS"].iterdir()) if file.suffix in (".avi", ".mp4")):
        follow = follow_of(net)
        yield from (int(len(follow(image, seconds)) > 1) for image, seconds in frames(file))


def false_faces(*nets: str) -> Iterator[dict]:
    """Yield how many faces nets find where there is none: their number and the number per 100 photographs or frames.

    In NOFACE there is no human face. By sorted name, the odd files (first, third, ...) may be used for training, the
    even ones only for validation. In a photograph of one person, a face is false if the IoU of its box with the
    labelled one is below BESIDE and its centre lies outside of that box; a few of these are other people. In a video
    of one person, FRAMES frames are looked at, and those with a second face are counted.
    """
    names = there("NOFACE", *PORTRAITS, "VIDEOS")
    for title, net in titled(nets).items():
        found = dict(in_photographs(net, names))
        if "VIDEOS" in names:
            found["second face, frames of videos"] = [*in_videos(net)]
        for photos, counts in found.items():
            figure = f"{sum(counts)} / {100 * sum(counts) / len(counts):.1f}"
            yield {"photographs": photos, "number": f"{len(counts)}", title: figure}
