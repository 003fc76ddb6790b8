"""Random people, expressions, poses and lights of synthetic faces.

The distributions follow annotated photographs: pitch, the share of open mouths, half-closed lids. Angles are in
radians, lengths in mm of the head (see `head`), colours are BGR in linear light.
"""

from typing import NamedTuple

import numpy as np

from extras.shared.backgrounds import random_colour
from extras.synthetic import paint
from extras.synthetic.fields import IDENTITY
from extras.synthetic.head import lid_height
from extras.synthetic.raster import Light

# degrees, largest yaw: beyond it the outer eye corners nearly coincide, and NME is divided by their distance
PROFILE = 75


class Person(NamedTuple):
    """The permanent part of a face: shape coefficients, surface, hair style and clothes."""

    shape: dict[str, float]
    look: paint.Look
    style: str  # bald, short, fringe, long, hat, cap, hood
    hairline: float  # mm by which the hairline is lower than usual
    volume: float  # mm of hair
    curl: float  # 0 for straight hair
    long: float  # mm below the nasion that loose hair reaches; 0 for none
    parting: float  # degrees
    cloth: np.ndarray
    cloth_two: np.ndarray
    neckline: float  # mm
    collar: float = 1.0  # width of collar and shoulders over the usual one
    ear: tuple[float, float, float] = (13.0, 1.0, 1.0)  # mm below the contour's ends, how far they stand out, size
    cheek: float = 58.0  # degrees from the front where loose hair begins to hide the cheeks
    hills: np.ndarray | None = None  # (n, 7) unevenness of the head, see `variety`


class Pose(NamedTuple):
    """The momentary part of a face."""

    expression: dict[str, float]  # coefficients
    jaw: float  # radians
    jaw_side: float  # mm
    lids: np.ndarray  # (2, 2) heights (upper, lower) of the image-left and the image-right eye
    gaze: np.ndarray  # (2,) mm
    angles: tuple[float, float, float]  # yaw, pitch, roll in radians


def sample_person(rng: np.random.Generator) -> Person:
    """Return a random person: child to old, all skin tones, hair, beard and make-up with frequencies by sex."""
    shape = {name: float(np.clip(rng.normal(), -2.6, 2.6)) * sd for name, sd in IDENTITY.items()}
    child, old, male = rng.random() < 0.08, rng.random() < 0.22, rng.random() < 0.55
    if child:
        male = False
        change = {
            "eye_size": 0.12,
            "lower": -7,
            "middle": -4,
            "nose_depth": -4,
            "forehead": 5,
            "cheek": 3,
            "bridge": -3,
        }
    elif male:
        change = {"brow_ridge": 1.2, "jaw_width": 1.5, "lower": 1.5, "brow_height": -1.0}
    else:
        change = {"jaw_width": -1.5, "brow_height": 1.0}
    for name, value in change.items():
        shape[name] += value
    look, dark = _sample_look(rng, child, old, male)
    probability = [0.14, 0.60, 0.08, 0.03, 0.05, 0.07, 0.03] if male else [0.01, 0.15, 0.22, 0.46, 0.05, 0.04, 0.07]
    style = str(rng.choice(["bald", "short", "fringe", "long", "hat", "cap", "hood"], p=probability))
    curly = rng.random() < (0.3 if dark else 0.1)
    loose = style == "long" or (style in ("fringe", "hat") and rng.random() < (0.15 if male else 0.65))
    hairline = float(rng.normal(0, 6)) - (8 if old and male else 0)
    volume = float(rng.gamma(4, 2.4) + 3 + curly * rng.uniform(5, 25))
    curl = float(rng.uniform(0.6, 1.2) if curly else max(rng.normal(0, 0.4), 0))
    long = float(rng.uniform(60, 220)) if loose else 0.0
    parting = float(rng.normal(0, 25))
    clothes = random_colour(rng), random_colour(rng), float(rng.uniform(-15, 45))
    return Person(shape, look, style, hairline, volume, curl, long, parting, *clothes)


