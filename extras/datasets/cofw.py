"""COFW (Burgos-Artizzu et al., ICCV 2013): 29 landmarks with occlusion; images and annotation in two MATLAB v7.3 (HDF5)
files.

HDF5 arrays are transposed: MATLAB's N x 87 is (87, N) here, an image H x W x 3 is (3, W, H).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from extras.datasets.archive import Archive, pixel_corners
from extras.datasets.mat import damaged, read_mat, values
from extras.shared.lists import path_inside
from pipnet.errors import UserError
from pipnet.packages import import_package
from utils.settings.memory import limited

COUNT = 29
FILES = {"train": ("COFW_train_color.mat", "Tr"), "test": ("COFW_test_color.mat", "T")}  # file, ending of its variables
# h5py's errors for a damaged file
UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError)


@contextmanager
def _opened(file: Path) -> Iterator:
    """Open a MATLAB v7.3 file. UserError without h5py, and for a damaged file."""
    h5py = import_package("h5py", "COFW's .mat files need")
    try:
        with limited(), h5py.File(file, "r") as mat:
            yield mat
    except UNREADABLE as error:
        raise damaged(file, "MATLAB v7.3", error) from None


def read_cofw(image: Path) -> np.ndarray:
    """Return image FILE.mat/NUMBER of the cell array in that file as (H, W, 3) uint8 BGR; stored grey or RGB, 8 or 16
    bits.
    """
    file, number = image.parent, int(image.name)
    key = next(f"Is{end}" for name, end in FILES.values() if name == file.name)
    with _opened(file) as mat:
        found: np.ndarray = mat[mat[key][()].ravel()[number - 1]][()].T  # (H, W) or (H, W, 3)
    if (
        found.dtype not in (np.uint8, np.uint16)
        or found.ndim not in (2, 3)
        or (found.ndim == 3 and found.shape[2] not in (1, 3))
    ):
        raise UserError(f"{file}, {key} {number}: {found.dtype} {found.shape} is not an image; fetch the file again")
    if found.dtype == np.uint16:
        found = (found >> 8).astype(np.uint8)  # as OpenCV reads 16-bit files
    found = found if found.ndim == 3 else found[..., None]
    return np.ascontiguousarray(np.repeat(found, 3, axis=2) if found.shape[2] == 1 else found[..., ::-1])


def _tables(file: Path, end: str) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes x y w h (N, 4), and x, y and occlusion of the landmarks (N, 87), as MATLAB shows them."""
    with _opened(file) as mat:
        if missing := [key for key in (f"Is{end}", f"bboxes{end}", f"phis{end}") if key not in mat]:
            raise UserError(f"{file}: no {missing[0]} in it; use the colour file of COFW")
        images = mat[f"Is{end}"].size
        boxes, phis = (np.asarray(mat[f"{name}{end}"][()].T, np.float64) for name in ("bboxes", "phis"))
    if boxes.shape != (images, 4) or phis.shape != (images, 3 * COUNT):
        raise UserError(
            f"{file}: {images} images, boxes {boxes.shape} and landmarks {phis.shape} do not belong together"
        )
    if not np.isfinite(phis).all():
        raise UserError(f"{file}: landmarks of face {int(np.argmin(np.isfinite(phis).all(1))) + 1} are not finite")
    return boxes, phis


def parse_cofw(archive: Archive) -> None:
    """Add train, test with the annotated boxes. Occluded landmarks are not visible."""
    for split, (name, end) in FILES.items():
        file = path_inside(archive.root, name, str(archive.root))
        if not file.is_file():
            continue
        for number, (box, phi) in enumerate(zip(*_tables(file, end), strict=True), 1):
            image = file / f"{number:04d}"
            points, visible = phi[: 2 * COUNT].reshape(2, COUNT).T, phi[2 * COUNT :] == 0
            with archive.checked():
                identity = f"{split}/{image.name}"
                archive.add(split, image, split, identity, points, str(image), pixel_corners(box), visible=visible)


def parse_cofw68(archive: Archive) -> None:
    """Add test: COFW's test images with 68 landmarks and occlusion (Ghiasi and Fowlkes, 2015) from COFW68_Data/."""
    root = archive.root
    pictures = path_inside(root, FILES["test"][0], str(root))
    file = path_inside(root, "COFW68_Data/cofw68_test_bboxes.mat", str(root))
    boxes = values(read_mat(file, "bboxes")[0], (-1, 4), f"{file}: bboxes")
    images = len(_tables(pictures, "T")[0])
    if len(boxes) > images:
        raise UserError(f"{file}: {len(boxes)} boxes for the {images} images of {pictures}; fetch both again")
    for number, box in enumerate(boxes, 1):
        with archive.checked():
            mat = archive.file(f"COFW68_Data/test_annotations/{number}_points.mat", str(root / "COFW68_Data"))
            points, hidden = read_mat(mat, "Points", "Occ")
            points = values(points, (68, 2), f"{mat}: Points")
            visible = values(hidden.reshape(-1), (68,), f"{mat}: Occ") == 0
            image = pictures / f"{number:04d}"
            archive.add(
                "test", image, "test", f"test/{image.name}", points, str(mat), pixel_corners(box), visible=visible
            )
