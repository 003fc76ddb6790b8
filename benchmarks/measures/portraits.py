"""Photographs of one labelled face each: faces that are missed, fail or are seen upside down."""

from collections.abc import Callable, Iterator

import numpy as np
from measures.kinds import nme
from measures.others import OTHER, as_faces
from photographs import (
    PORTRAITS,
    Photograph,
    landmarker_for,
    photographs,
    place_of,
    require,
    there,
    titled,
    without_detector,
)

from pipnet.face import Face, boxes_of
from pipnet.images import read_image

Look = Callable[[np.ndarray], list[Face]]  # picture (H, W, 3) uint8 BGR -> its faces
FAILED = 10.0  # NME in % beyond which a face counts as failed
# outer corners of the eyes, tip of the nose, corners of the mouth: landmarks of 68, and of MediaPipe's mesh
FIVE = {68: (36, 45, 30, 48, 54), 478: (33, 263, 1, 61, 291)}


def look_of(net: str, name: str | None = None) -> Look:
    """Return a function from a picture to the faces that a net, or another tool, finds in it.
    name: the labelled set of the picture.
    """
    return as_faces(OTHER[net](None)) if net in OTHER else landmarker_for(name, net, threads=1)


def in_pictures(look: Look, records: list[Photograph]) -> list[Face | None]:
    """Return what a tool finds of each labelled face in the whole picture, None if it misses the face."""
    found = []
    for record in records:
        faces = look(read_image(record.file))
        place = place_of(record, boxes_of(faces)) if faces else None
        found.append(None if place is None else faces[place])
    return found


def in_boxes(net: str, records: list[Photograph], name: str | None = None) -> list[tuple[Face, bool]]:
    """Return the face in the labels' box, turned like the face, and whether the net takes it for a face."""
    landmarker, found = without_detector(net, name, threads=1), []
    for record in records:
        (face,) = landmarker.landmarks_of(read_image(record.file), landmarker.box_of(record.landmarks)[None])
        found.append((face, bool(landmarker.is_face(face))))
    return found


# --------------------------------------------------------------------------------------------------------------- babies
def baby_figures(found: list[Face | None], records: list[Photograph]) -> dict[str, str]:
    """Return the numbers of missed and failed faces, and mean errors of those that are found, see `babies`."""
    pairs = [
        (face.landmarks, record.landmarks) for face, record in zip(found, records, strict=True) if face is not None
    ]
    errors = np.array([nme(points, truth) for points, truth in pairs])
    sides = [np.sqrt(np.prod(np.ptp(truth, axis=0))) for _, truth in pairs]
    eyes = [np.linalg.norm(truth[45] - truth[36]) for _, truth in pairs]
    missed = len(records) - len(pairs)
    return {
        "faces": f"{len(records)}",
        "missed": f"{missed}",
        f"missed or beyond {FAILED:.0f} %": f"{missed + (errors > FAILED).sum()}",
        "NME %": f"{errors.mean():.2f}",
        "% of the box": f"{np.mean(errors * eyes / sides):.2f}",
    }


def babies(*nets: str) -> Iterator[dict]:
    """Yield how many babies each net misses, of how many its landmarks fail, and the errors of those that are found.

    The face is found by the whole pipeline, or given as the labels' box, turned like the face. Many are seen from the side,
    where the distance of the eyes, by which the NME is divided, is small: `% of the box` is the error in % of the square root
    of the area of the labels' box.
    """
    require("BABIES")
    records = photographs("BABIES", "train")
    for title, net in titled(nets).items():
        boxed = [face if is_face else None for face, is_face in in_boxes(net, records)]
        for way, found in {"whole pipeline": in_pictures(look_of(net), records), "labels' box": boxed}.items():
            yield {"net": f"{title}, {way}", **baby_figures(found, records)}


# -------------------------------------------------------------------------------------------------------------- upright
def upside_down(landmarks: np.ndarray, truth: np.ndarray) -> bool:
    """Return whether the roll of landmarks (68 or 478, 2) differs by more than 90 degrees from that of the truth (68, 2).
    It is that of the similarity which maps five points best onto the true ones.
    """
    found, true = (points[list(FIVE[len(points)])] @ (1, 1j) for points in (landmarks, truth))
    return bool((np.conj(true - true.mean()) * (found - found.mean())).sum().real < 0)


def upright_figures(found: list[Face | None], boxed: list[np.ndarray], records: list[Photograph]) -> dict[str, str]:
    """Return the numbers of missed faces and of those upside down, and the NME of all that are found.

    boxed: the landmarks of each face in the labels' box; empty: the tool has other landmarks than the labels.
    """
    places = [place for place, face in enumerate(found) if face is not None]
    turned = sum(upside_down(found[place].landmarks, records[place].landmarks) for place in places)
    values = {"faces": f"{len(records)}", "missed": f"{len(records) - len(places)}", "upside down": f"{turned}"}
    if boxed and places:
        own = np.mean([nme(found[place].landmarks, records[place].landmarks) for place in places])
        given = np.mean([nme(boxed[place], records[place].landmarks) for place in places])
        values |= {"NME %, labels' box": f"{given:.2f}", "NME %, own detection": f"{own:.2f}"}
    return values


def upright(*nets: str) -> Iterator[dict]:
    """Yield how many labelled faces nets miss, how many they see upside down, and what the own detection costs.

    The faces are upright, but for some babies who lie. Upside down: the roll differs by more than 90 degrees from the
    label's. The NME is that of the faces that are found, also upside down: in the labels' box, turned like the face, and
    from the own detection. MediaPipe's landmarks are not the labels', so it has no NME.
    """
    names, known = there(*PORTRAITS), titled(nets)
    for name in names:
        records = photographs(name, PORTRAITS[name])
        for title, net in known.items():
            found = in_pictures(look_of(net, name), records)
            boxed = [] if net in OTHER else [face.landmarks for face, _ in in_boxes(net, records, name)]
            yield {"photographs": f"{name}, {title}", **upright_figures(found, boxed, records)}
