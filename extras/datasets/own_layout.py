"""Which landmarks a user's own set has, by their names and number; whether mirrored faces fit, and whether faces are
upright.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from loguru import logger

from extras.datasets.archive import Archive
from extras.datasets.own import (
    MOST,
    check_inside,
    corner_only,
    first_pixel_doubt,
    header,
    lost_landmarks,
    misplaced_boxes,
    sample,
)
from pipnet.errors import UserError
from pipnet.layout import Layout
from utils.data.table import complain
from utils.settings.layouts import Layouts, normalised

SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
ASYMMETRY = (0.2, 0.5)  # largest misfit that faces turned to one side explain: a + b / root of the number of faces
FEW, PARALLEL = 20, 0.1  # faces of a set whose heads may all be turned to one side; share of what is not parallel
ROUNDS = 3  # of the mean of turned shapes
UNTURNED = {
    3: 180,
    4: 180,
    5: -90,
    6: -90,
    7: 90,
    8: 90,
}  # {EXIF orientation: degrees by which faces lean before it turns them}
BELOW = 0.2  # distance of a mean face from the middle of its eyes / distance of the eyes; else only eyes are known
NEAR, LYING = 45, 60  # degrees from UNTURNED; of the mean of faces that lie on their side or head
FEWEST = 3  # such faces
NAMED = 3  # files that a warning names


def own_order(archive: Archive, names: list[str]) -> list[str]:
    """Return the names of an own set's points in order, and keep them: that of the layout with these names, else as
    they are.
    """
    given = {normalised(name): name for name in names}
    orders = (list(map(normalised, layout.point_names())) for layout in _with_count(archive.layouts, len(names)))
    wanted = next((order for order in orders if set(order) == set(given)), None)
    archive.names = [given[name] for name in wanted] if wanted else names
    return archive.names


def _with_count(layouts: Layouts, count: int) -> list[Layout]:
    """Return the layouts of that many landmarks."""
    return [layouts.load(name) for name, row in layouts.rows.items() if row.get("count") == count]


def layout_of(archive: Archive, given: Layout | None, usual: Layouts) -> Layout:
    """Return the layout of a user's own set: the given one, else that of its names, else the one with its number of
    points.

    Of several, it is the one whose mirror images fit the faces. Log what is unusual about the set. UserError without a
    layout, if several fit, if the names contradict it, and for faces that lie on their side. usual: the layouts of
    args.yaml, which other sets have too.
    """
    for note in archive.notes:
        logger.info(note)
    names, faces = archive.names, archive.columns["landmarks"]
    fitting = [given] if given else _with_count(archive.layouts, len(faces[0]))
    if not fitting:
        raise UserError(
            f"{archive.root} has {len(faces[0])} landmarks, and no layout in args.yaml has as many; check this row and add "
            f"it under layouts, or write it to a file and give that, --layout FILE.yaml: {_proposed_row(names, faces)}"
        )
    layout = next((one for one in fitting if _same(names, one)), fitting[0])
    if len(fitting) > 1 and not _same(names, layout):
        shaped = [one for one in fitting if not misfit(faces, one, one.name in usual.rows)]
        if len(shaped) > 1:
            several = " and ".join(one.name for one in shaped)
            raise UserError(
                f"{archive.root} has {len(faces[0])} landmarks, as layouts {several} have; say which one it has: "
                "--layout NAME; for a net of several layouts, --prepare this set alone first, with that and the same "
                "other flags"
            )
        layout = (shaped or fitting)[0]
    check_names(names, layout, archive.root, faces)
    some = sample(archive)
    doubts = (
        misfit(faces, layout, layout.name in usual.rows),
        _unturned(archive, layout),
        misplaced_boxes(archive),
        corner_only(archive, some),
        first_pixel_doubt(archive, some),
    )
    check_inside(archive, some)
    complain(lost_landmarks(archive))
    for doubt in filter(None, doubts):
        logger.warning(f"{archive.root}: {doubt}")
    return layout


def _same(names: list[str], layout: Layout) -> bool:
    """Return whether these are the names of the points of a layout, in its order."""
    return list(map(normalised, names)) == list(map(normalised, layout.point_names()))


def _partners(names: list[str]) -> dict[int, int]:
    """Return {point: its mirror image} as the names tell: left_eye and right_eye, whether of the face or of the
    picture.

    Names with numbers do not tell: the first point of the left eye may be the last one of the right eye in a mirror
    image.
    """
    words = [re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower() for name in names]  # eyeL, LEye
    parts = [tuple(filter(None, re.split(r"[^a-z0-9]+|(left|right)", word))) for word in words]
    turned = [tuple(SIDES.get(part, part) for part in one) for one in parts]
    for i, one in enumerate(parts):  # leye, reye
        other = (f"{SIDES[one[0][0]]}{one[0][1:]}", *one[1:]) if one and one[0][0] in SIDES else one
        turned[i] = other if turned[i] == one and other in parts else turned[i]
    return {
        i: parts.index(other)
        for i, other in enumerate(turned)
        if other != parts[i] and other in parts and not re.search(r"\d", names[i])
    }


def _proposed_row(names: list[str], faces: np.ndarray) -> str:
    """Return a row of `layouts:` on one line for points (M, N, 2): mirrored by their names, and where these tell nothing
    by their mean places; with groups named so that the layout's points have these names.
    """
    mean = _mean_shape(np.asarray(faces)[:: len(faces) // MOST + 1] @ (1, 1j))
    named = bool(names) and not all(name.isdecimal() for name in names)
    flip = _mirrored(mean, _partners(names) if named else {})
    row: dict[str, Any] = {"count": len(mean), "flip_index": flip}
    eyes = [
        (i, j)
        for i, j in enumerate(flip)
        if named
        and i != j
        and mean[i].real < mean[j].real
        and re.search(r"eye(?!_?brow|s?_?brow)|pupil", names[i].lower())
    ]
    if eyes:
        widest = max(eyes, key=lambda pair: abs(mean[pair[1]] - mean[pair[0]]))
        row["interocular"] = list(widest)
    if named:
        row["groups"] = _groups(names)
    return yaml.safe_dump({"mine": row}, default_flow_style=True, sort_keys=False, width=np.inf).strip()[1:-1]


def _mirrored(mean: np.ndarray, partners: dict[int, int]) -> list[int]:
    """Return the flip index of a mean shape (N,): the partners that are known, else the two points that are nearest to
    each other's mirror image.

    The partners that are known tell the axis, else it is upright in the middle of the shape.
    """
    factor, ends, others = 1.0, np.nanmean(mean), np.nanmean(mean)
    if partners:
        ends, others = mean[list(partners)], mean[list(partners.values())]
        factor = np.nan_to_num(_onto(-ends.conj()[None], others)[0][0], nan=1.0)
    image = factor * (np.nanmean(ends).conjugate() - mean.conj()) + np.nanmean(others)
    distance = np.nan_to_num(np.abs(image[:, None] - mean), nan=np.inf)
    distance[list(partners)] = distance[:, list(partners)] = np.inf
    nearest = distance.argmin(1)
    free = [i for i in range(len(mean)) if i not in partners and np.isfinite(distance[i]).any()]
    told = {i: int(nearest[i]) for i in free if nearest[nearest[i]] == i}
    return [{**told, **partners}.get(i, i) for i in range(len(mean))]


def _groups(names: list[str]) -> dict[str, list[int]]:
    """Return groups of points by which a layout's points get these names: eye_1 and eye_2 are the group eye."""
    numbered: dict[str, dict[int, int]] = {}
    for i, name in enumerate(names):
        if match := re.fullmatch(r"(.*?)[\s_.:/-]*([1-9]\d{0,3})", name):
            numbered.setdefault(match[1], {})[int(match[2])] = i
    series = {
        base: [places[number] for number in sorted(places)]
        for base, places in numbered.items()
        if base and base not in names and sorted(places) == list(range(1, len(places) + 1)) and len(places) > 1
    }
    inside = {i: base for base, ids in series.items() for i in ids}
    return {inside.get(i, name): series.get(inside.get(i, ""), [i]) for i, name in enumerate(names)}


