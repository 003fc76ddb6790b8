"""How a landmark net holds up on many kinds of photographs: `python benchmarks/kinds.py [--split test] [--faces 224] [NET ...]`.

Labelled photographs of FACES_300W and FACES68 in the labels' boxes, each changed in one way at a time, and grouped by the yaw of
the labels and by the size of the face. The rows of shipped nets stay until they are measured again.
"""
import argparse
import json
from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
from photographs import Photograph, found_in_box, labelled_sets, photographs, without_detector
from record import COMMIT, RESULTS, save

from pipnet.files import SHIPPED
from pipnet.geometry import box_of, transform, turn_picture
from pipnet.landmarker import Landmarker
from pipnet.pose import head_pose

SMALL, FAILED = 40, 10.0  # px, width of a face that was shrunk; NME in % of a failure
YAWS, WIDTHS = (0, 15, 30, 45, 90), (0, 80, 160, 10 ** 6)  # degrees; px of the source
Changed = tuple[np.ndarray, np.ndarray]  # picture (H, W, 3) uint8 BGR, landmarks (68, 2) in its px
Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], Changed]


def turned(angle: float) -> Change:
    """Return a change that turns the picture clockwise by `angle` degrees."""
    def change(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> Changed:
        picture, matrix = turn_picture(image, np.radians(angle))
        return picture, transform(landmarks, matrix)
    return change


def lit(gamma: float, noise: float = 0.0) -> Change:
    """Return a change of the light: grey levels in [0, 1] to the power of `gamma`, then noise of that many levels of 256."""
    def change(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> Changed:
        levels = 255 * (image / 255.0) ** gamma + rng.normal(0, noise or 1e-9, image.shape)
        return np.clip(levels, 0, 255).astype(np.uint8), landmarks
    return change


def side_light(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> Changed:
    """One side of the face has a tenth of the light."""
    left, _, right, _ = box_of(landmarks)
    share = np.clip((np.arange(image.shape[1]) - left) / (right - left), 0, 1)
    share = share if rng.uniform() < 0.5 else 1 - share
    return (image * (0.1 + 0.9 * share)[:, None]).astype(np.uint8), landmarks


def covered(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> Changed:
    """A third of the face's box, at its edge, is hidden."""
    (left, top), (width, height), side = landmarks.min(0), np.ptp(landmarks, axis=0), int(rng.integers(4))
    x, y = [(0, 0), (0.67, 0), (0, 0.67), (0, 0)][side]
    wide, high = (0.33, 1) if side < 2 else (1, 0.33)
    corners = np.array([(left + x * width, top + y * height), (left + (x + wide) * width, top + (y + high) * height)])
    (x1, y1), (x2, y2) = corners.round().astype(int).tolist()
    return cv2.rectangle(image.copy(), (x1, y1), (x2, y2), rng.integers(0, 256, 3).tolist(), -1), landmarks


def small(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> Changed:
    """The picture is shrunk until the face is SMALL px wide."""
    zoom = min(SMALL / np.ptp(landmarks[:, 0]), 1)
    shrunk = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    return shrunk, landmarks * (shrunk.shape[1] / image.shape[1], shrunk.shape[0] / image.shape[0])


def blurred(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> Changed:
    """A Gaussian blur, of a thirtieth of the face's width."""
    return cv2.GaussianBlur(image, (0, 0), np.ptp(landmarks[:, 0]) / 30), landmarks


def grey(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> Changed:
    """Black and white."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), landmarks


KINDS: dict[str, Change] = {
    "as taken": lambda image, landmarks, rng: (image, landmarks), "turned by 40°": turned(40), "upside down": turned(180),
    "dark, noisy": lit(3.0, 6.0), "overexposed": lit(0.35), "light from one side": side_light, "black and white": grey,
    "blurred": blurred, f"{SMALL} px wide": small, "a third hidden": covered,
}


def error_of(landmarker: Landmarker, image: np.ndarray, truth: np.ndarray) -> float:
    """Return the NME in % of the outer corners of the eyes of the face in the labels' box."""
    found = found_in_box(landmarker, image, truth)
    return 100 * float(np.linalg.norm(found - truth, axis=1).mean() / np.linalg.norm(truth[45] - truth[36]))


def figures(errors: np.ndarray) -> dict:
    """Return the number of faces, the mean NME in % and the share of failures in %."""
    return {"faces": len(errors), "nme": round(float(errors.mean()), 3), "fr_%": round(100 * float((errors > FAILED).mean()), 2)}


def measure(landmarker: Landmarker, records: list[Photograph]) -> dict[str, dict]:
    """Return {kind: figures} of labelled faces."""
    rng, errors, yaws = np.random.default_rng(0), {kind: [] for kind in KINDS}, []
    for record in records:
        image = cv2.imread(str(record.file))
        height, width = image.shape[:2]
        yaws.append(abs(head_pose(record.landmarks, landmarker.layout, width, height)[1]))
        for kind, change in KINDS.items():
            errors[kind].append(error_of(landmarker, *change(image, record.landmarks, rng)))
    plain, widths = np.array(errors["as taken"]), np.array([np.ptp(record.landmarks[:, 0]) for record in records])
    bands = {f"yaw {low} to {high}°": (np.array(yaws) >= low) & (np.array(yaws) < high) for low, high in pairwise(YAWS)}
    bands |= {f"{low} px wide or more" if low else f"below {high} px": (widths >= low) & (widths < high)
              for low, high in pairwise(WIDTHS)}
    found = {kind: figures(np.array(some)) for kind, some in errors.items()}
    return found | {band: figures(plain[inside]) for band, inside in bands.items() if inside.any()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", metavar="NET", default=SHIPPED[:2], help="what demo.py --exp takes")
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--faces", type=int, default=224, help="of each set")
    given = parser.parse_args()
    file = RESULTS / "kinds.json"
    stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    how = {"split": given.split, "faces": given.faces}
    rows = stored["rows"] if {key: stored.get(key) for key in how} == how else {}
    for net in given.nets:
        landmarker = without_detector(net, threads=1)
        rows[net] = {"commit": COMMIT, **{name: measure(landmarker, photographs(name, given.split, given.faces))
                                          for name in labelled_sets()}}
        save("kinds", f"python benchmarks/kinds.py --split {given.split} --faces {given.faces}", 0, {**how, "rows": rows})


if __name__ == "__main__":
    main()
