"""Faces that nets and MediaPipe find where there is none."""

from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from measures.babies import LAYOUT, Look
from measures.others import mediapipe
from photographs import PLACES, PORTRAITS, landmarker_for, photographs, there, titled

from pipnet.draw import WHITE, draw_circle, sheet, tile
from pipnet.face import Face, boxes_of
from pipnet.files import LANDMARK_NETS
from pipnet.geometry import box_of, cut, grow, iou, to_crop
from pipnet.images import picture_files, read_image, write_image
from pipnet.landmarker import Landmarker
from pipnet.video.track import Tracker

MEDIAPIPE = "mediapipe"
NETS = (*(name for name in LANDMARK_NETS if name != "finder"), MEDIAPIPE)  # measured if no other is named
BESIDE = 0.1  # IoU with the box of the labelled face below which a result may be another face
FRAMES = 100  # of a video, evenly spread over it
TILE, COLUMNS, AROUND = 128, 12, 1.8  # px of a close-up; close-ups in a row of the contact sheet; sides of the box
Follow = Callable[[np.ndarray, float], list[Face]]  # frame (H, W, 3) uint8 BGR, its time in s -> its faces


class CloseUp(NamedTuple):
    """What was taken for a face: the score (NaN: unknown), and a picture (TILE, TILE, 3) of it."""

    score: float
    picture: np.ndarray


def known(nets: tuple[str, ...]) -> dict[str, str]:
    """Return {title: net} of the nets, or all; MediaPipe only where it is installed."""
    named = titled(nets, NETS)
    for title in [title for title, net in named.items() if net == MEDIAPIPE and not find_spec(MEDIAPIPE)]:
        print(f"{title} skipped: `{MEDIAPIPE}` is not installed, see others.py; its figures stay")
        del named[title]
    return named


def look_of(net: str, name: str | None = None) -> Look:
    """Return a function from a picture to the faces that a net, or MediaPipe, finds in it.
    name: the labelled set of the picture.
    """
    return as_faces(mediapipe(net)) if net == MEDIAPIPE else landmarker_for(name, net, threads=1)


def follow_of(net: str) -> Follow:
    """Return a function from the next frame of a video to the faces in it."""
    if net == MEDIAPIPE:
        look = as_faces(mediapipe(net, video=True))
        return lambda image, seconds: look(image)
    return Tracker(Landmarker(net, threads=1), smooth="none").update


def as_faces(find: Callable[[np.ndarray], np.ndarray]) -> Look:
    """Return a tool of `others` as a function from a picture to faces, whose scores are unknown."""
    return lambda image: [Face(box_of(points), np.nan, points, np.ones(len(points))) for points in find(image)]


def beside(faces: list[Face], truth: np.ndarray) -> list[Face]:
    """Return the faces that lie beside the labelled one, whose landmarks (N, 2) are the truth."""
    boxes, label = boxes_of(faces), box_of(truth)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres > label[:2]) & (centres < label[2:])).all(1)
    away = (iou(boxes, label[None])[:, 0] < BESIDE) & ~inside
    return [face for face, false in zip(faces, away, strict=True) if false]


def second(faces: list[Face]) -> list[Face]:
    """Return all but the largest face."""
    return sorted(faces, key=lambda face: -np.ptp(face.landmarks, axis=0).prod())[1:]


def frames(file: Path) -> Iterator[tuple[np.ndarray, float]]:
    """Yield FRAMES frames of a video, evenly spread over it, and their times in s."""
    video = cv2.VideoCapture(str(file))
    count, rate = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), video.get(cv2.CAP_PROP_FPS)
    chosen = set(np.linspace(0, count - 1, FRAMES).round().astype(int).tolist())
    for place in range(count):
        if video.grab() and place in chosen:
            yield video.retrieve()[1], place / rate


def close_ups(image: np.ndarray, faces: list[Face], name: str) -> list[CloseUp]:
    """Return a picture of each face, with its landmarks, score and the name of the photograph."""
    found = []
    for face in faces:
        low, high = np.split(box_of(face.landmarks), 2)
        middle = np.tile((low + high) / 2, 2)
        crop = grow(middle + np.repeat([-1, 1], 2) * (high - low).max() / 2, AROUND)
        title = name if np.isnan(face.score) else f"{face.score:.2f} {name}"
        picture = tile(cut(image, crop, TILE), [], LAYOUT, TILE, title)
        for point in to_crop(face.landmarks, crop) * TILE:
            draw_circle(picture, point, WHITE, 0.5)
        found.append(CloseUp(face.score, picture))
    return found


def in_photographs(net: str, names: list[str]) -> Iterator[tuple[str, list[list[CloseUp]]]]:
    """Yield each set of photographs and the false faces in each of them. names: of the data that is there."""
    if "NOFACE" in names:
        look, found = look_of(net), []
        for file in picture_files(PLACES["NOFACE"]):
            image = read_image(file)
            found.append(close_ups(image, look(image), file.stem))
        yield "no face, odd files", found[::2]
        yield "no face, even files (held out)", found[1::2]
    for name in (name for name in PORTRAITS if name in names):
        look, found = look_of(net, name), []
        for record in photographs(name, PORTRAITS[name]):
            image = read_image(record.file)
            found.append(close_ups(image, beside(look(image), record.landmarks), record.file.stem))
        yield f"beside the face, {name}", found


def in_videos(net: str) -> Iterator[tuple[str, list[list[CloseUp]]]]:
    """Yield each video of one person and the second face, if any, in each of its frames."""
    for file in (file for file in sorted(PLACES["VIDEOS"].iterdir()) if file.suffix in (".avi", ".mp4")):
        follow = follow_of(net)
        found = [close_ups(image, second(follow(image, time))[:1], f"{time:.0f} s") for image, time in frames(file)]
        yield f"second face, frames of {file.stem}", found


def best_first(found: Iterable[list[CloseUp]]) -> list[CloseUp]:
    """Return all close-ups, those with the highest scores first."""
    return sorted(chain.from_iterable(found), key=lambda one: -np.nan_to_num(one.score))


def false_faces(*nets: str, sheets: str = "") -> Iterator[dict]:
    """Yield how many faces nets find where there is none: their number and the number per 100 photographs or frames.

    In NOFACE there is no human face. By sorted name, the odd files (first, third, ...) may be used for training, the
    even ones only for validation. In a photograph of one person, a face is false if the IoU of its box with the
    labelled one is below BESIDE and its centre lies outside of that box; a few of these are other people. In a video
    of one person, all but the largest face are false; FRAMES frames are looked at, and the last row counts the videos
    with such a frame. A NET is as in the other measures, or `mediapipe`. sheets: a folder for a picture of all false
    faces of each net, those with the highest scores first.
    """
    names = there("NOFACE", *PORTRAITS, "VIDEOS")
    for title, net in known(nets).items():
        found, clips = dict(in_photographs(net, names)), dict(in_videos(net)) if "VIDEOS" in names else {}
        if clips:
            found["second face, videos"] = [best_first(clip)[:1] for clip in clips.values()]
        for photos, some in (found | clips).items():
            count = sum(map(len, some))
            figure = f"{count} / {100 * count / len(some):.1f}"
            yield {"photographs": photos, "number": f"{len(some)}", title: figure}
        if sheets and (shown := best_first(chain.from_iterable(found.values()))):
            Path(sheets).mkdir(parents=True, exist_ok=True)
            file = Path(sheets) / f"{title.replace('/', '_')}.jpg"
            write_image(file, sheet([one.picture for one in shown], COLUMNS))
            print(f"{file}: {len(shown)} close-ups")
