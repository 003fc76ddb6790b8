"""Colours of the surface of a synthetic face: skin, lids and eyeballs, brows, lips and mouth, beard, hair.

Paint is laid out in the canonical mm of `head`, on the curves of the landmarks. Colours are BGR in linear light (about
sRGB squared), float32 in [0, 1].
"""

from functools import cache, partial
from typing import Any, NamedTuple

import cv2
import numpy as np

from extras.shared.backgrounds import lookup, read_noise
from extras.synthetic.fields import bump, ridge, smooth
from extras.synthetic.head import EYE, EYE_HALF, MOUTH_ROW, RISE_POWER

SKIN = (
    np.array(
        [
            [200, 222, 248],
            [172, 198, 238],
            [140, 172, 220],
            [110, 145, 202],
            [82, 112, 170],
            [58, 84, 138],
            [42, 60, 104],
            [30, 40, 66],
        ]
    )
    / 255.0
)
HAIR = (
    np.array(
        [
            [18, 18, 20],
            [24, 30, 40],
            [32, 48, 74],
            [50, 78, 118],
            [96, 140, 188],
            [140, 182, 216],
            [40, 70, 150],
            [150, 150, 150],
            [214, 216, 220],
        ]
    )
    / 255.0
)
IRIS = np.array([[20, 35, 60], [28, 55, 95], [60, 100, 110], [130, 120, 80], [160, 130, 95], [110, 120, 110]]) / 255.0
MASK_ORIGIN, MASK_SCALE = np.array([-85.0, -125.0]), 2.0  # canonical mm of the mask maps' first pixel; pixels per mm
BROW_X = [9, 11.8, 24.6, 38, 51, 60, 64]
BROW_Y = [-13, -14, -17, -16, -9.5, 2.0, 6.5]  # the line of landmarks 17-26
LIP_TOP = ([0, 3.5, 6.8, 12, 17, 22, 27], [61.8, 60.8, 60.5, 61.7, 63.6, 66.0, 69.3])
LIP_LOW = ([0, 7.6, 13, 17, 22, 27], [81.6, 80.8, 79.4, 77.6, 74.2, 69.3])


class Detail(NamedTuple):
    """Details of the eyes and brows of varied people; the defaults change nothing. Lengths are canonical mm."""

    iris: float = 1.0  # radius over the usual one
    white: float = 1.0  # brightness of the white of the eye
    dull: float = 0.0  # 0 to 1, darkness of the white in its corners
    tear: float = 0.0  # 0 to 1, redness of the inner corner
    lash: float = 0.0  # height of the lashes over the eyeball
    reach: float = 0.0  # length of the lashes' line beyond the outer corner
    droop: float = 0.0  # by which this line falls on a mm
    fold: float = 0.0  # by which the fold of the upper lid is higher
    socket: float = 0.0  # 0 to 1, darkness of the skin round the eye
    brow_lift: float = 0.0  # height of the brow over the line of its landmarks
    brow_end: float = 65.0  # where the brow's tail has faded


class Look(NamedTuple):
    """Colours (3,) and amounts of a person's surface; amounts are 0 to 1 if no unit is given."""

    skin: np.ndarray
    lips: np.ndarray
    hair: np.ndarray
    brows: np.ndarray
    iris: np.ndarray
    brow_amount: float
    brow_width: float  # mm at its inner end
    beard: float
    moustache: float
    stubble: float
    blush: float
    freckles: float
    age: float
    mottle: float  # contrast of the skin's texture
    makeup: float
    crease: float  # fold of the upper lid
    bags: float
    shine: float
    teeth: float  # brightness
    offset: np.ndarray  # (2,) px, this person's place in the noise maps
    detail: Detail = Detail()


class Surface(NamedTuple):
    """N points of the head's surface. Painters change albedo and gloss in place."""

    x: np.ndarray  # (N,) canonical mm
    y: np.ndarray  # (N,) canonical mm
    albedo: np.ndarray  # (N, 3)
    gloss: np.ndarray  # (N,)


class Eye(NamedTuple):
    """An eye as it is painted."""

    side: float  # +1 for the image-right eye, -1 for the other
    lids: np.ndarray  # (2,) heights (upper, lower) over the line of the corners, mm
    gaze: np.ndarray  # (2,) mm of the iris from the middle, x to the picture's right
    pixel: float  # mm of a pixel
    spark: np.ndarray  # (2,) reflection of the light, mm from the iris centre


