"""Babies, many of whom lie or are half covered: how many of them do the shipped landmark nets find?"""

from collections.abc import Callable, Iterator

import numpy as np
from measures.kinds import nme
from measures.others import apart
from measures.traits import error
from photographs import Photograph, photographs, place_of, require, titled, without_detector

from pipnet.face import Face, boxes_of
from pipnet.images import read_image
from pipnet.landmarker import Landmarker
from utils.settings.config import read_defaults

LAYOUT = read_defaults().layouts.load("68")
Look = Callable[[np.ndarray], list[Face]]  # picture (H, W, 3) uint8 BGR -> its faces
FAILED = 10.0  # NME in % beyond which a face counts as failed


def in_pictures(look: Look, records: list[Photograph]) -> list[Face | None]:
    """Return what a tool finds of each labelled face in the whole picture, None if it misses the face."""
    found = []
    for record in records:
        faces = look(read_image(record.file))
        place = place_of(record, boxes_of(faces)) if faces else None
        found.append(None if place is None else faces[place])
    return found


def in_boxes(net: str, records: list[Photograph]) -> list[Face | None]:
    """Return what the net finds in the labels' box, turned like the face, None where its score is that of background."""
    landmarker, found = without_detector(net, threads=1), []
    for record in records:
        (face,) = landmarker.landmarks_of(read_image(record.file), landmarker.box_of(record.landmarks)[None])
        found.append(face if landmarker.is_face(face) else None)
    return found


def figures(found: list[Face | None], records: list[Photograph]) -> dict[str, str]:
    """Return the numbers of missed and failed faces, and mean errors of those that are found, see `babies`."""
    pairs = [(face.landmarks, record) for face, record in zip(found, records, strict=True) if face is not None]
    landmarks, seen = zip(*pairs, strict=True)
    errors = np.array([nme(points, record.landmarks) for points, record in pairs])
    offsets = apart(np.array(landmarks) @ (1, 1j), list(seen))
    middle = np.median(offsets.real, 0) + 1j * np.median(offsets.imag, 0)
    missed = len(records) - len(pairs)
    return {
        "faces": f"{len(records)}",
        "missed": f"{missed}",
        f"missed or beyond {FAILED:.0f} %": f"{missed + (errors > FAILED).sum()}",
        "NME %": f"{errors.mean():.2f}",
        "% of the box": f"{np.mean([error(LAYOUT, points, record.landmarks) for points, record in pairs]):.2f}",
        "aligned": f"{100 * abs(offsets - middle).mean():.2f}",
    }


def babies(*nets: str) -> Iterator[dict]:
    """Yield how many babies each net misses, of how many its landmarks fail, and the errors of those that are found.

    The face is found by the whole pipeline, or given as the labels' box, turned like the face. Many are seen from the side,
    where the distance of the eyes, by which the NME is divided, is small: `% of the box` is the error in % of the square root
    of the area of the labels' box. `aligned` is the NME after the median offset of each landmark in the frame of the eyes
    is subtracted, since these labels have conventions of their own.
    """
    require("BABIES")
    records = photographs("BABIES", "train")
    for title, net in titled(nets).items():
        whole = in_pictures(Landmarker(net, threads=1), records)
        for way, found in {"whole pipeline": whole, "labels' box": in_boxes(net, records)}.items():
            yield {"face": way, "net": title, **figures(found, records)}
