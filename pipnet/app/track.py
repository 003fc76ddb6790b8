"""Faces through a video: the next crop comes from this frame's landmarks, and the detector is asked now and then."""
import math
from dataclasses import dataclass

import numpy as np

from pipnet.app.smooth import make_smooth
from pipnet.errors import UserError
from pipnet.geometry import box_of, iou
from pipnet.landmarker import HALFWAY

STEP = 0.03        # width of the step from background to face, in mean landmark scores of a crop
LEAST_SCORE = 0.5  # face score below which the detector is asked

SAME = 0.3     # IoU from which a detection is a face that is followed
TWICE = 0.7    # IoU from which two faces that are followed are one
AGAIN = 0.1    # IoU from which a face that appears is one that was lost
MEMORY = 1.5   # seconds for which a lost face keeps its id


def face_score(face, limit: float = HALFWAY) -> float:
    """Probability, from 0 to 1, that a face's crop shows a face, from the scores of its landmarks. limit: the net's, their mean
    where it is one half; `benchmarks/face_score.py` finds it."""
    return 1 / (1 + math.exp((limit - float(np.mean(face.scores))) / STEP))


@dataclass
class _Track:
    """One face: box (4,) of its last landmarks and for the next crop, image px; when it was last seen; lost at present."""

    box: np.ndarray
    next: np.ndarray
    seconds: float
    lost: bool = False


class Tracker:
    """tracker.update(image, seconds) -> the faces of this frame, each with the id that it keeps.

    landmarker: a `Landmarker`. detect_every: frames from one run of its detector to the next; it also runs as soon as the face
    score of a crop falls below LEAST_SCORE, and then only the faces that it finds again stay. smooth: a name in pipnet.smooth.
    max_faces: the most that are followed; None: all. A face's `score` becomes its face score. UserError for bad options.
    """

    def __init__(self, landmarker, detect_every: int = 10, smooth: str = "one-euro", max_faces: int | None = None):
        for name, value in (("detect_every", detect_every), ("max_faces", max_faces)):
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; it must be 1 or more")
        self.landmarker, self.detect_every, self.max_faces = landmarker, detect_every, max_faces
        self.smooth = make_smooth(smooth, landmarker.layout)
        self.tracks: dict[int, _Track] = {}
        self.wait = self.ids = 0  # frames until the detector runs, ids given away

    def update(self, image: np.ndarray, seconds: float) -> list:
        """Faces of image (H, W, 3) uint8 BGR, taken `seconds` after the beginning; by id, landmarks smoothed."""
        followed = self._follow(image)
        if self.wait <= 0 or any(face.score < LEAST_SCORE for face in followed.values()):
            followed = self._detect(image, followed)
            self.wait = self.detect_every
        self.wait -= 1
        smooth = self.smooth({id: face.landmarks for id, face in followed.items()}, seconds, image)
        for id, track in list(self.tracks.items()):
            track.lost = id not in followed
            if seconds - track.seconds > MEMORY and track.lost:
                del self.tracks[id]
        for id, landmarks in smooth.items():
            self.tracks[id] = _Track(box_of(landmarks), self.landmarker.box_of(landmarks), seconds)
        return [followed[id]._replace(landmarks=smooth[id], id=id) for id in sorted(followed)]

    def _follow(self, image: np.ndarray) -> dict:
        """{id: face} of the faces of the last frame, where their landmarks say they are now."""
        ids = [id for id, track in self.tracks.items() if not track.lost and _inside(track.next, image)]
        found = dict(zip(ids, self._faces(image, [self.tracks[id].next for id in ids]), strict=True))
        apart: dict = {}
        for id in sorted(found):  # of two on one face the older stays
            if not apart or _overlaps(found[id], apart.values()).max() < TWICE:
                apart[id] = found[id]
        return apart

    def _faces(self, image: np.ndarray, boxes) -> list:
        """Faces of landmark boxes, with their face scores."""
        faces = self.landmarker.landmarks_of(image, np.array(boxes)) if len(boxes) else []
        return [face._replace(score=face_score(face, self.landmarker.net.face_limit)) for face in faces]

    def _detect(self, image: np.ndarray, followed: dict) -> dict:
        """`followed` without the faces that neither the detector nor their score confirm, and with those that are new."""
        boxes = self.landmarker.detect(image)[0]
        ids = list(followed)
        pairs = match(_boxes(followed.values()), boxes, SAME)
        confirmed = {ids[i] for i, _ in pairs}
        kept = {id: face for id, face in followed.items() if face.score >= LEAST_SCORE or id in confirmed}
        room = None if self.max_faces is None else max(self.max_faces - len(kept), 0)
        fresh = np.delete(boxes, [j for _, j in pairs], axis=0)
        faces = self._faces(image, fresh)
        again = [self.landmarker.box_of(face.landmarks) for face in faces]  # as if they were followed
        faces = self._faces(image, [box for box in again if _inside(box, image)])
        faces = [face for face in faces if self.landmarker.is_face(face)
                 and (not kept or _overlaps(face, kept.values()).max() < TWICE)][:room]
        lost = [id for id in self.tracks if id not in kept]
        known = {j: lost[i] for i, j in match(np.array([self.tracks[id].box for id in lost]), _boxes(faces), AGAIN)}
        for j, face in enumerate(faces):
            kept[known[j] if j in known else self._id()] = face
        return kept

    def _id(self) -> int:
        self.ids += 1
        return self.ids - 1


def _inside(box: np.ndarray, image: np.ndarray) -> bool:
    """Whether a box (4,) shares a pixel or more with an image."""
    height, width = image.shape[:2]
    return bool((box[:2] < (width - 1, height - 1)).all() and (box[2:] > 1).all())


def _boxes(faces) -> np.ndarray:
    """(M, 4) tight boxes of the faces' landmarks."""
    return np.array([box_of(face.landmarks) for face in faces]).reshape(-1, 4)


def _overlaps(face, others) -> np.ndarray:
    """(K,) IoU of one face with others."""
    return iou(_boxes([face]), _boxes(others))[0]


def match(boxes: np.ndarray, others: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Pairs (i, j) of boxes (M, 4) and others (K, 4) with an IoU of at least `least`, each used once, the best pairs first."""
    shared = iou(boxes.reshape(-1, 4), others.reshape(-1, 4))
    pairs = []
    while shared.size and shared.max() >= least:
        i, j = np.unravel_index(shared.argmax(), shared.shape)
        pairs.append((int(i), int(j)))
        shared[i], shared[:, j] = -1, -1
    return pairs
