"""Makes `pipnet.layout.Layout` from the rows of `layouts:` in args.yaml."""

import re
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from pipnet.bounds import MOST_LANDMARKS
from pipnet.errors import UserError
from pipnet.layout import Layout, contradiction
from utils.settings.yaml_files import nearest, read_yaml

KEYS = (
    "count",
    "flip_index",
    "interocular",
    "pupils",
    "groups",
    "closed",
    "same_as",
    "of",
    "selected_index",
    "conventions",
)


NEEDED = {
    "count": "the number of its landmarks",
    "flip_index": "a list with, for each landmark, its index in a mirror image",
    "selected_index": "a list of the landmarks that it has, given as the flip index of that subset",
}  # {key: what it is}


class Layouts(NamedTuple):
    """The layouts that a run knows: those of args.yaml, of its checkpoint and of a --layout file. rows: {name: row}."""

    rows: dict[str, Any]

    def load(self, name: str, selected_index: list[int] | None = None) -> Layout:
        """Return the layout of a row, restricted to `selected_index` if given. Raise UserError for a bad row."""
        name = str(name)
        row = self._row(name)
        if self.is_union(name):
            raise UserError(f"layout '{name}' is made from the layouts of several training sets; name another one here")
        if "of" not in row:
            layout = self._whole(name, row)
            return subset(layout, name, tuple(selected_index)) if selected_index else layout
        if derived := sorted(row.keys() - {"of", "selected_index"}):
            raise UserError(f"layout '{name}' is a subset (of), from which {derived[0]} is derived; leave it out")
        others = Layouts({key: values for key, values in self.rows.items() if key != name})  # a circular `of` ends here
        with _malformed(name):
            return subset(others.load(row["of"]), name, indices(selected_index or row["selected_index"]))

    def with_count(self, count: int) -> list[Layout]:
        """Return the layouts of that many landmarks."""
        return [self.load(name) for name, row in self.rows.items() if row.get("count") == count]

    def same(self, one: str, other: str) -> bool:
        """Return whether two rows are one layout, such as those that were made from the same names for two folders."""
        rows = [without_same(self.rows[name]) for name in (one, other) if name in self.rows]
        return one == other or (len(rows) == 2 and rows[0] == rows[1])

    def is_union(self, name: str | None) -> TypeGuard[str]:
        """Return whether a row stands for the layouts of all training sets together: it has `conventions` instead of
        `count`.
        """
        row = self.rows.get(str(name))
        return isinstance(row, dict) and "conventions" in row and "count" not in row

    def plain(self, name: str | None) -> str | None:
        """Return `name`; None for that of a union, in whose place each set has its own layout."""
        return None if self.is_union(name) else name

    def conventions(self, name: str) -> dict[str, Any]:
        """Return {set: the landmarks that it labels by its own convention} of the row of a union.
        UserError if malformed.
        """
        row = self._row(name)
        if odd := sorted(row.keys() - {"conventions"}):
            raise UserError(
                f"layout '{name}' is made from those of the training sets, and so is {odd[0]}; leave it out"
            )
        found = row["conventions"] or {}
        if not isinstance(found, dict):
            raise UserError(f"layout '{name}': conventions must be a table of sets and their landmarks, not {found!r}")
        return {str(set_name): ids for set_name, ids in found.items()}

    def with_rows(self, rows: dict[str, Any]) -> "Layouts":
        """Return these layouts and `rows`, which replace rows of the same name."""
        return Layouts({**self.rows, **rows})

    def with_file(self, file: str) -> tuple[str, "Layouts"]:
        """Return (name, layouts with the one row of `file`). Raise UserError for a file that holds something else.

        Beside the row of a union, a file may hold layouts of its training sets.
        """
        names, layouts = self.with_rows_of(file)
        names = [name for name in names if layouts.is_union(name)] or names
        if len(names) != 1:
            raise UserError(
                f"{file} must hold one layout, not {len(names)}; give a file of several as --layouts FILE.yaml"
            )
        return names[0], layouts

    def with_rows_of(self, file: str) -> tuple[list[str], "Layouts"]:
        """Return (names of the rows in `file`, layouts with them). UserError for a file that holds something else."""
        rows = {str(name): row for name, row in read_yaml(Path(file)).items()}
        layouts = self.with_rows(rows)
        if not rows or not all(isinstance(row, dict) for row in rows.values()):
            raise UserError(f"{file} must hold layouts: a line 'NAME:' and below it, indented, count, flip_index, ...")
        for name, row in rows.items():
            if "same_as" not in row and without_same(self.rows.get(name, {})) == row:
                layouts.rows[name] = self.rows[name]  # a training has found `same_as`
            elif name in self.rows and self.rows[name] != row:
                raise UserError(
                    f"{file}: there is another layout '{name}' already, in args.yaml or in the trained run; choose "
                    "another name, or leave --layout out"
                )
            (layouts.conventions if layouts.is_union(name) else layouts.load)(name)
        return list(rows), layouts

    def _row(self, name: str) -> dict[str, Any]:
        """Return the row of that name. UserError for an unknown name or key."""
        if name not in self.rows:
            raise UserError(
                f"no layout '{name}' in args.yaml (there are: {', '.join(self.rows)}; or give a file that holds it: "
                f"--layout FILE.yaml){nearest(name, self.rows)}"
            )
        row = self.rows[name]
        if not isinstance(row, dict):
            raise UserError(f"layout '{name}' must be a table of keys (count, flip_index, ...), not {row!r}")
        if unknown := [key for key in row if key not in KEYS]:
            raise UserError(f"unknown key '{unknown[0]}' in layout '{name}'{nearest(unknown[0], KEYS)}")
        return row

    def _whole(self, name: str, row: dict[str, Any]) -> Layout:
        """Return the layout of a row that is no subset of another."""
        with _malformed(name):
            (count,) = indices([row["count"]])
            if not 0 < count <= MOST_LANDMARKS:
                raise ValueError(f"count must be 1 to {MOST_LANDMARKS}, not {count}")
            flip = indices(row["flip_index"])
            eyes, pupils, groups = row.get("interocular"), row.get("pupils"), row.get("groups")
            if groups is None:
                groups = {str(i): [i] for i in range(count)}
            if empty := [group for group, ids in groups.items() if not ids]:
                raise ValueError(f"the group {empty[0]} has no landmark")
            layout = Layout(
                name,
                count,
                flip,
                eyes and indices(eyes),
                pupils and (indices(pupils[0]), indices(pupils[1])),
                {str(group): indices(ids) for group, ids in groups.items()},
                tuple(row.get("closed") or ()),
                tuple(range(count)),
                name,
                self._same_as(name, flip, row.get("same_as") or {}),
            )
        _check(layout)
        return layout

    def _same_as(self, name: str, flip: tuple[int, ...], row: dict) -> dict[str, dict[int, int]]:
        """Return `same_as` of a row, each layout replaced by the one that its data is stored in.
        UserError for bad pairs.
        """
        found: dict[str, dict[int, int]] = {}
        plain = Layouts({key: without_same(values) for key, values in self.rows.items()})
        for other, pairs in row.items():
            there = plain.load(other)
            pairs = {int(i): int(j) for i, j in pairs.items()}
            for i, j in pairs.items():
                if not 0 <= j < there.count:
                    raise UserError(
                        f"layout '{name}': same_as {other} names landmark {j}, but there are 0..{there.count - 1}"
                    )
                mirror = pairs.get(flip[i]) if 0 <= i < len(flip) else None
                if mirror is not None and mirror != there.flip_index[j]:
                    raise UserError(
                        f"layout '{name}': {i} is {j} of {other}, so its mirror partner {flip[i]} must be "
                        f"{there.flip_index[j]} there, not {mirror}; are left and right swapped?"
                    )
            if len(set(pairs.values())) < len(pairs):
                raise UserError(f"layout '{name}': two landmarks are the same one of layout {other} (same_as)")
            found.setdefault(there.stored, {}).update({i: there.selected[j] for i, j in pairs.items()})
        return found


