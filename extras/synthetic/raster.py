"""Camera, rasteriser and light of the synthetic faces: grids of points in, per-pixel surface coordinates out.

The quads of a grid are drawn far to near with their numbers as colours (painter's algorithm, OpenCV's polygon filler).
Inverting the bilinear map of the quads then gives the position inside the quad for all pixels at once.
`Fragments.sample` reads whatever is on the grid (paint coordinates, normals, depth), so no loop in Python visits the
quads' pixels.
"""

from typing import NamedTuple

import cv2
import numpy as np

from extras.shared.backgrounds import lookup

SHADOW_CELL, SHADOW_CELLS = 3.0, 200  # mm of a cell of the shadow's depth map, cells of its side


class Camera(NamedTuple):
    """A pinhole camera."""

    rotation: np.ndarray  # (3, 3) of the head about `pivot`
    pivot: np.ndarray  # (3,) mm
    distance: float  # mm from the pivot
    focal: float  # px
    centre: np.ndarray  # (2,) canvas px

    def view(self, points: np.ndarray) -> np.ndarray:
        """Return head points (..., 3) in the camera's axes, mm: x right, y down, z towards the viewer, pivot at 0."""
        return (points - self.pivot) @ self.rotation.T

    def flatten(self, seen: np.ndarray) -> np.ndarray:
        """Return points (..., 3) in the camera's axes as continuous px (..., 2)."""
        scale = self.focal / (self.distance - seen[..., 2:3])
        return seen[..., :2] * scale + self.centre

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return head points (..., 3) in mm as continuous px (..., 2)."""
        return self.flatten(self.view(points))


class Mesh(NamedTuple):
    """A grid of points to draw."""

    seen: np.ndarray  # (R, C, 3) mm in the camera's axes
    keep: np.ndarray | None = None  # (R-1, C-1) bool: quads to draw
    both: bool = False  # draw the back of the quads too


class Light(NamedTuple):
    """Lamps, sky and ground: colours (3,), and unit directions (3,) towards the lamps in the camera's axes."""

    key: np.ndarray
    key_colour: np.ndarray
    fill: np.ndarray
    fill_colour: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    hardness: float  # darkness of the key light's shadow


class Drawing(NamedTuple):
    """A picture while it is drawn."""

    camera: Camera
    light: Light
    points: np.ndarray  # (V, 3) vertices of the posed head, mm
    canvas: np.ndarray  # (S * S, 3) linear BGR
    depth: np.ndarray  # (S * S,) mm towards the viewer
    size: int  # S

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return head points (N, 3) in mm as continuous px (N, 2) and mm towards the viewer (N,)."""
        seen = self.camera.view(np.asarray(points, np.float32))
        return self.camera.flatten(seen), seen[:, 2]


class Fragments(NamedTuple):
    """The N pixels of a rasterised mesh."""

    pixels: np.ndarray  # flat indices
    row: np.ndarray  # continuous row of the grid at each pixel
    column: np.ndarray

    def sample(self, grid: np.ndarray) -> np.ndarray:
        """Return the values (N,) or (N, channels) of a grid (R, C) or (R, C, channels), bilinear."""
        return lookup(grid, self.column, self.row)


def rotation_matrix(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the rotation (3, 3) of angles in radians: positive yaw is to the picture's right, pitch up, roll
    clockwise.
    """
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (tilt @ nod @ turn).astype(np.float32)


def normals(grid: np.ndarray) -> np.ndarray:
    """Return unit normals (R, C, 3) of a grid whose rows go down and columns to the right; they point out of the head."""
    down, right = np.gradient(grid, axis=0), np.gradient(grid, axis=1)
    n = np.cross(right, down)
    return (n / np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-6)).astype(np.float32)


def corners(grid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the values (R-1, C-1, ...) at the corners of a grid's quads, clockwise from the upper left."""
    return grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]


