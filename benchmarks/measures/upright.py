"""Labelled faces that are missed or seen upside down, and what the own detection costs."""

from collections.abc import Iterator

import numpy as np
from measures.babies import in_pictures
from measures.false_faces import MEDIAPIPE, known, look_of
from measures.kinds import nme
from photographs import PORTRAITS, Photograph, photographs, there, without_detector

from pipnet.face import Face
from pipnet.images import read_image

# outer corners of the eyes, tip of the nose, corners of the mouth: landmarks of 68, and of MediaPipe's mesh
FIVE = {68: (36, 45, 30, 48, 54), 478: (33, 263, 1, 61, 291)}


def in_boxes(net: str, name: str, records: list[Photograph]) -> list[np.ndarray]:
    """Return the landmarks (68, 2) of each labelled face in the labels' box, turned like the face."""
    landmarker, found = without_detector(net, name, threads=1), []
    for record in records:
        (face,) = landmarker.landmarks_of(read_image(record.file), landmarker.box_of(record.landmarks)[None])
        found.append(face.landmarks)
    return found


def upside_down(landmarks: np.ndarray, truth: np.ndarray) -> bool:
    """Return whether the roll of landmarks (68 or 478, 2) differs by more than 90 degrees from that of the truth (68, 2).
    It is that of the similarity which maps five points best onto the true ones.
    """
    found, true = (points[list(FIVE[len(points)])] @ (1, 1j) for points in (landmarks, truth))
    return bool((np.conj(true - true.mean()) * (found - found.mean())).sum().real < 0)


def figures(found: list[Face | None], boxed: list[np.ndarray] | None, records: list[Photograph]) -> dict[str, str]:
    """Return the numbers of missed faces and of those upside down, and the NME of all that are found.

    boxed: the landmarks of each face in the labels' box; None: the tool has other landmarks than the labels.
    """
    places = [place for place, face in enumerate(found) if face is not None]
    turned = sum(upside_down(found[place].landmarks, records[place].landmarks) for place in places)
    values = {"faces": f"{len(records)}", "missed": f"{len(records) - len(places)}", "upside down": f"{turned}"}
    if boxed and places:
        errors = [
            [nme(points, records[place].landmarks) for points in (boxed[place], found[place].landmarks)]
            for place in places
        ]
        given, own = np.mean(errors, 0)
        values |= {
            "NME %, labels' box": f"{given:.2f}",
            "NME %, own detection": f"{own:.2f}",
            "gap": f"{own - given:.2f}",
        }
    return values


def upright(*nets: str) -> Iterator[dict]:
    """Yield how many labelled faces nets miss, how many they see upside down, and what the own detection costs.

    The faces are upright, but for some babies who lie. Upside down: the roll differs by more than 90 degrees from the
    label's. The NME is that of the faces that are found, also upside down: in the labels' box, turned like the face, and
    from the own detection; the gap is their difference. A NET is as in the other measures, or `mediapipe`, whose
    landmarks are not the labels', so that it has no NME.
    """
    names, named = there(*PORTRAITS), known(nets)
    for name in names:
        records = photographs(name, PORTRAITS[name])
        for title, net in named.items():
            found = in_pictures(look_of(net, name), records)
            boxed = None if net == MEDIAPIPE else in_boxes(net, name, records)
            yield {"photographs": name, "net": title, **figures(found, boxed, records)}
