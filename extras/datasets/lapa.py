"""Sets with 106 landmarks in the order of LaPa, a text file a face.

LaPa (Liu et al., AAAI 2020): train/, val/ and test/ with images/NAME.jpg and landmarks/NAME.txt.
JD-landmark (Liu et al., ICMEW 2019, and its two later challenges):
Training_data/{AFW,HELEN,IBUG,LFPW}/{picture,landmark} and Test_data/{picture,landmark,rect}; later releases: train/,
val/ and test/ with picture, landmark and bbox. The annotation of NAME.jpg is NAME.txt or NAME.jpg.txt; its box, if
there is one, is NAME.rect, NAME.jpg.rect or NAME.txt.
"""

from pathlib import Path

import numpy as np

from extras.datasets.archive import Archive, Missing
from extras.datasets.naming import photograph
from extras.shared.lists import numbered, numbers, path_inside, read_lines
from pipnet.errors import UserError
from pipnet.images import SUFFIXES
from utils.data.table import BESIDE

COUNT = 106
SPLITS = ("train", "val", "test")


def _read(file: Path) -> np.ndarray:
    """Return the points (106, 2) of a file: a line `106`, then as many lines `x y`. Raise UserError for other files."""
    lines = [(where, line.split()) for where, line in numbered(file)]
    first = lines[0][1] if lines else []
    if first != [str(COUNT)]:
        raise UserError(f"{file}, line 1: '{' '.join(first)[:40]}' where {COUNT} belongs")
    if len(lines) != COUNT + 1:
        raise UserError(f"{file}: {len(lines) - 1} points where {COUNT} belong")
    for where, words in lines[1:]:
        if len(words) != 2:
            raise UserError(f"{where}: {len(words)} values where 'x y' belongs")
    return np.array([numbers(words, where) for where, words in lines[1:]])


def parse_lapa(archive: Archive) -> None:
    """Add the official train, val, test. Faces of one photograph, NAME_0 and NAME_1, are one identity."""
    root = archive.root
    for split in SPLITS:
        for text in sorted((root / split / "landmarks").glob("[!.]*.txt")):
            with archive.checked():
                image = archive.file(f"{split}/images/{text.stem}.jpg", str(text.parent))
                points = _read(path_inside(root, text.relative_to(root).as_posix(), str(text.parent)))
                archive.add(split, image, split, photograph(text.stem), points, str(text))


def _box(root: Path, folder: Path, stem: str) -> np.ndarray | None:
    """Return x1 y1 x2 y2 (4,) from the box file of a face; None without such a file."""
    for name in (
        f"rect/{stem}.jpg.rect",
        f"rect/{stem}.rect",
        f"bbox/{stem}.jpg.rect",
        f"bbox/{stem}.rect",
        f"bbox/{stem}.txt",
    ):
        if (folder / name).is_file():
            file = path_inside(root, (folder / name).relative_to(root).as_posix(), str(folder))
            values = numbers(" ".join(read_lines(file)).replace(",", " ").split(), str(file))
            if len(values) != 4:
                raise UserError(f"{file}: {len(values)} values where the box x1 y1 x2 y2 belongs")
            return values
    return None


def parse_jd106(archive: Archive) -> None:
    """Add train, val, test: a folder whose name begins so is the split, else train. Annotated boxes are used.

    AFW, HELEN, IBUG and LFPW are subsets. The faces made from one photograph, NAME_1_4 and so on, are one identity.
    """
    root = archive.root
    for folder in sorted(path.parent for path in root.rglob("landmark")):
        parts = folder.relative_to(root).parts
        split = next((split for split in SPLITS for part in parts if part.lower().startswith(split)), "train")
        subset = BESIDE.join([split] + [part for part in parts[1:] if not part.lower().startswith(SPLITS)][-1:])
        pictures = {
            path.stem: path
            for place in sorted(folder.glob("picture*"))
            for path in sorted(place.iterdir())
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        }
        for file in sorted((folder / "landmark").glob("[!.]*.txt")):
            stem = file.name.removesuffix(".txt").removesuffix(".jpg")
            with archive.checked():
                path_inside(root, file.relative_to(root).as_posix(), str(folder))
                if stem not in pictures:
                    raise Missing(folder / "picture" / f"{stem}.jpg")
                image = path_inside(root, pictures[stem].relative_to(root).as_posix(), str(file))
                identity = "/".join((*parts, photograph(stem, numbers=2)))
                archive.add(split, image, subset, identity, _read(file), str(file), _box(root, folder, stem))
