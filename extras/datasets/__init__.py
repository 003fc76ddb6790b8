"""Parsers of official annotation files. A dataset is one parser file here and one row of DATASETS.

Parsers return continuous image px (see pipnet/geometry.py): annotated coordinates minus the row's `origin` (the
annotated coordinate of the first pixel's centre) plus half a pixel. A parser checks the whole annotation and raises
UserError for a fault before any image is decoded.
"""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from extras.datasets.aflw import AFLW, parse_aflw
from extras.datasets.archive import Archive
from extras.datasets.cofw import COFW, COFW68, parse_cofw, parse_cofw68, read_cofw
from extras.datasets.five import CELEBA, MTFL, parse_celeba, parse_mtfl
from extras.datasets.lapa import JD106, LAPA, parse_jd106, parse_lapa
from extras.datasets.lmk import LMK, parse_lmk
from extras.datasets.menpo import MENPO, parse_menpo
from extras.datasets.merged import MERGED, PEPPA, parse_merged, parse_peppa
from extras.datasets.naming import split_folders
from extras.datasets.packed import unpack
from extras.datasets.points import parse_points
from extras.datasets.row import Dataset
from extras.datasets.tables import parse_coco, parse_csv
from extras.datasets.tools import parse_cvat, parse_label_studio
from extras.datasets.w300 import PARTS_300W, PRIVATE, parse_300w, parse_300w_private
from extras.datasets.w300lp import W300LP, parse_300wlp
from extras.datasets.w300vw import W300VW, parse_300vw, read_frame
from extras.datasets.wflw import ATTRIBUTES, WFLW, parse_wflw
from pipnet.errors import UserError
from pipnet.files import read_bytes
from utils.data.lists import walk
from utils.data.makers import RawSet

__all__ = ["DATASETS", "PARTS_300W", "Archive", "Dataset", "infer", "read_within", "unpack"]

LABEL_STUDIO = "label-studio"
PRIVATE_300W, FORK = "300w-private", "lmk"  # sets that may be in one folder with 300W
EYES, BOX = ("interocular",), ("box",)  # norms
ALL = ("train", "val", "test")
GSSL_COFW = (1, 0.15, 0.15, 0.15, 0.15)
OWN = ("identity",)  # options of users' own sets
DATASETS = {
    "300w": Dataset(
        parse_300w,
        "300W",
        "68",
        1.0,
        {part.subset: part.count for part in PARTS_300W.values()},
        label_shift=0.75,
        norms=("interocular", "interpupil"),
    ),
    "wflw": Dataset(
        parse_wflw,
        "WFLW",
        "98",
        0.0,
        WFLW,
        signs=("WFLW_annotations",),
        states=ATTRIBUTES,
        clipped=True,
        gssl=(0, 0.1, -0.1, 0.1, 0.1),
        norms=EYES,
    ),
    "cofw": Dataset(
        parse_cofw,
        "COFW",
        "29",
        1.0,
        COFW,
        signs=("COFW_*_color.mat",),
        gssl=GSSL_COFW,
        norms=("interocular", "interpupil"),
    ),
    "cofw68": Dataset(parse_cofw68, "COFW-68", "68", 1.0, COFW68, ("test",), gssl=GSSL_COFW, norms=EYES),
    "aflw": Dataset(
        parse_aflw,
        "AFLW",
        "19",
        0.0,
        AFLW,
        signs=("AFLWinfo_release.mat",),
        clipped=True,
        norms=("box", "diagonal", "size"),
    ),
    "lapa": Dataset(parse_lapa, "LaPa", "106", 0.0, LAPA, ALL, ("train/landmarks/*.txt",), norms=EYES),
    "300wlp": Dataset(parse_300wlp, "300W-LP", "68", 0.5, W300LP, ("train",), ("AFW_Flip",), norms=BOX),
    "300w+wflw": Dataset(parse_merged, "300W and WFLW", "68", None, {**MERGED, "wflw": 7500}, norms=EYES),
    "300w+wflw-all": Dataset(
        partial(parse_merged, whole=True), "300W and WFLW", "68", None, {**MERGED, "wflw": 10000}, norms=EYES
    ),
    "peppa": Dataset(parse_peppa, "Peppa's tree", "68", None, PEPPA, ("train",), options=("frame_step",), norms=EYES),
    FORK: Dataset(parse_lmk, "the IRNet fork's LMK", "68", 0.5, LMK, signs=("indices.txt",), norms=EYES),
    PRIVATE_300W: Dataset(
        parse_300w_private,
        "300W's private test set",
        "68",
        1.0,
        {part.subset: part.count for part in PRIVATE.values()},
        ("test",),
        ("01_Indoor",),
        norms=EYES,
    ),
    "300vw": Dataset(
        parse_300vw,
        "300VW",
        "68",
        1.0,
        W300VW,
        signs=("[0-9][0-9][0-9]/annot", "[0-9][0-9][0-9]_annot"),
        options=("frame_step",),
        norms=EYES,
    ),
    "menpo": Dataset(parse_menpo, "Menpo's faces of 68 landmarks", "68", 1.0, MENPO[68], norms=("diagonal",)),
    "menpo-profile": Dataset(parse_menpo, "Menpo's faces of 39 landmarks", "39", 1.0, MENPO[39], norms=("diagonal",)),
    "jd106": Dataset(parse_jd106, "JD-landmark", "106", 0.0, JD106, (), ("Training_data", "Test_data"), norms=BOX),
    "celeba": Dataset(
        parse_celeba,
        "CelebA",
        "5",
        0.0,
        CELEBA,
        ALL,
        ("list_landmarks_align_celeba.txt", "*/list_landmarks_align_celeba.txt"),
        norms=EYES,
    ),
    "celeba-wild": Dataset(
        partial(parse_celeba, wild=True),
        "CelebA",
        "5",
        0.0,
        CELEBA,
        ALL,
        ("list_landmarks_celeba.txt", "*/list_landmarks_celeba.txt", "celeba_bboxes.txt"),
        gssl=(1, 0.1, -0.15, 0.1, 0.1),
    ),
    "mtfl": Dataset(parse_mtfl, "MTFL", "5", 0.0, MTFL, signs=("net_7876",), norms=EYES),
    "points": Dataset(parse_points, "a folder of .pts files", None, 0.0, None, (), options=OWN),
    "csv": Dataset(parse_csv, "a CSV", None, 0.0, None, (), ("*.csv",), options=OWN),
    "coco": Dataset(parse_coco, "COCO keypoints", None, 0.0, None, (), ("*.json", "annotations/*.json"), options=OWN),
    LABEL_STUDIO: Dataset(parse_label_studio, "an export of Label Studio", None, 0.5, None, (), options=OWN),
    "cvat": Dataset(parse_cvat, "an export of CVAT", None, 0.5, None, (), ("*.xml",), options=OWN),
}


