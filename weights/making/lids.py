"""Shut eyes to learn from: `python weights/making/make.py lids OUT SHIFT_ALL_AGES SHIFT_DIVERSE`.

FACES68 labels shut eyes as half or fully open, and so does pseudo_labels.py. The arguments SHIFT_... are what
pseudo_labels.py printed for the two sets, in px. The sets that are written:

- OUT/faces68, OUT/all_ages, OUT/diverse: copies in which the lids of narrow eyes have no labels. In faces68 this also
  holds for eyes that the shipped net `landmarks` finds much narrower than they are labelled.
- OUT/shut: the faces of 300W with shut eyes and those of FACES68 in which this net finds shut eyes, COPIES times each;
  faces of all sets with open eyes, which a warp of the picture shuts. Its labels have no shift. It has no face that
  main.py validates on.
- OUT/shut_few: a quarter of OUT/shut.
- OUT/apart/faces68, OUT/apart/shut: OUT/faces68 with the faces of OUT/shut_few that come from FACES68, and the other
  faces of OUT/shut_few. They are for nets in which FACES68 has landmarks of its own.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from photographs import Photograph, found_in_box, photographs, require, without_detector
from record import ROOT
from scipy.interpolate import CubicSpline

from extras.shared.pts import read_pts, write_pts
from pipnet.images import read_image, write_image
from pipnet.layout import EYES, opposite
from pipnet.video.drowsiness import ring_aspect
from utils.data.prepare import split_identities
from utils.settings.config import read_defaults

SHIFTS = {"300W": 0.75, "FACES68": 1.2}  # px by which the labels lie too far to the right
LABELLED = ("ALL_AGES", "DIVERSE")  # sets that pseudo_labels.py has labelled
RINGS = tuple(map(read_defaults().layouts.load("68").ring, EYES))
# height / width of an eye: labels below NARROW are not used; an eye below SHUT is shut, one above WIDE is open
NARROW, SHUT, WIDE = 0.16, 0.05, 0.2
FOUND_SHUT = 0.12  # as the net finds it in FACES68: all faces below were looked at, and their eyes are shut
# as the net finds it: below the first, a label that is wider by the second is not used
FOUND_NARROW, DOUBT = 0.18, 0.05
COPIES = 8  # of a face with shut eyes
FEW = 4  # of the pictures of OUT/shut, one in so many is in OUT/shut_few
EVERY = 3  # of the faces with open eyes, one in so many
FRONTAL = 0.45  # least width of the narrower eye / width of the other
LEAST = 10  # px, least width of an eye that is shut; in smaller ones the picture hardly tells whether they are open
QUITE = 0.6  # share of the drawn faces whose eyes are quite shut
BEND = 0.05  # of an eye's width: landmarks of a lid lie at least this far apart
MEET = 0.85  # where both lids meet, from the upper one (0) to the lower one (1)


class Frame(NamedTuple):
    """Coordinates of an eye: x runs from 0 at one corner to 1 at the other, y downwards in the same unit."""

    corner: np.ndarray
    axes: np.ndarray  # (2, 2) rows: x and y in px of the picture

    def of_picture(self, points: np.ndarray) -> np.ndarray:
        """Return points (..., 2) of the picture in this frame."""
        return (points - self.corner) @ np.linalg.inv(self.axes)

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Return points (..., 2) of this frame in the picture."""
        return points @ self.axes + self.corner


class Eye(NamedTuple):
    """The lids of an eye as functions of x. skin: height of the skin above the upper lid that moves with it."""

    frame: Frame
    upper: CubicSpline
    lower: CubicSpline
    skin: float


