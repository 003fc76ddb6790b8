"""How nets find faces: `python benchmarks/measure.py WHAT [NET ...] [--split test] [--faces 224] [--into NAME]`.

kinds: labelled photographs of FACES_300W and FACES68 in the labels' boxes, each changed in one way at a time, and grouped by the
yaw of the labels and by the size of the face. traits: rendered people, of whom everything is known, drawn frontal, turned to the
side, with shut eyes and with a mouth at rest, in the light and before the background of their seed. blinks: eyes of real people,
shut in the videos of the folder VIDEOS, which the net follows without smoothing, and open in the test photographs with wide open
labels. sizes: faces that the shipped detector finds in photographs that are cut so that the face fills the frame, or shrunk.

A NET is what demo.py --exp takes, or TITLE=NET; without one, the shipped nets are measured. Columns of other nets stay in
results/WHAT.json, or in NAME.json.
"""
import argparse
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from photographs import PLACES, Photograph, found_in_box, labelled_sets, photographs, place_of, require, without_detector
from record import save, updated
from scipy.ndimage import median_filter
from scipy.signal import find_peaks
from shown import SETS

from pipnet.app.drowsiness import ring_aspect
from pipnet.app.track import Tracker
from pipnet.detector import Detector
from pipnet.files import SHIPPED
from pipnet.geometry import box_of, grow, transform, turn_picture
from pipnet.landmarker import Landmarker
from pipnet.layout import EYES, INNER_LIPS, Layout, opposite
from pipnet.pose import head_pose
from utils.evaluate import metric
from utils.synthetic import render
from utils.synthetic.face import RenderedFace
from utils.synthetic.head import both_lids
from utils.synthetic.people import Person, sample_person

Nets = dict[str, str]  # {title: net}

# ------------------------------------------------------------------------------------------------------------------ kinds
SMALL = 40                                       # px, width of a face that was shrunk
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


def kinds(nets: Nets, given: argparse.Namespace) -> Iterator[dict]:
    """Yield the number of faces and the NME in % by kind of photograph."""
    for title, net in nets.items():
        landmarker = without_detector(net, threads=1)
        for name in labelled_sets():
            for kind, errors in errors_by_kind(landmarker, photographs(name, given.split, given.faces)).items():
                yield {"photographs": kind, f"faces, {name}": f"{len(errors)}", f"{title}, {name}": f"{errors.mean():.2f}"}


def errors_by_kind(landmarker: Landmarker, records: list[Photograph]) -> dict[str, np.ndarray]:
    """Return {kind: NME in % of each face}."""
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
    found = {kind: np.array(some) for kind, some in errors.items()}
    return found | {band: plain[inside] for band, inside in bands.items() if inside.any()}


# ----------------------------------------------------------------------------------------------------------------- traits
SEED, SIDE, PEOPLE = 2, 256, 300  # seeds 0 and 1 draw training faces
UPRIGHT = -17.0                # degrees, pitch of a face that looks straight ahead
TURNS = (0, 30, 45, 60, 75)    # degrees, to each side in turn
OPEN, SHUT = ({"lids": both_lids(openness, 0.8)} for openness in (1.0, 0.0))
REST = {"expression": {"brow_in_left": 0.0}, "jaw": 0.0}
SKINS = ("light skin", "medium skin", "dark skin")  # equal parts
AGES = {"children": (0.0, 1e-9), "adults": (1e-9, 0.4), "old people": (0.4, 1.1)}  # of `Look.age`


def drawn(index: int, yaw: float, **pose) -> RenderedFace:
    """Return a person's picture with that yaw in degrees."""
    return render(SEED, index, SIDE, angles=tuple(np.radians([yaw, UPRIGHT, 0.0])), **pose)


def error(layout: Layout, landmarks: np.ndarray, truth: np.ndarray) -> float:
    """Return the NME in % of the square root of the area of the labels' box."""
    return float(metric.nme(metric.point_errors(landmarks, truth)[None], metric.norms(truth[None], layout, "box"))[0])


def eyes_open(layout: Layout, landmarks: np.ndarray) -> float:
    """Return the mean of height / width of both eyes."""
    return float(np.mean([ring_aspect(landmarks, layout.ring(eye)) for eye in EYES]))


