"""The WIDER FACE layout: photographs below WIDER_<split>/images, their face boxes in wider_face_split.

Yang et al., "WIDER FACE: A Face Detection Benchmark", CVPR 2016. Boxes are read as corners in continuous image px.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from extras.shared.lists import numbered, numbers, path_inside
from pipnet.errors import UserError
from utils.data.prepared_set import name_hash, read_source_image

LISTS = "wider_face_split"
FLAGS = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")


class Picture(NamedTuple):
    """A photograph with M faces."""

    file: Path
    event: str
    boxes: np.ndarray  # (M, 4) image px
    ignored: np.ndarray  # (M,) bool: a detection of the face counts neither as right nor as wrong
    covered: np.ndarray  # (M,) bool: `occlusion` is not 0
    whole: bool = True  # every face has a box
    image: np.ndarray | None = None  # (H, W, 3) uint8 BGR if it is in memory
    crop: Callable[[], np.ndarray] | None = None  # reads the image, if it is the crop of a face in `file`

    def read(self) -> np.ndarray:
        """Return the image (H, W, 3) uint8 BGR. Raise UserError for an unreadable file."""
        if self.image is not None:
            return self.image
        return read_source_image(self.file) if self.crop is None else self.crop()


def is_wider(folder: Path) -> bool:
    """Return whether a folder has the WIDER FACE layout."""
    return (folder / LISTS).is_dir()


def list_file(folder: Path, split: str) -> Path:
    """Return the path of the box list of `split` (train, val)."""
    return folder / LISTS / f"wider_face_{split}_bbx_gt.txt"


def read_wider(folder: Path, split: str, partial: tuple[str, ...] = ()) -> list[Picture]:
    """Return the photographs of a split in the order of its list. partial: events in which some faces have no box.

    Faces marked invalid and faces without extent are ignored. Raise UserError, with file and line, for a fault or
    missing image.
    """
    lines, images, pictures = list_file(folder, split), folder / f"WIDER_{split}" / "images", []
    rows = [(where, line.strip()) for where, line in numbered(lines)]
    at = 0
    while at < len(rows):
        where, name = rows[at]
        file = path_inside(folder, name, where, f"WIDER_{split}/images")
        count = rows[at + 1][1] if at + 1 < len(rows) else ""
        if "/" not in name or not count.isdecimal():
            raise UserError(f"{where}: EVENT/NAME.jpg belongs here, and the number of its faces on the next line")
        if not file.is_file():
            raise UserError(f"{where}: no image {images / name}; complete the download")
        # in the official lists, a photograph without faces has the count 0 and one line of zeros
        has_zeros = count == "0" and at + 2 < len(rows) and not rows[at + 2][1].strip("0 \t")
        faces = rows[at + 2 : at + 2 + max(int(count), has_zeros)]
        if len(faces) < int(count):
            raise UserError(f"{where}: {count} faces are announced, but the list ends after {len(faces)}")
        values = np.array([_face(line, place) for place, line in faces[: int(count)]]).reshape(-1, 10)
        boxes = np.concatenate([values[:, :2], values[:, :2] + values[:, 2:4]], 1)
        flag = dict(zip(FLAGS, values[:, 4:].T, strict=True))
        event = name.split("/")[0]
        ignored = (flag["invalid"] != 0) | (values[:, 2:4] <= 0).any(1)
        pictures.append(Picture(file, event, boxes, ignored, flag["occlusion"] != 0, event not in partial))
        at += 2 + len(faces)
    if not pictures:
        raise UserError(f"{lines} lists no photograph")
    return pictures


def _face(line: str, where: str) -> np.ndarray:
    """Return x y w h and the flags (10,) of a line; missing flags are 0."""
    values = numbers(line.split(), where)
    if len(values) not in (4, 10) or (values[2:4] < 0).any():
        raise UserError(
            f"{where}: a face is x y w h blur expression illumination invalid occlusion pose, not '{line[:80]}'"
        )
    return np.append(values, np.zeros(10 - len(values)))


def check_events(partial: tuple[str, ...], pictures: list[Picture]) -> None:
    """Raise UserError for a name in `partial` that is no event of the pictures."""
    events = sorted({picture.event for picture in pictures})
    if unknown := [event for event in partial if event not in events]:
        raise UserError(f"partial_events names {unknown[0]}; the events of the photographs are {', '.join(events[:8])}")


def divide(pictures: list[Picture], share: float, seed: int) -> tuple[list[Picture], list[Picture]]:
    """Return (train, val).

    val gets `share` of each event's photographs, and at least one where the event has two. A hash of seed and name
    draws them.
    """

    def key(picture: Picture) -> bytes:
        return name_hash(f"{seed}/{picture.event}/{picture.file.name}")

    held: set[Path] = set()
    for event in {picture.event for picture in pictures}:
        own = sorted((picture for picture in pictures if picture.event == event), key=key)
        least = 1 if len(own) > 1 and share > 0 else 0
        held |= {picture.file for picture in own[: max(round(share * len(own)), least)]}
    return [p for p in pictures if p.file not in held], [p for p in pictures if p.file in held]
