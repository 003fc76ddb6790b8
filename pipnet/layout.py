"""Layouts: the number of a face's landmarks, which of them are mirror partners, and which a drawing joins by lines."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np

from pipnet.errors import UserError

EYES, INNER_LIPS = ("eye_left", "eye_right"), "lips_inner"
SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
WHERE = {"inner", "outer", "upper", "lower", "top", "bottom", "corner", "tip", "center", "centre", "middle"}


def words(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case: those of eyeL and LEye too."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower()
    return tuple(filter(None, re.split(r"[^a-z0-9]+|(left|right)", spaced)))


def opposite(ring: Sequence[int]) -> list[tuple[int, int]]:
    """Return (upper, lower) pairs of landmarks that lie opposite in a ring. Its two corners are in no pair."""
    half = len(ring) // 2
    return list(zip(ring[1:half], ring[:half:-1], strict=True))


@dataclass(frozen=True)
class Layout:
    """The landmarks of a face. Indices are 0-based positions in (N, 2); left and right are of the image."""

    name: str
    count: int
    flip_index: tuple[int, ...]  # the landmark that each becomes in a mirror image
    interocular: tuple[int, ...] | None  # the two landmarks whose distance normalises errors
    pupils: tuple[tuple[int, ...], tuple[int, ...]] | None  # landmarks whose means are the left and the right pupil
    groups: dict[str, tuple[int, ...]]  # landmarks of jaw, eyes, nose...; in drawing order
    closed: tuple[str, ...]  # groups whose last landmark is joined to the first
    selected: tuple[int, ...]  # position of each landmark in the layout `stored`
    stored: str  # the layout in which labels are stored; for a subset, the whole layout
    same_as: dict[str, dict[int, int]]  # {stored layout: {landmark: the same landmark there}}
    parts: "dict[str, Part]" = field(default_factory=dict)  # layouts that are a selection of it, such as the eyes

    def edges(self) -> list[tuple[int, int]]:
        """Return pairs of landmarks that a drawing joins by a line."""
        pairs: list[tuple[int, int]] = []
        for name, group in self.drawn_groups().items():
            pairs += pairwise(group)
            if name in self.closed and len(group) > 2:
                pairs.append((group[-1], group[0]))
        return pairs

    def drawn_groups(self) -> dict[str, tuple[int, ...]]:
        """Return the groups as they are drawn. If each has one landmark, those of one word are joined: left_mouth and
        right_mouth, or left_eye_inner and left_eye_outer.
        """
        if any(len(group) > 1 for group in self.groups.values()):
            return self.groups
        found: dict[str, dict[str, list[int]]] = {}  # {word: {side: landmarks}}
        for i, name in enumerate(self.point_names()):
            parts = words(name)
            word = " ".join(part for part in parts if part not in {*SIDES, *WHERE} and not part.isdecimal())
            side = next((part[0] for part in parts if part in SIDES), "")
            found.setdefault(word or name, {}).setdefault(side, []).append(i)
        groups: dict[str, tuple[int, ...]] = {}
        for word, sides in found.items():
            if max(map(len, (sides.get("l", ()), sides.get("r", ())))) > 1:
                groups |= {f"{word} {side}": tuple(ids) for side, ids in sides.items()}
            else:
                groups[word] = tuple(i for side in ("l", "", "r") for i in sides.get(side, ()))
        return groups

    def checked(self, landmarks: Any) -> np.ndarray:
        """Return landmarks as an array (N, 2) float64. UserError for another shape, and for what is no number."""
        try:
            points = np.asarray(landmarks, np.float64)
        except (TypeError, ValueError):
            points = np.zeros(0)
        if points.shape != (self.count, 2):
            raise UserError(
                f"landmarks of layout '{self.name}' are numbers ({self.count}, 2), not {np.shape(points)}; give those "
                "that a net of this layout has found"
            )
        return points

    def ring(self, name: str) -> tuple[int, ...] | None:
        """Return the landmarks of a closed group, along its upper rim, then back along the lower one; None if there is
        none.
        """
        group = self.groups.get(name, ())
        return group if name in self.closed and len(group) >= 4 and len(group) % 2 == 0 else None

    def point_names(self) -> list[str]:
        """Return the names of the landmarks: the group's, numbered from 1 if it has several; without a group, the
        index.
        """
        names = list(map(str, range(self.count)))
        for group, ids in self.groups.items():
            for number, i in enumerate(ids, 1):
                names[i] = group if len(ids) == 1 else f"{group}_{number}"
        return names

    def places(self) -> dict[str, dict[int, int]]:
        """Return {stored layout: {landmark there: the same landmark here}}, for the own stored layout and those in
        `same_as`.
        """
        numbers = {self.stored: dict(enumerate(self.selected)), **self.same_as}
        return {name: {number: place for place, number in pairs.items()} for name, pairs in numbers.items()}

    def part(self, name: str | None) -> "Part | None":
        """Return the part of that name; None for the whole layout, without a name or by its own.

        UserError for other names.
        """
        if name in (None, self.name):
            return None
        if name not in self.parts:
            raise UserError(
                f"the net gives layout '{self.name}', not '{name}'; choose one of {', '.join([self.name, *self.parts])}, "
                "or name a run or a checkpoint that has learnt it"
            )
        return self.parts[name]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint or a file's metadata; parts are `members` without `sets` there."""
        values = {name: value for name, value in vars(self).items() if name != "parts"}
        if self.parts:
            values["members"] = {
                name: {"layout": part.layout.to_dict(), "index": part.index, "sets": []}
                for name, part in self.parts.items()
            }
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the layout from the values of `to_dict`."""
        values = dict(values)
        members = values.pop("members", {})
        values["groups"] = {name: tuple(group) for name, group in values["groups"].items()}
        if values["pupils"]:
            values["pupils"] = tuple(tuple(pupil) for pupil in values["pupils"])
        for key in ("flip_index", "interocular", "closed", "selected"):
            values[key] = tuple(values[key]) if values[key] is not None else None
        same = values.get("same_as", {})  # JSON turns numeric keys into text
        values["same_as"] = {name: {int(i): int(j) for i, j in pairs.items()} for name, pairs in same.items()}
        parts = {
            name: Part(Layout.from_dict(member["layout"]), tuple(member["index"]))
            for name, member in members.items()
            if not member["sets"]
        }
        return cls(**values, parts=parts)


class Part(NamedTuple):
    """A layout whose landmarks are some of another one. index (count,): for each of its landmarks, the landmark there."""

    layout: Layout
    index: tuple[int, ...]


def contradiction(layout: Layout) -> str | None:
    """Return in words which values of a layout contradict each other, None if none do."""
    flip, count = layout.flip_index, layout.count
    if len(flip) != count or any(not 0 <= f < count or flip[f] != i for i, f in enumerate(flip)):
        return f"flip_index must hold {count} indices and be its own inverse"
    several = [*layout.groups.values(), layout.interocular or (), *(layout.pupils or ()), *layout.same_as.values()]
    if any(not 0 <= i < count for ids in several for i in ids):
        return f"an index is outside 0..{count - 1}"
    if layout.interocular and not len(layout.interocular) == len(set(layout.interocular)) == 2:
        return f"interocular must be two landmarks, not {list(layout.interocular)}"
    if len(layout.selected) != count:
        return f"selected must hold {count} indices, not {len(layout.selected)}"
    for name, part in layout.parts.items():
        if wrong := contradiction(part.layout) or misfit(layout, part):
            return f"{name}: {wrong}"
    return None


def misfit(layout: Layout, part: Part) -> str | None:
    """Return in words why the landmarks of a part are not those of a layout, None if they are."""
    count, index = part.layout.count, part.index
    if len(set(index)) != len(index) or len(index) != count or any(not 0 <= i < layout.count for i in index):
        return f"index must hold {count} different landmarks of 0..{layout.count - 1}"
    if any(layout.flip_index[i] != index[mirror] for i, mirror in zip(index, part.layout.flip_index, strict=True)):
        return f"mirror partners differ from those of {layout.name}"
    return None
