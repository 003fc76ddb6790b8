"""Which landmarks a user's own set has, by their names and number; whether mirrored faces fit, and whether faces are upright."""
import re
from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np

from pipnet.errors import UserError, one_line
from pipnet.geometry import mirrored, similarity, transform
from pipnet.layout import Layout
from utils.faces.archives.own import header
from utils.layouts import Layouts

SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
ASYMMETRY = (0.2, 0.5)  # a + b / root of the number of faces: beyond it, faces that look to either side explain no misfit
MOST = 2000             # about so many faces are looked at
FEW, PARALLEL = 20, 0.1 # faces of a set whose heads may all be turned to one side; share of what is not parallel
ROUNDS = 3              # of the mean of turned shapes
UNTURNED = {3: 180, 4: 180, 5: -90, 6: -90, 7: 90, 8: 90}  # {EXIF orientation: degrees by which faces lean before it turns them}
BELOW = 0.2             # distance of a mean face from the middle of its eyes / distance of the eyes; else only eyes are known
NEAR, LYING = 45, 60    # degrees from UNTURNED; of the mean of faces that lie on their side or head
FEWEST = 3              # such faces


def plain(name: str) -> str:
    """Return the name of a point without case and separators: "Left-Eye" and "left_eye" are one name."""
    return re.sub(r"[\s_.:/-]+", "", name).casefold()


def own_order(archive, names: list[str]) -> list[str]:
    """Return the names of an own set's points in order, and keep them: that of the layout with these names, else as they are."""
    layouts: Layouts = archive.layouts
    same = (layouts.load(name) for name, row in layouts.rows.items() if row.get("count") == len(names))
    given = {plain(name): name for name in names}
    wanted = next((order for layout in same if set(order := list(map(plain, layout.point_names()))) == set(given)), None)
    archive.told.names = [given[name] for name in wanted] if wanted else names
    return archive.told.names


def layout_of(count: int, names: list[str], layouts: Layouts, source: Path) -> Layout:
    """Return the layout with that many landmarks, the one with these names before others. UserError if there is none."""
    fitting = [layouts.load(name) for name, row in layouts.rows.items() if row.get("count") == count]
    if not fitting:
        raise UserError(f"{source} has {count} landmarks{_listed(names)}, and no layout in args.yaml has as many; add a row "
                        "under layouts with count and flip_index, or give a file with it: --layout FILE.yaml")
    order = list(map(plain, names))
    return next((layout for layout in fitting if list(map(plain, layout.point_names())) == order), fitting[0])


def _listed(names: list[str]) -> str:
    return f" ({one_line(', '.join(names), 80)})" if any(not name.isdecimal() for name in names) else ""


def _partners(names: list[str]) -> dict[int, int]:
    """Return {point: its mirror image} as the names tell: left_eye and right_eye, whether of the face or of the picture.

    Names with numbers do not tell: the first point of the left eye may be the last one of the right eye in a mirror image.
    """
    words = [re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower() for name in names]  # eyeL, LEye
    parts = [tuple(filter(None, re.split(r"[^a-z0-9]+|(left|right)", word))) for word in words]
    turned = [tuple(SIDES.get(part, part) for part in one) for one in parts]
    for i, one in enumerate(parts):  # leye, reye
        other = (f"{SIDES[one[0][0]]}{one[0][1:]}", *one[1:]) if one and one[0][0] in SIDES else one
        turned[i] = other if turned[i] == one and other in parts else turned[i]
    return {i: parts.index(other) for i, other in enumerate(turned)
            if other != parts[i] and other in parts and not re.search(r"\d", names[i])}


