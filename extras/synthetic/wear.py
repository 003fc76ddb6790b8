"""Ears, shoulders and clothes, hair and hats of a synthetic person."""

import numpy as np

from extras.shared.backgrounds import read_noise
from extras.synthetic import paint
from extras.synthetic.fields import smooth
from extras.synthetic.head import head_model
from extras.synthetic.people import Person
from extras.synthetic.raster import Drawing, Fragments, Mesh, corners, normals, rasterise, rotation_matrix, shade

CLOTH = ("hat", "cap", "hood")
LOOSE_ROWS, LOOSE_COLUMNS = 15, 41  # grid of hanging hair
SHOULDERS = np.array(  # rings below the neck: mm down, half width, half depth
    [
        [-22, 54, 52],
        [2, 62, 58],
        [16, 95, 66],
        [32, 150, 76],
        [52, 190, 86],
        [95, 212, 98],
        [260, 215, 105],
        [420, 215, 105],
    ]
)


def ear(side: float, points: np.ndarray, form: tuple[float, float, float]) -> np.ndarray:
    """Return the grid (7, 21, 3) in head mm of the ear at `side` (+1: the picture's right) of a posed head's vertices.

    form: `Person.ear`.
    """
    low, out, size = form
    model = head_model()
    grid = model.grid(points)
    column = int(np.argmin(np.abs(model.phi[: model.columns] - side * np.pi / 2)))
    row = int(np.argmin(np.abs(grid[:, model.columns // 2, 1] - 121)))
    anchor = grid[row, column] + np.array([0, low, -12])  # the ear hangs beside the first landmarks of the contour
    r, t = np.linspace(0.05, 1, 7)[:, None], np.linspace(0, 2 * np.pi, 21)[None] * side
    back, down = size * r * np.cos(t) * 17, size * r * np.sin(t) * (30 - 5 * (np.sin(t) > 0))
    lift = 7 + 0.36 * out * back + 3.5 * np.cos(r * 9) * (r > 0.3) - 5 * (1 - r)
    return (anchor + np.stack([side * lift, down - 0.15 * back, -back], -1)).astype(np.float32)


def shade_ear(part: Fragments, seen: np.ndarray, drawing: Drawing, person: Person) -> np.ndarray:
    """Return the colours (N, 3) of an ear's pixels; `seen`: its grid in the camera's axes."""
    n = part.sample(normals(seen))
    n *= np.sign(n[:, 2:3] + 1e-6)
    rim = 0.55 + 0.45 * np.clip(part.row / 5, 0, 1)
    tint = person.look.skin * np.array([0.85, 0.82, 1.0], np.float32) * rim[:, None]
    return shade(tint, n, np.float32(0.25), person.look.shine * 0.4, drawing.light)


def body(drawing: Drawing, yaw: float, roll: float, collar: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the grid of shoulders in the camera's axes, and in their own mm; they turn less than the head."""
    base = drawing.camera.view(head_model().grid(drawing.points)[-2].mean(0))
    t = np.linspace(-np.pi, np.pi, 41)
    down, wide, deep = SHOULDERS[:, :1], SHOULDERS[:, 1:2], SHOULDERS[:, 2:]
    wide, deep = (np.where(down < 32, collar, 1) * part for part in (wide, deep))
    own = np.stack([wide * np.sin(t), down + 14 * np.maximum(np.cos(t), 0) * (down > 0), deep * np.cos(t)], -1)
    return (own @ rotation_matrix(0.35 * yaw, 0, 0.25 * roll).T + base).astype(np.float32), own.astype(np.float32)


def shade_body(
    part: Fragments, seen: np.ndarray, own: np.ndarray, drawing: Drawing, person: Person, rng: np.random.Generator
) -> np.ndarray:
    """Return the colours (N, 3) of neck and shoulders: skin down to the neckline, then cloth, plain or with a pattern."""
    a = part.sample(np.concatenate([own, normals(seen)], 2))
    x, y, z = a[:, 0], a[:, 1], a[:, 2]
    n4 = read_noise(x * 0.8 + person.look.offset[1], y * 0.8 + person.look.offset[0])
    albedo = np.repeat(person.cloth[None], len(x), 0)
    kind = rng.choice(["plain", "stripes", "checks", "print"], p=[0.6, 0.15, 0.1, 0.15])
    period = rng.uniform(8, 40)
    if kind == "stripes":
        pattern = ((y if rng.random() < 0.5 else x) / period) % 1 < 0.5
    elif kind == "checks":
        pattern = ((x / period) % 1 < 0.4) ^ ((y / period) % 1 < 0.4)
    else:
        pattern = (n4[:, 1] > 0.8) & (kind == "print")
    folds = np.clip(1 + 0.18 * n4[:, 0] + 0.06 * n4[:, 2], 0.3, 2)[:, None]
    albedo = np.where(pattern[:, None], person.cloth_two, albedo) * folds
    line = person.neckline * np.clip(1 - np.abs(x) / 90, 0, 1) * (z > 0) - 6
    albedo = np.where((y < line)[:, None], person.look.skin * np.clip(1 + 0.05 * n4[:, :1], 0.8, 1.2), albedo).astype(
        np.float32
    )
    under_chin = np.clip((30 - y) / 45, 0, 1) * (z > 0)
    return shade(albedo * (1 - 0.5 * under_chin)[:, None], a[:, 3:6], 0.9 * under_chin, 0.02, drawing.light)


def hair_or_hat(person: Person, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return hair or hat on the head's grid: distance (R, C) in mm inside its edge, and thickness (R, C) in mm."""
    model = head_model()
    shape = (model.rows, model.columns)
    x, y = model.canonical[model.slices["grid"]].T.reshape(2, *shape)
    phi = model.phi[model.slices["grid"]].reshape(shape)
    turn = np.degrees(np.abs(phi))
    wobble = 4 * np.sin(phi * 5 + rng.uniform(0, 6)) + 3 * np.sin(phi * 11 + rng.uniform(0, 6))
    cloth = person.style in CLOTH
    if person.style == "hood":
        wide, tall = rng.uniform(60, 76), rng.uniform(84, 104)
        oval = np.sqrt((x / wide) ** 2 + ((y - 33) / tall) ** 2)
        edge = np.where(turn < 95, (oval - 1) * 60, 40)
    elif cloth:
        edge = (-38 + rng.uniform(-16, 14) + rng.uniform(-20, 20) * np.sin(phi)) - y
        edge = edge + 22 * (1 - np.cos(phi))  # horizontal on an upright head, whose y axis leans back
    else:
        sideburn = 40 if rng.random() < 0.4 else 26
        line = np.interp(
            turn, [0, 25, 42, 56, 68, 76, 83, 92, 104, 118, 180], [-57, -55, -48, -30, 0, sideburn, 16, 8, 42, 74, 84]
        )
        line = line + person.hairline * smooth(80, 50, turn)
        if person.style == "bald":
            line = np.where(turn < 75, -160.0, line)
        if person.style == "fringe":
            low = rng.uniform(-42, -6) + rng.choice([0.0, 0.25]) * person.parting * np.sign(phi) * np.abs(np.sin(phi))
            line = np.maximum(line, np.where(turn < 62, low, line))
        elif person.style == "long" or (person.style == "short" and rng.random() < 0.35):
            away = np.abs(np.degrees(phi) - person.parting)
            line = np.where(turn < 70, line + np.clip(away - 10, 0, 40) * rng.uniform(0, 0.6), line)
        if person.long:
            line = np.where(turn > person.cheek, np.maximum(line, 80), line)
        edge = line + wobble - y
    thick = person.volume * np.clip(edge / 16, 0, 1) ** 0.6 * (1 + 0.10 * np.sin(phi * 4 + person.parting))
    if cloth:
        thick = np.where(edge > -4, rng.uniform(4, 12) * np.clip(edge / 6, 0.3, 1), 0)
    return edge.astype(np.float32), (thick + 0.8).astype(np.float32)


def _curtain(person: Person, rng: np.random.Generator) -> np.ndarray:
    """Return a grid (LOOSE_ROWS, LOOSE_COLUMNS, 3) in head mm of loose hair round the back and the sides of the head."""
    start = np.radians(rng.uniform(46, 82))
    t = np.linspace(start, 2 * np.pi - start, LOOSE_COLUMNS)
    y = np.linspace(-70, person.long, LOOSE_ROWS)[:, None]
    v = np.linspace(0, 1, LOOSE_ROWS)[:, None]
    spread = min(person.volume, 20) * 0.5 + rng.uniform(-8, 10) * np.sin(v * np.pi) + rng.uniform(-12, 18) * v
    top = np.sqrt(np.clip(1 - ((np.minimum(y, -20) + 20) / 100) ** 2, 0, 1))
    x = (75 * top + spread) * np.sin(t) * (1 + 0.02 * np.sin(t * 9 + v * 6))
    z = -92 + (np.where(np.cos(t) > 0, 78, 92) * top + spread * 0.6) * np.cos(t)
    z = z + 0.3 * np.maximum(y - 20, 0)  # vertical on an upright head, whose y axis leans back
    return np.stack([x, y + 0 * t, z], -1).astype(np.float32)


def _brim(edge: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the grid (5, 21, 3) in head mm of the brim of a cap with distance `edge` (R, C) inside its edge."""
    model = head_model()
    t, out = np.radians(np.linspace(-62, 62, 21)), np.linspace(0, 1, 5)[:, None]
    reach = rng.uniform(30, 65) * np.cos(t * 1.35)
    x, z = (76 + 0.6 * reach * out) * np.sin(t), -86 + (92 + reach * out) * np.cos(t)
    lowest = int(np.flatnonzero(edge[:, model.columns // 2] > 0)[-1])
    y = model.grid(model.canonical)[lowest, model.columns // 2, 1] + 14 * out - 5 * np.cos(t)
    return np.stack([x, y, z], -1).astype(np.float32)


def draw_cover(
    rng: np.random.Generator, drawing: Drawing, person: Person, edge: np.ndarray, shell: np.ndarray
) -> np.ndarray:
    """Draw hair, hat or hood over the canvas, in place; return the mask (S * S,) of hidden pixels.

    On the head's grid: edge (R, C), mm inside the edge of hair or hat; shell (R, C, 3), its surface in the camera's
    axes.
    """
    cloth = person.style in CLOTH
    # half the rows and columns
    every = np.ix_(np.r_[0 : len(edge) - 1 : 2, len(edge) - 1], np.arange(0, edge.shape[1], 2))
    coarse, surface = edge[every], shell[every]
    meshes, fringe = [Mesh(surface, np.max(corners(coarse), 0) > -8)], [coarse]
    if person.long and person.style != "hood":
        meshes.append(Mesh(drawing.camera.view(_curtain(person, rng)), both=True))
        r, c = np.mgrid[0:LOOSE_ROWS, 0:LOOSE_COLUMNS]
        fringe.append(np.minimum(np.minimum(c, LOOSE_COLUMNS - 1 - c) * 4.0, (LOOSE_ROWS - 1 - r) * 12.0) - 1)
    if person.style == "cap":
        meshes.append(Mesh(drawing.camera.view(_brim(edge, rng)), both=True))
        fringe.append(np.full(meshes[-1].seen.shape[:2], 20.0))
    hidden = np.zeros(len(drawing.canvas), np.float32)
    for number, (mesh, part) in enumerate(zip(meshes, rasterise(meshes, drawing.camera, drawing.size), strict=True)):
        first = part.sample(np.stack([mesh.seen[..., 2], fringe[number]], -1))
        pick = np.flatnonzero((first[:, 0] > drawing.depth[part.pixels] - 0.5) & (first[:, 1] > (-1 if cloth else -9)))
        part, margin = Fragments(part.pixels[pick], part.row[pick], part.column[pick]), first[pick, 1]
        a = part.sample(np.concatenate([mesh.seen[..., :2], normals(mesh.seen)], 2))
        normal = a[:, 2:5] * np.where(a[:, 4:5] < 0, -1, 1) if mesh.both else a[:, 2:5]
        if cloth and (number == 0 or person.style == "cap"):
            n4 = read_noise(a[:, 0] * 1.2 + person.look.offset[0], a[:, 1] * 1.2)
            albedo = person.cloth_two * np.clip(1 + 0.16 * n4[:, :1] + 0.07 * n4[:, 2:3], 0.3, 2)
            alpha, gloss = np.clip(margin / 1.5 + 0.5, 0, 1), 0.03
        else:
            albedo, rough = paint.paint_hair(
                part.column * (18 if number == 0 else 7), a[:, 1], person.look, person.curl
            )
            alpha, gloss = np.clip((margin + 4.0 * rough) / 5 + 0.3, 0, 1), 0.25 * np.clip(1 + 0.5 * rough, 0, 2)
            albedo *= 0.55 + 0.45 * np.clip(margin[:, None] / 12, 0, 1)
        colour = shade(albedo, normal, 0.3 * np.clip(1 - margin / 10, 0, 1), gloss, drawing.light)
        paint.lay(drawing.canvas, part.pixels, colour, alpha)
        hidden[part.pixels] = alpha
    return hidden
