"""Whether the coordinates of an own set count the first pixel as 0 or as 1, as far as its files tell."""
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from loguru import logger

from utils.faces.archives import Splits
from utils.faces.archives.own import upright_size

FEWEST, CLEARLY = 3, 4  # faces at an edge that are needed, and how many times as many as at the other edge
NAMES_300W = re.compile(r"(image_\d{2,4}|\d{6,12}|(indoor|outdoor)_\d{3})(_\d{1,2})*")  # stems of its pictures
COUNT_300W = 68
BEYOND = 2  # beside 0 and 1: a face with a landmark that no counting puts inside the picture
MOST = 4000  # about so many pictures are looked at


def parse_guessed(parse: Callable[..., Splits], source: Path) -> tuple[Splits, float]:
    """Return the splits of `source`, read by parse(origin=...) with the origin that they tell, else 0; and that origin."""
    splits = parse(origin=0.0)
    origin, why = guess(splits)
    logger.info(f"{source}: pixels are counted from {origin or 0:g} ({why}; --first-pixel sets another origin)")
    return (parse(origin=origin) if origin else splits), origin or 0.0


def guess(splits: Splits) -> tuple[float | None, str]:
    """Return (coordinate of the first pixel's centre, why) of faces that were read as counted from 0; (None, why not) if unclear.

    Landmarks at the picture's edges tell: tools keep them inside the picture, so those counted from 0 reach 0 but not the width
    or height, and those counted from 1 reach these but not 0. They tell nothing where other landmarks lie beyond the edges. Else
    68 landmarks in .pts files with the names of 300W's pictures do, since 300W counts from 1.
    """
    records = [record for split in splits.values() for record in split]
    edges = Counter(edge for record in records[::len(records) // MOST + 1] for edge in _edges(record))
    for first, other, edge in ((0, 1, "left or upper"), (1, 0, "right or lower")):
        if edges[first] >= FEWEST and edges[first] >= CLEARLY * max(edges[other], edges[BEYOND]):
            return float(first), f"{edges[first]} faces have a landmark on the {edge} edge of the picture"
    named = sum(bool(NAMES_300W.fullmatch(record.file.stem)) for record in records)
    points = len(records[0].landmarks)
    if points == COUNT_300W and named > 0.9 * len(records) and records[0].file.with_suffix(".pts").is_file():
        return 1.0, f"{named} of {len(records)} files have {COUNT_300W} landmarks and the names of 300W, which counts from 1"
    return None, "no evidence"


def _edges(record) -> set[int]:
    """Return 0, 1 or both, if a coordinate of the face fits only counting from there, and BEYOND if one fits neither."""
    if (size := upright_size(record.file)) is None:
        return set()
    points = record.landmarks[np.isfinite(record.landmarks).all(1)]  # continuous px of a set that was read as counted from 0
    from_0, from_1 = points - 0.5, points - 0.5 - size
    told = (np.abs(from_0) < 0.5, np.abs(from_1) < 0.5, (from_0 < -0.5) | (from_1 > 0.5))
    return {number for number, where in enumerate(told) if where.any()}