def check_names(names: list[str], layout: Layout, source: Path) -> None:
    """Raise UserError if the names of a set's points contradict a layout: its mirror images, or the parts of its face."""
    if list(map(plain, names)) == list(map(plain, layout.point_names())):
        return
    partners = _partners(names)
    wrong = next((i for i, j in partners.items() if layout.flip_index[i] != j), None)
    part = _misplaced(names, layout)
    if wrong is not None:
        what = (f"'{names[wrong]}' and '{names[partners[wrong]]}' are mirror images, but layout {layout.name} exchanges "
                f"'{names[wrong]}' and '{names[layout.flip_index[wrong]]}'")
    elif part is not None:
        what = f"point {part} is '{names[part]}', where layout {layout.name} has '{layout.point_names()[part]}'"
    else:
        return
    flip = [partners.get(i, i) for i in range(len(names))]
    raise UserError(f"{source}: by the names of its points, {one_line(', '.join(names), 80)}, {what}; name and order them as the "
                    f"layout does ({one_line(', '.join(layout.point_names()), 80)}), or give --layout FILE.yaml with a line "
                    f"such as mine: {{count: {len(names)}, flip_index: {flip}}}")


def _misplaced(names: list[str], layout: Layout) -> int | None:
    """Return the first point whose name has the word of another part of the face than it is of in the layout, or None."""
    parts: dict[str, set[int]] = {}
    for group, ids in layout.groups.items():
        if word := re.match(r"[a-z]{3,}", group.lower()):
            parts.setdefault(word[0].removesuffix("s").replace("pupil", "eye"), set()).update(ids)
    for i, name in enumerate(map(plain, names)):
        told = [ids for word, ids in parts.items() if word in name.replace("mouth", "lip")]
        if len(told) == 1 and i not in told[0]:
            return i
    return None


