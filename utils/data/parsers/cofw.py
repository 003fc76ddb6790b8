"""COFW (Burgos-Artizzu et al., ICCV 2013): 29 landmarks with occlusion, images and all in two MATLAB v7.3 files, which are HDF5.

HDF5 arrays appear transposed: MATLAB's N x 87 is (87, N) here, an image of H x W x 3 is (3, W, H).
"""

from pathlib import Path

import numpy as np

from pipnet.errors import UserError
from utils.data.parsers.mat import read_mat, values
from utils.data.parsers.records import Splits, complain, inside, record, whole

COUNT = 29
COFW68 = {"test": 507}
COFW = {"train": 1345, "test": 507}
FILES = {"train": ("COFW_train_color.mat", "Tr"), "test": ("COFW_test_color.mat", "T")}  # file, ending of its variables


def _h5py():
    try:
        import h5py
    except ImportError:
        raise UserError("COFW's .mat files need the package h5py: pip install h5py") from None
    return h5py


def _damaged(file: Path, error: Exception) -> UserError:
    return UserError(f"{file}: not a readable MATLAB v7.3 file ({' '.join(str(error).split())[:100]}); fetch it again")


def read_image(image: Path) -> np.ndarray:
    """(H, W, 3) uint8 BGR of FILE.mat/0001, the first of the cell array in that file, which is grey or RGB, of 8 or 16 bits."""
    h5py, file = _h5py(), image.parent
    key = next(f"Is{end}" for name, end in FILES.values() if name == file.name)
    where = f"{file}, {key} {int(image.name)}"
    try:
        with h5py.File(file, "r") as mat:
            image = mat[mat[key][()].ravel()[int(image.name) - 1]][()].T  # (H, W) or (H, W, 3)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(file, error) from None
    if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3) or image.ndim == 3 and image.shape[2] not in (1, 3):
        raise UserError(f"{where}: {image.dtype} {image.shape} is not an image")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)  # as OpenCV reads such files
    image = image if image.ndim == 3 else image[..., None]
    return np.ascontiguousarray(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., ::-1])


def _tables(file: Path, end: str) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) boxes x y w h and (N, 87) x, y and occlusion of the landmarks, as MATLAB shows them."""
    h5py = _h5py()
    try:
        with h5py.File(file, "r") as mat:
            if missing := [key for key in (f"Is{end}", f"bboxes{end}", f"phis{end}") if key not in mat]:
                raise UserError(f"{file}: no {missing[0]} in it; is it the colour file of COFW?")
            images, boxes, phis = mat[f"Is{end}"].size, mat[f"bboxes{end}"][()].T, mat[f"phis{end}"][()].T
        boxes, phis = np.asarray(boxes, np.float64), np.asarray(phis, np.float64)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(file, error) from None
    if boxes.shape != (images, 4) or phis.shape != (images, 3 * COUNT):
        raise UserError(f"{file}: {images} images, boxes {boxes.shape} and landmarks {phis.shape} do not belong together")
    if not np.isfinite(phis).all():
        raise UserError(f"{file}: landmarks of face {int(np.argmin(np.isfinite(phis).all(1))) + 1} are not finite")
    return boxes, phis


def parse_cofw(data_dir: Path, allow_partial: bool = False, count: int | None = COUNT, origin: float = 1.0) -> Splits:
    """{train, test}. A box x y w h reaches from x to x + w - 1; a landmark flagged as occluded is not visible."""
    root = Path(data_dir)
    splits: Splits = {"train": [], "test": []}
    for split, (name, end) in FILES.items():
        file = inside(root, name, str(root))
        if not file.is_file():
            continue
        for index, (box, phi) in enumerate(zip(*_tables(file, end), strict=True)):
            image, edges = file / f"{index + 1:04d}", np.concatenate([box[:2], box[:2] + box[2:] - 1])
            splits[split].append(record(
                image, split, f"{split}/{image.name}", phi[:2 * COUNT].reshape(2, COUNT).T, origin, phi[2 * COUNT:] == 0, edges,
                str(image)))
    whole(root, "COFW", COFW, splits, [], allow_partial)
    return splits


def parse_cofw68(data_dir: Path, allow_partial: bool = False, count: int | None = 68, origin: float = 1.0) -> Splits:
    """{test}: COFW's test images with 68 landmarks and occlusion (Ghiasi and Fowlkes, 2015) from COFW68_Data/."""
    root = Path(data_dir)
    data, archive = root / "COFW68_Data", inside(root, FILES["test"][0], str(root))
    file = inside(root, "COFW68_Data/cofw68_test_bboxes.mat", str(root))
    boxes = values(read_mat(file, "bboxes")[0], (-1, 4), f"{file}: bboxes")
    images = len(_tables(archive, "T")[0])
    if len(boxes) > images:
        raise UserError(f"{file}: {len(boxes)} boxes for the {images} images of {archive}")
    splits: Splits = {"test": []}
    absent, faults = [], []
    for index, box in enumerate(boxes):
        mat = inside(root, f"COFW68_Data/test_annotations/{index + 1}_points.mat", str(data))
        if not mat.is_file():
            absent.append(mat)
            continue
        try:
            points, hidden = read_mat(mat, "Points", "Occ")
            points = values(points, (68, 2), f"{mat}: Points")
            visible = values(hidden.reshape(-1), (68,), f"{mat}: Occ") == 0
            image, edges = archive / f"{index + 1:04d}", np.concatenate([box[:2], box[:2] + box[2:] - 1])
            splits["test"].append(record(image, "test", f"test/{image.name}", points, origin, visible, edges, str(mat)))
        except UserError as error:
            faults.append(str(error))
    complain(faults)
    whole(root, "COFW-68", COFW68, splits, absent, allow_partial)
    return splits
