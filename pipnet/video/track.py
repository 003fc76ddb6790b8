"""Tracking of faces in a video: the next crop comes from this frame's landmarks, and the detector runs every few
frames.
"""

from dataclasses import dataclass, replace

import numpy as np

from pipnet.boxes import Boxes, largest_first
from pipnet.chain import Chain
from pipnet.distinct import TWICE, without_duplicates
from pipnet.errors import UserError, as_text, is_integer, is_number
from pipnet.face import Face, boxes_of
from pipnet.geometry import box_of, greedy_nms, iou, upright_boxes
from pipnet.images import Bgr, as_bgr
from pipnet.video.smooth import Smooth, make_smooth

HALFWAY = 0.4  # least mean landmark score of a tracked face, for nets with neither `face` nor `face_limit`
SAME = 0.3  # least IoU of a detection with a tracked face that it confirms
AGAIN = 0.1  # least IoU of a new face with a lost one whose id it takes
MEMORY = 1.5  # seconds for which a lost face keeps its id
RETRY = 3  # frames after which the detector looks again while a face is lost or none is tracked


@dataclass
class _Track:
    """One face: box (4,) of its last landmarks, box (5,) for its next crop, both in image px; score and seconds when it
    was last seen.
    """

    box: np.ndarray
    next: np.ndarray
    score: float
    seconds: float
    lost: bool = False


