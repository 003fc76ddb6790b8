"""Labelled photographs, changed: what a net finds in them."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from photographs import LABELLED, Photograph, found_in_box, photographs, there, titled, without_detector

from pipnet.geometry import box_of, transform, turn_picture
from pipnet.landmarker import Landmarker

SMALL = 40  # px, width of a face that was shrunk
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


def nme(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean error of landmarks (68, 2) in % of the distance between the outer corners of the true eyes."""
    return 100 * float(np.linalg.norm(found - truth, axis=1).mean() / np.linalg.norm(truth[45] - truth[36]))


def kinds(*nets: str, split: str = "test", faces: int = 224) -> Iterator[dict]:
    """Yield the NME in % of labelled photographs, each changed in one way at a time; at most `faces` of each set.

    The face is in the labels' box. The last row is the mean of all changes. Stages of the shipped nets are chosen with
    --split val --into kinds_val.
    """
    for title, net in titled(nets).items():
        for name in there(*LABELLED):
            landmarker = without_detector(net, name, threads=1)
            for kind, errors in errors_by_kind(landmarker, photographs(name, split, faces)).items():
                yield {"photographs": kind, f"{title}, {name}": f"{errors.mean():.2f}"}


def errors_by_kind(landmarker: Landmarker, records: list[Photograph]) -> dict[str, np.ndarray]:
    """Return {kind: NME in % of each face}, and the mean of all kinds."""
    rng, errors = np.random.default_rng(0), {kind: np.zeros(len(records)) for kind in KINDS}
    for row, record in enumerate(records):
        image = cv2.imread(str(record.file))
        for kind, change in KINDS.items():
            picture, landmarks = change(image, record.landmarks, rng)
            errors[kind][row] = nme(found_in_box(landmarker, picture, landmarks), landmarks)
    return errors | {"mean of these": np.mean([*errors.values()], 0)}
