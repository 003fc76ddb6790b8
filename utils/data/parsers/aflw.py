"""AFLW (Koestinger et al., 2011) in the split of CCL (Zhu et al., CVPR 2016): 19 landmarks with visibility; images below
flickr/, the annotation in AFLWinfo_release.mat."""

from pathlib import Path

import numpy as np

from pipnet.errors import UserError
from utils.data.parsers.mat import read_mat, values
from utils.data.parsers.records import BESIDE, Splits, inside, record, whole

COUNT = 19
TRAIN = 20000  # the first of the permutation `ra`
AFLW = {"train": TRAIN, "test": 4386, "frontal": 1314}
INFO = "AFLWinfo_release.mat"


def parse_aflw(data_dir: Path, allow_partial: bool = False, count: int | None = COUNT, origin: float = 0.0) -> Splits:
    """{train, test} in the order of `ra`, which counts faces from 1. Test faces with all 19 landmarks visible are `frontal`.

    Coordinates are known for hidden landmarks too. Faces of one photograph share an identity; such may lie in both splits.
    """
    root = Path(data_dir)
    file = inside(root, INFO, str(root))
    box, data, mask, names, order = read_mat(file, "bbox", "data", "mask_new", "nameList", "ra")
    box = values(box, (-1, 4), f"{file}: bbox")[:, [0, 2, 1, 3]]  # there x1 x2 y1 y2
    faces = len(box)
    points = values(data, (faces, 2 * COUNT), f"{file}: data").reshape(faces, 2, COUNT).swapaxes(1, 2)  # there all x, then all y
    visible = values(mask, (faces, COUNT), f"{file}: mask_new") != 0
    order = values(order.reshape(-1), (faces,), f"{file}: ra").astype(np.int64) - 1
    if not np.array_equal(np.sort(order), np.arange(faces)):
        raise UserError(f"{file}: ra is not a permutation of 1 to {faces}")
    names = [_text(cell) for cell in names.ravel()]
    if len(names) != faces:
        raise UserError(f"{file}: nameList holds {len(names)} names for {faces} faces")
    splits: Splits = {"train": [], "test": []}
    absent = []
    for place, index in enumerate(order.tolist()):
        split, where = "train" if place < TRAIN else "test", f"{file}, face {index + 1}"
        image = inside(root, names[index], where, "flickr")
        if not image.is_file():
            absent.append(image)
            continue
        subset = BESIDE.join([split] + ["frontal"] * (split == "test" and bool(visible[index].all())))
        splits[split].append(record(image, subset, names[index], points[index], origin, visible[index], box[index], where))
    whole(root, "AFLW", AFLW, splits, absent, allow_partial)
    return splits


def _text(cell) -> str:
    """The string in a cell, which scipy wraps in arrays; '' where it holds none."""
    while isinstance(cell, np.ndarray) and cell.size == 1:
        cell = cell.ravel()[0]
    return str(cell) if isinstance(cell, str) else ""