class Tracker:
    """Tracks the faces of a video: `tracker.update(image, seconds)` returns those of a frame, each with an id that it
    keeps.

    The crop of a tracked face comes from its landmarks in the frame before. The detector runs every `detect_every`
    frames, and at once when a crop shows no face any more, see `Landmarker.is_face`. While a face is lost or none is
    tracked, it runs at least every RETRY frames. If no face is found then, it also looks at the enhanced frame. Where
    the size of the frames changes, all faces are new ones.

    - `landmarker`: a `Landmarker`.
    - `smooth`: `one-euro`, `flow` or `none`.
    - `max_faces`: at most so many faces are tracked; None: as many as the landmarker keeps.

    UserError for bad options.
    """

    def __init__(
        self, landmarker: Chain, detect_every: int = 10, smooth: Smooth = "one-euro", max_faces: int | None = None
    ):
        for name, value in (("detect_every", detect_every), ("max_faces", max_faces)):
            if value is not None and not is_integer(value, 1):
                raise UserError(f"{name} is {as_text(value)}; it must be a whole number, 1 or more")
        self.landmarker, self.detect_every = landmarker, detect_every
        self.max_faces = landmarker.max_faces if max_faces is None else max_faces
        self.smooth = make_smooth(smooth, landmarker.net.layout)
        self.tracks: dict[int, _Track] = {}
        self.wait = self.ids = 0  # frames until the detector runs; number of ids
        self.size: tuple[int, ...] | None = None  # height and width of the last frame

    def update(self, image: np.ndarray, seconds: float) -> list[Face]:
        """Return the faces of an image, `seconds` after the start, ordered by id, with smoothed landmarks.

        The image is anything that the landmarker takes. UserError for others, and for a time that is not finite;
        tracking can go on with the next frame.
        """
        if not is_number(seconds):
            raise UserError(f"a frame's time is {as_text(seconds)}; give the seconds since the start")
        image = as_bgr(image, self.landmarker.rgb)
        if image.shape[:2] != self.size:  # a place in a frame of another size is another place
            self.size, self.wait = image.shape[:2], 0
            self.tracks.clear()
        tracked = self._follow(image)
        if self.wait <= 0 or len(tracked) < sum(not track.lost for track in self.tracks.values()):
            tracked = self._detect(image, tracked)
            self.wait = self.detect_every
        self.wait -= 1
        smooth = self.smooth({id: face.landmarks for id, face in tracked.items()}, seconds, image)
        for id, track in list(self.tracks.items()):
            track.lost = id not in tracked
            if track.lost and seconds - track.seconds > MEMORY:
                del self.tracks[id]
        if not tracked or any(track.lost for track in self.tracks.values()):
            self.wait = min(self.wait, RETRY - 1)
        for id, landmarks in smooth.items():
            box, following = box_of(landmarks), self.landmarker.net.box_of(landmarks)
            self.tracks[id] = _Track(box, following, tracked[id].score, seconds)
        faces = [replace(tracked[id], landmarks=smooth[id], id=id) for id in sorted(tracked)]
        return list(map(self.landmarker.in_layout, faces))

    def _follow(self, image: Bgr) -> dict[int, Face]:
        """Return {id: face} of the last frame's faces that crops around their last landmarks still show."""
        ids = sorted(id for id, track in self.tracks.items() if not track.lost and self._shows(track.next, image))
        tracks = [self.tracks[id] for id in ids]
        boxes = np.reshape([track.next for track in tracks], (-1, 5))
        faces = self.landmarker.read(Boxes.of(image, boxes, np.array([track.score for track in tracks])))
        seen = [(id, face) for id, face in zip(ids, faces, strict=True) if not self._is_lost(face)]
        boxes = boxes_of(face for _, face in seen)
        # of two tracks of one face the older one stays
        return dict(seen[place] for place in greedy_nms(iou(boxes, boxes) >= TWICE))

    def _is_lost(self, face: Face) -> bool:
        """Return whether the crop of a tracked face shows none. Its own score says so, where the net has `face`."""
        net = self.landmarker.net
        blurred = not (net.face or net.face_limit) and face.scores.mean() < HALFWAY
        return blurred or not self.landmarker.is_face(face)

    def _shows(self, box: np.ndarray, image: np.ndarray) -> bool:
        """Return whether a box (5,) covers at least a pixel of an image and gives a crop."""
        height, width = image.shape[:2]
        inside = (box[:2] < (width - 1, height - 1)).all() and (box[2:4] > 1).all()
        return bool(inside) and self.landmarker.net.shows(box, width, height)

    def _detect(self, image: Bgr, tracked: dict[int, Face]) -> dict[int, Face]:
        """Return the tracked faces, and the new faces that the detector finds."""
        found, kept = self.landmarker.find(image), dict(tracked)
        boxes = upright_boxes(found.boxes)
        known_boxes = [j for _, j in match(boxes_of(tracked.values()), boxes, SAME)]
        rest, faces = np.delete(np.arange(len(boxes)), known_boxes), list[Face]()
        room = len(rest) if self.max_faces is None else self.max_faces - len(kept)
        rest = rest[largest_first(boxes[rest])] if room < len(rest) else rest
        while len(rest) and len(faces) < room:  # the largest ones may show no faces
            some, rest = np.split(rest, [room - len(faces)])
            faces += self._new(found.rows(some), [*kept.values(), *faces])
        if not kept and not faces:
            faces = self.landmarker.enhanced_faces(image)[: self.max_faces]
        lost = [id for id in self.tracks if id not in kept]
        known = {j: lost[i] for i, j in match(np.array([self.tracks[id].box for id in lost]), boxes_of(faces), AGAIN)}
        for j, face in enumerate(faces):
            if j not in known:
                known[j], self.ids = self.ids, self.ids + 1
            kept[known[j]] = face
        return kept

    def _new(self, boxes: Boxes, known: list[Face]) -> list[Face]:
        """Return the faces in a detector's boxes that are neither known ones nor parts of them."""
        (faces,) = self.landmarker.confirmed([boxes])
        new = [face for face in faces if not known or iou(boxes_of([face]), boxes_of(known)).max() < TWICE]
        remain = {id(face) for face in without_duplicates([*known, *new])}
        return [face for face in new if id(face) in remain]


def match(boxes: np.ndarray, others: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Return pairs (i, j) of boxes (M, 4) and others (K, 4) with an IoU of at least `least`.

    Each box is used once, best pairs first.
    """
    overlap = iou(boxes.reshape(-1, 4), others.reshape(-1, 4))
    pairs = []
    while overlap.size and overlap.max() >= least:
        i, j = np.unravel_index(overlap.argmax(), overlap.shape)
        pairs.append((int(i), int(j)))
        overlap[i], overlap[:, j] = -1, -1
    return pairs
