"""LaPa (Liu et al., AAAI 2020): 106 landmarks; train/, val/ and test/ with images/NAME.jpg and landmarks/NAME.txt."""

import re
from pathlib import Path

import numpy as np

from pipnet.errors import UserError
from utils.data.parsers.records import Splits, complain, inside, numbers, read_lines, record, whole

COUNT = 106
LAPA = {"train": 18176, "val": 2000, "test": 2000}


def read_txt(file: Path, count: int) -> np.ndarray:
    """(count, 2) of a text file of `count` and as many lines `x y`. UserError names file, line and fault."""
    lines = [(number, line.split()) for number, line in enumerate(read_lines(file), 1) if line.strip()]
    if not lines or lines[0][1] != [str(count)]:
        raise UserError(f"{file}, line 1: '{' '.join(lines[0][1])[:40] if lines else ''}' where {count} belongs")
    if len(lines) != count + 1:
        raise UserError(f"{file}: {len(lines) - 1} points where {count} belong")
    for number, words in lines[1:]:
        if len(words) != 2:
            raise UserError(f"{file}, line {number}: {len(words)} values where 'x y' belongs")
    return np.array([numbers(words, f"{file}, line {number}") for number, words in lines[1:]])


def parse_lapa(data_dir: Path, allow_partial: bool = False, count: int | None = COUNT, origin: float = 0.0) -> Splits:
    """{train, val, test}: the official val picks the best epoch. Faces of one photograph, NAME_0 and NAME_1, are one identity.

    A face without its image or its landmarks is left out and counted.
    """
    root = Path(data_dir)
    splits: Splits = {split: [] for split in LAPA}
    absent, faults = [], []
    for split, records in splits.items():
        images, texts = root / split / "images", root / split / "landmarks"
        for text in sorted(texts.glob("*.txt") if texts.is_dir() else ()):
            if text.name.startswith("."):
                continue
            image = inside(root, f"{split}/images/{text.stem}.jpg", str(texts))
            if not image.is_file():
                absent.append(images / f"{text.stem}.jpg")
                continue
            try:
                points = read_txt(inside(root, f"{split}/landmarks/{text.name}", str(texts)), COUNT)
                records.append(record(image, split, re.sub(r"_\d{1,2}$", "", text.stem), points, origin, where=str(text)))
            except UserError as error:
                faults.append(str(error))
    complain(faults)
    whole(root, "LaPa", LAPA, splits, absent, allow_partial)
    return splits
