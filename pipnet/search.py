"""Faces that lie or stand on their head, or that noise or darkness hides, searched in the turned and enhanced picture."""
import cv2
import numpy as np

from pipnet.detector import detection_scale, suppress
from pipnet.geometry import box_of, carry, invert, turn_picture
from pipnet.images import as_bgr, enhanced

ROLLS = (0,), (90, 180, 270), (45, 135, 225, 315)  # degrees, clockwise, of the faces that are searched, step by step
SAME = 0.3  # IoU from which two faces found in different turns are one
MOST_SIDE = 2 ** 13  # px, side of the largest turned picture
MOST_CALLS = 40         # of landmark nets, after which no further roll is searched
LEAN = np.radians(120)  # a sure face that leans more in every picture searched so far may be found better in the next ones


def search(landmarker, image: np.ndarray, faces: list, second_crop: bool = True, steps=ROLLS) -> list:
    """Return the faces of an image (H, W, 3), in its px: `faces`, and others if none of them is sure.

    The detector searches the enhanced image, turned by each roll of a step. The landmarks of its faces are found in both images,
    since the blur costs accuracy in small faces. The search ends after the first step in which a sure face stands upright in one
    of the turned images, or after MOST_CALLS. There is no search for a net that cannot tell sure faces.
    """
    net = landmarker.net
    turns: list[float] = []
    if not net.can_search or any(map(net.is_sure, faces)):
        return faces
    zoom = detection_scale(*image.shape[:2], None) if getattr(landmarker.detector, "scale", None) is None else 1.0
    zoom = min(zoom, MOST_SIDE * 2 ** 0.5 / sum(image.shape[:2]))
    if zoom * min(image.shape[:2]) < 1:  # a line
        return faces
    clear = enhanced(image)
    small = clear if zoom == 1 else cv2.resize(clear, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
    most = landmarker.calls + MOST_CALLS
    for rolls in steps:
        turns += rolls
        for roll in rolls:
            if landmarker.calls >= most:
                break
            picture, matrix = turn_picture(small, -np.radians(roll))
            boxes, scores = landmarker.detect(as_bgr(picture))
            boxes = carry(boxes, invert(matrix)) / zoom
            centre = (boxes[:, :2] + boxes[:, 2:]) / 2
            inside = ((centre >= 0) & (centre < image.shape[1::-1])).all(1)
            boxes = np.column_stack([boxes, np.full(len(boxes), roll)])[inside]
            found = [landmarker.faces_of(one, boxes, scores[inside], second_crop, close=True) for one in (clear, image)]
            # background is searched nine times here, so a face must look more like one than in the picture as it is
            faces = faces + [face for some in found for face in some if face.scores.mean() >= net.sure]
        faces = best(faces, landmarker.max_faces)
        if any(net.is_sure(face) and stands(net.roll_of(face.landmarks), turns) for face in faces):
            break
    return faces


def stands(roll: float, turns: list[float]) -> bool:
    """Return whether a face with this roll (radians) leans by at most LEAN in a picture turned by one of `turns` (degrees)."""
    return bool(np.cos(roll - np.radians(turns)).max() >= np.cos(LEAN))


def best(faces: list, most: int | None) -> list:
    """Return the `most` largest faces, ordered by score. Of overlapping faces, only the one with the highest landmark scores."""
    faces = sorted(faces, key=lambda face: -face.scores.mean())
    faces = [faces[i] for i in suppress(np.array([box_of(face.landmarks) for face in faces]).reshape(-1, 4), SAME)]
    faces = sorted(faces, key=lambda face: -np.ptp(face.landmarks, axis=0).prod())[:most]
    return sorted(faces, key=lambda face: -face.score)