def lips_apart(layout: Layout, landmarks: np.ndarray) -> float:
    """Return the mean distance of the inner lips in % of the distance of the outer corners of the eyes."""
    upper, lower = zip(*opposite(layout.ring(INNER_LIPS)), strict=True)
    apart = np.linalg.norm(landmarks[list(upper)] - landmarks[list(lower)], axis=1).mean()
    return 100 * float(apart / np.linalg.norm(np.subtract(*landmarks[list(layout.interocular)])))


def by_trait(landmarker: Landmarker, people: list[Person]) -> dict[str, float]:
    """Return {row: mean} over the people."""
    def found(face: RenderedFace) -> np.ndarray:
        return found_in_box(landmarker, face.image, face.landmarks)

    layout, errors = landmarker.layout, {yaw: np.zeros(len(people)) for yaw in TURNS}
    eyes, lips = [], []
    for index in range(len(people)):
        for yaw in TURNS:
            face = drawn(index, yaw if index % 2 else -yaw)
            errors[yaw][index] = error(layout, found(face), face.landmarks)
        eyes.append([eyes_open(layout, found(drawn(index, 0, **lids))) for lids in (OPEN, SHUT)])
        face = drawn(index, 0, **REST)
        lips.append([lips_apart(layout, found(face)), lips_apart(layout, face.landmarks)])
    skin = np.argsort(np.argsort([-person.look.skin.mean() for person in people])) * len(SKINS) // len(people)
    age = np.array([person.look.age for person in people])
    groups = {name: skin == row for row, name in enumerate(SKINS)} | {
        name: (age >= least) & (age < most) for name, (least, most) in AGES.items()}
    opened, shut = np.mean(eyes, 0)
    mouth, truth = np.mean(lips, 0)
    return {**{f"yaw {yaw}°": errors[yaw].mean() for yaw in TURNS},
            **{name: errors[0][inside].mean() for name, inside in groups.items()},
            "shut eyes, % of the open height": 100 * shut / opened, "lips apart at rest, %": mouth, "lips apart, truth": truth}


def traits(nets: Nets, given: argparse.Namespace) -> Iterator[dict]:
    """Yield the errors in % of the square root of the area of the labels' box, since in profiles the eyes have no distance."""
    people = [sample_person(np.random.default_rng([SEED, index])) for index in range(PEOPLE)]  # the first that `render` draws
    for title, net in nets.items():
        for row, value in by_trait(without_detector(net, threads=1), people).items():
            yield {"faces": row, title: f"{value:.1f}"}


# ----------------------------------------------------------------------------------------------------------------- blinks
DEPTH, PROMINENCE = 0.7, 0.2  # relative height below which all nets together see a blink, and how far it falls
AROUND, APART = 2.0, 0.3      # s: window of the median; least time between two blinks
FEWEST = 5                    # blinks of a video that has figures
NEAR = 2                      # frames by which a net's lowest height may lie beside that of all
WIDE_OPEN = 0.2               # height over width of labelled eyes that are open


def heights(net: str, file: Path) -> tuple[np.ndarray, float]:
    """Return the relative height of the eyes in each frame, and the frames per second. A frame without a face has the median."""
    landmarker, video = Landmarker(net), cv2.VideoCapture(str(file))
    tracker, rate, found = Tracker(landmarker, smooth="none", max_faces=1), video.get(cv2.CAP_PROP_FPS), []
    for _, image in iter(video.read, (False, None)):
        faces = tracker.update(image, len(found) / rate)
        found.append(eyes_open(landmarker.layout, faces[0].landmarks) if faces else np.nan)
    known = np.nan_to_num(found, nan=float(np.nanmedian(found)))
    return known / median_filter(known, round(AROUND * rate)), rate


def open_eyes(net: str, name: str) -> list[float]:
    """Return found / labelled height over width, of each test face of a set with open eyes."""
    landmarker, shares = without_detector(net, threads=1), []
    for record in photographs(name, "test"):
        if (labelled := eyes_open(landmarker.layout, record.landmarks)) > WIDE_OPEN:
            found = found_in_box(landmarker, cv2.imread(str(record.file)), record.landmarks)
            shares.append(eyes_open(landmarker.layout, found) / labelled)
    return shares


def lowest(nets: Nets, file: Path) -> dict[str, list[float]]:
    """Return {title: the lowest relative height in each blink of a video}. Nobody has marked the blinks: all nets find them."""
    curves = {title: heights(net, file) for title, net in nets.items()}
    rate = next(iter(curves.values()))[1]
    together = np.mean([curve for curve, _ in curves.values()], 0)
    places, _ = find_peaks(-together, height=-DEPTH, prominence=PROMINENCE, distance=APART * rate)
    return {title: [curve[max(place - NEAR, 0):place + NEAR + 1].min() for place in places]
            for title, (curve, _) in curves.items()}