def check_names(names: list[str], layout: Layout, source: Path, faces: np.ndarray) -> None:
    """Raise UserError if the names of a set's points contradict a layout: its mirror images, or the parts of its face.

    faces: (M, N, 2), by which a layout is proposed.
    """
    if _same(names, layout):
        return
    partners = _partners(names)
    wrong = next((i for i, j in partners.items() if layout.flip_index[i] != j), None)
    part = _misplaced(names, layout)
    if wrong is not None:
        what = (
            f"'{names[wrong]}' and '{names[partners[wrong]]}' are mirror images, but layout {layout.name} exchanges "
            f"'{names[wrong]}' and '{names[layout.flip_index[wrong]]}'"
        )
    elif part is not None:
        what = f"point {part} is '{names[part]}', where layout {layout.name} has '{layout.point_names()[part]}'"
    else:
        return
    raise UserError(
        f"{source}: by the names of its points {what}; name and order them as the layout does "
        f"({', '.join(layout.point_names())}), or check this row, write it to a file and give that, --layout FILE.yaml: "
        f"{_proposed_row(names, faces)}"
    )


def _misplaced(names: list[str], layout: Layout) -> int | None:
    """Return the first point whose name has the word of another part of the face than it is of in the layout, or None."""
    parts: dict[str, set[int]] = {}
    for group, ids in layout.groups.items():
        if word := re.match(r"[a-z]{3,}", group.lower()):
            parts.setdefault(word[0].removesuffix("s").replace("pupil", "eye"), set()).update(ids)
    for i, name in enumerate(map(normalised, names)):
        told = [ids for word, ids in parts.items() if word in name.replace("mouth", "lip")]
        if len(told) == 1 and i not in told[0]:
            return i
    return None


