"""Search for faces that lie or are upside down, or that noise or darkness hides: in turned and enhanced copies of the
image.
"""

from collections.abc import Sequence

import numpy as np

from pipnet.detector import WITHIN
from pipnet.face import boxes_of
from pipnet.geometry import carry, greedy_nms, invert, iou, shared, turn_picture
from pipnet.images import as_bgr, enhanced, resized

QUARTERS, DIAGONALS = (
    (0, 90, 180, 270),
    (45, 135, 225, 315),
)  # degrees clockwise: rolls of the faces that are looked for
# longer side of the copy in which the detector looks, px; the rolls; crops of the landmark net after which no more are
# tried
STEPS = (256, QUARTERS, 8), (192, DIAGONALS, 12)
LARGER = 2.0  # most by which a small image is enlarged for it; the detector finds faces of few px better then
SAME = 0.3  # IoU from which two faces found in different turns are one
PROMISE = 0.6  # the detector gives a face at any roll this score in a quarter turn; below it no diagonal is searched
LEAN = np.radians(
    120
)  # a sure face that leans more than this in every copy tried so far may be found better in the next ones


def search(
    landmarker, image: np.ndarray, faces: list, second_crop: bool = True, rolls: Sequence[int] | None = None
) -> list:
    """Return the faces of an image (H, W, 3), in its px: `faces`, and those that are found by a search if none of them
    is sure.

    The detector looks for faces in copies of the enhanced image, resized and turned, see STEPS. In each step the roll
    with the highest score comes first. Landmarks are found in the enhanced image, then in the image itself, since the
    blur costs accuracy. The search ends with the first roll at which a sure face stands upright, or after so many
    crops. rolls: only these, in one step. If the net cannot tell sure faces, `faces` are returned.
    """
    net = landmarker.net
    if not net.can_search or any(map(net.is_sure, faces)):
        return faces
    clear, tried, before = as_bgr(enhanced(image)), [], landmarker.crops
    for side, turns, most in STEPS if rolls is None else [(STEPS[0][0], rolls, STEPS[0][2])]:
        zoom = min(side / max(image.shape[:2]), LARGER)
        if zoom * min(image.shape[:2]) < 1:  # a line
            return faces
        small = resized(clear, zoom)
        looks = [(roll, *_look(landmarker, small, roll, zoom)) for roll in turns]
        for roll, boxes, scores in sorted(looks, key=lambda look: -look[2].max(initial=0)):
            if not len(boxes) or landmarker.crops - before >= most:
                break
            tried.append(roll)
            some = landmarker.faces_of(clear, boxes, scores, second_crop, close=True)
            again = np.reshape([landmarker.box_of(face.landmarks) for face in some], (-1, 5))
            some += landmarker.faces_of(image, again, np.array([face.score for face in some]), second_crop, close=True)
            # background is searched many times here, so a face must look more like one than in the picture as it is
            faces = best(faces + [face for face in some if face.scores.mean() >= net.sure], landmarker.max_faces)
            if any(net.is_sure(face) and stands(net.roll_of(face.landmarks), tried) for face in faces):
                return faces
        if max(scores.max(initial=0) for *_, scores in looks) < PROMISE:
            break
    return faces


def _look(landmarker, small: np.ndarray, roll: int, zoom: float) -> tuple[np.ndarray, np.ndarray]:
    """Return landmark boxes (M, 5) and scores (M,) of the faces in `small` that have this roll, degrees.

    Boxes are in px of the image from which `small` was made by the factor `zoom`.
    """
    picture, matrix = turn_picture(small, -np.radians(roll))
    boxes, scores = landmarker.detect(as_bgr(picture), once=True)
    boxes = carry(boxes, invert(matrix))
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centre >= 0) & (centre < small.shape[1::-1])).all(1)
    return np.column_stack([boxes / zoom, np.full(len(boxes), roll)])[inside], scores[inside]


def stands(roll: float, turns: Sequence[float]) -> bool:
    """Return whether a face with this roll (radians) leans by at most LEAN in one of the copies for `turns` (degrees)."""
    return bool(np.cos(roll - np.radians(turns)).max() >= np.cos(LEAN))


def best(faces: list, most: int | None) -> list:
    """Return the `most` largest faces, best first.
    Of faces that overlap or lie in another one, that with the highest landmark scores is kept.
    """
    faces = sorted(faces, key=lambda face: -face.scores.mean())
    boxes = boxes_of(faces)
    kept = greedy_nms((iou(boxes, boxes) > SAME) | (shared(boxes, boxes).T >= WITHIN))
    faces = sorted((faces[place] for place in kept), key=lambda face: -np.ptp(face.landmarks, axis=0).prod())[:most]
    return sorted(faces, key=lambda face: -face.score)
