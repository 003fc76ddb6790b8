"""Labelled photographs, changed: what a net finds in them."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import cv2
import numpy as np
from photographs import (
    Photograph,
    found_in_box,
    labelled_sets,
    photographs,
    titled,
    without_detector,
)

from pipnet.geometry import box_of, transform, turn_picture
from pipnet.landmarker import Landmarker
from pipnet.pose import head_pose

SMALL = 40  # px, width of a face that was shrunk
GAPE, ROLL = 0.2, 20  # distance of the inner lips, eye distances; degrees
YAWS, WIDTHS = (0, 15, 30, 45, 90), (0, 80, 160, 10**6)  # degrees; px of the source
Changed = tuple[np.ndarray, np.ndarray]  # picture (H, W, 3) uint8 BGR, landmarks (68, 2) in its px
Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], Changed]


def turned(angle: float) -> Change:
    """Return a change that turns the picture clockwise by `angle` degrees."""

    def change(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> Changed:
        picture, matrix = turn_picture(image, np.radians(angle))
        return picture, transform(landmarks, matrix)

    return change


def lit(gamma: float, noise: float = 0.0) -> Change:
    """Return a change of the light: grey levels in [0, 1] to the power of `gamma`, then noise of that many levels of
    256.
    """

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


def half_black(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> Changed:
    """One side of a line through the middle of the face lies in black shadow, with an edge of a tenth of the face's
    width.
    """
    (x, y), angle = landmarks.mean(0), rng.uniform(0, 2 * np.pi)
    rows, columns = np.indices(image.shape[:2])
    off = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    light = 0.04 + 0.96 * np.clip(off / (0.1 * np.ptp(landmarks[:, 0])) + 0.5, 0, 1)
    return (image * light[..., None]).astype(np.uint8), landmarks


def coloured(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> Changed:
    """The light is saturated: one channel keeps its light, the others a tenth to a half."""
    gains = rng.permutation([1.0, *rng.uniform(0.1, 0.5, 2)])
    return (image * gains).astype(np.uint8), landmarks


def cut_off(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> Changed:
    """The picture ends inside of the face: a fifth of its box is lost on one side."""
    (left, top), (right, bottom), side = landmarks.min(0), landmarks.max(0), int(rng.integers(4))
    lost = np.array([right - left, bottom - top]) / 5
    x1, y1, x2, y2 = 0, 0, image.shape[1], image.shape[0]
    if side == 0:
        x1 = max(int(left + lost[0]), 0)
    elif side == 1:
        y1 = max(int(top + lost[1]), 0)
    elif side == 2:
        x2 = int(right - lost[0])
    else:
        y2 = int(bottom - lost[1])
    return image[y1:y2, x1:x2], landmarks - (x1, y1)


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
    "as taken": lambda image, landmarks, rng: (image, landmarks),
    "turned by 40°": turned(40),
    "upside down": turned(180),
    "dark, noisy": lit(3.0, 6.0),
    "overexposed": lit(0.35),
    "light from one side": side_light,
    "black and white": grey,
    "blurred": blurred,
    f"{SMALL} px wide": small,
    "a third hidden": covered,
    "half in black shadow": half_black,
    "coloured light": coloured,
    "cut off by a fifth": cut_off,
}


def error_of(landmarker: Landmarker, image: np.ndarray, truth: np.ndarray) -> float:
    """Return the NME in % of the face in the labels' box."""
    return nme(found_in_box(landmarker, image, truth), truth)


def nme(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean error of landmarks (68, 2) in % of the distance between the outer corners of the true eyes."""
    return 100 * float(np.linalg.norm(found - truth, axis=1).mean() / np.linalg.norm(truth[45] - truth[36]))


def kinds(*nets: str, split: str = "test", faces: int = 224) -> Iterator[dict]:
    """Yield the number of faces and the NME in % of labelled photographs, each changed in one way at a time.

    The face is in the labels' box. Further rows are the mean of all changes, and groups by the yaw of the labels, the
    opening of the mouth, the roll, and the size of the face. Stages of the shipped nets are chosen with --split val
    --into kinds_val.
    """
    counts: dict[str, dict] = {}
    figures: dict[str, dict] = {}
    for title, net in titled(nets).items():
        for name in labelled_sets():
            landmarker = without_detector(net, name, threads=1)
            for kind, errors in errors_by_kind(landmarker, photographs(name, split, faces)).items():
                counts.setdefault(kind, {})[f"faces, {name}"] = f"{len(errors)}"
                figures.setdefault(kind, {})[f"{title}, {name}"] = f"{errors.mean():.2f}"
    yield from ({"photographs": kind, **counts[kind], **figures[kind]} for kind in counts)


def errors_by_kind(landmarker: Landmarker, records: list[Photograph]) -> dict[str, np.ndarray]:
    """Return {kind: NME in % of each face}."""
    rng, errors, yaws, rolls = np.random.default_rng(0), {kind: [] for kind in KINDS}, [], []
    for record in records:
        image = cv2.imread(str(record.file))
        height, width = image.shape[:2]
        _, yaw, roll = np.abs(head_pose(record.landmarks, landmarker.layout, width, height))
        yaws.append(yaw)
        rolls.append(roll)
        for kind, change in KINDS.items():
            errors[kind].append(error_of(landmarker, *change(image, record.landmarks, rng)))
    plain, truth = np.array(errors["as taken"]), np.array([record.landmarks for record in records])
    widths, gapes = np.ptp(truth[..., 0], axis=1), np.linalg.norm(truth[:, 62] - truth[:, 66], axis=1)
    bands = {f"yaw {low} to {high}°": (np.array(yaws) >= low) & (np.array(yaws) < high) for low, high in pairwise(YAWS)}
    bands |= {
        f"{low} px wide or more" if low else f"below {high} px": (widths >= low) & (widths < high)
        for low, high in pairwise(WIDTHS)
    }
    bands |= {
        "mouth wide open": gapes > GAPE * np.linalg.norm(truth[:, 45] - truth[:, 36], axis=1),
        f"rolled by {ROLL}° or more": np.array(rolls) >= ROLL,
    }
    found = {kind: np.array(some) for kind, some in errors.items()}
    found["mean of these"] = np.mean([*found.values()], 0)
    return found | {band: plain[inside] for band, inside in bands.items() if inside.any()}
