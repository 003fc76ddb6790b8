"""What nets find in rendered people."""

from collections.abc import Iterator

import numpy as np
from photographs import found_in_box, titled, without_detector

from extras.synthetic import render
from extras.synthetic.face import RenderedFace
from extras.synthetic.head import both_lids
from extras.synthetic.people import Person, sample_person
from pipnet.landmarker import Landmarker
from pipnet.layout import EYES, INNER_LIPS, Layout, opposite
from pipnet.video.drowsiness import ring_aspect
from utils.evaluate import metric

SEED, SIDE, PEOPLE = 2, 256, 300  # seeds 0 and 1 draw training faces
UPRIGHT = -17.0  # degrees, pitch of a face that looks straight ahead
TURNS = (0, 30, 45, 60, 75)  # degrees, to each side in turn
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
        name: (age >= least) & (age < most) for name, (least, most) in AGES.items()
    }
    opened, shut = np.mean(eyes, 0)
    mouth, truth = np.mean(lips, 0)
    return {
        **{f"yaw {yaw}°": errors[yaw].mean() for yaw in TURNS},
        **{name: errors[0][inside].mean() for name, inside in groups.items()},
        "shut eyes, % of the open height": 100 * shut / opened,
        "lips apart at rest, %": mouth,
        "lips apart, truth": truth,
    }


def traits(*nets: str) -> Iterator[dict]:
    """Yield the errors for rendered people, of whom everything is known, in the light and before the background of
    their seed.

    They are drawn frontal, turned to the side, with shut eyes, and with a mouth at rest. Errors are in % of the square
    root of the area of the labels' box, since in profiles the eyes have no distance.
    """
    people = [
        sample_person(np.random.default_rng([SEED, index])) for index in range(PEOPLE)
    ]  # the first that `render` draws
    for title, net in titled(nets).items():
        for row, value in by_trait(without_detector(net, threads=1), people).items():
            yield {"faces": row, title: f"{value:.1f}"}
