"""Unions of layouts: all landmarks that the sets of a training annotate, so that one net learns them all.

Landmarks that mean the same are one landmark of the union: those that `RULES` of conversion.py copy, and those that
`same_as` of the layouts names. A set that labels points by a convention of its own has its own landmarks for these.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from pipnet.card import check_layout
from pipnet.errors import UserError
from pipnet.layout import Layout, Part, contradiction, misfit
from utils.settings.conversion import HALF, RULES, Conversion, conversion
from utils.settings.layouts import Layouts, indices
from utils.settings.yaml_files import nearest

Point = tuple[str, int]  # of a layout, by its name and number


class Member(NamedTuple):
    """A layout in a union of layouts.

    index (count,): for each of its landmarks, the landmark of the union. sets: names of the training sets with such
    labels. own: its landmarks that these sets label by a convention of their own.
    """

    layout: Layout
    index: tuple[int, ...]
    sets: tuple[str, ...] = ()
    own: tuple[int, ...] = ()


@dataclass(frozen=True)
class Union(Layout):
    """All landmarks of several layouts, which one net learns. members: {name: layout}, the default one first.

    Members without sets are parts of the others, such as the eyes.
    """

    members: dict[str, Member] = field(default_factory=dict)

    def chosen(self, name: str | None = None) -> Member:
        """Return the member that `name` means, a layout or a training set; None: the first one. UserError for others."""
        found = next(iter(self.members)) if name is None else str(name)
        if found not in self.members:
            found = next((key for key, member in self.members.items() if name in member.sets), found)
        if found not in self.members:
            known = ", ".join(" or ".join(dict.fromkeys([key, *one.sets])) for key, one in self.members.items())
            raise UserError(f"the net has not learnt the layout '{name}'; choose one of its own: {known}")
        return self.members[found]

    def alone(self, member: Member) -> Layout:
        """Return the layout of a member, with its parts."""
        place = {number: i for i, number in enumerate(member.index)}
        parts = {
            key: Part(one.layout, tuple(place[i] for i in one.index))
            for key, one in self.members.items()
            if not one.sets and set(one.index) < place.keys()
        }
        return replace(member.layout, parts=parts)

    def whole(self, member: Member) -> Member:
        """Return the member whose landmarks are searched for where those of `member` are wanted.

        It is that member itself, or for one without training sets the first member that it is a part of: faces are told
        from background, and followed, by all landmarks.
        """
        wholes = (one for one in self.members.values() if not member.sets and set(member.index) < set(one.index))
        return next(wholes, member)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        members = {name: {**one._asdict(), "layout": one.layout.to_dict()} for name, one in self.members.items()}
        plain = Layout(**{name: value for name, value in vars(self).items() if name != "members"})
        return json.loads(json.dumps({**plain.to_dict(), "members": members}))


def layout_of(values: dict[str, Any]) -> Layout:
    """Return the layout of a checkpoint, plain or a union. ValueError if its values contradict each other."""
    found = values.get("members", {})
    if not any(one["sets"] for one in found.values()):
        return check_layout(values)
    plain = check_layout({**values, "members": {}})
    members = {
        name: Member(
            check_layout(one["layout"], f"layout: {name}"),
            *(tuple(one.get(key, ())) for key in ("index", "sets", "own")),
        )
        for name, one in found.items()
    }
    for name, member in members.items():
        if wrong := misfit(plain, Part(member.layout, member.index)):
            raise ValueError(f"layout: {name}: {wrong}")
        if any(not 0 <= i < member.layout.count for i in member.own):
            raise ValueError(f"layout: {name}: own names a landmark outside 0..{member.layout.count - 1}")
    return Union(**vars(plain), members=members)


def members_of(layout: Layout) -> dict[str, Member]:
    """Return the members of a union; a plain layout is its own only member."""
    if isinstance(layout, Union):
        return layout.members
    return {layout.name: Member(layout, tuple(range(layout.count)))}


class Labelled(NamedTuple):
    """The labels of a set: its name in unions of layouts and --shares, and the layout in which they are stored."""

    set_name: str
    stored: str


def unite(name: str, sets: list[Labelled], layouts: Layouts) -> Layout:
    """Return the union `name`, a row of `layouts`, of the layouts of training sets; if all sets have one layout, that
    layout.

    Its first landmarks are those of the first set. UserError if a row is malformed, or if two landmarks of a layout
    became one.
    """
    conventions = layouts.conventions(name)
    members: dict[str, Member] = {}
    for set_name, stored in sets:
        layout = layouts.load(stored)
        own = _own(name, set_name, conventions[set_name], layout) if set_name in conventions else ()
        key = f"{stored}-{set_name}" if own else stored
        one = members.setdefault(key, Member(replace(layout, name=key), (), (), own))
        members[key] = one._replace(sets=tuple(dict.fromkeys((*one.sets, set_name))))
    if len(members) == 1:
        return layouts.load(sets[0].stored)
    same = _Same(layouts, [member.layout.stored for member in members.values()])
    places: dict[Any, int] = {}
    for key, member in members.items():
        points = _points(key, member, same)
        members[key] = member._replace(index=tuple(places.setdefault(point, len(places)) for point in points))
        _check(name, members[key])
    for key in layouts.rows:  # layouts that are a selection of these landmarks, such as the eyes of 68
        if key not in members and not layouts.is_union(key):
            layout = layouts.load(key)
            points = [same[layout.stored, i] for i in layout.selected]
            if all(point in places for point in points) and len(set(points)) == len(points):
                members[key] = Member(layout, tuple(places[point] for point in points))
    return _joined(name, members, len(places))


def check_names(where: str, names: Iterable[str], known: list[str]) -> None:
    """Raise UserError, which begins with `where`, for a name that none of the training sets `known` has, or several."""
    for name in names:
        if name not in known:
            raise UserError(
                f"{where} names '{name}', which is no training set (there are: {', '.join(known)}){nearest(name, known)}"
            )
        if known.count(name) > 1:
            raise UserError(
                f"{where} names '{name}', but {known.count(name)} training sets have this name; rename a folder"
            )


def labels_to(layout: Layout, labelled: Labelled, layouts: Layouts) -> Conversion | None:
    """Return the conversion of a set's labels to a plain layout, stored whole, or to a union; None if there is none."""
    if isinstance(layout, Union):
        return to_union(labelled, layout, layouts)
    return conversion(labelled.stored, layout.stored, layouts)


