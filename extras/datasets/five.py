"""Sets with five landmarks in lists: centres of the eyes, tip of the nose, corners of the mouth; image-left first.

CelebA (Liu et al., ICCV 2015), aligned and in the wild, and MTFL (Zhang et al., ECCV 2014).
"""

from pathlib import Path

import numpy as np

from extras.datasets.archive import Archive, pixel_corners
from extras.shared.lists import numbered, numbers, path_inside
from pipnet.errors import UserError
from utils.data.table import BESIDE

COUNT = 5
POSES = {"1": "profile-left", "2": "left", "3": "frontal", "4": "right", "5": "profile-right"}  # of MTFL


def _file(root: Path, name: str) -> Path:
    """Return the path of a list at the top of the folder, or in Anno/ or Eval/ as CelebA is distributed."""
    places = [path_inside(root, f"{folder}{name}", str(root)) for folder in ("", "Anno/", "Eval/")]
    return next((place for place in places if place.is_file()), places[0])


def _list(file: Path, width: int, header: bool = True) -> dict[str, list[str]]:
    """Return {image: its words} of a list.
    header: the list begins with the number of images and the names of its columns.
    """
    rows, lines = {}, [(where, line.split()) for where, line in numbered(file)]
    if header:
        if len(lines) < 2 or lines[0][1] != [str(len(lines) - 2)]:
            raise UserError(
                f"{file}, line 1: the number of images, {max(len(lines) - 2, 0)}, belongs there; fetch it again"
            )
        lines = lines[2:]
    for where, words in lines:
        if len(words) != width + 1:
            raise UserError(f"{where}: {len(words)} words where a name and {width} values belong")
        rows[words[0]] = words[1:]
    return rows


def parse_celeba(archive: Archive, wild: bool = False) -> None:
    """Add train, val, test of img_align_celeba (178 x 218 px) or, with `wild`, of img_celeba with its boxes.

    Boxes are those of a detector in celeba_bboxes.txt, if that exists, as for PIPNet's authors; else CelebA's own.
    The identity is the person if identity_CelebA.txt exists, else the image. In the wild, without list_eval_partition.txt
    all faces are for training; if the list of landmarks is missing too, as in the tree of PIPNet's authors, the faces
    are those of celeba_bboxes.txt, without landmarks. Such a set misses no part.
    """
    root, kind = archive.root, "celeba" if wild else "align_celeba"
    file, persons = _file(root, f"list_landmarks_{kind}.txt"), _file(root, "identity_CelebA.txt")
    parts = _file(root, "list_eval_partition.txt")
    every = wild and not parts.is_file()  # for training
    detected, listed = _boxes(root) if wild else ({}, {})
    unlabelled = every and bool(detected) and not file.is_file()
    points = dict.fromkeys(detected, []) if unlabelled else _list(file, 2 * COUNT)
    partition = {} if every else _list(parts, 1, header=False)
    people = _list(persons, 1, header=False) if persons.is_file() else {}
    splits = {"0": "train", "1": "val", "2": "test"}
    below = next((name for name in (f"img_{kind}", f"Img/img_{kind}") if (root / name).is_dir()), f"img_{kind}")
    for image, words in points.items():
        where = f"{'celeba_bboxes.txt' if unlabelled else file}, {image}"
        with archive.checked():
            path = archive.file(image, where, below)
            split = "train" if every else splits.get(partition.get(image, [""])[0])
            if split is None:
                raise UserError(f"{where}: its part in list_eval_partition.txt is not 0, 1 or 2")
            values = None if unlabelled else numbers(words, where).reshape(COUNT, 2)
            box = _box(values, detected.get(image), listed.get(image), where) if wild else None
            archive.add(split, path, split, people.get(image, [image])[0], values, where, box)
    if every:
        archive.expected = {}


def parse_celeba_wild(archive: Archive) -> None:
    """Add the faces in the wild, see `parse_celeba`."""
    parse_celeba(archive, wild=True)


def _boxes(root: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return {image: x1 y1 x2 y2} of PIPNet's detector, empty without its list, and {image: x y w h} of CelebA's list.

    With the first list, the second may be missing.
    """
    detected, listed = _file(root, "celeba_bboxes.txt"), _file(root, "list_bbox_celeba.txt")
    found = _list(detected, 4, header=False) if detected.is_file() else {}
    return found, _list(listed, 4) if listed.is_file() or not found else {}


def _box(points: np.ndarray | None, corners: list[str] | None, sides: list[str] | None, where: str) -> np.ndarray:
    """Return the first box (4,) that is not empty: of x1 y1 x2 y2, of x y w h, of the landmarks at three times its
    size.
    """
    boxes = [numbers(corners, where)] if corners else []
    boxes += [pixel_corners(numbers(sides, where))] if sides else []
    for box in boxes:
        if (box[2:] > box[:2]).all():
            return box
    if points is None:
        raise UserError(f"{where}: its face box is empty; remove the line")
    low, high = points.min(0), points.max(0)
    return np.concatenate([low - (high - low), high + (high - low)])


def parse_mtfl(archive: Archive) -> None:
    """Add train, test; a test face's pose is a subset. The images are in lfw_5590, net_7876 and AFLW.

    A line of training.txt and testing.txt: image, five x, five y, gender, smile, glasses, pose.
    """
    for split, name in (("train", "training.txt"), ("test", "testing.txt")):
        for where, line in archive.lines(name):
            with archive.checked():
                words = line.split()
                if len(words) != 2 * COUNT + 5:
                    raise UserError(f"{where}: {len(words)} words where a name, 10 coordinates and 4 attributes belong")
                values = numbers(words[1:11], where).reshape(2, COUNT).T
                if words[14] not in POSES:
                    raise UserError(f"{where}: pose {words[14][:20]} where 1 to 5 belongs")
                image = archive.file(words[0], where)
                subset = BESIDE.join([split, POSES[words[14]]]) if split == "test" else split
                archive.add(split, image, subset, image.relative_to(archive.root).as_posix(), values, where)
