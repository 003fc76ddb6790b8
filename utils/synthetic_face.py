"""One synthetic photograph: who it is, what the face does, how it is lit and dressed, drawn with exact landmarks.

Order of drawing: background; head, ears and body; hair or hat in front of them; glasses; something in the way; lens and file.
"""

from typing import NamedTuple

import cv2
import numpy as np

from utils import synthetic_paint as paint
from utils import synthetic_scene as scene
from utils.synthetic_head import HINGE, Head, head, landmarks_3d, pose_vertices, smooth
from utils.synthetic_people import Light, Person, Pose, sample_light, sample_person, sample_pose
from utils.synthetic_render import Camera, Fragments, Mesh, normals, rasterise, rotation, shadow

SUPERSAMPLE = 1.5
FACE_MM = 147.0  # width of the box of the 68 landmarks of a frontal mean face


class Face(NamedTuple):
    """`image` uint8 BGR (H, W, 3), `landmarks` (68, 2) continuous px, `visible` (68,) bool: on the picture and not hidden."""

    image: np.ndarray
    landmarks: np.ndarray
    visible: np.ndarray


def shade(
    albedo: np.ndarray, normal: np.ndarray, shaded: np.ndarray, gloss: np.ndarray | float, light: Light, wrap: float = 0.2
) -> np.ndarray:
    """Light (N, 3) leaving a surface: hemisphere, key with shadow, fill, and a highlight towards the viewer."""
    key = np.clip((normal @ light.key + wrap) / (1 + wrap), 0, 1) * (1 - light.hardness * shaded)
    fill = np.clip(normal @ light.fill, 0, 1)
    up, facing = 0.5 - 0.5 * normal[:, 1], 0.55 + 0.45 * np.clip(normal[:, 2], 0, 1)
    half = light.key + np.array([0, 0, 1], np.float32)
    shine = np.clip(normal @ (half / np.float32(np.linalg.norm(half))), 0, 1) ** 2
    shine = shine * shine
    shine = shine * shine
    shine = shine * shine * gloss * (1 - light.hardness * shaded)
    amounts = np.stack([key, fill, facing * (1 - up), facing * up, 0.35 * shine], 1)
    colours = np.stack([light.key_colour, light.fill_colour, light.ground, light.sky])
    return albedo * (amounts[:, :4] @ colours) + amounts[:, 4:] * light.key_colour


def _ear(side: float, model: Head, points: np.ndarray) -> np.ndarray:
    """Grid (7, 21, 3) of an ear in head mm, hung on the side of the posed head."""
    grid = points[model.slices["grid"]].reshape(model.rows, model.columns, 3)
    middle = model.columns // 2
    column = int(np.argmin(np.abs(model.phi[: model.columns] - side * np.radians(92))))
    row = int(np.argmin(np.abs(grid[:, middle + int(side), 1] - 58)))
    anchor = grid[row, column]
    r, t = np.linspace(0.05, 1, 7)[:, None], np.linspace(0, 2 * np.pi, 21)[None] * side
    back, down = r * np.cos(t) * 17, r * np.sin(t) * (30 - 5 * (np.sin(t) > 0)) * np.ones_like(r)
    lift = 7 + 0.36 * back + 3.5 * np.cos(r * 9) * (r > 0.3) - 5 * (1 - r)
    return (np.array([anchor[0], anchor[1] - 6, anchor[2] - 10]) + np.stack([side * lift, down - 0.15 * back, -back], -1)).astype(
        np.float32
    )


def _body(camera: Camera, points: np.ndarray, model: Head, yaw: float, roll: float) -> tuple[np.ndarray, np.ndarray]:
    """Grid of neck base and shoulders in the camera's axes, and the same in its own mm."""
    grid = points[model.slices["grid"]].reshape(model.rows, model.columns, 3)
    base = camera.view(grid[-2].mean(0))
    ring = np.array(
        [[-22, 54, 52], [2, 62, 58], [16, 95, 66], [32, 150, 76], [52, 190, 86], [95, 212, 98], [260, 215, 105], [420, 215, 105]]
    )
    t = np.linspace(-np.pi, np.pi, 41)
    own = np.stack(
        [ring[:, 1:2] * np.sin(t), ring[:, :1] + 14 * (np.cos(t) > 0) * np.cos(t) * (ring[:, :1] > 0), ring[:, 2:] * np.cos(t)],
        -1,
    )
    return (own @ rotation(0.35 * yaw, 0, 0.25 * roll).T + base).astype(np.float32), own.astype(np.float32)


