"""Which landmarks a user's own set has, by their names and number, and whether they belong to the upright pictures."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from loguru import logger

from extras.datasets.archive import Archive
from extras.datasets.own import check_boxes, check_inside, header, lost_landmarks
from pipnet.errors import UserError, one_line
from pipnet.layout import SIDES, Layout, words
from utils.data.table import complain
from utils.settings.layouts import normalised

# {EXIF orientation: degrees by which faces lean before it turns them}
UNTURNED = {3: 180, 4: 180, 5: -90, 6: -90, 7: 90, 8: 90}
NEAR = 45  # degrees from UNTURNED
BELOW = 0.2  # distance of a face's mean landmark from the middle of its eyes / distance of the eyes; else only eyes are known


def own_order(archive: Archive, names: list[str]) -> list[str]:
    """Return the names of an own set's points in order, and keep them: that of the layout with these names, else as
    they are.
    """
    given = {normalised(name): name for name in names}
    orders = (list(map(normalised, layout.point_names())) for layout in archive.layouts.with_count(len(names)))
    wanted = next((order for order in orders if set(order) == set(given)), None)
    archive.names = [given[name] for name in wanted] if wanted else names
    return archive.names


def layout_of(archive: Archive, given: Layout | None) -> Layout:
    """Return the layout of a user's own set: the given one, else that of its names, else the one with the name of its
    folder, else the only one with its number of points. If there is none, or if the names contradict it, one is made
    from the names and added to `archive.layouts`. Log what is unusual about the set.

    UserError without a layout, if several have that number, if the names contradict it, and for labels that belong to
    other pictures.
    """
    for note in archive.notes:
        logger.info(note)
    layout = given or _known_layout(archive) or _made_layout(archive) or _only_layout(archive)
    _log_lacking(archive, layout)
    check_names(archive.names, layout, archive.root, archive.columns["landmarks"])
    check_upright(archive, layout)
    check_boxes(archive)
    check_inside(archive)
    complain(lost_landmarks(archive))
    return layout


def _log_lacking(archive: Archive, layout: Layout) -> None:
    """Log which landmarks are annotated in some of the faces only."""
    known = np.isfinite(archive.columns["landmarks"]).all(-1)
    known = known[known.any(1)]
    names, lacking = layout.point_names(), (~known).sum(0)
    some = [f"{names[i]} ({lacking[i]} of {len(known)})" for i in np.flatnonzero(lacking % len(known))]
    if some:
        logger.info(f"{archive.root}: faces without a landmark that others have: {one_line(', '.join(some), 200)}")


def _known_layout(archive: Archive) -> Layout | None:
    """Return the layout with the names of the set's points, the name of its folder or, alone, its number of points. None
    without one, and if the names contradict it.
    """
    names = archive.names
    fitting = archive.layouts.with_count(archive.columns["landmarks"].shape[1])
    chosen = [one for one in fitting if _same(names, one)]
    chosen = chosen or [one for one in fitting if one.name == archive.root.name]
    chosen = chosen or [one for one in fitting if not _lacking_part(names, one)]
    return chosen[0] if len(chosen) == 1 and not _contradiction(names, chosen[0]) else None


def _made_layout(archive: Archive) -> Layout | None:
    """Return a layout that is made from the names of the set's points, and log it; None if they do not tell all."""
    names, faces = archive.names, archive.columns["landmarks"]
    partners = _partners(names)
    if not partners or any(_is_open(name) for i, name in enumerate(names) if i not in partners):
        return None
    name = archive.root.name
    while name in archive.layouts.rows:
        name += "-own"
    archive.layouts = archive.layouts.with_rows({name: _row(names, faces)})
    layout = archive.layouts.load(name)
    pairs = [f"{names[i]} - {names[j]}" for i, j in enumerate(layout.flip_index) if i < j]
    middle = [names[i] for i, j in enumerate(layout.flip_index) if i == j]
    eyes = layout.interocular
    norm = f"the distance {names[eyes[0]]} - {names[eyes[1]]}" if eyes else "none, as no eye is named: add --norm box"
    logger.info(
        f"layout '{name}' is made from the names of the points. Mirror pairs: {', '.join(pairs)}. In the middle: "
        f"{', '.join(middle) or 'none'}. Norm of errors: {norm}"
    )
    return layout


def _only_layout(archive: Archive) -> Layout:
    """Return the layout with the set's number of points. UserError if there is none, or several."""
    names, faces = archive.names, archive.columns["landmarks"]
    fitting = archive.layouts.with_count(len(faces[0]))
    lacking = next((name for one in fitting if (name := _lacking_part(names, one))), "")
    if not fitting or lacking:
        alone = [name for i, name in enumerate(names) if i not in _partners(names) and _is_open(name)]
        why = f" (none is made from the names, as no point is the mirror image of {', '.join(alone)})" if alone else ""
        raise UserError(
            f"{archive.root} has {len(faces[0])} landmarks, and no layout in args.yaml has as many"
            f"{f' with {lacking} among them' if lacking else ''}{why}; add a row with count and flip_index under layouts, or "
            f"write it to a file and give that, --layout FILE.yaml{_proposed(names, faces)}"
        )
    if len(fitting) > 1:
        raise UserError(
            f"{archive.root} has {len(faces[0])} landmarks, as layouts {' and '.join(one.name for one in fitting)} have; "
            f"say which one it has: --layout NAME; for a net of several layouts, a row '{archive.root.name}' in --layouts "
            "FILE.yaml"
        )
    return fitting[0]


