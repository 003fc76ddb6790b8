"""Faces that lie or stand on their head, or that noise or darkness hides, searched in the turned and enhanced picture."""
from collections.abc import Sequence

import numpy as np

from pipnet.detector import suppress
from pipnet.geometry import box_of, carry, invert, turn_picture
from pipnet.images import as_bgr, enhanced, shrunken

QUARTERS, DIAGONALS = (0, 90, 180, 270), (45, 135, 225, 315)  # degrees, clockwise, of the faces that are searched
STEPS = (256, QUARTERS), (192, DIAGONALS)  # longer side of the picture that is looked at, px, and the turns
SAME = 0.3  # IoU from which two faces found in different turns are one
MOST_CROPS = 8          # of the landmark net, after which no further turn is tried
LEAN = np.radians(120)  # a sure face that leans more in every picture tried so far may be found better in the next ones


def search(landmarker, image: np.ndarray, faces: list, second_crop: bool = True, rolls: Sequence[int] | None = None) -> list:
    """Return the faces of an image (H, W, 3), in its px: `faces`, and others if none of them is sure.

    The detector searches the enhanced image, shrunken and turned, see STEPS. In each step the turn with the highest score comes
    first. Landmarks are found in the enhanced image, those of a face also in the image itself, since the blur costs accuracy. The
    search ends with the turn in which a sure face stands upright, or after MOST_CROPS. rolls: only these, in one step. There is
    no search for a net that cannot tell sure faces.
    """
    net = landmarker.net
    if not net.can_search or any(map(net.is_sure, faces)):
        return faces
    clear, tried, most = enhanced(image), [], landmarker.crops + MOST_CROPS
    for side, turns in STEPS if rolls is None else [(STEPS[0][0], rolls)]:
        zoom = min(side / max(image.shape[:2]), 1.0)
        if zoom * min(image.shape[:2]) < 1:  # a line
            return faces
        small = shrunken(clear, zoom)
        looks = [(roll, *_look(landmarker, small, roll, zoom)) for roll in turns]
        for roll, boxes, scores in sorted(looks, key=lambda look: -look[2].max(initial=0)):
            if not len(boxes) or landmarker.crops >= most:
                break
            tried.append(roll)
            some = landmarker.faces_of(clear, boxes, scores, second_crop, close=True)
            again = np.reshape([landmarker.box_of(face.landmarks) for face in some], (-1, 5))
            some += landmarker.faces_of(image, again, np.array([face.score for face in some]), second_crop, close=True)
            # background is searched many times here, so a face must look more like one than in the picture as it is
            faces = best(faces + [face for face in some if face.scores.mean() >= net.sure], landmarker.max_faces)
            if any(net.is_sure(face) and stands(net.roll_of(face.landmarks), tried) for face in faces):
                return faces
    return faces


def _look(landmarker, small: np.ndarray, roll: int, zoom: float) -> tuple[np.ndarray, np.ndarray]:
    """Return landmark boxes (M, 5) and scores (M,) of faces with this roll, in px of the image that was shrunken by `zoom`."""
    picture, matrix = turn_picture(small, -np.radians(roll))
    boxes, scores = landmarker.detect(as_bgr(picture), once=True)
    boxes = carry(boxes, invert(matrix))
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centre >= 0) & (centre < small.shape[1::-1])).all(1)
    return np.column_stack([boxes / zoom, np.full(len(boxes), roll)])[inside], scores[inside]


def stands(roll: float, turns: Sequence[float]) -> bool:
    """Return whether a face with this roll (radians) leans by at most LEAN in a picture turned by one of `turns` (degrees)."""
    return bool(np.cos(roll - np.radians(turns)).max() >= np.cos(LEAN))


def best(faces: list, most: int | None) -> list:
    """Return the `most` largest faces, ordered by score. Of overlapping faces, only the one with the highest landmark scores."""
    faces = sorted(faces, key=lambda face: -face.scores.mean())
    faces = [faces[i] for i in suppress(np.array([box_of(face.landmarks) for face in faces]).reshape(-1, 4), SAME)]
    faces = sorted(faces, key=lambda face: -np.ptp(face.landmarks, axis=0).prod())[:most]
    return sorted(faces, key=lambda face: -face.score)
