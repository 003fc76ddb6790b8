"""300W-LP (Zhu et al., CVPR 2016): 68 landmarks and head pose of faces turned by a 3-D model; AFW, HELEN, IBUG, LFPW and the
mirrored _Flip, each NAME.jpg of 450 x 450 px with a NAME.mat, and landmarks/."""

import re
from pathlib import Path

import numpy as np

from pipnet.errors import UserError
from utils.config import read_defaults
from utils.data.parsers.mat import read_mat, values
from utils.data.parsers.records import Splits, complain, inside, record, whole

COUNT = 68
SIDE = 450
W300LP = {name + flip: count for flip in ("", "_Flip")
          for name, count in {"AFW": 5207, "HELEN": 37676, "IBUG": 1786, "LFPW": 16556}.items()}


def _points(root: Path, part: str, stem: str, flip_index: tuple[int, ...]) -> np.ndarray:
    """(68, 2) of landmarks/: annotated as 300W does, jaw along the visible edge. Mirrored faces have no file of their own: x goes
    to 450 - x, and left and right change names."""
    plain = part.removesuffix("_Flip")
    file = inside(root, f"landmarks/{plain}/{stem}_pts.mat", str(root / part))
    points = values(read_mat(file, "pts_2d")[0], (COUNT, 2), f"{file}: pts_2d")
    return points if part == plain else (points * (-1, 1) + (SIDE, 0))[list(flip_index)]


def parse_300wlp(data_dir: Path, allow_partial: bool = False, count: int | None = COUNT, origin: float = 0.5) -> Splits:
    """{train}: landmarks of landmarks/ where the release has that folder, else pt2d of the .mat; pose (pitch, yaw, roll).

    A mirrored face belongs to its original's identity, and so do all that are made of one photograph. A mirrored pose is that of
    its own .mat. 300W's test photographs (IBUG, the test parts of HELEN and LFPW) are among these.
    """
    root = Path(data_dir)
    flip_index = read_defaults().layouts.load("68").flip_index
    redrawn = (root / "landmarks").is_dir()
    splits: Splits = {"train": []}
    absent, faults = [], []
    for part in W300LP:
        for mat in sorted((root / part).glob("*.mat") if (root / part).is_dir() else ()):
            if mat.name.startswith("."):
                continue
            image = inside(root, f"{part}/{mat.stem}.jpg", str(mat))
            if not image.is_file():
                absent.append(image)
                continue
            try:
                points, pose = read_mat(inside(root, f"{part}/{mat.name}", str(mat)), "pt2d", "Pose_Para")
                points = _points(root, part, mat.stem, flip_index) if redrawn else values(points, (2, COUNT), f"{mat}: pt2d").T
                pose = values(pose, (1, 7), f"{mat}: Pose_Para")[0, :3]
                identity = _photograph(part, mat.stem)
                splits["train"].append(record(image, part, identity, points, origin, where=str(mat), pose=pose))
            except UserError as error:
                faults.append(str(error))
    complain(faults)
    whole(root, "300W-LP", W300LP, splits, absent, allow_partial)
    return splits


def _photograph(part: str, stem: str) -> str:
    """HELEN/123 of HELEN_123_1_5, the sixth turn of a photograph's first face; LFPW_image_train_0001_5 numbers no face."""
    return f"{part.removesuffix('_Flip')}/{re.sub(r'(_[0-9]{1,2}){1,2}$', '', stem)}"
