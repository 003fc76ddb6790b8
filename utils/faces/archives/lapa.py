"""LaPa (Liu et al., AAAI 2020): 106 landmarks; train/, val/ and test/ with images/NAME.jpg and landmarks/NAME.txt."""
from pathlib import Path

import numpy as np

from pipnet.errors import UserError
from utils.faces.archives.archive import Archive
from utils.faces.archives.lists import inside, numbered, numbers
from utils.faces.archives.naming import photograph

COUNT = 106
LAPA = {"train": 18176, "val": 2000, "test": 2000}


def read_txt(file: Path, count: int) -> np.ndarray:
    """Return the points (count, 2) of a text file: a line `count`, then as many lines `x y`. Raise UserError for other files."""
    lines = [(where, line.split()) for where, line in numbered(file)]
    first = lines[0][1] if lines else []
    if first != [str(count)]:
        raise UserError(f"{file}, line 1: '{' '.join(first)[:40]}' where {count} belongs")
    if len(lines) != count + 1:
        raise UserError(f"{file}: {len(lines) - 1} points where {count} belong")
    for where, words in lines[1:]:
        if len(words) != 2:
            raise UserError(f"{where}: {len(words)} values where 'x y' belongs")
    return np.array([numbers(words, where) for where, words in lines[1:]])


def parse_lapa(archive: Archive) -> None:
    """Add the official train, val, test. Faces of one photograph, NAME_0 and NAME_1, are one identity."""
    root = archive.root
    for split in LAPA:
        for text in sorted((root / split / "landmarks").glob("[!.]*.txt")):
            with archive.checked():
                image = archive.file(f"{split}/images/{text.stem}.jpg", str(text.parent))
                points = read_txt(inside(root, text.relative_to(root).as_posix(), str(text.parent)), COUNT)
                archive.add(split, image, split, photograph(text.stem), points, str(text))
