"""How nets draw shut and open eyes of real people: `python benchmarks/blinks.py [NET ...]`.

VIDEOS names a folder of videos of one person each. Every net follows the face without smoothing. Nobody has marked the blinks, so
all nets together find them: the mean of their relative eye heights falls below DEPTH and returns. The relative height is the
height over width of both eyes, divided by its median in the seconds around. It is 0 % where a net draws the eyes shut.

Open eyes are those of the test photographs of FACES_300W and FACES68 with wide open labels. Their height over width is divided by
that of the labels.
"""
import sys
from pathlib import Path

import cv2
import numpy as np
from photographs import PLACES, found_in_box, labelled_sets, photographs, require, without_detector
from record import save
from scipy.ndimage import median_filter
from scipy.signal import find_peaks
from traits import eyes_open

from pipnet.app.track import Tracker
from pipnet.files import SHIPPED
from pipnet.landmarker import Landmarker

DEPTH, PROMINENCE = 0.7, 0.2  # relative height below which all nets together see a blink, and how far it falls
AROUND, APART = 2.0, 0.3      # s: window of the median; least time between two blinks
LEAST = 5                     # blinks of a video that has figures
NEAR = 2                      # frames by which a net's lowest height may lie beside that of all
OPEN = 0.2                    # height over width of labelled eyes that are open


def heights(net: str, file: Path) -> tuple[np.ndarray, float]:
    """Return the relative height of the eyes in each frame, and the frames per second. A frame without a face has the median."""
    landmarker, video = Landmarker(net), cv2.VideoCapture(str(file))
    tracker, rate, found = Tracker(landmarker, smooth="none", max_faces=1), video.get(cv2.CAP_PROP_FPS), []
    for _, image in iter(video.read, (False, None)):
        faces = tracker.update(image, len(found) / rate)
        found.append(eyes_open(landmarker.layout, faces[0].landmarks) if faces else np.nan)
    known = np.nan_to_num(found, nan=float(np.nanmedian(found)))
    return known / median_filter(known, round(AROUND * rate)), rate


def height_of_open(net: str, name: str) -> dict[str, float]:
    """Return {number of test faces of a set with open eyes, median of found / labelled height over width in %}."""
    landmarker, shares = without_detector(net, threads=1), []
    for record in photographs(name, "test"):
        if (labelled := eyes_open(landmarker.layout, record.landmarks)) > OPEN:
            found = found_in_box(landmarker, cv2.imread(str(record.file)), record.landmarks)
            shares.append(eyes_open(landmarker.layout, found) / labelled)
    return {"faces": len(shares), "height_%": round(100 * float(np.median(shares)), 1)}


def measure(nets: list[str], file: Path) -> dict[str, dict]:
    """Return {net: number of blinks, median of its lowest relative heights in %}, nothing of a video with few blinks."""
    curves = {net: heights(net, file) for net in nets}
    rate = next(iter(curves.values()))[1]
    together = np.mean([curve for curve, _ in curves.values()], 0)
    places, _ = find_peaks(-together, height=-DEPTH, prominence=PROMINENCE, distance=APART * rate)
    if len(places) < LEAST:
        return {}
    return {net: {"blinks": len(places), "height_%": round(100 * float(np.median(
        [curve[max(place - NEAR, 0):place + NEAR + 1].min() for place in places])), 1)} for net, (curve, _) in curves.items()}


if __name__ == "__main__":
    require("VIDEOS")
    nets = sys.argv[1:] or list(SHIPPED[:2])
    files = sorted(file for file in PLACES["VIDEOS"].iterdir() if file.suffix in (".avi", ".mp4"))
    videos = {file.stem: measure(nets, file) for file in files}
    save("blinks", " ".join(["python benchmarks/blinks.py", *nets]), 0, {
        "videos": videos, "open": {name: {net: height_of_open(net, name) for net in nets} for name in labelled_sets()}})