def rasterise(meshes: list[Mesh], camera: Camera, size: int) -> list[Fragments]:
    """Return the pixels of each mesh on a canvas of `size` px: those where it is nearest."""
    outlines, depths, owners, quads = [], [], [], []
    for number, mesh in enumerate(meshes):
        flat = camera.flatten(mesh.seen)
        p, q, r, w = sides = corners(flat)
        area = (r[..., 0] - p[..., 0]) * (w[..., 1] - q[..., 1]) - (r[..., 1] - p[..., 1]) * (w[..., 0] - q[..., 0])
        near: np.ndarray = 0.25 * sum(corners(mesh.seen[..., 2]))
        show = (np.abs(area) > 1e-3) if mesh.both else area > 1e-3
        if mesh.keep is not None:
            show &= mesh.keep
        show &= (np.max(sides, 0) > 0).all(-1) & (np.min(sides, 0) < size).all(-1) & (camera.distance - near > 20)
        i, j = np.nonzero(show)
        outlines.append(np.stack([side[i, j] for side in sides], 1))  # (n, 4, 2)
        depths.append(near[i, j])
        owners.append(np.full(len(i), number))
        quads.append(np.stack([i, j], 1))
    corner = np.concatenate(outlines)
    order = np.argsort(np.concatenate(depths), kind="stable")
    canvas = np.full((size, size), -1, np.int32)
    fixed = np.round((corner[order] - 0.5) * 16).astype(np.int32)
    for shape, number in zip(fixed, order.tolist(), strict=True):
        cv2.fillConvexPoly(canvas, shape, number, 8, 4)
    flat = canvas.ravel()
    pixels = np.flatnonzero(flat >= 0)
    shown = flat[pixels]
    position = np.stack([pixels % size + 0.5, pixels // size + 0.5]).astype(np.float32)
    s, t = _inverse_bilinear(corner.astype(np.float32).reshape(-1, 8), shown, position)
    owner, place = np.concatenate(owners)[shown], np.concatenate(quads).astype(np.float32)[shown]
    result = []
    for m in range(len(meshes)):
        mine = np.flatnonzero(owner == m)
        result.append(Fragments(pixels[mine], place[mine, 0] + t[mine], place[mine, 1] + s[mine]))
    return result


def _inverse_bilinear(corner: np.ndarray, number: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return column and row fractions in [0, 1] of pixel centres (2, N) in their quads, by two Newton steps from the
    middle.
    """
    ax, ay, bx, by, cx, cy, dx, dy = corner.T
    ex, ey, fx, fy, gx, gy = (
        v[number] for v in (bx - ax, by - ay, dx - ax, dy - ay, ax - bx + cx - dx, ay - by + cy - dy)
    )
    px, py = position[0] - ax[number], position[1] - ay[number]
    s = np.full(len(number), 0.5, np.float32)
    t = s.copy()
    for _ in range(2):
        ux, uy, wx, wy = ex + gx * t, ey + gy * t, fx + gx * s, fy + gy * s
        det = ux * wy - uy * wx
        det = np.where(np.abs(det) < 1e-4, 1e-4, det)
        rx, ry = px - ex * s - wx * t, py - ey * s - wy * t
        s, t = np.clip(s + (rx * wy - ry * wx) / det, 0, 1), np.clip(t + (ux * ry - uy * rx) / det, 0, 1)
    return s, t


def shadow(seen: np.ndarray, caster: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Return the soft shadow (R, C) in [0, 1] on the grid `seen`, cast by itself and by the grid `caster`.

    Both are in the camera's axes. light: unit vector towards the light. The shadow is read from a depth map as seen from
    there.
    """
    side = np.cross(light, [0.0, 1.0, 0.0])
    side /= max(np.linalg.norm(side), 1e-6)
    frame = np.stack([side, np.cross(side, light), light], 1).astype(np.float32)
    depth = np.full((SHADOW_CELLS, SHADOW_CELLS), -1e4, np.float32)

    def placed(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return row and column in the depth map, and depth, of points (..., 3)."""
        turned = points.reshape(-1, 3) @ frame
        cell = np.clip((turned[:, :2] / SHADOW_CELL + SHADOW_CELLS / 2).astype(np.int32), 0, SHADOW_CELLS - 1)
        return cell[:, 1], cell[:, 0], turned[:, 2]

    for grid in (seen, caster):
        dense = cv2.resize(np.ascontiguousarray(grid, np.float32), None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
        row, column, near = placed(dense)
        np.maximum.at(depth, (row, column), near)
    depth = cv2.dilate(depth, np.ones((3, 3), np.uint8))
    row, column, near = placed(seen)
    hidden = np.clip((depth[row, column] - near - 7) / 6, 0, 1).reshape(seen.shape[:2])
    return cv2.GaussianBlur(hidden.astype(np.float32), (5, 5), 1.0)


def shade(
    albedo: np.ndarray,
    normal: np.ndarray,
    shaded: np.ndarray | np.floating,
    gloss: np.ndarray | float,
    light: Light,
    wrap: float = 0.2,
) -> np.ndarray:
    """Return the light (N, 3) of a surface: sky and ground, key light with shadow, fill light, highlight."""
    key = np.clip((normal @ light.key + wrap) / (1 + wrap), 0, 1) * (1 - light.hardness * shaded)
    fill = np.clip(normal @ light.fill, 0, 1)
    up, facing = 0.5 - 0.5 * normal[:, 1], 0.55 + 0.45 * np.clip(normal[:, 2], 0, 1)
    half = light.key + np.array([0, 0, 1], np.float32)
    shine = np.clip(normal @ (half / np.float32(np.linalg.norm(half))), 0, 1) ** 2
    shine = shine * shine
    shine = shine * shine
    shine = shine * shine * gloss * (1 - light.hardness * shaded)  # exponent 16
    amounts = np.stack([key, fill, facing * (1 - up), facing * up, 0.35 * shine], 1)
    colours = np.stack([light.key_colour, light.fill_colour, light.ground, light.sky])
    return albedo * (amounts[:, :4] @ colours) + amounts[:, 4:] * light.key_colour
