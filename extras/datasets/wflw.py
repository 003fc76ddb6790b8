"""WFLW (Wu et al., CVPR 2018): 98 landmarks, a box and six attributes per face.

The images are below WFLW_images, the lists below WFLW_annotations.
"""

import numpy as np

from extras.datasets.archive import Archive
from extras.shared.lists import numbers
from pipnet.errors import UserError
from utils.data.table import BESIDE, complain

COUNT = 98
SUBSETS = ("largepose", "expression", "illumination", "makeup", "occlusion", "blur")
LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{}.txt"
SUBSET_LISTS = "WFLW_annotations/list_98pt_test/list_98pt_test_{}.txt"


def _line(text: str, where: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Return the image's name, which may contain spaces, `x y` 98 times with x1 y1 x2 y2 (200,), and six flags of a
    line.
    """
    words = text.split(maxsplit=2 * COUNT + 10)
    if len(words) != 2 * COUNT + 11:
        raise UserError(
            f"{where}: {len(words)} values where {2 * COUNT} coordinates, 4 of the box, 6 flags and a name belong"
        )
    values = numbers(words[: 2 * COUNT + 4], where)
    flags = words[2 * COUNT + 4 : -1]
    if set(flags) - {"0", "1"}:
        raise UserError(f"{where}: an attribute is neither 0 nor 1")
    return words[-1].strip(), values, np.array(flags) == "1"


def _subsets(archive: Archive, faces: list[tuple]) -> list[str]:
    """Return the subsets of each test face, as (name, values, ...).

    The subset lists repeat a face's 196 coordinates and its image. A photograph may show several faces, so the first
    coordinate and the image together tell the face.
    """
    rows: dict[tuple[str, float], list[int]] = {}
    for index, (name, values, *_) in enumerate(faces):
        rows.setdefault((name, float(values[0])), []).append(index)
    subsets = [["test"] for _ in faces]
    for subset in SUBSETS:
        for where, text in archive.lines(SUBSET_LISTS.format(subset)):
            words = text.split(maxsplit=2 * COUNT)
            key = words[-1].strip(), float(numbers(words[:1], where)[0])
            if key not in rows:
                raise UserError(f"{where}: no face of {LISTS.format('test')} has this first coordinate and image")
            for index in rows[key]:
                subsets[index].append(subset)
    return [BESIDE.join(dict.fromkeys(names)) for names in subsets]


def parse_wflw(archive: Archive) -> None:
    """Add train, test with the annotated boxes; the states are the six attributes. A test face may be in several SUBSETS."""
    for split in ("train", "test"):
        faces = []
        for where, text in archive.lines(LISTS.format(split)):
            with archive.checked():
                faces.append((*_line(text, where), where))
        complain(archive.faults)
        subsets = _subsets(archive, faces) if split == "test" else [split] * len(faces)
        for (name, values, states, where), subset in zip(faces, subsets, strict=True):
            with archive.checked():
                image, points = archive.file(name, where, "WFLW_images"), values[:-4].reshape(COUNT, 2)
                archive.add(split, image, subset, name, points, where, values[-4:], states=states)