def _cover(person: Person, model: Head, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, bool]:
    """Hair or hat over the head's grid: signed distance (R, C) in mm inside its edge, thickness (R, C) mm, and whether it is
    cloth."""
    shape = (model.rows, model.columns)
    x, y = model.canonical[model.slices["grid"]].T.reshape(2, *shape)
    phi = model.phi[model.slices["grid"]].reshape(shape)
    turn = np.degrees(np.abs(phi))
    wobble = 4 * np.sin(phi * 5 + rng.uniform(0, 6)) + 3 * np.sin(phi * 11 + rng.uniform(0, 6))
    cloth = person.style in ("hat", "cap", "hood")
    if person.style == "hood":
        wide, tall = rng.uniform(60, 76), rng.uniform(84, 104)
        oval = np.sqrt((x / wide) ** 2 + ((y - 33) / tall) ** 2)
        edge = np.where(turn < 95, (oval - 1) * 60, 40)
    elif cloth:
        edge = (-38 + rng.uniform(-16, 14) + rng.uniform(-0.3, 0.3) * x) - y
        edge = np.where(turn > 90, edge + (turn - 90) * 0.6, edge)
    else:
        line = np.interp(
            turn,
            [0, 25, 42, 56, 68, 76, 83, 92, 104, 118, 180],
            [-57, -55, -48, -34, -18, 4 + 12 * (rng.random() < 0.4), -8, -20, 20, 52, 62],
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
            line = np.where(turn > 58, np.maximum(line, 60), line)
        edge = line + wobble - y
    thick = person.volume * np.clip(edge / 16, 0, 1) ** 0.6 * (1 + 0.10 * np.sin(phi * 4 + person.parting))
    if cloth:
        thick = np.where(edge > -4, rng.uniform(4, 12) * np.clip(edge / 6, 0.3, 1), 0)
    return edge.astype(np.float32), (thick + 0.8).astype(np.float32), cloth


def _curtain(person: Person, rng: np.random.Generator) -> np.ndarray:
    """Grid (15, 41, 3) in head mm of loose hair hanging round the back and the sides of the head."""
    start = np.radians(rng.uniform(46, 82))
    t = np.linspace(start, 2 * np.pi - start, 41)
    y = np.linspace(-70, person.long, 15)[:, None]
    v = np.linspace(0, 1, 15)[:, None]
    spread = min(person.volume, 20) * 0.5 + rng.uniform(-8, 10) * np.sin(v * np.pi) + rng.uniform(-12, 18) * v
    top = np.sqrt(np.clip(1 - ((np.minimum(y, -20) + 20) / 100) ** 2, 0, 1))
    x = (75 * top + spread) * np.sin(t) * (1 + 0.02 * np.sin(t * 9 + v * 6))
    z = -92 + (np.where(np.cos(t) > 0, 78, 92) * top + spread * 0.6) * np.cos(t)
    return np.stack([x, y + 0 * t, z], -1).astype(np.float32)


def draw(rng: np.random.Generator, size: int, hard: bool) -> Face:
    """Draw one face with the numbers that `rng` gives; `hard` for the difficult test part."""
    model = head()
    person, pose, light = sample_person(rng), sample_pose(rng, hard), sample_light(rng)
    look = person.look
    canvas_size = int(round(size * SUPERSAMPLE))
    points = pose_vertices(person.shape | pose.expression, pose.jaw, pose.jaw_side)
    distance = float(np.exp(rng.normal(np.log(900), 0.45)))
    distance = min(max(distance, 380.0), 3000.0)
    width = rng.uniform(110, 190) * canvas_size / 256
    camera = Camera(
        rotation(*pose.angles), np.array([0, 35, -70], np.float32), distance, width / FACE_MM * distance, np.zeros(2, np.float32)
    )
    marks = landmarks_3d(points, pose.lids, camera.project)
    flat = camera.project(marks)
    middle = (flat.min(0) + flat.max(0)) / 2
    camera = camera._replace(
        centre=(canvas_size * (0.5 + np.clip(rng.normal(0, 0.07, 2), -0.25, 0.25)) - middle).astype(np.float32)
    )
    seen_marks = camera.view(marks)
    flat = camera.flatten(seen_marks)
    box = np.concatenate([flat.min(0), flat.max(0)])

    canvas = scene.background(rng, canvas_size) * (0.3 + 0.7 * (light.key_colour + light.sky)).astype(np.float32)
    grid = points[model.slices["grid"]].reshape(model.rows, model.columns, 3)
    seen = camera.view(grid)
    edge, thick, cloth = _cover(person, model, rng)
    outward = grid - np.array([0, 5, -92], np.float32)
    outward /= np.maximum(np.linalg.norm(outward, axis=-1, keepdims=True), 1e-3)
    shell = camera.view(grid + outward * thick[..., None])
    ears = [camera.view(_ear(s, model, points)) for s in (-1.0, 1.0)]
    body, body_own = _body(camera, points, model, pose.angles[0], pose.angles[2])
    under = np.minimum(np.minimum(edge[:-1, :-1], edge[1:, 1:]), np.minimum(edge[1:, :-1], edge[:-1, 1:]))
    base = [Mesh(seen, under < 18), Mesh(ears[0], both=True), Mesh(ears[1], both=True), Mesh(body)]
    parts = rasterise(base, camera, canvas_size)
    depth = np.full(canvas_size * canvas_size, -1e4, np.float32)
    for mesh, part in zip(base, parts, strict=True):
        depth[part.pixels] = part.sample(np.ascontiguousarray(mesh.seen[..., 2]))
    flat_canvas = canvas.reshape(-1, 3)
    flat_canvas[parts[0].pixels] = _shade_head(
        parts[0],
        model,
        points,
        grid,
        seen,
        np.where((edge > 0)[..., None], shell, seen),
        person,
        pose,
        light,
        distance / camera.focal,
    )
    for part, ear in zip(parts[1:3], ears, strict=True):
        if len(part.pixels):
            n = part.sample(normals(ear))
            n *= np.sign(n[:, 2:3] + 1e-6)
            tint = (
                look.skin * np.array([0.85, 0.82, 1.0], np.float32) * (0.55 + 0.45 * np.clip(part.row / 6 * 1.2, 0, 1))[:, None]
            )
            flat_canvas[part.pixels] = shade(tint, n, np.float32(0.25), look.shine * 0.4, light)
    if len(parts[3].pixels):
        flat_canvas[parts[3].pixels] = _shade_body(parts[3], body, body_own, person, light, rng)
    hidden = _draw_cover(rng, canvas, depth, camera, person, light, model, edge, shell, cloth)
    depth_map = depth.reshape(canvas_size, canvas_size)

    def project(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        v = camera.view(np.asarray(p, np.float32))
        return camera.flatten(v), v[:, 2]

    bright = float(light.key_colour.mean() * 0.5 + light.sky.mean() * 0.6)
    if rng.random() < 0.20:
        hidden = np.maximum(
            hidden, scene.glasses(rng, canvas, project, depth_map, float(marks[27, 2]), bool(rng.random() < 0.28), bright)
        )
    if rng.random() < (0.45 if hard else 0.16):
        hidden = np.maximum(
            hidden, scene.occlude(rng, canvas, box, look.skin, look.hair, light.key_colour * 0.6 + light.sky * 0.6)
        )
    cell = np.floor(flat).astype(int)
    inside = ((cell >= 0) & (cell < canvas_size)).all(1)
    cell = np.clip(cell, 0, canvas_size - 1)
    visible = inside & (cv2.erode(depth_map, np.ones((3, 3), np.uint8))[cell[:, 1], cell[:, 0]] < seen_marks[:, 2] + 8)
    visible &= hidden[cell[:, 1], cell[:, 0]] < 0.5
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return Face(scene.degrade(rng, image, hard), flat * (size / canvas_size), visible)


def _shade_head(
    part: Fragments,
    model: Head,
    points: np.ndarray,
    grid: np.ndarray,
    seen: np.ndarray,
    caster: np.ndarray,
    person: Person,
    pose: Pose,
    light: Light,
    pixel: float,
) -> np.ndarray:
    """Colours (N, 3) of the head's own pixels: skin, brows, lips, mouth, nostrils, eyes, all lit."""
    look, shape = person.look, (model.rows, model.columns)
    s = model.slices["grid"]
    attributes = np.concatenate(
        [
            model.canonical[s].reshape(*shape, 2),
            model.lip[s].reshape(*shape, 1),
            shadow(seen, [caster], light.key)[..., None],
            normals(seen),
            grid[..., :2],
        ],
        2,
    )
    a = part.sample(np.ascontiguousarray(attributes, np.float32))
    x, y, lip, shaded, normal = a[:, 0], a[:, 1], a[:, 2], a[:, 3], a[:, 4:7]
    e = pose.expression
    smile = max(e.get("smile_left", 0), e.get("smile_right", 0))
    albedo, gloss = paint.paint_skin(x, y, look, smile, e["brow_in_left"])
    paint.paint_brows(x, y, albedo, look)
    inner = points[model.slices["inner_right"]]
    gap = float(inner[4, 1] - inner[2, 1])
    paint.paint_lips(x, y, lip, albedo, gloss, look, gap)
    paint.paint_nostrils(x, y, albedo, gloss)
    front = np.flatnonzero(normal[:, 2] > -0.2)
    spark = light.key[:2] * 2.2
    eyes = []
    for side, lids in ((-1.0, pose.lids[0]), (1.0, pose.lids[1])):
        eyes.append(
            paint.paint_eye(
                x[front], y[front], side, lids, pose.gaze, look, pixel, spark, *(sub := (albedo[front], gloss[front]))
            )
        )
        albedo[front], gloss[front] = sub
    colour = shade(albedo, normal, shaded, gloss, light)
    for pick, cover, ball in eyes:
        where = front[pick]
        lit = shade(ball[:, :3], normal[where] * np.array([0.6, 0.5, 1.0], np.float32), 0.6 * shaded[where], 0.15, light, 0.4)
        lit += ball[:, 3:] * light.key_colour
        colour[where] += (lit - colour[where]) * cover[:, None]
    mouth = np.flatnonzero((lip > 0.02) & (lip < 0.98) & (np.abs(x) < 27))
    if gap > 0.8 and len(mouth):
        arm_y, arm_z = 74 - HINGE[1], 5 - HINGE[2]
        drop = float(arm_y * np.cos(pose.jaw) + arm_z * np.sin(pose.jaw) - arm_y)
        inside = paint.paint_mouth(a[mouth, 7], a[mouth, 8], lip[mouth], look, drop, 2.0)
        lit = inside * (0.75 * light.sky + 0.6 * light.key_colour * (1 - 0.5 * light.hardness * shaded[mouth])[:, None])
        cover = np.clip(np.minimum(lip[mouth], 1 - lip[mouth]) / 0.06, 0, 1)[:, None] * min(1.0, (gap - 0.8) / 1.0)
        colour[mouth] += (lit - colour[mouth]) * cover
    return colour


def _shade_body(
    part: Fragments, body: np.ndarray, own: np.ndarray, person: Person, light: Light, rng: np.random.Generator
) -> np.ndarray:
    """Colours (N, 3) of neck and shoulders: skin down to the neckline, then cloth with folds and perhaps a pattern."""
    a = part.sample(np.concatenate([own, normals(body)], 2))
    x, y, z = a[:, 0], a[:, 1], a[:, 2]
    n4 = paint.read_noise(x * 0.8 + person.look.offset[1], y * 0.8 + person.look.offset[0])
    albedo = np.repeat(person.cloth[None], len(x), 0)
    kind = rng.choice(["plain", "stripes", "checks", "print"], p=[0.6, 0.15, 0.1, 0.15])
    period = rng.uniform(8, 40)
    if kind == "stripes":
        pattern = ((y if rng.random() < 0.5 else x) / period) % 1 < 0.5
    elif kind == "checks":
        pattern = ((x / period) % 1 < 0.4) ^ ((y / period) % 1 < 0.4)
    else:
        pattern = (n4[:, 1] > 0.8) & (kind == "print")
    albedo = (
        np.where(pattern[:, None], person.cloth_two, albedo) * np.clip(1 + 0.18 * n4[:, 0] + 0.06 * n4[:, 2], 0.3, 2)[:, None]
    )
    line = person.neckline * np.clip(1 - np.abs(x) / 90, 0, 1) * (z > 0) - 6
    albedo = np.where((y < line)[:, None], person.look.skin * np.clip(1 + 0.05 * n4[:, :1], 0.8, 1.2), albedo).astype(np.float32)
    under_chin = np.clip((30 - y) / 45, 0, 1) * (z > 0)
    return shade(albedo * (1 - 0.35 * under_chin)[:, None], a[:, 3:6], 0.9 * under_chin, 0.02, light)


def _draw_cover(
    rng: np.random.Generator,
    canvas: np.ndarray,
    depth: np.ndarray,
    camera: Camera,
    person: Person,
    light: Light,
    model: Head,
    edge: np.ndarray,
    shell: np.ndarray,
    cloth: bool,
) -> np.ndarray:
    """Hair, hat or hood over what is drawn so far, in place; returns the mask (H, W) of what it hides."""
    size = canvas.shape[0]
    keep = np.maximum(edge[:-1, :-1], edge[1:, 1:]) > -8
    meshes = [Mesh(shell, keep)]
    fringe = [edge]
    if person.long and person.style != "hood":
        loose = _curtain(person, rng)
        meshes.append(Mesh(camera.view(loose), both=True))
        r, c = np.mgrid[0:15, 0:41]
        fringe.append((np.minimum(np.minimum(c, 40 - c) * 4.0, (14 - r) * 12.0) - 1).astype(np.float32))
    if person.style == "cap":
        t = np.radians(np.linspace(-62, 62, 21))
        out = np.linspace(0, 1, 5)[:, None]
        reach = rng.uniform(30, 65) * np.cos(t * 1.35)
        x, z = (76 + 0.6 * reach * out) * np.sin(t), -86 + (92 + reach * out) * np.cos(t)
        front = edge[:, model.columns // 2]
        brim_y = float(model.canonical[int(np.flatnonzero(front > 0)[-1]) * model.columns + model.columns // 2, 1])
        brim = np.stack([x, brim_y + 14 * out + 0 * t - 5 * np.cos(t), z], -1).astype(np.float32)
        meshes.append(Mesh(camera.view(brim), both=True))
        fringe.append(np.full(brim.shape[:2], 20, np.float32))
    hidden = np.zeros(size * size, np.float32)
    flat = canvas.reshape(-1, 3)
    for number, (mesh, part) in enumerate(zip(meshes, rasterise(meshes, camera, size), strict=True)):
        if not len(part.pixels):
            continue
        first = part.sample(np.stack([mesh.seen[..., 2], fringe[number]], -1))
        pick = np.flatnonzero((first[:, 0] > depth[part.pixels] - 0.5) & (first[:, 1] > (-1 if cloth else -9)))
        part = Fragments(part.pixels[pick], part.row[pick], part.column[pick])
        a = part.sample(np.concatenate([mesh.seen, normals(mesh.seen), fringe[number][..., None]], 2))
        along, down = part.column * (9.0 if number == 0 else 7.0), a[:, 1]
        normal = a[:, 3:6] * np.where(a[:, 5:6] < 0, -1, 1) if mesh.both else a[:, 3:6]
        if cloth and (number == 0 or person.style == "cap"):
            n4 = paint.read_noise(a[:, 0] * 1.2 + person.look.offset[0], a[:, 1] * 1.2)
            albedo = (person.cloth_two * np.clip(1 + 0.16 * n4[:, :1] + 0.07 * n4[:, 2:3], 0.3, 2)).astype(np.float32)
            alpha, gloss = np.clip(a[:, 6] / 1.5 + 0.5, 0, 1), 0.03
        else:
            albedo, rough = paint.paint_hair(along, down, person.look.hair, person.look.offset, person.curl, 1.0)
            alpha, gloss = np.clip((a[:, 6] + 4.0 * rough) / 5 + 0.3, 0, 1), 0.25 * np.clip(1 + 0.5 * rough, 0, 2)
            albedo *= 0.55 + 0.45 * np.clip(a[:, 6:7] / 12, 0, 1)
        colour = shade(albedo, normal, 0.3 * np.clip(1 - a[:, 6] / 10, 0, 1), gloss, light)
        flat[part.pixels] += (colour - flat[part.pixels]) * alpha[:, None]
        hidden[part.pixels] = np.maximum(hidden[part.pixels], alpha)
    return hidden.reshape(size, size)
