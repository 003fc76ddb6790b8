"""Eyes of real people, shut and open."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from photographs import LABELLED, found_in_box, photographs, require, there, titled, without_detector
from scipy.ndimage import median_filter
from scipy.signal import find_peaks

from pipnet.landmarker import Landmarker
from pipnet.layout import EYES, Layout
from pipnet.video.drowsiness import ring_aspect
from pipnet.video.track import Tracker

DEPTH, PROMINENCE = 0.7, 0.2  # relative height below which all nets together see a blink, and how far it falls
AROUND, APART = 2.0, 0.3  # s: window of the median; least time between two blinks
FEWEST = 5  # blinks of a video that has figures
NEAR = 2  # frames by which a net's lowest height may lie beside that of all
WIDE_OPEN = 0.2  # height over width of labelled eyes that are open


def eyes_open(layout: Layout, landmarks: np.ndarray) -> float:
    """Return the mean of height / width of both eyes."""
    return float(np.mean([ring_aspect(landmarks, layout.ring(eye)) for eye in EYES]))


def heights(net: str, file: Path) -> tuple[np.ndarray, float]:
    """Return the relative height of the eyes in each frame, and the frames per second.
    A frame without a face has the median.
    """
    landmarker, video = Landmarker(net), cv2.VideoCapture(str(file))
    tracker, rate, found = Tracker(landmarker, smooth="none", max_faces=1), video.get(cv2.CAP_PROP_FPS), []
    for _, image in iter(video.read, (False, None)):
        faces = tracker.update(image, len(found) / rate)
        found.append(eyes_open(landmarker.layout, faces[0].landmarks) if faces else np.nan)
    known = np.nan_to_num(found, nan=float(np.nanmedian(found)))
    return known / median_filter(known, round(AROUND * rate)), rate


def open_eyes(net: str, name: str) -> list[float]:
    """Return found / labelled height over width, of each test face of a set with open eyes."""
    landmarker, shares = without_detector(net, threads=1), []
    for record in photographs(name, "test"):
        if (labelled := eyes_open(landmarker.layout, record.landmarks)) > WIDE_OPEN:
            found = found_in_box(landmarker, cv2.imread(str(record.file)), record.landmarks)
            shares.append(eyes_open(landmarker.layout, found) / labelled)
    return shares


def lowest(nets: dict[str, str], file: Path) -> dict[str, list[float]]:
    """Return {title: the lowest relative height in each blink of a video}.
    Nobody has marked the blinks: all nets find them.

    nets: {title: net}.
    """
    curves = {title: heights(net, file) for title, net in nets.items()}
    rate = next(iter(curves.values()))[1]
    together = np.mean([curve for curve, _ in curves.values()], 0)
    places, _ = find_peaks(-together, height=-DEPTH, prominence=PROMINENCE, distance=APART * rate)
    return {
        title: [curve[max(place - NEAR, 0) : place + NEAR + 1].min() for place in places]
        for title, (curve, _) in curves.items()
    }


def blinks(*nets: str) -> Iterator[dict]:
    """Yield the median relative height of shut and of open eyes of real people.

    Eyes shut in the videos of the folder VIDEOS, which the net follows without smoothing. Open ones are those of test
    photographs with wide open labels.
    """
    (videos,), known = require("VIDEOS"), titled(nets)
    files = sorted(file for file in videos.iterdir() if file.suffix in (".avi", ".mp4"))
    found = {f"shut, {file.stem}": lowest(known, file) for file in files}
    found |= {
        f"open, {name}": {title: open_eyes(net, name) for title, net in known.items()} for name in there(*LABELLED)
    }
    for eyes, by_net in found.items():
        for title, shares in by_net.items():
            if len(shares) >= FEWEST:
                yield {"eyes": eyes, title: f"{100 * np.median(shares):.0f} % of {len(shares)}"}
