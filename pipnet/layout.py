"""Layouts: the number of a face's landmarks, which of them are mirror partners, and which a drawing joins by lines."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from pipnet.errors import UserError

EYES, INNER_LIPS = ("eye_left", "eye_right"), "lips_inner"
MOST_LANDMARKS = 10_000  # of a layout; a file that claims more is refused before any work


def opposite(ring: Sequence[int]) -> list[tuple[int, int]]:
    """Return (upper, lower) pairs of landmarks that lie opposite in a ring. Its two corners are in no pair."""
    half = len(ring) // 2
    return list(zip(ring[1:half], ring[:half:-1], strict=True))


class Layout(NamedTuple):
    """The landmarks of a face. Indices are 0-based positions in (N, 2); left and right are of the image.

    A net that has learnt several layouts has their union: a layout whose `members` are these layouts, the default one
    first.
    """

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
    members: "dict[str, Member]" = {}  # of a union: {name: layout}; a plain layout has none

    def edges(self) -> list[tuple[int, int]]:
        """Return pairs of landmarks that a drawing joins by a line."""
        pairs = []
        for name, group in self.groups.items():
            pairs += pairwise(group)
            if name in self.closed and len(group) > 2:
                pairs.append((group[-1], group[0]))
        return pairs

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

    def parts(self) -> "dict[str, Member]":
        """Return the members of a union; a plain layout is its own only member."""
        return self.members or {self.name: Member(self, tuple(range(self.count)))}

    def chosen(self, name: str | None = None) -> "Member":
        """Return the member of a union that `name` means, a layout or a training set; None: the first member.

        A plain layout is its own only member. UserError for other names.
        """
        members = self.parts()
        found = next(iter(members)) if name is None else str(name)
        if found not in members:
            found = next((key for key, member in members.items() if name in member.sets), found)
        if found not in members:
            known = ", ".join(" or ".join(dict.fromkeys([key, *member.sets])) for key, member in members.items())
            raise UserError(f"the net has not learnt the layout '{name}'; choose one of its own: {known}")
        return members[found]

    def whole(self, name: str | None = None) -> "Member":
        """Return the member of a union whose landmarks are searched for where those of `chosen(name)` are wanted.

        It is that member itself, or for one without training sets the first member that it is a part of: faces are told
        from background, and followed, by all landmarks.
        """
        part = self.chosen(name)
        wholes = (one for one in self.members.values() if not part.sets and set(part.index) < set(one.index))
        return next(wholes, part)

    def alone(self, name: str) -> "Layout":
        """Return the layout of `chosen(name)`, whose members are itself and its parts without training sets, such as the
        eyes. Without such parts it is plain.
        """
        one = self.chosen(name)
        place = {number: i for i, number in enumerate(one.index)}
        parts = {
            key: member._replace(index=tuple(place[i] for i in member.index))
            for key, member in self.members.items()
            if not member.sets and set(member.index) < place.keys()
        }
        own = one._replace(index=tuple(range(one.layout.count)))
        return one.layout._replace(members={one.layout.name: own, **parts}) if parts else one.layout

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint or a file's metadata."""
        values = {name: value for name, value in self._asdict().items() if value or name != "members"}
        if self.members:
            values["members"] = {
                name: {**member._asdict(), "layout": member.layout.to_dict()} for name, member in self.members.items()
            }
        return json.loads(json.dumps(values))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Layout":
        """Return the layout from the values of `to_dict`."""
        values = dict(values)
        values["groups"] = {name: tuple(group) for name, group in values["groups"].items()}
        if values["pupils"]:
            values["pupils"] = tuple(tuple(pupil) for pupil in values["pupils"])
        for key in ("flip_index", "interocular", "closed", "selected"):
            values[key] = tuple(values[key]) if values[key] is not None else None
        same = values.get("same_as", {})  # JSON turns numeric keys into text
        values["same_as"] = {name: {int(i): int(j) for i, j in pairs.items()} for name, pairs in same.items()}
        values["members"] = {
            name: Member(
                cls.from_dict({**one["layout"], "members": {}}), *(tuple(one[key]) for key in ("index", "sets", "own"))
            )
            for name, one in values.get("members", {}).items()
        }
        return cls(**values)


class Member(NamedTuple):
    """A layout in a union of layouts.

    index (count,): for each of its landmarks, the landmark of the union. sets: names of the training sets with such
    labels.
    own: its landmarks that these sets label by a convention of their own.
    """

    layout: Layout
    index: tuple[int, ...]
    sets: tuple[str, ...] = ()
    own: tuple[int, ...] = ()


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
    for name, (member, index, _, own) in layout.members.items():
        if wrong := contradiction(member):
            return f"{name}: {wrong}"
        if len(set(index)) != len(index) or len(index) != member.count or any(not 0 <= i < count for i in index):
            return f"{name}: index must hold {member.count} different landmarks of 0..{count - 1}"
        if any(flip[i] != index[mirror] for i, mirror in zip(index, member.flip_index, strict=True)):
            return f"{name}: mirror partners differ from those of the union"
        if any(not 0 <= i < member.count for i in own):
            return f"{name}: own names a landmark outside 0..{member.count - 1}"
    return None
