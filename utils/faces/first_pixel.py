"""Guesses from the files of a user's own set whether its coordinates count the first pixel as 0 or as 1."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from loguru import logger

from utils.faces.archives import Archive, image_of
from utils.faces.archives.own import upright_size

FEWEST, CLEARLY = (
    3,
    4,
)  # least number of faces with a landmark at an edge; least ratio to their number at the other edge
NAMES_300W = re.compile(r"(image_\d{2,4}|\d{6,12}|(indoor|outdoor)_\d{3})(_\d{1,2})*")  # stems of its pictures
COUNT_300W = 68
MOST = 4000  # about so many pictures are looked at


def load_guessed(load: Callable[..., Archive], source: Path) -> Archive:
    """Return the archive `source`, read by load(origin=...) with the guessed origin; 0 without evidence."""
    archive = load(origin=0.0)
    origin, why = guess(archive)
    logger.info(f"{source}: pixels are counted from {origin or 0:g} ({why}; --first-pixel sets another origin)")
    return load(origin=origin) if origin else archive


def guess(archive: Archive) -> tuple[float | None, str]:
    """Return (coordinate of the first pixel's centre, reason); (None, reason) without evidence.
    archive: read with origin 0.

    Landmarks at the picture's edges are evidence, because annotation tools keep landmarks inside the picture. Landmarks
    counted from 0 reach 0 but not the width or height; landmarks counted from 1 reach these but not 0. They prove
    nothing if other landmarks lie beyond the edges. The second evidence: 68 landmarks in .pts files with the names of
    300W, which counts from 1.
    """
    images = [image_of(archive.root, file) for file in archive.columns["file"]]
    landmarks, step = np.array(archive.columns["landmarks"]), len(images) // MOST + 1
    sizes = np.array([upright_size(image) or (np.nan, np.nan) for image in images[::step]])[:, None]
    from_0 = np.where(np.isnan(sizes), np.nan, landmarks[::step] - 0.5)  # as annotated
    from_1 = from_0 - sizes
    at_0, at_1 = (np.abs(place) < 0.5 for place in (from_0, from_1))
    first, last, beyond = (told.any((1, 2)).sum() for told in (at_0, at_1, (from_0 < -0.5) | (from_1 > 0.5)))
    for origin, here, other, edge in ((0.0, first, last, "left or upper"), (1.0, last, first, "right or lower")):
        if here >= FEWEST and here >= CLEARLY * max(other, beyond):
            return origin, f"{here} faces have a landmark on the {edge} edge of the picture"
    named = sum(bool(NAMES_300W.fullmatch(image.stem)) for image in images)
    if landmarks.shape[1] == COUNT_300W and named > 0.9 * len(images) and images[0].with_suffix(".pts").is_file():
        return (
            1.0,
            f"{named} of {len(images)} files have {COUNT_300W} landmarks and the names of 300W, which counts from 1",
        )
    return None, "no evidence"
