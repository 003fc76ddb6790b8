"""Layouts: how many landmarks a face has, which of them mirror each other, and which lines join them."""
import json
from itertools import pairwise
from typing import Any, NamedTuple

EYES, INNER_LIPS = ("eye_left", "eye_right"), "lips_inner"
MOST_LANDMARKS = 10_000  # of a layout; a file that claims more is refused before any work


def opposite(ring: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return pairs of landmarks of a ring that lie opposite, (upper, lower), without the two corners."""
    half = len(ring) // 2
    return list(zip(ring[1:half], ring[:half:-1], strict=True))


class Layout(NamedTuple):
    """The landmarks of a face. Indices are 0-based positions in (N, 2); left and right are of the image."""

    name: str
    count: int
    flip_index: tuple[int, ...]            # the landmark that each becomes in a mirror image
    interocular: tuple[int, ...] | None    # the two landmarks whose distance normalises errors
    pupils: tuple[tuple[int, ...], tuple[int, ...]] | None  # landmarks whose means are the left and the right pupil
    groups: dict[str, tuple[int, ...]]     # landmarks of jaw, eyes, nose...; in drawing order
    closed: tuple[str, ...]                # groups whose last landmark is joined to the first
    selected: tuple[int, ...]              # position of each landmark in the layout `stored`
    stored: str                            # the layout that data of this layout is stored in; differs for subsets only
    same_as: dict[str, dict[int, int]]     # {stored layout: {landmark: the same landmark there}}

    def edges(self) -> list[tuple[int, int]]:
        """Return pairs of landmarks that a drawing joins by a line."""
        pairs = []
        for name, group in self.groups.items():
            pairs += pairwise(group)
            if name in self.closed and len(group) > 2:
                pairs.append((group[-1], group[0]))
        return pairs

    def ring(self, name: str) -> tuple[int, ...] | None:
        """Return the landmarks of a closed group, along its upper rim and back along the lower one; None without such a group."""
        group = self.groups.get(name, ())
        return group if name in self.closed and len(group) >= 4 and len(group) % 2 == 0 else None

    def openings(self) -> list[tuple[int, int, int, int]]:
        """Return opposite landmarks of the lids and inner lips: (upper, lower, one corner, the other corner)."""
        rings = filter(None, map(self.ring, (*EYES, INNER_LIPS)))
        return [(upper, lower, ring[0], ring[len(ring) // 2]) for ring in rings for upper, lower in opposite(ring)]

    def point_names(self) -> list[str]:
        """Return the name of each landmark: its group's, with a number from 1 if there are several; its index without a group."""
        names = list(map(str, range(self.count)))
        for group, ids in self.groups.items():
            for number, i in enumerate(ids, 1):
                names[i] = group if len(ids) == 1 else f"{group}_{number}"
        return names

    def places(self) -> dict[str, dict[int, int]]:
        """Return {stored layout: {its landmark: the same landmark here}} of this layout and of those that share landmarks."""
        numbers = {self.stored: dict(enumerate(self.selected)), **self.same_as}
        return {name: {number: place for place, number in pairs.items()} for name, pairs in numbers.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint or a file's metadata."""
        return json.loads(json.dumps(self._asdict()))

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
        return cls(**values)


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
    return None
