"""Rendering of one synthetic photograph with exact landmarks.

Drawing order: background; head, ears and body; hair or hat; glasses; an occluder; effects of lens and file format.
"""

from typing import NamedTuple

import cv2
import numpy as np

from extras.shared.backgrounds import background
from extras.synthetic import paint, scene, variety, wear
from extras.synthetic.head import HINGE, head_model, landmarks_3d, pose_vertices
from extras.synthetic.people import Person, Pose, sample_light, sample_person, sample_pose
from extras.synthetic.raster import (
    Camera,
    Drawing,
    Fragments,
    Mesh,
    corners,
    normals,
    rasterise,
    rotation_matrix,
    shade,
    shadow,
)

SUPERSAMPLE = 1.5
FACE_MM = 147.0  # width of the landmarks' box of a frontal mean face


class RenderedFace(NamedTuple):
    """A rendered face."""

    image: np.ndarray  # (H, W, 3) uint8 BGR
    landmarks: np.ndarray  # (68, 2) continuous px
    visible: np.ndarray  # (68,) bool: inside the picture and not hidden


def _aim(rng: np.random.Generator, points: np.ndarray, pose: Pose, size: int) -> Camera:
    """Return a camera for a canvas of `size` px, on which a frontal face is 110 / 256 to 190 / 256 wide, near the
    middle.
    """
    distance = min(max(float(np.exp(rng.normal(np.log(900), 0.45))), 380.0), 3000.0)
    focal = rng.uniform(110, 190) * size / 256 / FACE_MM * distance
    camera = Camera(
        rotation_matrix(*pose.angles), np.array([0, 35, -70], np.float32), distance, focal, np.zeros(2, np.float32)
    )
    flat = camera.project(landmarks_3d(points, pose.lids, camera.project))
    place = size * (0.5 + np.clip(rng.normal(0, 0.07, 2), -0.25, 0.25))
    return camera._replace(centre=(place - (flat.min(0) + flat.max(0)) / 2).astype(np.float32))


def render_face(rng: np.random.Generator, size: int, hard: bool, fixed: dict, varied: bool = False) -> RenderedFace:
    """Return a random face on `size` px.

    hard: one for the difficult test part. fixed: {field of its pose: value}. varied: of people who differ more.
    """
    person, pose = sample_person(rng), sample_pose(rng, hard)
    if varied:
        person, pose = variety.vary(rng, person), variety.mean_pose(pose)
    pose, light = pose._replace(**fixed), sample_light(rng)
    canvas_size = round(size * SUPERSAMPLE)
    points = pose_vertices(person.shape | pose.expression, pose.jaw, pose.jaw_side)
    if person.hills is not None:
        points = points + variety.unevenness(person.hills)
    camera = _aim(rng, points, pose, canvas_size)
    canvas = background(rng, canvas_size) * (0.3 + 0.7 * (light.key_colour + light.sky)).astype(np.float32)
    depth = np.full(canvas_size * canvas_size, -1e4, np.float32)
    drawing = Drawing(camera, light, points, canvas.reshape(-1, 3), depth, canvas_size)
    marks = landmarks_3d(points, pose.lids, camera.project)
    if varied:
        marks = variety.as_marked(marks, points)
    flat, towards = drawing.project(marks)

    edge, thick = wear.hair_or_hat(person, rng)
    grid = head_model().grid(points)
    outward = grid - np.array([0, 5, -92], np.float32)
    outward /= np.maximum(np.linalg.norm(outward, axis=-1, keepdims=True), 1e-3)
    shell = camera.view(grid + outward * thick[..., None])
    _draw_base(rng, drawing, person, pose, (edge, shell))
    hidden = wear.draw_cover(rng, drawing, person, edge, shell).reshape(canvas_size, canvas_size)
    depth_map = depth.reshape(canvas_size, canvas_size)
    bright = light.key_colour * 0.55 + light.sky * 0.6
    if rng.random() < 0.20:
        hidden = np.maximum(hidden, scene.glasses(rng, drawing, float(marks[27, 2]), float(bright.mean())))
    if rng.random() < (0.45 if hard else 0.16):
        box = np.concatenate([flat.min(0), flat.max(0)])
        hidden = np.maximum(hidden, scene.occlude(rng, canvas, box, person.look.skin, person.look.hair, bright))
    cell = np.floor(flat).astype(int)
    inside = ((cell >= 0) & (cell < canvas_size)).all(1)
    x, y = np.clip(cell, 0, canvas_size - 1).T
    front = cv2.erode(depth_map, np.ones((3, 3), np.uint8))[y, x] < towards + 8
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return RenderedFace(
        scene.degrade(rng, image, hard), flat * (size / canvas_size), inside & front & (hidden[y, x] < 0.5)
    )