def member_of(union: Layout, labelled: Labelled) -> Member | None:
    """Return the member of a union that has the labels of a set; None if there is none, and for a plain layout."""
    if not isinstance(union, Union):
        return None
    members = [member for member in union.members.values() if member.layout.stored == labelled.stored]
    return next(
        (member for member in members if labelled.set_name in member.sets),
        next((member for member in members if member.layout.name == labelled.stored), None),
    )


def to_union(labelled: Labelled, union: Union, layouts: Layouts) -> Conversion | None:
    """Return the conversion of a set's labels to a union; None if it gives no landmark.

    It gives the set's own landmarks as they are, and those that the rules compute from them, unless these are landmarks
    that the set labels by a convention of its own.
    """
    stored = labelled.stored
    mine = member_of(union, labelled) or Member(layouts.load(stored), ())
    same, own = _Same(layouts, [stored, *(member.layout.stored for member in union.members.values())]), list(mine.own)
    places = {
        point: i
        for key, member in union.members.items()
        if member.sets
        for point, i in zip(_points(key, member, same), member.index, strict=True)
    }
    ways = {other: way for other in same.layouts if (way := conversion(stored, other, layouts))}
    half = next((way.half for way in ways.values()), None)
    x, y = np.zeros((2, 2 if half else 1, union.count, mine.layout.count))
    known = np.zeros(union.count, bool)
    for number, i in enumerate(mine.index):
        x[:, i, number] = y[:, i, number] = 1
        known[i] = True
    for other, way in ways.items():
        for landmark in np.flatnonzero(way.has_rule.any(0)):
            i, uses = places.get(same[other, int(landmark)]), (way.x[:, landmark] > 0) | (way.y[:, landmark] > 0)
            if i is not None and not known[i] and not uses[:, own].any():
                x[:, i], y[:, i], known[i] = way.x[:, landmark], way.y[:, landmark], True
    return Conversion(x, y, half) if known.any() else None


def labelled_by(layout: Layout, layouts: Layouts) -> np.ndarray | None:
    """Return (S, N) bool: whether the sets of each layout that was trained label each landmark of a union; None for a
    plain layout.
    """
    if not isinstance(layout, Union):
        return None
    learnt = [Labelled(member.sets[0], member.layout.stored) for member in layout.members.values() if member.sets]
    ways = [to_union(labelled, layout, layouts) for labelled in learnt]
    return np.stack([way.has_rule.any(0) for way in ways if way]) if ways else None


def described(union: Union, layouts: Layouts) -> Iterator[str]:
    """Yield lines for the log: the layouts of a union, and each one whose sets label no landmark that sets of other
    layouts label too.
    """
    learnt = {name: member for name, member in union.members.items() if member.sets}
    names = ", ".join(f"{name} ({', '.join(member.sets)})" for name, member in learnt.items())
    yield f"layout {union.name}: {union.count} landmarks of layouts {names}"
    labelled = labelled_by(union, layouts)
    if labelled is None:
        return
    for row, member in zip(labelled, learnt.values(), strict=True):
        if not (row & (labelled.sum(0) > 1)).any():
            yield (
                f"{', '.join(member.sets)}: no rule relates layout {member.layout.name} to the others, so its "
                f"{member.layout.count} landmarks are learnt as a group of their own; same_as in its row says which ones are "
                "landmarks of another layout"
            )


