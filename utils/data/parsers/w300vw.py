"""300VW (Shen et al., ICCVW 2015): 114 videos, 68 landmarks in every frame; folders NNN with annot/000001.pts, ... and vid.avi,
or with extracted frames of the same stems, as in Peppa's folders NNN_annot."""

import re
from functools import lru_cache
from pathlib import Path
from threading import Lock

import cv2
import numpy as np

from pipnet.errors import UserError
from utils.cores import cores
from utils.data.parsers.points import listed
from utils.data.parsers.pts import read_pts
from utils.data.parsers.records import Splits, complain, inside, record, short

COUNT = 68
CATEGORIES = {  # of the test, from well-lit to unconstrained
    "category1": (114, 124, 125, 126, 150, 158, 401, 402, *range(505, 512), 514, 515, *range(518, 523), 524, 525, 537, 538, 540,
                  541, 546, 547, 548),
    "category2": (203, 208, 211, 212, 213, 214, 218, 224, *range(403, 410), 412, 550, 551, 553),
    "category3": (410, 411, 516, 517, 526, 528, 529, 530, 531, 533, 557, 558, 559, 562),
}
W300VW = {"train": 50, **{name: len(videos) for name, videos in CATEGORIES.items()}}  # videos, not frames
VIDEO = "vid.avi"


class Frames:
    """Frames of a video file for several threads that ask for them in about the order they stand in."""

    def __init__(self, file: Path):
        self.file, self.lock, self.capture, self.position = file, Lock(), None, 0
        self.kept: dict[int, np.ndarray] = {}  # decoded on the way to one that another thread wanted

    def read(self, number: int) -> np.ndarray:
        """(H, W, 3) uint8 BGR of frame `number`, the first is 1. UserError where the video does not have it."""
        with self.lock:
            if number in self.kept:
                return self.kept.pop(number)
            if self.capture is None or number <= self.position:
                self.capture, self.position = cv2.VideoCapture(str(self.file)), 0
            while self.position < number:
                if not self.capture.grab():
                    raise UserError(f"{self.file}: frame {number} cannot be read, the video ends or is damaged after "
                                    f"{self.position}; fetch it again")
                self.position += 1
                if self.position > number - 2 * cores():
                    self.kept[self.position] = self._decoded()
            self.kept = {place: frame for place, frame in self.kept.items() if place > number - 2 * cores()}
            return self.kept.pop(number)

    def _decoded(self) -> np.ndarray:
        done, frame = self.capture.retrieve()
        if not done:
            raise UserError(f"{self.file}: frame {self.position} cannot be decoded; fetch it again")
        return frame


@lru_cache(maxsize=4)  # a set has more videos than should be open at once
def _frames(file: Path, changed: int) -> Frames:
    """changed: when the file was, so that another one of its name is another video."""
    return Frames(file)


def read_frame(image: Path) -> np.ndarray:
    """(H, W, 3) uint8 BGR of FILE.avi/000001, its first frame."""
    return _frames(image.parent, image.parent.stat().st_mtime_ns).read(int(image.name))


def parse_300vw(data_dir: Path, allow_partial: bool = False, count: int | None = COUNT, origin: float = 1.0,
                frame_step: int = 1) -> Splits:
    """{train, test}: frames 1, 1 + frame_step, ... of every video; a test frame's subset is its category, its identity the video.

    Official counts are of videos. UserError for a .pts of another number of points, or one without frame or video.
    """
    root = Path(data_dir)
    splits: Splits = {"train": [], "test": []}
    found, faults, other = dict.fromkeys(W300VW, 0), [], []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and re.fullmatch(r"\d{3}(_annot)?", path.name)):
        number = int(folder.name[:3])
        category = next((name for name, videos in CATEGORIES.items() if number in videos), "train")
        images, points = listed(folder, root, recursive=True)
        annotated = {int(path.stem): path for path in points.values() if path.stem.isdecimal()}
        pictures = {Path(stem).name: paths[0] for stem, paths in images.items()}
        if not annotated:
            continue
        if not pictures and not (folder / VIDEO).is_file():
            other.append(f"{folder.name}: {len(annotated)} annotated frames without {VIDEO} and without pictures")
            continue
        found[category] += 1
        wanted = [place for place in sorted(annotated) if (place - 1) % frame_step == 0]
        video = inside(root, f"{folder.name}/{VIDEO}", str(folder))
        for place in wanted:
            path = annotated[place]
            try:
                values = read_pts(path, COUNT)
                if pictures and path.stem not in pictures:
                    raise UserError(f"{path}: no picture {path.stem} of that frame in {folder}")
                image = pictures[path.stem] if pictures else video / f"{place:06d}"
                split = "train" if category == "train" else "test"
                splits[split].append(record(image, category, folder.name[:3], values, origin, where=str(path)))
            except UserError as error:
                faults.append(str(error))
    complain(faults)
    lines = [f"{name}: {found[name]} of {videos} videos" for name, videos in W300VW.items() if found[name] != videos]
    short(root, "300VW", lines + other, allow_partial)
    if not any(splits.values()):
        raise UserError(f"{root}: no folder NNN with annot/*.pts and {VIDEO} or pictures in it")
    return splits