def lay(canvas: np.ndarray, pick: Any, colour: np.ndarray, cover: np.ndarray) -> None:
    """Lay colours (N, 3) or (3,) with opacity `cover` (N,) over canvas[pick] (N, 3), in place."""
    canvas[pick] += (colour - canvas[pick]) * cover[:, None]


def colour(*bgr: float) -> np.ndarray:
    """Return a colour (3,) float32."""
    return np.array(bgr, np.float32)


@cache
def masks() -> np.ndarray:
    """Return mask maps (560, 340, 8) of the canonical face: beard, moustache, blush, freckles, hollows, wrinkles,
    folds, bags.
    """
    y, x = np.mgrid[0:560, 0:340] / MASK_SCALE
    x, y = x + MASK_ORIGIN[0], y + MASK_ORIGIN[1]
    a, hill = np.abs(x), partial(bump, x, y)
    edge = np.interp(a, [0, 10, 20, 30, 40, 52, 64, 72, 85], [84, 85, 80, 72, 69, 60, 38, 8, 0])
    beard = smooth(-4, 6, y - edge) * smooth(155, 118, y)
    tash_top = np.interp(a, [0, 6, 16, 26, 34], [51, 50, 54, 61, 72])
    tash_low = np.interp(a, [0, 7, 16, 26, 34], [61, 60, 63, 69, 80])
    moustache = smooth(-1.5, 2, y - tash_top) * smooth(2, -1.5, y - tash_low) * smooth(36, 30, a)
    blush = np.minimum(hill(44, 36, 15, 12) + 0.7 * hill(0, 36, 10, 8) + 0.3 * hill(0, 108, 14, 8), 1)
    freckles = np.minimum(hill(36, 28, 20, 14) + hill(0, 20, 14, 14), 1)
    hollow = 0.45 * hill(20, 4, 6, 8) + 0.20 * hill(32, 1, 13, 5) + 0.30 * hill(19, 41, 2.2, 6)
    hollow += 0.30 * hill(0, 50, 8, 2.5) + 0.28 * hill(0, 87, 14, 3.2) + 0.25 * hill(29, 71, 2.5, 3)
    hollow += 0.55 * smooth(120, 142, y) * smooth(230, 150, y)
    rows = sum(ridge(y - c - 2.0 * np.sin(x / 17 + c), 0.9) for c in (-34, -42, -50, -57))
    rows = rows * smooth(48, 30, a) * smooth(-22, -30, y)
    theta = np.arctan2(y - 10, a - 44)
    crow = np.maximum(np.cos(theta * 9), 0) ** 4 * hill(57, 10, 5, 8)
    frown = ridge(a - 5 - (y + 12) * 0.1, 0.9) * hill(0, -13, 20, 7)
    fold_x = np.interp(y, [38, 46, 58, 72, 84], [17.5, 21, 27.5, 34.5, 36])
    fold = ridge(a - fold_x, 1.5) * smooth(36, 44, y) * smooth(88, 70, y)
    bag_y = 9.5 + 8.5 * np.sqrt(np.clip(1 - ((a - 32) / 16) ** 2, 0, 1))
    bag = ridge(y - bag_y, 1.4) * smooth(17, 13, np.abs(a - 32)) + 0.6 * hill(24, 17, 8, 4)
    stack = [beard, moustache, blush, freckles, hollow, rows + crow + frown, fold, bag]
    return np.ascontiguousarray(np.stack(stack, -1).astype(np.float32))


def read_masks(x: np.ndarray, y: np.ndarray, first: int) -> np.ndarray:
    """Return four mask maps (N, 4), from channel `first` on, at canonical mm (N,)."""
    at = (x - MASK_ORIGIN[0]) * MASK_SCALE, (y - MASK_ORIGIN[1]) * MASK_SCALE
    return lookup(masks()[..., first : first + 4], *at, cv2.BORDER_CONSTANT)