def blinks(nets: Nets, given: argparse.Namespace) -> Iterator[dict]:
    """Yield the median relative height of shut and of open eyes."""
    require("VIDEOS")
    files = sorted(file for file in PLACES["VIDEOS"].iterdir() if file.suffix in (".avi", ".mp4"))
    found = {f"shut, {file.stem}": lowest(nets, file) for file in files}
    found |= {f"open, {name}": {title: open_eyes(net, name) for title, net in nets.items()} for name in labelled_sets()}
    for eyes, by_net in found.items():
        for title, shares in by_net.items():
            if len(shares) >= FEWEST:
                yield {"eyes": eyes, "net": title if "`" in title else f"`{title}`", "blinks or faces": f"{len(shares)}",
                       "height, %": f"{100 * np.median(shares):.0f}"}


# ------------------------------------------------------------------------------------------------------------------ sizes
SCALES, FRAME, CANVAS = (1.0, 2.0), 640, (240, 320)  # of the detector; px: longer side of a portrait, least picture
FILLED, SMALLEST = (1.0, 1.5, 2.5), (24, 20, 16, 12)  # frame / face box of a portrait; px, widths of a small face


def portrait(image: np.ndarray, landmarks: np.ndarray, times: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of a picture that is `times` as large as the face, FRAME px long, and the landmarks in it."""
    limit = np.tile(image.shape[1::-1], 2)
    box = grow(box_of(landmarks)[None], times)[0]
    box[1] -= (box[3] - box[1]) / 4  # the forehead
    x1, y1, x2, y2 = np.clip(box, 0, limit).astype(int).tolist()
    part = image[y1:y2, x1:x2]
    zoom = FRAME / max(part.shape[:2])
    return cv2.resize(part, None, fx=zoom, fy=zoom), (landmarks - (x1, y1)) * zoom


def shrunk(image: np.ndarray, landmarks: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture with a face `width` px wide, on grey if it is smaller than CANVAS, and the landmarks in it."""
    zoom = width / np.ptp(landmarks[:, 0])
    small = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    below, right = np.maximum(np.subtract(CANVAS, small.shape[:2]), 0).tolist()
    return cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_CONSTANT, value=(127, 127, 127)), landmarks * zoom


def sizes(nets: Nets, given: argparse.Namespace) -> Iterator[dict]:
    """Yield the share of faces that the shipped detector finds, by their size."""
    cases = {f"frame {times:g} times the face's box": (portrait, times) for times in FILLED}
    cases |= {f"{width} px wide": (shrunk, width) for width in SMALLEST}
    detectors = {scale: Detector(scale=scale, threads=1) for scale in SCALES}
    for name in labelled_sets():
        records = photographs(name, given.split, min(given.faces, 60))
        for case, (change, size) in cases.items():
            found = dict.fromkeys(SCALES, 0)
            for record in records:
                image, landmarks = change(cv2.imread(str(record.file)), record.landmarks, size)
                for scale, detector in detectors.items():
                    boxes = detector.face_box(detector(image).boxes)
                    found[scale] += place_of(record._replace(landmarks=landmarks), boxes) is not None
            shares = [f"{100 * count / len(records):.1f}" for count in found.values()]
            yield {"faces": case, "photographs": SETS[name.lower()], "number": f"{len(records)}",
                   **dict(zip(("found, %, scale 1", "scale 2"), shares, strict=True))}


MEASURES = {"kinds": (kinds, ["photographs"]), "traits": (traits, ["faces"]), "blinks": (blinks, ["eyes", "net"]),
            "sizes": (sizes, ["faces", "photographs"])}  # and what tells its rows apart

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=MEASURES)
    parser.add_argument("nets", nargs="*", metavar="NET", default=SHIPPED[:2])
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--faces", type=int, default=224, help="of each set; of sizes at most 60")
    parser.add_argument("--into", metavar="NAME")
    given = parser.parse_args()
    measure, keys = MEASURES[given.what]
    nets = {title or net: net for title, _, net in (text.rpartition("=") for text in given.nets)}
    name = given.into or given.what
    rows = updated(name, measure(nets, given), keys)
    save(name, " ".join(["python benchmarks/measure.py", *(f"'{word}'" if " " in word else word for word in sys.argv[1:])]), 0,
         {"rows": rows})
