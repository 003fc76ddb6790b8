"""AFLW (Koestinger et al., 2011) in the split of CCL (Zhu et al., CVPR 2016): 19 landmarks with visibility.

The images are below flickr/, the annotation is AFLWinfo_release.mat.
"""

import numpy as np

from extras.datasets.archive import Archive
from extras.datasets.mat import read_mat, values
from extras.shared.lists import path_inside
from pipnet.errors import UserError
from utils.data.table import BESIDE

COUNT = 19
TRAIN = 20000  # faces at the start of the permutation `ra`
INFO = "AFLWinfo_release.mat"


def parse_aflw(archive: Archive) -> None:
    """Add train, test in the order of `ra`. Test faces with 19 visible landmarks are also `frontal`.

    Hidden landmarks have coordinates too. Faces of one photograph share an identity; the official split may separate
    them.
    """
    file = path_inside(archive.root, INFO, str(archive.root))
    box, data, mask, cells, order = read_mat(file, "bbox", "data", "mask_new", "nameList", "ra")
    box = values(box, (-1, 4), f"{file}: bbox")[:, [0, 2, 1, 3]]  # stored as x1 x2 y1 y2
    faces = len(box)
    # stored: all x, all y
    points = values(data, (faces, 2 * COUNT), f"{file}: data").reshape(faces, 2, COUNT).swapaxes(1, 2)
    visible = values(mask, (faces, COUNT), f"{file}: mask_new") != 0
    order = values(order.reshape(-1), (faces,), f"{file}: ra").astype(np.int64) - 1  # stored from 1
    if not np.array_equal(np.sort(order), np.arange(faces)):
        raise UserError(f"{file}: ra is not a permutation of 1 to {faces}; fetch the file again")
    names = [_text(cell) for cell in cells.ravel()]
    if len(names) != faces:
        raise UserError(f"{file}: nameList holds {len(names)} names for {faces} faces; fetch the file again")
    for place, index in enumerate(order.tolist()):
        split, where = "train" if place < TRAIN else "test", f"{file}, face {index + 1}"
        with archive.checked():
            image = archive.file(names[index], where, "flickr")
            frontal = split == "test" and visible[index].all()
            subset = BESIDE.join([split, "frontal"]) if frontal else split
            archive.add(split, image, subset, names[index], points[index], where, box[index], visible=visible[index])


def _text(cell) -> str:
    """Return the string in a MATLAB cell, which scipy wraps in arrays; '' for a cell without a string."""
    while isinstance(cell, np.ndarray) and cell.size == 1:
        cell = cell.ravel()[0]
    return str(cell) if isinstance(cell, str) else ""