def _sample_look(rng: np.random.Generator, child: bool, old: bool, male: bool) -> tuple[paint.Look, bool]:
    """Return random colours and amounts of a person's surface, and whether the skin is dark."""
    age = float(rng.uniform(0.5, 1.0) if old and not child else rng.uniform(0, 0.35))
    if child:
        age = 0.0
    tone = float(np.clip(rng.beta(1.1, 1.5), 0, 1)) * (len(paint.SKIN) - 1)
    skin = np.array([np.interp(tone, range(len(paint.SKIN)), paint.SKIN[:, i]) for i in range(3)])
    skin += (skin.mean() - skin) * rng.uniform(0.0, 0.3)
    skin = (np.clip(skin * np.exp(rng.normal(0, 0.04, 3)), 0.03, 0.98) ** 2).astype(np.float32)
    dark = tone > 3.6
    if old and rng.random() < 0.75:
        hair_index = 7 + int(rng.random() < 0.5)  # grey or white
    else:
        hair_index = rng.integers(0, 3 if dark or rng.random() < 0.5 else 7)
    hair = ((paint.HAIR[hair_index] * np.exp(rng.normal(0, 0.06, 3))) ** 2).astype(np.float32)
    brows = np.minimum(hair * rng.uniform(0.4, 0.9), skin * 0.5).astype(np.float32)
    lipstick = not male and not child and rng.random() < 0.45
    lips = skin * (np.array([0.50, 0.44, 0.80]) + rng.uniform(0, 0.3) * np.array([1, 1, 0.2])) * rng.uniform(0.8, 1.05)
    if lipstick:
        lips = lips * 0.4 + np.array([0.10, 0.06, 0.45]) * rng.uniform(0.4, 1.4) * 0.6
    beard, moustache, stubble = 0.0, 0.0, 0.0
    if male and not child:
        kind = rng.choice(["none", "stubble", "full", "goatee", "moustache"], p=[0.45, 0.27, 0.14, 0.06, 0.08])
        stubble = rng.uniform(0.1, 1.0) if kind == "stubble" else rng.uniform(0, 0.25)
        beard = rng.uniform(0.5, 1.0) if kind == "full" else rng.uniform(0.2, 0.5) * (kind == "goatee")
        moustache = rng.uniform(0.5, 1.0) if kind in ("full", "goatee", "moustache") else 0.0
    look = paint.Look(
        skin=skin,
        lips=lips.astype(np.float32),
        hair=hair,
        brows=brows,
        iris=(paint.IRIS[rng.integers(0, 2 if dark else 6)] ** 2).astype(np.float32),
        brow_amount=float(rng.uniform(0.35, 1.0)),
        brow_width=float(rng.uniform(4.0, 8.5) if male else rng.uniform(3.0, 6.5)),
        beard=beard,
        moustache=moustache,
        stubble=stubble,
        blush=float(rng.uniform(0, 0.7)),
        freckles=float(rng.uniform(0.3, 1) * (rng.random() < 0.15)),
        age=age,
        mottle=float(rng.uniform(0.15, 1.0)),
        makeup=float(rng.uniform(0.2, 1) * (lipstick or (not male and rng.random() < 0.4)) * (not child)),
        crease=float(rng.uniform(0, 1)),
        bags=float(np.clip(rng.normal(0.3 + 0.5 * age, 0.2), 0, 1)),
        shine=float(rng.uniform(0.05, 0.55)),
        teeth=float(rng.uniform(0.7, 1.1)),
        offset=rng.uniform(0, 512, 2).astype(np.float32),
    )
    return look, dark


def _sample_mouth(rng: np.random.Generator, kind: str, hard: bool) -> tuple[dict[str, float], float, float]:
    """Return coefficients of an expression, the angle of the jaw in radians, and the smile, negative for a frown."""
    e: dict[str, float] = {}
    jaw, smile = abs(rng.normal(0, 0.012)), rng.normal(0, 0.12)
    if kind == "smile":
        smile = rng.uniform(0.2, 1.0)
    elif kind == "laugh":
        smile, jaw = rng.uniform(0.5, 1.25), rng.uniform(0.0, 0.13)
        e["upper_up"], e["lower_down"] = rng.uniform(0.3, 1.1), rng.uniform(0.0, 0.7)
    elif kind == "talk":
        jaw = rng.uniform(0.02, 0.17)
        e["pucker"], e["upper_up"], e["lower_down"] = rng.normal(0.1, 0.3), rng.uniform(0, 0.5), rng.uniform(0, 0.7)
    elif kind == "shout":
        jaw, smile = rng.uniform(0.15, 0.36) * (1.2 if hard else 1.0), rng.normal(0, 0.3)
        e["upper_up"], e["stretch"] = rng.uniform(0, 0.8), rng.normal(0, 0.5)
    elif kind == "kiss":
        e["pucker"] = rng.uniform(0.5, 1.2)
    elif kind == "angry":
        smile = -rng.uniform(0.2, 0.9)
        e["sneer_left"], e["sneer_right"] = rng.uniform(0, 1, 2)
        e["press"] = rng.uniform(0, 1)
    elif kind == "mix":
        jaw, smile = rng.uniform(0, 0.2), rng.normal(0, 0.6)
        for name in ("pucker", "stretch", "upper_up", "lower_down", "puff", "sneer_left", "sneer_right"):
            e[name] = max(rng.normal(0, 0.4), 0.0)
    return e, jaw, smile


