"""Sets for the rows `unions` of experiments.yaml: `python benchmarks/unions.py FOLDER` writes them.
UNIONS names the folder.

- first, second: the halves of 300W's training photographs, with 68 landmarks
- part: the second half, with the 27 of COFW's landmarks that are computed from the 68
- few, rest: a twentieth of the photographs with 68 landmarks, and the others with 27
- drawn: rendered faces with 78 of WFLW's landmarks: all but the brows and the pupils
- parts.yaml, drawn.yaml, habits.yaml: layouts for --layout; drawn_apart.yaml: one in which rendered landmarks are not
  the same as those of photographs
"""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import yaml
from photographs import photographs
from record import ROOT  # noqa: F401  it finds the packages
from scipy.interpolate import CubicSpline

from extras.synthetic import TEST_INDEX, render
from utils.data.prepared_set import name_hash
from utils.data.pts import write_pts
from utils.settings.config import read_defaults
from utils.settings.conversion import conversion

LAYOUTS = read_defaults().layouts
FACES = {"train": 2000, "test": 300}  # rendered


def known(name: str, told: Iterable[int]) -> dict:
    """Return the row of a layout that has the landmarks `told` of layout `name`."""
    layout, told = LAYOUTS.load(name), list(told)
    place = {old: new for new, old in enumerate(told)}
    groups = {group: [place[i] for i in ids if i in place] for group, ids in layout.groups.items()}
    return {
        "count": len(told),
        "flip_index": [place[layout.flip_index[i]] for i in told],
        "interocular": [place[i] for i in layout.interocular],
        "groups": {name: ids for name, ids in groups.items() if ids},
        "same_as": {name: {new: old for old, new in place.items()}},
    }


def curve(points: np.ndarray, count: int) -> np.ndarray:
    """Return `count` points (count, 2), evenly spaced along the smooth curve through `points` (M, 2), its ends among
    them.
    """
    steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    line = CubicSpline(steps, points)
    fine = line(np.linspace(0, steps[-1], 400))
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    return line(np.interp(np.linspace(0, length[-1], count), length, np.linspace(0, steps[-1], 400)))


def dense(points: np.ndarray) -> np.ndarray:
    """Return landmarks (98, 2) from the 68 of a rendered face; NaN at brows and pupils."""
    found = np.full((98, 2), np.nan)
    found[:33:2], found[51:60], found[76:96] = points[:17], points[27:36], points[48:]
    for first, i in ((60, 36), (68, 42)):
        upper, lower = curve(points[[i, i + 1, i + 2, i + 3]], 5), curve(points[[i + 3, i + 4, i + 5, i]], 5)
        found[first : first + 8] = [*upper[:4], *lower[:4]]
    for start in range(16):  # between two landmarks of the jaw, on the curve through four
        near = np.unique(np.clip(np.arange(start - 1, start + 3), 0, 16))
        found[2 * start + 1] = CubicSpline(near, points[near])(start + 0.5)
    return found


def main(out: str) -> None:
    folder = Path(out)
    told = np.flatnonzero(conversion("68", "29", LAYOUTS).has_rule[0])
    rows = {"parts": known("29", told.tolist()), "drawn": known("98", [*range(33), *range(51, 96)])}
    for photograph in photographs("300W", "train"):
        drawn, part = (
            name_hash(f"half/{photograph.identity}"),
            conversion("68", "29", LAYOUTS)(photograph.landmarks)[told],
        )
        points = {"second" if drawn[0] % 2 else "first": photograph.landmarks}
        points |= {"part": part} if drawn[0] % 2 else {}
        points |= {"rest": part} if drawn[1] % 20 else {"few": photograph.landmarks}
        name = "_".join(photograph.file.parts[-3:]).replace(" ", "-").replace("_", "-")
        for place, landmarks in points.items():
            (folder / place / "train").mkdir(parents=True, exist_ok=True)
            shutil.copy(photograph.file, folder / place / "train" / name)
            write_pts(folder / place / "train" / f"{Path(name).stem}.pts", landmarks - 0.5)
    for split, count in FACES.items():
        (folder / "drawn" / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            face = render(7, number + TEST_INDEX * (split == "test"), 200)
            file = folder / "drawn" / split / f"{number:05d}.jpg"
            file.write_bytes(cv2.imencode(".jpg", face.image)[1].tobytes())
            write_pts(file.with_suffix(".pts"), dense(face.landmarks)[[*range(33), *range(51, 96)]] - 0.5)
    for name, row in rows.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({f"with_{name}": {"conventions": {}}, name: row}))
        (folder / f"{name}_alone.yaml").write_text(yaml.safe_dump({name: row}))
    habits = {"habits": {"conventions": {"faces68": ["jaw", "brow_left", "brow_right"]}}}
    (folder / "habits.yaml").write_text(yaml.safe_dump(habits))
    apart = {"apart": {"conventions": {"drawn": [*rows["drawn"]["groups"]]}}, "drawn": rows["drawn"]}
    (folder / "drawn_apart.yaml").write_text(yaml.safe_dump(apart))


if __name__ == "__main__":
    main(*sys.argv[1:])
