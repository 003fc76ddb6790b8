"""WFLW (Wu et al., CVPR 2018): 98 landmarks, a box and six attributes a face; images below WFLW_images, lists below
WFLW_annotations."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipnet.errors import UserError
from utils.data.parsers.records import BESIDE, Splits, complain, inside, numbers, read_lines, record, whole

COUNT = 98
ATTRIBUTES = ("pose", "expression", "illumination", "makeup", "occlusion", "blur")  # in the order of a line's 0/1 flags
SUBSETS = {"largepose": 326, "expression": 314, "illumination": 698, "makeup": 206, "occlusion": 736, "blur": 773}
WFLW = {"train": 7500, "test": 2500, **SUBSETS}
LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{}.txt"
SUBSET_LISTS = "WFLW_annotations/list_98pt_test/list_98pt_test_{}.txt"


class Line(NamedTuple):
    """One face of a list, as annotated."""

    landmarks: np.ndarray  # (98, 2)
    box: np.ndarray        # (4,) x1 y1 x2 y2
    states: np.ndarray     # (6,) bool
    name: str              # below WFLW_images
    where: str             # file and line


def _line(text: str, where: str) -> Line:
    """`x y` 98 times, x1 y1 x2 y2, six flags, the image's name (which may hold spaces)."""
    words = text.split(maxsplit=2 * COUNT + 10)
    if len(words) != 2 * COUNT + 11:
        raise UserError(f"{where}: {len(words)} values where {2 * COUNT} coordinates, 4 of the box, 6 flags and a name belong")
    values = numbers(words[:2 * COUNT + 4], where)
    if set(flags := words[2 * COUNT + 4:-1]) - {"0", "1"}:
        raise UserError(f"{where}: an attribute that is neither 0 nor 1")
    return Line(values[:2 * COUNT].reshape(COUNT, 2), values[2 * COUNT:], np.array(flags) == "1", words[-1].strip(), where)


def _subsets(root: Path, lines: list[Line]) -> list[str]:
    """The subsets of each test face. Their lists repeat its 196 coordinates and its name, of which the first and the name say
    which face of the test list it is: a photograph may hold several."""
    rows: dict[tuple[float, str], list[int]] = {}
    for index, line in enumerate(lines):
        rows.setdefault((float(line.landmarks[0, 0]), line.name), []).append(index)
    subsets = [["test"] for _ in lines]
    for name in SUBSETS:
        file = inside(root, SUBSET_LISTS.format(name), str(root))
        for number, text in enumerate(read_lines(file) if file.is_file() else [], 1):
            if not text.strip():
                continue
            where, words = f"{file}, line {number}", text.split(maxsplit=2 * COUNT)
            key = (float(numbers(words[:1], where)[0]), words[-1].strip())
            if key not in rows:
                raise UserError(f"{where}: no face of {LISTS.format('test')} has this first coordinate and image")
            for index in rows[key]:
                subsets[index].append(name)
    return [BESIDE.join(dict.fromkeys(names)) for names in subsets]


def parse_wflw(data_dir: Path, allow_partial: bool = False, count: int | None = COUNT, origin: float = 0.0) -> Splits:
    """{train, test}; the box is the annotated one, the states are ATTRIBUTES. Test faces bear the names of their SUBSETS."""
    root = Path(data_dir)
    splits: Splits = {"train": [], "test": []}
    absent: list[Path] = []
    for split, records in splits.items():
        lines, faults, file = [], [], inside(root, LISTS.format(split), str(root))
        for number, text in enumerate(read_lines(file) if file.is_file() else [], 1):
            try:
                if text.strip():
                    lines.append(_line(text, f"{file}, line {number}"))
            except UserError as error:
                faults.append(str(error))
        complain(faults)
        subsets = _subsets(root, lines) if split == "test" else [split] * len(lines)
        for line, subset in zip(lines, subsets, strict=True):
            image = inside(root, line.name, line.where, "WFLW_images")
            if image.is_file():
                records.append(record(image, subset, line.name, line.landmarks, origin, None, line.box, line.where,
                                      states=line.states))
            else:
                absent.append(image)
    whole(root, "WFLW", WFLW, splits, absent, allow_partial)
    return splits
