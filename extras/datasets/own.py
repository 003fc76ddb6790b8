"""Checks the labels of users' own sets: their number, their units, values that mean "missing", the size of the
pictures.
"""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from loguru import logger
from PIL import Image

from extras.datasets.archive import Archive
from extras.shared.pts import OTHER_LAYOUT
from pipnet.geometry import BOX_REACH, box_of, far_outside
from utils.data.table import complain

FEWEST_PX = 5  # longest side of a face box; a smaller face is an error of units
SHARE = (-0.5, 1.5)  # a face whose coordinates all lie here is given in shares of its picture
# coordinates of what is no place, x and y alike
MARKS = (0, -1, -2, -99, -100, -999, -1000, -9999, -32768, 9999, 32767, 65535, 99999)
APART = 0.25  # distance of what is no place from the box of the other landmarks / diagonal of the box
FAR = 1.0  # the same for a single 0 0 or 9999 9999, which may be a place
# of a box in another convention with the landmarks' tight box / of x y w h: overlap; distance across
OVERLAP, NEAR = 1.2, 0.5
LOST = 1 / 3  # share of a face's landmarks outside its picture
AWAY = 15  # distance of a landmark from the median landmark of its face / the median distance; profiles have up to 5
MOST = 2000  # about so many faces are looked at, of those that may belong to other pictures or layouts
OUTSIDE = 0.3  # distance of a negated place from both edges of the picture / diagonal of the other landmarks' box
UNKNOWN = "a landmark that is not annotated is 'nan nan' in .pts, two empty cells in CSV, v = 0 in COCO"


def check_labels(archive: Archive) -> None:
    """Scale the labels of a user's own set to the true size of the pictures. UserError for labels that must be wrong."""
    columns, where = archive.columns, archive.columns["where"]
    complain(_wrong_counts(where, list(map(len, columns["landmarks"])), archive.count))
    columns["landmarks"] = landmarks = np.array(columns["landmarks"])  # in their place, so that they are held once
    columns["box"] = box = np.array(columns["box"])
    complain(_wrong_values(archive, landmarks))
    factors = _factors(archive)
    if (factors != 1).any():
        landmarks, box = landmarks * factors[:, None], box * np.tile(factors, 2)
    columns["landmarks"], columns["box"] = landmarks, box
    complain(_tiny(where, columns["box"]))
    others = {*archive.faces, *archive.outside}
    without = [path for path in archive.images.values() if path not in others]
    archive.left_out["pictures without a face"] += len(without)
    if archive.outside:  # it is not known whether the others have a face
        folders = ", ".join(folder.relative_to(archive.root).as_posix() for folder in archive.split_folders)
        logger.warning(
            f"{archive.root}: {len({*archive.outside})} images outside of {folders} are left out, such as "
            f"{archive.outside[0].relative_to(archive.root)}"
        )
    if left := [f"{what} ({count})" for what, count in archive.left_out.items() if count]:
        such = f", such as {without[0].name}" if without else ""
        archive.notes.append(f"{archive.root}: left out: {', '.join(left)}{such}")


def _wrong_values(archive: Archive, landmarks: np.ndarray) -> list[str]:
    """Return a line for each face with values (M, N, 2) that are no places, or that is listed twice."""
    where = archive.columns["where"]
    raw = landmarks + (archive.first - 0.5)  # as annotated
    np.round(raw, 6, out=raw)  # removes errors of the shift
    raw += 0.0
    return _shares(where, raw) or _marks(where, raw) or _twice(archive, raw)


def header(file: Path) -> tuple[tuple[int, int], int] | None:
    """Return width and height of a picture before it is turned, and its EXIF orientation, 1 to 8; None if it cannot be
    read.

    An orientation in XMP is not read, since OpenCV does not turn a picture by it.
    """
    if not file.is_file():  # a pipe would wait for ever
        return None
    try:
        with Image.open(file) as image:
            for name in ("xmp", "XML:com.adobe.xmp"):
                image.info.pop(name, None)
            tag = image.getexif().get(0x0112, 1)
            turned = image.format == "TIFF" and tag in range(5, 9)  # Pillow tells the size after the turn
            return image.size[::-1] if turned else image.size, tag if tag in range(1, 9) else 1
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # the preparation says so


