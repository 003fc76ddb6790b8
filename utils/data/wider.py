"""The WIDER FACE layout: photographs below WIDER_<split>/images, their face boxes in wider_face_split.

After Yang et al., "WIDER FACE: A Face Detection Benchmark", CVPR 2016. Boxes become corners in continuous image px.
"""
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipnet.errors import UserError
from utils.data.parsers.records import inside, numbers, read_lines
from utils.data.prepared_set import read_image

LISTS = "wider_face_split"
FLAGS = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")


class Picture(NamedTuple):
    """One photograph. boxes (M, 4) image px; ignored (M,): faces that count neither way; covered (M,): occlusion is not 0;
    whole: every face has a box; image: (H, W, 3) uint8 BGR of a picture that is no file."""

    file: Path
    event: str
    boxes: np.ndarray
    ignored: np.ndarray
    covered: np.ndarray
    whole: bool = True
    image: np.ndarray | None = None

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8 BGR. UserError where the file is no readable image."""
        return read_image(self.file) if self.image is None else self.image


def is_wider(folder: Path) -> bool:
    """Whether a folder has the layout."""
    return (folder / LISTS).is_dir()


def list_file(folder: Path, split: str) -> Path:
    """Where the boxes of `split` (train, val) stand."""
    return folder / LISTS / f"wider_face_{split}_bbx_gt.txt"


def read_wider(folder: Path, split: str, partial: tuple[str, ...] = ()) -> list[Picture]:
    """The photographs of a split, in the file's order. partial: events whose photographs show faces without a box.

    A face marked invalid, and one without extent, is ignored. UserError names file and line of what is wrong or not there.
    """
    lines, images, pictures = list_file(folder, split), folder / f"WIDER_{split}" / "images", []
    rows = [(number, line.strip()) for number, line in enumerate(read_lines(lines), 1) if line.strip()]
    at = 0
    while at < len(rows):
        name, where = rows[at][1], f"{lines}, line {rows[at][0]}"
        file = inside(folder, name, where, f"WIDER_{split}/images")
        count = rows[at + 1][1] if at + 1 < len(rows) else ""
        if "/" not in name or not count.isdecimal():
            raise UserError(f"{where}: EVENT/NAME.jpg belongs here, and the number of its faces on the next line")
        if not file.is_file():
            raise UserError(f"{where}: no image {images / name}; complete the download")
        # a photograph without a face has the count 0 and, in the official lists, one line of zeros
        has_zeros = count == "0" and at + 2 < len(rows) and not rows[at + 2][1].strip("0 \t")
        faces = rows[at + 2:at + 2 + max(int(count), has_zeros)]
        if len(faces) < int(count):
            raise UserError(f"{where}: {count} faces are announced, but the list ends after {len(faces)}")
        values = np.array([_face(line, f"{lines}, line {number}") for number, line in faces[:int(count)]]).reshape(-1, 10)
        boxes = np.concatenate([values[:, :2], values[:, :2] + values[:, 2:4]], 1)
        flag = dict(zip(FLAGS, values[:, 4:].T, strict=True))
        event = name.split("/")[0]
        pictures.append(Picture(file, event, boxes, (flag["invalid"] != 0) | (values[:, 2:4] <= 0).any(1), flag["occlusion"] != 0,
                                event not in partial))
        at += 2 + len(faces)
    if not pictures:
        raise UserError(f"{lines} lists no photograph")
    return pictures


def _face(line: str, where: str) -> np.ndarray:
    """(10,) x y w h and the flags, which may be left out."""
    values = numbers(line.split(), where)
    if len(values) not in (4, 10) or (values[2:4] < 0).any():
        raise UserError(f"{where}: a face is x y w h blur expression illumination invalid occlusion pose, not '{line[:80]}'")
    return np.resize(np.append(values, np.zeros(6)), 10) if len(values) == 4 else values


def check_events(partial: tuple[str, ...], pictures: list[Picture]) -> None:
    """UserError for an event that none of the pictures is of."""
    events = sorted({picture.event for picture in pictures})
    if unknown := [event for event in partial if event not in events]:
        raise UserError(f"partial_events names {unknown[0]}; the events of the photographs are {', '.join(events[:8])}")


def divide(pictures: list[Picture], share: float, seed: int) -> tuple[list[Picture], list[Picture]]:
    """(train, val): `share` of the photographs of each event, at least one of two, drawn by a hash of seed and name."""
    def key(picture: Picture) -> bytes:
        return hashlib.sha256(f"{seed}/{picture.event}/{picture.file.name}".encode(errors="surrogateescape")).digest()

    held: set[Path] = set()
    for event in {picture.event for picture in pictures}:
        own = sorted((picture for picture in pictures if picture.event == event), key=key)
        held |= {picture.file for picture in own[:max(round(share * len(own)), int(len(own) > 1 and share > 0))]}
    return [p for p in pictures if p.file not in held], [p for p in pictures if p.file in held]