FORMATS = {".csv": "csv", ".json": "coco", ".xml": "cvat"}  # {ending of a file of labels: how it is read}
# {set: the set whose archive holds it too}
HOSTS = {"cofw68": "cofw", "celeba-wild": "celeba", "300w-private": "300w", "menpo-profile": "menpo"}


def add(name: str, code: Any) -> None:
    """Add a dataset from outside of the checkout: a `Dataset`, or the parser of users' own sets, whose faces it adds to an
    `Archive` in continuous px; names of the points, in `archive.names`, tell their layout.
    """
    DATASETS[name] = code if isinstance(code, Dataset) else Dataset(code, name, None, 0.5, None, (), options=OWN)


def read_set(dataset: str, folder: Path, **how: Any) -> RawSet:
    """Return the faces of an archive, see `Dataset.read_set`."""
    return DATASETS[dataset].read_set(folder, **how)


def archive_of(dataset: str, folder: Path) -> Path | None:
    """Return the archive of a dataset: a folder, or one of the archives that lie in it side by side. None without one."""
    names = (dataset, HOSTS.get(dataset))
    if _likely(folder)[0] in names:
        return folder
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    found = [path for name in names if name for path in inside if name in (path.name.lower(), _likely(path)[0])]
    return found[0] if found else None


def read_within(file: Path) -> np.ndarray:
    """Return an image (H, W, 3) uint8 BGR inside a file of an archive: COFW.mat/0001, vid.avi/000001."""
    return {".mat": read_cofw, ".avi": read_frame}[file.parent.suffix](file)


def infer(data_dir: Path) -> str:
    """Return the row of DATASETS that a folder looks like: by signs; 300w for its tree; else points. A file: by its
    ending. UserError for one that holds no labels, and for CelebA with the lists of both its sets.
    """
    found = _likely(data_dir)
    if {"celeba", "celeba-wild"} <= {*found}:
        raise UserError(
            f"{data_dir} holds aligned pictures and pictures in the wild of CelebA, which PIPNet's authors take; name one: "
            f"--dataset celeba or celeba-wild, with --data-dir {data_dir}"
        )
    return found[0]


def _likely(data_dir: Path) -> list[str]:
    """Return the rows of DATASETS that a folder or file looks like, the likeliest first, see `infer`."""
    if data_dir.is_file():
        return [_format_of(data_dir)]
    tree = {p.name.lower() for p in data_dir.iterdir() if p.is_dir()} & {"afw", "helen", "lfpw", "ibug"}
    official = [name for name in _signed(data_dir) if DATASETS[name].layout]
    official = [name for name in official if not (tree and name in (PRIVATE_300W, FORK))]
    if official:
        return official
    if tree:
        return ["300w"]
    folders = [
        data_dir,
        *split_folders(data_dir),
    ]  # a user's table may be in train/, valid/ and test/, as Roboflow's is
    signed = [name for name in _signed(*folders) if not DATASETS[name].layout]
    if not signed or any(path.suffix == ".pts" for path, _ in walk(data_dir)):
        return ["points"]
    lists = signed[0] == "coco" and any(_begins_list(file) for folder in folders for file in folder.glob("*.json"))
    return [LABEL_STUDIO] if lists else signed


def _signed(*folders: Path) -> list[str]:
    """Return the rows of DATASETS of which a sign is in one of the folders."""
    return [
        name
        for name, row in DATASETS.items()
        if any(next(folder.glob(sign), None) for sign in row.signs for folder in folders)
    ]


def _format_of(file: Path) -> str:
    """Return the row of DATASETS that reads a file of labels. UserError for another file."""
    if file.suffix.lower() not in FORMATS:
        raise UserError(
            f"{file} is no file of labels ({', '.join(FORMATS)}) and no ZIP; name one, or the folder of the set"
        )
    return LABEL_STUDIO if _begins_list(file) else FORMATS[file.suffix.lower()]


def _begins_list(file: Path) -> bool:
    """Return whether a JSON file is a list, as Label Studio's, and not COCO's table."""
    with suppress(OSError):
        return read_bytes(file).lstrip()[:1] == b"["
    return False