# ---------------------------------------------------------------------------------- shapes: landmarks as numbers x + iy
def misfit(faces: np.ndarray, layout: Layout, common: bool) -> str:
    """Return in words why faces (M, N, 2) would not be learnt as a layout says, or nothing.

    The mirrored mean face, numbered by flip_index, has to lie on the mean face. common: other sets and nets have the
    layout, so that the first eye has to be on the left of the picture.
    """
    shapes = faces[:: len(faces) // MOST + 1] @ (1, 1j)
    mean, flip = _mean_shape(shapes), list(layout.flip_index)
    known = np.isfinite(mean) & np.isfinite(mean[flip])
    if known.sum() < 2:
        return ""
    face, partner = mean[known], mean[flip][known]
    factors, moved = _onto(-partner.conj()[None], face)
    distance = np.sqrt((np.abs(moved[0] - face) ** 2).mean() / (np.abs(face - face.mean()) ** 2).mean())
    upside_down = (
        len(face) == 2 and factors[0].real < 0
    )  # two points fit in any order, but on an upright face in one only
    if distance <= ASYMMETRY[0] + ASYMMETRY[1] / np.sqrt(len(shapes)) and not upside_down:
        right, below = _eyes(mean, layout)
        if not common or not (right.conjugate() * below).imag < 0:
            return ""
        return (
            f"the points come in the mirrored order of layout {layout.name}, which counts from the left of the picture: "
            f"landmark {(layout.interocular or (0,))[0]} is of the eye on the right; reorder them before you mix the set "
            "with others"
        )
    across = np.linalg.svd(np.stack([(face - partner).real, (face - partner).imag]), compute_uv=False)
    if len(shapes) < FEW and across[0] > 0 and across[1] < PARALLEL * np.hypot(*across):
        return ""  # as of turned heads: the lines between mirror images are parallel
    return (
        f"a mirrored face does not fit the faces; if the points come in another order than layout {layout.name} has, "
        "reorder them or give --layout FILE.yaml with their own flip_index; if they are on one side of the face only, or all "
        "faces look to one side, train with --flip 0"
    )


def _eyes(mean: np.ndarray, layout: Layout) -> tuple[complex, complex]:
    """Return two vectors in a mean face (N,): from the left to the right eye, and from their middle to the mean
    landmark.
    """
    left, right = mean[list(layout.interocular or (0, 0))]
    return right - left, np.nanmean(mean) - (left + right) / 2


def _mean_shape(shapes: np.ndarray) -> np.ndarray:
    """Return the mean (N,) of shapes (M, N) after similarities onto it, NaN where none has the landmark."""
    mean = shapes[np.isfinite(shapes).sum(1).argmax()]
    for _ in range(ROUNDS):
        moved = _onto(shapes, mean)[1]
        there = np.isfinite(moved)
        if there.any():
            mean = np.where(there.any(0), np.where(there, moved, 0).sum(0) / np.maximum(there.sum(0), 1), np.nan)
    return mean


def _onto(shapes: np.ndarray, goals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors (M,) that turn and scale shapes (M, N) onto goals (M, N) or (N,), and the shapes moved there.

    The landmarks that both have tell. NaN where they are no two places.
    """
    both = np.isfinite(shapes) & np.isfinite(goals)
    count = np.maximum(both.sum(1, keepdims=True), 1)
    centre, middle = (np.where(both, points, 0).sum(1, keepdims=True) / count for points in (shapes, goals))
    source, target = np.where(both, shapes - centre, 0), np.where(both, goals - middle, 0)
    spread, goal_spread = ((np.abs(points) ** 2).sum(1) for points in (source, target))
    factors = (source.conj() * target).sum(1) * np.where(
        np.minimum(spread, goal_spread) > 1e-9, 1 / (spread + 1e-30), np.nan
    )
    return factors, factors[:, None] * (shapes - centre) + middle


def _angles(landmarks: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the angle (M,) in degrees, clockwise, of faces (M, N, 2) from the mean shape (N,), some faces at a time."""
    found = []
    for first in range(0, len(landmarks), MOST):
        shapes = landmarks[first : first + MOST] @ (1, 1j)
        found.append(_onto(np.broadcast_to(mean, shapes.shape), shapes)[0])
    return np.degrees(np.angle(np.concatenate(found)))


def _mean_angle(angles: np.ndarray) -> complex:
    """Return the mean of unit vectors at angles in degrees, without NaN; 0 without any."""
    known = angles[np.isfinite(angles)]
    return complex(np.exp(1j * np.radians(known)).mean()) if len(known) else 0


def _unturned(archive: Archive, layout: Layout) -> str:
    """Return a doubt in words about how the faces lie.
    UserError if most lean as in the picture before its EXIF tag turns it.

    Their labels belong to that picture. The doubt is for fewer such faces, and for faces that lie without a tag. Where
    the annotation states the upright width and height, the labels belong to the upright picture. A face is upright if
    most of it lies below its eyes; if the layout has no eyes or nothing else, if it is as most faces without a tag.
    """
    landmarks = archive.columns["landmarks"]
    mean = _mean_shape(landmarks[:: len(landmarks) // MOST + 1] @ (1, 1j))
    angles = _angles(landmarks, mean)
    across, down = _eyes(mean, layout)
    images = archive.pictures
    turns = {image: (header(image) or ((), 1))[1] for image in dict.fromkeys(images)}
    tags = np.array([turns[image] for image in images])
    if upright := bool(abs(down) > BELOW * abs(across) > 0):
        angles = angles + np.degrees(np.angle(down)) - 90
    else:
        angles = angles - np.degrees(np.angle(_mean_angle(angles[tags < 3]))) if (tags < 3).any() else angles * np.nan
    sized = {image for image, (width, height, _) in archive.stated.items() if width != height}
    told = [
        i for i in np.flatnonzero((tags > 2) & np.isfinite(angles)).tolist() if tags[i] < 5 or images[i] not in sized
    ]
    wrong = [i for i in told if abs((angles[i] - UNTURNED[tags[i]] + 180) % 360 - 180) < NEAR]
    what = (
        f"as in the picture before its EXIF tag turns it, as {len(wrong)} of {len(told)} faces with such a tag do, so the "
        "labels belong to that picture; turn them too, or remove the tag"
    )
    if len(wrong) > max(1, len(told) / 2):
        complain([f"{archive.columns['where'][i]}: the face lies {what}" for i in wrong])
    if wrong:
        names = ", ".join(images[i].name for i in wrong[:NAMED]) + ", ..." * (len(wrong) > NAMED)
        return f"{names}: the face lies {what}"
    mean_angle = _mean_angle(angles)
    angle = np.degrees(np.angle(mean_angle))
    if upright and len(images) >= FEWEST and abs(mean_angle) > 0.5 and abs(angle) > LYING:
        return (
            f"the faces lean by {angle:.0f} degrees on average; if they are upright in the pictures, x and y are "
            "exchanged, or the labels belong to pictures that a tool turned later"
        )
    return ""