class _Same:
    """same[point] is the same value for all points that mean the same. layouts: names of those that are compared."""

    def __init__(self, layouts: Layouts, names: list[str]):
        known = {
            name: layouts.load(name) for name in dict.fromkeys([*names, *(name for rule in RULES for name in rule)])
        }
        self.layouts, self.parent = list(known), {}
        for (source, target), rules in RULES.items():
            for landmark, rule in enumerate(rules):
                if isinstance(rule, int) and source not in HALF:
                    self._join((target, landmark), (source, rule))
        for name, layout in known.items():
            for other, pairs in layout.same_as.items():
                flip = layouts.load(other).flip_index
                for landmark, there in pairs.items():
                    self._join((name, landmark), (other, there))
                    self._join((name, layout.flip_index[landmark]), (other, flip[there]))

    def __getitem__(self, point: Point) -> Point:
        while point in self.parent:
            point = self.parent[point]
        return point

    def _join(self, one: Point, other: Point) -> None:
        one, other = self[one], self[other]
        if one != other:
            self.parent[one] = other


def _points(key: str, member: Member, same: _Same) -> list[Point]:
    """Return a value for each landmark of a member: landmarks that mean the same have the same value."""
    return [(key, i) if i in member.own else same[member.layout.stored, i] for i in range(member.layout.count)]


def _own(name: str, set_name: str, given: Any, layout: Layout) -> tuple[int, ...]:
    """Return the landmarks that `conventions` of layout `name` lists for a set: groups of its layout, or indices.
    UserError.
    """
    found: set[int] = set()
    for one in given if isinstance(given, list) else [given]:
        try:
            found |= set(layout.groups[one] if one in layout.groups else indices([one]))
        except (TypeError, ValueError):
            raise UserError(
                f"layout '{name}': conventions of {set_name} names '{one}', which is neither a group nor a landmark of "
                f"layout {layout.name}{nearest(str(one), layout.groups)}"
            ) from None
    for i in sorted(found):
        if not i < layout.count:
            raise UserError(
                f"layout '{name}': conventions of {set_name} names landmark {i}, but layout {layout.name} has "
                f"0..{layout.count - 1}"
            )
        if layout.flip_index[i] not in found:
            raise UserError(
                f"layout '{name}': conventions of {set_name} names landmark {i} of layout {layout.name} without its "
                f"mirror partner {layout.flip_index[i]}; name both"
            )
    return tuple(sorted(found))


def _check(name: str, member: Member) -> None:
    """Raise UserError, naming the set and the point, if two landmarks of a layout became one in the union."""
    for i, place in enumerate(member.index):
        if (first := member.index.index(place)) < i:
            names = member.layout.point_names()
            raise UserError(
                f"layout '{name}', set {', '.join(member.sets)}: landmarks {first} ({names[first]}) and {i} "
                f"({names[i]}) of layout {member.layout.name} are the same one of another layout; correct same_as"
            )


def _joined(name: str, members: dict[str, Member], count: int) -> Union:
    """Return the union of members whose `index` is known. Groups of one name are joined."""
    flip = list(range(count))
    groups: dict[str, dict[int, None]] = {}
    same_as: dict[str, dict[int, int]] = {}
    learnt = {key: member for key, member in members.items() if member.sets}
    for key, member in learnt.items():
        layout, index = member.layout, member.index
        for i, mirror in enumerate(layout.flip_index):
            flip[index[i]] = index[mirror]
        for group, ids in layout.groups.items():
            groups.setdefault(group, {}).update(dict.fromkeys(index[i] for i in ids))
        same = {i: number for number, i in enumerate(index)}
        same_as.setdefault(layout.stored, same)
        same_as[key] = same  # of a convention, or the layout itself instead of its conventions
    first = next(iter(learnt.values()))

    def normed(key: str) -> Any:
        """Return landmarks of the first layout that has such a norm."""
        for member in learnt.values():
            if (ids := getattr(member.layout, key)) is not None:
                return tuple(
                    tuple(member.index[i] for i in one) if isinstance(one, tuple) else member.index[one] for one in ids
                )
        return None

    whole = {group: tuple(ids) for group, ids in groups.items()}
    closed = tuple(group for group in first.layout.closed if whole[group] == first.layout.groups[group])
    union = Union(
        name,
        count,
        tuple(flip),
        normed("interocular"),
        normed("pupils"),
        whole,
        closed,
        tuple(range(count)),
        "+".join(learnt),
        same_as,
        members=members,
    )
    if wrong := contradiction(union):
        raise UserError(f"layout '{name}': {wrong}")
    return union