def eye_of(landmarks: np.ndarray, ring: tuple[int, ...]) -> Eye | None:
    """Return the eye of landmarks (68, 2) in px, None where the lids do not run from corner to corner."""
    start, across = landmarks[ring[0]], landmarks[ring[3]] - landmarks[ring[0]]
    frame = Frame(start, np.array([across, (-across[1], across[0])]))
    brow = frame.of_picture(landmarks[17:22] if ring[0] == 36 else landmarks[22:27])
    upper, lower = (frame.of_picture(landmarks[[ring[i] for i in order]]) for order in ((0, 1, 2, 3), (0, 5, 4, 3)))
    if min(np.diff(lid[:, 0]).min() for lid in (upper, lower)) < BEND or upper[1:3, 1].mean() > lower[1:3, 1].mean():
        return None
    lid = CubicSpline(upper[:, 0], upper[:, 1])
    return Eye(frame, lid, CubicSpline(lower[:, 0], lower[:, 1]), max(0.5 * float(lid(0.5) - brow[:, 1].mean()), 0.1))


def drawn_shut(
    image: np.ndarray, landmarks: np.ndarray, ring: tuple[int, ...], eye: Eye, lid: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return picture and landmarks after the upper lid has moved down by a share `lid` of the eye's height.

    The skin above the lid is stretched, and a line of lashes is drawn. From MEET on, the lower lid moves up to meet it.
    """
    height, width = image.shape[:2]
    frame = eye.frame
    places = frame.of_picture(np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1))
    x, y = places[..., 0], places[..., 1]
    upper, lower = eye.upper(np.clip(x, 0, 1)), eye.lower(np.clip(x, 0, 1))
    edge = upper - rng.uniform(-0.02, 0.04) * (lower > upper)  # how much of the lashes goes along
    line, top, cheek = upper + lid * (lower - upper), upper - eye.skin, lower + 0.3
    source = np.where(y < line, top + (y - top) * (edge - top) / np.maximum(line - top, 1e-6), y)
    if lid >= MEET:
        below = cheek - (cheek - y) * (cheek - lower) / np.maximum(cheek - line, 1e-6)
        source = np.where(y >= line, below, source)
    moved = (x > 0) & (x < 1) & (y > top) & (y < cheek) & (lower > upper)
    source = frame.to_picture(np.stack([x, np.where(moved, source, y)], -1)).astype(np.float32) - 0.5
    picture = cv2.remap(image, source[..., 0], source[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    dark = rng.uniform(0.1, 0.6) * np.exp(-(((y - line) / rng.uniform(0.025, 0.05)) ** 2)) * ((x > 0) & (x < 1))
    picture = (picture * (1 - dark[..., None])).astype(np.uint8)
    landmarks = landmarks.copy()
    for upper_id, lower_id in opposite(ring):
        high, low = frame.of_picture(landmarks[[upper_id, lower_id]])
        high = high + lid * (low - high)
        landmarks[upper_id] = frame.to_picture(high)
        if lid >= MEET:
            landmarks[lower_id] = landmarks[upper_id]
    return picture, landmarks


def around(image: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (part of the image that is three times as wide and high as the face, landmarks in its px)."""
    low, high = landmarks.min(0), landmarks.max(0)
    left, top = np.maximum(low - (high - low), 0).astype(int)
    right, bottom = (2 * high - low).astype(int)
    return image[top:bottom, left:right], landmarks - (left, top)


def shut_face(record: Photograph, shift: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    """Return a face's picture and landmarks (68, 2) after its eyes were shut or half shut.

    None for a face from the side, and for one whose eyes are small or not open.
    """
    landmarks = record.landmarks - (shift, 0)
    widths = [np.linalg.norm(landmarks[ring[3]] - landmarks[ring[0]]) for ring in RINGS]
    eyes = [eye_of(landmarks, ring) for ring in RINGS]
    aspects = [ring_aspect(landmarks, ring) for ring in RINGS]
    if None in eyes or min(aspects) < WIDE or min(widths) < max(LEAST, FRONTAL * max(widths)):
        return None
    image, landmarks = around(read_image(record.file), landmarks)
    lid = MEET if rng.uniform() < QUITE else rng.uniform(0.3, 0.8)
    for ring, eye in zip(RINGS, eyes, strict=True):
        image, landmarks = drawn_shut(image, landmarks, ring, eye, lid, rng)
    return image, landmarks


def met(landmarks: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return landmarks (68, 2) with the eyes of `found`, whose lids are moved until they meet."""
    landmarks = landmarks.copy()
    for ring in RINGS:
        landmarks[list(ring)] = found[list(ring)]
        for upper, lower in opposite(ring):
            landmarks[[upper, lower]] = found[upper] + MEET * (found[lower] - found[upper])
    return landmarks


def shut_already(landmarks: np.ndarray, seen: np.ndarray | None) -> np.ndarray | None:
    """Return the landmarks (68, 2) of a face whose eyes are shut in the photograph, None for another face.

    seen: landmarks that a net has found, for sets whose labels of shut eyes are wrong.
    """
    found, limit = (landmarks, SHUT) if seen is None else (seen, FOUND_SHUT)
    if max(ring_aspect(found, ring) for ring in RINGS) >= limit:
        return None
    return landmarks if seen is None else met(landmarks, seen)


def without_lids(name: str, out: Path, found: dict[Path, np.ndarray]) -> None:
    """Write a copy of the training faces of a set, without labels of the lids of narrow eyes.

    found: {file of the picture: landmarks (68, 2) that a net has found}; a picture that is not there keeps its own.
    """
    out.mkdir(parents=True)
    for record in photographs(name, "train"):
        landmarks = record.landmarks.copy()
        for ring in RINGS:
            labelled, seen = (ring_aspect(points, ring) for points in (landmarks, found.get(record.file, landmarks)))
            if labelled < NARROW or (seen < FOUND_NARROW and labelled > seen + DOUBT):
                landmarks[[*ring[1:3], *ring[4:]]] = np.nan
        shutil.copy(record.file, out)
        write_pts((out / record.file.name).with_suffix(".pts"), landmarks - 0.5)


def main(place: str, *moved: str) -> None:
    """Write the sets below `place`. moved: px by which the labels of LABELLED lie too far to the right."""
    require(*SHIFTS, *LABELLED)
    out, shifts = ROOT / place, SHIFTS | dict(zip(LABELLED, map(float, moved), strict=True))
    net = without_detector("landmarks", threads=1)
    seen = {
        record.file: found_in_box(net, read_image(record.file), record.landmarks)
        for record in photographs("FACES68", "train")
    }
    for name in list(shifts)[1:]:
        without_lids(name, out / name.lower() / "train", seen)
    folder, rng = out / "shut" / "train", np.random.default_rng(0)
    folder.mkdir(parents=True)
    values = read_defaults().values
    for name, shift in shifts.items():
        records = photographs(name, "train")
        held = split_identities([record.identity for record in records], values["val"], values["seed"])
        records = [record for record, val in zip(records, held, strict=True) if not val]
        found = 0
        for index, record in enumerate(records):
            landmarks = shut_already(record.landmarks - (shift, 0), seen.get(record.file)) if name in SHIFTS else None
            if landmarks is not None:
                faces = COPIES * [around(read_image(record.file), landmarks)]
            else:
                faces = list(filter(None, [shut_face(record, shift, rng)])) if index % EVERY == 0 else []
            for copy, (image, points) in enumerate(faces):
                file = folder / f"{name}{index:05d}_{copy}.jpg"
                write_image(file, image)
                write_pts(file.with_suffix(".pts"), points - 0.5)
            found += len(faces)
        print(f"{name}: {found} faces with shut eyes", flush=True)
    few = out / "shut_few" / "train"
    few.mkdir(parents=True)
    for file in sorted(folder.glob("*.jpg"))[::FEW]:
        for one in (file, file.with_suffix(".pts")):
            shutil.copy(one, few / one.name)
    by_set(out)


def by_set(out: Path) -> None:
    """Write the sets in OUT/apart. The labels of all faces from FACES68 get the shift of that set."""
    own, others = (out / "apart" / name / "train" for name in ("faces68", "shut"))
    shutil.copytree(out / "faces68" / "train", own)
    others.mkdir(parents=True)
    for file in sorted((out / "shut_few" / "train").glob("*.jpg")):
        shift = SHIFTS["FACES68"] if file.name.startswith("FACES68") else 0
        folder = own if shift else others
        shutil.copy(file, folder)
        write_pts(folder / f"{file.stem}.pts", read_pts(file.with_suffix(".pts")) + (shift, 0))
