"""Datasets. A dataset is one parser file here and one row of DATASETS.

Parsers return continuous image px (see pipnet/geometry.py): annotated coordinates minus the row's `origin` (the
annotated coordinate of the first pixel's centre) plus half a pixel. A parser checks the whole annotation and raises
UserError for a fault before any image is decoded. It is imported when a set is read.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from extras.datasets.naming import split_folders
from extras.datasets.row import Dataset
from extras.shared.lists import walk
from pipnet.errors import UserError
from pipnet.files import read_bytes
from utils.data.table import RawSet

__all__ = ["DATASETS", "Dataset", "infer", "read_within", "unpack"]

LABEL_STUDIO = "label-studio"
PRIVATE_300W, FORK = "300w-private", "lmk"  # sets that may be in one folder with 300W
EYES, BOX, DIAGONAL = ("interocular",), ("box",), ("diagonal",)  # norms
PUPILS = (*EYES, "interpupil")
ALL = ("train", "val", "test")
OWN = ("identity",)  # options of users' own sets
GSSL_COFW = (1, 0.15, 0.15, 0.15, 0.15)
CELEBA = {"train": 162770, "val": 19867, "test": 19962}
LP = {"AFW": 5207, "HELEN": 37676, "IBUG": 1786, "LFPW": 16556}
W300 = Dataset(
    "w300:parse_300w",
    "300W",
    "68",
    1.0,
    {
        "afw": 337,
        "helen/trainset": 2000,
        "lfpw/trainset": 811,
        "common/helen": 330,
        "common/lfpw": 224,
        "challenge/ibug": 135,
    },
    label_shift=0.75,
    norms=PUPILS,
)
PRIVATE = Dataset(
    "w300:parse_300w_private",
    "300W's private test set",
    "68",
    1.0,
    {"indoor": 300, "outdoor": 300},
    ("test",),
    ("01_Indoor",),
    norms=EYES,
)
W300VW = Dataset(
    "w300vw:parse_300vw",
    "300VW",
    "68",
    1.0,
    {"train": 50, "category1": 31, "category2": 19, "category3": 14},  # videos, not frames
    signs=("[0-9][0-9][0-9]/annot", "[0-9][0-9][0-9]_annot"),
    options=("frame_step",),
    norms=EYES,
)
WFLW = Dataset(
    "wflw:parse_wflw",
    "WFLW",
    "98",
    0.0,
    {
        "train": 7500,
        "test": 2500,
        "largepose": 326,
        "expression": 314,
        "illumination": 698,
        "makeup": 206,
        "occlusion": 736,
        "blur": 773,
    },
    signs=("WFLW_annotations",),
    states=("pose", "expression", "illumination", "makeup", "occlusion", "blur"),  # in the order of a line's flags
    clipped=True,
    gssl=(0, 0.1, -0.1, 0.1, 0.1),
    norms=EYES,
)
MERGED = Dataset(
    "merged:parse_merged", "300W and WFLW", "68", None, {**W300.expected, "wflw": 7500}, norms=EYES, parts=(W300, WFLW)
)
DATASETS = {
    "300w": W300,
    "wflw": WFLW,
    "cofw": Dataset(
        "cofw:parse_cofw",
        "COFW",
        "29",
        1.0,
        {"train": 1345, "test": 507},
        signs=("COFW_*_color.mat",),
        gssl=GSSL_COFW,
        norms=PUPILS,
    ),
    "cofw68": Dataset("cofw:parse_cofw68", "COFW-68", "68", 1.0, {"test": 507}, ("test",), gssl=GSSL_COFW, norms=EYES),
    "aflw": Dataset(
        "aflw:parse_aflw",
        "AFLW",
        "19",
        0.0,
        {"train": 20000, "test": 4386, "frontal": 1314},
        signs=("AFLWinfo_release.mat",),
        clipped=True,
        norms=("box", "diagonal", "size"),
    ),
    "lapa": Dataset(
        "lapa:parse_lapa",
        "LaPa",
        "106",
        0.0,
        {"train": 18176, "val": 2000, "test": 2000},
        ALL,
        ("train/landmarks/*.txt",),
        norms=EYES,
    ),
    "300wlp": Dataset(
        "w300lp:parse_300wlp",
        "300W-LP",
        "68",
        0.5,
        LP | {f"{name}_Flip": count for name, count in LP.items()},
        ("train",),
        ("AFW_Flip",),
        norms=BOX,
    ),
    "300w+wflw": MERGED,
    "300w+wflw-all": MERGED._replace(parser="merged:parse_merged_all", expected={**W300.expected, "wflw": 10000}),
    "peppa": Dataset(
        "merged:parse_peppa",
        "Peppa's tree",
        "68",
        None,
        {**W300.expected, **PRIVATE.expected, **W300VW.expected},
        ("train",),
        options=("frame_step",),
        norms=EYES,
        parts=(W300, PRIVATE, W300VW),
    ),
    FORK: Dataset(
        "lmk:parse_lmk",
        "the IRNet fork's LMK",
        "68",
        0.5,
        {"train": 13148, "test": 689},
        signs=("indices.txt",),
        norms=EYES,
    ),
    PRIVATE_300W: PRIVATE,
    "300vw": W300VW,
    "menpo": Dataset(
        "menpo:parse_menpo",
        "Menpo's faces of 68 landmarks",
        "68",
        1.0,
        {"train": 6679, "test": 5335},
        norms=DIAGONAL,
    ),
    "menpo-profile": Dataset(
        "menpo:parse_menpo",
        "Menpo's faces of 39 landmarks",
        "39",
        1.0,
        {"train": 2300, "test": 1946},
        norms=DIAGONAL,
    ),
    "jd106": Dataset(
        "lapa:parse_jd106",
        "JD-landmark",
        "106",
        0.0,
        {"train": 11393, "test": 2000},
        (),
        ("Training_data", "Test_data"),
        norms=BOX,
    ),
    "celeba": Dataset(
        "five:parse_celeba",
        "CelebA",
        "5",
        0.0,
        CELEBA,
        ALL,
        ("list_landmarks_align_celeba.txt", "*/list_landmarks_align_celeba.txt"),
        norms=EYES,
    ),
    "celeba-wild": Dataset(
        "five:parse_celeba_wild",
        "CelebA",
        "5",
        0.0,
        CELEBA,
        ALL,
        ("list_landmarks_celeba.txt", "*/list_landmarks_celeba.txt", "celeba_bboxes.txt"),
        gssl=(1, 0.1, -0.15, 0.1, 0.1),
    ),
    "mtfl": Dataset(
        "five:parse_mtfl", "MTFL", "5", 0.0, {"train": 10000, "test": 2995}, signs=("net_7876",), norms=EYES
    ),
    "points": Dataset("points:parse_points", "a folder of .pts files", None, 0.0, splits=(), options=OWN),
    "csv": Dataset("tables:parse_csv", "a CSV", None, 0.0, splits=(), signs=("*.csv",), options=OWN),
    "coco": Dataset(
        "coco:parse_coco",
        "COCO keypoints",
        None,
        0.0,
        splits=(),
        signs=("*.json", "annotations/*.json"),
        options=OWN,
    ),
    LABEL_STUDIO: Dataset(
        "label_studio:parse_label_studio", "an export of Label Studio", None, 0.5, splits=(), options=OWN
    ),
    "cvat": Dataset("cvat:parse_cvat", "an export of CVAT", None, 0.5, splits=(), signs=("*.xml",), options=OWN),
}
FORMATS = {".csv": "csv", ".json": "coco", ".xml": "cvat"}  # {ending of a file of labels: how it is read}
# {set: the set whose archive holds it too}
HOSTS = {"cofw68": "cofw", "celeba-wild": "celeba", PRIVATE_300W: "300w", "menpo-profile": "menpo"}


def add(name: str, code: Any) -> None:
    """Add a dataset from outside of the checkout: a `Dataset`, or the parser of users' own sets, whose faces it adds to an
    `Archive` in continuous px; names of the points, in `archive.names`, tell their layout.
    """
    DATASETS[name] = code if isinstance(code, Dataset) else Dataset(code, name, None, 0.5, splits=(), options=OWN)


def read_set(dataset: str, folder: Path, **how: Any) -> RawSet:
    """Return the faces of an archive, see `Dataset.read_set`."""
    return DATASETS[dataset].read_set(folder, **how)


def unpack(file: Path, root: Path, made: list[Path] | None = None) -> Path:
    """Return the folder with the pictures and labels of a ZIP file, see `extras.datasets.packed`."""
    from extras.datasets import packed

    return packed.unpack(file, root, made)


def read_within(file: Path) -> np.ndarray:
    """Return an image (H, W, 3) uint8 BGR inside a file of an archive: COFW.mat/0001, vid.avi/000001."""
    if file.parent.suffix == ".mat":
        from extras.datasets.cofw import read_cofw

        return read_cofw(file)
    from extras.datasets.w300vw import read_frame

    return read_frame(file)


# ------------------------------------------------------------------------------------------- which dataset a folder holds
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


def archive_of(dataset: str, folder: Path) -> Path | None:
    """Return the archive of a dataset: a folder, or one of the archives that lie in it side by side. None without one."""
    names = (dataset, HOSTS.get(dataset))
    if _likely(folder)[0] in names:
        return folder
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    found = [path for name in names if name for path in inside if name in (path.name.lower(), _likely(path)[0])]
    return found[0] if found else None


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
    # a user's table may be in train/, valid/ and test/, as Roboflow's is
    folders = [data_dir, *split_folders(data_dir)]
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