def paint_skin(x: np.ndarray, y: np.ndarray, look: Look, smile: float, raised: float) -> Surface:
    """Return the skin at canonical mm (N,) with beard, blush, freckles and wrinkles; `raised`: how far the brows are
    up.
    """
    n4 = read_noise(x * 2.6 + look.offset[0], y * 2.6 + look.offset[1])
    first, second = read_masks(x, y, 0), read_masks(x, y, 4)
    grain = 1 + look.mottle * (0.05 * n4[:, 0] + 0.035 * n4[:, 1] + 0.05 * n4[:, 2])
    wrinkle = second[:, 1] * (0.10 + 0.30 * look.age + 0.15 * max(raised, 0)) * (look.age + max(raised, 0) * 0.6)
    fold = second[:, 2] * (0.06 + 0.22 * look.age + 0.25 * max(smile, 0))
    dark = second[:, 0] * 0.72 + wrinkle + fold + second[:, 3] * look.bags * 0.35
    if look.freckles:
        dark = dark + look.freckles * first[:, 3] * np.clip(n4[:, 2] - 1.1, 0, 1.2) * 0.35
    albedo = look.skin[None] * (grain * np.clip(1 - dark, 0.15, 1.2))[:, None]
    albedo *= 1 - (look.blush * first[:, 2])[:, None] * colour(0.38, 0.34, 0.02)
    hairy = look.beard * first[:, 0] + look.moustache * first[:, 1]
    shade = look.stubble * np.maximum(first[:, 0], first[:, 1])
    cover = np.clip(hairy * (1.1 + 0.14 * n4[:, 2] + 0.16 * n4[:, 3] + 0.2 * n4[:, 1]), 0, 0.96)
    cover = np.maximum(cover, np.clip(shade * (0.45 + 0.35 * n4[:, 2]), 0, 0.8)) * (y < 170)
    strand = look.hair[None] * (0.9 + 0.35 * n4[:, 2] + 0.3 * n4[:, 3]).clip(0.3, 2)[:, None]
    lay(albedo, ..., strand, cover)
    gloss = look.shine * (1 - cover) * (0.6 + 0.4 * bump(x, y, 0, 20, 30, 40))
    return Surface(x, y, albedo.astype(np.float32), gloss.astype(np.float32))


def paint_brows(surface: Surface, look: Look) -> None:
    """Paint the brows: a band of hair below the line of landmarks 17-26."""
    x, y, albedo, _ = surface
    a = np.abs(x)
    pick = np.flatnonzero((a > 6) & (a < 68) & (y > -26) & (y < 14))
    a, px, py = a[pick], x[pick], y[pick]
    n4 = read_noise(px * 5.0 + py * 2.0 + look.offset[1], py * 5.0 + look.offset[0])
    line = np.interp(a, BROW_X, BROW_Y)
    thick = look.brow_width * np.interp(a, [8, 14, 36, 52, 63], [0.85, 1.0, 0.95, 0.6, 0.22])
    detail = look.detail
    depth = (py - line + 0.9 + detail.brow_lift) / thick
    ends = smooth(7, 17, a) * smooth(detail.brow_end, detail.brow_end - 7, a)
    band = np.clip((0.5 - np.abs(depth - 0.5)) * 3.5 + 0.4, 0, 1) * ends
    cover = np.clip(band * look.brow_amount * (0.95 + 0.16 * n4[:, 2] + 0.2 * n4[:, 3] + 0.12 * n4[:, 1]), 0, 0.95)
    lay(albedo, pick, look.brows, cover)


def paint_lips(surface: Surface, lip: np.ndarray, look: Look, gap: float) -> None:
    """Paint the lips between the curves of landmarks 48-59, with a dark line between them; `gap` mm: how far they are
    open.
    """
    x, y, albedo, gloss = surface
    pick = np.flatnonzero((np.abs(x) < 29) & (y > 58) & (y < 85))
    px, py, side = x[pick], y[pick], lip[pick]
    a = np.abs(px)
    n4 = read_noise(px * 6 + look.offset[0], py * 1.6 + look.offset[1])
    top, low = np.interp(a, *LIP_TOP), np.interp(a, *LIP_LOW)
    mask = np.clip((py - top) / 1.6 + 0.5, 0, 1) * np.clip((low - py) / 2.2 + 0.6, 0, 1)
    tint = look.lips[None] * (1 + 0.07 * n4[:, 2] + 0.07 * n4[:, 3] - 0.12 * (side < 0.5))[:, None]
    lay(albedo, pick, tint, mask)
    rim = MOUTH_ROW - 56.0 * (np.arcsin(np.clip(a / 75, 0, 1)) / (np.pi / 2)) ** RISE_POWER
    seam = ridge(py - rim, 0.8) * (a < 27.5) * (0.75 if gap < 2 else 0.35)
    albedo[pick] *= (1 - seam)[:, None]
    gloss[pick] += mask * (0.25 + look.makeup * 0.5) * (py > 71)