def sample_pose(rng: np.random.Generator, hard: bool) -> Pose:
    """Return a random expression and head pose; `hard`: turned heads and strong expressions are more frequent."""
    skew = rng.normal(0, 0.12)
    kinds = ["neutral", "smile", "laugh", "talk", "shout", "kiss", "angry", "mix"]
    kind = rng.choice(kinds, p=[0.24, 0.16, 0.26, 0.15, 0.05, 0.03, 0.05, 0.06])
    e, jaw, smile = _sample_mouth(rng, kind, hard)
    for s, sign in (("left", 1), ("right", -1)):
        e[f"smile_{s}" if smile > 0 else f"frown_{s}"] = abs(smile) * (1 + sign * skew)
    e["chin_up"] = e.get("chin_up", 0) + max(rng.normal(0, 0.25), 0) * (jaw < 0.02)
    e["press"] = e.get("press", 0) + max(rng.normal(0.05, 0.25), 0) * (kind != "kiss")
    e["upper_up"] = e.get("upper_up", 0) + max(rng.normal(0.05, 0.2), 0)
    up, knit, own = (
        rng.normal(0.05, 0.45),
        max(rng.normal(-0.1, 0.45), 0) + 0.6 * (kind == "angry"),
        rng.normal(0, 0.12, 4),
    )
    e |= {
        "brow_in_left": up + own[0],
        "brow_in_right": up + own[1],
        "brow_out_left": up + own[2],
        "brow_out_right": up + own[3],
    }
    e |= {"brow_knit_left": knit, "brow_knit_right": knit}
    happy = max(smile, 0)
    open_ = np.clip(rng.normal(0.92, 0.16) - 0.22 * happy - 0.15 * knit + 0.1 * max(up, 0), 0.25, 1.4)
    fate = rng.random()
    if fate < 0.05:
        open_ = 0.0
    elif fate < 0.12:
        open_ = rng.uniform(0.1, 0.6)
    both = np.full(2, open_)
    if 0.12 < fate < 0.13:  # one eye is closed
        both[rng.integers(2)] = 0.0
    both = np.clip(both + rng.normal(0, 0.03, 2) * (both > 0.2), 0, 1.4)
    low = np.clip(0.8 - 0.42 * happy + rng.normal(0, 0.18), 0.1, 1.5)
    look_down = rng.normal(0, 0.9)
    if look_down > 0:
        both = both * (1 - 0.12 * look_down)
    lids = np.array([lid_height(float(b), float(low)) for b in both], np.float32)
    fate = rng.random()
    if fate < 0.62:
        yaw = rng.normal(0, 17)
    else:
        yaw = rng.uniform(-45, 45) if fate < 0.95 else rng.uniform(-PROFILE, PROFILE)
    if hard:
        yaw = rng.uniform(-60, 60) if fate < 0.9 else rng.uniform(-PROFILE, PROFILE)
    pitch = np.clip(rng.normal(-17, 13 if hard else 9), -50, 14)  # -17 is upright: the y axis runs from nasion to chin
    roll = np.clip(rng.normal(0, 14 if hard else 8), -45, 45)
    gaze = np.array([np.clip(rng.normal(-0.03 * yaw, 1.6), -4.5, 4.5), np.clip(look_down, -2.0, 2.5)], np.float32)
    return Pose(e, float(jaw), float(rng.normal(0, 0.6)), lids, gaze, tuple(np.radians([yaw, pitch, roll])))


def sample_light(rng: np.random.Generator) -> Light:
    """Return random lights: a strong and a weak lamp, sky and ground."""

    def direction(spread: float) -> np.ndarray:
        d = np.array([rng.normal(0, spread), rng.normal(-0.55, 0.45), rng.uniform(0.25, 1.2)])
        return (d / np.linalg.norm(d)).astype(np.float32)

    warm = np.exp(rng.normal(0.03, 0.09) * np.array([-1.0, 0, 1.0]))
    ratio = rng.beta(2.0, 2.0)
    key = (1.35 * ratio + 0.12) * warm
    around = (1.0 - 0.8 * ratio) * np.exp(rng.normal(0, 0.04, 3))
    return Light(
        key=direction(0.8),
        key_colour=key.astype(np.float32),
        fill=direction(1.2),
        fill_colour=(rng.uniform(0, 0.35) * np.exp(rng.normal(0, 0.12, 3))).astype(np.float32),
        sky=(around * rng.uniform(0.9, 1.2)).astype(np.float32),
        ground=(around * rng.uniform(0.35, 0.95)).astype(np.float32),
        hardness=float(rng.uniform(0.3, 0.95)),
    )
