"""Faces that lie or stand on their head, searched in the turned picture."""
import numpy as np

from pipnet.detector import suppress
from pipnet.geometry import box_of, carry, invert, turn_picture

ROLLS = (90, 180, 270)  # degrees, clockwise, of the faces that are searched
SAME = 0.3              # IoU from which two faces found in different turns are one


def turned_faces(landmarker, image: np.ndarray, second_crop: bool = True) -> list:
    """`Face`s that a Landmarker's detector finds in the image (H, W, 3) turned by 90, 180 and 270 degrees, in px of the image."""
    faces = []
    for roll in ROLLS:
        picture, matrix = turn_picture(image, -np.radians(roll))
        boxes, scores = landmarker.detect(picture)
        boxes = np.column_stack([carry(boxes, invert(matrix)), np.full(len(boxes), roll)])
        faces += landmarker.faces_of(image, boxes, scores, second_crop)
    return best(faces, landmarker.max_faces)


def best(faces: list, most: int | None) -> list:
    """Of faces that lie on each other the one with the highest landmark scores; of these the `most` largest, ordered by score."""
    faces = sorted(faces, key=lambda face: -face.scores.mean())
    faces = [faces[i] for i in suppress(np.array([box_of(face.landmarks) for face in faces]).reshape(-1, 4), SAME)]
    faces = sorted(faces, key=lambda face: -np.ptp(face.landmarks, axis=0).prod())[:most]
    return sorted(faces, key=lambda face: -face.score)