def paint_mouth(hx: np.ndarray, hy: np.ndarray, lip: np.ndarray, look: Look, drop: float) -> np.ndarray:
    """Return colours (N, 3) of teeth, tongue and dark inside the open mouth at head mm (hx, hy).

    lip: 0 to 1 from the upper to the lower lip. drop: mm by which the lower jaw is down.
    """
    out = np.tile(colour(0.012, 0.010, 0.035), (len(hx), 1))
    tongue = np.clip(1.3 - ((hx / 17) ** 2 + ((hy - 82 - drop) / 11) ** 2), 0, 1) * (drop > 3)
    lay(out, ..., colour(0.13, 0.12, 0.42), 0.75 * tongue)
    curve = 0.006 * hx**2
    tooth = colour(0.66, 0.76, 0.80) * look.teeth
    width = np.clip(1.15 - (hx / 27) ** 2, 0.1, 1)
    parting = 1 - 0.45 * ridge((np.abs(hx) + 0.15) % 7.6, 0.5)
    upper = np.clip((73.2 - curve - hy) / 0.8, 0, 1) * (np.abs(hx) < 25)
    lay(out, ..., tooth * (width * parting)[:, None], upper)
    lower = np.clip((hy - (72.5 + drop - curve)) / 0.8, 0, 1) * (np.abs(hx) < 20) * (1 - upper)
    lay(out, ..., 0.8 * tooth * (width * parting)[:, None], lower)
    edge = np.minimum(lip, 1 - lip)
    return out * (0.35 + 0.65 * np.clip(edge / 0.22, 0, 1))[:, None]