# ------------------------------------------------------------------------------------------------------------ mirror images
def misfit(faces: Sequence[np.ndarray], layout: Layout, common: bool) -> str:
    """Return in words why faces (N, 2) would not be learnt as a layout says, or nothing.

    The mirrored mean face, numbered by flip_index, has to lie on the mean face. common: other sets and nets have the layout, so
    that the first eye has to be on the left of the picture.
    """
    faces = faces[::len(faces) // MOST + 1]
    mean, flip = _mean_shape(faces), list(layout.flip_index)
    known = np.isfinite(mean).all(1) & np.isfinite(mean[flip]).all(1)
    if known.sum() < 2:
        return ""
    face, image = mean[known], mirrored(mean, flip, 0)[known]
    radius = np.sqrt(((face - face.mean(0)) ** 2).sum(1).mean())
    matrix = similarity(image, face)
    distance = np.sqrt(((transform(image, matrix) - face) ** 2).sum(1).mean()) / radius
    upside_down = len(face) == 2 and matrix[0, 0] < 0  # two points fit in any order, but on an upright face in one only
    if distance <= ASYMMETRY[0] + ASYMMETRY[1] / np.sqrt(len(faces)) and not upside_down:
        return _turned(mean, layout) if common else ""
    across = np.linalg.svd(face - mean[flip][known], compute_uv=False)
    if len(faces) < FEW and across[0] > 0 and across[1] < PARALLEL * np.hypot(*across):
        return ""  # as of turned heads: the lines between mirror images are parallel
    return (f"a mirrored face does not fit the faces; if the points come in another order than layout {layout.name} has, "
            "reorder them or give --layout FILE.yaml with their own flip_index; if they are on one side of the face only, or all "
            "faces look to one side, train with --flip 0")


def _turned(mean: np.ndarray, layout: Layout) -> str:
    """Return in words that a mean face (N, 2) has the left eye where its layout has the right one, or nothing."""
    left, right = mean[list(layout.interocular or (0, 0))]
    (x, y), (down_x, down_y) = right - left, np.nanmean(mean, 0) - (left + right) / 2
    if not x * down_y - y * down_x < 0:
        return ""
    return (f"the points come in the mirrored order of layout {layout.name}, which counts from the left of the picture: landmark "
            f"{(layout.interocular or (0,))[0]} is of the eye on the right; reorder them before you mix the set with others")


def _mean_shape(faces: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean (N, 2) of shapes after similarities onto it, NaN where no face has the landmark."""
    known = [np.isfinite(face).all(1) for face in faces]
    mean = faces[int(np.argmax([one.sum() for one in known]))]
    for _ in range(ROUNDS):
        told = np.isfinite(mean).all(1)
        both = [one & told for one in known]
        turned = [transform(face, similarity(face[one], mean[one])) for face, one in zip(faces, both, strict=True)
                  if one.sum() > 1 and np.ptp(face[one], axis=0).any()]
        there = np.isfinite(turned)
        total = there.sum(0)
        mean = np.where(total > 0, np.where(there, turned, 0).sum(0) / np.maximum(total, 1), np.nan) if turned else mean
    return mean


# ------------------------------------------------------------------------------------------------------------ upright faces
def leans(faces: Sequence[np.ndarray], layout: Layout) -> tuple[np.ndarray, bool]:
    """Return by how many degrees (M,) each face (N, 2) leans clockwise, NaN where unknown; and whether they are from upright.

    A face is upright if most of it lies below its eyes. If the layout has no eyes or nothing else, they are from the mean face.
    """
    mean, angles = _mean_shape(faces[::len(faces) // MOST + 1]), np.full(len(faces), np.nan)
    for i, face in enumerate(faces):
        both = np.isfinite(face).all(1) & np.isfinite(mean).all(1)
        if both.sum() > 1 and np.ptp(face[both], axis=0).any() and np.ptp(mean[both], axis=0).any():
            matrix = similarity(mean[both], face[both])
            angles[i] = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    left, right = mean[list(layout.interocular or (0, 0))]
    down = np.nanmean(mean, 0) - (left + right) / 2
    upright = bool(np.hypot(*down) > BELOW * np.hypot(*(right - left)) > 0)
    return angles + (np.degrees(np.arctan2(down[1], down[0])) - 90 if upright else 0), upright


def _mean_angle(angles: np.ndarray) -> complex:
    """Return the mean of unit vectors at angles in degrees, without NaN; 0 without any."""
    known = angles[np.isfinite(angles)]
    return complex(np.exp(1j * np.radians(known)).mean()) if len(known) else 0


def unturned(records: Sequence, layout: Layout, sized: Container[Path]) -> tuple[list[str], str]:
    """Return a line for each face that leans as in the picture before its EXIF tag turns it, if most such faces do; and a doubt.

    Its labels belong to that picture. The doubt is in words, for one such face only, and for faces that lie without a tag.
    sized: pictures of which the annotation states the upright width and height.
    """
    angles, upright = leans([record.landmarks for record in records], layout)
    tags = np.array([(header(record.file) or ((), 1))[1] for record in records])
    if not upright:
        angles = angles - np.degrees(np.angle(_mean_angle(angles[tags < 3]))) if (tags < 3).any() else angles * np.nan
    told = [i for i in np.flatnonzero((tags > 2) & np.isfinite(angles)).tolist() if tags[i] < 5 or records[i].file not in sized]
    wrong = [i for i in told if abs((angles[i] - UNTURNED[tags[i]] + 180) % 360 - 180) < NEAR]
    if len(wrong) > len(told) / 2:
        what = (f"the face lies as in the picture before its EXIF tag turns it, as {len(wrong)} of {len(told)} faces with such a "
                "tag do, so the labels belong to that picture; turn them too, or remove the tag")
        lines = [f"{records[i].where}: {what}" for i in wrong]
        return (lines, "") if len(wrong) > 1 else ([], f"{records[wrong[0]].file.name}: {what}")
    mean = _mean_angle(angles)
    angle = np.degrees(np.angle(mean))
    if upright and len(records) >= FEWEST and abs(mean) > 0.5 and abs(angle) > LYING:
        return [], (f"the faces lean by {angle:.0f} degrees on average; if they are upright in the pictures, x and y are "
                    "exchanged, or the labels belong to pictures that a tool turned later")
    return [], ""
