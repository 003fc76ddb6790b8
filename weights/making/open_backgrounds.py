"""Drawn pictures without a face, for `landmarks-open`: `python weights/making/make.py open_backgrounds OUT COUNT`.

They show what a net takes for a face most often: wheels, flowers, balls, dials, lettering, round lights, before a drawn
background. OUT becomes a folder of pictures. A larger set begins with the pictures of a smaller one.
"""

import string

import cv2
import numpy as np
from record import ROOT

from extras.shared.backgrounds import background, random_colour
from pipnet.images import write_image

SEED, SIDE = 3, 320  # seeds 0 to 2 draw faces; px
MOST = 9  # things in a picture
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX)


def colour(rng: np.random.Generator) -> tuple[float, ...]:
    """Return a random BGR colour in linear light."""
    return tuple(random_colour(rng).tolist())


def rosette(image: np.ndarray, rng: np.random.Generator, centre: np.ndarray, radius: float) -> None:
    """Draw rings with spokes, petals or marks around them: a wheel, a dial, a flower, an eye."""
    squeeze, turn, count = rng.uniform(0.5, 1), rng.uniform(0, 180), int(rng.integers(3, 16))
    for share in np.sort(rng.uniform(0.1, 1, rng.integers(2, 6)))[::-1]:
        axes = np.maximum(radius * share * np.array([1, squeeze]), 1).astype(int).tolist()
        thick = -1 if rng.random() < 0.7 else max(int(radius * rng.uniform(0.05, 0.2)), 1)
        cv2.ellipse(image, centre.tolist(), axes, turn, 0, 360, colour(rng), thick)
    ink, near, far, wide = colour(rng), rng.uniform(0, 0.5), rng.uniform(0.6, 1), rng.uniform(0.03, 0.3)
    petals = rng.random() < 0.5
    for angle in np.arange(count) * 2 * np.pi / count + np.radians(turn) if rng.random() < 0.7 else ():
        arm = np.array([np.cos(angle), np.sin(angle)]) * radius
        start, end = ((centre + share * arm).astype(int).tolist() for share in (near, far))
        if petals:
            half = np.maximum(radius * np.array([(far - near) / 2, wide]), 1).astype(int).tolist()
            middle = ((np.array(start) + end) / 2).astype(int).tolist()
            cv2.ellipse(image, middle, half, np.degrees(angle), 0, 360, ink, -1)
        else:
            cv2.line(image, start, end, ink, max(int(wide * radius / 2), 1))


def ball(image: np.ndarray, rng: np.random.Generator, centre: np.ndarray, radius: float) -> None:
    """Draw a lit ball, perhaps with spots: a fruit, a lamp, a head without a face."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    form = np.array([1, rng.uniform(0.6, 1.4)]) * radius
    u, v = (x - centre[0]) / form[0], (y - centre[1]) / form[1]
    inside = np.clip((1 - np.hypot(u, v)) * radius / 1.5, 0, 1)[..., None]
    light = rng.normal(size=2)
    depth = np.sqrt(np.clip(1 - u**2 - v**2, 0, 1))
    shade = np.clip(0.2 + 0.5 * depth + 0.4 * (u * light[0] + v * light[1]) / np.linalg.norm(light), 0.05, 1.2)
    image += inside * (shade[..., None] * random_colour(rng, 0.3) - image)
    for _ in range(rng.integers(0, 6)):
        spot = (centre + rng.uniform(-0.6, 0.6, 2) * form).astype(int).tolist()
        axes = np.maximum(radius * rng.uniform(0.04, 0.25, 2), 1).astype(int).tolist()
        cv2.ellipse(image, spot, axes, rng.uniform(0, 180), 0, 360, colour(rng), -1)


def lettering(image: np.ndarray, rng: np.random.Generator, centre: np.ndarray, radius: float) -> None:
    """Write a few letters and digits."""
    text = "".join(rng.choice([*string.ascii_letters, *string.digits], rng.integers(1, 5)))
    size, font = radius / 15, FONTS[rng.integers(len(FONTS))]
    start = (centre - (radius, -radius / 2)).astype(int).tolist()
    mask = np.zeros(image.shape[:2], np.uint8)  # OpenCV writes into whole numbers only
    cv2.putText(mask, text, start, font, size, 255, max(int(size * rng.uniform(1, 6)), 1), cv2.LINE_AA)
    image += mask[..., None] / np.float32(255) * (random_colour(rng) - image)


def picture(index: int) -> np.ndarray:
    """Return picture number `index`, uint8 BGR."""
    rng = np.random.default_rng((SEED, index))
    image = np.ascontiguousarray(background(rng, SIDE), np.float32)
    for _ in range(rng.integers(0, MOST + 1)):
        draw = (rosette, ball, lettering)[rng.integers(3)]
        draw(image, rng, rng.integers(0, SIDE, 2), np.exp(rng.uniform(np.log(6), np.log(SIDE / 3))))
    if sigma := rng.choice([0.0, 0.5, 1.0, 2.0]):
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    return (np.sqrt(np.clip(image, 0, 1)) * 255).astype(np.uint8)


def main(out: str, count: str) -> None:
    """Write `count` pictures into OUT."""
    folder = ROOT / out
    folder.mkdir(parents=True)
    for index in range(int(count)):
        write_image(folder / f"{index:05d}.jpg", picture(index))
