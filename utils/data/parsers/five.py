"""Sets of five landmarks in a list: centres of the eyes, tip of the nose, corners of the mouth; image-left first.

CelebA (Liu et al., ICCV 2015), aligned and in the wild, and MTFL (Zhang et al., ECCV 2014).
"""

from pathlib import Path

import numpy as np

from pipnet.errors import UserError
from utils.data.parsers.records import BESIDE, Splits, complain, inside, numbers, read_lines, record, whole

COUNT = 5
CELEBA = {"train": 162770, "val": 19867, "test": 19962}
POSES = ("profile-left", "left", "frontal", "right", "profile-right")  # MTFL's 1 to 5
MTFL = {"train": 10000, "test": 2995}


def _file(root: Path, name: str) -> Path:
    """A list, at the top of the folder or in Anno/ or Eval/ as CelebA is offered."""
    places = [inside(root, f"{folder}{name}", str(root)) for folder in ("", "Anno/", "Eval/")]
    return next((place for place in places if place.is_file()), places[0])


def _list(root: Path, name: str, width: int, header: bool = True) -> dict[str, list[str]]:
    """{image: its words} of a list whose first two lines are the number of images and the names of the columns."""
    file, rows = _file(root, name), {}
    lines = [(number, line.split()) for number, line in enumerate(read_lines(file), 1) if line.strip()]
    if header:
        if len(lines) < 2 or lines[0][1] != [str(len(lines) - 2)]:
            raise UserError(f"{file}, line 1: the number of images, {max(len(lines) - 2, 0)}, belongs there; is the file whole?")
        lines = lines[2:]
    for number, words in lines:
        if len(words) != width + 1:
            raise UserError(f"{file}, line {number}: {len(words)} words where a name and {width} values belong")
        rows[words[0]] = words[1:]
    return rows


def parse_celeba(data_dir: Path, allow_partial: bool = False, count: int | None = COUNT, origin: float = 0.0,
                 wild: bool = False) -> Splits:
    """{train, val, test} of img_align_celeba (178 x 218 px), or, `wild`, of img_celeba with its boxes.

    The identity is the person, where identity_CelebA.txt is there, else the image.
    """
    root = Path(data_dir)
    name = "celeba" if wild else "align_celeba"
    points, file = _list(root, f"list_landmarks_{name}.txt", 2 * COUNT), _file(root, f"list_landmarks_{name}.txt")
    boxes = _list(root, "list_bbox_celeba.txt", 4) if wild else {}
    parts = _list(root, "list_eval_partition.txt", 1, header=False)
    people = _list(root, "identity_CelebA.txt", 1, header=False) if _file(root, "identity_CelebA.txt").is_file() else {}
    below = next((f"{folder}img_{name}" for folder in ("", "Img/") if (root / f"{folder}img_{name}").is_dir()), f"img_{name}")
    splits: Splits = {"train": [], "val": [], "test": []}
    absent, faults = [], []
    for image, words in points.items():
        where = f"{file}, {image}"
        try:
            path = inside(root, image, where, below)
            if not path.is_file():
                absent.append(path)
                continue
            if (part := parts.get(image, ["?"])[0]) not in ("0", "1", "2"):
                raise UserError(f"{where}: its part in list_eval_partition.txt is not 0, 1 or 2")
            split = ("train", "val", "test")[int(part)]
            values = numbers(words, where).reshape(COUNT, 2)
            splits[split].append(record(path, split, people.get(image, [image])[0], values, origin, None,
                                        _around(values, boxes.get(image), where) if wild else None, where))
        except UserError as error:
            faults.append(str(error))
    complain(faults)
    whole(root, "CelebA", CELEBA, splits, absent, allow_partial)
    return splits


def _around(points: np.ndarray, words: list[str] | None, where: str) -> np.ndarray:
    """(4,) of x y w h, which reaches from x to x + w - 1; where the list has an empty one, thrice the box of the landmarks."""
    x, y, w, h = numbers(words or ("0",) * 4, where)
    if w > 1 and h > 1:
        return np.array([x, y, x + w - 1, y + h - 1])
    low, high = points.min(0), points.max(0)
    return np.concatenate([low - (high - low), high + (high - low)])


def parse_mtfl(data_dir: Path, allow_partial: bool = False, count: int | None = COUNT, origin: float = 0.0) -> Splits:
    """{train, test} of training.txt and testing.txt: image, five x, five y, gender, smile, glasses, pose. Test faces bear their
    pose as a subset. The images are in lfw_5590, net_7876 and AFLW."""
    root = Path(data_dir)
    splits: Splits = {"train": [], "test": []}
    absent, faults = [], []
    for split, name in (("train", "training.txt"), ("test", "testing.txt")):
        file = inside(root, name, str(root))
        for number, line in enumerate(read_lines(file) if file.is_file() else (), 1):
            where, words = f"{file}, line {number}", line.split()
            if not words:
                continue
            try:
                if len(words) != 2 * COUNT + 5:
                    raise UserError(f"{where}: {len(words)} words where a name, 10 coordinates and 4 attributes belong")
                values = numbers(words[1:11], where).reshape(2, COUNT).T
                if words[14] not in ("1", "2", "3", "4", "5"):
                    raise UserError(f"{where}: pose {words[14][:20]} where 1 to 5 belongs")
                subset = BESIDE.join([split] + [POSES[int(words[14]) - 1]] * (split == "test"))
                path = inside(root, words[0], where)
                if not path.is_file():
                    absent.append(path)
                    continue
                splits[split].append(record(path, subset, path.relative_to(root).as_posix(), values, origin, where=where))
            except UserError as error:
                faults.append(str(error))
    complain(faults)
    whole(root, "MTFL", MTFL, splits, absent, allow_partial)
    return splits