@contextmanager
def _malformed(name: str):
    """Turn the errors that a malformed row causes into a UserError that names its layout."""
    try:
        yield
    except KeyError as error:
        raise UserError(
            f"layout '{name}' lacks the key {error.args[0]}, {NEEDED.get(error.args[0], 'which it names')}"
        ) from None
    except (AttributeError, IndexError, OverflowError, TypeError, ValueError) as error:
        raise UserError(f"layout '{name}' is malformed: {type(error).__name__} {error}") from None


def without_same(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without `same_as`, on which no prepared set depends."""
    return {key: value for key, value in row.items() if key != "same_as"}


def indices(values) -> tuple[int, ...]:
    """Return the indices that a list means: [1, "3-5"] -> (1, 3, 4, 5)."""
    found: list[int] = []
    for value in values:
        match = re.fullmatch(r"(\d+)-(\d+)", str(value))
        if match and int(match[2]) >= MOST_LANDMARKS:
            raise ValueError(f"{value} is beyond the {MOST_LANDMARKS} landmarks that a layout may have")
        if int(match[1]) > int(match[2]) if match else int(value) != float(value):
            raise ValueError(f"{value} is neither an index nor a range such as 0-9")
        found += range(int(match[1]), int(match[2]) + 1) if match else [int(value)]
    return tuple(found)


def normalised(name: str) -> str:
    """Return the name of a point without case and separators: "Left-Eye" and "left_eye" are one name."""
    return re.sub(r"[\s_.:/-]+", "", name).casefold()


def _check(layout: Layout) -> None:
    """Raise UserError if indices, mirror partners or closed groups of a layout contradict each other."""
    if wrong := contradiction(layout):
        raise UserError(f"layout '{layout.name}': {wrong}")
    if unknown := [group for group in layout.closed if group not in layout.groups]:
        hint = nearest(unknown[0], layout.groups)
        raise UserError(f"layout '{layout.name}': closed names '{unknown[0]}', which is no group{hint}")


def subset(layout: Layout, name: str, selected_index: tuple[int, ...]) -> Layout:
    """Return the layout of some landmarks of `layout`.
    selected_index: their mirror partners, in the order of the landmarks.

    UserError if these are not the mirror partners of each other.
    """
    selected = tuple(sorted(set(selected_index)))
    if (
        len(selected) != len(selected_index)
        or not selected
        or selected[-1] >= layout.count
        or selected[0] < 0
        or any(layout.flip_index[i] != mirror for i, mirror in zip(selected, selected_index, strict=False))
    ):
        raise UserError(
            f"selected_index of layout '{name}' must be the mirror partners of the chosen landmarks in ascending "
            f"order of these; for landmarks {list(selected)} of layout {layout.name} that is "
            f"{[layout.flip_index[i] for i in selected if 0 <= i < layout.count]}"
        )
    place = {old: new for new, old in enumerate(selected)}

    def keep(ids) -> tuple[int, ...]:
        return tuple(place[i] for i in ids if i in place)

    groups = {group: keep(ids) for group, ids in layout.groups.items()}
    eyes = layout.interocular and keep(layout.interocular)
    pupils = layout.pupils and (keep(layout.pupils[0]), keep(layout.pupils[1]))
    return Layout(
        name if name != layout.name or len(selected) == layout.count else f"{layout.name}:{len(selected)}",
        len(selected),
        tuple(place[i] for i in selected_index),
        eyes if eyes and len(eyes) == 2 else None,
        pupils if pupils and all(pupils) else None,
        {group: ids for group, ids in groups.items() if ids},
        layout.closed,
        tuple(layout.selected[i] for i in selected),
        layout.stored,
        {other: {place[i]: j for i, j in pairs.items() if i in place} for other, pairs in layout.same_as.items()},
    )
