"""LMK: 300W and WFLW as the IRNet fork offers them ready made (LMK.zip), which is also what its own preparation leaves.

images/{train,test}/ hold its crops, the landmarks' box 1.1 times as large without its aspect; train.txt and test.txt a line a
face: the crop's path where it was made, then 68 times `x y` in [0, 1] of the crop; indices.txt the mean face.
"""

import re
from pathlib import Path

from pipnet.errors import UserError
from pipnet.images import read_image
from utils.data.parsers.records import BESIDE, Splits, complain, inside, numbers, read_lines, record, whole
from utils.data.parsers.w300 import PARTS_300W, photograph

COUNT = 68
LMK = {"train": 13148, "test": 689}
SUBSETS = {part.replace("/", "_"): row.subset for part, row in PARTS_300W.items()}  # by how a crop's name begins


def _size(image: Path) -> tuple[int, int]:
    """Width and height; of a damaged image, which preparation leaves out, those of the release."""
    try:
        return read_image(image).shape[1::-1]
    except UserError:
        return 256, 256


def parse_lmk(data_dir: Path, allow_partial: bool = False, count: int | None = COUNT, origin: float = 0.5) -> Splits:
    """{train, test} in px of the crops, which are the pictures here; what is not 300W's by its name is WFLW's.

    The fork divides 1-based coordinates, truncated, by the sides of a crop that begins at a whole pixel counted from 0. On
    average that is the frame of continuous px, so nothing is shifted.
    """
    root = Path(data_dir)
    splits: Splits = {"train": [], "test": []}
    absent, faults = [], []
    for split, records in splits.items():
        file = inside(root, f"{split}.txt", str(root))
        for number, line in enumerate(read_lines(file) if file.is_file() else [], 1):
            where, words = f"{file}, line {number}", line.rsplit(maxsplit=2 * COUNT)
            try:
                if not words:
                    continue
                if len(words) != 2 * COUNT + 1:
                    raise UserError(f"{where}: {len(words)} words where the path of a crop and {2 * COUNT} coordinates belong")
                name = re.split(r"[\\/]", words[0])[-1]
                image = inside(root, f"images/{split}/{name}", where)
                if not image.is_file():
                    absent.append(image)
                    continue
                points = numbers(words[1:], where).reshape(COUNT, 2) * _size(image)
                subset = next((subset for part, subset in SUBSETS.items() if name.startswith(f"{part}_")), None)
                identity = photograph(image.stem) if subset else image.stem
                records.append(record(image, BESIDE.join([split, subset or "wflw"]), identity, points, origin, where=where))
            except UserError as error:
                faults.append(str(error))
    complain(faults)
    whole(root, "the IRNet fork's LMK", LMK, splits, absent, allow_partial)
    return splits
