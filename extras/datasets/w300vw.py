"""300VW (Shen et al., ICCVW 2015): 114 videos with 68 landmarks in every frame.

Folders NNN with annot/000001.pts, ... and vid.avi, or with extracted frames of the same stems, as in Peppa's folders
NNN_annot.
"""

import re
from functools import lru_cache
from pathlib import Path
from threading import Lock

import cv2
import numpy as np

from extras.datasets.archive import Archive
from extras.datasets.points import images_and_points
from extras.shared.lists import path_inside
from extras.shared.pts import read_pts
from pipnet.cores import cores
from pipnet.errors import UserError
from pipnet.images import opencv_path

COUNT = 68
# fmt: off
CATEGORIES = {  # test videos, from well-lit to unconstrained
    "category1": (114, 124, 125, 126, 150, 158, 401, 402, *range(505, 512), 514, 515, *range(518, 523), 524, 525, 537, 538, 540,
                  541, 546, 547, 548),
    "category2": (203, 208, 211, 212, 213, 214, 218, 224, *range(403, 410), 412, 550, 551, 553),
    "category3": (410, 411, 516, 517, 526, 528, 529, 530, 531, 533, 557, 558, 559, 562),
}
# fmt: on
VIDEO = "vid.avi"


class Frames:
    """Frames of a video file for several threads that request them in roughly ascending order."""

    def __init__(self, file: Path):
        self.file, self.lock, self.position = file, Lock(), 0
        self.capture: cv2.VideoCapture | None = None
        self.decoded: dict[int, np.ndarray] = {}  # recent frames that no thread has requested yet

    def read(self, number: int) -> np.ndarray:
        """Return frame `number`, counted from 1, as (H, W, 3) uint8 BGR. Raise UserError if the video does not have it."""
        with self.lock:
            if number in self.decoded:
                return self.decoded.pop(number)
            if self.capture is None or number <= self.position:
                self.capture, self.position = cv2.VideoCapture(opencv_path(self.file)), 0
            oldest = number - 2 * cores()
            while self.position < number:
                if not self.capture.grab():
                    raise UserError(
                        f"{self.file}: frame {number} cannot be read, the video ends or is damaged after "
                        f"{self.position}; fetch it again"
                    )
                self.position += 1
                if self.position > oldest:
                    done, frame = self.capture.retrieve()
                    if not done:
                        raise UserError(f"{self.file}: frame {self.position} cannot be decoded; fetch it again")
                    self.decoded[self.position] = frame
            self.decoded = {place: frame for place, frame in self.decoded.items() if place > oldest}
            return self.decoded.pop(number)


@lru_cache(maxsize=4)  # bounds the number of open videos
def _frames(file: Path, changed: int) -> Frames:
    """Return the reader of a video; `changed`, its modification time, keeps a replaced file from being served from the
    cache.
    """
    return Frames(file)


def read_frame(image: Path) -> np.ndarray:
    """Return frame FILE.avi/NUMBER, counted from 1, as (H, W, 3) uint8 BGR."""
    return _frames(image.parent, image.parent.stat().st_mtime_ns).read(int(image.name))


def parse_300vw(archive: Archive, frame_step: int = 1) -> list[str]:
    """Add train, test: frames 1, 1 + frame_step, ... of every video.
    The identity is the video, a test subset its category.

    The official numbers are of videos. Raise UserError for a .pts with another number of points, and for one without
    its image.
    """
    root = archive.root
    found, without = dict.fromkeys(archive.expected, 0), []
    for folder in sorted(
        path for path in root.iterdir() if path.is_dir() and re.fullmatch(r"\d{3}(_annot)?", path.name)
    ):
        video_id = folder.name[:3]
        category = next((name for name, videos in CATEGORIES.items() if int(video_id) in videos), "train")
        images, points = images_and_points(folder, root, recursive=True)
        annotated = {int(path.stem): path for path in points.values() if path.stem.isdecimal()}
        pictures = {Path(stem).name: paths[0] for stem, paths in images.items()}
        if not annotated:
            continue
        if not pictures and not (folder / VIDEO).is_file():
            without.append(f"{folder.name}: {len(annotated)} annotated frames without {VIDEO} and without pictures")
            continue
        found[category] += 1
        video = path_inside(root, f"{folder.name}/{VIDEO}", str(folder))
        for number, path in sorted(annotated.items()):
            if (number - 1) % frame_step:
                continue
            with archive.checked():
                values = read_pts(path, COUNT)
                if pictures and path.stem not in pictures:
                    raise UserError(f"{path}: no picture {path.stem} of that frame in {folder}")
                image = pictures[path.stem] if pictures else video / f"{number:06d}"
                split = "train" if category == "train" else "test"
                archive.add(split, image, category, video_id, values, str(path))
    missing = [
        f"{name}: {found[name]} of {count} videos" for name, count in archive.expected.items() if found[name] != count
    ]
    return missing + without