def paint_eye(surface: Surface, look: Look, eye: Eye) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint the lids' fold, lashes and make-up.
    Return (indices, cover (M,), colour and reflection (M, 4)) of the eyeball.
    """
    x, y, albedo, _ = surface
    detail = look.detail
    pick = np.flatnonzero((np.abs(x * eye.side - EYE[0]) < 20) & (np.abs(y - EYE[1] + 3) < 17))
    ex, ey = x[pick] * eye.side - EYE[0], y[pick] - EYE[1]
    s = ex / EYE_HALF
    profile = np.clip(1 - s * s, 0, 1) ** 0.75
    top, low = -eye.lids[0] * profile, -eye.lids[1] * profile
    soft = max(eye.pixel, 0.5)
    n4 = read_noise(ex * 9 + look.offset[0], ey * 3 + look.offset[1])
    open_ = np.clip((ey - top) / soft + 0.5, 0, 1) * np.clip((low - ey) / soft + 0.5, 0, 1)
    open_ = open_ * np.clip((1 - np.abs(s)) * EYE_HALF / soft, 0, 1)
    # fold of the upper lid, lashes and their lines, make-up
    wide = np.clip(1.12 - s * s, 0, 1) ** 0.7
    fold = ridge(ey + 3.2 + detail.fold + max(eye.lids[0], 2.5) * wide + 0.6 * wide, 0.9) * (np.abs(s) < 1.15) * wide
    upper_lash = ridge(ey - top + 0.3, 0.55 + 0.5 * look.makeup) * smooth(1.12, 0.9, np.abs(s))
    lashes = np.clip(1 - (top - ey) / (2.2 + 1.5 * look.makeup), 0, 1) * (ey < top) * np.clip(n4[:, 3], 0, 1)
    lashes = lashes * smooth(-0.6, 0.6, s) * (np.abs(s) < 1.15)
    lower_lash = ridge(ey - low - 0.4, 0.6) * smooth(1.05, 0.8, np.abs(s))
    paint = look.makeup * ridge(s, 0.9) * smooth(-13, -5, ey) * (ey < top + 0.5)
    lid = albedo[pick]
    lid *= (1 - 0.40 * look.crease * fold - 0.30 * lower_lash * (0.4 + look.makeup))[:, None]
    lid *= 1 - paint[:, None] * colour(0.35, 0.5, 0.45)
    line = np.clip((0.75 + 0.25 * look.makeup) * upper_lash + 0.7 * lashes, 0, 0.95)
    if detail.socket:
        lid *= (1 - 0.6 * detail.socket * ridge(ex + 2, 11) * ridge(ey + 2.5, 6.5))[:, None]
    if detail.reach:
        beyond = ex - EYE_HALF
        tail = ridge(ey - detail.droop * np.maximum(beyond, 0), 0.7) * smooth(detail.reach, 0.4 * detail.reach, beyond)
        line = np.maximum(line, 0.9 * tail * (beyond > -2))
    lay(lid, ..., np.minimum(look.brows, 0.02), line)
    albedo[pick] = lid
    inside = np.flatnonzero(open_ > 0.01)
    ex, ey, s, top, cover = ex[inside], ey[inside], s[inside], top[inside], open_[inside]
    white = detail.white * colour(0.52, 0.54, 0.60) * (1.0 - 0.35 * s**2)[:, None]
    white[:, :2] *= 1 - 0.12 * np.abs(s)[:, None]
    if detail.dull or detail.tear:
        white *= (1 - detail.dull * smooth(0.4, 1.0, np.abs(s)))[:, None]
        white += (colour(0.12, 0.14, 0.36) - white) * (detail.tear * smooth(-0.7, -0.95, s))[:, None]
    rx, ry = ex - eye.gaze[0] * eye.side, ey + 2.2 - eye.gaze[1]
    radius = 5.9 * detail.iris
    r = np.hypot(rx, ry) / radius
    ray = 1 + 0.25 * np.sin(np.arctan2(ry, rx) * 23 + look.offset[0])
    iris = look.iris[None] * (ray * (1.15 - 0.5 * smooth(0.72, 1.0, r)))[:, None]
    iris *= smooth(0.34, 0.44, r)[:, None]
    inner = np.clip((1 - r) * radius / max(soft, 0.6) + 0.5, 0, 1)[:, None]
    ball = white + (iris - white) * inner
    ball *= (1 - 0.60 * np.exp(-np.clip(ey - top, 0, None) / 1.6))[:, None]
    if detail.lash:
        ball *= (1 - 0.92 * smooth(detail.lash + 0.5, detail.lash - 0.5, ey - top))[:, None]
    glint = 0.9 * np.exp(-0.5 * (((rx * eye.side - eye.spark[0]) / 0.9) ** 2 + ((ry - eye.spark[1]) / 0.9) ** 2))
    return pick[inside], cover, np.concatenate([ball, glint[:, None]], 1).astype(np.float32)


def paint_nostrils(surface: Surface) -> None:
    """Paint the dark nostrils over landmarks 31-35."""
    x, y, albedo, gloss = surface
    pick = np.flatnonzero((np.abs(x) < 14) & (y > 38) & (y < 50))
    a, py = np.abs(x[pick]), y[pick]
    hole = np.clip(1.4 - ((a - 6.8) / 3.7) ** 2 - ((py - 42.4 + 0.12 * (a - 6.8)) / 1.7) ** 2, 0, 1)
    albedo[pick] *= (1 - 0.88 * hole)[:, None]
    gloss[pick] *= 1 - hole


def paint_hair(x: np.ndarray, y: np.ndarray, look: Look, curl: float) -> tuple[np.ndarray, np.ndarray]:
    """Return albedo (N, 3) and roughness (N,) of hair at mm across (x) and along (y) the strands; `curl` 0 is straight."""
    wave = curl * 9 * np.sin(y / 7 + look.offset[0]) if curl else 0.0
    n4 = read_noise(x * 2.2 + look.offset[0] + wave, y * (0.9 + 2 * curl) + look.offset[1])
    tone = 1 + 0.28 * n4[:, 3] + 0.18 * n4[:, 1] * (1 + curl) + 0.15 * n4[:, 0]
    albedo = look.hair[None] * np.clip(tone, 0.25, 2.2)[:, None]
    return albedo.astype(np.float32), n4[:, 3] + 0.6 * n4[:, 1] + 0.4 * n4[:, 2]