def _draw_base(
    rng: np.random.Generator, drawing: Drawing, person: Person, pose: Pose, hair: tuple[np.ndarray, np.ndarray]
) -> None:
    """Draw head, ears and body onto the canvas and the depth, in place; `hair`: (edge, shell) of `draw_cover`."""
    edge, shell = hair
    seen = drawing.camera.view(head_model().grid(drawing.points))
    ears = [drawing.camera.view(wear.ear(s, drawing.points, person.ear)) for s in (-1.0, 1.0)]
    body, own = wear.body(drawing, pose.angles[0], pose.angles[2], person.collar)
    under = np.min(corners(edge), 0)
    shown = np.full((ears[0].shape[0] - 1, ears[0].shape[1] - 1), person.style != "hood")
    meshes = [Mesh(seen, under < 18), *(Mesh(ear, shown, both=True) for ear in ears), Mesh(body)]
    parts = rasterise(meshes, drawing.camera, drawing.size)
    for mesh, part in zip(meshes, parts, strict=True):
        drawing.depth[part.pixels] = part.sample(mesh.seen[..., 2])
    caster = np.where((edge > 0)[..., None], shell, seen)
    drawing.canvas[parts[0].pixels] = _shade_head(parts[0], drawing, seen, caster, person, pose)
    for part, ear in zip(parts[1:3], ears, strict=True):
        drawing.canvas[part.pixels] = wear.shade_ear(part, ear, drawing, person)
    drawing.canvas[parts[3].pixels] = wear.shade_body(parts[3], body, own, drawing, person, rng)


def _shade_head(
    part: Fragments, drawing: Drawing, seen: np.ndarray, caster: np.ndarray, person: Person, pose: Pose
) -> np.ndarray:
    """Return the lit colours (N, 3) of the head's pixels: skin, brows, lips, nostrils, eyes and mouth.

    seen (R, C, 3): the head's grid in the camera's axes. caster: the same with hair or hat, which casts the shadow.
    """
    model, look, light = head_model(), person.look, drawing.light
    dark = shadow(seen, caster, light.key)[..., None]
    maps = [
        model.grid(model.canonical),
        model.grid(model.lip)[..., None],
        dark,
        normals(seen),
        model.grid(drawing.points)[..., :2],
    ]
    a = part.sample(np.concatenate(maps, 2))
    x, y, lip, shaded, normal = a[:, 0], a[:, 1], a[:, 2], a[:, 3], a[:, 4:7]
    smile = max(pose.expression.get("smile_left", 0), pose.expression.get("smile_right", 0))
    surface = paint.paint_skin(x, y, look, smile, pose.expression["brow_in_left"])
    paint.paint_brows(surface, look)
    inner = drawing.points[model.slices["inner_right"]]
    gap = float(inner[4, 1] - inner[2, 1])
    paint.paint_lips(surface, lip, look, gap)
    paint.paint_nostrils(surface)
    pixel = drawing.camera.distance / drawing.camera.focal
    eyes = [
        paint.paint_eye(surface, look, paint.Eye(side, lids, pose.gaze, pixel, light.key[:2] * 2.2))
        for side, lids in zip((-1.0, 1.0), pose.lids, strict=True)
    ]
    colour = shade(surface.albedo, normal, shaded, surface.gloss, light)
    # the eyeball's normals point more towards the viewer than the lids'
    flatter = np.array([0.6, 0.5, 1.0], np.float32)
    for pick, cover, ball in eyes:
        lit = (
            shade(ball[:, :3], normal[pick] * flatter, 0.6 * shaded[pick], 0.15, light, 0.4)
            + ball[:, 3:] * light.key_colour
        )
        paint.lay(colour, pick, lit, cover)
    mouth = np.flatnonzero((lip > 0.02) & (lip < 0.98) & (np.abs(x) < 27))
    if gap > 0.8 and len(mouth):
        arm_y, arm_z = 74 - HINGE[1], 5 - HINGE[2]
        drop = float(arm_y * np.cos(pose.jaw) + arm_z * np.sin(pose.jaw) - arm_y)
        inside = paint.paint_mouth(a[mouth, 7], a[mouth, 8], lip[mouth], look, drop)
        lit = inside * (0.75 * light.sky + 0.6 * light.key_colour * (1 - 0.5 * light.hardness * shaded[mouth])[:, None])
        cover = np.clip(np.minimum(lip[mouth], 1 - lip[mouth]) / 0.06, 0, 1) * min(1.0, gap - 0.8)
        paint.lay(colour, mouth, lit, cover)
    return colour