def upright_size(file: Path) -> tuple[int, int] | None:
    """Return width and height of a picture, turned upright by its EXIF tag, from its header; None if it cannot be read."""
    size, tag = header(file) or (None, 1)
    return size[::-1] if size and tag > 4 else size


def _wrong_counts(where: list[str], counts: list[int], count: int | None) -> list[str]:
    """Return a line for each face with another number of points than most, or, if it is given, than `count`."""
    usual = Counter(counts).most_common(1)[0][0]
    wanted = f"the others have {usual}" if count in (None, usual) else f"{count} are expected; {OTHER_LAYOUT}"
    return [
        f"{place}: {found} points where {wanted}"
        for place, found in zip(where, counts, strict=True)
        if found != (count or usual)
    ]


def _shares(where: list[str], raw: np.ndarray) -> list[str]:
    """Return a line for each face whose coordinates (M, N, 2), as annotated, are shares of its picture."""
    faces = (np.nanmin(raw, (1, 2)) >= SHARE[0]) & (np.nanmax(raw, (1, 2)) <= SHARE[1])
    return [
        f"{where[i]}: all coordinates lie between 0 and 1, so they are shares of the picture; multiply x by its width and y "
        "by its height"
        for i in np.flatnonzero(faces)
    ]


def _twice(archive: Archive, raw: np.ndarray) -> list[str]:
    """Return a line for each face that is labelled twice: the same landmarks (M, N, 2) in the same picture."""
    first: dict[tuple[Path, bytes], int] = {}
    earlier = [
        first.setdefault((image, face.tobytes()), i)
        for i, (image, face) in enumerate(zip(archive.pictures, raw, strict=True))
    ]
    where = archive.columns["where"]
    return [
        f"{where[i]}: the same face as in {where[place]}; remove one" for i, place in enumerate(earlier) if place < i
    ]


def _tiny(where: list[str], box: np.ndarray) -> list[str]:
    """Return a line for each face whose box (M, 4) has only a few px."""
    sides = (box[:, 2:] - box[:, :2]).max(1)
    return [
        f"{where[i]}: its face is {sides[i]:.2g} px large; coordinates are px of the picture, and such a face shows nothing"
        for i in np.flatnonzero(sides < FEWEST_PX)
    ]


def _marks(where: list[str], raw: np.ndarray) -> list[str]:
    """Return a line for each face with values such as -1 -1, 0 0 or -x -y, which mean a missing or hidden landmark.

    raw: the landmarks (M, N, 2) as annotated.
    """
    found = []
    for value in np.unique(raw[np.isin(raw, MARKS)]):
        there = (raw == value).all(-1)
        others = np.where(there[..., None], np.nan, raw)
        if value == 0:  # a tool may have kept a face's landmarks inside the picture
            there &= ~(others == 0).any((1, 2))[:, None]
        distance, faces = _distance(np.full(2, value), others), there.any(1)
        apart = faces & ((there.sum(1) > 1) | (distance > APART))
        marked = faces if apart.any() and there.sum() > 1 else apart if value < 0 else apart & (distance > FAR)
        found += [
            f"{where[i]}: {value:g} {value:g} is a mark and no place, in {faces.sum()} of {len(raw)} faces; {UNKNOWN}"
            for i in np.flatnonzero(marked)
        ]
    if found:
        return found
    below = np.all(raw < 0, -1)
    candidates = np.flatnonzero(below.any(1) & ~((raw < 0) & ~below[..., None]).any((1, 2)))
    places = [(i, raw[i][below[i]][0]) for i in candidates if _negated(raw[i][below[i]], raw[i][~below[i]])]
    return [
        f"{where[i]}: {x:g} {y:g} is a place with its signs turned, by which MERL-RAV marks a hidden landmark; write "
        f"{-x:g} {-y:g}, or: {UNKNOWN}"
        for i, (x, y) in places
    ]