def _same(names: list[str], layout: Layout) -> bool:
    """Return whether these are the names of the points of a layout, in its order."""
    return list(map(normalised, names)) == list(map(normalised, layout.point_names()))


def _partners(names: list[str]) -> dict[int, int]:
    """Return {point: its mirror image} as the names tell: left_eye and right_eye, whether of the face or of the
    picture.

    Names with numbers do not tell: the first point of the left eye may be the last one of the right eye in a mirror
    image.
    """
    parts = list(map(words, names))
    turned = [tuple(SIDES.get(part, part) for part in one) for one in parts]
    for i, one in enumerate(parts):  # leye, reye
        other = (f"{SIDES[one[0][0]]}{one[0][1:]}", *one[1:]) if one and one[0][0] in SIDES else one
        turned[i] = other if turned[i] == one and other in parts else turned[i]
    return {
        i: parts.index(other)
        for i, other in enumerate(turned)
        if other != parts[i] and other in parts and not re.search(r"\d", names[i])
    }


def _is_open(name: str) -> bool:
    """Return whether a point without a mirror image among the names may still have one: it has a side or a number."""
    return bool(re.search(r"\d", name)) or any(part in SIDES for part in words(name))


def _proposed(names: list[str], faces: np.ndarray) -> str:
    """Return "; check this row: " and a row of `layouts:` on one line; empty where the names tell nothing."""
    if not _partners(names):
        return ""
    row = {"mine": _row(names, faces)}
    text = yaml.safe_dump(row, default_flow_style=True, sort_keys=False, width=np.inf).strip()[1:-1]
    return f"; check this row: {text}"


def _row(names: list[str], faces: np.ndarray) -> dict[str, Any]:
    """Return a row of `layouts:` for named points of faces (M, N, 2), which are mirrored and grouped by their names. Its
    norm is the distance of the outermost pair of an eye.
    """
    partners = _partners(names)
    flip = [partners.get(i, i) for i in range(len(names))]
    x: list[float] = np.nanmean(faces[..., 0], 0).tolist()
    pupils = [i for i, name in enumerate(names) if re.search(r"eye(?!_?brow|s?_?brow)|pupil", name.lower())]
    eyes = [(i, flip[i]) for i in pupils if x[i] < x[flip[i]]]
    row: dict[str, Any] = {"count": len(names), "flip_index": flip}
    if eyes:
        widest = max(eyes, key=lambda pair: x[pair[1]] - x[pair[0]])
        row["interocular"] = list(widest)
    row["groups"] = _groups(names)
    return row


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
    if what := _contradiction(names, layout):
        raise UserError(
            f"{source}: by the names of its points {what}; name and order them as the layout does "
            f"({', '.join(layout.point_names())}), or write a row of your own to a file and give that, --layout FILE.yaml"
            f"{_proposed(names, faces)}"
        )


def _contradiction(names: list[str], layout: Layout) -> str:
    """Return in words how the names of points contradict a layout; "" if they do not."""
    if _same(names, layout):
        return ""
    partners = _partners(names)
    wrong = next((i for i, j in partners.items() if layout.flip_index[i] != j), None)
    part = _misplaced(names, layout)
    if wrong is not None:
        return (
            f"'{names[wrong]}' and '{names[partners[wrong]]}' are mirror images, but layout {layout.name} exchanges "
            f"'{names[wrong]}' and '{names[layout.flip_index[wrong]]}'"
        )
    if part is not None:
        return f"point {part} is '{names[part]}', where layout {layout.name} has '{layout.point_names()[part]}'"
    return ""


def _misplaced(names: list[str], layout: Layout) -> int | None:
    """Return the first point whose name has the word of another part of the face than it is of in the layout, or None."""
    told = enumerate(_parts(name, layout) for name in names)
    return next((i for i, parts in told if len(parts) == 1 and i not in parts[0]), None)


def _lacking_part(names: list[str], layout: Layout) -> str:
    """Return the first name without a word of a part of the face in the layout, where the names tell mirror images; else ""."""
    return next((name for name in names if not _parts(name, layout)), "") if _partners(names) else ""


def _parts(name: str, layout: Layout) -> list[set[int]]:
    """Return the landmarks of each part of the face in a layout whose word is in a name."""
    parts: dict[str, set[int]] = {}
    for group, ids in layout.groups.items():
        if word := re.match(r"[a-z]{3,}", group.lower()):
            parts.setdefault(word[0].removesuffix("s").replace("pupil", "eye"), set()).update(ids)
    return [ids for word, ids in parts.items() if word in normalised(name).replace("mouth", "lip")]


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
