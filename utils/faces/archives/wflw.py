"""WFLW (Wu et al., CVPR 2018): 98 landmarks, a box and six attributes per face.

The images are below WFLW_images, the lists below WFLW_annotations.
"""
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipnet.errors import UserError
from utils.faces.archives.lists import inside, numbered, numbers
from utils.faces.archives.records import BESIDE, Annotation, Archive, complain

COUNT = 98
ATTRIBUTES = ("pose", "expression", "illumination", "makeup", "occlusion", "blur")  # in the order of a line's 0/1 flags
SUBSETS = {"largepose": 326, "expression": 314, "illumination": 698, "makeup": 206, "occlusion": 736, "blur": 773}
WFLW = {"train": 7500, "test": 2500, **SUBSETS}
LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{}.txt"
SUBSET_LISTS = "WFLW_annotations/list_98pt_test/list_98pt_test_{}.txt"


class Line(NamedTuple):
    """A face of a list, as annotated."""
    landmarks: np.ndarray  # (98, 2)
    box: np.ndarray        # (4,) x1 y1 x2 y2
    states: np.ndarray     # (6,) bool
    name: str              # below WFLW_images
    where: str             # file and line


def _line(text: str, where: str) -> Line:
    """Return a parsed line: `x y` 98 times, x1 y1 x2 y2, six flags, the image's name, which may contain spaces."""
    words = text.split(maxsplit=2 * COUNT + 10)
    if len(words) != 2 * COUNT + 11:
        raise UserError(f"{where}: {len(words)} values where {2 * COUNT} coordinates, 4 of the box, 6 flags and a name belong")
    values = numbers(words[:2 * COUNT + 4], where)
    if set(flags := words[2 * COUNT + 4:-1]) - {"0", "1"}:
        raise UserError(f"{where}: an attribute is neither 0 nor 1")
    return Line(values[:2 * COUNT].reshape(COUNT, 2), values[2 * COUNT:], np.array(flags) == "1", words[-1].strip(), where)


def _subsets(root: Path, lines: list[Line]) -> list[str]:
    """Return the subsets of each test face.

    The subset lists repeat a face's 196 coordinates and its image. A photograph may show several faces, so the first coordinate
    and the image together tell the face.
    """
    rows: dict[tuple[float, str], list[int]] = {}
    for index, line in enumerate(lines):
        rows.setdefault((float(line.landmarks[0, 0]), line.name), []).append(index)
    subsets = [["test"] for _ in lines]
    for name in SUBSETS:
        for where, text in numbered(inside(root, SUBSET_LISTS.format(name), str(root)), optional=True):
            words = text.split(maxsplit=2 * COUNT)
            key = (float(numbers(words[:1], where)[0]), words[-1].strip())
            if key not in rows:
                raise UserError(f"{where}: no face of {LISTS.format('test')} has this first coordinate and image")
            for index in rows[key]:
                subsets[index].append(name)
    return [BESIDE.join(dict.fromkeys(names)) for names in subsets]


def parse_wflw(archive: Archive) -> None:
    """Add train, test with the annotated boxes; the states are ATTRIBUTES. A test face may be in several SUBSETS."""
    root = archive.root
    for split in ("train", "test"):
        lines = []
        for where, text in numbered(inside(root, LISTS.format(split), str(root)), optional=True):
            with archive.checked():
                lines.append(_line(text, where))
        complain(archive.faults)
        subsets = _subsets(root, lines) if split == "test" else [split] * len(lines)
        for line, subset in zip(lines, subsets, strict=True):
            with archive.checked():
                image = inside(root, line.name, line.where, "WFLW_images")
                if not archive.lacks(image):
                    annotation = Annotation(line.landmarks, line.where, line.box, states=line.states)
                    archive.add(split, image, subset, line.name, annotation)