def _distance(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the distance of points (..., 2) from the box of others (..., N, 2) / the diagonal of that box; 0 or NaN
    without.
    """
    low, high = np.fmin.reduce(others, -2), np.fmax.reduce(others, -2)
    size = np.linalg.norm(high - low, axis=-1)
    return np.linalg.norm(points - points.clip(low, high), axis=-1) / np.where(size > 0, size, np.inf)


def _negated(turned: np.ndarray, others: np.ndarray) -> bool:
    """Return whether a face's landmarks (T, 2) beyond two edges of the picture are places with both signs turned.

    Without the signs they lie among the others (K, 2), with them far away. A face that the picture's corner cuts off is
    no such face: it has landmarks beyond one edge only, too.
    """
    if not len(others) or not (np.maximum(APART, 2 * _distance(-turned, others)) < _distance(turned, others)).all():
        return False
    size = np.linalg.norm(np.nanmax(others, 0) - np.nanmin(others, 0))
    return len(turned) > 1 or bool((np.abs(turned).min(1) > OUTSIDE * size).any())


# ----------------------------------------------------------------------------------------------------------- face boxes
def check_boxes(archive: Archive) -> None:
    """Raise UserError if the face boxes that are given are no x y w h, or have landmarks far outside, for most faces. Warn
    of fewer faces with such landmarks.

    The bbox of COCO has another convention if its numbers, read so, overlap the tight box of the landmarks better and
    lie nearer to it across. Heights are not compared, because boxes hold different parts of the forehead.
    """
    landmarks, where = archive.columns["landmarks"], archive.columns["where"]
    box, tight = archive.columns["box"], box_of(landmarks)
    size, given = box[:, 2:] - box[:, :2], (box != tight).any(1)
    overlap, distance = _fit(box, tight)
    for name, other in (("x1 y1 x2 y2", np.hstack([box[:, :2], size])), ("cx cy w h", box - np.tile(size / 2, 2))):
        closer, nearer = _fit(other, tight)
        fits = given & (closer > OVERLAP * overlap) & (nearer < NEAR * distance)
        if fits.sum() > given.sum() / 2 and (other[:, 2:] > other[:, :2])[given].all():
            complain(
                [
                    f"{where[i]}: bbox fits the landmarks as {name}, but not as x y w h, in {fits.sum()} of "
                    f"{given.sum()} faces; write x y w h, or leave bbox out"
                    for i in np.flatnonzero(fits)
                ]
            )
    far = far_outside(landmarks, box, BOX_REACH)
    faces = np.flatnonzero(far.any(1))
    said = (
        f"{len(faces)} of {given.sum()} faces with a box have landmarks far outside it, and would be cropped around it; "
        "correct the boxes, or leave them out"
    )
    lines = [f"{where[i]}: landmark {far[i].argmax()} lies far outside bbox; {said}" for i in faces]
    if len(faces) > given.sum() / 2:
        complain(lines)
    elif lines:
        logger.warning(lines[0])


def _fit(box: np.ndarray, tight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return of boxes (M, 4) and tight ones the intersection / union (M,) and the distance of their middles across
    (M,).
    """
    one, other, both = (
        (high - low).clip(0).prod(1)
        for low, high in (
            (box[:, :2], box[:, 2:]),
            (tight[:, :2], tight[:, 2:]),
            (np.maximum(box[:, :2], tight[:, :2]), np.minimum(box[:, 2:], tight[:, 2:])),
        )
    )
    return both / np.maximum(one + other - both, 1e-9), np.abs((box - tight)[:, ::2].sum(1)) / 2


# ------------------------------------------------------------------------------------------------- size of the pictures
def check_inside(archive: Archive) -> None:
    """Raise UserError if most faces have more than a third of their landmarks outside their pictures: labels of larger
    ones. Of many faces, about MOST are looked at.
    """
    step = len(archive) // MOST + 1
    landmarks, pictures = archive.columns["landmarks"][::step], archive.pictures[::step]
    known = {picture: upright_size(picture) or (np.nan, np.nan) for picture in dict.fromkeys(pictures)}
    sizes = np.array([known[picture] for picture in pictures])
    outside = ((landmarks < 0) | (landmarks > sizes[:, None])).any(-1).sum(1)
    beyond = outside > np.isfinite(landmarks).all(-1).sum(1) * LOST
    if beyond.sum() > len(sizes) / 2:
        complain(
            [
                f"{archive.columns['where'][i * step]}: {outside[i]} landmarks lie outside its picture of {sizes[i, 0]:.0f} x "
                f"{sizes[i, 1]:.0f} px, as more than a third of the landmarks of {beyond.sum()} of {len(sizes)} faces do, so "
                "the labels belong to larger pictures; scale them, or use the pictures that were labelled"
                for i in np.flatnonzero(beyond)
            ]
        )


def _far_away(landmarks: np.ndarray) -> np.ndarray:
    """Return whether each landmark (M, N) lies far away from the others of its face."""
    with warnings.catch_warnings(action="ignore"):  # a face without a landmark
        distance = np.linalg.norm(landmarks - np.nanmedian(landmarks, 1)[:, None], axis=-1)
        return distance > AWAY * np.nanmedian(distance, 1)[:, None]


def lost_landmarks(archive: Archive) -> list[str]:
    """Return a line for each face with a landmark far away from its others, outside its picture, as a number that is a
    mark.
    """
    landmarks, where, found = archive.columns["landmarks"], archive.columns["where"], []
    if landmarks.shape[1] < 5:
        return []
    away = np.concatenate([_far_away(landmarks[first : first + MOST]) for first in range(0, len(landmarks), MOST)])
    for i in np.flatnonzero(away.any(1)):
        size = upright_size(archive.pictures[i]) or (np.inf, np.inf)
        for place in np.flatnonzero(away[i] & ((landmarks[i] < 0) | (landmarks[i] > size)).any(1))[:1]:
            x, y = landmarks[i, place]
            found.append(
                f"{where[i]}: its landmark {place} at {x:g} {y:g} lies far outside its picture of {size[0]} x {size[1]} "
                f"px; correct it, or leave it out: {UNKNOWN}"
            )
    return found


def _factors(archive: Archive) -> np.ndarray:
    """Return the factors (M, 2) from the stated size of each face's picture to the true one, (2,) if all are 1; UserError
    if they cannot be.
    """
    found, faults, sizes = {}, [], []
    for file, (width, height, where) in archive.stated.items():
        size = upright_size(file)
        if size is None or size == (width, height):
            continue
        what = f"{file.name} has {size[0]} x {size[1]} px, its labels are for {width:g} x {height:g}"
        if size != (height, width) and _one_factor(width, height, size):
            found[file] = np.array(size) / (width, height)
            sizes.append(what)
        elif _one_factor(height, width, size):
            faults.append(
                f"{where}: {what}: width and height are exchanged, so they belong to the picture before its EXIF tag, "
                "or a tool, turned it; turn the labels too, or label the upright picture"
            )
        else:
            faults.append(
                f"{where}: {what}: the two sides differ by different factors; use the pictures that were labelled"
            )
    complain(faults)
    if sizes:
        archive.notes.append(
            f"the labels of {len(sizes)} pictures are scaled to the size of the picture, such as: {sizes[0]}"
        )
    if not found:
        return np.ones(2)
    return np.array([found.get(image, np.ones(2)) for image in archive.pictures])


def _one_factor(width: float, height: float, size: tuple[int, int]) -> bool:
    """Return whether a picture of width x height that is scaled by one factor, to whole px, may get this size."""
    return max((size[0] - 1) / width, (size[1] - 1) / height) < min((size[0] + 1) / width, (size[1] + 1) / height)
