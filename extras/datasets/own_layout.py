"""Which landmarks a user's own set has, by their names and number, and whether they belong to the upright pictures."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from loguru import logger

from extras.datasets.archive import Archive
from extras.datasets.own import check_boxes, check_inside, header, lost_landmarks
from pipnet.errors import UserError
from pipnet.layout import Layout
from utils.data.table import complain
from utils.settings.layouts import Layouts, normalised

SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
# {EXIF orientation: degrees by which faces lean before it turns them}
UNTURNED = {3: 180, 4: 180, 5: -90, 6: -90, 7: 90, 8: 90}
NEAR = 45  # degrees from UNTURNED
BELOW = 0.2  # distance of a face's mean landmark from the middle of its eyes / distance of the eyes; else only eyes are known


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


def layout_of(archive: Archive, given: Layout | None) -> Layout:
    """Return the layout of a user's own set: the given one, else that of its names, else the one with its number of
    points. Log what is unusual about the set.

    UserError without a layout, if several have that number, if the names contradict it, and for labels that belong to
    other pictures.
    """
    for note in archive.notes:
        logger.info(note)
    names, faces = archive.names, archive.columns["landmarks"]
    fitting = [given] if given else _with_count(archive.layouts, len(faces[0]))
    if not fitting:
        raise UserError(
            f"{archive.root} has {len(faces[0])} landmarks, and no layout in args.yaml has as many; add a row with count "
            f"and flip_index under layouts, or write it to a file and give that, --layout FILE.yaml{_proposed(names, faces)}"
        )
    named = [one for one in fitting if _same(names, one)]
    if len(fitting) > 1 and not named:
        raise UserError(
            f"{archive.root} has {len(faces[0])} landmarks, as layouts {' and '.join(one.name for one in fitting)} have; "
            "say which one it has: --layout NAME; for a net of several layouts, --prepare this set alone first, with that "
            "and the same other flags"
        )
    layout = (named or fitting)[0]
    check_names(names, layout, archive.root, faces)
    check_upright(archive, layout)
    check_boxes(archive)
    check_inside(archive)
    complain(lost_landmarks(archive))
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


def _proposed(names: list[str], faces: np.ndarray) -> str:
    """Return "; check this row: " and a row of `layouts:` on one line for named points of faces (M, N, 2); empty where
    the names tell nothing. Points are mirrored, and grouped, by their names.
    """
    partners = _partners(names)
    if not partners:
        return ""
    flip = [partners.get(i, i) for i in range(len(names))]
    x: list[float] = np.nanmean(faces[..., 0], 0).tolist()
    pupils = [i for i, name in enumerate(names) if re.search(r"eye(?!_?brow|s?_?brow)|pupil", name.lower())]
    eyes = [(i, flip[i]) for i in pupils if x[i] < x[flip[i]]]
    row: dict[str, Any] = {"count": len(names), "flip_index": flip}
    if eyes:
        widest = max(eyes, key=lambda pair: x[pair[1]] - x[pair[0]])
        row["interocular"] = list(widest)
    row["groups"] = _groups(names)
    text = yaml.safe_dump({"mine": row}, default_flow_style=True, sort_keys=False, width=np.inf).strip()[1:-1]
    return f"; check this row: {text}"


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
        f"({', '.join(layout.point_names())}), or write a row of your own to a file and give that, --layout FILE.yaml"
        f"{_proposed(names, faces)}"
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


def check_upright(archive: Archive, layout: Layout) -> None:
    """Raise UserError if two or more, and most, of the faces in pictures with an EXIF tag lean as in the picture before
    the tag turns it: their labels belong to that picture.

    A face is upright if most of it lies below its eyes; a layout without eyes, or with nothing else, tells nothing. Where
    the annotation states the upright width and height, the labels belong to the upright picture.
    """
    if not layout.interocular:
        return
    landmarks, pictures = archive.columns["landmarks"], archive.pictures
    left, right = (landmarks[:, i] for i in layout.interocular)
    below = np.nanmean(landmarks, 1) - (left + right) / 2
    tells = np.linalg.norm(below, axis=1) > BELOW * np.linalg.norm(right - left, axis=1)  # False for unknown eyes
    angles = np.degrees(np.arctan2(below[:, 1], below[:, 0])) - 90
    tags = {picture: (header(picture) or ((), 1))[1] for picture in dict.fromkeys(pictures)}
    sized = {picture for picture, (width, height, _) in archive.stated.items() if width != height}
    tagged = [
        i
        for i, picture in enumerate(pictures)
        if tells[i] and tags[picture] in UNTURNED and not (tags[picture] > 4 and picture in sized)
    ]
    wrong = [i for i in tagged if abs((angles[i] - UNTURNED[tags[pictures[i]]] + 180) % 360 - 180) < NEAR]
    if len(wrong) > max(1, len(tagged) / 2):
        complain(
            [
                f"{archive.columns['where'][i]}: the face lies as in the picture before its EXIF tag turns it, as "
                f"{len(wrong)} of {len(tagged)} faces with such a tag do, so the labels belong to that picture; turn them "
                "too, or remove the tag"
                for i in wrong
            ]
        )
